"""The dense set of displacements, and the best displacement of each control point by the data cost alone."""

from collections.abc import Sequence

import numba
import numpy as np

from crossmoda.deeds.backend_cpu import threads

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, boundscheck=False)


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
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    near_z, near_y = min(max(z + dz, 0), depth - 1), min(max(y + dy, 0), height - 1)
                    near_x = min(max(x + dx, 0), width - 1)
                    weight = np.float32(0.5 ** (3 + abs(dz) + abs(dy) + abs(dx)))
                    for label in range(labels):
                        smooth[label] += weight * costs[near_z, near_y, near_x, label]
        best[z, y, x] = np.argmin(smooth)
        lowest[z, y, x] = smooth[best[z, y, x]]


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
