"""Data sets for other trainers, the report of a patient, the check of an installation, and what the command refuses."""

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from crossmoda import cli, jit_cache, printing, requirements, volume
from crossmoda.dataset.case_id import safe_id
from crossmoda.errors import InputError
from crossmoda.measurement import measure
from crossmoda.measurement.files import FileMeasures
from crossmoda.measurement.report import About, about_scan, write_report
from crossmoda.requirements import Requirement
from crossmoda.volume import Grid, Volume
from dicom_series import write_series

PROJECT = Path(__file__).resolve().parents[2]
GRID = Grid((40, 20, 8), (1.0, 1.0, 2.0), (-20.0, 0.0, 5.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def scan_and_label() -> tuple[Volume, Volume]:
    rng = np.random.default_rng(0)
    array = np.zeros(GRID.shape, np.uint8)
    array[2:6, 6:12, 28:36], array[3:5, 4:6, 2:5], array[3:5, 4:6, 36:38] = 1, 2, 2
    return Volume(rng.normal(100, 9, GRID.shape).astype(np.float32), GRID), Volume(array, GRID)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of two labeled hrT2 scans and one without a label."""
    for name in ("a 1", "b_2", "c"):
        scan, label = scan_and_label()
        volume.write(scan, tmp_path / "data" / f"{name}_hrT2.nii.gz")
        if name != "c":
            volume.write(label, tmp_path / "data" / f"{name}_hrT2_label.nii.gz")
    return tmp_path / "data"


def test_an_nnunet_data_set_has_what_its_integrity_check_asks_for(data, tmp_path, run):
    folder = tmp_path / "Dataset501_CrossModa"
    code, out, err = run("export", data, "-o", folder)
    assert code == 0 and "2 labeled scans" in out and "left out: c" in err
    about = json.loads((folder / "dataset.json").read_text())
    assert about["numTraining"] == 2 and about["file_ending"] == ".nii.gz"
    assert about["labels"] == {"background": 0, "VS": 1, "cochlea": 2} and about["channel_names"] == {"0": "hrT2"}
    images = sorted(path.name.removesuffix("_0000.nii.gz") for path in (folder / "imagesTr").iterdir())
    assert images == sorted(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())
    for name in images:
        image, label = volume.read(folder / f"imagesTr/{name}_0000.nii.gz"), folder / f"labelsTr/{name}.nii.gz"
        back = volume.read_label_map(label)
        assert back.grid.same_as(image.grid, 1e-4) and np.array_equal(back.array, scan_and_label()[1].array)


def test_bids_derivatives_lie_beside_the_scans(data, tmp_path, run):
    code, _, _ = run("export", data, "-o", tmp_path / "bids", "--format", "bids")
    assert code == 0 and (tmp_path / "bids/sub-b2/anat/sub-b2_T2w.nii.gz").exists()
    derivatives = tmp_path / "bids/derivatives/crossmoda"
    assert (derivatives / "sub-b2/anat/sub-b2_space-orig_dseg.nii.gz").exists()
    assert json.loads((derivatives / "dataset_description.json").read_text())["DatasetType"] == "derivative"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("set", "Not a name of an nnU-Net data set: set"), ("Dataset501_Full", "folder is not empty")],
)
def test_an_unusable_folder_is_refused_before_anything_is_written(data, tmp_path, run, name, sentence):
    folder = tmp_path / name
    if name.endswith("Full"):
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run("export", data, "-o", folder)
    assert code == 2 and sentence in err and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["r.json", "r.csv"])
def test_a_report_replaces_itself_and_nothing_that_only_has_its_name(tmp_path, name):
    scan, label = scan_and_label()
    result = FileMeasures(measure(label), label, scan)
    (tmp_path / name).write_text('{"EchoTime": 0.1}', encoding="utf-8")
    with pytest.raises(InputError, match=rf"Not of a report, and would be replaced by one: .*{name}\."):
        write_report(result, tmp_path / "r.html", About({}))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()
    first, again = (write_report(result, tmp_path / "r.html", About({})) for _ in range(2))
    assert first == again and all(path.exists() for path in again)


def test_the_report_is_one_file_with_pictures_measures_and_no_name(tmp_path):
    scan, label = scan_and_label()
    record = {
        "created": "2026-11-30",
        "crossmoda": "9.9",
        "inputs": {"image": {"name": "Doe_Jane.nii", "sha256": "ab"}},
    }
    result = FileMeasures(measure(label), label, scan)
    html, as_json, table = write_report(result, tmp_path / "r.html", About(record, "Trained on simulated tumors only."))
    text = html.read_text("utf-8")
    assert "largest axial diameter [mm]" in text and "Trained on simulated tumors only." in text
    assert text.count("data:image/png;base64,") == 3 and not re.search(r"(src|href)=\"(?!data:)", text)
    assert "Doe_Jane" not in text + as_json.read_text() + table.read_text()
    assert json.loads(as_json.read_text())["tumors"][0]["side"] == "left" and table.read_text().count("\n") == 4


def test_the_patient_is_named_only_on_request(tmp_path):
    scan, label = scan_and_label()
    write_series(tmp_path / "t2", scan, PatientName="Doe^Jane", PatientID="4711", SeriesDate="20260302")
    result = FileMeasures(measure(label), label, scan)
    for identify in (False, True):
        date, patient = about_scan(tmp_path / "t2", identify)
        files = write_report(result, tmp_path / "r.html", About({}, date=date, patient=patient))
        content = "".join(file.read_text("utf-8") for file in files)
        assert "2026-03-02" in content
        assert ("Doe^Jane" in content, "4711" in content) == (identify, identify)


def test_a_pdf_is_one_page_or_says_what_is_missing(tmp_path, monkeypatch):
    scan, label = scan_and_label()
    result = FileMeasures(measure(label), label, scan)
    try:
        printing.browser()
    except InputError:
        pass
    else:
        *_, pdf = write_report(result, tmp_path / "r.html", About({"created": "2026-11-30T10:00"}), pdf=True)
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF") and len(re.findall(rb"/Type */Page\b", content)) == 1
        pdf.unlink()
        (tmp_path / "r.html").unlink()
    monkeypatch.setattr(printing, "_NAMES", ())
    monkeypatch.setattr(printing, "_PLACES", ())
    with pytest.raises(InputError, match=r"No Chromium.* Write the page without a PDF, open it in a browser"):
        write_report(result, tmp_path / "r.html", About({}), pdf=True)
    assert not (tmp_path / "r.html").exists()


def test_a_report_of_a_label_without_a_tumor_says_so(tmp_path):
    scan, label = scan_and_label()
    label = label.with_array(np.where(label.array == 1, 0, label.array).astype(np.uint8))
    html, *_ = write_report(FileMeasures(measure(label), label, scan), tmp_path / "r.html", About({}))
    assert "No tumor." in html.read_text("utf-8")


def test_the_doctor_names_what_is_missing_or_too_old(monkeypatch, run):
    code, out, _ = run("doctor", "--json")
    names = {check["name"]: check for check in json.loads(out)}
    assert code == 0 and {"Python", "torch", "filelock", "memory", "compiled code", "disk"} <= set(names)
    known = [Requirement("numpy>=1.26"), Requirement("numba>=99"), Requirement("nobody-has-it>=1")]
    monkeypatch.setattr(requirements, "declared", lambda: [*known, Requirement("nor-this", "study")])
    code, out, _ = run("doctor")
    assert code == 2
    assert 'FAIL  nobody-has-it     Package not installed: nobody-has-it. Run: pip install "nobody-has-it>=1".' in out
    assert "FAIL  numba             Package too old: 0." in out and "OK    numpy " in out
    assert "OK    nor-this          not installed; needed for studies only" in out


def test_the_doctor_says_where_compiled_code_is_kept(monkeypatch, run):
    checks = json.loads(run("doctor", "--json")[1])
    assert [Path(check["text"]).is_dir() for check in checks if check["name"] == "compiled code"] == [True]
    monkeypatch.setattr(jit_cache, "folder", lambda: None)
    assert "not kept; each run compiles it again" in run("doctor")[1]


def test_what_is_needed_is_declared_once(monkeypatch):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    always = {Requirement(text).name for text in project["dependencies"]}
    assert {item.name for item in requirements.declared() if not item.extra} == always
    extras = {item.extra for item in requirements.declared()} - {""}
    assert extras == set(project["optional-dependencies"])

    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_installed)
    in_slicer = [item.name for item in requirements.declared()]
    assert in_slicer[0] == "torch" and {"filelock", "numba", "jinja2"} < set(in_slicer)
    bundled = {"numpy", "scipy", "simpleitk", "pydicom"}
    assert always - bundled < set(in_slicer)


def test_validate_prints_cases_and_problems_as_json(data, run):
    code, out, _ = run("validate", data, "--json")
    content = json.loads(out)
    assert code == (2 if content["problems"] else 0)
    assert [case["id"] for case in content["cases"]] == ["a 1", "b_2", "c"]


def test_a_mistyped_command_gets_a_suggestion(run):
    code, _, err = run("segmnt", "x")
    assert code == 2 and "segment" in err


def test_predict_is_still_understood():
    import click

    context = click.Context(cli.crossmoda_command)
    assert cli.crossmoda_command.get_command(context, "predict") is not None
    assert "predict" not in cli.crossmoda_command.list_commands(context)


def test_a_folder_of_images_with_any_names_is_a_list_of_scans(data):
    from crossmoda.inference.scan_files import scans_of

    scans = scans_of([data])
    assert set(scans) == {path.name.removesuffix(".nii.gz") for path in data.iterdir()}
    with pytest.raises(InputError, match="named twice"):
        scans_of([data, next(data.iterdir())])
    assert list(scans_of([data / "con.nii.gz", data / "x?.nii.gz"])) == [safe_id("con"), safe_id("x?")]


def test_the_demo_refuses_a_folder_that_it_did_not_make(tmp_path, run):
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run("demo", "--output", tmp_path)
    assert code == 2 and "not empty" in err and [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_scans_have_a_row_each_also_where_one_fails(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from crossmoda.inference import scan_files

    def predicted(image, segmentation, *_):
        if image.name == "broken":
            raise InputError("Cannot read broken.")
        _, label = scan_and_label()
        return SimpleNamespace(measures=measure(label), label_map=label, provenance={"notes": ["Doubtful."]})

    monkeypatch.setattr(scan_files, "predict_files", predicted)
    scans = {name: tmp_path / name for name in ("a", "broken", "12:30")}
    _, failures = scan_files.predict_scans(scans, tmp_path / "results")
    header, *rows = (tmp_path / "results" / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert list(failures) == ["broken"]
    assert [row.split(",")[0] for row in rows] == ["a", "broken", safe_id("12:30")], "no file has a colon in its name"
    assert header.startswith("scan,tumors,side,volume [mm3]") and header.endswith(",notes,failure")
    assert rows[0].startswith("a,1,left,") and "Doubtful." in rows[0]
    assert rows[1].endswith(",Cannot read broken.")
    assert len((tmp_path / "results" / "measures.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 3


def test_a_label_becomes_a_dicom_seg_whatever_the_output_is_called(run, tmp_path):
    (tmp_path / "a.nii.gz").touch()
    code, _, err = run("export", tmp_path / "a.nii.gz", "--scan", tmp_path, "-o", tmp_path / "b.nii.gz")
    assert code == 2 and "b.nii.gz. Use .dcm." in err
