"""Where the registered atlases fit the target: who should speak about what.

A registration can move a tumor but hardly make a small one large, no registration can put a left tumor on the right,
and each registration is better here and worse there. All of it is judged by the target's image, which the atlases'
labels do not know.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.propagation.atlases import Registered
from crossmoda.propagation.similarity import neighborhood
from crossmoda.volume.grid import Grid, Volume

#: How far around a tumor, and around a cochlea, images are compared, mm.
_RIM_MM, _COCHLEA_RIM_MM = 2.0, 1.0
#: What counts as the surroundings of the tumors, mm.
_SURROUNDINGS_MM = 3.0
#: The target is smoothed this much (standard deviation) before its intensities are compared, mm.
_SMOOTHING_MM = 0.6
_BINS = 32
_ROUNDS = 3


def tumor_fit(registered: Sequence[Registered], target: Volume) -> np.ndarray:
    """Return how well each atlas's tumor fits the target's, in standard deviations of the atlases (higher is better).

    The target's intensities inside and around the tumors are described by two histograms, weighted by how many (well
    fitting) atlases have tumor there. An atlas's tumor fits when it holds the voxels that the first explains better,
    all of them and no others (sum of the log likelihood ratio), and when the images are alike in and around it
    (MIND-SSC). The first is best at large tumors, the second at small ones; weights and scores are refined in turn.

    Args:
        registered: atlases on the target, each with a tumor.
        target: the part of the target on which they lie.

    """
    grid = target.grid
    masks = np.stack([item.label_map == labels.VS for item in registered])
    region = neighborhood(np.asarray(masks.any(axis=0)), grid, _SURROUNDINGS_MM)
    box = ndimage.find_objects(region.view(np.uint8))[0]
    smooth = ndimage.gaussian_filter(target.array[box], [_SMOOTHING_MM / spacing for spacing in grid.spacing_zyx])
    values = smooth[region[box]]
    inside = masks[:, region]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.digitize(values, edges)
    alike = -_standardized(
        [item.dissimilarity_at(neighborhood(mask, grid, _RIM_MM)) for item, mask in zip(registered, masks, strict=True)]
    )
    score = np.zeros(len(registered))
    for _ in range(_ROUNDS):
        weights = np.exp(score - score.max())
        tumor = weights @ inside / weights.sum()
        ratio = np.log(_histogram(bins, tumor**2, len(edges) + 1) / _histogram(bins, (1 - tumor) ** 2, len(edges) + 1))
        score = _standardized(inside @ ratio[bins]) + alike
    return score


def _histogram(bins: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return a smoothed probability of each bin that is nowhere near 0."""
    smooth = ndimage.gaussian_filter1d(np.bincount(bins, weights, count) + 1e-9, 1.0, mode="nearest")
    return 0.95 * smooth / smooth.sum() + 0.05 / count


def _standardized(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return values minus their mean over their standard deviation; unknown ones count as the worst."""
    array = np.asarray(values, float)
    array = np.where(np.isnan(array), np.nanmax(array) if not np.isnan(array).all() else 0.0, array)
    spread = array.std()
    return (array - array.mean()) / spread if spread > 0 else np.zeros_like(array)


def cochlea_fit(item: Registered, place: np.ndarray, grid: Grid) -> float:
    """Return how alike target and atlas are in and around the atlas's cochlea in ``place`` (mask); NaN without one."""
    return -item.dissimilarity_at(neighborhood((item.label_map == labels.COCHLEA) & place, grid, _COCHLEA_RIM_MM))


def best(scores: Mapping[str, float], share: float) -> frozenset[str]:
    """Return the names with the highest scores: a share of them, but at least three (or all there are)."""
    known = {name: score for name, score in scores.items() if not math.isnan(score)}
    count = max(math.ceil(share * len(known)), min(3, len(known)))
    return frozenset(sorted(known, key=lambda name: (-known[name], name))[:count])


@dataclasses.dataclass(frozen=True)
class Contributors:
    """The names of the atlases that speak about each structure."""

    tumor: dict[str, float]
    """name -> how well its tumor fits, see :func:`tumor_fit`"""
    cochlea: dict[str, frozenset[str]]
    """side -> names"""

    def about(self, name: str) -> str:
        """Return what an atlas speaks about, for people."""
        topics = ["VS"] if name in self.tumor else []
        return ", ".join(topics + [f"{side} cochlea" for side, names in self.cochlea.items() if name in names])


def speakers(
    registered: Sequence[Registered], target: Volume, side: str | None, share: float, on_left: np.ndarray
) -> Contributors:
    """Choose for the tumor and for each cochlea the atlases that fit best there.

    Args:
        registered: the atlases on the target.
        target: the part of the target on which they lie.
        side: the tumor's side; None: tumors of both sides may speak.
        share: the share of the atlases that speaks about each structure.
        on_left: what of the target is left of the midplane, (z, y, x) or broadcastable to it.

    """
    with_tumor = [
        item
        for item in registered
        if (side is None or item.side in (side, None)) and (item.label_map == labels.VS).any()
    ]
    fit = tumor_fit(with_tumor, target) if with_tumor else np.zeros(0)
    scores = {item.name: float(score) for item, score in zip(with_tumor, fit, strict=True)}
    tumor = {name: scores[name] for name in best(scores, share)}
    left = np.broadcast_to(on_left, target.grid.shape)
    cochlea = {
        name: best({item.name: cochlea_fit(item, place, target.grid) for item in registered}, share)
        for name, place in (("left", left), ("right", ~left))
    }
    return Contributors(tumor, cochlea)
