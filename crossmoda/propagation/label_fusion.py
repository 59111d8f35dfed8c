"""From registered atlases to one label map: failed registrations, contributing atlases, fusion, tumor outline."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossmoda import fusion, labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.fusion.weighted_voting import Recentering, WeightedVotes, weighted_votes
from crossmoda.progress import Progress
from crossmoda.propagation.atlas_ranking import Contributors, rank_atlases
from crossmoda.propagation.registrations import RegisteredAtlas
from crossmoda.propagation.settings import Settings
from crossmoda.propagation.similarity import OUTSIDE
from crossmoda.propagation.tumor_outline import LEAST_DISTINCT, excess_mm3, outline_tumor
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import largest_component, solid

#: A registration this many standard deviations (from the median absolute deviation) below the others has failed ...
_OUTLIER = 4.0
#: ... if its quality is also this much lower than their median.
_MINIMUM_DIFFERENCE = 0.15
#: Quality of registrations to scans without ears; where the others' median is this much better, it is a failure.
CHANCE, _BETTER = 0.65, 0.1
#: Bits of the structures in statements; a missing atlas allows all labels.
_BIT = {value: 1 << index for index, value in enumerate(labels.VALUES)}
_ALL_MISSING = (1 << len(labels.VALUES)) - 1
#: If less of the tumor than this differs from the contralateral side, mm3, there may be none
#: (docs/validation/propagation.md).
_MINIMUM_TUMOR_MM3 = 15.0
#: Change of a probability by the outline that counts.
_CHANGED = 0.05
_NO_TUMOR = (
    "Where the atlases have their tumor the target resembles its contralateral side: "
    "there is no tumor, it is on the contralateral side, or both sides have one; check."
)


@dataclasses.dataclass(frozen=True)
class RecenteredStructure:
    """The shift by which the votes about a structure were recentered on the target."""

    structure: str
    side: str
    displacement_lps_mm: tuple[float, ...]
    """of its center"""


@dataclasses.dataclass(frozen=True)
class NoisyLabel:
    """The fused label of the registered part of a target."""

    label_map: np.ndarray
    """(z, y, x) uint8"""
    posterior: np.ndarray
    """(label, z, y, x) float32"""
    fusion: fusion.Fusion
    """as estimated, before stray pieces were removed and the tumor was filled"""
    recentered: tuple[RecenteredStructure, ...] = ()

    @property
    def confidence(self) -> np.ndarray:
        """(z, y, x) float32: the probability of the label map's label."""
        index = np.searchsorted(labels.VALUES, self.label_map)
        return np.take_along_axis(self.posterior, index[None], axis=0)[0]


def failures(registered: Sequence[RegisteredAtlas]) -> dict[str, str]:
    """Return the failed registrations: name -> reason.

    Of four and more, those far worse than the others (median and median absolute deviation, so that a few failures do
    not hide each other), and those no better than chance where the others are.
    """
    if len(registered) < 4:
        return {}
    quality = np.array([item.quality for item in registered])
    median = float(np.median(quality))
    deviation = 1.4826 * float(np.median(np.abs(quality - median)))
    limit = max(median - max(_OUTLIER * deviation, _MINIMUM_DIFFERENCE), min(CHANCE, median - _BETTER))
    return {
        item.name: f"its registration is far worse than the others' (quality {item.quality:.2f}, median {median:.2f})."
        for item in registered
        if item.quality < limit
    }


@dataclasses.dataclass(frozen=True)
class Rater:
    """A label map on the target, and the structures it contributes to."""

    label_map: np.ndarray
    """(z, y, x) uint8"""
    has_tumor: bool = True
    """whether it contributes to the votes about the tumor"""
    is_ipsilateral: bool = True
    """whether its tumor, if any, lies on the target's tumor side"""
    cochlea_sides: frozenset[str] = frozenset(laterality.SIDES)
    """the sides to whose cochlea it contributes"""
    dissimilarity: np.ndarray | None = None
    """(z, y, x): differing bits of its image and the target's, ``OUTSIDE`` beyond its field of view; None: unknown"""
    intensity: np.ndarray | None = None
    """(z, y, x): its image where it was compared with the target, else 0; None: unknown"""
    tumor_score: float = 0.0
    """similarity of its tumor to the target's, see :func:`crossmoda.propagation.atlas_ranking.tumor_scores`"""

    def missing(self, on_left: np.ndarray) -> np.ndarray:
        """Return the bits of the labels it leaves open at each voxel, as :func:`crossmoda.fusion.staple` reads them.

        Everything is open beyond its field of view, and where its own structure lies to which it does not contribute;
        that structure is open everywhere else.
        """
        bits = np.zeros((1, 1, 1), np.uint8)
        if not self.has_tumor:
            bits = _open(labels.VS, self.label_map, np.ones((1, 1, 1), bool))
        for side in laterality.SIDES:
            if side not in self.cochlea_sides:
                bits = bits | _open(labels.COCHLEA, self.label_map, on_left == (side == "left"))
        if self.dissimilarity is None or not (outside := self.dissimilarity == OUTSIDE).any():
            return bits
        return np.where(outside, _ALL_MISSING, bits).astype(np.uint8)


def _open(value: int, label_map: np.ndarray, region: np.ndarray) -> np.ndarray:
    labeled = (label_map == value) & region
    return np.where(labeled, _ALL_MISSING, np.where(region, _BIT[value], 0)).astype(np.uint8)


def _rater(item: RegisteredAtlas, contributors: Contributors, side: str | None) -> Rater:
    return Rater(
        item.label_map,
        has_tumor=item.name in contributors.tumor,
        is_ipsilateral=side is None or item.side in (side, None),
        cochlea_sides=frozenset(side for side, names in contributors.cochlea.items() if item.name in names),
        dissimilarity=item.dissimilarity,
        intensity=item.intensity,
        tumor_score=contributors.tumor.get(item.name, 0.0),
    )


def midplane(label_maps: Sequence[np.ndarray], grid: Grid) -> float:
    """Return the LPS x of the midplane, mm: between the cochleae of the label maps (median), else the grid's center."""
    between_cochleae = [laterality.midplane_of(Volume(label_map, grid)) for label_map in label_maps]
    known = [position for position in between_cochleae if position is not None]
    return float(np.median(known)) if known else float(grid.center[0])


def fuse(
    registered: Sequence[RegisteredAtlas],
    target: Volume,
    side: str | None,
    settings: Settings,
    fusion_settings: fusion.Settings,
    *,
    comparison: ContralateralComparison | None = None,
    progress: Progress | None = None,
) -> tuple[NoisyLabel, Contributors]:
    """Fuse the atlases that match best at each structure (see :mod:`crossmoda.propagation.atlas_ranking`).

    Args:
        registered: the atlases on the target.
        target: the registered part of the target.
        side: the tumor side; None: unknown.
        settings: parameters of the propagation.
        fusion_settings: parameters of STAPLE.
        comparison: the target compared with its contralateral side, to outline the tumor; None: the votes do.
        progress: callback(fraction, message); raise Cancelled to abort.

    Returns:
        The noisy label and the atlases that contributed to it.

    """
    midplane_mm = midplane([item.label_map for item in registered], target.grid)
    on_left = laterality.lateral_mm(target.grid) > midplane_mm
    contributors = rank_atlases(registered, target, side, settings.contributing_fraction, on_left)
    label = fuse_raters(
        [_rater(item, contributors, side) for item in registered],
        midplane_mm,
        target,
        fusion_settings,
        weighting=settings.weighting,
        clean=side is not None,
        comparison=comparison,
        progress=progress,
    )
    return label, contributors


def fuse_raters(
    raters: Sequence[Rater],
    midplane_mm: float,
    target: Volume,
    settings: fusion.Settings,
    *,
    weighting: str = "local",
    clean: bool,
    comparison: ContralateralComparison | None = None,
    progress: Progress | None = None,
) -> NoisyLabel:
    """Fuse label maps by weighted voting or STAPLE.

    Args:
        raters: the label maps on the target's grid.
        midplane_mm: LPS x of the midplane.
        target: the registered part of the target.
        settings: parameters of STAPLE.
        weighting: ``"local"`` (image similarity, if every rater's image was compared) or ``"global"`` (STAPLE).
        clean: whether to remove all but the largest piece of the tumor and of each cochlea, and to fill the tumor.
        comparison: the target compared with its contralateral side, to outline the tumor of weighted votes
            (:mod:`crossmoda.propagation.tumor_outline`); None: the votes are the outline.
        progress: callback(fraction, message); raise Cancelled to abort.

    """
    on_left = laterality.lateral_mm(target.grid) > midplane_mm
    missing = [rater.missing(on_left) for rater in raters]
    recentered: tuple[RecenteredStructure, ...] = ()
    votes = _votes(raters, missing, target) if weighting == "local" else None
    if votes is not None:
        recentered = tuple(_recentered(shift, on_left, target.grid) for shift in votes.recentered)
        result = _rated(raters, votes.probability, missing, settings, comparison, target.grid)
    else:
        result = fusion.staple([rater.label_map for rater in raters], settings, missing=missing, progress=progress)
    label_map, posterior = _cleaned(result, on_left) if clean else (result.label_map, result.posterior)
    return NoisyLabel(label_map, posterior, result, recentered)


def _votes(raters: Sequence[Rater], missing: Sequence[np.ndarray], target: Volume) -> WeightedVotes | None:
    """Return votes weighted by image similarity, about the tumor by its score too; None where an image is unknown."""
    maps = [rater.label_map for rater in raters]
    dissimilarities = [rater.dissimilarity for rater in raters if rater.dissimilarity is not None]
    images = [rater.intensity for rater in raters if rater.intensity is not None]
    if not len(dissimilarities) == len(images) == len(raters):
        return None
    scores = np.array([rater.tumor_score for rater in raters])
    weights = np.ones((len(raters), len(labels.VALUES)))
    weights[:, labels.VALUES.index(labels.VS)] = np.exp(scores - scores.max())
    return weighted_votes(
        maps, dissimilarities, images, missing, target.array, target.grid.spacing_zyx, weights=weights
    )


def _rated(
    raters: Sequence[Rater],
    votes: np.ndarray,
    missing: Sequence[np.ndarray],
    settings: fusion.Settings,
    comparison: ContralateralComparison | None,
    grid: Grid,
) -> fusion.Fusion:
    """Return the fusion by votes (label, z, y, x), with the tumor outlined by the ``comparison``, if any."""
    maps = [rater.label_map for rater in raters]
    posterior, distinctness = votes, 1.0
    # Only around the ears the two sides of the body are alike.
    if comparison is not None and any((label_map == labels.COCHLEA).any() for label_map in maps):
        tumors = [rater.label_map == labels.VS for rater in raters if rater.is_ipsilateral]
        posterior, distinctness = _outlined(votes, tumors, comparison, grid)
    changed = np.abs(posterior - votes).max(axis=0) > _CHANGED
    result = fusion.rate(maps, posterior, settings, missing=missing, region=changed)
    if comparison is not None and changed.any():
        tumor = posterior[labels.VALUES.index(labels.VS)]
        excess = excess_mm3(tumor, comparison, grid.spacing_zyx)
        if excess < _MINIMUM_TUMOR_MM3 or distinctness < LEAST_DISTINCT:
            return dataclasses.replace(result, notes=(*result.notes, _NO_TUMOR))
    return result


def _cleaned(result: fusion.Fusion, on_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return label map and posterior without stray pieces; holes of the tumor are filled in the label map."""
    label_map, posterior = result.label_map, result.posterior
    stray = stray_pieces(label_map, on_left)
    if stray.any():
        label_map, posterior = label_map.copy(), posterior.copy()
        posterior[0][stray], posterior[1:, stray] = 1.0, 0.0
        label_map[stray] = labels.BACKGROUND
    enclosed = _enclosed(label_map == labels.VS) & (label_map == labels.BACKGROUND)
    return np.where(enclosed, np.uint8(labels.VS), label_map), posterior


def _enclosed(tumor: np.ndarray) -> np.ndarray:
    """Return the mask with what it encloses in the volume or in a slice: a cyst may reach the border in another one."""
    return np.stack([solid(plane) for plane in solid(tumor)])


def _outlined(
    votes: np.ndarray, tumors: Sequence[np.ndarray], comparison: ContralateralComparison, grid: Grid
) -> tuple[np.ndarray, float]:
    """Return the votes (label, z, y, x) with the tumor outlined, cochleae as they are, and the distinctness."""
    vs, cochlea = labels.VALUES.index(labels.VS), labels.VALUES.index(labels.COCHLEA)
    posterior = votes.copy()
    outline = outline_tumor(votes[vs], tumors, comparison, grid.spacing_zyx)
    posterior[vs] = np.minimum(outline.probability, 1 - votes[cochlea])
    posterior[0] = 1 - posterior[1:].sum(axis=0)
    return posterior, outline.distinctness


def _recentered(shift: Recentering, on_left: np.ndarray, grid: Grid) -> RecenteredStructure:
    center = tuple(round(value) for value in shift.center)
    side = "left" if np.broadcast_to(on_left, grid.shape)[center] else "right"
    lps = grid.axes @ np.asarray(shift.displacement_mm[::-1])
    key = next(structure.key for structure in labels.STRUCTURES if structure.value == shift.value)
    return RecenteredStructure(key, side, tuple(round(float(value), 3) for value in lps))


def with_side_uncertainty(label: NoisyLabel, certainty: float, contralateral: np.ndarray) -> NoisyLabel:
    """Return the label with a posterior that accounts for an uncertain tumor side; the label map stays.

    Args:
        label: as fused for one side.
        certainty: the probability that this is the tumor side.
        contralateral: the probability of tumor at each voxel if it is on the contralateral side, (z, y, x).

    """
    vs, cochlea = labels.VALUES.index(labels.VS), labels.VALUES.index(labels.COCHLEA)
    mirrored = np.zeros_like(label.posterior)
    mirrored[vs] = contralateral
    mirrored[cochlea] = np.minimum(label.posterior[cochlea], 1 - contralateral)
    mirrored[0] = 1 - mirrored[1:].sum(axis=0)
    posterior = np.float32(certainty) * label.posterior + np.float32(1 - certainty) * mirrored
    return dataclasses.replace(label, posterior=posterior)


def stray_pieces(label_map: np.ndarray, on_left: np.ndarray) -> np.ndarray:
    """Return the mask of all but the largest piece of the tumor, and of the cochlea on each side.

    Args:
        label_map: (z, y, x).
        on_left: mask of the voxels left of the midplane, (z, y, x) or broadcastable to it.

    """
    stray = np.zeros(label_map.shape, bool)
    left = np.broadcast_to(on_left, stray.shape)
    cochlea = label_map == labels.COCHLEA
    for mask in (label_map == labels.VS, cochlea & left, cochlea & ~left):
        stray |= mask & ~largest_component(mask)
    return stray
