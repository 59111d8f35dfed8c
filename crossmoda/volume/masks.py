"""Verbs of masks: arrays of bool, (z, y, x), that mark a structure."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda.volume.grid import Box, Grid

#: Voxels that share a face, an edge or a corner belong to one component.
NEIGHBORHOOD = np.ones((3, 3, 3), bool)


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] = 0) -> Box:
    """Return the smallest box around a mask, widened by a margin within the array; an empty box for an empty mask.

    Args:
        mask: bool, any number of axes.
        margin: voxels, for all axes or for each; :meth:`Grid.voxels` makes it of mm.

    Example:
        >>> bounding_box(np.array([False, False, True, True]), margin=1)
        (slice(1, 4, None),)

    """
    boxes = ndimage.find_objects(np.asarray(mask, bool).view(np.uint8)) if mask.size else []  # SciPy refuses it
    if not boxes:
        return (slice(0, 0),) * mask.ndim
    return widened(boxes[0], margin, mask.shape)


def widened(box: Box, margin: int | Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box with a margin (voxels, for all axes or for each) within an array of ``shape``."""
    margins = np.broadcast_to(margin, len(box)).tolist()
    return tuple(
        slice(max(side.start - more, 0), min(side.stop + more, size))
        for side, more, size in zip(box, margins, shape, strict=True)
    )


def used_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Return the indices along an axis at which a mask has any voxel, in order."""
    return np.flatnonzero(mask.any(axis=tuple(number for number in range(mask.ndim) if number != axis)))


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the connected components, numbered from 1 in an int32 array, and their number."""
    numbers, count = ndimage.label(mask, NEIGHBORHOOD)
    return numbers, int(count)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the mask of the component with the most voxels, the first of equal ones."""
    numbers, count = components(mask)
    return mask if count < 2 else numbers == 1 + int(np.bincount(numbers.ravel())[1:].argmax())


def grown(mask: np.ndarray, distance_mm: float, grid: Grid) -> np.ndarray:
    """Return the mask grown by a distance, mm."""
    result = np.zeros(mask.shape, bool)
    if mask.any():
        box = bounding_box(mask, grid.voxels(distance_mm))
        result[box] = ndimage.distance_transform_edt(~mask[box], grid.spacing_zyx) <= distance_mm
    return result


def solid(mask: np.ndarray) -> np.ndarray:
    """Return the mask with the holes that it encloses, such as cysts and the uncertain core of a tumor."""
    filled = mask.copy()
    box = bounding_box(mask)
    filled[box] = ndimage.binary_fill_holes(mask[box])
    return filled
