"""Coarser copies and parts of volumes, and points in physical space (LPS mm)."""

import numpy as np
from scipy.ndimage import gaussian_filter

from crossmoda.volume import Grid, Volume


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (..., 3) under a 4 x 4 matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def positions(grid: Grid) -> np.ndarray:
    """Return the voxel centers of a grid, (z, y, x, 3) LPS mm."""
    axes = np.meshgrid(*(np.arange(count, dtype=float) for count in grid.shape), indexing="ij")
    return moved(grid.index_to_physical, np.stack(axes[::-1], axis=-1))


def bounds(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest LPS position of the voxel centers of a grid, mm."""
    return grid.corners.min(axis=0), grid.corners.max(axis=0)


def covering(low: np.ndarray, high: np.ndarray, spacing_mm: float) -> Grid:
    """Return a grid of cubic voxels along the LPS axes that covers a box, its first voxel at ``low``."""
    size = np.maximum(np.ceil((high - low) / spacing_mm - 1e-6).astype(int), 1) + 1
    return Grid(tuple(size.tolist()), (spacing_mm,) * 3, tuple(low.tolist()), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def cropped(image: Volume, low: np.ndarray, high: np.ndarray) -> Volume:
    """Return the part of an image along the LPS axes that lies in a box."""
    origin, spacing = np.asarray(image.grid.origin), np.asarray(image.grid.spacing)
    first = np.maximum(np.ceil((low - origin) / spacing - 1e-6).astype(int), 0)
    stop = np.minimum(np.floor((high - origin) / spacing + 1e-6).astype(int) + 1, image.grid.size)
    array = image.array[tuple(slice(first[axis], stop[axis]) for axis in (2, 1, 0))]
    start = tuple((origin + first * spacing).tolist())
    grid = Grid(tuple((stop - first).tolist()), image.grid.spacing, start, image.grid.direction)
    return Volume(np.ascontiguousarray(array), grid)


def averaged(scan: Volume, spacing_mm: float) -> Volume:
    """Return a scan whose voxels are means over blocks of about ``spacing_mm``, float32."""
    size, spacing = scan.grid.size, scan.grid.spacing
    blocks = [max(1, min(round(spacing_mm / step), count)) for step, count in zip(spacing, size, strict=True)]
    counts = [count // block for count, block in zip(size, blocks, strict=True)]
    array = scan.array[tuple(slice(counts[axis] * blocks[axis]) for axis in (2, 1, 0))]
    result = np.empty(counts[::-1], np.float32)
    for number, averages in enumerate(result):  # section by section: a large scan is read, hardly anything is written
        section = array[number * blocks[2] : (number + 1) * blocks[2]]
        for axis, (count, block) in enumerate(zip((1, counts[1], counts[0]), blocks[::-1], strict=True)):
            if block > 1:
                shape = (*section.shape[:axis], count, block, *section.shape[axis + 1 :])
                section = section.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
        averages[:] = section[0]
    origin = (scan.grid.index_to_physical @ [*((block - 1) / 2 for block in blocks), 1.0])[:3]
    steps = tuple(step * block for step, block in zip(spacing, blocks, strict=True))
    grid = Grid(tuple(counts), steps, tuple(origin.tolist()), scan.grid.direction)  # type: ignore[arg-type]
    return Volume(result, grid)


def smoothed(image: Volume, spacing_mm: float) -> Volume:
    """Return an image blurred so that it can be sampled every ``spacing_mm`` without aliasing, float32."""
    ratio = np.maximum(spacing_mm / np.asarray(image.grid.spacing_zyx), 1.0)
    sigma = 0.43 * np.sqrt(ratio**2 - 1)  # the blur of a voxel of the new size, less that of the image's own
    return image.with_array(gaussian_filter(image.array.astype(np.float32), sigma, truncate=3.0))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the normalized cross-correlation of two sets of values; 0 where one of them is constant."""
    one, other = one - one.mean(dtype=np.float64), other - other.mean(dtype=np.float64)
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0
