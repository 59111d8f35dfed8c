"""Where the registered atlases fit the target: on which side its tumour is, and who should speak about what.

A registration can move a tumour but hardly make a small one large, no registration can put a left tumour on the right,
and each registration is better here and worse there. All of it is judged by the target's image, which the atlases'
labels do not know.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from crossmoda import labels
from crossmoda.propagation.atlases import Registered
from crossmoda.propagation.comparison import neighbourhood
from crossmoda.volume.geometry import Grid, Volume

#: How far around a tumour, and around a cochlea, images are compared, mm.
_RIM_MM, _COCHLEA_RIM_MM = 2.0, 1.0
#: What counts as the surroundings of the tumours, mm.
_SURROUNDINGS_MM = 3.0
#: The target is smoothed this much (standard deviation) before its intensities are compared, mm.
_SMOOTHING_MM = 0.6
#: The part of an atlas's tumour that tells the side: this near to its cochlea, or its nearest mm.
_NEAR_COCHLEA_MM, _LEAST_DEPTH_MM = 12.0, 3.0
#: The percentile of the target's intensities that stands for its brightest tissue.
_BRIGHTEST = 97
_BINS = 32
_ROUNDS = 3


def side_evidence(
    as_left: Registered, as_right: Registered, target: Volume, modality: str, level: float | None = None
) -> float | None:
    """Return how much one atlas, registered with its tumour on the left and on the right, speaks for the left.

    The healthy canal and cistern are filled with fluid, which is bright on hrT2; a schwannoma is darker. On ceT1 fluid
    is dark and a schwannoma bright. What else the atlas's tumour covers (brain, bone) is much the same on both sides.

    Args:
        as_left: the atlas with its tumour on the left.
        as_right: the atlas with its tumour on the right.
        target: the part of the target on which they lie.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.
        level: the target's :func:`bright_level`, if it is known already.

    Returns:
        The difference of :func:`tumour_brightness` between both places of the tumour: above 0 for the left, below for
        the right. None where nothing can be compared.

    """
    level = bright_level(target) if level is None else level
    left, right = (tumour_brightness(item.label_map, target, level) for item in (as_left, as_right))
    if left is None or right is None:
        return None
    return right - left if modality == "hrT2" else left - right


def vote(evidence: Sequence[float]) -> tuple[str, int]:
    """Return the side for which evidence (see :func:`side_evidence`; at least one) speaks, and how many of it agree."""
    side = "left" if sum(evidence) > 0 else "right"
    return side, sum((value > 0) == (side == "left") for value in evidence)


def bright_level(target: Volume) -> float:
    """Return the intensity half-way between a target's mean and its brightest tissue (its 97th percentile)."""
    return (float(target.array.mean()) + float(np.percentile(target.array, _BRIGHTEST))) / 2


def tumour_brightness(label_map: np.ndarray, target: Volume, level: float) -> float | None:
    """Return the share of bright voxels of the target where a label map has tumour near the cochlea.

    Near the cochlea is the canal, in which these tumours begin; farther away an atlas's tumour may cover anything.

    Args:
        label_map: (z, y, x) on the target's grid.
        target: the part of the target on which it lies.
        level: above this it is bright, see :func:`bright_level`.

    Returns:
        The share, 0 to 1; None without tumour.

    """
    tumour = label_map == labels.VS
    if not tumour.any():
        return None
    values, cochlea = target.array[tumour], label_map == labels.COCHLEA
    if cochlea.any():
        spacing = target.grid.spacing_zyx
        distance = cKDTree(np.argwhere(cochlea) * spacing).query(np.argwhere(tumour) * spacing)[0]
        values = values[distance <= max(_NEAR_COCHLEA_MM, distance.min() + _LEAST_DEPTH_MM)]
    return float((values > level).mean())


def tumour_fit(registered: Sequence[Registered], target: Volume) -> np.ndarray:
    """Return how well each atlas's tumour fits the target's, in standard deviations of the atlases (higher is better).

    The target's intensities inside and around the tumours are described by two histograms, weighted by how many (well
    fitting) atlases have tumour there. An atlas's tumour fits when it holds the voxels that the first explains better,
    all of them and no others (sum of the log likelihood ratio), and when the images are alike in and around it
    (MIND-SSC). The first is best at large tumours, the second at small ones; weights and scores are refined in turn.

    Args:
        registered: atlases on the target, each with a tumour.
        target: the part of the target on which they lie.

    """
    grid = target.grid
    masks = np.stack([item.label_map == labels.VS for item in registered])
    region = neighbourhood(np.asarray(masks.any(axis=0)), grid, _SURROUNDINGS_MM)
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


def cochlea_fit(item: Registered, place: np.ndarray, grid: Grid) -> float:
    """Return how alike target and atlas are in and around the atlas's cochlea in ``place`` (mask); NaN without one."""
    return -item.dissimilarity_at(neighbourhood((item.label_map == labels.COCHLEA) & place, grid, _COCHLEA_RIM_MM))


def best(scores: Mapping[str, float], share: float) -> frozenset[str]:
    """Return the names with the highest scores: a share of them, but at least three (or all there are)."""
    known = {name: score for name, score in scores.items() if not math.isnan(score)}
    count = max(math.ceil(share * len(known)), min(3, len(known)))
    return frozenset(sorted(known, key=lambda name: (-known[name], name))[:count])


@dataclasses.dataclass(frozen=True)
class Speakers:
    """The names of the atlases that speak about each structure."""

    tumour: frozenset[str]
    cochlea: dict[str, frozenset[str]]
    """side -> names"""

    def about(self, name: str) -> str:
        """Return what an atlas speaks about, for people."""
        topics = ["VS"] if name in self.tumour else []
        return ", ".join(topics + [f"{side} cochlea" for side, names in self.cochlea.items() if name in names])


def speakers(
    registered: Sequence[Registered], target: Volume, side: str | None, share: float, on_left: np.ndarray
) -> Speakers:
    """Choose for the tumour and for each cochlea the atlases that fit best there.

    Args:
        registered: the atlases on the target.
        target: the part of the target on which they lie.
        side: the tumour's side; None: tumours of both sides may speak.
        share: the share of the atlases that speaks about each structure.
        on_left: what of the target is left of the midplane, (z, y, x) or broadcastable to it.

    """
    with_tumour = [
        item
        for item in registered
        if (side is None or item.side in (side, None)) and (item.label_map == labels.VS).any()
    ]
    fit = tumour_fit(with_tumour, target) if with_tumour else np.zeros(0)
    tumour = best({item.name: score for item, score in zip(with_tumour, fit, strict=True)}, share)
    left = np.broadcast_to(on_left, target.grid.shape)
    cochlea = {
        name: best({item.name: cochlea_fit(item, place, target.grid) for item in registered}, share)
        for name, place in (("left", left), ("right", ~left))
    }
    return Speakers(tumour, cochlea)
