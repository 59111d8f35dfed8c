"""Checks of the geometry that a file states: spacing, directions, extent, memory."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossmoda.errors import cannot_read
from crossmoda.volume.grid import Grid

#: The largest sine of the angle between two axes that still counts as rounding.
SHEAR_TOLERANCE = 1e-3
#: The remedy of a spacing that is 0, negative or not a number.
CORRECT_SPACING = "Correct the spacing in its header: every spacing must be positive"
#: A volume whose longest axis is shorter or longer than this has its spacing in another unit, mm.
_SHORTEST_MM, _LONGEST_MM = 0.1, 1000.0
#: The largest field of view, mm3: 60 x 60 x 60 cm. Resampled to the resolution of an ear, more would fill the memory.
_LARGEST_MM3 = 600.0**3


def refuse_spacing(spacing: Sequence[float], path: Path) -> None:
    """Raise :class:`InputError` if a spacing is not a positive number."""
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        text = " x ".join(f"{value:g}" for value in spacing)
        raise cannot_read(path, f"voxel spacing of {text} mm", CORRECT_SPACING)


def shear_of(columns: np.ndarray) -> float:
    """Return the largest sine of the deviation of three axes, the columns of a 3 x 3 matrix, from right angles.

    NaN if the axes do not span space.
    """
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(lengths)) or min(lengths) == 0:
        return math.nan
    axes = columns / lengths
    if abs(np.linalg.det(axes)) < 1e-6:
        return math.nan
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def refuse_sheared(columns: np.ndarray, path: Path) -> None:
    """Raise :class:`InputError` if the axes of an image, the columns of a 3 x 3 matrix, are not perpendicular."""
    shear = shear_of(columns)
    if math.isnan(shear):
        raise cannot_read(path, "axis directions do not span space", "Correct the directions in its header")
    if shear > SHEAR_TOLERANCE:
        raise cannot_read(
            path,
            f"axes are not perpendicular (by {math.degrees(math.asin(min(shear, 1.0))):.2f} degrees)",
            "Resample it on a rectangular grid, for example with Slicer's Resample Scalar/Vector/DWI Volume",
        )


def check(grid: Grid, path: Path) -> None:
    """Raise :class:`InputError` if a grid is not that of a scan.

    Position, spacing and directions must be finite, the axes perpendicular and of length 1, and the field of view that
    of a body.
    """
    if not np.all(np.isfinite((*grid.spacing, *grid.origin, *grid.direction))):
        raise cannot_read(path, "position, spacing or direction is not a finite number", "Correct its header")
    refuse_spacing(grid.spacing, path)
    lengths_mm = [count * step for count, step in zip(grid.size, grid.spacing, strict=True)]
    if not _SHORTEST_MM <= max(lengths_mm) <= _LONGEST_MM or math.prod(lengths_mm) > _LARGEST_MM3:
        size = " x ".join(f"{length:g}" for length in lengths_mm)
        raise cannot_read(path, f"{size} mm in size, an unlikely spacing", "Correct the spacing in its header to mm")
    refuse_sheared(grid.axes, path)
    if np.abs(np.linalg.norm(grid.axes, axis=0) - 1).max() > SHEAR_TOLERANCE:
        reason = "axis directions are not of length 1, which makes its spacing doubtful"
        raise cannot_read(path, reason, "Correct its header")


def grid_of_affine(affine: np.ndarray, size: Sequence[int]) -> Grid:
    """Return the grid of a 4 x 4 matrix from index (x, y, z) to LPS mm."""
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    spacing = tuple(lengths.tolist())
    direction = tuple((columns / lengths).ravel().tolist())
    counts = tuple(int(count) for count in size)
    return Grid(counts, spacing, tuple(affine[:3, 3].tolist()), direction)  # type: ignore[arg-type]
