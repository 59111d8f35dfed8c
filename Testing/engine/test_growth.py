"""Growth between scans of a phantom: alignment, joint estimate, verdict."""

import contextlib
import dataclasses
import datetime

import growth_phantoms
import numpy as np
import pytest

pytest.importorskip("torch")

from growth_phantoms import CENTER, FIRST, LATER, frames_in, pose, scan

from crossmoda import growth, labels, weights
from crossmoda.anatomy.sampling import moved
from crossmoda.errors import InputError
from crossmoda.growth import patient, rigid_alignment
from crossmoda.growth.figure import outline_figure
from crossmoda.growth.joint_estimate import as_outlined, corrected, extent, smoothed_over_time, volume_mm3
from crossmoda.volume import Volume


@pytest.fixture
def stub(monkeypatch):
    return growth_phantoms.stubbed(monkeypatch)


@pytest.fixture(scope="module")
def model():
    return weights.load(weights.bundled())


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


def test_the_tumor_of_a_time_point_is_what_it_marks_where_all_call_one():
    marked = np.zeros((12, 12, 12), bool)
    marked[2:6, 2:6, 2:6] = True
    marked[9:11, 9:11, 9:11] = True
    called = np.zeros_like(marked)
    called[4:8, 4:8, 4:8] = True
    assert extent(marked, called).sum() == 64 and extent(marked, called)[2, 2, 2]
    assert np.array_equal(extent(np.zeros_like(marked), called), called)


def test_the_volume_counts_surface_voxels_by_their_probability():
    mask = np.zeros((24, 24, 24), bool)
    mask[8:16, 8:16, 8:16] = True
    probability = mask.astype(float)
    probability[:, :, 16][mask[:, :, 15]] = 0.25
    assert volume_mm3(probability, mask, 2.0) == pytest.approx(2 * (8**3 + 16))


def test_volumes_keep_their_ratio_and_are_those_of_the_outlines_on_average():
    volumes = [{"left": (110.0, 0.1)}, {"left": (220.0, 0.2), "right": (50.0, 0.3)}]
    first, second = as_outlined(volumes, [{"left": 100.0}, {"left": 180.0, "right": 40.0}])
    assert second["left"][0] / first["left"][0] == pytest.approx(2)
    assert first["left"][0] * second["left"][0] == pytest.approx(100 * 180)
    assert second["right"] == pytest.approx((40, 0.3)) and (first["left"][1], second["left"][1]) == (0.1, 0.2)
