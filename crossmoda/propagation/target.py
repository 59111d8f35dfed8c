"""The scan to be labeled: its preparation, and the registered part of its grid, which receives the labels."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import preprocessing
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: Returns the part of an image (with all labels of its label map) that is registered.
Prepare = Callable[[Volume, Volume | None], Volume]


@dataclasses.dataclass(frozen=True)
class Target:
    """The scan to be labeled."""

    id: str
    key: str
    """checksum of its file"""
    image: Volume
    prepared: Volume
    """the image that is registered: cropped, resampled, normalized"""
    box: tuple[slice, ...]
    """the part of the image's array that receives labels"""
    part: Volume
    """that part of the image"""
    codes: np.ndarray
    """MIND-SSC of that part, packed"""


def load_target(case: "Case", key: str, region: str, has_cochlea: bool) -> tuple[Target, preprocessing.Settings]:
    """Read a target with checksum ``key``; return it and the preparation of it and its atlases."""
    image = case.read_image()
    preparation = preprocessing.settings_for_registration(region, image.grid, has_cochlea)
    return as_target(case.id, key, image, preparer(preparation)), preparation


def as_target(identity: str, key: str, image: Volume, prepare: Prepare) -> Target:
    """Return an image as a target."""
    from crossmoda.deeds import descriptor

    prepared = prepare(image, None)
    box = _covered_box(image.grid, prepared.grid)
    cropped = Volume(np.ascontiguousarray(image.array[box]), part_of(image.grid, box))
    return Target(identity, key, image, prepared, box, cropped, descriptor.codes(cropped.array))


def preparer(preparation: preprocessing.Settings) -> Prepare:
    """Return the function that prepares an image."""
    return lambda image, label_map: preprocessing.prepare(image, label_map, preparation).image


def _covered_box(grid: Grid, inner: Grid) -> tuple[slice, ...]:
    """Return the slices (z, y, x) of ``grid`` that cover the grid ``inner``."""
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


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of the smallest box that holds a mask."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(index for index in range(mask.ndim) if index != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)
