"""Atlas ranking: which atlases match the target best, and so contribute to each structure.

Registration can move a tumor but hardly enlarge it, cannot put a left tumor on the right, and its quality varies from
place to place. The target's image, which is independent of the atlases' labels, ranks the atlases for each structure.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.propagation.registrations import RegisteredAtlas
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.masks import bounding_box, grown

#: Distance around a tumor, and around a cochlea, in which images are compared, mm.
_TUMOR_RIM_MM, _COCHLEA_RIM_MM = 2.0, 1.0
#: Distance around all tumors that counts as their surroundings, mm.
_SURROUNDINGS_MM = 3.0
#: Standard deviation of the smoothing of the target before its intensities are compared, mm.
_SMOOTHING_MM = 0.6
_BINS = 32
_ITERATIONS = 3


def tumor_scores(registered: Sequence[RegisteredAtlas], target: Volume) -> np.ndarray:
    """Return how well each atlas's tumor matches the target's, in standard deviations of the atlases (higher: better).

    Two histograms describe the target's intensities inside and around the tumors, weighted by the number of
    (well-matching) atlases with tumor at each voxel. An atlas scores by the sum of the log likelihood ratio over its
    tumor, which is highest for exactly the voxels that the first histogram explains better, plus the similarity of the
    images (MIND-SSC) in and around its tumor. The first is best for large tumors, the second for small ones. Weights
    and scores are refined in turn.

    Args:
        registered: atlases on the target, each with a tumor.
        target: the registered part of the target.

    """
    grid = target.grid
    masks = np.stack([item.label_map == labels.VS for item in registered])
    region = grown(np.asarray(masks.any(axis=0)), _SURROUNDINGS_MM, grid)
    box = bounding_box(region)
    smooth = ndimage.gaussian_filter(target.array[box], [_SMOOTHING_MM / spacing for spacing in grid.spacing_zyx])
    values = smooth[region[box]]
    inside = masks[:, region]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.digitize(values, edges)
    rims = [grown(mask, _TUMOR_RIM_MM, grid) for mask in masks]
    similarity = -_standardized([item.dissimilarity_at(rim) for item, rim in zip(registered, rims, strict=True)])
    scores = np.zeros(len(registered))
    for _ in range(_ITERATIONS):
        weights = np.exp(scores - scores.max())
        tumor = weights @ inside / weights.sum()
        histograms = [_histogram(bins, weight, len(edges) + 1) for weight in (tumor**2, (1 - tumor) ** 2)]
        log_ratio = np.log(histograms[0] / histograms[1])
        scores = _standardized(inside @ log_ratio[bins]) + similarity
    return scores


def _histogram(bins: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return a smoothed probability of each bin, bounded away from 0."""
    smooth = ndimage.gaussian_filter1d(np.bincount(bins, weights, count) + 1e-9, 1.0, mode="nearest")
    return 0.95 * smooth / smooth.sum() + 0.05 / count


def _standardized(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return values minus their mean over their standard deviation; NaN counts as the largest value."""
    array = np.asarray(values, float)
    array = np.where(np.isnan(array), np.nanmax(array) if not np.isnan(array).all() else 0.0, array)
    deviation = array.std()
    return (array - array.mean()) / deviation if deviation > 0 else np.zeros_like(array)


def cochlea_score(item: RegisteredAtlas, half: np.ndarray, grid: Grid) -> float:
    """Return the image similarity in and around the atlas's cochlea in one ``half`` (mask); NaN without a cochlea."""
    return -item.dissimilarity_at(grown((item.label_map == labels.COCHLEA) & half, _COCHLEA_RIM_MM, grid))


def best(scores: Mapping[str, float], fraction: float) -> frozenset[str]:
    """Return the names with the highest scores: a fraction of them, but at least three (or all there are)."""
    names = ranked(scores)
    return frozenset(names[: max(math.ceil(fraction * len(names)), min(3, len(names)))])


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return the names of known scores, the highest first."""
    known = {name: score for name, score in scores.items() if not math.isnan(score)}
    return sorted(known, key=lambda name: (-known[name], name))


@dataclasses.dataclass(frozen=True)
class StructureScores:
    """How well the atlases match the target at each structure (name -> score; higher: better, NaN: unknown)."""

    tumor: dict[str, float]
    """of the atlases with a tumor on the target's tumor side, see :func:`tumor_scores`"""
    cochlea: dict[str, dict[str, float]]
    """side -> those of all atlases, see :func:`cochlea_score`"""

    def ranking(self) -> list[str]:
        """Return the names, best-matching first; those without any known score last.

        Each structure has to find its atlases among the first ones: in turns the next best one for the tumor, for the
        left cochlea, for the tumor, and for the right cochlea.
        """
        tumor, left, right = (iter(ranked(each)) for each in (self.tumor, *self.cochlea.values()))
        ranking: dict[str, None] = {}
        for _ in self.cochlea["left"]:
            for order in (tumor, left, tumor, right):
                name = next((name for name in order if name not in ranking), None)
                if name is not None:
                    ranking[name] = None
        return list(ranking | dict.fromkeys(sorted(self.cochlea["left"])))


@dataclasses.dataclass(frozen=True)
class Contributors:
    """The names of the atlases that contribute to each structure."""

    tumor: dict[str, float]
    """name -> tumor score, see :func:`tumor_scores`"""
    cochlea: dict[str, frozenset[str]]
    """side -> names"""

    def structures(self, name: str) -> str:
        """Return the structures to which an atlas contributes, as text."""
        tumor = ["VS"] if name in self.tumor else []
        return ", ".join(tumor + [f"{side} cochlea" for side, names in self.cochlea.items() if name in names])


def rank_atlases(
    registered: Sequence[RegisteredAtlas], target: Volume, side: str | None, fraction: float, on_left: np.ndarray
) -> Contributors:
    """Select the atlases that match best at the tumor and at each cochlea.

    Args:
        registered: the atlases on the target.
        target: the registered part of the target.
        side: the tumor side; None: atlases with the tumor on either side contribute.
        fraction: the fraction of the atlases that contributes to each structure.
        on_left: mask of the voxels left of the midplane, (z, y, x) or broadcastable to it.

    """
    scores = structure_scores(registered, target, side, on_left)
    tumor = {name: scores.tumor[name] for name in best(scores.tumor, fraction)}
    return Contributors(tumor, {half: best(each, fraction) for half, each in scores.cochlea.items()})


def structure_scores(
    registered: Sequence[RegisteredAtlas], target: Volume, side: str | None, on_left: np.ndarray
) -> StructureScores:
    """Return how well each atlas matches the target at each structure; arguments as of :func:`rank_atlases`."""
    with_tumor = [
        item
        for item in registered
        if (side is None or item.side in (side, None)) and (item.label_map == labels.VS).any()
    ]
    scores = tumor_scores(with_tumor, target) if with_tumor else np.zeros(0)
    tumor = {item.name: float(score) for item, score in zip(with_tumor, scores, strict=True)}
    left = np.broadcast_to(on_left, target.grid.shape)
    cochlea = {
        name: {item.name: cochlea_score(item, half, target.grid) for item in registered}
        for name, half in (("left", left), ("right", ~left))
    }
    return StructureScores(tumor, cochlea)
