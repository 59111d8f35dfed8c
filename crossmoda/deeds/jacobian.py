"""The determinant of the Jacobian of displacements, compiled."""

import numpy as np

from crossmoda import threads
from crossmoda.jit_cache import compiled


@compiled(nogil=True, fastmath={"contract", "nsz"}, boundscheck=False)
def _determinants(start, stop, displacement, to_axes, out):
    """Write the determinants of the rows of cells from ``start`` to ``stop``."""
    rows, columns = out.shape[1:]
    change = np.empty((3, 3), np.float32)
    for item in range(start, stop):
        z, y = item // rows, item % rows
        for x in range(columns):
            for k in range(3):
                a, b = displacement[z, y, x, k], displacement[z, y, x + 1, k]
                c, d = displacement[z, y + 1, x, k], displacement[z, y + 1, x + 1, k]
                e, f = displacement[z + 1, y, x, k], displacement[z + 1, y, x + 1, k]
                g, h = displacement[z + 1, y + 1, x, k], displacement[z + 1, y + 1, x + 1, k]
                along_x = ((b - a) + (d - c)) + ((f - e) + (h - g))
                along_y = ((c - a) + (d - b)) + ((g - e) + (h - f))
                along_z = ((e - a) + (f - b)) + ((g - c) + (h - d))
                for m in range(3):
                    change[k, m] = along_x * to_axes[0, m] + along_y * to_axes[1, m] + along_z * to_axes[2, m]
                change[k, k] += np.float32(1)
            out[z, y, x] = (
                change[0, 0] * (change[1, 1] * change[2, 2] - change[1, 2] * change[2, 1])
                - change[0, 1] * (change[1, 0] * change[2, 2] - change[1, 2] * change[2, 0])
                + change[0, 2] * (change[1, 0] * change[2, 1] - change[1, 1] * change[2, 0])
            )


def determinants(displacement: np.ndarray, spacing: tuple[float, ...], direction: tuple[float, ...]) -> np.ndarray:
    """Return the local change of volume of each cell between eight neighboring points.

    Args:
        displacement: (z, y, x, 3) float32, LPS mm, at the points of a grid.
        spacing: of the grid (x, y, z), mm.
        direction: of the grid, nine numbers as in ITK.

    Returns:
        (z - 1, y - 1, x - 1) float32, at the centers of the cells: 1 where volumes stay, negative where they fold.

    """
    inverse = np.linalg.inv(np.reshape(direction, (3, 3)))
    to_axes = (inverse / (4 * np.asarray(spacing))[:, None]).astype(np.float32)
    out = np.empty(tuple(count - 1 for count in displacement.shape[:3]), np.float32)
    threads.run(_determinants, out.shape[0] * out.shape[1], displacement, to_axes, out)
    return out
