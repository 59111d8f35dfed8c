"""The data cost of the dense set of displacements, and the best displacement of each control point by it alone.

M. P. Heinrich, M. Jenkinson, M. Brady, J. A. Schnabel: MRF-Based Deformable Registration and Ventilation Estimation of
Lung CT. IEEE TMI 2013.
"""

from collections.abc import Sequence

import numpy as np

from crossmoda import threads
from crossmoda.deeds.backend_cpu.scratch import Scratch
from crossmoda.jit_cache import compiled

_compiled = compiled(nogil=True, fastmath={"contract", "nsz"}, boundscheck=False)


def displacements(radius: Sequence[int], quantization: Sequence[float]) -> np.ndarray:
    """Return the dense set of displacements (number, 3), components (z, y, x), in the order of the costs."""
    steps = [np.arange(-count, count + 1) * size for count, size in zip(radius, quantization, strict=True)]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)


@_compiled
def _popcount(word):
    """Return the number of bits set, by sums of neighboring bits, pairs, nibbles and bytes: LLVM knows this form."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@_compiled
def _add_distances(fixed, inside, moving, first, first_moving, start, stop, sums):
    """Add the Hamming distances of a row of voxels to ``sums``; the rows begin at the indices first, first_moving."""
    for x in range(np.uint64(start), np.uint64(stop)):
        sums[x] += _popcount((fixed[first + x] ^ moving[first_moving + x]) & inside[first + x])


@_compiled
def _repeats(first, last, shift, step, size):
    """Return whether voxels ``first`` to ``last``, moved by ``shift`` and by a step less, both lie beyond one border.

    There the nearest voxel stands in for all of them, so that both displacements cost the same.
    """
    return last + shift <= 0 or first + shift - step >= size - 1


@_compiled
def _rows_of_block(z, y, shift_z, shift_y, block, skip, shape, width, rows):
    """Write the indices at which a block's rows of voxels begin in both images to ``rows``; return their number.

    ``width`` is the length of a row of the moving image.
    """
    depth, height, length = shape
    count = 0
    for k in range(z * block[0], min((z + 1) * block[0], depth), skip[0]):
        for j in range(y * block[1], min((y + 1) * block[1], height), skip[1]):
            moving_z = min(max(k + shift_z, 0), depth - 1)
            moving_y = min(max(j + shift_y, 0), height - 1)
            rows[count, 0] = (k * height + j) * length
            rows[count, 1] = (moving_z * height + moving_y) * width
            count += 1
    return count


@_compiled
def _compare(fixed, inside, moving, rows, count, step, span, block, scale, sums, costs):
    """Write the costs (blocks, displacements) of a row of blocks for the displacements along x.

    ``span``: the first voxel along x that is inside and the first beyond; costs of other blocks stay 0.
    """
    start, stop = span
    size = np.uint64(block)  # unsigned indices need no test for negative ones
    for label in range(costs.shape[1]):
        sums[start:stop] = np.uint64(0)
        for row in range(count):
            displaced = rows[row, 1] + np.uint64(label * step)
            _add_distances(fixed, inside, moving, rows[row, 0], displaced, start, stop, sums)
        for column in range(np.uint64(start // block), np.uint64(-(-stop // block))):
            total = np.uint64(0)
            for x in range(column * size, (column + np.uint64(1)) * size):
                total += sums[x]
            costs[column, label] = np.float32(np.int64(total)) * scale


@_compiled
def _block_rows(start, stop, fixed, inside, moving, spans, block, radius, quantization, skip, scale, costs):
    """Compare the rows of blocks from ``start`` to ``stop``.

    All rows of a layer come before the next displacement along z, so that the codes they share stay in the cache.
    """
    depth, height = fixed.shape[:2]
    layer_rows, columns = costs.shape[1:3]
    labels_z, labels_y, labels_x = 2 * radius[0] + 1, 2 * radius[1] + 1, 2 * radius[2] + 1
    sums = np.zeros(columns * block[2], np.uint64)
    rows = np.empty((block[0] * block[1], 2), np.uint64)
    flat_fixed, flat_inside, flat_moving = fixed.reshape(-1), inside.reshape(-1), moving.reshape(-1)
    for z in range(start // layer_rows, -(-stop // layer_rows)):
        first_z, last_z = z * block[0], min((z + 1) * block[0], depth) - 1
        for label_z in range(labels_z):
            shift_z = (label_z - radius[0]) * quantization[0]
            same_z = label_z > 0 and _repeats(first_z, last_z, shift_z, quantization[0], depth)
            for y in range(max(start - z * layer_rows, 0), min(stop - z * layer_rows, layer_rows)):
                row_costs = costs[z, y].reshape((columns, labels_z, labels_y, labels_x))
                if same_z:
                    row_costs[:, label_z] = row_costs[:, label_z - 1]
                    continue
                row_costs[:, label_z] = 0
                sums[:] = np.uint64(0)
                first_y, last_y = y * block[1], min((y + 1) * block[1], height) - 1
                for label_y in range(labels_y):
                    shift_y = (label_y - radius[1]) * quantization[1]
                    if label_y > 0 and _repeats(first_y, last_y, shift_y, quantization[1], height):
                        row_costs[:, label_z, label_y] = row_costs[:, label_z, label_y - 1]
                        continue
                    count = _rows_of_block(z, y, shift_z, shift_y, block, skip, fixed.shape, moving.shape[2], rows)
                    _compare(
                        flat_fixed,
                        flat_inside,
                        flat_moving,
                        rows,
                        count,
                        quantization[2],
                        (spans[z, y, 0], spans[z, y, 1]),
                        block[2],
                        scale,
                        sums,
                        row_costs[:, label_z, label_y],
                    )


def _spans(mask: np.ndarray, block: tuple[int, int, int]) -> np.ndarray:
    """Return the first voxel along x inside the mask, and the first beyond the last one, of each row of blocks."""
    first_z, first_y = (np.arange(0, size, step) for size, step in zip(mask.shape[:2], block[:2], strict=True))
    rows = np.logical_or.reduceat(np.logical_or.reduceat(mask, first_z, axis=0), first_y, axis=1)
    stop = np.where(rows.any(axis=2), mask.shape[2] - rows[:, :, ::-1].argmax(axis=2), 0)
    return np.stack([rows.argmax(axis=2), stop], axis=-1)


def data_cost(
    fixed: np.ndarray,
    moving: np.ndarray,
    *,
    block: tuple[int, int, int],
    radius: tuple[int, int, int],
    quantization: tuple[int, int, int],
    skip: tuple[int, int, int] = (1, 1, 1),
    scale: float = 1.0,
    mask: np.ndarray | None = None,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Return the mean Hamming distance of each block of ``fixed`` to ``moving`` under each displacement.

    Blocks tile the image from its first voxel; the last ones may reach beyond it. Beyond the border of ``moving``, its
    nearest voxel is compared.

    Args:
        fixed: packed MIND-SSC codes (z, y, x) uint64 of the image that is divided into blocks.
        moving: packed codes of the image that is displaced, on the same grid.
        block: size of a block, which is the distance of control points, voxels (z, y, x).
        radius: displacements on each side of zero, steps (z, y, x).
        quantization: voxels per step (z, y, x).
        skip: every n-th voxel of a block is compared along z and y; along x all are.
        scale: factor on the mean distance.
        mask: voxels of ``fixed`` that are compared, bool (z, y, x); None for all. The mean is over the full block, so
            that blocks with few such voxels have little weight.
        scratch: memory of the costs, where they are valid until the next costs or codes are computed.

    Returns:
        Costs, float32, of shape (blocks z, blocks y, blocks x, displacements); displacements in C order of (z, y, x).

    """
    counts = [-(-size // step) for size, step in zip(fixed.shape, block, strict=True)]
    scratch = scratch or Scratch()
    mask = np.ones(fixed.shape, bool) if mask is None else mask
    inside = scratch.array("inside", fixed.shape, np.uint64)
    np.multiply(mask, np.uint64(2**64 - 1), out=inside)
    reach, width = radius[2] * quantization[2], fixed.shape[2]
    padded = scratch.array("moving", (*fixed.shape[:2], width + 2 * reach), np.uint64)
    padded[:, :, :reach], padded[:, :, reach + width :] = moving[:, :, :1], moving[:, :, -1:]
    padded[:, :, reach : reach + width] = moving
    samples = -(-block[0] // skip[0]) * -(-block[1] // skip[1]) * block[2]
    labels = int(np.prod([2 * steps + 1 for steps in radius]))
    costs = scratch.array("work", (*counts, labels), np.float32)
    threads.run(
        _block_rows,
        counts[0] * counts[1],
        np.ascontiguousarray(fixed),
        inside,
        padded,
        _spans(mask, block),
        tuple(block),
        tuple(radius),
        tuple(quantization),
        tuple(skip),
        np.float32(scale / samples),
        costs,
    )
    return costs


@_compiled
def _smoothed_minima(start, stop, costs, best, lowest):
    """Find the best displacement of each control point after averaging its costs with its 26 neighbors."""
    depth, height, width, labels = costs.shape
    smooth = np.empty(labels, np.float32)
    for item in range(start, stop):
        z, y, x = item // (height * width), item // width % height, item % width
        smooth[:] = 0
        before, after = max(x - 1, 0), min(x + 1, width - 1)
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                near_z, near_y = min(max(z + dz, 0), depth - 1), min(max(y + dy, 0), height - 1)
                outer = np.float32(0.5 ** (4 + abs(dz) + abs(dy)))
                center = np.float32(2) * outer
                for label in range(labels):
                    smooth[label] = (
                        smooth[label]
                        + outer * costs[near_z, near_y, before, label]
                        + center * costs[near_z, near_y, x, label]
                        + outer * costs[near_z, near_y, after, label]
                    )
        index = 0
        for label in range(labels):
            if smooth[label] < smooth[index]:
                index = label
        best[z, y, x] = index
        lowest[z, y, x] = smooth[index]


def smoothed_minima(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index and the cost of the best displacement of each control point, for the linear stage.

    Args:
        costs: (z, y, x, displacements) float32. They are smoothed over the control grid by a linear B-spline (weights
            1/4, 1/2, 1/4 along each axis), values repeated beyond the border.

    Returns:
        Indices int64 and costs float32, both (z, y, x).

    """
    best = np.empty(costs.shape[:3], np.int64)
    lowest = np.empty(costs.shape[:3], np.float32)
    threads.run(_smoothed_minima, best.size, costs, best, lowest)
    return best, lowest
