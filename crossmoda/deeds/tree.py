"""The minimum spanning tree of the control points, and the exact best displacements on it."""

import heapq
from typing import NamedTuple

import numpy as np

from crossmoda import threads
from crossmoda.jit_cache import compiled

_compiled = compiled(nogil=True, boundscheck=False)
_vectorized = compiled(nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)


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

    The values of the last block along an axis, which has no next block, are undefined.
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
                neighbor = node + steps[axis] if side else node - steps[axis]
                if done[neighbor]:
                    continue
                first = min(node, neighbor)
                cost = bits[axis, first // (height * width), first // width % height, first % width]
                if cost < nearest[neighbor] or parents[neighbor] < 0:
                    nearest[neighbor], parents[neighbor] = cost, node
                    heapq.heappush(heap, np.int64(cost) << 32 | neighbor)
                elif cost == nearest[neighbor]:
                    parents[neighbor] = min(parents[neighbor], node)
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


@_vectorized
def _least(first, second):
    """Return the lesser of two numbers: ``min`` stores on a condition, which LLVM does not vectorize well."""
    return -max(-first, -second)


@_vectorized
def _convolve(costs, places, offset, lowest, minima):
    """Min-convolution of ``costs`` with a parabola along the first of its axes, which becomes the last of ``minima``.

    minima[..., p] = min over c of costs[c, ...] + (p - c + offset)^2 for the ``places`` p and c along the axis: the
    lower envelope of P. F. Felzenszwalb and D. P. Huttenlocher (Distance Transforms of Sampled Functions, 2012), by
    direct search since there are few places.
    """
    rows = costs.reshape(places, -1)
    columns = minima.reshape(-1, places)
    size = rows.shape[1]
    for p in range(places):
        bend = np.float32((p + offset) ** 2)
        for k in range(size):
            lowest[k] = rows[0, k] + bend
        for c in range(1, places):
            bend = np.float32((p - c + offset) ** 2)
            for k in range(size):
                lowest[k] = _least(lowest[k], rows[c, k] + bend)
        for k in range(size):
            columns[k, p] = lowest[k]


@_vectorized
def _message(costs, weight, offset, shape, weighted, message):
    """Write the message of a point to its parent: the least cost of its subtree for each displacement of the parent.

    Returns the least of the point's own weighted costs and the least of the message.
    """
    lowest = np.empty(costs.shape[0], np.float32)
    own = costs[0] * weight
    for label in range(costs.shape[0]):
        value = costs[label] * weight
        weighted[label] = value
        own = _least(own, value)
    _convolve(weighted, shape[0], offset[0], lowest, message)
    _convolve(message, shape[1], offset[1], lowest, weighted)
    _convolve(weighted, shape[2], offset[2], lowest, message)
    least = message[0]
    for label in range(costs.shape[0]):
        least = _least(least, message[label])
    return own, least


@_vectorized
def _gather(start, stop, parts, nodes, first_child, children, costs, weights, offsets, shape, lowest):
    """Add to each point of ``nodes`` the messages of its children, points before their parents."""
    weighted, message = np.empty(costs.shape[1], np.float32), np.empty(costs.shape[1], np.float32)
    for part in range(start, stop):
        for position in range(parts[part], parts[part + 1]):
            node = nodes[position]
            own = costs[node]
            for index in range(first_child[node], first_child[node + 1]):
                child = children[index]
                lowest[child], least = _message(costs[child], weights[child], offsets[child], shape, weighted, message)
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
    """Walk from the root to the leaves and choose the best displacement for that of the parent."""
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
    offset|^2``: costs of a child are weighted by its similarity to the parent, differences are in steps of the
    displacement set, and ``offset`` is the difference of the displacements of the coarser level. Exact min-sum belief
    propagation (Heinrich et al., IEEE TMI 2013): messages from the leaves to the root by min-convolution with a
    parabola, separably along the axes, then choices from the root to the leaves.

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
