"""The tumour of a target as the registered atlases see it: on which side it is, and whose tumour fits.

A registration can move a tumour but hardly make a small one large, and no registration can put a left tumour on the
right. Both are judged by the target's image, which the atlases' labels do not know.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.atlases import Registered, neighbourhood
from crossmoda.geometry import Grid, Volume

#: How far around a tumour images are compared, mm.
_RIM_MM = 2.0
#: What counts as the surroundings of the tumours, mm.
_SURROUNDINGS_MM = 3.0
#: The target is smoothed this much (standard deviation) before its intensities are compared, mm.
_SMOOTHING_MM = 0.6
_BINS = 32
_ROUNDS = 3
#: A difference of dissimilarity that is worth as much as a volume 20% larger.
_DISSIMILARITY_SCALE, _LOG_VOLUME_SCALE = 0.03, 0.2


def side_evidence(as_left: Registered, as_right: Registered, grid: Grid) -> float | None:
    """Return how much one atlas, registered with its tumour on the left and on the right, speaks for the left.

    Two things tell: where the atlas's tumour meets the target's, the images differ less (compared over the same region,
    both places of the tumour), and the registration has not squeezed the atlas's tumour into healthy anatomy.

    Returns:
        Above 0 for the left, below for the right; about 1 is clear. None where nothing can be compared.

    """
    left, right = as_left.label_map == labels.VS, as_right.label_map == labels.VS
    if not left.any() or not right.any():
        return None
    region = neighbourhood(left | right, grid, _RIM_MM)
    difference = as_right.dissimilarity_at(region) - as_left.dissimilarity_at(region)
    if math.isnan(difference):
        return None
    volumes = math.log(np.count_nonzero(left) / np.count_nonzero(right))
    return difference / _DISSIMILARITY_SCALE + volumes / _LOG_VOLUME_SCALE


def fit(registered: Sequence[Registered], target: Volume) -> np.ndarray:
    """Return how well each atlas's tumour fits the target's, in standard deviations of the atlases (higher is better).

    The target's intensities inside and around the tumours are described by two histograms, weighted by how many (well
    fitting) atlases have tumour there. An atlas's tumour fits when it holds the voxels that the first explains better,
    all of them and no others (sum of the log likelihood ratio), and when the images are alike in and around it (MIND-SSC).
    The first tells large tumours from small, the second small ones from large; weights and scores are refined in turn.

    Args:
        registered: atlases on the target, each with a tumour.
        target: the part of the target on which they lie.

    """
    grid = target.grid
    masks = np.stack([item.label_map == labels.VS for item in registered])
    region = neighbourhood(masks.any(axis=0), grid, _SURROUNDINGS_MM)
    box = ndimage.find_objects(region.view(np.uint8))[0]
    smooth = ndimage.gaussian_filter(target.array[box], [_SMOOTHING_MM / spacing for spacing in grid.spacing_zyx])
    values = smooth[region[box]]
    inside = masks[:, region]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.digitize(values, edges)
    alike = -_standardised(
        [
            item.dissimilarity_at(neighbourhood(mask, grid, _RIM_MM))
            for item, mask in zip(registered, masks, strict=True)
        ]
    )
    score = np.zeros(len(registered))
    for _ in range(_ROUNDS):
        weights = np.exp(score - score.max())
        tumour = weights @ inside / weights.sum()
        ratio = np.log(
            _histogram(bins, tumour**2, len(edges) + 1) / _histogram(bins, (1 - tumour) ** 2, len(edges) + 1)
        )
        score = _standardised(inside @ ratio[bins]) + alike
    return score


def _histogram(bins: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return a smoothed probability of each bin that is nowhere near 0."""
    smooth = ndimage.gaussian_filter1d(np.bincount(bins, weights, count) + 1e-9, 1.0, mode="nearest")
    return 0.95 * smooth / smooth.sum() + 0.05 / count


def _standardised(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return values minus their mean over their standard deviation; unknown ones count as the worst."""
    array = np.asarray(values, float)
    array = np.where(np.isnan(array), np.nanmax(array) if not np.isnan(array).all() else 0.0, array)
    spread = array.std()
    return (array - array.mean()) / spread if spread > 0 else np.zeros_like(array)


def speakers_about_tumour(registered: Sequence[Registered], target: Volume, side: str | None, share: float) -> set[str]:
    """Return the names of the atlases that speak about the tumour: those on its side that fit best.

    Args:
        registered: the atlases on the target.
        target: the part of the target on which they lie.
        side: the tumour's side; None: atlases of both sides may speak.
        share: the share of them that speaks, at least three (or all there are).

    """
    candidates = [
        item
        for item in registered
        if (side is None or item.side in (side, None)) and (item.label_map == labels.VS).any()
    ]
    count = max(math.ceil(share * len(candidates)), min(3, len(candidates)))
    if count >= len(candidates):
        return {item.name for item in candidates}
    score = fit(candidates, target)
    order = sorted(range(len(candidates)), key=lambda index: (-score[index], candidates[index].name))
    return {candidates[index].name for index in order[:count]}
