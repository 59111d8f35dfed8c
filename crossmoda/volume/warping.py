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
def _displace(points, matrix, field, to_index):
    """Move points (n, 3) by a matrix and then by a field (z, y, x, 3), mm, which moves nothing beyond its voxels."""
    depth, height, width = field.shape[:3]
    for item in range(points.shape[0]):
        a, b, c = points[item, 0], points[item, 1], points[item, 2]
        px = matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 2] * c + matrix[0, 3]
        py = matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 2] * c + matrix[1, 3]
        pz = matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 2] * c + matrix[2, 3]
        x = to_index[0, 0] * px + to_index[0, 1] * py + to_index[0, 2] * pz + to_index[0, 3]
        y = to_index[1, 0] * px + to_index[1, 1] * py + to_index[1, 2] * pz + to_index[1, 3]
        z = to_index[2, 0] * px + to_index[2, 1] * py + to_index[2, 2] * pz + to_index[2, 3]
        if -0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5 and -0.5 <= z < depth - 0.5:
            x, y, z = min(max(0.0, x), width - 1.0), min(max(0.0, y), height - 1.0), min(max(0.0, z), depth - 1.0)
            x0, y0, z0 = int(x), int(y), int(z)
            x1, y1, z1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1), min(z0 + 1, depth - 1)
            fx, fy, fz = x - x0, y - y0, z - z0
            for k in range(3):
                one = field[z0, y0, x0, k] * (1 - fx) + field[z0, y0, x1, k] * fx
                two = field[z0, y1, x0, k] * (1 - fx) + field[z0, y1, x1, k] * fx
                three = field[z1, y0, x0, k] * (1 - fx) + field[z1, y0, x1, k] * fx
                four = field[z1, y1, x0, k] * (1 - fx) + field[z1, y1, x1, k] * fx
                near, far = one * (1 - fy) + two * fy, three * (1 - fy) + four * fy
                points[item, k] = near * (1 - fz) + far * fz
            points[item, 0] += px
            points[item, 1] += py
            points[item, 2] += pz
        else:
            points[item, 0], points[item, 1], points[item, 2] = px, py, pz


@_compiled
def _interpolate(points, matrix, image, outside, out):
    """Write the trilinear values of an image at points (n, 3) under a matrix; ``outside`` beyond its voxels."""
    depth, height, width = image.shape
    for item in range(points.shape[0]):
        a, b, c = points[item, 0], points[item, 1], points[item, 2]
        x = matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 2] * c + matrix[0, 3]
        y = matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 2] * c + matrix[1, 3]
        z = matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 2] * c + matrix[2, 3]
        if -0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5 and -0.5 <= z < depth - 0.5:
            x, y, z = min(max(0.0, x), width - 1.0), min(max(0.0, y), height - 1.0), min(max(0.0, z), depth - 1.0)
            x0, y0, z0 = int(x), int(y), int(z)
            x1, y1, z1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1), min(z0 + 1, depth - 1)
            fx, fy, fz = x - x0, y - y0, z - z0
            one = image[z0, y0, x0] * (1 - fx) + image[z0, y0, x1] * fx
            two = image[z0, y1, x0] * (1 - fx) + image[z0, y1, x1] * fx
            three = image[z1, y0, x0] * (1 - fx) + image[z1, y0, x1] * fx
            four = image[z1, y1, x0] * (1 - fx) + image[z1, y1, x1] * fx
            near, far = one * (1 - fy) + two * fy, three * (1 - fy) + four * fy
            out[item] = near * (1 - fz) + far * fz
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
