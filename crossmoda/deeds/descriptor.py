"""Packed MIND-SSC descriptors, compiled: see :mod:`crossmoda.mind` for what they are."""

import numba
import numpy as np

from crossmoda.deeds import threads
from crossmoda.mind import DIRECTIONS, PAIRS, THRESHOLDS

_DIRECTIONS = np.array(DIRECTIONS, dtype=np.int64)
_PAIR_DIRECTION = np.array([direction for direction, _ in PAIRS], dtype=np.int64)
_PAIR_SHIFT = np.array([shift for _, shift in PAIRS], dtype=np.int64)
_LIMITS = -np.log(np.array(THRESHOLDS, dtype=np.float32))

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)


@_compiled
def _plane_distances(start, stop, image, step, radius, directions, distances):
    """Squared differences between voxels a diagonal apart, summed over the patch within each plane."""
    depth, height, width = distances.shape[1:]
    squares = np.empty(width + 2 * radius, np.float32)
    rows = np.empty((height, width), np.float32)
    for item in range(start, stop):
        channel, z = item // depth, item % depth
        dz, dy, dx = directions[channel] * step
        for y in range(height):
            here = image[z + step, y + step, step : step + width]
            there = image[z + step + dz, y + step + dy, step + dx : step + dx + width]
            for x in range(width):
                difference = here[x] - there[x]
                squares[x + radius] = difference * difference
            for x in range(radius):
                squares[x] = squares[radius]
                squares[width + radius + x] = squares[width + radius - 1]
            row = rows[y]
            for x in range(width):
                row[x] = squares[x]
            for offset in range(1, 2 * radius + 1):
                for x in range(width):
                    row[x] += squares[x + offset]
        for y in range(height):
            out = distances[channel, z, y]
            out[:] = 0.0
            for offset in range(-radius, radius + 1):
                row = rows[min(max(y + offset, 0), height - 1)]
                for x in range(width):
                    out[x] += row[x]


@_compiled
def _patch_sums(start, stop, distances, radius, patches):
    """Complete the patch sums along z."""
    depth, height, width = distances.shape[1:]
    for item in range(start, stop):
        channel, z = item // depth, item % depth
        for y in range(height):
            out = patches[channel, z, y]
            out[:] = 0.0
            for offset in range(-radius, radius + 1):
                row = distances[channel, min(max(z + offset, 0), depth - 1), y]
                for x in range(width):
                    out[x] += row[x]


@_compiled
def _pack_rows(start, stop, patches, floor, step, pair_direction, pair_shift, limits, codes):
    """Normalise the twelve distances of each voxel, quantise them to six levels and pack their unary codes."""
    depth, height, width = patches.shape[1:]
    pairs = np.empty((12, width), np.float32)
    lowest = np.empty(width, np.float32)
    noise = np.empty(width, np.float32)
    borders = np.empty((5, width), np.float32)
    bits = np.empty(width, np.uint32)
    for item in range(start, stop):
        z, y = item // height, item % height
        for pair in range(12):
            dz, dy, dx = pair_shift[pair] * step
            source = patches[pair_direction[pair], min(max(z + dz, 0), depth - 1), min(max(y + dy, 0), height - 1)]
            row = pairs[pair]
            first, last = min(max(-dx, 0), width), max(min(width - dx, width), 0)
            for x in range(first):
                row[x] = source[0]
            for x in range(last, width):
                row[x] = source[width - 1]
            for x in range(first, last):
                row[x] = source[x + dx]
            if pair == 0:
                for x in range(width):
                    lowest[x] = row[x]
                    noise[x] = row[x]
            else:
                for x in range(width):
                    lowest[x] = min(lowest[x], row[x])
                    noise[x] += row[x]
        for level in range(5):
            for x in range(width):
                borders[level, x] = lowest[x] + limits[level] * max(noise[x] / np.float32(12) - lowest[x], floor)
        code = codes[z, y]
        for half in range(2):
            bits[:] = 0
            for channel in range(6):
                row = pairs[6 * half + channel]
                for level in range(5):
                    border = borders[level]
                    bit = np.uint32(1 << (5 * channel + level))
                    for x in range(width):
                        if row[x] < border[x]:
                            bits[x] |= bit
            if half == 0:
                for x in range(width):
                    code[x] = np.uint64(bits[x])
            else:
                for x in range(width):
                    code[x] |= np.uint64(bits[x]) << np.uint64(30)


def codes(image: np.ndarray, step: int) -> np.ndarray:
    """Return the packed MIND-SSC codes (z, y, x) uint64; ``step`` is patch radius and dilation in voxels."""
    image = np.ascontiguousarray(image, dtype=np.float32)
    depth, height, width = image.shape
    padded = np.pad(image, step, mode="edge")
    distances = np.empty((6, depth, height, width), np.float32)
    patches = np.empty_like(distances)
    packed = np.empty(image.shape, np.uint64)
    floor = np.float32(1e-6 * (2 * step + 1) ** 3)
    threads.run(_plane_distances, 6 * depth, padded, step, step, _DIRECTIONS, distances)
    threads.run(_patch_sums, 6 * depth, distances, step, patches)
    threads.run(_pack_rows, depth * height, patches, floor, step, _PAIR_DIRECTION, _PAIR_SHIFT, _LIMITS, packed)
    return packed
