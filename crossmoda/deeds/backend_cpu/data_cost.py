"""The data cost in vector instructions: as :func:`crossmoda.deeds.reference.data_cost`, many blocks at once."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from crossmoda.deeds.backend_cpu import threads, vectors
from crossmoda.deeds.backend_cpu.scratch import Scratch

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, boundscheck=False)

#: Blocks along x that are compared at once.
_LANES = 8
#: Displacements along x that are summed at once: at most as many as the registers hold, more in parts of eight.
_MOST, _PART = 13, 8


def _counter(displacements: int) -> Any:
    """Return the function that counts the differing bits of a chunk of blocks under ``displacements`` displacements."""

    @vectors.intrinsic
    def count(
        context, fixed, mask, moving, lines, line_count, table, table_step, block, across, step, out, shift, scale
    ):
        """Store the number of bits set in ``fixed ^ moving`` where ``mask`` is set: block sums, times scale.

        Arguments are addresses, and offsets and steps in bytes. ``lines`` holds pairs: the offsets at which a row of
        the blocks begins in ``fixed``, whose voxels are ``across`` apart, and in ``moving``; ``table`` the offsets in
        ``moving`` for each voxel along x and displacement; ``mask`` a bit for each code of ``fixed``; ``out`` the
        addresses of the eight blocks' costs, which begin ``shift`` further. All displacements but the last reuse the
        codes that the next displacement loaded a step (``step`` voxels) before: these stay in registers, as do the
        sums of the rows.
        """

        def generate(context, builder, signature, arguments):
            fixed, mask, moving, lines, line_count, table, table_step, block, across, step, *rest = arguments
            out, shift, scale = rest
            codes, narrow, flags = (ir.VectorType(ir.IntType(bits), _LANES) for bits in (64, 32, 1))
            name = f"llvm.ctpop.v{_LANES}i64"
            popcount = cgutils.get_or_insert_function(builder.module, ir.FunctionType(codes, [codes]), name)
            zero = vectors.same(codes, 0)
            sums = [cgutils.alloca_once_value(builder, zero) for _ in range(displacements)]
            seen = [cgutils.alloca_once_value(builder, zero) for _ in range(displacements)]

            def word(*address):
                return vectors.load(builder, vectors.WORD, *address, align=8)

            def shifted(x, displacement):
                return vectors.load(
                    builder,
                    codes,
                    row,
                    word(table, builder.mul(x, table_step), vectors.words(8 * displacement)),
                    align=8,
                )

            with cgutils.for_range(builder, line_count) as line:
                pair = builder.add(lines, builder.mul(line.index, vectors.words(16)))
                inside, row = word(pair), builder.add(word(pair, vectors.words(8)), moving)
                with cgutils.for_range(builder, step) as phase:
                    for number in range(1, displacements):
                        builder.store(shifted(phase.index, number - 1), seen[number])
                    with cgutils.for_range_slice(builder, phase.index, block, step, vectors.WORD) as (x, _):
                        place = builder.add(inside, builder.mul(x, across))
                        code = vectors.load(builder, codes, fixed, place, align=8)
                        octet = vectors.load(
                            builder, ir.IntType(8), mask, builder.lshr(place, vectors.words(6)), align=1
                        )
                        selected = builder.bitcast(octet, flags)
                        displaced_codes = [*(builder.load(part) for part in seen[1:]), shifted(x, displacements - 1)]
                        for displaced, part, total in zip(displaced_codes, seen, sums, strict=True):
                            bits = builder.call(
                                popcount, [builder.select(selected, builder.xor(code, displaced), zero)]
                            )
                            builder.store(builder.add(builder.load(total), bits), total)
                            builder.store(displaced, part)
            factor = vectors.spread(builder, scale, _LANES)
            counts = [builder.sitofp(builder.trunc(builder.load(total), narrow), factor.type) for total in sums]
            rows = [builder.add(word(out, vectors.words(8 * lane)), shift) for lane in range(_LANES)]
            vectors.store_transposed(builder, [builder.fmul(count, factor) for count in counts], rows)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12, types.float32), generate

    return count


_count_3, _count_5, _count_7, _count_8 = _counter(3), _counter(5), _counter(7), _counter(8)
_count_9, _count_11, _count_13 = _counter(9), _counter(11), _counter(13)


@_compiled
def _by_phase(start, stop, codes, first, block, out):
    """Sort each row of ``codes``, repeated beyond its ends, by the position of a voxel in its block.

    ``out[z, y, p, n]`` is voxel ``first + n * block + p`` of row (z, y).
    """
    height, width = codes.shape[1:]
    for item in range(start, stop):
        z, y = item // height, item % height
        for phase in range(block):
            for n in range(out.shape[3]):
                out[z, y, phase, n] = codes[z, y, min(max(first + n * block + phase, 0), width - 1)]


@_compiled
def _mask_bits(start, stop, mask, block, out):
    """Set a bit for each voxel of the mask, sorted as in :func:`_by_phase`: eight blocks to the byte."""
    height, width = mask.shape[1:]
    for item in range(start, stop):
        z, y = item // height, item % height
        for phase in range(block):
            for octet in range(out.shape[3]):
                bits = 0
                for lane in range(_LANES):
                    x = (octet * _LANES + lane) * block + phase
                    if x < width and mask[z, y, x]:
                        bits |= 1 << lane
                out[z, y, phase, octet] = bits


@_compiled
def _lines(z, y, shift_z, shift_y, block, skip, shape, fixed, moving, lines, label):
    """Write the offsets (bytes) of a block's rows of voxels in both images to ``lines[label]``; return their number."""
    depth, height = shape
    count = 0
    for k in range(z * block[0], min((z + 1) * block[0], depth), skip[0]):
        for j in range(y * block[1], min((y + 1) * block[1], height), skip[1]):
            moving_z = min(max(k + shift_z, 0), depth - 1)
            moving_y = min(max(j + shift_y, 0), height - 1)
            lines[label, count, 0] = k * fixed.strides[0] + j * fixed.strides[1]
            lines[label, count, 1] = moving_z * moving.strides[0] + moving_y * moving.strides[1]
            count += 1
    return count


@_compiled
def _blocks(places, count, block, step, labels, scale, out, shift):
    """Sum the Hamming distances of eight blocks for each displacement along x.

    ``places`` are addresses and steps in bytes, see :func:`_counter`. No view of an array is made here: numba counts
    references to it, which takes as long as the sums where threads share the array.
    """
    fixed, mask, moving, lines, table, offset_step, across = places
    while labels > 0:
        number = labels if labels <= _MOST else _PART
        if number == 13:
            _count_13(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        elif number == 11:
            _count_11(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        elif number == 9:
            _count_9(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        elif number == 8:
            _count_8(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        elif number == 7:
            _count_7(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        elif number == 5:
            _count_5(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        else:
            _count_3(fixed, mask, moving, lines, count, table, offset_step, block, across, step, out, shift, scale)
        table += 8 * number
        shift += 4 * number
        labels -= number


@_compiled
def _copy(costs, z, y, columns, source, target, count):
    for column in range(columns[0], min(columns[1], costs.shape[2])):
        for k in range(count):
            costs[z, y, column, target + k] = costs[z, y, column, source + k]


@_compiled
def _repeats(first, last, shift, step, size):
    """Return whether voxels ``first`` to ``last``, moved by ``shift`` and by a step less, both lie beyond one border.

    There the nearest voxel stands in for all of them, so that both displacements cost the same.
    """
    return last + shift <= 0 or first + shift - step >= size - 1


@_compiled
def _block_rows(start, stop, fixed, mask, moving, shape, block, radius, quantization, skip, offsets, scale, costs):
    """Compare the rows of blocks from ``start`` to ``stop``.

    All rows of a layer come before the next displacement along z, and all displacements along y before the next blocks
    along x, so that the codes they share stay in the cache.
    """
    rows, columns = costs.shape[1:3]
    depth, height = shape
    labels_z, labels_y, labels_x = 2 * radius[0] + 1, 2 * radius[1] + 1, 2 * radius[2] + 1
    lines = np.empty((labels_y, block[0] * block[1], 2), np.int64)
    nowhere = np.empty(labels_z * labels_y * labels_x, np.float32)
    targets = np.empty(_LANES, np.int64)
    fixed_address, moving_address = np.int64(fixed.ctypes.data), np.int64(moving.ctypes.data)
    mask_address, line, table = np.int64(mask.ctypes.data), np.int64(lines.ctypes.data), np.int64(offsets.ctypes.data)
    line_step, table_step, across = np.int64(lines.strides[0]), np.int64(offsets.strides[0]), np.int64(fixed.strides[2])
    out, target = np.int64(costs.ctypes.data), np.int64(targets.ctypes.data)
    step = min(quantization[2], block[2])  # each voxel of a block starts a sequence of its own if steps are longer
    for z in range(start // rows, -(-stop // rows)):
        first_z, last_z = z * block[0], min((z + 1) * block[0], depth) - 1
        for label_z in range(labels_z):
            shift_z = (label_z - radius[0]) * quantization[0]
            first = label_z * labels_y * labels_x
            same_z = label_z > 0 and _repeats(first_z, last_z, shift_z, quantization[0], depth)
            for y in range(max(start - z * rows, 0), min(stop - z * rows, rows)):
                if same_z:
                    _copy(costs, z, y, (0, columns), first - labels_y * labels_x, first, labels_y * labels_x)
                    continue
                count = 0
                for label_y in range(labels_y):
                    shift_y = (label_y - radius[1]) * quantization[1]
                    count = _lines(z, y, shift_z, shift_y, block, skip, shape, fixed, moving, lines, label_y)
                first_y, last_y = y * block[1], min((y + 1) * block[1], height) - 1
                for column in range(0, columns, _LANES):
                    for lane in range(_LANES):
                        targets[lane] = out + z * costs.strides[0] + y * costs.strides[1]
                        targets[lane] += (column + lane) * costs.strides[2]
                        if column + lane >= columns:
                            targets[lane] = np.int64(nowhere.ctypes.data)
                    for label_y in range(labels_y):
                        shift_y = (label_y - radius[1]) * quantization[1]
                        label = first + label_y * labels_x
                        if label_y > 0 and _repeats(first_y, last_y, shift_y, quantization[1], height):
                            _copy(costs, z, y, (column, column + _LANES), label - labels_x, label, labels_x)
                            continue
                        places = (
                            fixed_address + 8 * column,
                            mask_address + column // _LANES,
                            moving_address + 8 * column,
                            line + label_y * line_step,
                            table,
                            table_step,
                            across,
                        )
                        _blocks(places, count, block[2], step, labels_x, scale, target, 4 * label)


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
    """Return the same as :func:`crossmoda.deeds.reference.data_cost`, to the rounding of a factor.

    The costs lie in ``scratch``, where they are valid until the next costs or codes are computed.
    """
    counts = [-(-size // step) for size, step in zip(fixed.shape, block, strict=True)]
    lanes = -(-counts[2] // _LANES) * _LANES
    reach = radius[2] * quantization[2]
    scratch = scratch or Scratch()
    fixed_rows = scratch.array("fixed", (*fixed.shape[:2], block[2], lanes), np.uint64)
    mask_bits = scratch.array("mask", (*fixed.shape[:2], block[2], lanes // _LANES), np.uint8)
    moving_rows = scratch.array("moving", (*fixed.shape[:2], block[2], lanes + 2 * reach // block[2] + 1), np.uint64)
    inside = np.ones(fixed.shape, bool) if mask is None else np.ascontiguousarray(mask)
    lines = fixed.shape[0] * fixed.shape[1]
    threads.run(_by_phase, lines, np.ascontiguousarray(fixed), 0, block[2], fixed_rows)
    threads.run(_by_phase, lines, np.ascontiguousarray(moving), -reach, block[2], moving_rows)
    threads.run(_mask_bits, lines, inside, block[2], mask_bits)
    along = np.arange(block[2])[:, None] + np.arange(2 * radius[2] + 1) * quantization[2]
    offsets = along % block[2] * moving_rows.strides[2] + along // block[2] * moving_rows.strides[3]
    samples = -(-block[0] // skip[0]) * -(-block[1] // skip[1]) * block[2]
    labels = int(np.prod([2 * steps + 1 for steps in radius]))
    costs = scratch.array("work", (*counts, labels), np.float32)
    threads.run(
        _block_rows,
        counts[0] * counts[1],
        fixed_rows,
        mask_bits,
        moving_rows,
        fixed.shape[:2],
        tuple(block),
        tuple(radius),
        tuple(quantization),
        tuple(skip),
        offsets,
        np.float32(scale / samples),
        costs,
    )
    return costs
