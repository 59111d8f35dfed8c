"""Images and displacement fields resampled, compiled.

The compiled loops do not check their indices. Positions are limited as ``max(0, position)``: in this order a NaN
becomes 0; in the reverse order it would stay NaN and address any memory.
"""

import numpy as np

from crossmoda import threads
from crossmoda.deeds.backend_cpu.scratch import Scratch
from crossmoda.jit_cache import compiled
from crossmoda.volume.grid import Grid

_compiled = compiled(nogil=True, fastmath={"contract", "nsz"}, boundscheck=False)


def isotropic_grid(grid: Grid, spacing_mm: float) -> Grid:
    """Return the grid with the same axes and center, cubic voxels, that covers the extent of ``grid``."""
    return spaced_grid(grid, (spacing_mm,) * 3)


def spaced_grid(grid: Grid, spacing: tuple[float, float, float]) -> Grid:
    """Return the grid with the same axes and center and another spacing (x, y, z) that covers ``grid``."""
    if np.allclose(spacing, grid.spacing, rtol=1e-6):
        return grid
    extent = np.array(grid.size) * grid.spacing
    size = np.maximum(np.ceil(extent / spacing - 1e-3), 1).astype(int)
    center = (grid.index_to_physical @ [*((np.array(grid.size) - 1) / 2), 1])[:3]
    first = center - np.reshape(grid.direction, (3, 3)) @ ((size - 1) / 2 * spacing)
    return Grid(tuple(size.tolist()), spacing, tuple(first.tolist()), grid.direction)


@_compiled
def _weighted_last_axis(start, stop, image, first, weights, out):
    for row in range(start, stop):
        for x in range(out.shape[1]):
            total = np.float32(0)
            for tap in range(weights.shape[1]):
                total += weights[x, tap] * image[row, first[x] + tap]
            out[row, x] = total


@_compiled
def _weighted_middle_axis(start, stop, image, first, weights, out):
    for item in range(start, stop):
        plane, y = item // out.shape[1], item % out.shape[1]
        target = out[plane, y]
        target[:] = 0
        for tap in range(weights.shape[1]):
            weight = weights[y, tap]
            if weight != 0:
                source = image[plane, first[y] + tap]
                for x in range(target.shape[0]):
                    target[x] += weight * source[x]


def taps(size: int, spacing: float, new_size: int, new_spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Return first voxel and weights of each new sample: a triangle as wide as the coarser of both spacings."""
    reach = max(new_spacing / spacing, 1.0)
    count = min(int(np.ceil(2 * reach)) + 1, size)
    position = (np.arange(new_size) - (new_size - 1) / 2) * new_spacing / spacing + (size - 1) / 2
    position = np.clip(position, 0, size - 1)
    first = np.clip(np.ceil(position - reach).astype(np.int64), 0, size - count)
    place = first[:, None] + np.arange(count) - position[:, None]
    weights = np.maximum(1 - np.abs(place) / reach, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    # tilt the weights so that their center is the sample's place: a linear image stays what it is
    center = (weights * place).sum(axis=1, keepdims=True)
    spread = (weights * np.square(place - center)).sum(axis=1, keepdims=True)
    weights *= 1 - center * (place - center) / np.maximum(spread, 1e-6)
    return first, weights.astype(np.float32)


def resize(image: np.ndarray, grid: Grid, new: Grid) -> np.ndarray:
    """Return an image of ``grid`` on ``new`` (see :func:`spaced_grid`).

    Linear interpolation; where ``new`` is coarser, a triangle as wide as its spacing filters what it cannot show.
    """
    if new is grid:
        return image
    first, weights = taps(grid.size[0], grid.spacing[0], new.size[0], new.spacing[0])
    lines = np.empty((grid.size[2] * grid.size[1], new.size[0]), np.float32)
    threads.run(_weighted_last_axis, len(lines), image.reshape(len(lines), -1), first, weights, lines)
    first, weights = taps(grid.size[1], grid.spacing[1], new.size[1], new.spacing[1])
    planes = np.empty((grid.size[2], new.size[1], new.size[0]), np.float32)
    threads.run(
        _weighted_middle_axis,
        grid.size[2] * new.size[1],
        lines.reshape(grid.size[2], grid.size[1], -1),
        first,
        weights,
        planes,
    )
    first, weights = taps(grid.size[2], grid.spacing[2], new.size[2], new.spacing[2])
    out = np.empty((1, new.size[2], new.size[1] * new.size[0]), np.float32)
    threads.run(_weighted_middle_axis, new.size[2], planes.reshape(1, grid.size[2], -1), first, weights, out)
    return out.reshape(new.shape)


@_compiled
def _upsample(start, stop, field, origin, step, out):
    """Trilinear values of a coarse field (3, z, y, x) at the voxels of a finer grid."""
    depth, height, width = field.shape[1:]
    first = np.empty(out.shape[3], np.int64)
    share = np.empty(out.shape[3], np.float32)
    for x in range(out.shape[3]):
        px = min(max(0.0, origin[2] + x * step[2]), width - 1.0)
        first[x] = min(int(px), max(width - 2, 0))
        share[x] = px - first[x]
    last = min(1, width - 1)
    line = np.empty(width, np.float32)
    for item in range(start, stop):
        z, y = item // out.shape[2], item % out.shape[2]
        pz = min(max(0.0, origin[0] + z * step[0]), depth - 1.0)
        py = min(max(0.0, origin[1] + y * step[1]), height - 1.0)
        z0, y0 = int(pz), int(py)
        z1, y1 = min(z0 + 1, depth - 1), min(y0 + 1, height - 1)
        fz, fy = np.float32(pz - z0), np.float32(py - y0)
        for c in range(3):
            part = field[c]
            for x in range(width):
                near = part[z0, y0, x] + (part[z0, y1, x] - part[z0, y0, x]) * fy
                far = part[z1, y0, x] + (part[z1, y1, x] - part[z1, y0, x]) * fy
                line[x] = near + (far - near) * fz
            row = out[c, z, y]
            for x in range(row.shape[0]):
                low = line[first[x]]
                row[x] = low + (line[first[x] + last] - low) * share[x]


def upsample(
    field: np.ndarray,
    origin: np.ndarray,
    step: np.ndarray,
    shape: tuple[int, int, int],
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Return a field (3, z, y, x) at ``origin + step * index`` of its own index space, for indices within ``shape``."""
    out = (scratch or Scratch()).fresh((3, *shape), np.float32)
    threads.run(_upsample, shape[0] * shape[1], field, np.asarray(origin, float), np.asarray(step, float), out)
    return out


@_compiled
def _row_places(z, y, field, moved, matrix, shape, places):
    """Write where the voxels of row (z, y) lie in an image of ``shape``: indices (3, x), at its border at most."""
    for axis in range(3):
        along_z, along_y, along_x, shift = matrix[axis, 0], matrix[axis, 1], matrix[axis, 2], matrix[axis, 3]
        last = np.float32(shape[axis] - 1)
        place = places[axis]
        if moved:
            move_z, move_y, move_x = field[0, z, y], field[1, z, y], field[2, z, y]
            for x in range(place.shape[0]):
                at_z, at_y, at_x = np.float32(z) + move_z[x], np.float32(y) + move_y[x], np.float32(x) + move_x[x]
                index = along_z * at_z + along_y * at_y + along_x * at_x + shift
                place[x] = min(max(np.float32(0), index), last)
        else:
            for x in range(place.shape[0]):
                index = along_z * np.float32(z) + along_y * np.float32(y) + along_x * np.float32(x) + shift
                place[x] = min(max(np.float32(0), index), last)


@_compiled
def _warp(start, stop, image, field, moved, matrix, out):
    """Trilinear values of an image at matrix @ (index + field); the nearest voxel is repeated beyond its border.

    ``field`` is used only if ``moved``.

    Row by row in three loops of which each can be vectorized; unsigned places need no test for negative ones.
    """
    depth, height, width = image.shape
    voxels = image.reshape(-1)
    shares = np.empty((3, out.shape[2]), np.float32)
    first = np.empty(out.shape[2], np.uint32)
    steps = np.empty((3, out.shape[2]), np.uint32)
    share_z, share_y, share_x = shares[0], shares[1], shares[2]
    step_z, step_y, step_x = steps[0], steps[1], steps[2]
    none = np.uint32(0)
    for item in range(start, stop):
        z, y = item // out.shape[1], item % out.shape[1]
        _row_places(z, y, field, moved, matrix, image.shape, shares)
        for x in range(out.shape[2]):
            z0, y0, x0 = np.int32(share_z[x]), np.int32(share_y[x]), np.int32(share_x[x])
            share_z[x] -= np.float32(z0)
            share_y[x] -= np.float32(y0)
            share_x[x] -= np.float32(x0)
            first[x] = np.uint32((z0 * np.int32(height) + y0) * np.int32(width) + x0)
            step_z[x] = np.uint32(height * width) if z0 < depth - 1 else none
            step_y[x] = np.uint32(width) if y0 < height - 1 else none
            step_x[x] = np.uint32(1) if x0 < width - 1 else none
        row = out[z, y]
        for x in range(out.shape[2]):
            fy, fx, dx = share_y[x], share_x[x], step_x[x]
            near = first[x]
            below = near + step_y[x]
            far = near + step_z[x]
            below_far = far + step_y[x]
            a = voxels[near] + (voxels[near + dx] - voxels[near]) * fx
            b = voxels[below] + (voxels[below + dx] - voxels[below]) * fx
            c = voxels[far] + (voxels[far + dx] - voxels[far]) * fx
            d = voxels[below_far] + (voxels[below_far + dx] - voxels[below_far]) * fx
            a += (b - a) * fy
            c += (d - c) * fy
            row[x] = a + (c - a) * share_z[x]


def warp(
    image: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, int, int],
    field: np.ndarray | None = None,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Return ``image`` sampled at ``matrix @ (index + field)`` for each index (z, y, x) within ``shape``.

    Args:
        image: the image (z, y, x).
        matrix: 4 x 4, from indices of the result to indices of the image, both (x, y, z) as ITK orders them.
        shape: the shape of the result.
        field: displacements (3, z, y, x) in voxels of the result, components (z, y, x); None for none.
        scratch: memory of the result.

    """
    if field is not None and field.shape[1:] != tuple(shape):
        raise ValueError(f"the field has the shape {field.shape[1:]}, the result {tuple(shape)}")
    flipped = matrix[:3][::-1][:, [2, 1, 0, 3]]
    moved, field = field is not None, np.zeros((3, 1, 1, 1), np.float32) if field is None else field
    out = (scratch or Scratch()).fresh(shape, np.float32)
    threads.run(_warp, shape[0] * shape[1], image, field, moved, np.ascontiguousarray(flipped, np.float32), out)
    return out


@_compiled
def _compose(start, stop, outer, inner, out):
    """out(x) = outer(x + inner(x)), in voxels."""
    depth, height, width = outer.shape[1:]
    for item in range(start, stop):
        z, y = item // height, item % height
        for x in range(width):
            pz = min(max(np.float32(0), z + inner[0, z, y, x]), np.float32(depth - 1))
            py = min(max(np.float32(0), y + inner[1, z, y, x]), np.float32(height - 1))
            px = min(max(np.float32(0), x + inner[2, z, y, x]), np.float32(width - 1))
            z0, y0, x0 = int(pz), int(py), int(px)
            z1, y1, x1 = min(z0 + 1, depth - 1), min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            fz, fy, fx = np.float32(pz - z0), np.float32(py - y0), np.float32(px - x0)
            for k in range(3):
                near = (outer[k, z0, y0, x0] * (1 - fx) + outer[k, z0, y0, x1] * fx) * (1 - fy) + (
                    outer[k, z0, y1, x0] * (1 - fx) + outer[k, z0, y1, x1] * fx
                ) * fy
                far = (outer[k, z1, y0, x0] * (1 - fx) + outer[k, z1, y0, x1] * fx) * (1 - fy) + (
                    outer[k, z1, y1, x0] * (1 - fx) + outer[k, z1, y1, x1] * fx
                ) * fy
                out[k, z, y, x] = near * (1 - fz) + far * fz


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return ``outer`` at ``index + inner(index)``: fields (3, z, y, x) on one grid, in voxels of that grid."""
    out = np.empty_like(outer)
    threads.run(_compose, outer.shape[1] * outer.shape[2], outer, inner, out)
    return out
