"""Public reports: scans that are misread or passed over, IDs of patients, results of other files."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from report_inputs import GRID, a_label, a_scan, dicom_slice, segmentation

from crossmoda import volume
from crossmoda.dataset import Case, open_dataset, validate
from crossmoda.dataset.case_id import id_of_file
from crossmoda.dataset.label_reading import read_label
from crossmoda.dataset.sequences import kind_of
from crossmoda.errors import InputError
from crossmoda.provenance import checksum

# --- data sets ---


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def cases_of(folder: Path) -> list[tuple[str, str, str | None]]:
    return [(case.id, case.modality, case.label and case.label.name) for case in open_dataset(folder).cases]


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("t2_space_tra_mpr", "hrT2"),
        ("DRIVE_3D_IAC", "hrT2"),
        ("B-FFE XD IAC", "hrT2"),
        ("Ax 3D SPACE IAC", "hrT2"),
        ("FIESTA +GD", "hrT2"),
        ("AX FSPGR +C", "ceT1"),
        ("VIBE KM tra", "ceT1"),
        ("t2_tirm_tra_dark-fluid_FLAIR", None),
        ("T2* GRE", None),
        ("localizer t2_haste", None),
        ("ep2d_diff_b1000_t2", None),
        ("t2_tse_tra_5mm", None),
        ("T1 SE tra nativ", None),
        ("subtraction", None),
    ],
)
def test_the_description_of_a_series_says_what_it_is(description: str, kind: str | None) -> None:
    assert kind_of({}, description) == kind


def test_the_attributes_of_a_series_come_before_its_words() -> None:
    assert kind_of({"EchoTime": 390, "InversionTime": 1800}, "t2 sag 3d") is None
    assert kind_of({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "t2") is None
    assert kind_of({"Modality": "CT"}, "T2 Fenster") is None
    assert kind_of({"SequenceName": "*ci3d1_20"}, "Innenohr") == "hrT2"
    assert kind_of({"EchoTime": 200, "RepetitionTime": 1400, "SliceThickness": 0.6}, "Felsenbein") == "hrT2"
    assert kind_of({"EchoTime": 4, "RepetitionTime": 10, "ContrastBolusAgent": "Gadovist"}, "Felsenbein") == "ceT1"
    assert kind_of({"SliceThickness": 5}, "t2 tra") is None


def test_an_unknown_series_is_named_and_can_be_assigned(tmp_path: Path) -> None:
    for number in range(3):
        dicom_slice(tmp_path / "a" / f"{number}.dcm", number, SeriesDescription="Innenohr")
        dicom_slice(tmp_path / "b" / f"{number}.dcm", number, SeriesInstanceUID="1.2.9")
    data = open_dataset(tmp_path)
    assert len(data.cases) == 1
    assert 'Series neither ceT1 nor hrT2, left out: "Innenohr" in' in data.notes[0]
    (tmp_path / "series_names.json").write_text('{"Innenohr": "hrT2"}')
    assert len(open_dataset(tmp_path).cases) == 2


@pytest.mark.parametrize(
    "label",
    [".seg.nrrd", "-label.nrrd", "_mask.nii.gz", "_segmentation.nii.gz", "_gt.nii.gz", " Segmentation.seg.nrrd"],
)
def test_the_label_endings_of_slicer_and_itk_snap_are_labels(tmp_path: Path, label: str) -> None:
    touch(tmp_path, "anna_ceT1.nii.gz", f"anna_ceT1{label}")
    assert cases_of(tmp_path) == [("anna", "ceT1", f"anna_ceT1{label}")]


def test_bids_and_nnunet_layouts_are_read(tmp_path: Path) -> None:
    touch(
        tmp_path / "bids",
        "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-ciss_T2w.nii.gz",
        "derivatives/sub-01/anat/sub-01_space-T2w_dseg.nii.gz",
        "derivatives/sub-01/anat/sub-01_dseg.nii.gz",
    )
    assert cases_of(tmp_path / "bids") == [
        ("sub-01", "ceT1", "sub-01_dseg.nii.gz"),
        ("sub-01", "hrT2", "sub-01_space-T2w_dseg.nii.gz"),
    ]
    touch(tmp_path / "nn", "imagesTr/vs_001_0000.nii.gz", "labelsTr/vs_001.nii.gz", "imagesTs/vs_002_0000.nii.gz")
    (tmp_path / "nn" / "dataset.json").write_text('{"channel_names": {"0": "ceT1"}}')
    assert cases_of(tmp_path / "nn") == [("vs_001", "ceT1", "vs_001.nii.gz"), ("vs_002", "ceT1", None)]


def test_a_name_that_is_nearly_one_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a_T2.nii.gz", "sub.02_T2_denoised.nii.gz", "sub.03-T2.nii.gz")
    notes = open_dataset(tmp_path).notes
    assert len(notes) == 2 and "sub.02_T2_denoised.nii.gz" in notes[0] and "sub.03-T2.nii.gz" in notes[1]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a_T2.nii.gz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "lost_T2.nii.gz").symlink_to(tmp_path / "nothing")
    data = open_dataset(tmp_path / "data")
    assert [case.id for case in data.cases] == ["a"]
    assert data.notes == (f"Link to nothing: {tmp_path / 'data' / 'lost_T2.nii.gz'}.",)


def test_an_rtstruct_among_the_slices_is_found_and_two_of_one_series_are_not_guessed(
    tmp_path: Path, write_rtstruct: Callable[..., None]
) -> None:
    for number in range(6):
        dicom_slice(tmp_path / f"MR.{number}.dcm", number)
    write_rtstruct(tmp_path / "RS.1.dcm", {"VS": [np.zeros((3, 3))]}, "1.2.3")
    assert [case.label and case.label.name for case in open_dataset(tmp_path).cases] == ["RS.1.dcm"]
    (tmp_path / "RS.1.dcm").write_bytes((tmp_path / "RS.1.dcm").read_bytes()[132:])  # without the preamble
    assert [case.label and case.label.name for case in open_dataset(tmp_path).cases] == ["RS.1.dcm"]
    write_rtstruct(tmp_path / "RS.2.dcm", {"Cochlea": [np.zeros((3, 3))]}, "1.2.3")
    data = open_dataset(tmp_path)
    assert [case.label for case in data.cases] == [None]
    assert "Several labels of one series, none used" in data.notes[0] and len(data.unpaired) == 2


# --- names of patients ---


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "12/345", "a\\b", "A:B*?", "CON", "x\x1b[2J", "", ".."])
def test_no_patient_id_leaves_the_folder_of_the_results(tmp_path: Path, name: str) -> None:
    case = Case(name, "hrT2", tmp_path / "scan.nii.gz")
    assert (tmp_path / case.id).resolve().parent == tmp_path.resolve()
    assert case.id.isprintable() and case.id not in ("", ".", "..")


def test_different_patients_never_share_a_folder(tmp_path: Path) -> None:
    names = ["1.2.840.5.nii.gz", "1.2.840.6.nii.gz", "a/b", "a_b", "a:b", "a" * 300, "a" * 301]
    ids = [Case(id_of_file(Path(name)) if ".nii" in name else name, "hrT2", tmp_path).id for name in names]
    assert len({case_id.casefold() for case_id in ids}) == len(names)
    assert ids[:2] == ["1.2.840.5", "1.2.840.6"]


# --- stale results ---


def test_a_header_of_its_own_is_identified_with_its_voxels(tmp_path: Path) -> None:
    for name, seed in (("A", 0), ("B", 1)):
        sitk.WriteImage(a_scan(seed=seed).to_sitk(), str(tmp_path / f"{name}.mhd"))
        sitk.WriteImage(a_scan(seed=seed).to_sitk(), str(tmp_path / f"{name}.nhdr"))
    for ending, data in (("mhd", "raw"), ("nhdr", "raw")):
        header = (tmp_path / f"A.{ending}").read_text()
        other = tmp_path / f"other.{ending}"
        other.write_text(header.replace(f"A.{data}", f"B.{data}"))
        again = tmp_path / f"again.{ending}"
        again.write_text(header)
        assert checksum(tmp_path / f"A.{ending}") == checksum(again) != checksum(other)


def test_a_dicom_series_is_identified_by_all_its_slices_at_each_of_them(tmp_path: Path) -> None:
    for number in range(3):
        dicom_slice(tmp_path / f"{number}.dcm", number)
    before = checksum(tmp_path / "0.dcm")
    dicom_slice(tmp_path / "2.dcm", 2, PixelData=b"\1" * (24 * 20 * 2))
    assert checksum(tmp_path / "0.dcm") != before


# --- situations of the same kinds ---


def test_ids_that_differ_by_case_only_are_duplicates(tmp_path: Path) -> None:
    for number, name in enumerate(("p1", "P1")):
        volume.write(a_scan(seed=number), tmp_path / str(number) / f"{name}_T2.nii.gz")
    assert [str(problem).count("Duplicate hrT2 image") for problem in validate(open_dataset(tmp_path))] == [1]


def test_slices_of_two_patients_in_one_series_are_refused(tmp_path: Path) -> None:
    for number in range(12):
        dicom_slice(tmp_path / f"{number}.dcm", number, PatientID="P1" if number < 6 else "P2")
    with pytest.raises(InputError, match="slices of several patients"):
        volume.read_scan(tmp_path)


def test_a_scan_of_one_value_is_a_problem(tmp_path: Path) -> None:
    volume.write(a_scan().with_array(np.full(GRID.shape, 7, np.int16)), tmp_path / "a_T2.nii.gz")
    (problem,) = validate(open_dataset(tmp_path))
    assert "The same value everywhere" in problem.message


def test_a_mapping_with_the_mark_of_windows_editors_is_read(tmp_path: Path) -> None:
    path = segmentation(tmp_path / "label.seg.nrrd", {"Befund": 1, "Cochlea": 2}, a_label().array)
    (tmp_path / "structure_names.json").write_bytes(b'\xef\xbb\xbf{"Befund": "VS"}')
    assert np.array_equal(read_label(path).array, a_label().array)
