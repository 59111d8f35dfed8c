"""Grids and volumes in physical space (ITK's LPS, mm), and their verbs."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

#: A box of voxels: one slice per array axis (z, y, x) with start and stop.
Box = tuple[slice, ...]


#: Distance in voxels within which two voxels count as the same: headers are rounded, some to four digits.
SAME_VOXEL = 0.02

#: The corners of a unit cube, (8, 3).
CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))


def box_from(first: Sequence[int] | np.ndarray, shape: Sequence[int]) -> Box:
    """Return the box of ``shape`` voxels from index ``first`` on, both in the order z, y, x."""
    return tuple(slice(int(start), int(start) + int(count)) for start, count in zip(first, shape, strict=True))


def _mapped(matrix: np.ndarray, points: npt.ArrayLike) -> np.ndarray:
    """Apply a 4 x 4 matrix to points (..., 3)."""
    moved: np.ndarray = np.asarray(points) @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions of the voxels of a volume: exactly ITK's geometry, in ITK's order (x, y, z), LPS, mm.

    Example:
        >>> grid = Grid((192, 160, 64), (0.5, 0.5, 1.5), (-48.0, -40.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        >>> grid.shape, grid.voxel_volume_mm3
        ((64, 160, 192), 0.375)
        >>> print(grid)
        192 x 160 x 64 voxels of 0.5 x 0.5 x 1.5 mm

    """

    size: tuple[int, int, int]
    """voxels along x, y, z"""
    spacing: tuple[float, float, float]
    """mm along x, y, z"""
    origin: tuple[float, float, float]
    """LPS position of the center of the first voxel, mm"""
    direction: tuple[float, ...]
    """3 x 3 direction cosines, row by row; column k is the direction of axis k"""

    def __str__(self) -> str:
        """Return size and spacing in words, for messages."""
        spacing = " x ".join(f"{value:.4g}" for value in self.spacing)
        return f"{' x '.join(map(str, self.size))} voxels of {spacing} mm"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the array, (z, y, x)."""
        return self.size[::-1]

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """The spacing in the order of the array, mm."""
        return self.spacing[::-1]

    @property
    def voxel_volume_mm3(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing))

    @functools.cached_property
    def axes(self) -> np.ndarray:
        """The directions as a 3 x 3 matrix; column k is the direction of axis k."""
        return np.reshape(self.direction, (3, 3))

    @functools.cached_property
    def index_to_physical(self) -> np.ndarray:
        """The 4 x 4 matrix from index (x, y, z) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @functools.cached_property
    def physical_to_index(self) -> np.ndarray:
        """The 4 x 4 matrix from LPS mm to continuous index (x, y, z)."""
        return np.linalg.inv(self.index_to_physical)

    @property
    def center(self) -> np.ndarray:
        """The LPS position of the center of the grid, (3,), mm."""
        return self.to_lps((np.asarray(self.size) - 1) / 2)

    def to_lps(self, index: npt.ArrayLike) -> np.ndarray:
        """Return the LPS positions (..., 3), mm, of continuous indices (..., 3) in the order x, y, z."""
        return _mapped(self.index_to_physical, index)

    def to_index(self, points: npt.ArrayLike) -> np.ndarray:
        """Return the continuous indices (..., 3), in the order x, y, z, of LPS positions (..., 3), mm."""
        return _mapped(self.physical_to_index, points)

    def points(self, mask: np.ndarray) -> np.ndarray:
        """Return the LPS positions (n, 3), mm, of the voxel centers of a mask (z, y, x)."""
        return self.to_lps(np.argwhere(mask)[:, ::-1])

    @property
    def corners(self) -> np.ndarray:
        """Return the LPS positions (8, 3), mm, of the centers of the corner voxels."""
        return self.to_lps(CORNERS * (np.asarray(self.size) - 1))

    def box_around(self, points: np.ndarray) -> Box:
        """Return the voxels (z, y, x) around LPS positions (n, 3), mm; an empty box where all lie beside the grid."""
        index = self.to_index(points)
        first = np.clip(np.floor(index.min(axis=0)), 0, self.size).astype(int).tolist()
        stop = np.clip(np.ceil(index.max(axis=0)) + 1, first, self.size).astype(int).tolist()
        return tuple(slice(start, end) for start, end in zip(first[::-1], stop[::-1], strict=True))

    def voxels(self, distance_mm: float) -> tuple[int, ...]:
        """Return a distance in whole voxels along z, y, x, rounded up."""
        return tuple(int(np.ceil(distance_mm / spacing)) for spacing in self.spacing_zyx)

    def crop(self, box: Box) -> "Grid":
        """Return the grid of a box of voxels; the box may extend beyond this grid."""
        first = np.array([part.start for part in reversed(box)], float)
        size = tuple(int(part.stop - part.start) for part in reversed(box))
        origin = self.index_to_physical[:3, :3] @ first + self.index_to_physical[:3, 3]
        return Grid(size, self.spacing, tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def refined(self, factors: Sequence[int]) -> "Grid":
        """Return the grid with every voxel divided into ``factors`` (x, y, z) parts."""
        spacing = np.asarray(self.spacing) / factors
        origin = np.asarray(self.origin) + self.axes @ ((spacing - np.asarray(self.spacing)) / 2)
        size = tuple(count * factor for count, factor in zip(self.size, factors, strict=True))
        return Grid(size, tuple(spacing.tolist()), tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def coarsened(self, factors: Sequence[int]) -> "Grid":
        """Return the grid of blocks of ``factors`` (x, y, z) voxels that cover this grid from its first voxel on."""
        size = tuple(-(-count // factor) for count, factor in zip(self.size, factors, strict=True))
        spacing = np.asarray(self.spacing) * factors
        origin = self.to_lps((np.asarray(factors) - 1) / 2)
        return Grid(size, tuple(spacing.tolist()), tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def moved(self, matrix: np.ndarray) -> "Grid":
        """Return the grid under a rigid 4 x 4 matrix (LPS mm)."""
        axes = matrix[:3, :3] @ self.axes
        origin = _mapped(matrix, self.origin)
        return Grid(self.size, self.spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))

    def same_as(self, reference: "Grid", tolerance: float = SAME_VOXEL) -> bool:
        """Return whether both grids place every voxel at the same position (up to ``tolerance`` voxels)."""
        if self.size != reference.size:
            return False
        corners = CORNERS * (np.asarray(self.size) - 1)
        return bool(np.abs(self.to_index(reference.to_lps(corners)) - corners).max() <= tolerance)

    def difference_to(self, reference: "Grid") -> str:
        """Return in words in what a grid differs from another: size, spacing, orientation or position."""
        if self.size != reference.size:
            return " x ".join(map(str, self.size)) + " instead of " + " x ".join(map(str, reference.size)) + " voxels"
        if not np.allclose(self.spacing, reference.spacing, rtol=1e-4):
            texts = (" x ".join(f"{value:.6g}" for value in grid.spacing) for grid in (self, reference))
            return " instead of ".join(texts) + " mm spacing"
        cosine = np.clip(np.abs(np.sum(self.axes * reference.axes, axis=0)).min(), 0, 1)
        if cosine < 1 - 1e-8 or np.sum(self.axes * reference.axes, axis=0).min() < 0:
            angle = np.degrees(np.arccos(np.clip(np.sum(self.axes * reference.axes, axis=0).min(), -1, 1)))
            return f"axes turned by up to {angle:.3g} degrees"
        return f"shifted by {np.linalg.norm(np.subtract(self.origin, reference.origin)):.3g} mm"

    @classmethod
    def of(cls, image: sitk.Image | sitk.ImageFileReader) -> "Grid":
        """Return the grid of a SimpleITK image, or of a reader that has read the header of one."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@dataclasses.dataclass(frozen=True)
class Volume:
    """An image or a label map: an array (z, y, x) and the grid it lies on."""

    array: np.ndarray
    grid: Grid

    def to_sitk(self) -> sitk.Image:
        """Return a SimpleITK image with the same voxels and grid."""
        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.grid.spacing)
        image.SetOrigin(self.grid.origin)
        image.SetDirection(self.grid.direction)
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> "Volume":
        """Make a volume from a SimpleITK image."""
        return cls(sitk.GetArrayFromImage(image), Grid.of(image))

    def with_array(self, array: np.ndarray) -> "Volume":
        """Return another array on the same grid."""
        return Volume(array, self.grid)

    def crop(self, box: Box, outside: float = 0.0) -> "Volume":
        """Return a box of the volume, a copy; the value of voxels beyond its edge is ``outside``."""
        return Volume(cut(self.array, box, outside), self.grid.crop(box))

    def pasted_on(self, grid: Grid) -> "Volume":
        """Return a volume that lies on a part of ``grid`` on all of it, filled up with 0; any other unchanged.

        Axes in another order or direction are brought to those of ``grid``: the voxels stay where they are.
        """
        if self.grid.same_as(grid):
            return Volume(self.array, grid)
        turned = self._turned_to(grid)
        if turned.grid.same_as(grid):
            return Volume(turned.array, grid)
        first = np.round(grid.to_index(turned.grid.origin)).astype(int)
        box = box_from(first[::-1].tolist(), turned.grid.shape)
        is_inside = all(part.start >= 0 and part.stop <= count for part, count in zip(box, grid.shape, strict=True))
        if not is_inside or not grid.crop(box).same_as(turned.grid):
            return self
        array = np.zeros(grid.shape, self.array.dtype)
        array[box] = turned.array
        return Volume(array, grid)

    def _turned_to(self, grid: Grid) -> "Volume":
        """Return the volume with its axes in the order and direction of those of ``grid``, if they are parallel."""
        cosines = grid.axes.T @ self.grid.axes
        order = np.abs(cosines).argmax(axis=1)
        if sorted(order.tolist()) != [0, 1, 2] or np.abs(cosines).max(axis=1).min() < 1 - 1e-6:
            return self
        signs = [int(np.sign(cosines[number, axis])) for number, axis in enumerate(order)]
        size = [self.grid.size[axis] for axis in order]
        start = [0 if sign > 0 else self.grid.size[axis] - 1 for sign, axis in zip(signs, order, strict=True)]
        first = np.zeros(3)
        first[order] = start
        array = self.array.transpose([2 - int(axis) for axis in order[::-1]])
        array = array[tuple(slice(None, None, sign) for sign in signs[::-1])]
        axes = self.grid.axes[:, order] * signs
        spacing = tuple(self.grid.spacing[axis] for axis in order)
        origin = tuple(self.grid.to_lps(first).tolist())
        turned = Grid(tuple(size), spacing, origin, tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
        return Volume(np.ascontiguousarray(array), turned)


def cut(array: np.ndarray, box: Box, outside: float = 0.0) -> np.ndarray:
    """Return a box of an array, a copy; the value beyond the array's edge is ``outside``.

    Example:
        >>> cut(np.arange(4), (slice(-1, 3),), outside=9)
        array([9, 0, 1, 2])

    """
    part = np.full([side.stop - side.start for side in box], outside, array.dtype)
    sides = list(zip(box, array.shape, strict=True))
    inside = tuple(slice(max(side.start, 0), min(side.stop, count)) for side, count in sides)
    if all(side.start < side.stop for side in inside):
        target = tuple(slice(max(-side.start, 0), min(side.stop, count) - side.start) for side, count in sides)
        part[target] = array[inside]
    return part
