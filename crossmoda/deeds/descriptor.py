"""Packed MIND-SSC descriptors, compiled: see :mod:`crossmoda.mind` for what they are."""

import numba
import numpy as np

from crossmoda.deeds import threads
from crossmoda.deeds.scratch import Scratch
from crossmoda.mind import DIRECTIONS, PAIRS, THRESHOLDS

_DIRECTIONS = np.array(DIRECTIONS, dtype=np.int64)
_PAIR_DIRECTION = np.array([direction for direction, _ in PAIRS], dtype=np.int64)
_PAIR_SHIFT = np.array([shift for _, shift in PAIRS], dtype=np.int64)
_LIMITS = -np.log(np.array(THRESHOLDS, dtype=np.float32))

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)


@_compiled
def _add_odd(rows, first, radius, last, out):
    """Write the sum of the ``2 radius + 1`` rows around ``first``, rows beyond the ends repeated, two at a time."""
    near, far = rows[max(first - 1, 0)], rows[min(first + 1, last)]
    middle = rows[first]
    for x in range(out.shape[0]):
        out[x] = near[x] + middle[x] + far[x]
    for offset in range(2, radius + 1):
        near, far = rows[max(first - offset, 0)], rows[min(first + offset, last)]
        for x in range(out.shape[0]):
            out[x] += near[x] + far[x]


@_compiled
def _plane_distances(image, z, direction, step, radius, squares, rows, distances):
    """Squared differences between voxels of plane z and those a diagonal apart, summed over the patch in the plane."""
    height, width = distances.shape
    dz, dy, dx = direction[0] * step, direction[1] * step, direction[2] * step
    for y in range(height):
        here = image[z + step, y + step, step : step + width]
        there = image[z + step + dz, y + step + dy, step + dx : step + dx + width]
        middle = squares[radius : radius + width]
        for x in range(width):
            difference = here[x] - there[x]
            middle[x] = difference * difference
        for x in range(radius):
            squares[x] = middle[0]
            squares[width + radius + x] = middle[width - 1]
        row = rows[y]
        near, far = squares[radius - 1 :], squares[radius + 1 :]
        for x in range(width):
            row[x] = near[x] + middle[x] + far[x]
        for offset in range(2, radius + 1):
            near, far = squares[radius - offset :], squares[radius + offset :]
            for x in range(width):
                row[x] += near[x] + far[x]
    for y in range(height):
        _add_odd(rows, y, radius, height - 1, distances[y])


@_compiled
def _patch_sums(start, stop, image, step, radius, directions, patches):
    """Sums over the patch of the squared differences between voxels a diagonal apart; rows are repeated at their ends.

    The planes that a patch spans are kept and used for the next plane: only the sums go through the main memory.
    """
    depth, height = patches.shape[1:3]
    width = patches.shape[3] - 2 * step
    squares = np.empty(width + 2 * radius, np.float32)
    rows = np.empty((height, width), np.float32)
    planes = np.empty((2 * radius + 1, height, width), np.float32)
    slots = np.empty(2 * radius + 1, np.int64)
    for item in range(start, stop):
        channel, z = item // depth, item % depth
        first = max(z - radius, 0) if item == start or z == 0 else z + radius
        for plane in range(first, min(z + radius, depth - 1) + 1):
            slot = planes[plane % (2 * radius + 1)]
            _plane_distances(image, plane, directions[channel], step, radius, squares, rows, slot)
        for offset in range(-radius, radius + 1):
            slots[radius + offset] = min(max(z + offset, 0), depth - 1) % (2 * radius + 1)
        for y in range(height):
            row = patches[channel, z, y]
            out = row[step : step + width]
            near, middle, far = planes[slots[radius - 1], y], planes[slots[radius], y], planes[slots[radius + 1], y]
            for x in range(width):
                out[x] = near[x] + middle[x] + far[x]
            for offset in range(2, radius + 1):
                near, far = planes[slots[radius - offset], y], planes[slots[radius + offset], y]
                for x in range(width):
                    out[x] += near[x] + far[x]
            for x in range(step):
                row[x] = row[step]
                row[step + width + x] = row[step + width - 1]


@_compiled
def _shifted(patches, channel, z, y, shift, step, width):
    """Return the row of patch sums ``step`` voxels from row (z, y) in the direction ``shift``."""
    depth, height = patches.shape[1:3]
    there_z, there_y = min(max(z + shift[0] * step, 0), depth - 1), min(max(y + shift[1] * step, 0), height - 1)
    first = step + shift[2] * step
    return patches[channel, there_z, there_y, first : first + width]


@_compiled
def _pack_rows(start, stop, patches, floor, step, pair_direction, pair_shift, limits, codes):
    """Normalise the twelve distances of each voxel, quantise them to six levels and pack their unary codes."""
    height, width = codes.shape[1:]
    lowest = np.empty(width, np.float32)
    noise = np.empty(width, np.float32)
    bits = np.empty((2, width), np.uint32)
    limit_0, limit_1, limit_2, limit_3, limit_4 = limits[0], limits[1], limits[2], limits[3], limits[4]
    for item in range(start, stop):
        z, y = item // height, item % height
        for pair in range(12):
            row = _shifted(patches, pair_direction[pair], z, y, pair_shift[pair], step, width)
            if pair == 0:
                for x in range(width):
                    lowest[x] = row[x]
                    noise[x] = row[x]
            else:
                for x in range(width):
                    lowest[x] = min(lowest[x], row[x])
                    noise[x] += row[x]
        for x in range(width):
            noise[x] = np.float32(1) / max(noise[x] / np.float32(12) - lowest[x], floor)
        bits[:] = 0
        for pair in range(12):
            row = _shifted(patches, pair_direction[pair], z, y, pair_shift[pair], step, width)
            half = bits[pair // 6]
            shift = 5 * (pair % 6)
            bit_0, bit_1, bit_2 = np.uint32(1 << shift), np.uint32(2 << shift), np.uint32(4 << shift)
            bit_3, bit_4, none = np.uint32(8 << shift), np.uint32(16 << shift), np.uint32(0)
            for x in range(width):
                distance = (row[x] - lowest[x]) * noise[x]
                level = bit_0 if distance < limit_0 else none
                level |= bit_1 if distance < limit_1 else none
                level |= bit_2 if distance < limit_2 else none
                level |= bit_3 if distance < limit_3 else none
                level |= bit_4 if distance < limit_4 else none
                half[x] |= level
        code = codes[z, y]
        low, high = bits[0], bits[1]
        for x in range(width):
            code[x] = np.uint64(low[x]) | np.uint64(high[x]) << np.uint64(30)


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


def codes(image: np.ndarray, step: int, scratch: Scratch | None = None) -> np.ndarray:
    """Return the packed MIND-SSC codes (z, y, x) uint64; ``step`` is patch radius and dilation in voxels."""
    image = np.ascontiguousarray(image, dtype=np.float32)
    depth, height, width = image.shape
    scratch = scratch or Scratch()
    padded = _padded(image, step, scratch)
    patches = scratch.array("work", (6, depth, height, width + 2 * step), np.float32)
    packed = scratch.fresh(image.shape, np.uint64)
    floor = np.float32(1e-6 * (2 * step + 1) ** 3)
    threads.run(_patch_sums, 6 * depth, padded, step, step, _DIRECTIONS, patches)
    threads.run(_pack_rows, depth * height, patches, floor, step, _PAIR_DIRECTION, _PAIR_SHIFT, _LIMITS, packed)
    return packed
