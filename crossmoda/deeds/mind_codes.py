"""Packed MIND-SSC descriptors, compiled: see :mod:`crossmoda.mind` for what they are."""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from crossmoda.deeds.backend_cpu import threads, vectors
from crossmoda.deeds.backend_cpu.scratch import Scratch
from crossmoda.mind import DIRECTIONS, PAIRS, THRESHOLDS

_DIRECTIONS = np.array(DIRECTIONS, dtype=np.int64)
_PAIR_DIRECTION = np.array([direction for direction, _ in PAIRS], dtype=np.int64)
_PAIR_SHIFT = np.array([shift for _, shift in PAIRS], dtype=np.int64)
_LIMITS = -np.log(np.array(THRESHOLDS, dtype=np.float32))

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)

#: Voxels along x that are worked on at once. Rows of the working memory are as long as a multiple of it.
_LANES = 16
_NUMBERS = vectors.numbers(_LANES)
_NARROW, _WIDE = (ir.VectorType(ir.IntType(bits), _LANES) for bits in (32, 64))


@vectors.intrinsic
def _squared_differences(context, one, other, out, count):
    """Write the squares of the differences of two rows of numbers. Arguments are addresses, and how many vectors."""

    def generate(context, builder, signature, arguments):
        one, other, out, count = arguments
        with cgutils.for_range(builder, count) as vector:
            offset = builder.mul(vector.index, vectors.words(4 * _LANES))
            difference = builder.fsub(
                vectors.load(builder, _NUMBERS, one, offset), vectors.load(builder, _NUMBERS, other, offset)
            )
            vectors.store(builder, builder.fmul(difference, difference), out, offset)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@vectors.intrinsic
def _sum_rows(context, rows, pairs, out, count):
    """Write the sum of three rows and of ``pairs`` pairs of rows more. ``rows`` is the address of their addresses."""

    def generate(context, builder, signature, arguments):
        rows, pairs, out, count = arguments

        def place(*number):
            return vectors.load(builder, vectors.WORD, rows, *number, align=8)

        first = [place(vectors.words(8 * number)) for number in range(3)]
        with cgutils.for_range(builder, count) as vector:
            offset = builder.mul(vector.index, vectors.words(4 * _LANES))
            near, middle, far = (vectors.load(builder, _NUMBERS, row, offset) for row in first)
            total = cgutils.alloca_once_value(builder, builder.fadd(builder.fadd(near, middle), far))
            with cgutils.for_range(builder, pairs) as pair:
                number = builder.mul(pair.index, vectors.words(16))
                near, far = (
                    vectors.load(builder, _NUMBERS, place(number, vectors.words(8 * which)), offset) for which in (3, 4)
                )
                builder.store(builder.fadd(builder.load(total), builder.fadd(near, far)), total)
            vectors.store(builder, builder.load(total), out, offset)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@vectors.intrinsic
def _pack(context, rows, floor, out, count):
    """Write the packed codes of a row of voxels. ``rows`` is the address of those of the twelve rows of distances."""

    def generate(context, builder, signature, arguments):
        rows, floor, out, count = arguments

        def choose(order, one, other):
            return builder.select(builder.fcmp_ordered(order, one, other), one, other)

        places = [
            vectors.load(builder, vectors.WORD, rows, vectors.words(8 * pair), align=8) for pair in range(len(PAIRS))
        ]
        least = vectors.spread(builder, floor, _LANES)
        with cgutils.for_range(builder, count) as vector:
            offset = builder.mul(vector.index, vectors.words(4 * _LANES))
            distances = [vectors.load(builder, _NUMBERS, place, offset) for place in places]
            lowest = total = distances[0]
            for distance in distances[1:]:
                lowest, total = choose("<", distance, lowest), builder.fadd(total, distance)
            noise = builder.fsub(builder.fdiv(total, vectors.same(_NUMBERS, float(len(PAIRS)))), lowest)
            factor = builder.fdiv(vectors.same(_NUMBERS, 1.0), choose(">", noise, least))
            halves = [vectors.same(_NARROW, 0)] * 2
            for pair, distance in enumerate(distances):
                ratio = builder.fmul(builder.fsub(distance, lowest), factor)
                half = halves[pair // 6]
                for level, limit in enumerate(_LIMITS):
                    near = builder.fcmp_ordered("<", ratio, vectors.same(_NUMBERS, float(limit)))
                    bit = vectors.same(_NARROW, 1 << (5 * (pair % 6) + level))
                    half = builder.select(near, builder.or_(half, bit), half)
                halves[pair // 6] = half
            low, high = (builder.zext(half, _WIDE) for half in halves)
            code = builder.or_(low, builder.shl(high, vectors.same(_WIDE, 30)))
            vectors.store(builder, code, out, builder.mul(vector.index, vectors.words(8 * _LANES)), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64, types.int64), generate


@_compiled
def _around(places, center, shift, rows):
    """Write the places of the rows around ``center``: before, itself, after, and so on outwards, pair by pair."""
    last = places.shape[0] - 1
    rows[0] = places[max(center - 1, 0)] + shift
    rows[1] = places[center] + shift
    rows[2] = places[min(center + 1, last)] + shift
    for distance in range(2, rows.shape[0] // 2 + 1):
        rows[2 * distance - 1] = places[max(center - distance, 0)] + shift
        rows[2 * distance] = places[min(center + distance, last)] + shift


@_compiled
def _plane_distances(image, z, direction, step, width, squares, latest, rows, out, out_step):
    """Write the squared differences of plane z to voxels a diagonal apart, summed over the patch in the plane.

    ``out`` is the plane's address, ``latest`` those of its rows in memory for a few. ``rows[0]`` holds the addresses of
    the squares around the first voxel of a row, ``rows[1]`` becomes those of the rows around a row.
    """
    radius, height = rows.shape[1] // 2, latest.shape[0]
    count = -(-width // _LANES)
    here = np.int64(image.ctypes.data) + (z + step) * image.strides[0] + step * (image.strides[1] + image.strides[2])
    there = here + step * (
        direction[0] * image.strides[0] + direction[1] * image.strides[1] + direction[2] * image.strides[2]
    )
    along, across = np.int64(rows.ctypes.data), np.int64(rows.ctypes.data) + rows.strides[0]
    for y in range(height + radius):
        if y < height:
            _squared_differences(here + y * image.strides[1], there + y * image.strides[1], rows[0, 1], count)
            for x in range(radius):
                squares[x] = squares[radius]
                squares[width + radius + x] = squares[width + radius - 1]
            _sum_rows(along, radius - 1, latest[y], count)
        if y >= radius:
            _around(latest, y - radius, 0, rows[1])
            _sum_rows(across, radius - 1, out + (y - radius) * out_step, count)


@_compiled
def _patch_sums(start, stop, image, step, radius, directions, patches):
    """Sums over the patch of the squared differences between voxels a diagonal apart; rows are repeated at their ends.

    The rows and planes that a patch spans are kept and used for the next: only the sums go through the main memory.
    """
    depth, height = patches.shape[1:3]
    width = image.shape[2] - 2 * step
    count = -(-width // _LANES)
    size = 2 * radius + 1
    squares = np.empty(count * _LANES + 2 * radius + _LANES, np.float32)
    planes = np.empty((size + 1, max(height, size), count * _LANES), np.float32)  # and one for the latest rows
    begin = np.int64(planes.ctypes.data)
    held = begin + np.arange(depth) % size * planes.strides[0]
    latest = begin + size * planes.strides[0] + np.arange(height) % size * planes.strides[1]
    rows = np.empty((3, size), np.int64)
    _around(np.int64(squares.ctypes.data) + 4 * np.arange(size), radius, 0, rows[0])
    out, table = np.int64(patches.ctypes.data), np.int64(rows.ctypes.data) + 2 * rows.strides[0]
    for item in range(start, stop):
        channel, z = item // depth, item % depth
        first = max(z - radius, 0) if item == start or z == 0 else z + radius
        for plane in range(first, min(z + radius, depth - 1) + 1):
            place = held[plane]
            _plane_distances(
                image, plane, directions[channel], step, width, squares, latest, rows, place, planes.strides[1]
            )
        row = out + channel * patches.strides[0] + z * patches.strides[1] + 4 * step
        for y in range(height):
            _around(held, z, y * planes.strides[1], rows[2])
            _sum_rows(table, radius - 1, row + y * patches.strides[2], count)
            for x in range(step):
                patches[channel, z, y, x] = patches[channel, z, y, step]
                patches[channel, z, y, step + width + x] = patches[channel, z, y, step + width - 1]


@_compiled
def _pack_rows(start, stop, patches, floor, step, pair_direction, pair_shift, codes):
    """Normalize the twelve distances of each voxel, quantize them to six levels and pack their unary codes."""
    depth, height, width = codes.shape
    count = -(-width // _LANES)
    line = np.empty(count * _LANES, np.uint64)
    rows = np.empty(len(pair_shift), np.int64)
    first, table, out = np.int64(patches.ctypes.data), np.int64(rows.ctypes.data), np.int64(line.ctypes.data)
    for item in range(start, stop):
        z, y = item // height, item % height
        for pair in range(len(pair_shift)):
            there_z = min(max(z + pair_shift[pair, 0] * step, 0), depth - 1)
            there_y = min(max(y + pair_shift[pair, 1] * step, 0), height - 1)
            place = first + pair_direction[pair] * patches.strides[0]
            place += there_z * patches.strides[1] + there_y * patches.strides[2]
            rows[pair] = place + 4 * step * (1 + pair_shift[pair, 2])
        _pack(table, floor, out, count)
        for x in range(width):
            codes[z, y, x] = line[x]


def _padded(image: np.ndarray, margin: int, scratch: Scratch) -> np.ndarray:
    """Return the image with its border repeated over a margin; a vector may be read beyond its end."""
    shape = tuple(size + 2 * margin for size in image.shape)
    count = int(np.prod(shape))
    padded = scratch.array("padded", (count + _LANES,), np.float32)[:count].reshape(shape)
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
    whole = -(-width // _LANES) * _LANES
    patches = scratch.array("work", (6, depth, height, whole + 2 * step), np.float32)
    packed = scratch.fresh(image.shape, np.uint64)
    floor = np.float32(1e-6 * (2 * step + 1) ** 3)
    threads.run(_patch_sums, 6 * depth, padded, step, step, _DIRECTIONS, patches)
    threads.run(_pack_rows, depth * height, patches, floor, step, _PAIR_DIRECTION, _PAIR_SHIFT, packed)
    return packed
