"""The dense set of displacements, and the best displacement of each control point by the data cost alone."""

from collections.abc import Sequence

import numba
import numpy as np

from crossmoda.deeds.backend_cpu import threads

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, boundscheck=False)


def displacements(radius: Sequence[int], quantization: Sequence[float]) -> np.ndarray:
    """Return the dense set of displacements (number, 3), components (z, y, x), in the order of the costs."""
    steps = [np.arange(-count, count + 1) * size for count, size in zip(radius, quantization, strict=True)]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)


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
