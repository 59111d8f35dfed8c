"""Evidence about the label of a target, in numbers, cached beside its results."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import cache, labels, output
from crossmoda.anatomy import laterality
from crossmoda.dataset import results
from crossmoda.errors import InputError
from crossmoda.evaluation import dice_per_structure
from crossmoda.measurement.surface import face_centers, gap_mm
from crossmoda.provenance import checksum_of_file
from crossmoda.review.evidence_sources import EvidenceSources, expected_dice, read_evidence_sources
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import components

FILE = "review.json"
#: Bump to invalidate cached evidence.
_REVISION = 4
#: Minimum volume of a component that is counted.
_MIN_COMPONENT_MM3 = 3.0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence about the label of a target."""

    volumes_mm3: dict[str, float]
    """volume of each structure of the label"""
    numbers: dict[str, float]
    """see :func:`measure`; undefined numbers are absent"""
    notes: tuple[str, ...]
    """missing and unusable files, with the remedy"""


def evidence_of(case_folder: Path | str) -> Evidence:
    """Return the evidence about the label of a target, recomputed if a file of its results changed.

    Raises:
        InputError: the label to review is missing or cannot be read.

    """
    folder = Path(case_folder)
    key = cache.digest([_REVISION, _state(folder)])
    try:
        cached = output.read_json(folder / FILE)
        if cached["key"] == key:
            return Evidence(cached["volumes_mm3"], cached["numbers"], tuple(cached["notes"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    evidence = measure(read_evidence_sources(folder))
    with contextlib.suppress(InputError):  # the results may be read-only
        output.write_json(folder / FILE, {"key": key, **dataclasses.asdict(evidence)})
    return evidence


def _state(folder: Path) -> list[list[Any]]:
    """Return name and checksum of the files that the evidence depends on."""
    prediction = folder / results.PREDICTION
    paths = [folder / results.NOISY_LABEL, folder / results.DISAGREEMENT]
    paths += [prediction / results.LABEL_MAP, prediction / results.UNCERTAINTY]
    paths += [parent / name for parent in (folder, prediction) for name in results.PROBABILITIES]
    files = [file for file in paths if file.is_file()]
    return [[file.relative_to(folder).as_posix(), checksum_of_file(file)] for file in files]


def measure(sources: EvidenceSources) -> Evidence:
    """Return the evidence about a label.

    Numbers per structure ``S`` of :data:`crossmoda.labels.STRUCTURES`: ``expected_dice_S`` (mean over the evidence
    sources), ``dice_network_S`` (label and network), ``network_mm3_S``, ``pieces_S``. Expected volume of errors:
    ``doubtful_mm3``, and by source ``atlas_doubt_mm3`` and ``network_doubt_mm3``. Tumor: ``apart_mm`` (center of the
    label to center of the network), ``elongation_VS`` (longest to shortest axis), ``gap_mm`` (to the cochlea).
    Cochleae: ``left_mm3``, ``right_mm3``, and their offset ``width_mm``, ``depth_mm``, ``height_mm``.
    """
    label_map, grid = sources.label_map, sources.grid
    voxel_mm3 = grid.voxel_volume_mm3
    numbers: dict[str, float] = {"doubtful_mm3": float(sources.error_probability.sum()) * voxel_mm3}
    for name, probabilities in (("atlas", sources.atlas_probabilities), ("network", sources.network_probabilities)):
        if probabilities is not None:
            correct = np.take_along_axis(probabilities, label_map[None].astype(np.intp), axis=0)
            numbers[f"{name}_doubt_mm3"] = float((1 - correct).sum()) * voxel_mm3
    volumes = {}
    for structure in labels.STRUCTURES:
        mask = label_map == structure.value
        volumes[structure.key] = float(np.count_nonzero(mask)) * voxel_mm3
        numbers[f"pieces_{structure.key}"] = float(_component_count(mask, voxel_mm3))
        if sources.probability_maps:
            expected = [expected_dice(mask, item[structure.value]) for item in sources.probability_maps]
            numbers[f"expected_dice_{structure.key}"] = float(np.mean(expected))
    if sources.network_label is not None:
        for key, score in dice_per_structure(label_map, sources.network_label).items():
            numbers[f"dice_network_{key}"] = score
        for structure in labels.STRUCTURES:
            voxels = np.count_nonzero(sources.network_label == structure.value)
            numbers[f"network_mm3_{structure.key}"] = float(voxels) * voxel_mm3
        tumors = label_map == labels.VS, sources.network_label == labels.VS
        if tumors[0].any() and tumors[1].any():
            numbers["apart_mm"] = _center_distance_mm(*tumors, grid)
    numbers |= _elongation(label_map == labels.VS, grid)
    numbers |= _cochleae(Volume(label_map, grid.crop(sources.box)))
    tumor, cochleae = (face_centers(Volume(label_map == value, grid)) for value in (labels.VS, labels.COCHLEA))
    gap = gap_mm(tumor, cochleae)
    if gap is not None:
        numbers["gap_mm"] = gap
    return Evidence(volumes, {name: round(value, 4) for name, value in numbers.items()}, sources.notes)


def _component_count(mask: np.ndarray, voxel_mm3: float) -> int:
    numbers, _ = components(mask)
    return int(np.count_nonzero(np.bincount(numbers.ravel())[1:] * voxel_mm3 >= _MIN_COMPONENT_MM3))


def _center_distance_mm(first: np.ndarray, second: np.ndarray, grid: Grid) -> float:
    """Return the distance between the centers of two masks, mm."""
    return float(np.linalg.norm(grid.points(first).mean(axis=0) - grid.points(second).mean(axis=0)))


def _elongation(mask: np.ndarray, grid: Grid) -> dict[str, float]:
    """Return the ratio of the longest to the shortest principal axis of a mask."""
    points = np.argwhere(mask) * grid.spacing_zyx
    if len(points) < 2:
        return {}
    covariance = np.cov(points.T) + np.diag(np.square(grid.spacing_zyx) / 12)
    lengths = np.sqrt(np.linalg.eigvalsh(covariance))
    return {"elongation_VS": float(lengths[-1] / lengths[0])}


def _cochleae(label_map: Volume) -> dict[str, float]:
    """Return the volumes of both cochleae and the offset between their centers."""
    mask = label_map.array == labels.COCHLEA
    if not mask.any():
        return {}
    midplane_mm = laterality.midplane_of(label_map)
    if midplane_mm is None:
        sides = laterality.find_sides(label_map).of[labels.COCHLEA]
        side = next(iter(sides), "left")
        return {f"{side}_mm3": float(mask.sum()) * label_map.grid.voxel_volume_mm3}
    points = label_map.grid.points(mask)
    left = points[:, 0] > midplane_mm
    offset_mm = np.abs(points[left].mean(axis=0) - points[~left].mean(axis=0))
    counts = {"left_mm3": left.sum(), "right_mm3": (~left).sum()}
    volumes = {name: float(count) * label_map.grid.voxel_volume_mm3 for name, count in counts.items()}
    return {**volumes, **dict(zip(("width_mm", "depth_mm", "height_mm"), map(float, offset_mm), strict=True))}
