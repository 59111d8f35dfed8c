"""Helpers of the correction: pure functions on label maps, so that the caller can undo them.

Label maps are uint8 (z, y, x). Each function returns a new array. ``region`` says where voxels may change: a bool array
(z, y, x), a :class:`~crossmoda.review.regions.Region`, or None for everywhere. Nothing but the structure that is asked
for changes: another structure is never painted over (except by :func:`take`, which brings the labels of a source).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.review.mirror import MirrorCheck, mirror_check
from crossmoda.review.regions import Region
from crossmoda.volume import Grid
from crossmoda.volume.masks import bounding_box, components

__all__ = ["MirrorCheck", "ball", "fill_holes", "mirror_check", "remove_islands", "smooth", "take"]

Where = np.ndarray | Region | None


def take(label_map: np.ndarray, source: np.ndarray, region: Where) -> np.ndarray:
    """Return the label map with the labels of ``source`` (of the same shape) inside ``region``."""
    if source.shape != label_map.shape:
        raise InputError(
            f"The source has the shape {source.shape}, the label map {label_map.shape}; bring it on the same grid."
        )
    return np.where(_mask(region, label_map.shape), source, label_map).astype(np.uint8)


def fill_holes(label_map: np.ndarray, value: int, region: Where = None) -> np.ndarray:
    """Return the label map with the holes of a structure filled: background that it encloses on all sides."""
    mask = label_map == value
    result = label_map.copy()
    if mask.any():
        box = bounding_box(mask, 1)
        holes = ndimage.binary_fill_holes(mask[box]) & (label_map[box] == labels.BACKGROUND)
        result[box][holes & _mask(region, label_map.shape)[box]] = value
    return result


def remove_islands(
    label_map: np.ndarray, value: int, smallest_mm3: float, grid: Grid, region: Where = None
) -> np.ndarray:
    """Return the label map without the pieces of a structure that are smaller than ``smallest_mm3``.

    Voxels that touch with a face, an edge or a corner belong to one piece. The largest piece always stays, however
    small, and so do pieces that do not lie wholly inside ``region``.
    """
    pieces, count = components(label_map == value)
    if count < 2:
        return label_map.copy()
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    small = sizes * grid.voxel_volume_mm3 < smallest_mm3
    small[[0, int(sizes.argmax())]] = False
    small[np.unique(pieces[~_mask(region, label_map.shape)])] = False
    return _painted(label_map, small[pieces], labels.BACKGROUND)


def smooth(label_map: np.ndarray, value: int, radius_mm: float, grid: Grid, region: Where = None) -> np.ndarray:
    """Return the label map with the outline of a structure smoothed; its volume stays.

    The structure is blurred with a Gaussian whose standard deviation is half of ``radius_mm`` (in mm along every axis,
    whatever the voxels are) and gets as many voxels as it had, those with the highest values. It trades voxels with
    the background only.

    Raises:
        InputError: the radius is not positive.

    """
    if not radius_mm > 0:
        raise InputError(f"The radius of smoothing must be positive; got {radius_mm:g} mm.")
    mask = label_map == value
    free = (mask | (label_map == labels.BACKGROUND)) & _mask(region, label_map.shape)
    count = int(np.count_nonzero(mask & free))
    if not count:
        return label_map.copy()
    box = bounding_box(mask, [count + 1 for count in grid.voxels(2 * radius_mm)])
    blurred = ndimage.gaussian_filter(
        mask[box].astype(np.float32), [radius_mm / 2 / spacing for spacing in grid.spacing_zyx], mode="nearest"
    )
    # The voxel's own label decides between equal values, so that a smooth outline stays as it is.
    height = np.where(free[box], blurred + 1e-6 * mask[box], -1.0)
    order = np.argpartition(height.ravel(), -count)[-count:]
    chosen = np.zeros(height.size, bool)
    chosen[order] = True
    result = label_map.copy()
    part = result[box]
    part[free[box] & mask[box]] = labels.BACKGROUND
    part[chosen.reshape(height.shape) & free[box]] = value
    return result


def _mask(region: Where, shape: tuple[int, ...]) -> np.ndarray:
    if region is None:
        return np.ones(shape, bool)
    mask = region.mask(shape) if isinstance(region, Region) else np.asarray(region, bool)
    if mask.shape != shape:
        raise InputError(f"The region has the shape {mask.shape}, the label map {shape}; bring it on the same grid.")
    return mask


def _painted(label_map: np.ndarray, where: np.ndarray, value: int) -> np.ndarray:
    result = label_map.copy()
    result[where] = value
    return result


def ball(grid: Grid, center_lps: Sequence[float], radius_mm: float) -> np.ndarray:
    """Return where a ball lies on a grid: bool (z, y, x); empty if its center is outside."""
    mask = np.zeros(grid.shape, bool)
    index = grid.to_index(center_lps)
    if np.any(index < -0.5) or np.any(index > np.array(grid.size) - 0.5):
        return mask
    reach = radius_mm / np.array(grid.spacing)
    parts = [
        slice(max(int(np.floor(c - r)), 0), min(int(np.ceil(c + r)) + 1, n))
        for c, r, n in zip(index, reach, grid.size, strict=True)
    ]
    axes = np.ogrid[parts[2], parts[1], parts[0]]
    distance = sum(((axis - c) * s) ** 2 for axis, c, s in zip(axes, index[::-1], grid.spacing[::-1], strict=True))
    mask[parts[2], parts[1], parts[0]] = distance <= radius_mm**2
    return mask
