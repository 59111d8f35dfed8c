"""The scan to be labeled: how it is prepared, what is registered, and the part of its grid that receives labels."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import preprocessing
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: The extent of a head scan in axial planes, mm.
_HEAD_MM = (140.0, 340.0)
#: Returns the part of an image (with all labels of its label map) that is registered.
Prepare = Callable[[Volume, Volume | None], Volume]


@dataclasses.dataclass(frozen=True)
class Target:
    """The scan to be labeled: what is registered, and where the labels go."""

    id: str
    key: str
    """the checksum of its file"""
    image: Volume
    """the scan as it is"""
    prepared: Volume
    """what is registered: cropped, resampled, normalized"""
    box: tuple[slice, ...]
    """the part of the scan's array that receives labels"""
    part: Volume
    """that part of the scan"""
    codes: np.ndarray
    """MIND-SSC of that part, packed"""


def load_target(case: "Case", key: str, region: str, has_cochlea: bool) -> tuple[Target, preprocessing.Preparation]:
    """Read a target, whose checksum is ``key``; return it and how it and its atlases are prepared."""
    image = case.read_image()
    how = preparation_for(region, image.grid, has_cochlea)
    return as_target(case.id, key, image, preparer(how)), how


def preparer(how: preprocessing.Preparation) -> Prepare:
    """Return what prepares an image in one way."""
    return lambda image, label_map: preprocessing.prepare(image, label_map, how).image


def preparation_for(region: str, target: Grid, has_cochlea: bool) -> preprocessing.Preparation:
    """Return how scans are prepared: cropped to the ears (asked for, or ``"auto"`` in a head with cochlea labels)."""
    whole = region == "whole" or (region == "auto" and not (has_cochlea and _is_head(target)))
    return preprocessing.Preparation(region="whole" if whole else "ears", in_plane_spacing=0.0 if whole else 0.5)


def _is_head(grid: Grid) -> bool:
    """Whether a scan's axial extent is that of a head rather than a detail of it or a trunk."""
    extent = np.abs(np.reshape(grid.direction, (3, 3))) @ (np.asarray(grid.size) * grid.spacing)
    return bool(np.all((extent[:2] >= _HEAD_MM[0]) & (extent[:2] <= _HEAD_MM[1])))


def as_target(identity: str, key: str, image: Volume, prepare: Prepare) -> Target:
    """Return an image as a target: what is registered, and the part of its grid that this covers."""
    from crossmoda.deeds import mind_codes

    prepared = prepare(image, None)
    box = _covered_box(image.grid, prepared.grid)
    cropped = Volume(np.ascontiguousarray(image.array[box]), part_of(image.grid, box))
    return Target(identity, key, image, prepared, box, cropped, mind_codes.codes(cropped.array))


def _covered_box(grid: Grid, inner: Grid) -> tuple[slice, ...]:
    """Return the slices (z, y, x) of ``grid`` that hold the box of ``inner``."""
    corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners[:, :3] = corners[:, :3] * np.asarray(inner.size) - 0.5
    index = (corners @ inner.index_to_physical.T @ grid.physical_to_index.T)[:, :3]
    low = np.clip(np.ceil(index.min(axis=0) - 1e-3), 0, None).astype(int)
    high = np.clip(np.floor(index.max(axis=0) + 1e-3) + 1, None, grid.size).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))


def part_of(grid: Grid, box: tuple[slice, ...]) -> Grid:
    """Return the grid of a box (slices of z, y, x) of a grid."""
    first = [part.start for part in reversed(box)]
    size = tuple(part.stop - part.start for part in reversed(box))
    origin = grid.index_to_physical @ [*first, 1.0]
    return Grid(size, grid.spacing, tuple(float(value) for value in origin[:3]), grid.direction)  # type: ignore[arg-type]
