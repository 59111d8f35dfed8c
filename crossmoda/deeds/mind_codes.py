"""MIND-SSC quantized to 6 levels and packed into 60 bits, compiled: see :mod:`crossmoda.mind` for the definition."""

import numpy as np

from crossmoda import threads
from crossmoda.deeds.backend_cpu.scratch import Scratch
from crossmoda.jit_cache import compiled
from crossmoda.mind import DIRECTIONS, PAIRS, THRESHOLDS

_DIRECTIONS = np.array(DIRECTIONS, dtype=np.int64)
_PAIR_DIRECTION = np.array([direction for direction, _ in PAIRS], dtype=np.int64)
_PAIR_SHIFT = np.array([shift for _, shift in PAIRS], dtype=np.int64)
#: A feature exp(-distance) exceeds a threshold where the distance is below its negative logarithm.
_LIMITS = tuple((-np.log(np.array(THRESHOLDS, dtype=np.float32))).tolist())

_compiled = compiled(nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)


@_compiled
def _sum_around(rows, radius, out):
    """Sum the rows at most ``radius`` from each row; the first and the last row are repeated beyond the border."""
    count, width = out.shape
    for y in range(count):
        before, after = max(y - 1, 0), min(y + 1, count - 1)
        for x in range(width):
            out[y, x] = rows[before, x] + rows[y, x] + rows[after, x]
        for distance in range(2, radius + 1):
            before, after = max(y - distance, 0), min(y + distance, count - 1)
            for x in range(width):
                out[y, x] += rows[before, x] + rows[after, x]


@_compiled
def _plane_distances(voxels, first, second, row_step, radius, lines, out):
    """Write the squared differences of two planes, summed over the patch in the plane.

    ``first`` and ``second`` are the indices into ``voxels`` where the planes begin, ``row_step`` is that of their rows.
    """
    height, width = lines.shape
    squares = np.empty(width + 2 * radius, np.float32)
    before, center, after = squares[radius - 1 :], squares[radius:], squares[radius + 1 :]
    for y in range(height):
        for x in range(width):
            difference = voxels[first + np.uint64(x)] - voxels[second + np.uint64(x)]
            center[x] = difference * difference
        squares[:radius] = center[0]
        center[width:] = center[width - 1]
        for x in range(width):
            lines[y, x] = before[x] + center[x] + after[x]
        for distance in range(2, radius + 1):
            left, right = squares[radius - distance :], squares[radius + distance :]
            for x in range(width):
                lines[y, x] += left[x] + right[x]
        first, second = first + row_step, second + row_step
    _sum_around(lines, radius, out)


@_compiled
def _patch_sums(start, stop, image, radius, directions, patches):
    """Sum the squared differences of voxels a diagonal apart over the patch, for channels x planes start to stop.

    The planes that a patch spans are kept for the next plane: only the sums go through the main memory.
    """
    depth, height, width = patches.shape[1], patches.shape[2], patches.shape[3] - 2 * radius
    size = 2 * radius + 1
    lines = np.empty((height, width), np.float32)
    planes = np.empty((size, height, width), np.float32)
    voxels, row_step = image.reshape(-1), np.uint64(image.shape[2])
    for item in range(start, stop):
        channel, z = item // depth, item % depth
        dz, dy, dx = directions[channel, 0], directions[channel, 1], directions[channel, 2]
        begin = max(z - radius, 0) if item == start or z == 0 else z + radius
        for plane in range(begin, min(z + radius, depth - 1) + 1):
            first = ((plane + radius) * image.shape[1] + radius) * image.shape[2] + radius
            second = first + radius * ((dz * image.shape[1] + dy) * image.shape[2] + dx)
            _plane_distances(voxels, np.uint64(first), np.uint64(second), row_step, radius, lines, planes[plane % size])
        before, at, after = max(z - 1, 0) % size, z % size, min(z + 1, depth - 1) % size
        for y in range(height):
            row = patches[channel, z, y]
            out = row[radius:]
            for x in range(width):
                out[x] = planes[before, y, x] + planes[at, y, x] + planes[after, y, x]
            for distance in range(2, radius + 1):
                near, far = max(z - distance, 0) % size, min(z + distance, depth - 1) % size
                for x in range(width):
                    out[x] += planes[near, y, x] + planes[far, y, x]
            row[:radius] = out[0]
            out[width:] = out[width - 1]


@_compiled
def _pack(distances, lowest, factor, halves):
    """Quantize a row of distances (12, x) to six levels; OR their unary codes into two halves of 30 bits."""
    for pair in range(distances.shape[0]):
        bit = np.float32(1 << (5 * (pair % 6)))
        half = pair // 6
        for x in range(distances.shape[1]):
            ratio = (distances[pair, x] - lowest[x]) * factor[x]
            unary = np.float32(0)
            for level in range(5):
                unary += np.float32(1 << level) if ratio < np.float32(_LIMITS[level]) else np.float32(0)
            halves[half, x] |= np.int32(unary * bit)


@_compiled
def _normalize(distances, floor, lowest, factor):
    """Write the least of the distances (12, x) of each voxel, and the factor that divides by their mean above it."""
    pairs, width = distances.shape
    for x in range(width):
        lowest[x] = factor[x] = distances[0, x]
    for pair in range(1, pairs):
        for x in range(width):
            value = distances[pair, x]
            factor[x] += value
            lowest[x] = -max(-lowest[x], -value)  # min, which is not vectorized
    for x in range(width):
        factor[x] = np.float32(1) / max(factor[x] / np.float32(pairs) - lowest[x], floor)


@_compiled
def _pack_rows(start, stop, patches, floor, step, pair_direction, pair_shift, codes):
    """Normalize the twelve distances of each voxel, quantize them to six levels and pack their unary codes."""
    depth, height, width = codes.shape
    distances = np.empty((pair_shift.shape[0], width), np.float32)
    lowest, factor = np.empty(width, np.float32), np.empty(width, np.float32)
    halves = np.empty((2, width), np.int32)
    sums = patches.reshape(-1)
    for item in range(start, stop):
        z, y = item // height, item % height
        for pair in range(distances.shape[0]):
            pair_z = min(max(z + pair_shift[pair, 0] * step, 0), depth - 1)
            pair_y = min(max(y + pair_shift[pair, 1] * step, 0), height - 1)
            line = (pair_direction[pair] * depth + pair_z) * height + pair_y
            first = np.uint64(line * patches.shape[3] + step * (1 + pair_shift[pair, 2]))
            for x in range(width):
                distances[pair, x] = sums[first + np.uint64(x)]
        _normalize(distances, floor, lowest, factor)
        halves[:] = 0
        _pack(distances, lowest, factor, halves)
        for x in range(width):
            codes[z, y, x] = np.uint64(halves[0, x]) | np.uint64(halves[1, x]) << np.uint64(30)


def _padded(image: np.ndarray, margin: int, scratch: Scratch) -> np.ndarray:
    """Return the image with its border repeated over a margin."""
    padded = scratch.array("padded", tuple(size + 2 * margin for size in image.shape), np.float32)
    inner = slice(margin, -margin)
    padded[inner, inner, inner] = image
    padded[inner, inner, :margin] = image[:, :, :1]
    padded[inner, inner, -margin:] = image[:, :, -1:]
    padded[inner, :margin] = padded[inner, margin : margin + 1]
    padded[inner, -margin:] = padded[inner, -margin - 1 : -margin]
    padded[:margin] = padded[margin]
    padded[-margin:] = padded[-margin - 1]
    return padded


def codes(image: np.ndarray, step: int = 1, scratch: Scratch | None = None) -> np.ndarray:
    """Return ``pack(mind_ssc(image, step, step))`` (see :mod:`crossmoda.mind`) without the 12 float channels.

    Args:
        image: (z, y, x).
        step: patch radius and dilation, voxels.
        scratch: memory that is used again.

    Returns:
        The packed codes, (z, y, x) uint64.

    """
    image = np.ascontiguousarray(image, dtype=np.float32)
    depth, height, width = image.shape
    scratch = scratch or Scratch()
    padded = _padded(image, step, scratch)
    patches = scratch.array("work", (len(DIRECTIONS), depth, height, width + 2 * step), np.float32)
    packed = scratch.fresh(image.shape, np.uint64)
    floor = np.float32(1e-6 * (2 * step + 1) ** 3)
    threads.run(_patch_sums, len(DIRECTIONS) * depth, padded, step, _DIRECTIONS, patches)
    threads.run(_pack_rows, depth * height, patches, floor, step, _PAIR_DIRECTION, _PAIR_SHIFT, packed)
    return packed
