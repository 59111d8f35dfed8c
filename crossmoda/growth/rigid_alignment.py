"""Rigid alignment of two scans of one head around the petrous bones, without the tumor, and its error.

The ear frames of both scans give the start. Gauss-Newton steps then minimize the squared differences of MIND-SSC
features around both ears (M. P. Heinrich et al. 2012, Med Image Anal 16:1423, who register rigidly so), in the inverse
compositional form (S. Baker, I. Matthews 2004, IJCV 56:221) with Geman-McClure weights: scans of different contrast
can be aligned, and what has changed hardly counts. The error comes from a jackknife over blocks of the region: each
block is left out once, and the spread of the results is that of the alignment (B. Efron, R. Tibshirani 1993).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from crossmoda import volume
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames
from crossmoda.anatomy.rigid_fit import rigid_between
from crossmoda.anatomy.sampling import covering, moved, positions, smoothed
from crossmoda.anatomy.template import load
from crossmoda.errors import InputError
from crossmoda.mind import mind_ssc
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform

#: Radius of the balls around the cochleae that are compared, and how far the later scan is sampled beyond them, mm.
RADIUS_MM, _MARGIN_MM = 25.0, 4.0
#: mm between the samples of each level.
_LEVELS_MM = (2.0, 1.0)
#: Steps per level, and the motion at the border of the region at which they end, mm.
_MOST_STEPS, _SMALLEST_MM = 20, 0.005
#: Distance from a structure that may have changed within which nothing is compared, mm.
CHANGED_MM = 3.0
#: Side of the blocks of the jackknife, mm.
_BLOCK_MM = 25.0
#: Error that the jackknife does not see: of the deformation of the head in scanners, of thick slices and of unlike
#: contrasts, mm (docs/validation/growth.md).
_SYSTEMATIC_MM = 0.1
#: Each frame counts with the ends of a cross of this radius around its cochlea, mm.
_CROSS_MM = 20.0
#: A smaller common volume does not align two scans, mm3.
_SMALLEST_MM3 = 2000


@dataclasses.dataclass(frozen=True)
class RigidAlignment:
    """Where the points of the first scan lie in a later one."""

    matrix: np.ndarray
    """4 x 4, rigid, from points of the first to points of the later scan, LPS mm"""
    covariance: np.ndarray
    """6 x 6, of rotation (rad) and shift (mm) about ``center``"""
    center: np.ndarray
    """LPS mm in the first scan"""
    similarity: float
    """correlation of the features of both scans, -1 to 1"""

    def error_mm(self, points: np.ndarray) -> float:
        """Return the standard error of the alignment at points (n, 3) of the first scan: root mean square, mm."""
        arms = points - self.center
        zero = np.zeros(len(arms))
        x, y, z = arms.T
        turns = np.stack([np.stack([zero, z, -y]), np.stack([-z, zero, x]), np.stack([y, -x, zero])])  # of w x arm
        jacobian = np.concatenate([turns.transpose(2, 0, 1), np.broadcast_to(np.eye(3), (len(arms), 3, 3))], axis=2)
        variance = np.einsum("nij,jk,nik->n", jacobian, self.covariance, jacobian)
        return float(np.sqrt(variance.mean() + _SYSTEMATIC_MM**2))


def frame_alignment(first: EarFrames, later: EarFrames) -> np.ndarray:
    """Return the rigid 4 x 4 matrix from points of the first to points of the later scan that maps ears to ears.

    Raises:
        InputError: no ear is recognized in both.

    """
    pairs = [(one, other) for one, other in zip(first, later, strict=True) if one.accepted and other.accepted]
    if not pairs:
        raise InputError("No ear is recognized in both scans. " + " ".join(dict.fromkeys([*first.notes, *later.notes])))
    cross = load().modiolus + _CROSS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    source, target = (np.concatenate([frame.to_scan(cross) for frame in ears]) for ears in zip(*pairs, strict=True))
    return rigid_between(source, target)


def align(
    first: Volume,
    later: Volume,
    ears: Sequence[EarFrame],
    start: np.ndarray,
    changed: Volume | None = None,
) -> RigidAlignment:
    """Return the rigid alignment of a later scan to the first one.

    Args:
        first: the scan whose points are mapped.
        later: the other scan, of any contrast.
        ears: frames of the first scan around whose cochleae both are compared.
        start: 4 x 4, from points of the first to points of the later scan, good to a few mm.
        changed: mask (bool) in the space of the first scan of what may have changed and is not compared.

    Raises:
        InputError: both scans share too little.

    """
    centers = np.array([ear.cochlea for ear in ears])
    matrix = start
    for step_mm in _LEVELS_MM:
        level = _Level.of(first, later, centers, matrix, step_mm, changed)
        matrix = level.solved(matrix)
    return level.result(matrix)


@dataclasses.dataclass(frozen=True, eq=False)
class _Level:
    """The features of both scans at one spacing."""

    points: np.ndarray
    """(n, 3) samples of the first scan, LPS mm"""
    center: np.ndarray
    features: np.ndarray
    """(channel, n) of the first scan"""
    jacobian: np.ndarray
    """(channel, n, 6) change of the features by rotation (rad) and shift (mm) about the center"""
    later: np.ndarray
    """(channel, z, y, x) features of the later scan on ``grid``"""
    grid: Grid
    """in the space of the first scan, moved by ``start``"""
    start: np.ndarray

    @classmethod
    def of(
        cls,
        first: Volume,
        later: Volume,
        centers: np.ndarray,
        start: np.ndarray,
        step_mm: float,
        changed: Volume | None,
    ) -> "_Level":
        low, high = centers.min(axis=0) - RADIUS_MM, centers.max(axis=0) + RADIUS_MM
        inner, outer = covering(low, high, step_mm), covering(low - _MARGIN_MM, high + _MARGIN_MM, step_mm)
        fixed = volume.resample(smoothed(first, step_mm), inner, outside=float(first.array.min()))
        moving = volume.resample(
            smoothed(later, step_mm), outer, affine_transform(start), outside=float(later.array.min())
        )
        features = mind_ssc(fixed.array)
        points = positions(inner)
        compared = np.min([np.linalg.norm(points - center, axis=-1) for center in centers], axis=0) < RADIUS_MM
        compared &= _within(first.grid, points) & _within(later.grid, moved(start, points))
        for axis in range(3):  # no gradient at the faces
            compared[tuple([0, -1] if a == axis else slice(None) for a in range(3))] = False
        if changed is not None:
            occupied = changed.with_array(changed.array.astype(np.float32))
            compared &= volume.resample(occupied, inner).array < 0.05
        if np.count_nonzero(compared) * step_mm**3 < _SMALLEST_MM3:
            raise InputError("The scans share too little around the ears to be aligned. Give scans of both ears.")
        gradient = np.stack([np.gradient(features, axis=a)[:, compared] / step_mm for a in (3, 2, 1)], axis=-1)
        center = centers.mean(axis=0)
        arms = (points[compared] - center).astype(np.float32)
        jacobian = np.concatenate([np.cross(arms[None], gradient), gradient], axis=-1)
        return cls(points[compared], center, features[:, compared], jacobian, mind_ssc(moving.array), outer, start)

    def sampled(self, matrix: np.ndarray) -> np.ndarray:
        """Return the features (channel, n) of the later scan at the points under a matrix."""
        import torch

        index = self.grid.to_index(moved(np.linalg.inv(self.start) @ matrix, self.points))
        place = torch.from_numpy((2 * index / (np.asarray(self.grid.size) - 1) - 1).astype(np.float32))
        values = torch.nn.functional.grid_sample(
            torch.from_numpy(self.later)[None], place[None, None, None], align_corners=True, padding_mode="border"
        )
        sampled: np.ndarray = values[0, :, 0, 0].numpy()
        return sampled

    def normal_equations(self, matrix: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted normal equations (block, 6, 6) and (block, 6) of each numbered block of points."""
        residuals = self.sampled(matrix) - self.features
        size = np.sqrt((residuals**2).mean(axis=0))
        weights = 1 / (1 + (size / max(float(np.median(size)), 1e-6)) ** 2) ** 2
        order = np.argsort(blocks, kind="stable")
        ends = np.flatnonzero(np.diff(blocks[order])) + 1
        hessians, gradients = [], []
        for part in np.split(order, ends):
            part_jacobian = self.jacobian[:, part]
            weighted = (part_jacobian * weights[part][:, None]).reshape(-1, 6)
            hessians.append(weighted.T @ part_jacobian.reshape(-1, 6))
            gradients.append(weighted.T @ residuals[:, part].ravel())
        return np.array(hessians, float), np.array(gradients, float)

    def solved(self, matrix: np.ndarray) -> np.ndarray:
        """Return the matrix after Gauss-Newton steps."""
        whole = np.zeros(len(self.points), int)
        for _ in range(_MOST_STEPS):
            (hessian,), (gradient,) = self.normal_equations(matrix, whole)
            step = np.linalg.solve(hessian, gradient)
            matrix = matrix @ self._motion(-step)
            if np.linalg.norm(step[:3]) * RADIUS_MM + np.linalg.norm(step[3:]) < _SMALLEST_MM:
                break
        return matrix

    def result(self, matrix: np.ndarray) -> RigidAlignment:
        """Return the alignment with its covariance by the jackknife, and the similarity of the features."""
        cells = np.floor((self.points - self.center) / _BLOCK_MM).astype(int)
        _, blocks = np.unique(cells, axis=0, return_inverse=True)
        hessians, gradients = self.normal_equations(matrix, blocks.ravel())
        total = hessians.sum(axis=0), gradients.sum(axis=0)
        without = np.array(
            [
                np.linalg.solve(total[0] - hessian, total[1] - gradient)
                for hessian, gradient in zip(hessians, gradients, strict=True)
            ]
        )
        spread = without - without.mean(axis=0)
        covariance = (len(without) - 1) / len(without) * spread.T @ spread
        return RigidAlignment(matrix, covariance, self.center, self._similarity(matrix))

    def _similarity(self, matrix: np.ndarray) -> float:
        one, other = (values - values.mean(axis=1, keepdims=True) for values in (self.features, self.sampled(matrix)))
        return float((one * other).sum() / max(np.sqrt((one**2).sum() * (other**2).sum()), 1e-9))

    def _motion(self, step: np.ndarray) -> np.ndarray:
        """Return the 4 x 4 matrix of a rotation (rad) about the center and a shift (mm)."""
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_rotvec(step[:3]).as_matrix()
        matrix[:3, 3] = self.center + step[3:] - matrix[:3, :3] @ self.center
        return matrix


def _within(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return which points (..., 3) lie in a grid, not in its outermost voxels."""
    index = grid.to_index(points)
    return np.all((index > 0.5) & (index < np.asarray(grid.size) - 1.5), axis=-1)
