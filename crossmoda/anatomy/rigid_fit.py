"""Rigid transforms fitted to points, so that what a tumor displaces hardly counts."""

import numpy as np

from crossmoda.anatomy.sampling import moved

#: Radius around the center within which points decide the position, mm.
_POSITION_MM = 9.0


def robust_rigid(points: np.ndarray, targets: np.ndarray, center: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the rigid 4 x 4 matrix from points to targets (n, 3), and the median residual, mm.

    The rotation is fitted with Geman-McClure weights, so that what a tumor displaces hardly counts; the shift is the
    median near the center.
    """
    weights = np.ones(len(points))
    for _ in range(15):
        matrix = _weighted_rigid(points, targets, weights)
        residuals = np.linalg.norm(moved(matrix, points) - targets, axis=1)
        scale = 1.5 * max(float(np.median(residuals)), 0.3)
        weights = 1 / (1 + (residuals / scale) ** 2) ** 2
    near = np.linalg.norm(points - center, axis=1) <= _POSITION_MM
    matrix[:3, 3] = np.median(targets[near] - points[near] @ matrix[:3, :3].T, axis=0)
    return matrix, float(np.median(residuals))


def rigid_between(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the rigid 4 x 4 matrix from points to targets (n, 3) of least squares."""
    return _weighted_rigid(points, targets, np.ones(len(points)))


def _weighted_rigid(points: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rigid 4 x 4 matrix of weighted least squares (W. Kabsch, 1976)."""
    weights = weights / weights.sum()
    center, goal = weights @ points, weights @ targets
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation((targets - goal).T @ ((points - center) * weights[:, None]))
    matrix[:3, 3] = goal - matrix[:3, :3] @ center
    return matrix


def _rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation nearest to a 3 x 3 matrix."""
    left, _, right = np.linalg.svd(matrix)
    return left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right


def nearest_rigid(matrix: np.ndarray) -> np.ndarray:
    """Return a 4 x 4 matrix with the nearest rotation in place of its linear part."""
    rigid = matrix.copy()
    rigid[:3, :3] = _rotation(matrix[:3, :3])
    return rigid
