"""The data cost: how well each block of one image fits the other image under each displacement of a dense set."""

from collections.abc import Sequence

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from crossmoda.deeds import threads

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, boundscheck=False)


#: Neighbouring voxels along x that are counted at once: two vectors of eight.
_LANES, _VECTORS = 8, 2
_CHUNK = _LANES * _VECTORS


@intrinsic
def _count_bits(context, here, keep, there, out, count_z, count_y, here_z, here_y, there_z, there_y):
    """Add the bits set in ``(here ^ there) & keep`` over rows, for a chunk of voxels along x.

    The first four are addresses, the last four the strides of the rows in bytes. Written as vector instructions, since
    the sums must stay in registers while the rows go by, which LLVM's own vectoriser does not find.
    """

    def generate(context, builder, signature, arguments):
        here, keep, there, out, count_z, count_y, here_z, here_y, there_z, there_y = arguments
        vector = ir.VectorType(ir.IntType(64), _LANES)
        name = f"llvm.ctpop.v{_LANES}i64"
        popcount = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name)
        zero = ir.Constant(vector, [0] * _LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(_VECTORS)]

        def place(address, number):
            shifted = builder.add(address, ir.Constant(ir.IntType(64), 8 * _LANES * number))
            return builder.inttoptr(shifted, vector.as_pointer())

        with cgutils.for_range(builder, count_z) as z, cgutils.for_range(builder, count_y) as y:
            fixed = builder.add(builder.mul(z.index, here_z), builder.mul(y.index, here_y))
            moving = builder.add(builder.mul(z.index, there_z), builder.mul(y.index, there_y))
            for number, total in enumerate(sums):
                one, mask, other = (
                    builder.load(place(builder.add(base, offset), number), align=8)
                    for base, offset in ((here, fixed), (keep, fixed), (there, moving))
                )
                bits = builder.call(popcount, [builder.and_(builder.xor(one, other), mask)])
                builder.store(builder.add(builder.load(total), bits), total)
        for number, total in enumerate(sums):
            builder.store(builder.load(total), place(out, number), align=8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), generate


@_compiled
def _block_rows(start, stop, fixed, mask, moving, block, radius, quantisation, skip, scale, costs):
    """Sum the Hamming distances of a row of blocks at a time, for each displacement."""
    rows_y, columns = costs.shape[1:3]
    width = fixed.shape[2]
    labels_y, labels_x = 2 * radius[1] + 1, 2 * radius[2] + 1
    labels = (2 * radius[0] + 1) * labels_y * labels_x
    count_z, count_y = -(-block[0] // skip[0]), -(-block[1] // skip[1])
    fixed_strides = (fixed.strides[0] * skip[0], fixed.strides[1] * skip[1])
    moving_strides = (moving.strides[0] * skip[0], moving.strides[1] * skip[1])
    sums = np.empty(width, np.int64)
    line = np.empty((labels, columns), np.float32)
    for item in range(start, stop):
        block_z, block_y = item // rows_y, item % rows_y
        first_z, first_y = block_z * block[0], block_y * block[1]
        inside = first_z * fixed.strides[0] + first_y * fixed.strides[1]
        for label in range(labels):
            z = first_z + (label // (labels_x * labels_y)) * quantisation[0]
            y = first_y + (label // labels_x % labels_y) * quantisation[1]
            x = (label % labels_x) * quantisation[2]
            shifted = z * moving.strides[0] + y * moving.strides[1] + x * 8
            for chunk in range(0, 8 * width, 8 * _CHUNK):
                _count_bits(  # type: ignore[call-arg]
                    np.int64(fixed.ctypes.data) + inside + chunk,
                    np.int64(mask.ctypes.data) + inside + chunk,
                    np.int64(moving.ctypes.data) + shifted + chunk,
                    np.int64(sums.ctypes.data) + chunk,
                    count_z,
                    count_y,
                    *fixed_strides,
                    *moving_strides,
                )
            for column in range(columns):
                total = np.int64(0)
                for k in range(column * block[2], (column + 1) * block[2]):
                    total += sums[k]
                line[label, column] = np.float32(total) * scale
        for column in range(columns):
            out = costs[block_z, block_y, column]
            for label in range(labels):
                out[label] = line[label, column]


def _pad(codes: np.ndarray, before: list[int], after: list[int], mode: str) -> np.ndarray:
    return np.pad(codes, list(zip(before, after, strict=True)), mode=mode)  # type: ignore[call-overload]


def data_cost(
    fixed: np.ndarray,
    moving: np.ndarray,
    *,
    block: tuple[int, int, int],
    radius: tuple[int, int, int],
    quantisation: tuple[int, int, int],
    skip: tuple[int, int, int] = (1, 1, 1),
    scale: float = 1.0,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Return the mean Hamming distance of each block of ``fixed`` to ``moving`` under each displacement.

    Blocks tile the image from its first voxel; the last ones may reach beyond it. Where ``moving`` is looked up outside
    its grid its nearest voxel stands in.

    Args:
        fixed: packed codes (z, y, x) of the image that is divided into blocks.
        moving: packed codes of the other image, on the same grid.
        block: size of a block, which is the distance of control points, in voxels (z, y, x).
        radius: displacements on each side of zero, in steps (z, y, x).
        quantisation: voxels per step (z, y, x).
        skip: take every n-th voxel of a block along z and y; along x all are taken (rows are what vectorises).
        scale: factor on the mean distance.
        mask: voxels of ``fixed`` that count; without it all do. Voxels outside add nothing, and the mean is over the
            full block, so that blocks with little in them have little say.

    Returns:
        Costs, float32, of shape (blocks z, blocks y, blocks x, displacements); displacements in C order of (z, y, x).

    """
    counts = [-(-size // step) for size, step in zip(fixed.shape, block, strict=True)]
    whole = [count * step for count, step in zip(counts, block, strict=True)]
    whole[2] = -(-whole[2] // _CHUNK) * _CHUNK
    rest = [size - have for size, have in zip(whole, fixed.shape, strict=True)]
    reach = [steps * step for steps, step in zip(radius, quantisation, strict=True)]
    keep = np.zeros(whole, np.uint64)
    inside = keep[: fixed.shape[0], : fixed.shape[1], : fixed.shape[2]]
    inside[...] = np.uint64(0xFFFFFFFFFFFFFFFF)
    if mask is not None:
        inside *= mask
    if any(rest):
        fixed = _pad(fixed, [0, 0, 0], rest, "constant")
    surrounded = _pad(moving, reach, [far + more for far, more in zip(reach, rest, strict=True)], "edge")
    samples = -(-block[0] // skip[0]) * -(-block[1] // skip[1]) * block[2]
    labels = int(np.prod([2 * steps + 1 for steps in radius]))
    costs = np.empty((*counts, labels), np.float32)
    threads.run(
        _block_rows,
        counts[0] * counts[1],
        np.ascontiguousarray(fixed),
        keep,
        surrounded,
        np.array(block),
        np.array(radius),
        np.array(quantisation),
        np.array([*skip[:2], 1]),
        np.float32(scale / samples),
        costs,
    )
    return costs


@_compiled
def _smoothed_minima(start, stop, costs, best, lowest):
    """Find the best displacement of each control point after averaging its costs with its 26 neighbours."""
    depth, height, width, labels = costs.shape
    smooth = np.empty(labels, np.float32)
    for item in range(start, stop):
        z, y, x = item // (height * width), item // width % height, item % width
        smooth[:] = 0.0
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    weight = np.float32(0.5 ** (3 + abs(dz) + abs(dy) + abs(dx)))
                    other = costs[
                        min(max(z + dz, 0), depth - 1), min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                    ]
                    for label in range(labels):
                        smooth[label] += weight * other[label]
        index = 0
        for label in range(labels):
            if smooth[label] < smooth[index]:
                index = label
        best[z, y, x] = index
        lowest[z, y, x] = smooth[index]


def smoothed_minima(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return index and cost of the best displacement of each control point, costs smoothed over the control grid.

    The smoothing is a linear B-spline (weights 1/4, 1/2, 1/4 along each axis), values repeated beyond the border.
    """
    best = np.empty(costs.shape[:3], np.int64)
    lowest = np.empty(costs.shape[:3], np.float32)
    threads.run(_smoothed_minima, best.size, costs, best, lowest)
    return best, lowest


def displacements(radius: Sequence[int], quantisation: Sequence[float]) -> np.ndarray:
    """Return the dense set of displacements (number, 3), (z, y, x), in the order of the costs."""
    steps = [np.arange(-count, count + 1) * size for count, size in zip(radius, quantisation, strict=True)]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
