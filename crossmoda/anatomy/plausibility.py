"""Anatomical plausibility of the connected components of a segmentation."""

import numpy as np

from crossmoda import labels
from crossmoda.volume.grid import Grid
from crossmoda.volume.masks import bounding_box, components, solid

#: The cochleae lie this far apart from side to side, mm, with ample room for small and large heads.
COCHLEAR_DISTANCE_MM = (30.0, 120.0)
#: Largest distance of a schwannoma from the center of the cochlea next to it, mm. In the 79 patients of VS-SEG with
#: both structures drawn, the nearest voxel was 1.4 to 10.7 mm away, median 4.2.
BESIDE_MM = 15.0
#: Largest distance between the cochleae from front to back and from top to bottom, mm: heads are tilted.
_TILT_MM = 30.0
#: Components smaller than this are not a structure, mm3.
_SMALLEST_MM3 = 3.0


def plausible(label_map: np.ndarray, probabilities: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the label map with at most one schwannoma, without holes, and at most two cochleae, on different sides.

    The candidate with the largest sum of probabilities is kept. The second cochlea is the best candidate at a
    plausible distance from the first; a schwannoma next to a cochlea takes precedence over any other.

    Args:
        label_map: (z, y, x).
        probabilities: (label, z, y, x), background first.
        grid: the grid of the label map.

    """
    result = np.zeros_like(label_map)
    numbers, mass, points = _candidates(label_map == labels.COCHLEA, probabilities[labels.COCHLEA], grid)
    centers = np.array([part.mean(axis=0) for part in points]).reshape(-1, 3)
    cochleae = _pair(mass, centers)
    for index in cochleae:
        result[numbers == index + 1] = labels.COCHLEA
    numbers, mass, points = _candidates(label_map == labels.VS, probabilities[labels.VS], grid)
    is_beside = np.array([_is_beside(part, centers[cochleae]) for part in points], bool)
    if len(mass):
        best = int(np.argmax(np.where(is_beside, mass, -1) if is_beside.any() else mass))
        result[solid(numbers == best + 1) & (result == 0)] = labels.VS
    return result


def beside_a_cochlea(label_map: np.ndarray, grid: Grid) -> bool:
    """Return whether the schwannoma of a label map (z, y, x) lies within :data:`BESIDE_MM` of one of its cochleae."""
    box = bounding_box(label_map > 0)
    label_map, grid = label_map[box], grid.crop(box)
    uniform = np.ones(label_map.shape, np.float32)
    tumors, cochleae = (_candidates(label_map == value, uniform, grid)[2] for value in (labels.VS, labels.COCHLEA))
    centers = np.array([part.mean(axis=0) for part in cochleae]).reshape(-1, 3)
    return any(_is_beside(part, centers) for part in tumors)


def _is_beside(points: np.ndarray, cochleae: np.ndarray) -> bool:
    """Return whether any point (n, 3) lies within :data:`BESIDE_MM` of a center of a cochlea (n, 3), LPS mm."""
    return any((((points - center) ** 2).sum(axis=1) <= BESIDE_MM**2).any() for center in cochleae)


def _candidates(
    mask: np.ndarray, probability: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the components that are large enough, numbered from 1, the sum of probabilities and the points of each.

    Points are the voxel centers, (n, 3), LPS mm.
    """
    all_numbers, _ = components(mask)
    number_of_point = all_numbers[mask]
    sizes = np.bincount(number_of_point, minlength=1)
    large = np.flatnonzero(sizes * grid.voxel_volume_mm3 >= _SMALLEST_MM3)
    large = large[large > 0]
    renumber = np.zeros(len(sizes), all_numbers.dtype)
    renumber[large] = np.arange(1, len(large) + 1)
    mass = np.bincount(number_of_point, weights=probability[mask], minlength=len(sizes))[large]
    all_points = grid.points(mask)
    return renumber[all_numbers], mass, [all_points[number_of_point == number] for number in large]


def _pair(mass: np.ndarray, centers: np.ndarray) -> list[int]:
    """Return the indices of the best cochlea and of its best counterpart."""
    if len(mass) == 0:
        return []
    best = int(mass.argmax())
    distance_mm = np.abs(centers - centers[best])
    nearest, farthest = COCHLEAR_DISTANCE_MM
    matches = (distance_mm[:, 0] >= nearest) & (distance_mm[:, 0] <= farthest)
    matches &= distance_mm[:, 1:].max(axis=1) <= _TILT_MM
    if not matches.any():
        return [best]
    return [best, int(np.argmax(np.where(matches, mass, -1)))]
