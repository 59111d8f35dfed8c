"""The minimum spanning tree of the control points, and the exact best displacements on it."""

import heapq
from typing import NamedTuple

import numba
import numpy as np

from crossmoda.deeds import threads

_compiled = numba.njit(cache=True, nogil=True, boundscheck=False)
_vectorised = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "ninf"}, boundscheck=False)


class Tree(NamedTuple):
    """A rooted spanning tree of ``n`` control points."""

    parents: np.ndarray
    """the parent of each point (n,) int64; the root's is -1"""
    weights: np.ndarray
    """the similarity of each point to its parent, in (0, 1] (n,) float32; the root's is 1"""
    order: np.ndarray
    """all points, parents before their children (n,) int64"""


@_vectorised
def _edges(start, stop, image, block, differences):
    """Mean absolute difference of each block to its next neighbour along z, y and x."""
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
    """Grow the tree from the root, always by the cheapest edge that leaves it (R. C. Prim, 1957)."""
    _, depth, height, width = differences.shape
    size = depth * height * width
    done = np.zeros(size, np.bool_)
    parents[:] = -1
    heap = [(np.float32(0), root, np.int64(-1))]
    grown = 0
    while grown < size:
        cost, node, parent = heapq.heappop(heap)
        if done[node]:
            continue
        done[node] = True
        parents[node], costs[node], order[grown] = parent, cost, node
        grown += 1
        z, y, x = node // (height * width), node // width % height, node % width
        if z > 0 and not done[node - height * width]:
            heapq.heappush(heap, (differences[0, z - 1, y, x], node - height * width, node))
        if z < depth - 1 and not done[node + height * width]:
            heapq.heappush(heap, (differences[0, z, y, x], node + height * width, node))
        if y > 0 and not done[node - width]:
            heapq.heappush(heap, (differences[1, z, y - 1, x], node - width, node))
        if y < height - 1 and not done[node + width]:
            heapq.heappush(heap, (differences[1, z, y, x], node + width, node))
        if x > 0 and not done[node - 1]:
            heapq.heappush(heap, (differences[2, z, y, x - 1], node - 1, node))
        if x < width - 1 and not done[node + 1]:
            heapq.heappush(heap, (differences[2, z, y, x], node + 1, node))


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


@_vectorised
def _minimum_along(values, count, rest, offset, out):
    """Lower envelope along the first axis of (count, rest): out[i] = min over j of values[j] + (i - j + offset)^2."""
    for i in range(count):
        target = out[i * rest : (i + 1) * rest]
        bend = (i + offset) * (i + offset)
        for k in range(rest):
            target[k] = values[k] + bend
        for j in range(1, count):
            bend = (i - j + offset) * (i - j + offset)
            source = values[j * rest : (j + 1) * rest]
            for k in range(rest):
                target[k] = min(target[k], source[k] + bend)


@_vectorised
def _turn(values, count, rest, out):
    """Transpose (count, rest), so that the next axis comes first."""
    for j in range(rest):
        for i in range(count):
            out[j * count + i] = values[i * rest + j]


@_vectorised
def _message(costs, weight, offset, shape, message, scratch):
    """What a point tells its parent: for each displacement of the parent the least cost of the point's own subtree."""
    size = costs.shape[0]
    for label in range(size):
        scratch[label] = costs[label] * weight
    for axis in range(3):
        count = shape[axis]
        _minimum_along(scratch, count, size // count, offset[axis], message)
        _turn(message, count, size // count, scratch)
    lowest = scratch[0]
    for label in range(size):
        lowest = min(lowest, scratch[label])
    for label in range(size):
        message[label] = scratch[label] - lowest


@_vectorised
def _gather(start, stop, parts, nodes, first_child, children, costs, weights, offsets, shape):
    """Add to each point of ``nodes`` the messages of its children, points before their parents."""
    message = np.empty(costs.shape[1], np.float32)
    scratch = np.empty(costs.shape[1], np.float32)
    for part in range(start, stop):
        for position in range(parts[part], parts[part + 1]):
            node = nodes[position]
            own = costs[node]
            for index in range(first_child[node], first_child[node + 1]):
                child = children[index]
                _message(costs[child], weights[child], offsets[child], shape, message, scratch)
                for label in range(own.shape[0]):
                    own[label] += message[label]


@_vectorised
def _choose(order, parents, costs, weights, offsets, shape, selected):
    """Walk from the root to the leaves and take the displacement that is best given the parent's."""
    rows, columns = shape[1], shape[2]
    for node in order:
        own = costs[node]
        parent = parents[node]
        best = np.float32(np.inf)
        chosen = 0
        z, y, x = 0, 0, 0
        if parent >= 0:
            z, y, x = (
                selected[parent] // (rows * columns),
                selected[parent] // columns % rows,
                selected[parent] % columns,
            )
        for c in range(shape[0]):
            for b in range(shape[1]):
                bend = np.float32(0)
                if parent >= 0:
                    bend = (z - c + offsets[node, 0]) ** 2 + (y - b + offsets[node, 1]) ** 2
                for a in range(shape[2]):
                    label = (c * rows + b) * columns + a
                    value = own[label]
                    if parent >= 0:
                        value = value * weights[node] + bend + (x - a + offsets[node, 2]) ** 2
                    if value < best:
                        best = value
                        chosen = label
        selected[node] = chosen


@_compiled
def _schedule(parents, order, limit, parts, nodes):
    """Divide the tree into independent subtrees of at most ``limit`` points, and the trunk that joins them.

    Returns the number of subtrees. ``nodes[parts[i]:parts[i + 1]]`` is subtree ``i``, children before parents; the
    trunk is the last part.
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
    for position in range(size - 1, -1, -1):
        node = order[position]
        part = owner[node] if owner[node] >= 0 else count
        nodes[fill[part]] = node
        fill[part] += 1
    return count


def best_displacements(costs: np.ndarray, tree: Tree, offsets: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the displacement index of each point that minimises the energy of the tree, exactly.

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
    steps = np.array(shape)
    offsets = np.ascontiguousarray(offsets, np.float32)
    shared = (parts, nodes, first_child, children, costs, tree.weights, offsets, steps)
    threads.run(_gather, count, *shared)
    _gather(count, count + 1, *shared)
    selected = np.empty(size, np.int64)
    _choose(tree.order, tree.parents, costs, tree.weights, offsets, steps, selected)
    return selected
