"""The data cost: how well each block of one image fits the other image under each displacement of a dense set."""

from collections.abc import Sequence

import numba
import numpy as np
from numba.extending import intrinsic

from crossmoda.deeds import threads

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, boundscheck=False)


@intrinsic
def _popcount(context, word):
    """Count the set bits of a 64-bit word: one instruction, vectorised by LLVM where the processor can."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return numba.uint64(numba.uint64), generate


@_compiled
def _block_rows(start, stop, fixed, mask, moving, block, radius, quantisation, skip, scale, costs):
    """Sum the Hamming distances of each block; the innermost loop runs along whole image rows."""
    rows_y, columns = costs.shape[1:3]
    width = fixed.shape[2]
    labels_z, labels_y, labels_x = 2 * radius[0] + 1, 2 * radius[1] + 1, 2 * radius[2] + 1
    labels = labels_z * labels_y * labels_x
    sums = np.empty(width, np.uint64)
    line = np.empty((labels, columns), np.float32)
    for item in range(start, stop):
        block_z, block_y = item // rows_y, item % rows_y
        first_z, first_y = block_z * block[0], block_y * block[1]
        for label in range(labels):
            shift_z = (label // (labels_x * labels_y)) * quantisation[0]
            shift_y = (label // labels_x % labels_y) * quantisation[1]
            shift_x = (label % labels_x) * quantisation[2]
            sums[:] = 0
            for z in range(first_z, first_z + block[0], skip[0]):
                for y in range(first_y, first_y + block[1], skip[1]):
                    here = fixed[z, y]
                    keep = mask[z, y]
                    there = moving[z + shift_z, y + shift_y, shift_x : shift_x + width]
                    for x in range(width):
                        sums[x] += _popcount((here[x] ^ there[x]) & keep[x])  # type: ignore[call-arg]
            for column in range(columns):
                total = np.uint64(0)
                for x in range(column * block[2], (column + 1) * block[2]):
                    total += sums[x]
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
    rest = [count * step - size for count, step, size in zip(counts, block, fixed.shape, strict=True)]
    reach = [steps * step for steps, step in zip(radius, quantisation, strict=True)]
    keep = np.zeros([count * step for count, step in zip(counts, block, strict=True)], np.uint64)
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
