"""Left and right: the midplane of a head, the side of a tumor, mirror images.

Sides are the patient's; in LPS the left side has the larger x.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import labels
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box, components

if TYPE_CHECKING:
    from crossmoda.anatomy.ear_frame import EarFrame, EarFrames

SIDES = ("left", "right")
UNKNOWN_SIDE = "unknown"

#: Without a cochlea the midplane is a guess: a structure whose center is nearer to it than this is on neither side, mm.
#: (With one, 5 of 32 tumors of VS-SEG are nearer, all of them large.)
CENTRAL_MM = 8.0
#: Distance of a cochlea from the midplane, and minimum distance of both cochleae, mm.
_COCHLEA_TO_MIDPLANE_MM, _BETWEEN_COCHLEAE_MM = 25.0, 30.0
#: Components with a smaller fraction of a structure's voxels do not count.
_SPECKLE = 0.1
#: What lies within this distance of a cochlea belongs to its ear; the cochleae are 65 to 80 mm apart.
_SAME_EAR_MM = 35.0


def contralateral(side: str) -> str:
    """Return the contralateral side."""
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
    return 2 - int(np.abs(grid.axes[0]).argmax())


def mirrored(volume: Volume) -> Volume:
    """Return the volume with left and right exchanged, on the same grid (reflected at the grid's own midplane)."""
    return volume.with_array(np.ascontiguousarray(np.flip(volume.array, lateral_axis(volume.grid))))


def reflection(grid: Grid) -> sitk.AffineTransform:
    """Return the transform (its own inverse) from the points of a volume on ``grid`` to those of its mirror image."""
    axis = 2 - lateral_axis(grid)
    normal = grid.axes[:, axis]
    matrix = np.eye(3) - 2 * np.outer(normal, normal)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetTranslation((grid.center - matrix @ grid.center).tolist())
    return transform


@dataclasses.dataclass(frozen=True)
class Sides:
    """The sides of the structures of a label map."""

    midplane_mm: float
    """LPS x of the midplane"""
    of: dict[int, frozenset[str]]
    """label value -> its sides; empty where the structure is absent or central"""

    @property
    def tumor(self) -> str | None:
        """The tumor side; None without a tumor, with a central one, and with one on each side."""
        sides = self.of.get(labels.VS, frozenset())
        return next(iter(sides)) if len(sides) == 1 else None


def midplane_of(label_map: Volume) -> float | None:
    """Return the LPS x (mm) midway between the two cochleae of a label map; None where one is not labeled."""
    return _between(_centers(label_map, labels.COCHLEA))


def find_sides(label_map: Volume, middle_mm: float | None = None) -> Sides:
    """Return the midplane and the sides of each structure of a label map.

    The midplane lies midway between the cochleae where both are labeled. With one cochlea and a tumor, the
    tumor is medial of the cochlea. With no cochlea the midplane is at ``middle_mm`` (LPS x; None: the center of the
    grid), and structures near it are central.
    """
    centers = {structure.value: _centers(label_map, structure.value) for structure in labels.STRUCTURES}
    between = _between(centers[labels.COCHLEA])
    if between is None and centers[labels.COCHLEA] and centers[labels.VS]:
        cochlea, tumor = (_mean(centers[value]) for value in (labels.COCHLEA, labels.VS))
        between = cochlea - np.sign(cochlea - tumor) * _COCHLEA_TO_MIDPLANE_MM
    central_mm = CENTRAL_MM if between is None else 0.0
    middle_mm = float(label_map.grid.center[0]) if middle_mm is None else middle_mm
    midplane_mm = middle_mm if between is None else float(between)
    of = {}
    for value, parts in centers.items():
        lateral = [(x - midplane_mm, size) for x, size in parts if abs(x - midplane_mm) >= central_mm]
        voxels = {side: sum(size for x, size in lateral if (x > 0) == (side == "left")) for side in SIDES}
        of[value] = frozenset(side for side in SIDES if voxels[side] > _SPECKLE * sum(size for _, size in parts))
    return Sides(midplane_mm, of)


def tumor_side(label_map: Volume) -> str | None:
    """Return the patient's side of the tumor, ``"left"`` or ``"right"``; see :attr:`Sides.tumor` for None."""
    return find_sides(label_map).tumor


def by_side(
    label_map: Volume, value: int, frames: "EarFrames | None" = None, middle_mm: float | None = None
) -> dict[str, Volume]:
    """Return the mask (bool) of a structure on each side on which it has voxels: left, right, unknown.

    A connected piece belongs to the nearer ear of the scan's ear frames; without them, to the side of the midplane on
    which its center lies. Without frames and cochleae, the midplane is at ``middle_mm`` (LPS x; None: the center of the
    grid), and the side of a piece near it is unknown.
    """
    mask = label_map.array == value
    if not mask.any():
        return {}
    box = bounding_box(mask)
    numbers, count = components(mask[box])
    grid = label_map.grid.crop(box)
    centers = ndimage.center_of_mass(mask[box], numbers, range(1, count + 1))
    ears = frames.accepted if frames is not None else []
    midplane_mm, central_mm = _midplane(label_map, middle_mm) if len(ears) < 2 else (0.0, 0.0)
    sides = np.array(["", *(_side_of(grid.to_lps(center[::-1]), ears, midplane_mm, central_mm) for center in centers)])
    masks = {}
    for side in (*SIDES, UNKNOWN_SIDE):
        if (sides == side).any():
            own = np.zeros(mask.shape, bool)
            own[box] = (sides == side)[numbers]
            masks[side] = label_map.with_array(own)
    return masks


def _midplane(label_map: Volume, middle_mm: float | None) -> tuple[float, float]:
    """Return the LPS x of the midplane, and the distance from it below which a side is unknown, mm."""
    midplane_mm = midplane_of(label_map)
    if midplane_mm is not None:
        return midplane_mm, 0.0
    is_guess = not (label_map.array == labels.COCHLEA).any()
    return find_sides(label_map, middle_mm).midplane_mm, CENTRAL_MM if is_guess else 0.0


def _side_of(center: np.ndarray, ears: "Sequence[EarFrame]", midplane_mm: float, central_mm: float) -> str:
    """Return the side of a piece by its center, LPS mm."""
    distances = {ear.side: float(np.linalg.norm(ear.cochlea - center)) for ear in ears}
    nearest = min(distances, key=distances.__getitem__, default=None)
    if nearest is not None and (len(ears) == 2 or distances[nearest] < _SAME_EAR_MM):
        return nearest
    if abs(center[0] - midplane_mm) < central_mm:
        return UNKNOWN_SIDE
    return "left" if center[0] > midplane_mm else "right"


def _mean(centers: list[tuple[float, int]]) -> float:
    return float(np.average([x for x, _ in centers], weights=[size for _, size in centers]))


def _between(centers: list[tuple[float, int]]) -> float | None:
    """Return the LPS x midway between two groups of components (LPS x, voxels), or None where there is one group."""
    if len(centers) < 2:
        return None
    x = np.array([position for position, _ in centers])
    size = np.array([count for _, count in centers], float)
    left = x > (x.min() + x.max()) / 2
    is_one_side = min(size[left].sum(), size[~left].sum()) < _SPECKLE * size.sum()
    if is_one_side or x.max() - x.min() < _BETWEEN_COCHLEAE_MM:
        return None
    return float((np.average(x[left], weights=size[left]) + np.average(x[~left], weights=size[~left])) / 2)


def _centers(label_map: Volume, value: int) -> list[tuple[float, int]]:
    """Return the LPS x (mm) and the voxel count of each connected component of a structure."""
    mask = label_map.array == value
    if not mask.any():
        return []
    structure = Volume(mask, label_map.grid).crop(bounding_box(mask))
    numbers, count = components(structure.array)
    sizes = np.bincount(numbers.ravel())[1:]
    centers = ndimage.center_of_mass(structure.array, numbers, range(1, count + 1))
    return [
        (float(structure.grid.to_lps(center[::-1])[0]), int(size)) for center, size in zip(centers, sizes, strict=True)
    ]
