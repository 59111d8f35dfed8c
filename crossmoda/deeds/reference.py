"""The data cost as the papers state it, in plain numba: what the backends are compared with.

M. P. Heinrich, M. Jenkinson, M. Brady, J. A. Schnabel: MRF-Based Deformable Registration and Ventilation Estimation of
Lung CT. IEEE TMI 2013.
"""

import numba
import numpy as np

from crossmoda.deeds.cost import displacements

_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def _popcount(word):
    """Return the number of bits set: sums of neighboring bits, pairs, nibbles and bytes."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@_compiled
def _sum_distances(fixed, moving, mask, block, skip, shifts, costs):
    """Write the sum of Hamming distances over each block of ``fixed``, for each of the ``shifts`` (voxels)."""
    depth, height, width = fixed.shape
    costs[:] = 0
    for label in range(shifts.shape[0]):
        for z in range(depth):
            for y in range(height):
                if z % block[0] % skip[0] or y % block[1] % skip[1]:
                    continue
                moving_z = min(max(z + shifts[label, 0], 0), depth - 1)
                moving_y = min(max(y + shifts[label, 1], 0), height - 1)
                for x in range(width):
                    if mask[z, y, x]:
                        moving_x = min(max(x + shifts[label, 2], 0), width - 1)
                        bits = _popcount(fixed[z, y, x] ^ moving[moving_z, moving_y, moving_x])
                        costs[z // block[0], y // block[1], x // block[2], label] += bits


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
) -> np.ndarray:
    """Return the mean Hamming distance of each block of ``fixed`` to ``moving`` under each displacement.

    Blocks tile the image from its first voxel; the last ones may reach beyond it. Beyond the border of ``moving``, its
    nearest voxel is compared.

    Args:
        fixed: packed MIND-SSC codes (z, y, x) uint64 of the image that is divided into blocks.
        moving: packed codes of the image that is displaced, on the same grid.
        block: size of a block, which is the distance of control points, voxels (z, y, x).
        radius: displacements on each side of zero, steps (z, y, x).
        quantization: voxels per step (z, y, x).
        skip: every n-th voxel of a block is compared along z and y; along x all are.
        scale: factor on the mean distance.
        mask: voxels of ``fixed`` that are compared, bool (z, y, x); None for all. The mean is over the full block, so
            that blocks with few such voxels have little weight.

    Returns:
        Costs, float32, of shape (blocks z, blocks y, blocks x, displacements); displacements in C order of (z, y, x).

    """
    counts = [-(-size // step) for size, step in zip(fixed.shape, block, strict=True)]
    shifts = displacements(radius, quantization).astype(np.int64)
    costs = np.empty((*counts, len(shifts)), np.float32)
    inside = np.ones(fixed.shape, bool) if mask is None else mask
    _sum_distances(fixed, moving, inside, block, skip, shifts, costs)
    samples = -(-block[0] // skip[0]) * -(-block[1] // skip[1]) * block[2]
    return costs * np.float32(scale / samples)
