"""Images warped by transforms with displacement fields: the same values as ITK's, compiled, in a fifth of its time.

ITK asks every transform of a composite anew for every voxel. Here the points of some rows pass through all of them,
linear transforms in between as one matrix.
"""

import numpy as np
import SimpleITK as sitk

from crossmoda import threads
from crossmoda.jit_cache import compiled
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.transforms import matrix_of, parts_of

#: Points that pass through all transforms before the next ones do: they stay in a core's cache.
_CHUNK = 4096

_compiled = compiled(nogil=True, fastmath={"contract", "nsz"}, boundscheck=False)


@_compiled
def _indices(start, rows, points):
    """Write the index (x, y, z) of each voxel of the rows from number ``start`` on; ``rows`` is (rows, voxels)."""
    height, width = rows
    for item in range(points.shape[0]):
        row = start + item // width
        points[item, 0], points[item, 1], points[item, 2] = item % width, row % height, row // height


@_compiled
def _mapped(matrix, x, y, z):
    """Return a point moved by a matrix (3, 4)."""
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3],
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3],
    )


@_compiled
def _is_within(shape, x, y, z):
    """Return whether an index lies in a voxel of an image (z, y, x)."""
    return -0.5 <= x < shape[2] - 0.5 and -0.5 <= y < shape[1] - 0.5 and -0.5 <= z < shape[0] - 0.5


@_compiled
def _cell(size, position):
    """Return the voxels before and after an index along an axis, and its place between them, 0 to 1."""
    position = min(max(0.0, position), size - 1.0)
    first = int(position)
    return first, min(first + 1, size - 1), position - first


@_compiled
def _trilinear(values, x, y, z):
    """Return the value of a cell, ((before, after, place) along x, y and z), by linear interpolation."""
    (x0, x1, fx), (y0, y1, fy), (z0, z1, fz) = x, y, z
    one = values[z0, y0, x0] * (1 - fx) + values[z0, y0, x1] * fx
    two = values[z0, y1, x0] * (1 - fx) + values[z0, y1, x1] * fx
    three = values[z1, y0, x0] * (1 - fx) + values[z1, y0, x1] * fx
    four = values[z1, y1, x0] * (1 - fx) + values[z1, y1, x1] * fx
    near, far = one * (1 - fy) + two * fy, three * (1 - fy) + four * fy
    return near * (1 - fz) + far * fz


@_compiled
def _displace(points, matrix, field, to_index):
    """Move points (n, 3) by a matrix and then by a field (z, y, x, 3), mm, which moves nothing beyond its voxels."""
    depth, height, width = field.shape[:3]
    for item in range(points.shape[0]):
        moved = _mapped(matrix, points[item, 0], points[item, 1], points[item, 2])
        x, y, z = _mapped(to_index, moved[0], moved[1], moved[2])
        is_within = _is_within(field.shape, x, y, z)
        cell = _cell(width, x), _cell(height, y), _cell(depth, z)
        for k in range(3):
            points[item, k] = moved[k]
            if is_within:
                points[item, k] += _trilinear(field[..., k], cell[0], cell[1], cell[2])


@_compiled
def _interpolate(points, matrix, image, outside, out):
    """Write the trilinear values of an image at points (n, 3) under a matrix; ``outside`` beyond its voxels."""
    depth, height, width = image.shape
    for item in range(points.shape[0]):
        x, y, z = _mapped(matrix, points[item, 0], points[item, 1], points[item, 2])
        if _is_within(image.shape, x, y, z):
            out[item] = _trilinear(image, _cell(width, x), _cell(height, y), _cell(depth, z))
        else:
            out[item] = outside


def warp(image: Volume, grid: Grid, transform: sitk.Transform, outside: float) -> np.ndarray:
    """Return an image on another grid, float32: linear interpolation, ``outside`` where it does not reach.

    Args:
        image: the image.
        grid: where the result lies.
        transform: maps points of ``grid`` to points of ``image`` (LPS, mm); see
            :func:`crossmoda.volume.transforms.is_deformation`.
        outside: the value of voxels outside the image.

    """
    matrix, steps = grid.index_to_physical, []
    for part in reversed(parts_of(transform)):  # the last one is applied first
        if part.IsLinear():
            matrix = matrix_of(part) @ matrix
        else:
            field = sitk.DisplacementFieldTransform(part).GetDisplacementField()
            steps.append((matrix[:3], sitk.GetArrayFromImage(field), Grid.of(field).physical_to_index[:3]))
            matrix = np.eye(4)
    last = (image.grid.physical_to_index @ matrix)[:3]
    voxels = np.ascontiguousarray(image.array, np.float32)
    depth, height, width = grid.shape
    out = np.empty((depth * height, width), np.float32)
    chunk = max(_CHUNK // width, 1)

    def run(first: int, stop: int) -> None:
        points = np.empty((chunk * width, 3))
        for row in range(first * chunk, min(stop * chunk, len(out)), chunk):
            values = out[row : row + chunk].reshape(-1)
            some = points[: len(values)]
            _indices(row, (height, width), some)
            for step in steps:
                _displace(some, *step)
            _interpolate(some, last, voxels, outside, values)

    threads.run(run, -(-len(out) // chunk))
    return out.reshape(grid.shape)
