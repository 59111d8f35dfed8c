"""The deformable stage: dense displacement search on a spanning tree, and inverse-consistent fields."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from crossmoda import threads
from crossmoda.deeds import cost, tree
from crossmoda.deeds.backend import Backend
from crossmoda.deeds.backend_cpu import sampling
from crossmoda.deeds.pyramid import Level, Pyramid
from crossmoda.progress import Progress, report
from crossmoda.volume.grid import Grid


@dataclasses.dataclass(frozen=True)
class Field:
    """Displacements at control points: trilinear in between, constant beyond."""

    array: np.ndarray
    """(3, z, y, x) float32: displacement along the axes z, y, x of the grid, mm"""
    grid: Grid
    """the control points"""

    def _place(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of the first voxel of ``grid`` in the field, and the step from voxel to voxel."""
        first = (self.grid.physical_to_index @ grid.index_to_physical)[:3, 3][::-1]
        return first, np.array(grid.spacing_zyx) / self.grid.spacing_zyx

    def at(self, grid: Grid) -> np.ndarray:
        """Return the displacements (3, z, y, x) at the points of a grid with the same axes, mm."""
        return sampling.upsample(self.array, *self._place(grid), grid.shape)

    def voxels(self, grid: Grid, backend: Backend) -> Any:
        """Return the displacements (3, z, y, x) at the voxels of a grid with the same axes, in its voxels."""
        scaled = _scaled(self.array, tuple(1 / size for size in grid.spacing_zyx))
        return backend.upsample(scaled, *self._place(grid), grid.shape)


def zero_field(grid: Grid) -> Field:
    """Return no displacement, on the axes of ``grid``."""
    return Field(np.zeros((3, 1, 1, 1), np.float32), dataclasses.replace(grid, size=(1, 1, 1)))


def control_grid(grid: Grid, block: tuple[int, int, int]) -> Grid:
    """Return the grid of the centers of the blocks (voxels, z, y, x) that tile ``grid`` from its first voxel."""
    steps = np.array(block[::-1])
    size = -(-np.array(grid.size) // steps)
    origin = grid.index_to_physical @ [*((steps - 1) / 2), 1]
    spacing = steps * grid.spacing
    return Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin[:3].tolist()), grid.direction)


def _scaled(field: np.ndarray, sizes: tuple[float, ...]) -> np.ndarray:
    return field * np.array(sizes, np.float32)[:, None, None, None]


def make_consistent(forward: Field, backward: Field, iterations: int = 10) -> tuple[Field, Field]:
    """Return both fields made inverse-consistent: each is averaged with the inverse that its counterpart implies."""
    spacing = forward.grid.spacing_zyx
    inverse = tuple(1 / size for size in spacing)
    ahead, back = _scaled(forward.array, inverse), _scaled(backward.array, inverse)
    for _ in range(iterations):
        ahead, back = 0.5 * (ahead - sampling.compose(back, ahead)), 0.5 * (back - sampling.compose(ahead, back))
    return Field(_scaled(ahead, spacing), forward.grid), Field(_scaled(back, spacing), backward.grid)


def _search(
    backend: Backend,
    codes: Any,
    warped_codes: Any,
    image: Any,
    mask: np.ndarray,
    deviation: float,
    field: Field,
    *,
    level: Level,
    grid: Grid,
    alpha: float,
) -> Field:
    """Return ``field`` improved by the best displacements of the level's control points."""
    block, radius, quantization = level.block(grid), level.radius(grid), level.quantization(grid)
    differences = backend.block_differences(image, block)
    costs = backend.data_cost(  # a GPU computes them while the tree is built on the CPU
        codes,
        warped_codes,
        block=block,
        radius=radius,
        quantization=quantization,
        skip=level.skip(grid),
        scale=0.5 * level.spacing / (alpha * level.step),
        mask=mask,
    )
    steps_mm = [count * size for count, size in zip(quantization, grid.spacing_zyx, strict=True)]
    span = tree.spanning_tree(differences, deviation)
    controls = control_grid(grid, block)
    before = field.at(controls)
    flat = before.reshape(3, -1).T / np.array(steps_mm, np.float32)
    offsets = flat[span.parents] - flat  # that of the root, whose parent is -1, is not used
    z, y, x = (2 * count + 1 for count in radius)
    chosen = tree.best_displacements(backend.receive(costs).reshape(len(flat), -1), span, offsets, (z, y, x))
    shift = cost.displacements(radius, steps_mm)[chosen]
    return Field(before + shift.T.reshape(before.shape), controls)


def _search_forward(
    fixed: Pyramid, moving: Pyramid, matrix: np.ndarray, field: Field, level: Level, alpha: float
) -> Field:
    """Return the improved forward field: blocks of the fixed image searched in the moving image."""
    backend, grid = fixed.backend, fixed.grid(level)
    to_moving = moving.grid(level).physical_to_index @ matrix @ grid.index_to_physical
    warped = backend.warp(moving.image(level), to_moving, grid.shape, field.voxels(grid, backend))
    codes = fixed.codes(level), backend.codes(warped, level.patch())
    image, mask = fixed.image(level), fixed.mask(level)
    return _search(backend, *codes, image, mask, fixed.deviation, field, level=level, grid=grid, alpha=alpha)


class _Aligned(NamedTuple):
    """The moving image on a grid of the fixed image, linearly aligned."""

    image: Any
    codes: Any
    mask: np.ndarray
    deviation: float


def _align(fixed: Pyramid, moving: Pyramid, matrix: np.ndarray, level: Level) -> _Aligned:
    backend, grid = fixed.backend, fixed.grid(level)
    to_moving = moving.grid(level).physical_to_index @ matrix @ grid.index_to_physical
    image = backend.warp(moving.image(level), to_moving, grid.shape)
    return _Aligned(image, backend.codes(image, level.patch()), moving.mask_on(grid, matrix), moving.deviation)


def _search_backward(fixed: Pyramid, aligned: _Aligned, field: Field, level: Level, alpha: float) -> Field:
    """Return the improved backward field: blocks of the aligned moving image searched in the fixed image."""
    backend, grid = fixed.backend, fixed.grid(level)
    warped = backend.warp(fixed.image(level), np.eye(4), grid.shape, field.voxels(grid, backend))
    codes = aligned.codes, backend.codes(warped, level.patch())
    image, mask = aligned.image, aligned.mask
    return _search(backend, *codes, image, mask, aligned.deviation, field, level=level, grid=grid, alpha=alpha)


def _after(first: Callable[[], object], work: Callable[[], Field]) -> Field:
    first()
    return work()


def register(
    fixed: Pyramid,
    moving: Pyramid,
    matrix: np.ndarray,
    levels: list[Level],
    alpha: float,
    progress: Progress | None = None,
) -> tuple[Field, Field]:
    """Return the forward and the backward field, both on the axes of the fixed image.

    A fixed point x (LPS mm) corresponds to the moving point ``matrix @ (x + forward(x))``, and a moving point y to
    ``z + backward(z)`` with ``z = inverse(matrix) @ y``.
    """
    forward = backward = zero_field(fixed.volume.grid)
    compared: tuple[Grid, int] | None = None
    for number, level in enumerate(levels):
        message = f"deformable registration, level {number + 1} of {len(levels)}"
        report(progress, number / len(levels), message)
        resolution = fixed.grid(level), level.patch()
        if resolution != compared:  # levels of the same resolution share the linearly aligned moving image
            compared, aligned = resolution, _align(fixed, moving, matrix, level)
        search_forward = functools.partial(_search_forward, fixed, moving, matrix, forward, level, alpha)
        search_backward = functools.partial(_search_backward, fixed, aligned, backward, level, alpha)
        half = functools.partial(report, progress, (number + 0.5) / len(levels), message)
        forward, backward = make_consistent(
            *threads.both(search_forward, functools.partial(_after, half, search_backward), fixed.backend.at_once)
        )
    return forward, backward
