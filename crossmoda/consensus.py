"""From registered atlases to one label map: which are judged failed, who speaks about what, what is fused."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda import fusion, labels, laterality
from crossmoda.atlases import OUTSIDE, Registered, neighbourhood
from crossmoda.progress import Progress
from crossmoda.volume import Grid, Volume

#: A registration this many standard deviations (from the median absolute deviation) below the others has failed ...
_OUTLIER = 4.0
#: ... if its quality is also this much lower than their median.
_LEAST_DIFFERENCE = 0.05
#: How far around the tumour its fit is judged, mm: the boundary is what tells.
_RIM_MM = 2.0
#: The statement of an atlas that says nothing at all: every label is possible.
_SILENT = (1 << len(labels.VALUES)) - 1
#: Bits of the structures in statements.
_BIT = {value: 1 << index for index, value in enumerate(labels.VALUES)}


@dataclasses.dataclass(frozen=True)
class Consensus:
    """The fused label of a target's part."""

    label_map: np.ndarray
    """(z, y, x) uint8"""
    posterior: np.ndarray
    """(label, z, y, x) float32"""
    fusion: fusion.Fusion
    """as estimated, before stray pieces were removed"""


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


def tumour_fit(item: Registered, grid: Grid) -> float:
    """Return how dissimilar target and atlas are in and around the atlas's tumour: 0 is the same, NaN without one."""
    return item.dissimilarity_at(neighbourhood(item.label_map == labels.VS, grid, _RIM_MM))


def speakers_about_tumour(registered: Sequence[Registered], side: str | None, share: float, grid: Grid) -> set[str]:
    """Return the names of the atlases that speak about the tumour: those on its side that fit best.

    Args:
        registered: the atlases on the target.
        side: the tumour's side; None: atlases of both sides may speak.
        share: the share of them that speaks, at least three (or all there are).
        grid: the grid of their label maps.

    """
    fits = {}
    for item in registered:
        if side is None or item.side in (side, None):
            fit = tumour_fit(item, grid)
            if not math.isnan(fit):
                fits[item.name] = fit
    count = max(math.ceil(share * len(fits)), min(3, len(fits)))
    return set(sorted(fits, key=lambda name: (fits[name], name))[:count])


def missing_statements(
    registered: Sequence[Registered], speakers: set[str], midplane_mm: float, grid: Grid
) -> list[np.ndarray]:
    """Return where each atlas says nothing about which structure: bits as :func:`crossmoda.fusion.staple` reads them.

    Outside its field of view an atlas says nothing. An atlas that does not speak about the tumour says nothing about
    it anywhere, and nothing at all where its own tumour lies. An atlas whose cochlea is drawn on one side only says
    nothing about the other cochlea.
    """
    on_left = laterality.lateral_mm(grid) > midplane_mm
    statements = []
    for item in registered:
        bits = np.where(item.dissimilarity == OUTSIDE, _SILENT, 0).astype(np.uint8)
        if item.name not in speakers:
            bits |= _BIT[labels.VS]
            bits[item.label_map == labels.VS] = _SILENT
        drawn = item.atlas.sides.of[labels.COCHLEA]
        if item.atlas.volumes_mm3["cochlea"] == 0:
            bits |= _BIT[labels.COCHLEA]
        elif len(drawn) == 1:
            (own,) = drawn
            side = laterality.other(own) if item.mirrored else own
            bits |= np.where(on_left == (side == "left"), 0, _BIT[labels.COCHLEA]).astype(np.uint8)
        statements.append(bits)
    return statements


def midplane(registered: Sequence[Registered], grid: Grid) -> float:
    """Return the LPS x of the target's midplane, mm: between the warped cochleae (median), else the grid's middle."""
    found = [laterality.midplane_of(Volume(item.label_map, grid)) for item in registered]
    known = [position for position in found if position is not None]
    return float(np.median(known)) if known else laterality.middle_of(grid)


def fuse(
    registered: Sequence[Registered],
    side: str | None,
    share: float,
    settings: fusion.Settings,
    grid: Grid,
    progress: Progress | None = None,
) -> tuple[Consensus, set[str]]:
    """Fuse the label maps of registered atlases; also return who spoke about the tumour."""
    speakers = speakers_about_tumour(registered, side, share, grid)
    middle_mm = midplane(registered, grid)
    missing = missing_statements(registered, speakers, middle_mm, grid)
    maps = [
        np.where((item.label_map == labels.VS) & (item.name not in speakers), 0, item.label_map).astype(np.uint8)
        for item in registered
    ]
    result = fusion.staple(maps, settings, missing=missing, progress=progress)
    stray = stray_pieces(Volume(result.label_map, grid), None if side is None else middle_mm)
    label_map, posterior = result.label_map.copy(), result.posterior
    if stray.any():
        posterior = posterior.copy()
        posterior[0][stray], posterior[1:, stray] = 1.0, 0.0
        label_map[stray] = labels.BACKGROUND
    return Consensus(label_map, posterior, result), speakers


def stray_pieces(label_map: Volume, midplane_mm: float | None) -> np.ndarray:
    """Return the mask of all but the largest piece of the tumour, and of each cochlea (one on each side).

    Args:
        label_map: the fused label map.
        midplane_mm: LPS x of the midplane; None where left and right mean nothing: then nothing is stray.

    """
    stray = np.zeros(label_map.array.shape, bool)
    if midplane_mm is None:
        return stray
    left = np.broadcast_to(laterality.lateral_mm(label_map.grid) > midplane_mm, stray.shape)
    for value, regions in ((labels.VS, (None,)), (labels.COCHLEA, (left, ~left))):
        for region in regions:
            mask = label_map.array == value
            if region is not None:
                mask &= region
            pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
            if count > 1:
                stray |= mask & (pieces != 1 + int(np.bincount(pieces.ravel())[1:].argmax()))
    return stray
