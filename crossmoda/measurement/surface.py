"""The surface of a mask in physical space: its extent, its largest diameter, the gap to another mask.

Lengths are between voxel faces: a row of n voxels is n times the spacing long, and touching structures are 0 mm apart.
"""

import dataclasses

import numpy as np
from scipy import spatial

from crossmoda.volume.grid import Volume
from crossmoda.volume.masks import bounding_box, components


@dataclasses.dataclass(frozen=True)
class Line:
    """A measured line."""

    start: np.ndarray
    """LPS mm, (3,)"""
    stop: np.ndarray
    """LPS mm, (3,)"""

    @property
    def length_mm(self) -> float:
        """Its length."""
        return float(np.linalg.norm(self.stop - self.start))


def face_centers(mask: Volume) -> np.ndarray:
    """Return the centers of the outer voxel faces of a mask, (n, 3) LPS mm."""
    box = bounding_box(mask.array)
    inside = np.pad(mask.array[box], 1)
    corner = np.array([part.start for part in box])[::-1] - 1.0
    points = [np.empty((0, 3))]
    for axis in range(3):
        for step in (-1, 1):
            outer = inside & ~np.roll(inside, -step, axis)
            centers = np.argwhere(outer)[:, ::-1] + corner
            centers[:, 2 - axis] += 0.5 * step
            points.append(centers)
    return mask.grid.to_lps(np.concatenate(points))


def largest_diameter(mask: Volume) -> Line:
    """Return the largest distance between two points of one connected component of a mask that is not empty."""
    numbers, count = components(mask.array)
    lines = [farthest_pair(face_centers(mask.with_array(numbers == number))) for number in range(1, count + 1)]
    return max(lines, key=lambda line: line.length_mm)


def farthest_pair(points: np.ndarray) -> Line:
    """Return the two points (n, 2 or 3), not all on a line or plane, that are farthest apart."""
    corners = points[spatial.ConvexHull(points).vertices]  # the farthest points are corners of the convex hull
    distances = spatial.distance.cdist(corners, corners)
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    return Line(corners[first], corners[second])


def craniocaudal_extent_mm(mask: Volume) -> float:
    """Return how far a mask that is not empty reaches along the patient's superior axis."""
    return float(np.ptp(face_centers(mask)[:, 2]))


def gap_mm(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the smallest distance between two sets of points (n, 3), mm; None if a set is empty."""
    if len(first) == 0 or len(second) == 0:
        return None
    distances, _ = spatial.cKDTree(second).query(first)
    return float(distances.min())
