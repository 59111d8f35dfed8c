"""Measurements of a segmentation: volume, largest diameter, distance to the cochlea."""

import dataclasses

import numpy as np
from scipy import spatial

from crossmoda import labels
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.masks import bounding_box, components


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The measures of one structure; ``None`` where it is absent."""

    structure: labels.Structure
    volume_mm3: float
    largest_diameter_mm: float | None
    """largest distance between two points of one connected component (there are two cochleae)"""
    distance_to_cochlea_mm: float | None
    """gap to the nearest cochlea; None for the cochlea itself"""


def measure(label_map: Volume) -> list[Measurement]:
    """Measure each structure of :data:`crossmoda.labels.STRUCTURES` in a label map.

    Lengths are between voxel faces: a row of n voxels is n times the spacing long, and touching structures are 0 mm
    apart.
    """
    grid = label_map.grid
    array = label_map.array[bounding_box(label_map.array > 0)]  # lengths do not depend on the position
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


def _face_centers(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the centers of the outer voxel faces, (n, 3) in mm along the grid's axes x, y, z."""
    spacing = np.asarray(grid.spacing)
    box = bounding_box(mask)
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
    """Return the largest distance between two points of a component, which are corners of its convex hull."""
    numbers, count = components(mask)
    largest = None
    for number in range(1, count + 1):
        points = _face_centers(numbers == number, grid)
        corners = points[spatial.ConvexHull(points).vertices]
        largest = max(largest or 0.0, float(spatial.distance.pdist(corners).max()))
    return largest


def _gap(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the smallest distance between two sets of points; None if a set is empty."""
    if len(first) == 0 or len(second) == 0:
        return None
    distances, _ = spatial.cKDTree(second).query(first)
    return float(distances.min())
