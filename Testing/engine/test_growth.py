"""Growth between scans of a phantom: the template's ears in several poses, with painted tumors that a stub segments."""

import contextlib
import dataclasses
import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from crossmoda import growth, labels, volume, weights
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames, patch_grid
from crossmoda.anatomy.sampling import moved
from crossmoda.errors import InputError
from crossmoda.growth import patient, rigid_alignment
from crossmoda.growth.cohort import patients_of
from crossmoda.growth.figure import outline_figure
from crossmoda.growth.files import aligned_files, label_file, read_result
from crossmoda.growth.joint_estimate import corrected, smoothed_over_time, volume_mm3
from crossmoda.growth.page import add_change
from crossmoda.inference.ear_patches import EarPrediction, covered
from crossmoda.report import Report
from crossmoda.steps.growth import STEP
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform
from dicom_series import write_series
from phantoms import AXIAL

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
CENTER = (24.0, 30.0, -43.0)
#: Intensity of a painted tumor.
TUMOR = 3000.0


def pose(degrees: float = 0.0, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[:2, :2], matrix[:3, 3] = [[cosine, -sine], [sine, cosine]], shift
    return matrix


def frames_in(matrix: np.ndarray) -> EarFrames:
    ears = []
    for side, mirror in (("left", np.eye(4)), ("right", MIRROR)):
        landmarks = {name: moved(matrix @ mirror, point) for name, point in template.load().landmarks.items()}
        ears.append(EarFrame(side, matrix @ mirror, landmarks, 0.9, 1.0, 0.5))
    return EarFrames(ears[0], ears[1], "T2", 0.8)


def scan(matrix: np.ndarray, *tumors: tuple[str, float], seed: int = 0, slice_mm: float = 1.2) -> Volume:
    """Return the template's ears in a pose, made lopsided, with balls (side, radius in mm) as tumors."""
    grid = Grid((140, 100, round(62 / slice_mm)), (1.0, 1.0, slice_mm), (-70.0, -20.0, -76.0), AXIAL)
    origin, axes = moved(matrix, np.array(grid.origin)), matrix[:3, :3] @ grid.axes
    grid = Grid(grid.size, grid.spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))
    image = template.load().ears["T2"]
    array = volume.resample(image, grid, affine_transform(np.linalg.inv(matrix))).array.astype(np.float32)
    still = moved(np.linalg.inv(matrix), grid.points(np.ones(grid.shape, bool))).reshape(*grid.shape, 3)
    for x, y, z, radius in ((40, 10, -40, 6), (-30, 40, -55, 7), (-45, 20, -35, 4), (25, 12, -60, 5), (45, 38, -48, 5)):
        array[np.linalg.norm(still - (x, y, z), axis=-1) < radius] *= 0.3
    array += np.random.default_rng(seed).normal(0, 4, grid.shape).astype(np.float32)
    for side, radius in tumors:
        center = np.array(CENTER) * ((1 if side == "left" else -1), 1, 1)
        share = np.clip(0.5 + radius - np.linalg.norm(still - center, axis=-1), 0, 1)
        array += (TUMOR - array) * share
    return Volume(array.astype(np.float32), grid)


@pytest.fixture
def stub(monkeypatch):
    """Replace the network by a threshold and the search for the ears by their known poses; return how to state them."""
    poses: dict[int, np.ndarray] = {}

    def predict_patches(model, image, frames, contrast, settings, device):
        ears = []
        for frame in frames:
            share = np.clip((frame.sample(image).array - 1000) / (TUMOR - 1000), 0.001, 0.999)
            probabilities = np.stack([1 - share, share, np.zeros_like(share)]).astype(np.float32)
            ears.append(EarPrediction(frame, probabilities, covered(frame, patch_grid(), image.grid)))
        return ears, []

    def frames(image, label_map, progress=None):
        return frames_in(poses[id(image.array)])

    monkeypatch.setattr(patient, "predict_patches", predict_patches)
    monkeypatch.setattr(patient.ear_alignment, "labeled_ear_frames", frames)
    return poses


@pytest.fixture(scope="module")
def model():
    return weights.load(weights.bundled())


FIRST, LATER = pose(3, (2, -1, 4)), pose(-6, (-12, 9, 20))


def measured(stub, model, *scans: tuple[np.ndarray, Volume], labels_=None):
    points = []
    for number, (matrix, image) in enumerate(scans):
        stub[id(image.array)] = matrix
        date = datetime.date(2020 + 2 * number, 1, 1)
        points.append(growth.TimePoint(f"scan {number + 1}", image, date, (labels_ or {}).get(number)))
    return growth.measure_growth(points, model)


def test_the_alignment_finds_the_pose_between_both_scans_around_the_tumor(stub):
    one, other = scan(FIRST, ("left", 6.0)), scan(LATER, ("left", 8.0), seed=1, slice_mm=2.0)
    truth = LATER @ np.linalg.inv(FIRST)
    start = rigid_alignment.frame_alignment(frames_in(FIRST), frames_in(LATER @ pose(1.0, (1.0, -0.8, 1.0))))
    ears = list(frames_in(FIRST))
    result = rigid_alignment.align(one, other, ears, start, patient._around(moved(FIRST, np.array([CENTER])), one.grid))
    points = np.array([ear.cochlea for ear in ears])
    error = np.linalg.norm(moved(result.matrix, points) - moved(truth, points), axis=1)
    before = np.linalg.norm(moved(start, points) - moved(truth, points), axis=1)
    assert before.min() > 0.8 and error.max() < 0.25
    assert 0.05 < result.error_mm(points) < 0.5 and result.similarity > 0.7
    assert result.error_mm(points + 200.0) > result.error_mm(points), "a lever makes the error of the rotation larger"


def test_a_grown_tumor_has_its_change_its_rate_and_the_verdict(stub, model):
    result = measured(stub, model, (FIRST, scan(FIRST, ("left", 6.0))), (LATER, scan(LATER, ("left", 7.0), seed=1)))
    (interval,) = result.intervals
    change = interval.growth.change_percent
    assert change is not None and change[1] == pytest.approx(100 * ((7 / 6) ** 3 - 1), abs=8)
    assert (interval.side, interval.growth.verdict, interval.growth.days) == ("left", "grown", 731)
    assert result.sentences[0].startswith("Left, 2020-01-01 to 2022-01-01: Grown: ")
    assert result.points[0].error_mm == 0 and 0 < result.points[1].error_mm < 0.5
    for point, radius in zip(result.points, (6.0, 7.0), strict=True):
        assert point.label_map.grid == point.point.scan.grid
        assert point.sizes["left"].volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.15)


def test_each_side_is_a_row_and_a_tumor_of_one_scan_has_appeared_or_was_removed(stub, model):
    result = measured(
        stub,
        model,
        (FIRST, scan(FIRST, ("left", 7.0))),
        (LATER, scan(LATER, ("left", 7.0), ("right", 6.0), seed=1)),
        (FIRST, scan(FIRST, ("right", 6.0), seed=2)),
    )
    verdicts = [(each.side, each.first, each.later, each.growth.verdict) for each in result.intervals]
    assert verdicts == [
        ("left", 0, 1, "stable"), ("left", 1, 2, "removed"), ("left", 0, 2, "removed"),
        ("right", 0, 1, "appeared"), ("right", 1, 2, "stable"), ("right", 0, 2, "appeared"),
    ]  # fmt: skip
    assert all(each.growth.change_percent is None for each in result.intervals if each.growth.verdict != "stable")


def test_without_a_tumor_at_any_time_there_is_no_row(stub, model):
    result = measured(stub, model, (FIRST, scan(FIRST)), (LATER, scan(LATER, seed=1)))
    assert result.intervals == () and result.sentences == ("No tumor at any time point.",)


def test_a_tumor_of_the_middle_scan_alone_is_drawn(stub, model):
    result = measured(
        stub,
        model,
        (FIRST, scan(FIRST)),
        (LATER, scan(LATER, ("left", 7.0), seed=1)),
        (FIRST, scan(FIRST, seed=2)),
    )
    assert result.sides == ("left",) and outline_figure(result, "left").axes


def test_a_tumor_whose_ear_is_in_one_scan_only_is_said_and_not_compared(stub, model):
    whole, later = scan(FIRST, ("left", 6.0)), scan(LATER, seed=1)
    columns = 75  # of 1 mm: up to the midline
    grid = dataclasses.replace(later.grid, size=(columns, *later.grid.size[1:]))
    right = Volume(later.array[:, :, :columns].copy(), grid)
    result = measured(stub, model, (FIRST, whole), (LATER, right))
    assert result.intervals == () and result.sentences[0].startswith("Left, 2020-01-01: tumor of 0.7")
    assert "not compared" in result.sentences[0] and any(note.startswith("Left ear outside") for note in result.notes)


def test_a_corrected_label_is_the_truth_and_the_other_scan_follows_it(stub, model):
    first = scan(FIRST, ("left", 6.0))
    center = moved(FIRST, np.array([CENTER]))
    larger = np.linalg.norm(first.grid.points(np.ones(first.grid.shape, bool)) - center, axis=1) < 7.0
    label = first.with_array(larger.reshape(first.grid.shape).astype(np.uint8) * labels.VS)
    later = scan(LATER, ("left", 6.0), seed=1)
    result = measured(stub, model, (FIRST, first), (LATER, later), labels_={0: label})
    sizes = [point.sizes["left"].volume_mm3 for point in result.points]
    assert sizes[0] == pytest.approx(np.count_nonzero(label.array) * label.grid.voxel_volume_mm3)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.08), "the network sees no change"
    assert result.points[0].label_map is label


def test_a_corrected_label_without_a_tumor_is_noted(stub, model):
    first, later = scan(FIRST, ("left", 6.0)), scan(LATER, ("left", 6.0), seed=1)
    label = first.with_array(np.zeros(first.grid.shape, np.uint8))
    result = measured(stub, model, (FIRST, first), (LATER, later), labels_={0: label})
    assert result.notes == ("The corrected label of scan 1 has no tumor, and scans without a label follow it.",)


def test_a_label_of_a_tumor_that_the_network_does_not_see_makes_the_change_uncertain(stub, model):
    first, later = scan(FIRST), scan(LATER, seed=1)
    inside = np.linalg.norm(
        first.grid.points(np.ones(first.grid.shape, bool)) - moved(FIRST, np.array([CENTER])), axis=1
    )
    label = first.with_array((inside < 6).reshape(first.grid.shape).astype(np.uint8) * labels.VS)
    result = measured(stub, model, (FIRST, first), (LATER, later), labels_={0: label})
    assert [each.growth.verdict for each in result.intervals] == ["uncertain"]


@pytest.mark.parametrize(
    ("plain", "mirrored", "message"),
    [
        (0.4, 0.8, "Left and right are exchanged between a and b"),
        (0.48, 0.56, "Left and right are exchanged between a and b"),
        (0.4, 0.3, "do not show the same head"),
        (0.53, 0.4, None),
    ],
)
def test_another_head_and_exchanged_sides_are_refused(monkeypatch, plain, mirrored, message):
    image = scan(pose())

    def align(first, later, ears, start, changed=None):
        is_mirrored = later.array is not image.array
        similarity = mirrored if is_mirrored else plain
        return rigid_alignment.RigidAlignment(np.eye(4), np.zeros((6, 6)), np.zeros(3), similarity)

    monkeypatch.setattr(patient, "align", align)
    points = [growth.TimePoint(name, image) for name in "ab"]
    with pytest.raises(InputError, match=message) if message else contextlib.nullcontext():
        patient._aligned(*points, frames_in(pose()), frames_in(pose()), None)


def test_an_uncertain_voxel_follows_the_other_scan_and_a_certain_change_stays():
    def voxel(tumor: float) -> np.ndarray:
        return np.array([1 - tumor, tumor, 0.0]).reshape(3, 1, 1, 1)

    uncertain, sure = smoothed_over_time([voxel(0.5), voxel(0.99)])
    assert uncertain[1].item() > 0.75 and sure[1].item() > 0.98
    gone, _ = smoothed_over_time([voxel(0.999), voxel(0.001)])
    assert gone[1].item() > 0.98
    np.testing.assert_allclose(corrected(np.array([0.9, 0.0]), np.array([0.9, 0.9]), np.array([1.0, 0.9])), [1.0, 0.0])


def test_the_volume_counts_surface_voxels_by_their_probability():
    mask = np.zeros((24, 24, 24), bool)
    mask[8:16, 8:16, 8:16] = True
    probability = mask.astype(float)
    probability[:, :, 16][mask[:, :, 15]] = 0.25
    assert volume_mm3(probability, mask, 2.0) == pytest.approx(2 * (8**3 + 16))


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
    assert volume.read_label_map(folder / label_file(2)).grid.same_as(later)
    scan_file, label, transform = (folder / name for name in aligned_files(2))
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
    edited = volume.read_label_map(folder / label_file(1))
    volume.write_segmentation(edited.with_array(np.zeros_like(edited.array)), folder / label_file(1), {})
    code, _, error = run("growth", files[0], files[1], "-o", folder, "--criterion", "linear", "--device", "cpu")
    assert code == 2 and "--label 1=FILE" in error


def test_a_cohort_has_one_table_and_one_page_and_a_failure_stops_no_other(files, poses_by_grid, run, tmp_path):
    table = tmp_path / "patients.csv"
    rows = [
        "patient,date,scan",
        *(f"P1,{day},{path.name}" for day, path in zip(("2020-01-01", "2024-01-01"), files, strict=True)),
    ]
    table.write_text("\n".join([*rows, f"P2,2020-01-01,{files[0].name}"]), encoding="utf-8")
    code, out, error = run("growth", "--patients", table, "-o", tmp_path / "cohort", "--device", "cpu")
    assert code == 2 and "P1: Left, 2020-01-01 to 2024-01-01: Grown" in out and "P2: failed: Growth needs" in error
    lines = (tmp_path / "cohort" / "growth.csv").read_text("utf-8").splitlines()
    assert lines[1].startswith("P1,left,2020-01-01,2024-01-01,1461,grown") and "failed" in lines[2]
    assert "P1" in (tmp_path / "cohort" / "growth.html").read_text("utf-8")


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
    assert code == 2 and f"has {aligned_files(2)[0]}" in error
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
