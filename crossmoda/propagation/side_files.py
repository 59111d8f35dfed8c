"""Both sides of a target compared, from files: for doors that register the probes one by one.

What :class:`crossmoda.propagation.run.Run` knows of its probes is read again: where their label maps came to lie.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crossmoda import deeds, labels, preprocessing, volume
from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import (
    ContralateralComparison,
    brightness,
    contralateral_brightness,
    quantized,
)
from crossmoda.dataset import Case
from crossmoda.errors import InputError
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.registrations import RegisteredAtlas
from crossmoda.propagation.target import as_target
from crossmoda.propagation.tumor_side import TumorSide, find_tumor_side
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box

#: Voxels around the tumors elsewhere that are kept: a volume of one voxel is none to most programs.
_MARGIN = 1


class Compared(NamedTuple):
    """What the comparison of a target with its mirror image says; see :func:`compare_files`."""

    found: TumorSide
    """the side of the tumor"""
    elsewhere: Volume | None = None
    """the share of the probes that have tumor there if it is on the other side, on as much of the target's grid as is
    not 0; None where no side was found or nothing lies elsewhere"""
    opposite: Volume | None = None
    """how bright the target is at the opposite places (:func:`crossmoda.anatomy.contralateral.quantized`), on the
    part of its grid that is registered; None where it cannot be compared with its mirror image"""


def compare_files(
    target: Path | str,
    probes: Sequence[tuple[Path | str, Path | str]] = (),
    *,
    modality: str = "hrT2",
    region: str = "auto",
    registration: deeds.Settings | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Compare a target with its mirror image as a propagation does; find the side of the tumor.

    :func:`crossmoda.propagation.label_files.fuse_files` needs all that is returned.

    Args:
        target: the scan.
        probes: of each probe the label map on the target with its tumor on the left, and on the right (the patient's);
            none where the side is known.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.
        region: the setting of the registrations (see :class:`crossmoda.propagation.Settings`).
        registration: how the target is registered to its mirror image; as the probes were. None: the default.
        progress: is told what is read; may cancel.

    Raises:
        InputError: a file cannot be used.

    """
    report(progress, 0.0, "reading the target")
    image = volume.read(target)
    maps = []
    for number, pair in enumerate(probes):
        report(progress, 0.1 + 0.2 * number / len(probes), f"reading probe {number + 1}")
        maps.append([_on(volume.read_label_map(path, image.grid), image.grid) for path in pair])
    has_cochlea = any((array == labels.COCHLEA).any() for pair in maps for array in pair)
    how = preprocessing.preparation_for_registration(region, image.grid, has_cochlea or not probes)
    whole = as_target("", "", image, lambda scan, label_map: preprocessing.prepare(scan, label_map, how).image)
    registered = [
        _registered(str(number), side, array[whole.box])
        for number, pair in enumerate(maps)
        for side, array in zip(laterality.SIDES, pair, strict=True)
    ]
    step = part(progress, 0.3, 0.95)
    try:
        there = contralateral_brightness(whole.part, deeds.register, registration or deeds.Settings(), step)
    except InputError as cause:
        return Compared(TumorSide.unknown(str(cause)))
    both = ContralateralComparison(brightness(whole.part), there, modality)
    found = find_tumor_side(registered, both, whole.part.grid.spacing_zyx) if probes else TumorSide(None)
    elsewhere = None if found.contralateral is None else _occupied(Volume(found.contralateral, whole.part.grid))
    report(progress, 1.0, "done")
    return Compared(found, elsewhere, quantized(there, whole.part))


def _on(label_map: Volume, grid: Grid) -> np.ndarray:
    """Return the array of a label map on a grid that is its own but for rounding, or another."""
    if label_map.grid.same_as(grid):
        return label_map.array
    return volume.resample(label_map, grid, interpolation="label").array


def _registered(name: str, side: str, label_map: np.ndarray) -> RegisteredAtlas:
    """Return what is known of a probe: the left one counts as the atlas as it is."""
    atlas = Atlas(Case(name, "ceT1", Path(name)), laterality.Sides(0.0, {}), "left", {})
    nothing = np.zeros((0, 0, 0), np.uint8)
    label_map = np.ascontiguousarray(label_map)
    return RegisteredAtlas(atlas, side == "right", label_map, nothing, nothing, 0.0, 0.0, True)


def _occupied(share: Volume) -> Volume | None:
    """Return the part of a volume that is not 0, and a little around it."""
    if not share.array.any():
        return None
    return share.crop(bounding_box(share.array > 0, _MARGIN))
