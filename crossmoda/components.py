"""Which connected components of a segmentation are anatomically plausible."""

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.geometry import Grid

#: The cochleae lie this far apart from side to side, mm, with ample room for small and large heads.
COCHLEAR_DISTANCE_MM = (30.0, 120.0)
#: How far the second cochlea may lie before, behind, above or below the first, mm: heads are tilted.
_TILT_MM = 30.0
#: Smaller groups of voxels are no structure, mm3.
_SMALLEST_MM3 = 3.0


def plausible(label_map: np.ndarray, probabilities: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the label map with one schwannoma at most and two cochleae at most, on different sides.

    Of several candidates the one with the largest sum of probabilities is kept. The second cochlea is the best of those
    that lie as far from the first, from side to side, as cochleae do.

    Args:
        label_map: (z, y, x).
        probabilities: (label, z, y, x), background first.
        grid: where the voxels lie.

    """
    kept = np.zeros_like(label_map)
    for structure in labels.STRUCTURES:
        components, mass, centre = _candidates(label_map == structure.value, probabilities[structure.value], grid)
        chosen = _pair(mass, centre) if structure.value == labels.COCHLEA else list(np.argsort(-mass)[:1])
        for index in chosen:
            kept[components == index + 1] = structure.value
    return kept


def _candidates(mask: np.ndarray, probability: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbered components, the sum of probabilities of each (0 if it is too small), and its centre in LPS mm."""
    components, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return components, np.zeros(0), np.zeros((0, 3))
    indices = np.arange(1, count + 1)
    flat = components.ravel()
    sizes = np.bincount(flat, minlength=count + 1)[1:]
    mass = np.bincount(flat, weights=probability.ravel(), minlength=count + 1)[1:]
    mass[sizes * grid.voxel_volume_mm3 < _SMALLEST_MM3] = 0
    middles = np.array(ndimage.center_of_mass(mask, components, indices))[:, ::-1]
    matrix = grid.index_to_physical
    order = mass > 0
    renumber = np.concatenate([[0], np.where(order, np.cumsum(order), 0)])
    return renumber[components], mass[order], (middles @ matrix[:3, :3].T + matrix[:3, 3])[order]


def _pair(mass: np.ndarray, centre: np.ndarray) -> list[int]:
    """Return the indices of the best cochlea and of its best counterpart."""
    if len(mass) == 0:
        return []
    best = int(mass.argmax())
    apart = np.abs(centre - centre[best])
    near, far = COCHLEAR_DISTANCE_MM
    matches = (apart[:, 0] >= near) & (apart[:, 0] <= far) & (apart[:, 1:].max(axis=1) <= _TILT_MM)
    if not matches.any():
        return [best]
    return [best, int(np.argmax(np.where(matches, mass, -1)))]
