"""Which connected components of a segmentation are anatomically plausible."""

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.volume.geometry import Grid

#: The cochleae lie this far apart from side to side, mm, with ample room for small and large heads.
COCHLEAR_DISTANCE_MM = (30.0, 120.0)
#: A schwannoma comes at least this near to the middle of the cochlea beside it, mm. In the 79 patients of VS-SEG with
#: both structures drawn, the nearest voxel was 1.4 to 10.7 mm away, median 4.2.
BESIDE_MM = 15.0
#: How far the second cochlea may lie before, behind, above or below the first, mm: heads are tilted.
_TILT_MM = 30.0
#: Smaller groups of voxels are no structure, mm3.
_SMALLEST_MM3 = 3.0


def plausible(label_map: np.ndarray, probabilities: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the label map with one schwannoma at most, without holes, and two cochleae at most, on different sides.

    Of several candidates the one with the largest sum of probabilities is kept. The second cochlea is the best of those
    that lie as far from the first, from side to side, as cochleae do; a schwannoma beside a cochlea goes before one
    that lies elsewhere.

    Args:
        label_map: (z, y, x).
        probabilities: (label, z, y, x), background first.
        grid: where the voxels lie.

    """
    kept = np.zeros_like(label_map)
    components, mass, points = _candidates(label_map == labels.COCHLEA, probabilities[labels.COCHLEA], grid)
    centers = np.array([part.mean(axis=0) for part in points]).reshape(-1, 3)
    cochleae = _pair(mass, centers)
    for index in cochleae:
        kept[components == index + 1] = labels.COCHLEA
    components, mass, points = _candidates(label_map == labels.VS, probabilities[labels.VS], grid)
    beside = np.array([_beside(part, centers[cochleae]) for part in points], bool)
    if len(mass):
        best = int(np.argmax(np.where(beside, mass, -1) if beside.any() else mass))
        kept[solid(components == best + 1) & (kept == 0)] = labels.VS
    return kept


def solid(mask: np.ndarray) -> np.ndarray:
    """Return the mask with what it encloses: a tumor's cysts and its unsure middle are counted with it."""
    filled = mask.copy()
    for box in ndimage.find_objects(mask.view(np.uint8)):
        filled[box] = ndimage.binary_fill_holes(mask[box])
    return filled


def beside_a_cochlea(label_map: np.ndarray, grid: Grid) -> bool:
    """Whether the schwannoma of a label map (z, y, x) comes as near to a cochlea of it as schwannomas do."""
    evenly = np.ones(label_map.shape, np.float32)
    tumors, cochleae = (_candidates(label_map == value, evenly, grid)[2] for value in (labels.VS, labels.COCHLEA))
    centers = np.array([part.mean(axis=0) for part in cochleae]).reshape(-1, 3)
    return any(_beside(part, centers) for part in tumors)


def _beside(points: np.ndarray, cochleae: np.ndarray) -> bool:
    """Whether any point comes as near to the middle of a cochlea as schwannomas do."""
    return any((((points - center) ** 2).sum(axis=1) <= BESIDE_MM**2).any() for center in cochleae)


def _candidates(
    mask: np.ndarray, probability: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the components that are large enough, numbered from 1, the sum of probabilities and the points of each.

    Points are the voxel centers, (n, 3), LPS, mm.
    """
    components, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    voxels = np.argwhere(mask)
    number = components[mask]
    sizes = np.bincount(number, minlength=1)
    wanted = np.flatnonzero(sizes * grid.voxel_volume_mm3 >= _SMALLEST_MM3)
    wanted = wanted[wanted > 0]
    renumber = np.zeros(len(sizes), components.dtype)
    renumber[wanted] = np.arange(1, len(wanted) + 1)
    mass = np.bincount(number, weights=probability[mask], minlength=len(sizes))[wanted]
    matrix = grid.index_to_physical
    points = [voxels[number == index][:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3] for index in wanted]
    return renumber[components], mass, points


def _pair(mass: np.ndarray, center: np.ndarray) -> list[int]:
    """Return the indices of the best cochlea and of its best counterpart."""
    if len(mass) == 0:
        return []
    best = int(mass.argmax())
    apart = np.abs(center - center[best])
    near, far = COCHLEAR_DISTANCE_MM
    matches = (apart[:, 0] >= near) & (apart[:, 0] <= far) & (apart[:, 1:].max(axis=1) <= _TILT_MM)
    if not matches.any():
        return [best]
    return [best, int(np.argmax(np.where(matches, mass, -1)))]
