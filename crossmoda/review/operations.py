"""Edit operations on label maps, as pure functions.

Label maps are uint8 (z, y, x). Each function returns a new array and changes voxels of ``region`` only: a bool array
(z, y, x), a :class:`~crossmoda.review.regions.Region`, or None (everywhere). Only :func:`take` overwrites other
structures than the edited one.
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

Mask = np.ndarray | Region | None


def take(label_map: np.ndarray, source: np.ndarray, region: Mask) -> np.ndarray:
    """Return the label map with the labels of ``source`` (same shape) within ``region``."""
    if source.shape != label_map.shape:
        raise InputError(f"Different shapes: source {source.shape}, label map {label_map.shape}. Resample the source.")
    return np.where(_mask(region, label_map.shape), source, label_map).astype(np.uint8)


def fill_holes(label_map: np.ndarray, value: int, region: Mask = None) -> np.ndarray:
    """Return the label map with enclosed background of a structure filled."""
    mask = label_map == value
    result = label_map.copy()
    if mask.any():
        box = bounding_box(mask, 1)
        holes = ndimage.binary_fill_holes(mask[box]) & (label_map[box] == labels.BACKGROUND)
        result[box][holes & _mask(region, label_map.shape)[box]] = value
    return result


def remove_islands(
    label_map: np.ndarray, value: int, smallest_mm3: float, grid: Grid, region: Mask = None
) -> np.ndarray:
    """Return the label map without components of a structure smaller than ``smallest_mm3``.

    The largest component is never removed, nor is any component that is partly outside ``region``. Components are
    connected by faces, edges or corners.
    """
    numbers, count = components(label_map == value)
    if count < 2:
        return label_map.copy()
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    small = sizes * grid.voxel_volume_mm3 < smallest_mm3
    small[[0, int(sizes.argmax())]] = False
    small[np.unique(numbers[~_mask(region, label_map.shape)])] = False
    result = label_map.copy()
    result[small[numbers]] = labels.BACKGROUND
    return result


def smooth(label_map: np.ndarray, value: int, radius_mm: float, grid: Grid, region: Mask = None) -> np.ndarray:
    """Return the label map with the outline of a structure smoothed, preserving its volume.

    The mask is blurred by a Gaussian (standard deviation ``radius_mm`` / 2), and the same number of voxels with the
    highest values is labeled. Voxels are exchanged with the background only.

    Raises:
        InputError: ``radius_mm`` is not positive.

    """
    if not radius_mm > 0:
        raise InputError(f"Smoothing radius must be positive; got {radius_mm:g} mm.")
    mask = label_map == value
    free = (mask | (label_map == labels.BACKGROUND)) & _mask(region, label_map.shape)
    count = int(np.count_nonzero(mask & free))
    if not count:
        return label_map.copy()
    box = bounding_box(mask, [count + 1 for count in grid.voxels(2 * radius_mm)])
    blurred = ndimage.gaussian_filter(
        mask[box].astype(np.float32), [radius_mm / 2 / spacing for spacing in grid.spacing_zyx], mode="nearest"
    )
    # Ties are resolved by the current label, so that a smooth outline does not change.
    score = np.where(free[box], blurred + 1e-6 * mask[box], -1.0)
    order = np.argpartition(score.ravel(), -count)[-count:]
    selected = np.zeros(score.size, bool)
    selected[order] = True
    result = label_map.copy()
    part = result[box]
    part[free[box] & mask[box]] = labels.BACKGROUND
    part[selected.reshape(score.shape) & free[box]] = value
    return result


def _mask(region: Mask, shape: tuple[int, ...]) -> np.ndarray:
    if region is None:
        return np.ones(shape, bool)
    mask = region.mask(shape) if isinstance(region, Region) else np.asarray(region, bool)
    if mask.shape != shape:
        raise InputError(f"Different shapes: region {mask.shape}, label map {shape}. Resample the region.")
    return mask


def ball(grid: Grid, center_lps: Sequence[float], radius_mm: float) -> np.ndarray:
    """Return a ball as a mask (z, y, x); empty if its center is outside the grid."""
    mask = np.zeros(grid.shape, bool)
    index = grid.to_index(center_lps)
    if np.any(index < -0.5) or np.any(index > np.array(grid.size) - 0.5):
        return mask
    radii = radius_mm / np.array(grid.spacing)
    parts = [
        slice(max(int(np.floor(c - r)), 0), min(int(np.ceil(c + r)) + 1, n))
        for c, r, n in zip(index, radii, grid.size, strict=True)
    ]
    axes = np.ogrid[parts[2], parts[1], parts[0]]
    distance = sum(((axis - c) * s) ** 2 for axis, c, s in zip(axes, index[::-1], grid.spacing[::-1], strict=True))
    mask[parts[2], parts[1], parts[0]] = distance <= radius_mm**2
    return mask
