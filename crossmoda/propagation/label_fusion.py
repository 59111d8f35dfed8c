"""From registered atlases to one label map: which are judged failed, who speaks about what, what is fused."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossmoda import fusion, labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.fusion.weighted_voting import Move, Votes, local_votes
from crossmoda.progress import Progress
from crossmoda.propagation.atlas_ranking import Contributors, speakers
from crossmoda.propagation.atlases import Registered
from crossmoda.propagation.similarity import OUTSIDE
from crossmoda.propagation.tumor_outline import difference_mm3, outlined
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import largest_component, solid

#: A registration this many standard deviations (from the median absolute deviation) below the others has failed ...
_OUTLIER = 4.0
#: ... if its quality is also this much lower than their median.
_LEAST_DIFFERENCE = 0.05
#: The statement of an atlas that says nothing at all: every label is possible.
_SILENT = (1 << len(labels.VALUES)) - 1
#: If less of the tumor than this differs from the opposite side, mm3, there may be none
#: (docs/validation/propagation.md).
_LEAST_TUMOR_MM3 = 15.0
_NO_TUMOR = (
    "Where the atlases have their tumor the target looks like its opposite side: "
    "it has no tumor, or has it on the other side; check."
)
#: Bits of the structures in statements.
_BIT = {value: 1 << index for index, value in enumerate(labels.VALUES)}


@dataclasses.dataclass(frozen=True)
class Moved:
    """How far the votes about a structure were moved to where the target shows it."""

    structure: str
    side: str
    displacement_lps_mm: tuple[float, ...]
    """of its middle"""


@dataclasses.dataclass(frozen=True)
class Consensus:
    """The fused label of a target's part."""

    label_map: np.ndarray
    """(z, y, x) uint8"""
    posterior: np.ndarray
    """(label, z, y, x) float32"""
    fusion: fusion.Fusion
    """as estimated, before stray pieces were removed and the tumor was filled"""
    moved: tuple[Moved, ...] = ()

    @property
    def confidence(self) -> np.ndarray:
        """(z, y, x) float32: the probability of the label map's label."""
        index = np.searchsorted(labels.VALUES, self.label_map)
        return np.take_along_axis(self.posterior, index[None], axis=0)[0]


def failures(registered: Sequence[Registered], least_quality: float) -> dict[str, str]:
    """Return which registrations failed, and why: name -> sentence.

    A registration has failed when it is no better than chance, or far worse than the others (median and median
    absolute deviation, so that a few failures do not hide each other).
    """
    quality = np.array([item.quality for item in registered])
    middle = float(np.median(quality))
    spread = 1.4826 * float(np.median(np.abs(quality - middle)))
    limit = middle - max(_OUTLIER * spread, _LEAST_DIFFERENCE)
    found = {}
    for item in registered:
        if item.quality < least_quality:
            found[item.name] = f"its registration failed (quality {item.quality:.2f}; chance is 0)."
        elif len(registered) >= 4 and item.quality < limit:
            found[item.name] = (
                f"its registration is far worse than the others' (quality {item.quality:.2f}, median {middle:.2f})."
            )
    return found


@dataclasses.dataclass(frozen=True)
class Rater:
    """A label map on the target and what it does not speak about."""

    label_map: np.ndarray
    """(z, y, x) uint8"""
    about_tumor: bool = True
    """whether it speaks about the tumor"""
    cochleae: frozenset[str] = frozenset(laterality.SIDES)
    """the sides on whose cochlea it speaks"""
    difference: np.ndarray | None = None
    """(z, y, x): differing bits of its image and the target's, ``OUTSIDE`` beyond its field of view; None: unknown"""
    intensity: np.ndarray | None = None
    """(z, y, x): its image where it was compared with the target, else 0; known if ``difference`` is"""
    tumor_fit: float = 0.0
    """how well its tumor fits the target's, see :func:`crossmoda.propagation.atlas_ranking.tumor_fit`"""

    def _outside(self) -> np.ndarray | None:
        """Return what is beyond its field of view, (z, y, x) bool; None where it covers the target."""
        outside = None if self.difference is None else self.difference == OUTSIDE
        return outside if outside is not None and outside.any() else None

    def missing(self, on_left: np.ndarray) -> np.ndarray:
        """Return the bits of what it says nothing about where, as :func:`crossmoda.fusion.staple` reads them.

        Beyond its field of view it says nothing. Of a structure of which it does not speak it says nothing anywhere,
        and where its own lies it says nothing at all.
        """
        bits = np.zeros((1, 1, 1), np.uint8)
        if not self.about_tumor:
            bits = _not_about(labels.VS, self.label_map, np.ones((1, 1, 1), bool))
        for side in laterality.SIDES:
            if side not in self.cochleae:
                bits = bits | _not_about(labels.COCHLEA, self.label_map, on_left == (side == "left"))
        outside = self._outside()
        return bits if outside is None else np.where(outside, _SILENT, bits).astype(np.uint8)


def _not_about(value: int, label_map: np.ndarray, place: np.ndarray) -> np.ndarray:
    own = (label_map == value) & place
    return np.where(own, _SILENT, np.where(place, _BIT[value], 0)).astype(np.uint8)


def _rater(item: Registered, chosen: Contributors) -> Rater:
    cochleae = frozenset(side for side, names in chosen.cochlea.items() if item.name in names)
    about, fit = item.name in chosen.tumor, chosen.tumor.get(item.name, 0.0)
    return Rater(item.label_map, about, cochleae, item.dissimilarity, item.intensity, fit)


def midplane(label_maps: Sequence[np.ndarray], grid: Grid) -> float:
    """Return the LPS x of the midplane, mm: between the cochleae of the label maps (median), else the grid's middle."""
    found = [laterality.midplane_of(Volume(label_map, grid)) for label_map in label_maps]
    known = [position for position in found if position is not None]
    return float(np.median(known)) if known else laterality.middle_of(grid)


def fuse(
    registered: Sequence[Registered],
    target: Volume,
    side: str | None,
    share: float,
    settings: fusion.Settings,
    progress: Progress | None = None,
    *,
    compared: ContralateralComparison | None = None,
) -> tuple[Consensus, Contributors]:
    """Fuse what registered atlases say about what they fit best (see :mod:`crossmoda.propagation.atlas_ranking`).

    The tumor's outline heeds the opposite side of the head if ``compared`` with it.
    """
    middle_mm = midplane([item.label_map for item in registered], target.grid)
    chosen = speakers(registered, target, side, share, laterality.lateral_mm(target.grid) > middle_mm)
    raters = [_rater(item, chosen) for item in registered]
    clean = side is not None
    consensus = fuse_raters(
        raters, middle_mm, target.grid, settings, clean=clean, image=target, compared=compared, progress=progress
    )
    return consensus, chosen


def fuse_raters(
    raters: Sequence[Rater],
    midplane_mm: float,
    grid: Grid,
    settings: fusion.Settings,
    *,
    clean: bool,
    image: Volume | None = None,
    compared: ContralateralComparison | None = None,
    progress: Progress | None = None,
) -> Consensus:
    """Fuse label maps, each speaking about what it knows.

    Args:
        raters: the label maps on ``grid``.
        midplane_mm: LPS x of the midplane.
        grid: where they lie.
        settings: parameters of the fusion. Weighting is local only if every rater's image was compared.
        clean: whether to remove all but the largest piece of the tumor and of each cochlea, and to fill the tumor.
        image: the target on ``grid``; given if the raters' images were compared with it.
        compared: the target and its opposite side, by which votes that are weighted locally are made a tumor's outline
            (:mod:`crossmoda.propagation.tumor_outline`); None: they are taken as they are.
        progress: is told the iteration; may cancel.

    """
    on_left = laterality.lateral_mm(grid) > midplane_mm
    missing = [rater.missing(on_left) for rater in raters]
    moved: tuple[Moved, ...] = ()
    votes = _votes(raters, missing, image) if settings.weighting == "local" and image is not None else None
    if votes is not None:
        moved = tuple(_moved(move, on_left, grid) for move in votes.moved)
        result = _rated(raters, votes.probability, missing, settings, compared, grid)
    else:
        result = fusion.staple([rater.label_map for rater in raters], settings, missing=missing, progress=progress)
    label_map, posterior = _cleaned(result, on_left) if clean else (result.label_map, result.posterior)
    return Consensus(label_map, posterior, result, moved)


def _votes(raters: Sequence[Rater], missing: Sequence[np.ndarray], image: Volume) -> Votes | None:
    """Return the votes, weighted where images are alike; None where some images were not compared with the target.

    About the tumor those weigh more whose own fits the target's.
    """
    maps = [rater.label_map for rater in raters]
    differences = [rater.difference for rater in raters if rater.difference is not None]
    images = [rater.intensity for rater in raters if rater.intensity is not None]
    if not len(differences) == len(images) == len(raters):
        return None
    fits = np.array([rater.tumor_fit for rater in raters])
    trust = np.ones((len(raters), len(labels.VALUES)))
    trust[:, labels.VALUES.index(labels.VS)] = np.exp(fits - fits.max())
    return local_votes(maps, differences, images, missing, image.array, image.grid.spacing_zyx, trust=trust)


def _rated(
    raters: Sequence[Rater],
    votes: np.ndarray,
    missing: Sequence[np.ndarray],
    settings: fusion.Settings,
    compared: ContralateralComparison | None,
    grid: Grid,
) -> fusion.Fusion:
    """Return the fusion by votes (label, z, y, x), the tumor outlined if ``compared`` with the opposite side."""
    maps = [rater.label_map for rater in raters]
    posterior = votes
    # Elsewhere than about the ears both sides need not be alike.
    if compared is not None and any((label_map == labels.COCHLEA).any() for label_map in maps):
        posterior = _outlined(votes, compared, grid)
    changed = (posterior != votes).any(axis=0)
    result = fusion.rate(maps, posterior, settings, missing=missing, where=changed)
    if compared is not None and changed.any():
        tumor = posterior[labels.VALUES.index(labels.VS)]
        if difference_mm3(tumor, compared, grid.spacing_zyx) < _LEAST_TUMOR_MM3:
            return dataclasses.replace(result, notes=(*result.notes, _NO_TUMOR))
    return result


def _cleaned(result: fusion.Fusion, on_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return label map and posterior without stray pieces, what the tumor encloses filled in the label map."""
    label_map, posterior = result.label_map, result.posterior
    stray = stray_pieces(label_map, on_left)
    if stray.any():
        label_map, posterior = label_map.copy(), posterior.copy()
        posterior[0][stray], posterior[1:, stray] = 1.0, 0.0
        label_map[stray] = labels.BACKGROUND
    enclosed = solid(label_map == labels.VS) & (label_map == labels.BACKGROUND)
    return np.where(enclosed, np.uint8(labels.VS), label_map), posterior


def _outlined(posterior: np.ndarray, compared: ContralateralComparison, grid: Grid) -> np.ndarray:
    """Return the posterior (label, z, y, x) with the tumor's outline; cochleae stay as they are."""
    vs, cochlea = labels.VALUES.index(labels.VS), labels.VALUES.index(labels.COCHLEA)
    found = posterior.copy()
    found[vs] = np.minimum(outlined(posterior[vs], compared, grid.spacing_zyx), 1 - posterior[cochlea])
    found[0] = 1 - found[1:].sum(axis=0)
    return found


def _moved(move: Move, on_left: np.ndarray, grid: Grid) -> Moved:
    place = tuple(round(value) for value in move.middle)
    side = "left" if np.broadcast_to(on_left, grid.shape)[place] else "right"
    lps = np.reshape(grid.direction, (3, 3)) @ np.asarray(move.displacement_mm[::-1])
    key = next(structure.key for structure in labels.STRUCTURES if structure.value == move.value)
    return Moved(key, side, tuple(round(float(value), 3) for value in lps))


def with_doubt_about_side(consensus: Consensus, certainty: float, elsewhere: np.ndarray) -> Consensus:
    """Return the consensus with the posterior of a tumor that may be on the other side; the label map stays.

    Args:
        consensus: as fused for one side.
        certainty: the probability that this is the tumor's side.
        elsewhere: the probability of tumor at each voxel if it is on the other side, (z, y, x).

    """
    vs, cochlea = labels.VALUES.index(labels.VS), labels.VALUES.index(labels.COCHLEA)
    other = np.zeros_like(consensus.posterior)
    other[vs] = elsewhere
    other[cochlea] = np.minimum(consensus.posterior[cochlea], 1 - elsewhere)
    other[0] = 1 - other[1:].sum(axis=0)
    posterior = np.float32(certainty) * consensus.posterior + np.float32(1 - certainty) * other
    return dataclasses.replace(consensus, posterior=posterior)


def stray_pieces(label_map: np.ndarray, on_left: np.ndarray) -> np.ndarray:
    """Return the mask of all but the largest piece of the tumor, and of the cochlea on each side.

    Args:
        label_map: (z, y, x).
        on_left: (z, y, x) or broadcastable to it: what is on the left of the midplane.

    """
    stray = np.zeros(label_map.shape, bool)
    left = np.broadcast_to(on_left, stray.shape)
    cochlea = label_map == labels.COCHLEA
    for mask in (label_map == labels.VS, cochlea & left, cochlea & ~left):
        stray |= mask & ~largest_component(mask)
    return stray
