"""The levels of the registration, and an image with its descriptors at the resolution of each."""

import dataclasses
from typing import Any

import numpy as np
import scipy.ndimage

from crossmoda.deeds.backend import Backend
from crossmoda.deeds.backend_cpu import sampling
from crossmoda.volume.grid import Grid, Volume

#: Working voxels per displacement step where units are mm.
SAMPLES_PER_STEP = 2.0
#: Working voxels are never finer than this, mm.
FINEST_MM = 1.0


@dataclasses.dataclass(frozen=True)
class Level:
    """One level: the spacing of control points, the range and the step of the displacements searched."""

    spacing: float
    """distance of control points, mm or voxels"""
    steps: int
    """displacements on each side of zero"""
    step: float
    """size of a displacement step, mm or voxels"""
    units: str
    """``"mm"`` or ``"voxel"``"""

    def working_grid(self, grid: Grid) -> Grid:
        """Return the grid on which images are compared: cubic voxels at the scale of the steps, or the image's own."""
        if self.units == "voxel":
            return grid
        return sampling.isotropic_grid(grid, max(self.step / SAMPLES_PER_STEP, FINEST_MM))

    def _voxels(self, length: float, grid: Grid) -> tuple[int, int, int]:
        sizes = (1.0, 1.0, 1.0) if self.units == "voxel" else grid.spacing_zyx
        z, y, x = (max(round(length / size), 1) for size in sizes)
        return z, y, x

    def block(self, grid: Grid) -> tuple[int, int, int]:
        """Return the distance of control points in voxels (z, y, x) of the working grid."""
        return self._voxels(self.spacing, grid)

    def quantization(self, grid: Grid) -> tuple[int, int, int]:
        """Return the displacement step in voxels (z, y, x) of the working grid."""
        return self._voxels(self.step, grid)

    def radius(self, grid: Grid) -> tuple[int, int, int]:
        """Return the number of steps on each side of zero (z, y, x)."""
        return (self.steps,) * 3

    def skip(self, grid: Grid) -> tuple[int, int, int]:
        """Return the step from compared voxel to compared voxel of a block along (z, y, x).

        deedsBCV takes every second one along two axes, in blocks larger than 4 voxels. In mm, where descriptors are as
        smooth as the displacement step is large, coarse levels take every third.
        """
        if self.units == "voxel":
            return (2, 2, 1) if min(self.block(grid)) > 4 else (1, 1, 1)
        every = 3 if min(self.quantization(grid)) > 3 else 2
        return (every, every, 1) if min(self.block(grid)) > 3 else (1, 1, 1)

    def patch(self) -> int:
        """Return radius and dilation of the descriptor, voxels of the working grid."""
        return int(self.step / 2 + 1) if self.units == "voxel" else 1


class Pyramid:
    """An image at the resolutions of the levels, with its descriptors and its foreground."""

    def __init__(self, volume: Volume, backend: Backend, mask: Volume | None = None):
        """Prepare ``volume``; its foreground is ``mask``, or everything but the air around the patient."""
        self.volume = volume
        self.backend = backend
        self.deviation = float(volume.array.std(dtype=np.float64))
        self.foreground = foreground(volume) if mask is None else mask.with_array((mask.array > 0).astype(np.float32))
        self._full = backend.send(volume.array)
        self._images: dict[Grid, Any] = {}
        self._codes: dict[tuple[Grid, int], Any] = {}
        self._masks: dict[Grid, np.ndarray] = {}

    def grid(self, level: Level) -> Grid:
        """Return the grid on which ``level`` compares images."""
        return level.working_grid(self.volume.grid)

    def image(self, level: Level) -> Any:
        """Return the image on the grid of ``level``."""
        grid = self.grid(level)
        if grid not in self._images:
            self._images[grid] = self.backend.resize(self._full, self.volume.grid, grid)
        return self._images[grid]

    def codes(self, level: Level) -> Any:
        """Return the packed descriptors of the image on the grid of ``level``."""
        key = (self.grid(level), level.patch())
        if key not in self._codes:
            self._codes[key] = self.backend.codes(self.image(level), level.patch())
        return self._codes[key]

    def forget_codes(self, but: Level | None = None) -> None:
        """Free the memory of the descriptors of all levels, ``but`` one."""
        needed = but and (self.grid(but), but.patch())
        self._codes = {key: codes for key, codes in self._codes.items() if key == needed}

    def mask(self, level: Level) -> np.ndarray:
        """Return the foreground on the grid of ``level``, bool."""
        grid = self.grid(level)
        if grid not in self._masks:
            self._masks[grid] = self.mask_on(grid, np.eye(4))
        return self._masks[grid]

    def mask_on(self, grid: Grid, matrix: np.ndarray) -> np.ndarray:
        """Return the foreground on another grid, whose points ``matrix`` (4 x 4, LPS mm) maps into this image."""
        to_index = self.foreground.grid.physical_to_index @ matrix @ grid.index_to_physical
        return sampling.warp(self.foreground.array, to_index, grid.shape) > 0.5

    def filled_blocks(self, level: Level, block: tuple[int, int, int]) -> np.ndarray:
        """Return whether more than half of each block lies in the foreground, bool (blocks z, y, x)."""
        mask = self.mask(level)
        rest = [(0, -size % step) for size, step in zip(mask.shape, block, strict=True)]
        padded = np.pad(mask, rest)
        counts = [size // step for size, step in zip(padded.shape, block, strict=True)]
        blocks = padded.reshape(counts[0], block[0], counts[1], block[1], counts[2], block[2])
        return blocks.mean(axis=(1, 3, 5), dtype=np.float32) > 0.5


def foreground(volume: Volume) -> Volume:
    """Return the mask of the patient (float32, 0 or 1) on a grid of 3 mm: everything but the air around.

    Tissue is brighter than a tenth of the range between the first and the 99th percentile. Gaps of up to 12 mm are
    closed and holes filled, since bone and air inside the head are dark.
    """
    grid = sampling.isotropic_grid(volume.grid, 3.0)
    coarse = sampling.resize(np.ascontiguousarray(volume.array, np.float32), volume.grid, grid)
    low, high = np.percentile(coarse, [1, 99])
    tissue = coarse > low + 0.1 * (high - low)
    ball = scipy.ndimage.generate_binary_structure(3, 1)
    border = 4
    tissue = np.pad(tissue, border)
    tissue = scipy.ndimage.binary_closing(tissue, ball, iterations=border)
    tissue = scipy.ndimage.binary_fill_holes(tissue)
    tissue = scipy.ndimage.binary_opening(tissue, ball)
    tissue = scipy.ndimage.binary_dilation(tissue, ball)
    tissue = tissue[border:-border, border:-border, border:-border]
    if not tissue.any():
        tissue = np.ones_like(coarse, dtype=bool)
    return Volume(tissue.astype(np.float32), grid)
