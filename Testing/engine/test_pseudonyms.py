"""Pseudonyms: stable, without the ID in any output, for every door once a data set has a key."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from report_inputs import a_label, a_scan, dicom_slice

from crossmoda import pseudonyms, study, volume
from crossmoda.dataset import Case, corrections, open_dataset
from crossmoda.dataset.named_cases import case_of_file
from crossmoda.errors import InputError
from crossmoda.provenance import Record
from crossmoda.pseudonyms import KEY_FILE, create_key, pseudonym

NAME = "Doe^Jane-1970"


def hospital(folder: Path) -> Path:
    """Write two series in folders that bear the names of patients."""
    for patient in (NAME, "Roe^Rita"):
        for number in range(12):
            uid = f"1.2.{len(patient)}"
            dicom_slice(folder / patient / f"{number}.dcm", number, PatientID=patient, SeriesInstanceUID=uid)
    return folder


def test_a_patient_has_one_pseudonym_in_every_folder_with_the_key(tmp_path: Path) -> None:
    first, second = hospital(tmp_path / "a"), hospital(tmp_path / "b")
    assert [case.id for case in open_dataset(first).cases] == [NAME, "Roe^Rita"]
    create_key([first, second])
    ids = [{case.id for case in open_dataset(folder).cases} for folder in (first, second, first)]
    assert ids[0] == ids[1] == ids[2] == {pseudonym(name, first) for name in (NAME, "Roe^Rita")}
    assert all(case_id.startswith("P-") and len(case_id) == 12 for case_id in ids[0])
    key = (first / KEY_FILE).read_text()
    create_key([first, second])
    assert (first / KEY_FILE).read_text() == key
    create_key([hospital(tmp_path / "c")])
    assert ids[0].isdisjoint(case.id for case in open_dataset(tmp_path / "c").cases)
    with pytest.raises(InputError, match="Different keys of pseudonyms"):
        create_key([first, tmp_path / "c"])


def test_a_scan_given_by_its_path_has_the_pseudonym_of_its_data_set(tmp_path: Path) -> None:
    volume.write(a_scan(), tmp_path / "anna_hrT2.nii.gz")
    create_key([tmp_path])
    (case,) = open_dataset(tmp_path).cases
    assert case_of_file(tmp_path / "anna_hrT2.nii.gz") == case.id != "anna"


@pytest.mark.parametrize("content", ["", "anna", "zz" * 16])
def test_a_damaged_key_shows_no_id(tmp_path: Path, content: str) -> None:
    volume.write(a_scan(), tmp_path / "anna_hrT2.nii.gz")
    (tmp_path / KEY_FILE).write_text(content)
    with pytest.raises(InputError, match=r"not a key of pseudonyms\. Restore it"):
        open_dataset(tmp_path)
    (tmp_path / KEY_FILE).unlink()
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="Make the key of the pseudonyms readable"):
        open_dataset(tmp_path)


def test_corrections_under_ids_are_not_lost_by_new_names(tmp_path: Path) -> None:
    volume.write(a_scan(), tmp_path / "anna_hrT2.nii.gz")
    (case,) = open_dataset(tmp_path).cases
    corrections.save(case, a_label(), tmp_path)
    with pytest.raises(InputError, match="Corrections under IDs"):
        create_key([tmp_path])


def test_records_and_messages_name_no_file(tmp_path: Path) -> None:
    data = hospital(tmp_path)
    image = data / NAME
    assert Record("predict", inputs={"image": image}).content["inputs"]["image"]["name"] == NAME
    create_key([data])
    assert Record("predict", inputs={"image": image}).content["inputs"]["image"]["name"] == "file"
    scan = data / "Jane_hrT2.seg.nrrd"
    assert pseudonyms.shown_name(scan) == "file.seg.nrrd"
    text = f"Cannot read {image / '1.dcm'}: empty; {scan.name} too."
    assert "Jane" not in pseudonyms.without_files(text, [image, scan])


def test_the_outputs_of_the_commands_hold_no_id(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    """An atlas and a target that cannot be used, so that every message is written, and nothing is computed."""
    data, results = hospital(tmp_path / "data"), tmp_path / "results"
    code, out, err = run("validate", data, "--pseudonymize")
    assert code == 0 and f"= {data / NAME}" in out, err
    listed = {line.split(" = ")[0] for line in out.splitlines() if " = " in line}
    code, out, err = run("--quiet", "predict", "--targets", data, "--output", results)
    assert code == 2 and {line.split(":")[0] for line in err.splitlines()} == listed
    assert {folder.name for folder in results.iterdir()} <= listed
    written = [file for file in results.rglob("*") if file.is_file()]
    assert not [file for file in written if b"Jane" in file.read_bytes() or "Jane" in str(file)]


def test_a_study_finds_references_by_the_ids_of_the_hospital(tmp_path: Path) -> None:
    data, references = tmp_path / "data", tmp_path / "references"
    for name in ("anna_hrT2", "bert_ceT1"):
        volume.write(a_scan(), data / f"{name}.nii.gz")
    volume.write(a_label(), data / "bert_label.nii.gz")
    volume.write(a_label(), references / "anna_Label.nii.gz")
    content = {"data": str(data), "results": str(tmp_path / "r"), "references": str(references), "pseudonymize": True}
    cohort = study.cohort.open_cohort(study.configuration.configuration(content, tmp_path))
    (target,) = cohort.targets
    assert target.id.startswith("P-") and list(cohort.references) == [target.id]
    assert dataclasses.replace(target) == Case(target.id, "hrT2", data / "anna_hrT2.nii.gz")
