"""Growth by its doors: files of one patient, a cohort, reports, the step, and the panel's request."""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

import growth_phantoms
import numpy as np
import pytest

pytest.importorskip("torch")

from growth_phantoms import FIRST, LATER, frames_in, scan

from crossmoda import growth, volume, weights
from crossmoda.errors import InputError
from crossmoda.growth import patient
from crossmoda.growth.cohort import patients_of
from crossmoda.growth.files import aligned_files, label_file, read_result
from crossmoda.growth.page import add_change
from crossmoda.measurement.growth import KEY
from crossmoda.report import Report
from crossmoda.steps.growth import STEP
from crossmoda.volume import Grid, Volume
from dicom_series import write_series
from phantoms import AXIAL


@pytest.fixture
def stub(monkeypatch):
    return growth_phantoms.stubbed(monkeypatch)


@pytest.fixture
def files(tmp_path, stub):
    """Write two scans with dates in their names; the stub finds the poses of what is read from them."""
    images = [scan(FIRST, ("left", 6.0)), scan(LATER, ("left", 7.0), seed=1)]
    paths = [tmp_path / f"anna_{day}.nii.gz" for day in ("2020-03-01", "2021-03-01")]
    for image, path in zip(images, paths, strict=True):
        volume.write(image, path)
    return paths


@pytest.fixture
def poses_by_grid(monkeypatch):
    def frames(image, label_map, progress=None):
        return frames_in(FIRST if np.allclose(image.grid.axes[:, 0], FIRST[:3, 0], atol=1e-3) else LATER)

    monkeypatch.setattr(patient.ear_alignment, "labeled_ear_frames", frames)


def test_the_command_writes_all_files_reuses_them_and_guards_edited_labels(files, poses_by_grid, run, tmp_path):
    folder = tmp_path / "growth"
    code, out, _ = run("growth", files[1], files[0], "-o", folder, "--device", "cpu")
    assert code == 0 and "Grown: " in out and "sorted by date" in out and "Alignment error of 2021-03-01" in out
    content = json.loads((folder / "growth.json").read_text("utf-8"))
    assert [point["date"] for point in content["time_points"]] == ["2020-03-01", "2021-03-01"]
    assert content["intervals"][0]["percent_per_year"]["measured"] > 20
    header, row = (folder / "growth.csv").read_text("utf-8").splitlines()
    assert header.startswith("side,from,to,days,verdict") and row.startswith("left,2020-03-01,2021-03-01,365,grown")
    first, later = (volume.read(path).grid for path in files)
    assert [point["label"] for point in content["time_points"]] == [label_file(2), label_file(1)], "numbered as given"
    assert volume.read_label_map(folder / label_file(1)).grid.same_as(later)
    assert not (folder / aligned_files(2)[0]).exists()
    scan_file, label, transform = (folder / name for name in aligned_files(1))
    assert volume.read(scan_file).grid.same_as(first) and volume.read_label_map(label).grid.same_as(first)
    assert transform.exists() and "Grown" in (folder / "growth.html").read_text("utf-8")
    assert (folder / "growth.png").read_bytes()[:4] == b"\x89PNG" and (folder / "growth.svg").exists()
    page = Report("a report", "")
    add_change(page, read_result(folder / "growth.json"))
    content["intervals"][0]["doubling_years"] = {"low": 2.04, "measured": 174.0, "high": None}
    page_of_stable = Report("a report", "")
    add_change(page_of_stable, content)
    assert "<td>over 2.0</td>" in page_of_stable.html() and "174" not in page_of_stable.html()
    assert "<td>grown</td>" in page.html() and "data:image/png" in page.html()
    stamp = (folder / "growth.json").stat().st_mtime_ns
    assert run("growth", files[1], files[0], "-o", folder, "--device", "cpu")[0] == 0
    assert (folder / "growth.json").stat().st_mtime_ns == stamp, "reused"


def test_an_edited_result_is_kept_and_the_advised_label_is_that_of_its_scan(files, poses_by_grid, run, tmp_path):
    first, later = files
    folder, options = tmp_path / "growth", ("-o", tmp_path / "growth", "--device", "cpu")
    assert run("growth", later, first, *options)[0] == 0
    label = folder / label_file(1)
    edited = volume.read_label_map(label)
    volume.write_segmentation(edited.with_array(np.zeros_like(edited.array)), label, {})
    content = {path: path.read_bytes() for path in folder.iterdir()}
    for scans, number in (((later, first), 1), ((first, later), 2)):
        code, _, error = run("growth", *scans, *options, "--criterion", "linear")
        assert code == 2 and str(label) in error and f"--label {number}=FILE" in error and error.count("\n") == 1
    code, _, error = run("growth", first, first, *options)
    assert code == 2 and "Move it to another folder, then run again." in error, "it is the label of neither scan"
    assert {path: path.read_bytes() for path in folder.iterdir()} == content
    corrected = tmp_path / "corrected.seg.nrrd"
    label.rename(corrected)
    code, out, error = run("growth", first, later, *options, "--label", f"2={corrected}")
    assert code == 0 and "The corrected label of anna_2021-03-01 has no tumor" in out, error
    (folder / "growth.csv").write_text("my remarks", encoding="utf-8")
    code, _, error = run("growth", first, later, *options)
    assert code == 2 and "growth.csv" in error and (folder / "growth.csv").read_text("utf-8") == "my remarks"


def test_weights_without_calibrated_repeatability_are_noted(files, poses_by_grid, run, tmp_path):
    tensors, card = weights.read_tensors(weights.bundled())
    for name, entry in (("odd", {"factor": float("nan"), "offset": 0.02}), ("other", None)):
        about = {key: value for key, value in card.items() if key != KEY} | ({KEY: entry} if entry else {})
        weights.write_tensors(tmp_path / f"{name}.safetensors", tensors, about)
    options = "-o", tmp_path / "growth", "--device", "cpu", "--weights"
    code, _, error = run("growth", *files, *options, tmp_path / "odd.safetensors")
    assert code == 2 and "Invalid model card (growth_repeatability: numbers for factor, offset)" in error
    code, out, _ = run("growth", *files, *options, tmp_path / "other.safetensors")
    assert code == 0 and "Note: Repeatability not calibrated for these weights" in out
    assert "Repeatability not calibrated" in (tmp_path / "growth" / "growth.html").read_text("utf-8")
    code, out, _ = run("growth", *files, "-o", tmp_path / "bundled", "--device", "cpu")
    assert code == 0 and "not calibrated" not in out


@pytest.fixture
def cohort_table(files, tmp_path):
    """Write a table of two patients, of whom the second has one scan only."""
    rows = [f"P1,{day},{path.name}" for day, path in zip(("2020-01-01", "2024-01-01"), files, strict=True)]
    table = tmp_path / "patients.csv"
    table.write_text("\n".join(["patient,date,scan", *rows, f"P2,2020-01-01,{files[0].name}"]), encoding="utf-8")
    return table


def test_a_cohort_has_one_table_and_one_page_and_a_failure_stops_no_other(cohort_table, poses_by_grid, run, tmp_path):
    code, out, error = run("growth", "--patients", cohort_table, "-o", tmp_path / "cohort", "--device", "cpu")
    assert code == 2 and "P1: Left, 2020-01-01 to 2024-01-01: Grown" in out and "P2: failed: Growth needs" in error
    lines = (tmp_path / "cohort" / "growth.csv").read_text("utf-8").splitlines()
    assert lines[1].startswith("P1,left,2020-01-01,2024-01-01,1461,grown") and "failed" in lines[2]
    assert "P1" in (tmp_path / "cohort" / "growth.html").read_text("utf-8")
    assert run("growth", "--patients", cohort_table, "-o", tmp_path / "cohort", "--device", "cpu")[1] == out
    (tmp_path / "cohort" / "growth.csv").write_text("my remarks", encoding="utf-8")
    code, out, error = run("growth", "--patients", cohort_table, "-o", tmp_path / "cohort", "--device", "cpu")
    assert (code, out) == (2, "") and "Edited since it was written" in error and error.count("\n") == 1
    assert (tmp_path / "cohort" / "growth.csv").read_text("utf-8") == "my remarks"


def test_a_cohort_on_dask_gives_the_same_table_and_reuses_finished_patients(cohort_table, poses_by_grid, run, tmp_path):
    distributed = pytest.importorskip("distributed")
    arguments = "growth", "--patients", cohort_table, "--device", "cpu", "-o"
    assert run(*arguments, tmp_path / "here")[0] == 2
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        scheduler = "--scheduler", cluster.scheduler_address
        code, out, error = run(*arguments, tmp_path / "dask", *scheduler)
        assert code == 2 and "P1: Left" in out and "P2: failed: Growth needs" in error
        here, dask = ((tmp_path / name / "growth.csv").read_text("utf-8") for name in ("here", "dask"))
        assert here == dask
        stamp = (tmp_path / "dask" / "P1" / "growth.json").stat().st_mtime_ns
        assert run(*arguments, tmp_path / "dask", *scheduler)[0] == 2
    assert (tmp_path / "dask" / "P1" / "growth.json").stat().st_mtime_ns == stamp


def test_a_report_holds_the_growth_of_its_patient(files, poses_by_grid, run, tmp_path):
    assert run("growth", *files, "-o", tmp_path / "growth", "--device", "cpu")[0] == 0
    label, result, page = tmp_path / "growth" / label_file(2), tmp_path / "growth" / "growth.json", tmp_path / "r.html"
    code, _, error = run("report", label, "--scan", files[1], "--growth", result, "-o", page)
    assert code == 0, error
    text = page.read_text("utf-8")
    change = json.loads(result.read_text("utf-8"))["intervals"][0]["change_percent"]["measured"]
    assert "<h2>Growth</h2>" in text and "<td>grown</td>" in text and f"{change:+.0f} (" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("P1,2020-01-01", "no patient or no scan in row 1"),
        (",,\nP1,2020-01-01,a.nii.gz", "no patient or no scan in row 1"),
        ("P/1,2020-99-01,a.nii.gz\nP/1,2021-01-01,b.nii.gz", "P_1-.*: failed: Not a date: 2020-99-01"),
    ],
)
def test_a_damaged_row_of_a_table_of_patients_is_said(run, tmp_path, rows, message):
    (tmp_path / "p.csv").write_text(f"patient,date,scan\n{rows}\n", encoding="utf-8")
    for name in ("a.nii.gz", "b.nii.gz"):
        volume.write(scan(FIRST), tmp_path / name)
    code, _, error = run("growth", "--patients", tmp_path / "p.csv", "-o", tmp_path / "out")
    assert code == 2 and re.search(message, error)


def test_a_patient_has_image_files_and_folders_as_scans(tmp_path):
    (tmp_path / "P1" / "dicom").mkdir(parents=True)
    (tmp_path / "P1" / "a.nii.gz").touch()
    assert patients_of(tmp_path) == {"P1": ([tmp_path / "P1" / "dicom", tmp_path / "P1" / "a.nii.gz"], [])}


def test_an_empty_folder_fails_alone_and_results_among_patients_are_refused(run, tmp_path):
    (tmp_path / "patients" / "P1").mkdir(parents=True)
    code, _, error = run("growth", "--patients", tmp_path / "patients", "-o", tmp_path / "out")
    assert code == 2 and "P1: failed: Growth needs at least two scans of one patient; got 0." in error
    code, _, error = run("growth", "--patients", tmp_path / "patients", "-o", tmp_path / "patients" / "out")
    assert code == 2 and "among the patients" in error and not (tmp_path / "patients" / "out").exists()


def test_files_of_the_user_and_inputs_in_the_folder_of_the_results_are_kept(files, run, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / aligned_files(2)[0]).write_bytes(files[1].read_bytes())
    code, _, error = run("growth", *files, "-o", folder)
    assert code == 2 and f"Not a result of a finished run: {folder / aligned_files(2)[0]}" in error
    (folder / "finished.json").write_text('{"files": {}}', encoding="utf-8")
    code, _, error = run("growth", files[0], folder / aligned_files(2)[0], "-o", folder)
    assert code == 2 and "has results, and an input" in error and (folder / aligned_files(2)[0]).exists()
    code, _, error = run("growth", files[0], folder, "-o", folder / "growth")
    assert code == 2 and "folder of a scan" in error and not (folder / "growth").exists()
    code, _, error = run("growth", *files, "-o", tmp_path / "new", "--workers", "2")
    assert code == 2 and "--workers" in error and not (tmp_path / "new").exists()


def test_a_report_refuses_a_file_that_is_no_result_before_any_work(run, tmp_path):
    (tmp_path / "growth.json").write_text('{"sentences": []}', encoding="utf-8")
    names = ("label.nii.gz", "--scan", "scan.nii.gz", "--growth", "growth.json", "-o", "report.html")
    code, _, error = run("report", *(name if name.startswith("-") else tmp_path / name for name in names))
    assert code == 2 and "not a result of crossmoda growth" in error


@pytest.mark.parametrize(
    ("names", "dates", "message"),
    [
        (("a.nii.gz",), (), "at least two scans"),
        (("a_20200101.nii.gz", "b.nii.gz"), (), "No date: b"),
        (("a_20200101.nii.gz", "b_2020-01-01.nii.gz"), (), "Same date, 2020-01-01: a_20200101, b_2020-01-01"),
        (("a.nii.gz", "b.nii.gz"), ("2020-01-01",), "1 dates for 2 scans"),
        (("a.nii.gz", "b.nii.gz"), ("2020-01-01", "1.2.2021"), "Not a date: 1.2.2021"),
    ],
)
def test_missing_equal_and_damaged_dates_are_refused(tmp_path, names, dates, message):
    grid = Grid((12, 12, 6), (1.0, 1.0, 1.0), (5.0, 1.0, 2.0), AXIAL)
    for number, name in enumerate(names):
        array = np.random.default_rng(number).normal(100, 9, grid.shape).astype(np.float32)
        volume.write(Volume(array, grid), tmp_path / name)
    with pytest.raises(InputError, match=message):
        growth.read_time_points([tmp_path / name for name in names], dates)


def test_dicom_states_dates_and_patients_and_the_same_scan_twice_is_refused(tmp_path):
    grid = Grid((12, 12, 6), (1.0, 1.0, 1.0), (5.0, 1.0, 2.0), AXIAL)
    image = Volume(np.random.default_rng(0).integers(0, 300, grid.shape).astype(np.uint16), grid)
    later = image.with_array(image.array[::-1].copy())
    write_series(tmp_path / "a", later, uid="1.2.3.4", AcquisitionDate="20220506")
    write_series(tmp_path / "b", image, uid="1.2.3.5", StudyDate="20210506")
    points, notes = growth.read_time_points([tmp_path / "a", tmp_path / "b"])
    assert [point.name for point in points] == ["b", "a"] and "sorted" in notes[0]
    assert points[1].date == datetime.date(2022, 5, 6)
    write_series(tmp_path / "c", image, uid="1.2.3.6", StudyDate="20230506", PatientID="another")
    with pytest.raises(InputError, match="Patient IDs differ"):
        growth.read_time_points([tmp_path / "a", tmp_path / "c"])
    assert len(growth.read_time_points([tmp_path / "a", tmp_path / "c"], any_patient=True)[0]) == 2
    with pytest.raises(InputError, match="Same scan twice: b, c"):
        growth.read_time_points([tmp_path / "b", tmp_path / "c"], any_patient=True)


def test_the_step_writes_both_segmentations_the_transform_and_the_table(files, poses_by_grid, tmp_path):
    names = ("previous_segmentation", "current_segmentation", "transform", "table")
    outputs = {name: tmp_path / file for name, file in zip(names, ("p.nrrd", "c.nrrd", "t.tfm", "t.csv"), strict=True)}
    values = vars(STEP.parser().parse_args([str(path) for path in files])) | outputs | {"device": "cpu"}
    results = STEP.run(values | {"previous_date": "2020-01-01", "current_date": "2023-01-01"}, None)
    assert results["verdict"] == "left: grown" and 30 < results["change_percent"] < 90
    assert set(results) == {result.name for result in STEP.results}
    assert volume.read_label_map(outputs["current_segmentation"]).grid.same_as(volume.read(files[1]).grid)
    assert outputs["transform"].exists() and "grown" in outputs["table"].read_text("utf-8")


def test_the_step_takes_the_folder_of_a_study_and_scans_in_any_order(files, poses_by_grid, tmp_path):
    study = tmp_path / "study"
    write_series(study / "T2", volume.read_scan(files[1]), uid="1.2.3.4", SeriesDescription="T2 CISS")
    write_series(study / "scout", volume.read_scan(files[1]), uid="1.2.3.5", SeriesDescription="localizer")
    outputs = {name: tmp_path / f"{name}.nrrd" for name in ("previous_segmentation", "current_segmentation")}
    values = vars(STEP.parser().parse_args([str(study), str(files[0])])) | outputs | {"device": "cpu"}
    results = STEP.run(values | {"previous_date": "2023-01-01", "current_date": "2020-01-01"}, None)
    assert results["verdict"] == "left: grown" and "sorted by date" in results["notes"]
    for name, path in zip(outputs, (files[1], files[0]), strict=True):
        assert volume.read_label_map(outputs[name]).grid.same_as(volume.read(path).grid)


def test_the_module_says_in_one_sentence_what_it_cannot_use(files, tmp_path):
    module = Path(__file__).resolve().parents[2] / "CrossModaSeg" / "CrossModaGrowth.py"
    command = [sys.executable, str(module), "--table", str(tmp_path / "t.csv"), str(files[0]), str(files[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    name = files[0].name.removesuffix(".nii.gz")
    assert done.returncode == 2
    assert done.stderr.strip() == f"Same scan twice: {name}, {name}. Give two different scans."
    assert not (tmp_path / "t.csv").exists()


@pytest.fixture
def ask(files, poses_by_grid, tmp_path, monkeypatch):
    """Compare both scans with these dates, as the panel does in a process of its own."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "CrossModaSeg")
    from CrossModaSegLib.processes import growth_verb

    def ask(previous: str, scan: str) -> dict:
        keys = ("previous", "scan")
        return growth_verb.growth(
            folder=str(tmp_path),
            scans=dict(zip(keys, map(str, files), strict=True)),
            names={"previous": "T2 before", "scan": "T2 now"},
            labels={},
            dates={"previous": previous, "scan": scan},
            weights="",
            device="cpu",
            criterion="volume",
            progress=lambda *_: None,
        )

    return ask


def test_the_answer_has_label_maps_on_the_grids_the_alignment_and_the_plot(ask, files):
    answer = ask("2020-03-01", "2021-03-01")
    assert len(answer["rows"]) == 1 and len(answer["rows"][0]) == len(answer["columns"])
    assert "Grown" in answer["sentences"][0]
    for key, file in zip(("previous", "scan"), files, strict=True):
        label_map = np.load(answer["label_maps"][key])
        assert label_map.shape == volume.read(file).array.shape and (label_map == 1).any()
    expected = LATER @ np.linalg.inv(FIRST)
    point = np.array([24.0, 30.0, -43.0, 1.0])
    assert np.array(answer["matrix"]) @ FIRST @ point == pytest.approx(expected @ FIRST @ point, abs=1.0)
    plot = answer["plot"]
    assert plot["times"] == [0, pytest.approx(1.0, abs=0.01)]
    ear = plot["ears"]["left"]
    assert ear["low"][0] < ear["volume"][0] < ear["high"][0]
    assert ear["criterion"] == pytest.approx([1.2 * ear["volume"][0]] * 2)


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (("2020-03-01", ""), "No date: T2 now. State the dates of both scans in “Growth”."),
        (("2022-03-01", "2021-03-01"), "is later than the scan"),
        (("2020-13-01", "2021-03-01"), "Not a date: 2020-13-01"),
    ],
)
def test_wrong_dates_are_refused_before_any_work(ask, dates, message):
    with pytest.raises(InputError, match=message):
        ask(*dates)
