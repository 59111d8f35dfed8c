"""Diameters within the patient's axial planes, on grids of any orientation.

The consensus on reporting vestibular schwannomas measures the tumor in the axial plane (Kanzaki et al. 2003, Otology &
Neurotology 24:642). Axial is perpendicular to the patient's superior axis, whatever the orientation of the slices: the
mask is interpolated on axial planes, and its outline there is the level one half. On axial slices without a tilt the
planes are the slices, and the outline goes through the voxel faces.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda.errors import InputError
from crossmoda.measurement.surface import Line, diagonal, farthest_pair, largest_first
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.masks import bounding_box, widened
from crossmoda.volume.resampling import resample

#: Distance between samples within a plane, and between planes where the slices are not axial, mm.
_FINEST_MM, _COARSEST_MM, _BETWEEN_PLANES_MM = 0.1, 0.25, 0.5
#: Largest tilt of slices that count as axial, as the sine of an angle.
_LARGEST_TILT = 1e-3
#: Cosine of the largest tilt of slices by whose number a line can be found.
_NEARLY_AXIAL = 0.87
#: Within a plane, lengths are in steps between samples.
_STEPS = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class HalfSpace:
    """The points on one side of a plane."""

    point: np.ndarray
    """a point of the plane, LPS mm, (3,)"""
    normal: np.ndarray
    """unit vector into the half space, (3,)"""

    @classmethod
    def at(cls, point: Sequence[float], normal: Sequence[float]) -> "HalfSpace":
        """Return the half space of a plane through a point (LPS mm) with a normal of any length.

        Raises:
            InputError: a number is missing or not finite, or the normal is zero.

        """
        values = np.array([*point, *normal], float)
        length = float(np.linalg.norm(values[3:]))
        if len(values) != 6 or not np.isfinite(values).all() or length < 1e-6:
            raise InputError(f"Not a plane: point {list(point)}, normal {list(normal)}. Give three numbers for each.")
        return cls(values[:3], values[3:] / length)

    def depth_mm(self, points: np.ndarray) -> np.ndarray:
        """Return how deep points (..., 3) lie in the half space; negative outside of it."""
        depth: np.ndarray = (points - self.point) @ self.normal
        return depth

    def moved(self, distance_mm: float) -> "HalfSpace":
        """Return the half space whose plane lies farther inside by a distance; negative: farther outside."""
        return HalfSpace(self.point + distance_mm * self.normal, self.normal)

    @property
    def complement(self) -> "HalfSpace":
        """The points on the other side of the plane."""
        return HalfSpace(self.point, -self.normal)


@dataclasses.dataclass(frozen=True)
class AxialDiameters:
    """The greatest diameter in an axial plane, and the greatest perpendicular to it in the same plane."""

    largest: Line
    perpendicular: Line


def axial_diameters(mask: Volume, within: HalfSpace | None = None) -> AxialDiameters | None:
    """Return the diameters of a mask, of one connected piece of it in the plane.

    Args:
        mask: bool (z, y, x), on any grid.
        within: the half space to which the mask is restricted; None: everywhere.

    Returns:
        None where the mask, or its part in the half space, is empty.

    """
    if not mask.array.any():
        return None
    planes = _planes(mask, within)
    best: tuple[Line, int, np.ndarray] | None = None
    for number, level in enumerate(planes.array):
        pieces, _ = ndimage.label(level > 0, np.ones((3, 3)))
        for piece, box in largest_first(pieces, _STEPS):
            if best is not None and diagonal(box, _STEPS) + 2 < best[0].length_mm:
                break  # neither this piece nor the following ones are longer
            part = widened(box, 1, level.shape)
            own = np.where(pieces[part] == piece, level[part], np.minimum(level[part], 0))
            corner = np.array([part[1].start, part[0].start])
            line = farthest_pair(_outline(own) + corner)
            if best is None or line.length_mm > best[0].length_mm + 1e-6:
                best = line, number, np.where(pieces == piece, level, np.minimum(level, 0))
    if best is None:
        return None
    line, number, level = best
    return AxialDiameters(*(_in_space(each, number, planes.grid) for each in (line, _perpendicular(line, level))))


def slice_number(grid: Grid, line: Line) -> int | None:
    """Return the number, from 1, of the slice at the middle of a line; None where slices are far from axial."""
    axis = int(np.abs(grid.axes[2]).argmax())
    if abs(grid.axes[2, axis]) < _NEARLY_AXIAL or axis != int(np.argmax(grid.spacing)):
        return None
    return 1 + round(float(grid.to_index((line.start + line.stop) / 2)[axis]))


def _axial_axis(grid: Grid) -> int | None:
    """Return the axis (of x, y, z) along which axial slices follow each other; None where slices are not axial."""
    axis = int(np.abs(grid.axes[2]).argmax())
    tilt = np.delete(grid.axes[2], axis)
    return axis if np.abs(tilt).max() < _LARGEST_TILT else None


def _planes(mask: Volume, within: HalfSpace | None) -> Volume:
    """Return the occupancy less one half on axial planes, at least positive inside: float (plane, y, x)."""
    part = mask.crop(tuple(slice(side.start - 1, side.stop + 1) for side in bounding_box(mask.array)))
    grid = part.grid
    step_mm = min(max(min(grid.spacing) / 2, _FINEST_MM), _COARSEST_MM)
    axis = _axial_axis(grid)
    between_mm = _BETWEEN_PLANES_MM if axis is None else grid.spacing[axis]
    low, high = grid.corners.min(axis=0), grid.corners.max(axis=0)
    spacing = np.array([step_mm, step_mm, between_mm])
    size = tuple((np.ceil((high - low) / spacing - 1e-3).astype(int) + 1).tolist())
    axial = Grid(size, tuple(spacing.tolist()), tuple(low.tolist()), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    levels = resample(Volume(part.array.astype(np.float32), grid), axial).array - np.float32(0.5)
    if within is not None:
        z, y, x = (
            start + gap * np.arange(count)
            for start, gap, count in zip(axial.origin[::-1], axial.spacing_zyx, axial.shape, strict=True)
        )
        normal, point = within.normal, within.point
        depth = (
            normal[2] * (z - point[2])[:, None, None]
            + normal[1] * (y - point[1])[None, :, None]
            + normal[0] * (x - point[0])[None, None, :]
        )
        levels = np.minimum(levels, depth.astype(np.float32) / np.float32(2 * step_mm))
    return Volume(levels, axial)


def _outline(level: np.ndarray) -> np.ndarray:
    """Return the points (n, 2), in steps along x and y, where a level (y, x) passes zero between two samples."""
    points = []
    for axis in (0, 1):
        first, second = (np.delete(level, index, axis) for index in (-1, 0))
        crossed = (first > 0) != (second > 0)
        place = np.argwhere(crossed).astype(float)
        place[:, axis] += first[crossed] / (first[crossed] - second[crossed])
        points.append(place[:, ::-1])
    return np.concatenate(points)


def _perpendicular(line: Line, level: np.ndarray) -> Line:
    """Return the longest extent of a level (y, x) perpendicular to a line, both in steps along x and y."""
    along = (line.stop - line.start) / line.length_mm
    across = np.array([-along[1], along[0]])
    reach = np.arange(-line.length_mm - 2, line.length_mm + 2.5)  # beyond the piece on both sides
    best = Line(line.start, line.start)
    for position in np.arange(0, line.length_mm, 0.5):
        foot = line.start + position * along
        points = foot + reach[:, None] * across
        values = ndimage.map_coordinates(level, points[:, ::-1].T, order=1, cval=-0.5)
        inside = np.flatnonzero(values > 0)
        if len(inside):
            low, high = (
                reach[end] + sign * values[end] / (values[end] - values[end + sign])
                for end, sign in ((inside[0], -1), (inside[-1], 1))
            )
            chord = Line(foot + low * across, foot + high * across)
            best = max(best, chord, key=lambda each: each.length_mm)
    return best


def _in_space(line: Line, plane: int, grid: Grid) -> Line:
    """Return a line of a plane, in steps along x and y, in LPS mm."""
    start, stop = (grid.to_lps([*point, float(plane)]) for point in (line.start, line.stop))
    return Line(start, stop)
