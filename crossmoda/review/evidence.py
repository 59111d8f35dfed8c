"""What speaks for and against the label of one target, in numbers; kept beside the results until they change."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import cache, labels, measurement, output
from crossmoda.anatomy import laterality, plausibility
from crossmoda.dataset import results
from crossmoda.errors import InputError
from crossmoda.evaluation import dice
from crossmoda.review.evidence_sources import Opinions, expected_dice, read_opinions
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import components

FILE = "review.json"
#: Raised when the numbers are computed in another way.
_REVISION = 3
#: A smaller piece of a structure is a stray voxel, mm3.
_PIECE_MM3 = 3.0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The numbers of one target."""

    volumes_mm3: dict[str, float]
    """per structure of the label"""
    numbers: dict[str, float]
    """see :func:`measure`; what does not exist is absent"""
    notes: tuple[str, ...]
    """what is missing, and what to do about it"""


def evidence_of(case_folder: Path | str) -> Evidence:
    """Return the evidence of one target; it is computed again only when a file of its results changed.

    Raises:
        InputError: there is no label to review, or it cannot be read.

    """
    folder = Path(case_folder)
    key = cache.digest([_REVISION, _state(folder)])
    try:
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if kept["key"] == key:
            return Evidence(kept["volumes_mm3"], kept["numbers"], tuple(kept["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = measure(read_opinions(folder))
    content: dict[str, Any] = {"key": key, **dataclasses.asdict(found)}
    try:
        output.write_json(folder / FILE, content)
    except InputError:
        return found  # results that may only be read are reviewed all the same
    return found


def _state(folder: Path) -> list[list[Any]]:
    """Return name, size and time of the files that count."""
    prediction = folder / results.PREDICTION
    wanted = [folder / results.NOISY_LABEL, folder / results.DISAGREEMENT]
    wanted += [prediction / results.LABEL_MAP, prediction / results.UNCERTAINTY]
    wanted += [place / name for place in (folder, prediction) for name in results.PROBABILITIES]
    states = [(file.relative_to(folder).as_posix(), file.stat()) for file in wanted if file.is_file()]
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]


def measure(opinions: Opinions) -> Evidence:
    """Return what speaks for and against a label.

    Per structure ``S`` of :data:`crossmoda.labels.STRUCTURES`: ``expected_dice_S`` (0 to 1: the mean over the
    opinions), ``dice_network_S`` (between label and network), ``network_mm3_S``, ``pieces_S``; the volume that is
    expected to be wrong ``doubtful_mm3``; ``atlas_doubt_mm3`` and ``network_doubt_mm3`` (what either holds against the
    label); ``apart_mm`` (from the label's tumor to the network's, between centers); ``elongation_VS`` (longest to
    shortest axis), ``gap_mm`` (tumor to cochlea), ``left_mm3`` and ``right_mm3`` (volumes of the cochleae),
    ``width_mm``, ``depth_mm`` and ``height_mm`` (how far one lies beside, behind and above the other).
    """
    label_map, grid = opinions.label_map, opinions.grid
    voxel = grid.voxel_volume_mm3
    numbers: dict[str, float] = {"doubtful_mm3": float(opinions.wrong.sum()) * voxel}
    for who, probabilities in (("atlas", opinions.atlases), ("network", opinions.network)):
        if probabilities is not None:
            right = np.take_along_axis(probabilities, label_map[None].astype(np.intp), axis=0)
            numbers[f"{who}_doubt_mm3"] = float((1 - right).sum()) * voxel
    volumes = {}
    for structure in labels.STRUCTURES:
        mask = label_map == structure.value
        volumes[structure.key] = float(np.count_nonzero(mask)) * voxel
        numbers[f"pieces_{structure.key}"] = float(_pieces(mask, voxel))
        if opinions.known:
            chances = [expected_dice(mask, one[structure.value]) for one in opinions.known]
            numbers[f"expected_dice_{structure.key}"] = float(np.mean(chances))
        if opinions.network_label is not None:
            other = opinions.network_label == structure.value
            numbers[f"network_mm3_{structure.key}"] = float(np.count_nonzero(other)) * voxel
            numbers[f"dice_network_{structure.key}"] = dice(mask, other)
            if structure.value == labels.VS and mask.any() and other.any():
                numbers["apart_mm"] = _apart(mask, other, grid)
    numbers |= _shape(label_map == labels.VS, grid)
    numbers |= _cochleae(Volume(label_map, _grid_of(opinions)))
    gap = measurement.measure(Volume(label_map, grid))[0].distance_to_cochlea_mm
    if gap is not None:
        numbers["gap_mm"] = gap
    return Evidence(volumes, {name: round(value, 4) for name, value in numbers.items()}, opinions.notes)


def _grid_of(opinions: Opinions) -> Grid:
    """Return the grid of the part."""
    return opinions.grid.crop(opinions.box)


def _pieces(mask: np.ndarray, voxel_mm3: float) -> int:
    pieces, _ = components(mask)
    return int(np.count_nonzero(np.bincount(pieces.ravel())[1:] * voxel_mm3 >= _PIECE_MM3))


def _apart(mask: np.ndarray, other: np.ndarray, grid: Grid) -> float:
    """Return how far the centers of two masks lie apart, mm."""
    return float(np.linalg.norm(grid.points(mask).mean(axis=0) - grid.points(other).mean(axis=0)))


def _shape(mask: np.ndarray, grid: Grid) -> dict[str, float]:
    """Return how elongated a mask is: the longest to the shortest principal axis of its voxels' extent."""
    points = np.argwhere(mask) * grid.spacing_zyx
    if len(points) < 2:
        return {}
    spread = np.cov(points.T) + np.diag(np.square(grid.spacing_zyx) / 12)
    lengths = np.sqrt(np.linalg.eigvalsh(spread))
    return {"elongation_VS": float(lengths[-1] / lengths[0])}


def _cochleae(label_map: Volume) -> dict[str, float]:
    """Return the volumes of the cochleae of both sides and how they lie to each other."""
    mask = label_map.array == labels.COCHLEA
    if not mask.any():
        return {}
    middle = laterality.midplane_of(label_map)
    if middle is None:
        sides = laterality.find_sides(label_map).of[labels.COCHLEA]
        side = next(iter(sides), "left")
        return {f"{side}_mm3": float(mask.sum()) * label_map.grid.voxel_volume_mm3}
    points = label_map.grid.points(mask)
    left = points[:, 0] > middle
    apart = np.abs(points[left].mean(axis=0) - points[~left].mean(axis=0))
    volumes = {"left_mm3": left.sum(), "right_mm3": (~left).sum()}
    found = {name: float(count) * label_map.grid.voxel_volume_mm3 for name, count in volumes.items()}
    return {**found, "width_mm": float(apart[0]), "depth_mm": float(apart[1]), "height_mm": float(apart[2])}


#: A tumor farther from the nearest cochlea is no schwannoma of the vestibular nerve, mm.
FARTHEST_MM = plausibility.BESIDE_MM
