"""Agreement of a segmentation with a reference: Dice, surface distances, volumes; per structure and over cases.

Surface distances are those of Google DeepMind's ``surface-distance`` (Nikolov et al., J. Med. Internet Res. 2021): each
distance is weighted by the area of a small triangle of the surface, which handles anisotropic voxels.

Empty masks: where both are empty, the structure is correctly absent: Dice 1, distances 0, volume error 0. Where one is
empty, Dice is 0 and the distances are undefined (NaN): the mean excludes them, and their number is reported with it, so
that a method cannot gain by missing structures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.output import write_csv, write_json
from crossmoda.volume.grid import Volume
from crossmoda.volume.masks import bounding_box

#: The measures, in the order of the tables.
MEASURES = ("dice", "hd95_mm", "assd_mm", "volume_mm3", "reference_volume_mm3", "volume_error_percent")
#: The measures that are averaged over cases, and their headings.
AVERAGED = {
    "dice": "Dice",
    "hd95_mm": "HD95 [mm]",
    "assd_mm": "ASSD [mm]",
    "volume_error_percent": "volume error [%]",
}
#: The row that pools the structures.
OVERALL = "overall"

Scores = dict[str, dict[str, float]]


def evaluate(prediction: Volume, reference: Volume) -> Scores:
    """Compare a label map with its reference.

    Args:
        prediction: label map with the values of :data:`crossmoda.labels.VALUES`.
        reference: label map on the same grid.

    Returns:
        For each structure's key (``"VS"``, ``"cochlea"``) the measures of :data:`MEASURES`: Dice (0 to 1), the 95th
        percentile of the Hausdorff distance and the average symmetric surface distance in mm, both volumes in mm3 and
        the volume error in percent of the reference (signed; NaN without a reference volume).

    Raises:
        InputError: the label maps lie on different grids.

    """
    if not prediction.grid.same_as(reference.grid):
        raise InputError(
            f"Prediction and reference lie on different grids: {prediction.grid.difference_to(reference.grid)}. "
            "Resample the prediction on the grid of the reference."
        )
    return {
        structure.key: _compare(
            prediction.array == structure.value, reference.array == structure.value, reference.grid.spacing_zyx
        )
        for structure in labels.STRUCTURES
    }


def evaluate_files(prediction: Path | str | None, reference: Path | str) -> Scores:
    """Compare a label file with its reference, both read as everywhere else (:mod:`crossmoda.dataset.label_reading`).

    Cropped segmentations and turned axes are brought to the grid of the other file. A reference of contours takes the
    grid of the prediction, extended to its contours where the prediction is cropped.

    Args:
        prediction: the label; None counts as an empty one.
        reference: the reference.

    Raises:
        InputError: a file cannot be read, or the grids differ.

    """
    from crossmoda.dataset import contours
    from crossmoda.dataset.label_reading import has_contours, read_label

    if prediction is not None and has_contours(Path(reference)):
        predicted = read_label(prediction)
        predicted = predicted.crop(contours.box_with(contours.read_contours(reference), predicted.grid))
        return evaluate(predicted, read_label(reference, predicted.grid))
    expected = read_label(reference)
    if prediction is None:
        return evaluate(expected.with_array(np.zeros_like(expected.array)), expected)
    predicted = read_label(prediction, expected.grid)
    if not predicted.grid.same_as(expected.grid):
        expected = read_label(reference, predicted.grid)
    return evaluate(predicted, expected)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice coefficient of two masks (bool, any shape): 1 where both are empty.

    Example:
        >>> print(round(dice(np.array([True, True, False]), np.array([True, False, False])), 2))
        0.67

    """
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2.0 * np.count_nonzero(first & second) / total if total else 1.0


def dice_per_structure(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the Dice coefficient of two label maps for each structure's key."""
    return {item.key: dice(first == item.value, second == item.value) for item in labels.STRUCTURES}


def _compare(
    prediction: np.ndarray, reference: np.ndarray, spacing_zyx: tuple[float, float, float]
) -> dict[str, float]:
    """Return the measures of two masks (z, y, x)."""
    voxel_mm3 = math.prod(spacing_zyx)
    predicted, expected = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    hd95, assd = surface_distances(prediction, reference, spacing_zyx)
    error = math.nan if predicted else 0.0
    if expected:
        error = 100.0 * (predicted - expected) / expected
    return {
        "dice": dice(prediction, reference),
        "hd95_mm": hd95,
        "assd_mm": assd,
        "volume_mm3": predicted * voxel_mm3,
        "reference_volume_mm3": expected * voxel_mm3,
        "volume_error_percent": error,
    }


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_zyx: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the 95th percentile of the Hausdorff distance and the average symmetric surface distance, mm.

    The 95th percentile is that of the worse direction; the average weights both directions by their surface area.
    Both are 0 for two empty masks and NaN if one is empty.
    """
    empty = not prediction.any(), not reference.any()
    if any(empty):
        return (0.0, 0.0) if all(empty) else (math.nan, math.nan)
    import surface_distance

    box = bounding_box(prediction | reference)  # the distance transform of a whole head would take most of the time
    surfaces = surface_distance.compute_surface_distances(reference[box], prediction[box], spacing_zyx)
    hd95 = surface_distance.compute_robust_hausdorff(surfaces, 95.0)
    areas = surfaces["surfel_areas_gt"], surfaces["surfel_areas_pred"]
    distances = surfaces["distances_gt_to_pred"], surfaces["distances_pred_to_gt"]
    weighted = sum(float(np.sum(distance * area)) for distance, area in zip(distances, areas, strict=True))
    return float(hd95), weighted / sum(float(area.sum()) for area in areas)


def summarize(cases: Mapping[str, Scores]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, standard deviation and median over cases, per structure and overall.

    Args:
        cases: the scores of each case.

    Returns:
        For each structure and ``"overall"`` (each case's mean over its structures), for each averaged measure:
        ``mean``, ``sd`` (sample standard deviation; 0 for one case), ``median``, ``count`` and ``undefined``, the
        number of cases in which it is undefined.

    """
    structures = dict.fromkeys(key for scores in cases.values() for key in scores)
    table = {
        key: {measure: [scores[key][measure] for scores in cases.values() if key in scores] for measure in AVERAGED}
        for key in structures
    }
    table[OVERALL] = {
        measure: [_mean([row[measure] for row in scores.values()]) for scores in cases.values()] for measure in AVERAGED
    }
    return {key: {measure: _statistics(values) for measure, values in row.items()} for key, row in table.items()}


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the defined values; NaN where none is."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _statistics(values: Sequence[float]) -> dict[str, float]:
    finite = np.array([value for value in values if not math.isnan(value)])
    count = len(finite)
    return {
        "mean": float(finite.mean()) if count else math.nan,
        "sd": float(finite.std(ddof=1)) if count > 1 else 0.0 if count else math.nan,
        "median": float(np.median(finite)) if count else math.nan,
        "count": count,
        "undefined": len(values) - count,
    }


def write_scores(cases: Mapping[str, Scores], path: Path | str) -> None:
    """Write one line per case and structure (:data:`MEASURES`) as CSV; undefined values are empty."""
    write_csv(
        path,
        ["case", "structure", *MEASURES],
        (
            [case, key, *("" if math.isnan(measured[name]) else f"{measured[name]:.6g}" for name in MEASURES)]
            for case, scores in cases.items()
            for key, measured in scores.items()
        ),
    )


def write_summary(cases: Mapping[str, Scores], path: Path | str) -> None:
    """Write the scores of all cases and their summary as JSON; undefined values are null."""
    write_json(path, summary(cases))


def summary(cases: Mapping[str, Scores]) -> dict[str, Any]:
    """Return the scores of all cases and their summary as JSON content."""
    return {"cases": cases, "summary": summarize(cases)}


def format_table(cases: Mapping[str, Scores]) -> str:
    """Return the summary as text for the terminal: mean ± sd (median) of each measure."""
    rows: list[list[str]] = [["", *AVERAGED.values()]]
    for key, measures in summarize(cases).items():
        rows.append([key, *(_cell(measures[name], 3 if name == "dice" else 2, True) for name in AVERAGED)])
    number = len(cases)
    return f"{text_table(rows, str.rjust)}\n{number} case{'' if number == 1 else 's'}; mean ± sd (median)"


def text_table(rows: Sequence[Sequence[str]], justify: Callable[[str, int], str] = str.ljust) -> str:
    """Return rows, the header first, as text for the terminal; ``justify`` aligns all columns but the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(justify, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def mean_cells(cases: Mapping[str, Scores], digits: Mapping[str, int]) -> list[str]:
    """Return mean ± sd over cases for each measure of ``digits``, structure by structure."""
    summary = summarize(cases)
    return [_cell(summary[item.key][name], count) for name, count in digits.items() for item in labels.STRUCTURES]


def _cell(statistics: Mapping[str, float], digits: int, with_median: bool = False) -> str:
    if not statistics["count"]:
        return "–"
    missing = f" [{statistics['undefined']:.0f} undefined]" if statistics["undefined"] else ""
    mean, deviation, median = (f"{statistics[name]:.{digits}f}" for name in ("mean", "sd", "median"))
    return f"{mean} ± {deviation}{f' ({median})' if with_median else ''}{missing}"
