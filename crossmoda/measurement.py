"""What a clinician reads off a segmentation: volume, largest diameter, distance to the cochlea."""

import dataclasses

import numpy as np
from scipy import ndimage, spatial

from crossmoda import labels
from crossmoda.volume.geometry import Grid, Volume


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The measures of one structure; ``None`` where there is nothing to measure."""

    structure: labels.Structure
    volume_mm3: float
    largest_diameter_mm: float | None
    """the greatest distance between two points of one connected piece (there are two cochleae)"""
    distance_to_cochlea_mm: float | None
    """the gap to the nearest cochlea; None for the cochlea itself"""


def measure(label_map: Volume) -> list[Measurement]:
    """Measure each structure of :data:`crossmoda.labels.STRUCTURES` in a label map.

    Lengths are between voxel faces, so that a row of n voxels is n times the spacing long and touching structures are
    0 mm apart.
    """
    array, grid = _occupied(label_map.array), label_map.grid
    faces = {structure.value: _face_centers(array == structure.value, grid) for structure in labels.STRUCTURES}
    return [
        Measurement(
            structure=structure,
            volume_mm3=float(np.count_nonzero(array == structure.value)) * grid.voxel_volume_mm3,
            largest_diameter_mm=_diameter(array == structure.value, grid),
            distance_to_cochlea_mm=(
                None if structure.value == labels.COCHLEA else _gap(faces[structure.value], faces[labels.COCHLEA])
            ),
        )
        for structure in labels.STRUCTURES
    ]


def _occupied(array: np.ndarray) -> np.ndarray:
    """Return the part of a label map that is not background: lengths do not depend on where it lies."""
    box = ndimage.find_objects((array > 0).astype(np.uint8))
    return array[box[0]] if box else array[:1, :1, :1]


def _face_centers(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the centers of the outer voxel faces, (n, 3) in mm along the grid's axes x, y, z."""
    spacing = np.asarray(grid.spacing)
    if not mask.any():
        return np.empty((0, 3))
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = np.pad(mask[box], 1)
    corner = np.array([part.start for part in box])[::-1] - 1.0
    points = []
    for axis in range(3):
        for step in (-1, 1):
            outer = inside & ~np.roll(inside, -step, axis)
            centers = np.argwhere(outer)[:, ::-1] + corner
            centers[:, 2 - axis] += 0.5 * step
            points.append(centers * spacing)
    return np.concatenate(points)


def _diameter(mask: np.ndarray, grid: Grid) -> float | None:
    """Return the greatest distance between two points of a piece: it is taken between corners of the convex hull."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    greatest = None
    for piece in range(1, count + 1):
        points = _face_centers(pieces == piece, grid)
        corners = points[spatial.ConvexHull(points).vertices]
        greatest = max(greatest or 0.0, float(spatial.distance.pdist(corners).max()))
    return greatest


def _gap(points: np.ndarray, others: np.ndarray) -> float | None:
    """Return the smallest distance between two sets of points."""
    if len(points) == 0 or len(others) == 0:
        return None
    distances, _ = spatial.cKDTree(others).query(points)
    return float(distances.min())
