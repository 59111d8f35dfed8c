"""The minimum spanning tree of the control points, and the exact best displacements on it."""

import heapq
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.core import cgutils

from crossmoda.deeds.backend_cpu import threads, vectors

_compiled = numba.njit(cache=True, nogil=True, boundscheck=False)
_vectorized = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)


class Tree(NamedTuple):
    """A rooted spanning tree of ``n`` control points."""

    parents: np.ndarray
    """the parent of each point (n,) int64; the root's is -1"""
    weights: np.ndarray
    """the similarity of each point to its parent, in (0, 1] (n,) float32; the root's is 1"""
    order: np.ndarray
    """all points, parents before their children (n,) int64"""


@_vectorized
def _edges(start, stop, image, block, differences):
    """Mean absolute difference of each block to its next neighbor along z, y and x."""
    rows, columns = differences.shape[2:]
    for item in range(start, stop):
        z, y = item // rows, item % rows
        for x in range(columns):
            for axis in range(3):
                total = np.float32(0)
                count = 0
                bz, by, bx = z * block[0], y * block[1], x * block[2]
                oz, oy, ox = block[0] * (axis == 0), block[1] * (axis == 1), block[2] * (axis == 2)
                for k in range(bz, min(bz + block[0], image.shape[0] - oz)):
                    for j in range(by, min(by + block[1], image.shape[1] - oy)):
                        for i in range(bx, min(bx + block[2], image.shape[2] - ox)):
                            total += abs(image[k, j, i] - image[k + oz, j + oy, i + ox])
                            count += 1
                differences[axis, z, y, x] = total / np.float32(max(count, 1))


def block_differences(image: np.ndarray, block: tuple[int, int, int]) -> np.ndarray:
    """Return (3, blocks z, blocks y, blocks x): mean absolute difference of each block to the next along each axis.

    The values of the last block along an axis, which has no next one, mean nothing.
    """
    counts = [-(-size // step) for size, step in zip(image.shape, block, strict=True)]
    differences = np.zeros((3, *counts), np.float32)
    threads.run(_edges, counts[0] * counts[1], np.ascontiguousarray(image, np.float32), np.array(block), differences)
    return differences


@_compiled
def _prim(differences, root, parents, costs, order):
    """Grow the tree from the root, always by the cheapest edge that leaves it (R. C. Prim, 1957).

    Of edges that cost the same, that to the point with the least index, from the parent with the least index. In the
    heap an edge is one number: the bits of its cost, which grow with it since it is not negative, and the point.
    """
    _, depth, height, width = differences.shape
    size = depth * height * width
    bits = differences.view(np.int32)
    steps = np.array([height * width, width, 1])
    done = np.zeros(size, np.bool_)
    nearest = np.full(size, np.iinfo(np.int32).max, np.int32)  # the cost of the cheapest edge to a point so far
    parents[:] = -1
    place = np.empty(3, np.int64)
    heap = [np.int64(root)]
    grown = 0
    while grown < size:
        node = heapq.heappop(heap) & 0xFFFFFFFF
        if done[node]:
            continue
        done[node] = True
        order[grown] = node
        grown += 1
        place[0], place[1], place[2] = node // (height * width), node // width % height, node % width
        for axis in range(3):
            for side in range(2):
                if place[axis] == (differences.shape[1 + axis] - 1 if side else 0):
                    continue
                other = node + steps[axis] if side else node - steps[axis]
                if done[other]:
                    continue
                first = min(node, other)
                cost = bits[axis, first // (height * width), first // width % height, first % width]
                if cost < nearest[other] or parents[other] < 0:
                    nearest[other], parents[other] = cost, node
                    heapq.heappush(heap, np.int64(cost) << 32 | other)
                elif cost == nearest[other]:
                    parents[other] = min(parents[other], node)
    for node in order[1:]:
        costs[node] = nearest[node : node + 1].view(np.float32)[0]
    costs[root] = 0


def spanning_tree(differences: np.ndarray, deviation: float) -> Tree:
    """Return the minimum spanning tree of the grid of blocks, rooted in its middle.

    Args:
        differences: edge costs, from :func:`block_differences`.
        deviation: standard deviation of the image's intensities; an edge's similarity is exp(-cost / (2 deviation)).

    """
    shape = differences.shape[1:]
    size = int(np.prod(shape))
    parents, order, costs = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.float32)
    root = int(np.ravel_multi_index([count // 2 for count in shape], shape))
    _prim(np.ascontiguousarray(differences, np.float32), np.int64(root), parents, costs, order)
    return Tree(parents, np.exp(-costs / np.float32(2 * max(deviation, 1e-6))), order)


#: Displacements whose messages are computed at once.
_LANES = 16


def _least_sums(places: int, lists: int = 1) -> Any:
    """Return the function that computes the least sums of ``places`` in a row with each of ``lists`` of numbers."""

    @vectors.intrinsic
    def least(context, row, row_step, number, number_step, count, out, next_list, next_out):
        """Store, for each place in a row, the least of ``count`` sums of row k and number k.

        Arguments are addresses and, in bytes, the steps from row to row, from number to number, from the first number
        of a list to that of the next, and from the sums of a list to those of the next. Minima stay in registers while
        the rows go by.
        """

        def generate(context, builder, signature, arguments):
            row, row_step, number, number_step, count, out, next_list, next_out = arguments
            kind = vectors.numbers(_LANES)
            parts = [vectors.words(4 * place) for place in range(0, places, _LANES)]
            steps = [vectors.words(index) for index in range(lists)]
            infinity = vectors.same(kind, float("inf"))
            lowest = [[cgutils.alloca_once_value(builder, infinity) for _ in parts] for _ in steps]
            with cgutils.for_range(builder, count) as k:
                here = builder.add(row, builder.mul(k.index, row_step))
                rows = [vectors.load(builder, kind, here, part) for part in parts]
                here = builder.add(number, builder.mul(k.index, number_step))
                for step, best in zip(steps, lowest, strict=True):
                    value = vectors.load(builder, vectors.SINGLE, here, builder.mul(next_list, step))
                    value = vectors.spread(builder, value, _LANES)
                    for numbers, least in zip(rows, best, strict=True):
                        total, before = builder.fadd(numbers, value), builder.load(least)
                        builder.store(builder.select(builder.fcmp_ordered("<", total, before), total, before), least)
            for step, best in zip(steps, lowest, strict=True):
                for part, least in zip(parts, best, strict=True):
                    vectors.store(builder, builder.load(least), out, builder.mul(next_out, step), part)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return least


_least_16, _least_32, _least_of_4 = _least_sums(_LANES), _least_sums(2 * _LANES), _least_sums(_LANES, 4)


@_vectorized
def _least_of_lists(lists, row, row_step, number, number_step, count, out, next_list, next_out):
    """Compute the least sums of any number of lists, four at a time while there are as many."""
    done = 0
    while done < lists:
        first, there = number + done * next_list, out + done * next_out
        if lists - done >= 4:
            _least_of_4(row, row_step, first, number_step, count, there, next_list, next_out)
            done += 4
        else:
            _least_16(row, row_step, first, number_step, count, there, 0, 0)
            done += 1


@_vectorized
def _envelopes(values, shape, offset, bends, spare):
    """Lower envelope along each axis: out[p] = min over c of values[c] + |p - c + offset|^2, p and c displacements.

    ``values`` becomes scratch, the result is in ``spare``; both have room for 32 more. The last vector of a row ends
    with it; what a vector longer than the row writes beyond it is overwritten with the next row.
    """
    depth, rows, columns = shape
    plane, last = rows * columns, max(columns - _LANES, 0)
    source, target = np.int64(values.ctypes.data), np.int64(spare.ctypes.data)
    table = np.int64(bends.ctypes.data)
    for step in range(2 * depth - 1):
        bends[step] = (step - depth + 1 + offset[0]) ** 2
    for z in range(depth):
        for k in range(0, plane, 2 * _LANES):
            bend, out = table + 4 * (z + depth - 1), target + 4 * (z * plane + k)
            _least_32(source + 4 * k, 4 * plane, bend, -4, depth, out, 0, 0)
    source, target = target, source
    for step in range(2 * rows - 1):
        bends[step] = (step - rows + 1 + offset[1]) ** 2
    bend = table + 4 * (rows - 1)
    for z in range(depth):
        for k in range(0, columns, _LANES):
            first = 4 * (z * plane + min(k, last))
            _least_of_lists(rows, source + first, 4 * columns, bend, -4, rows, target + first, 4, 4 * columns)
    source, target = target, source
    for step in range(2 * columns - 1):
        bends[step] = (step - columns + 1 + offset[2]) ** 2
    for k in range(0, columns, _LANES):
        first = 4 * min(k, last)
        bend = table + first + 4 * (columns - 1)
        _least_of_lists(depth * rows, bend, -4, source, 4, columns, target + first, 4 * columns, 4 * columns)


@_vectorized
def _minimum(values, size, spare):
    """Return the least of the first ``size`` values; ``values`` has room for 32 more, ``spare`` holds 33."""
    values[size : size + 2 * _LANES] = 3e38  # more than any cost; infinity has no place under fast arithmetic
    spare[2 * _LANES] = 0.0
    out = np.int64(spare.ctypes.data)
    count = -(-size // (2 * _LANES))
    _least_32(np.int64(values.ctypes.data), 8 * _LANES, out + 8 * _LANES, 0, count, out, 0, 0)
    lowest = spare[0]
    for lane in range(1, 2 * _LANES):
        lowest = min(lowest, spare[lane])
    return lowest


@_vectorized
def _message(costs, weight, offset, shape, scratch, bends, message):
    """What a point tells its parent: for each displacement of the parent the least cost of the point's own subtree.

    Returns the least of the point's own weighted costs and the least of the message.
    """
    size = costs.shape[0]
    for label in range(size):
        scratch[label] = costs[label] * weight
    own = _minimum(scratch, size, bends)
    _envelopes(scratch, shape, offset, bends, message)
    return own, _minimum(message, size, bends)


@_vectorized
def _gather(start, stop, parts, nodes, first_child, children, costs, weights, offsets, shape, lowest):
    """Add to each point of ``nodes`` the messages of its children, points before their parents."""
    message = np.zeros(costs.shape[1] + 2 * _LANES, np.float32)
    scratch = np.zeros(costs.shape[1] + 2 * _LANES, np.float32)
    bends = np.zeros(2 * max(shape) + 2 * _LANES, np.float32)
    for part in range(start, stop):
        for position in range(parts[part], parts[part + 1]):
            node = nodes[position]
            own = costs[node]
            for index in range(first_child[node], first_child[node + 1]):
                child = children[index]
                lowest[child], least = _message(
                    costs[child], weights[child], offsets[child], shape, scratch, bends, message
                )
                for label in range(own.shape[0]):
                    own[label] += message[label] - least


@_vectorized
def _best_below(costs, weight, lowest, place, shape):
    """Return the displacement that costs least below a parent whose displacement is ``place`` (steps, z, y, x).

    Starts at the displacement nearest to the parent's, and leaves out rows that bend too far to cost less.
    """
    depth, rows, columns = shape
    z, y, x = place
    c = min(max(round(z), 0), depth - 1)
    b = min(max(round(y), 0), rows - 1)
    a = min(max(round(x), 0), columns - 1)
    chosen = (c * rows + b) * columns + a
    best = costs[chosen] * weight + ((z - c) ** 2 + (y - b) ** 2 + (x - a) ** 2)
    for c in range(depth):
        bend_z = (z - c) ** 2
        if bend_z + lowest >= best:
            continue
        for b in range(rows):
            bend = bend_z + (y - b) ** 2
            if bend + lowest >= best:
                continue
            label = (c * rows + b) * columns
            for a in range(columns):
                value = costs[label + a] * weight + (bend + (x - a) ** 2)
                if value < best:
                    best = value
                    chosen = label + a
    return chosen


@_vectorized
def _choose(order, parents, costs, weights, offsets, shape, lowest, selected):
    """Walk from the root to the leaves and take the displacement that is best given the parent's."""
    rows, columns = shape[1], shape[2]
    selected[order[0]] = np.argmin(costs[order[0]])
    for node in order[1:]:
        above, offset = selected[parents[node]], offsets[node]
        z, y, x = above // (rows * columns), above // columns % rows, above % columns
        place = (
            np.float32(z) + offset[0],
            np.float32(y) + offset[1],
            np.float32(x) + offset[2],
        )
        selected[node] = _best_below(costs[node], weights[node], lowest[node], place, shape)


@_compiled
def _schedule(parents, order, limit, parts, nodes):
    """Divide the tree into independent subtrees of at most ``limit`` points, and the trunk that joins them.

    Returns the number of subtrees. ``nodes[parts[i]:parts[i + 1]]`` is subtree ``i``, all that is below a point right
    before it, so that the costs of its last child are still in the cache; the trunk is the last part.
    """
    size = parents.shape[0]
    weight = np.ones(size, np.int64)
    for position in range(size - 1, 0, -1):
        weight[parents[order[position]]] += weight[order[position]]
    owner = np.empty(size, np.int64)
    count = 0
    for position in range(size):
        node = order[position]
        if weight[node] > limit:
            owner[node] = -1
        elif parents[node] < 0 or owner[parents[node]] < 0:
            owner[node] = count
            count += 1
        else:
            owner[node] = owner[parents[node]]
    parts[: count + 2] = 0
    for node in range(size):
        parts[(owner[node] if owner[node] >= 0 else count) + 1] += 1
    for part in range(count + 1):
        parts[part + 1] += parts[part]
    fill = parts[: count + 1].copy()
    begin = np.zeros(size, np.int64)  # where the points below a point begin; later where its next child's do
    sequence = np.empty(size, np.int64)
    for position in range(size):
        node = order[position]
        if position > 0:
            begin[node] = begin[parents[node]]
            begin[parents[node]] += weight[node]
        sequence[begin[node] + weight[node] - 1] = node
    for node in sequence:
        part = owner[node] if owner[node] >= 0 else count
        nodes[fill[part]] = node
        fill[part] += 1
    return count


def best_displacements(costs: np.ndarray, tree: Tree, offsets: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the displacement index of each point that minimizes the energy of the tree, exactly.

    A point with displacement c below a parent with displacement p costs ``weight * (own + subtree costs) + |p - c +
    offset|^2``: the child's data counts as much as it resembles its parent, differences are in steps of the
    displacement set, and ``offset`` is the difference of the displacements found on the coarser level. Sums are
    exact min-sum belief propagation: messages from the leaves to the root by min-convolution with a parabola, one axis
    after the other, then choices from the root to the leaves.

    Args:
        costs: (points, displacements) float32; overwritten by the summed costs of the subtrees.
        tree: the spanning tree.
        offsets: (points, 3) float32, (parent - child) displacement of the coarser level in steps, (z, y, x).
        shape: number of displacements along (z, y, x).

    """
    size = len(tree.parents)
    children = np.argsort(tree.parents, kind="stable")[1:]
    first_child = np.searchsorted(tree.parents[children], np.arange(size + 1))
    parts, nodes = np.empty(size + 2, np.int64), np.empty(size, np.int64)
    count = _schedule(tree.parents, tree.order, max(size // (16 * threads.thread_count()), 1), parts, nodes)
    offsets = np.ascontiguousarray(offsets, np.float32)
    lowest = np.empty(size, np.float32)
    shared = (parts, nodes, first_child, children, costs, tree.weights, offsets, shape, lowest)
    threads.run(_gather, count, *shared)
    _gather(count, count + 1, *shared)
    selected = np.empty(size, np.int64)
    _choose(tree.order, tree.parents, costs, tree.weights, offsets, shape, lowest, selected)
    return selected
