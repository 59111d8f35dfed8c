"""The surface of a mask in physical space: its extent, its largest diameter, the gap to another mask.

Lengths are between voxel faces: a row of n voxels is n times the spacing long, and touching structures are 0 mm apart.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, spatial

from crossmoda.volume.grid import Box, Volume
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
    numbers, _ = components(mask.array)
    best: Line | None = None
    for number, box in largest_first(numbers, mask.grid.spacing_zyx):
        if best is not None and diagonal(box, mask.grid.spacing_zyx) <= best.length_mm:
            break
        piece = Volume(numbers[box] == number, mask.grid.crop(box))
        line = farthest_pair(face_centers(piece))
        best = line if best is None or line.length_mm > best.length_mm else best
    assert best is not None, "the mask is not empty"
    return best


def largest_first(numbers: np.ndarray, spacing: Sequence[float]) -> list[tuple[int, Box]]:
    """Return number and box of each numbered piece of an array, the longest diagonals first."""
    boxes = [(number, box) for number, box in enumerate(ndimage.find_objects(numbers), start=1) if box is not None]
    return sorted(boxes, key=lambda item: -diagonal(item[1], spacing))


def diagonal(box: Box, spacing: Sequence[float]) -> float:
    """Return the length of the diagonal of a box of voxels with this spacing."""
    return math.dist(
        [0.0] * len(box), [(side.stop - side.start) * step for side, step in zip(box, spacing, strict=True)]
    )


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
