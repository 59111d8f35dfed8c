"""Scores agree with geometry that can be worked out by hand, and missing structures are reported."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda.errors import InputError
from crossmoda.evaluation import evaluate, format_table, summarize, surface_distances, write_scores, write_summary
from crossmoda.volume import Grid, Volume
from phantoms import AXIAL, ball

GRID = Grid((60, 60, 30), (0.5, 0.5, 1.5), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))


def boxes(*entries: tuple[int, tuple[slice, slice, slice]]) -> Volume:
    """A label map with boxes: (value, (z, y, x))."""
    array = np.zeros(GRID.shape, np.uint8)
    for value, where in entries:
        array[where] = value
    return Volume(array, GRID)


VS_BOX = (slice(5, 15), slice(10, 30), slice(10, 30))


def test_a_perfect_prediction_scores_perfectly() -> None:
    both = boxes((1, VS_BOX), (2, (slice(18, 20), slice(10, 14), slice(10, 14))))
    scores = evaluate(both, both)
    assert scores["VS"]["dice"] == scores["cochlea"]["dice"] == 1.0
    assert scores["VS"]["hd95_mm"] == scores["VS"]["assd_mm"] == 0.0
    assert scores["VS"]["volume_mm3"] == 10 * 20 * 20 * 0.375
    assert scores["cochlea"]["volume_error_percent"] == 0.0


@pytest.mark.parametrize(("axis", "spacing"), [(0, 1.5), (1, 0.5), (2, 0.5)])
def test_a_shift_by_two_voxels_is_measured_in_the_millimeters_of_its_axis(axis: int, spacing: float) -> None:
    shifted = list(VS_BOX)
    shifted[axis] = slice(VS_BOX[axis].start + 2, VS_BOX[axis].stop + 2)
    found = evaluate(boxes((1, tuple(shifted))), boxes((1, VS_BOX)))["VS"]  # type: ignore[arg-type]
    length = VS_BOX[axis].stop - VS_BOX[axis].start
    assert found["dice"] == pytest.approx((length - 2) / length)
    assert found["hd95_mm"] == pytest.approx(2 * spacing)
    assert found["volume_error_percent"] == 0.0


def concentric(spacing_zyx: tuple[float, float, float]) -> tuple[list[np.ndarray], Grid]:
    """Two balls of 9 and 14 mm about the middle of a cube of 40 mm, and their grid."""
    size = [round(40 / step) + 1 for step in reversed(spacing_zyx)]
    grid = Grid((size[0], size[1], size[2]), spacing_zyx[::-1], (0.0, 0.0, 0.0), AXIAL)
    return [ball(grid, (20, 20, 20), radius) for radius in (9.0, 14.0)], grid


@pytest.mark.parametrize("spacing_zyx", [(0.5, 0.5, 0.5), (1.0, 0.5, 0.5)], ids=str)
def test_concentric_balls_are_as_far_apart_as_their_radii_differ(spacing_zyx: tuple[float, float, float]) -> None:
    """Both distances are 5 mm everywhere. The surface of a voxelized ball is a layer about a voxel thick, of which the
    nearest point counts: the average comes out smaller by about half a voxel, with any implementation.
    """
    hd95, assd = surface_distances(*concentric(spacing_zyx)[0], spacing_zyx)
    assert hd95 == pytest.approx(5.0, abs=0.6 * max(spacing_zyx))
    assert assd == pytest.approx(5.0, abs=0.6 * max(spacing_zyx))


def test_dice_of_balls_is_that_of_their_volumes() -> None:
    spacing = (0.5, 0.5, 0.5)
    balls, grid = concentric(spacing)
    found = evaluate(*(Volume(mask.astype(np.uint8), grid) for mask in balls))["VS"]
    assert found["dice"] == pytest.approx(2 * 9**3 / (9**3 + 14**3), rel=0.01)
    assert found["volume_error_percent"] == pytest.approx(100 * (9**3 / 14**3 - 1), rel=0.01)


def test_dice_and_distances_agree_with_simpleitk() -> None:
    """ITK measures between the outermost voxels of the masks: half a voxel diagonal is the most it may differ."""
    rng = np.random.default_rng(0)
    blurred = [
        sitk.GetArrayFromImage(
            sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(rng.normal(size=GRID.shape)), 4.0)
        )
        for _ in range(2)
    ]
    masks = [(array > np.percentile(array, 80)).astype(np.uint8) for array in blurred]
    masks[1] = np.maximum(masks[0] & (blurred[1] > -1), masks[1] * (blurred[0] > 0)).astype(np.uint8)
    images = [Volume(mask, GRID).to_sitk() for mask in masks]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    found = evaluate(*(Volume(mask, GRID) for mask in masks))["VS"]
    assert found["dice"] == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-12)
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    assert found["assd_mm"] <= found["hd95_mm"] <= hausdorff.GetHausdorffDistance() + 0.85
    assert found["assd_mm"] == pytest.approx(hausdorff.GetAverageHausdorffDistance(), abs=0.85)


def test_two_empty_masks_agree_perfectly() -> None:
    cochlea = evaluate(boxes((1, VS_BOX)), boxes((1, VS_BOX)))["cochlea"]
    assert (cochlea["dice"], cochlea["hd95_mm"], cochlea["assd_mm"], cochlea["volume_error_percent"]) == (1, 0, 0, 0)


@pytest.mark.parametrize("missing_in_prediction", [True, False])
def test_one_empty_mask_has_no_overlap_and_no_distance(missing_in_prediction: bool) -> None:
    pair = (boxes(), boxes((1, VS_BOX)))
    found = evaluate(*(pair if missing_in_prediction else pair[::-1]))["VS"]
    assert found["dice"] == 0.0
    assert math.isnan(found["hd95_mm"])
    assert math.isnan(found["assd_mm"])
    if missing_in_prediction:
        assert found["volume_error_percent"] == -100.0
    else:
        assert math.isnan(found["volume_error_percent"])


def test_different_grids_are_refused() -> None:
    reference = boxes((1, VS_BOX))
    moved = Volume(reference.array, Grid(GRID.size, GRID.spacing, (0.0, 0.0, 0.2), GRID.direction))
    with pytest.raises(InputError, match="lie on different grids"):
        evaluate(moved, reference)


def some_cases() -> dict:
    reference = boxes((1, VS_BOX), (2, (slice(18, 22), slice(10, 14), slice(10, 14))))
    smaller = boxes(
        (1, (slice(5, 15), slice(10, 30), slice(10, 20))), (2, (slice(18, 22), slice(10, 14), slice(10, 14)))
    )
    without = boxes((1, VS_BOX))
    return {name: evaluate(one, reference) for name, one in {"a": reference, "b": smaller, "c": without}.items()}


def test_the_summary_gives_mean_deviation_and_median_and_counts_what_does_not_exist() -> None:
    summary = summarize(some_cases())
    # VS: Dice 1, 2/3 (half the volume), 1; cochlea: 1, 1, 0.
    assert summary["VS"]["dice"]["mean"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert summary["VS"]["dice"]["sd"] == pytest.approx(np.std([1, 2 / 3, 1], ddof=1))
    assert summary["VS"]["dice"]["median"] == 1.0
    assert summary["cochlea"]["dice"]["mean"] == pytest.approx(2 / 3)
    assert summary["overall"]["dice"]["mean"] == pytest.approx(np.mean([1, 5 / 6, 1 / 2]))
    assert summary["cochlea"]["assd_mm"] == {"mean": 0.0, "sd": 0.0, "median": 0.0, "count": 2, "undefined": 1}


def test_scores_are_written_as_csv_and_json(tmp_path: Path) -> None:
    cases = some_cases()
    write_scores(cases, tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert len(rows) == 6
    assert rows[5] | {"case": "c", "structure": "cochlea", "dice": "0", "assd_mm": ""} == rows[5]
    assert float(rows[2]["dice"]) == pytest.approx(2 / 3, abs=1e-5)
    write_summary(cases, tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert content["cases"]["c"]["cochlea"]["hd95_mm"] is None
    assert content["summary"]["VS"]["dice"]["count"] == 3


def test_the_table_shows_mean_deviation_median_and_what_is_undefined() -> None:
    table = format_table(some_cases())
    lines = table.splitlines()
    assert lines[0].split()[:2] == ["Dice", "HD95"]
    assert "0.889 ± 0.192 (1.000)" in lines[2]
    assert "[1 undefined]" in lines[3]
    assert lines[-1].startswith("3 cases")
    assert max(map(len, lines)) <= 140
