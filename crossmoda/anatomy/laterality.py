"""Left and right: the midplane of a head, the side of a tumor, mirroring.

Sides are the patient's; in LPS the left side has the larger x.
"""

import dataclasses

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import labels
from crossmoda.volume import Grid, Volume

SIDES = ("left", "right")

#: A structure whose center is nearer to the midplane than this is on neither side, mm. The internal auditory canals
#: lie some 20-30 mm from it.
CENTRAL_MM = 8.0
#: How far a cochlea lies from the midplane, mm.
_COCHLEA_TO_MIDPLANE_MM = 25.0


def other(side: str) -> str:
    """Return the opposite side."""
    return SIDES[1 - SIDES.index(side)]


def lateral_mm(grid: Grid) -> np.ndarray:
    """Return the LPS x of every voxel center, (z, y, x) or broadcastable to it, mm."""
    x, y, z = (np.arange(size, dtype=np.float32) for size in grid.size)
    matrix = grid.index_to_physical[0]
    position: np.ndarray = np.full((1, 1, 1), matrix[3], np.float32)
    for step, index in ((matrix[2], z[:, None, None]), (matrix[1], y[None, :, None]), (matrix[0], x[None, None, :])):
        if abs(step) > 1e-6:
            position = np.asarray(position + np.float32(step) * index)
    return position


def lateral_axis(grid: Grid) -> int:
    """Return the array axis (of z, y, x) that runs most nearly from right to left."""
    return 2 - int(np.abs(np.reshape(grid.direction, (3, 3))[0]).argmax())


def mirrored(volume: Volume) -> Volume:
    """Return the volume with left and right exchanged, on the same grid (reflected at the grid's own midplane)."""
    return volume.with_array(np.ascontiguousarray(np.flip(volume.array, lateral_axis(volume.grid))))


def reflection(grid: Grid) -> sitk.AffineTransform:
    """Return the transform (its own inverse) from the points of a volume on ``grid`` to those of its mirror image."""
    axis = 2 - lateral_axis(grid)
    normal = np.reshape(grid.direction, (3, 3))[:, axis]
    matrix = np.eye(3) - 2 * np.outer(normal, normal)
    middle = (grid.index_to_physical @ [*((np.asarray(grid.size) - 1) / 2), 1.0])[:3]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetTranslation((middle - matrix @ middle).tolist())
    return transform


@dataclasses.dataclass(frozen=True)
class Sides:
    """On which side a label map has which structures."""

    midplane_mm: float
    """LPS x of the midplane"""
    of: dict[int, frozenset[str]]
    """label value -> the sides on which it was drawn; empty where the structure is absent or central"""

    @property
    def tumor(self) -> str | None:
        """The side of the tumor; None where there is none, one on both sides, or one near the midplane."""
        sides = self.of.get(labels.VS, frozenset())
        return next(iter(sides)) if len(sides) == 1 else None


def midplane_of(label_map: Volume) -> float | None:
    """Return the LPS x (mm) half-way between the two cochleae of a label map; None where not both are drawn."""
    return _between(_centers(label_map, labels.COCHLEA))


def middle_of(grid: Grid) -> float:
    """Return the LPS x of the center of a grid, mm."""
    return float((grid.index_to_physical @ [*((np.asarray(grid.size) - 1) / 2), 1.0])[0])


def find_sides(label_map: Volume, midplane_mm: float | None = None) -> Sides:
    """Find the midplane and the sides of each structure of a label map.

    The midplane, if it is not given, is half-way between the cochleae when both are drawn. When there is one cochlea
    and a tumor, the tumor lies on its medial side. Else it is the middle of the grid.
    """
    centers = {structure.value: _centers(label_map, structure.value) for structure in labels.STRUCTURES}
    between = _between(centers[labels.COCHLEA])
    cochlear_side: frozenset[str] = frozenset()
    if between is None and centers[labels.COCHLEA] and centers[labels.VS]:
        cochlea, tumor = (_middle(centers[value]) for value in (labels.COCHLEA, labels.VS))
        between = cochlea - np.sign(cochlea - tumor) * _COCHLEA_TO_MIDPLANE_MM
        cochlear_side = frozenset({SIDES[0] if cochlea > tumor else SIDES[1]})
    if midplane_mm is None:
        midplane_mm = middle_of(label_map.grid) if between is None else float(between)
    of = {}
    for value, found in centers.items():
        lateral = [(x - midplane_mm, size) for x, size in found if abs(x - midplane_mm) >= CENTRAL_MM]
        drawn = {side: sum(size for x, size in lateral if (x > 0) == (side == "left")) for side in SIDES}
        of[value] = frozenset(side for side in SIDES if drawn[side] > 0.1 * sum(size for _, size in found))
    of[labels.VS] = of[labels.VS] or cochlear_side  # a large tumor reaches the midplane, 16% of those in VS-SEG
    return Sides(midplane_mm, of)


def _middle(centers: list[tuple[float, int]]) -> float:
    return float(np.average([x for x, _ in centers], weights=[size for _, size in centers]))


def _between(centers: list[tuple[float, int]]) -> float | None:
    """Return the position half-way between two groups of components (LPS x, voxels) at least 30 mm apart, or None."""
    if len(centers) < 2:
        return None
    x = np.array([position for position, _ in centers])
    size = np.array([count for _, count in centers], float)
    left = x > (x.min() + x.max()) / 2
    if x.max() - x.min() < 30.0 or min(size[left].sum(), size[~left].sum()) < 0.1 * size.sum():
        return None
    return float((np.average(x[left], weights=size[left]) + np.average(x[~left], weights=size[~left])) / 2)


def _centers(label_map: Volume, value: int) -> list[tuple[float, int]]:
    """Return the LPS x (mm) and the voxel count of each connected component of a structure."""
    found = ndimage.find_objects((label_map.array == value).view(np.uint8))
    if not found or found[0] is None:
        return []
    box = found[0]
    components, count = ndimage.label(label_map.array[box] == value, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    corner = np.array([part.start for part in box])
    matrix = label_map.grid.index_to_physical
    middles = ndimage.center_of_mass(components > 0, components, range(1, count + 1))
    return [
        (float((matrix @ [*(np.asarray(middle) + corner)[::-1], 1.0])[0]), int(size))
        for middle, size in zip(middles, sizes, strict=True)
    ]
