"""Deformation between a subject's head and the canonical head: pose, size, smooth deformation, mass effect.

It maps from scanner space to the canonical head frame (MNI frame in LPS: x left, y posterior, z superior, mm, origin at
the anterior commissure): an affine part, then a displacement field on a 3 mm grid with trilinear interpolation. Images
and truth use the same interpolation, so the truth has no discretization error. The inverse is accurate to 1e-6 mm.
"""

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

#: Center of rotation and scaling, near the midpoint of both internal auditory canals.
CENTER = np.array([0.0, 18.0, -36.0])
STEP_MM = 3.0
LOWEST = np.array([-123.0, -126.0, -135.0])
HIGHEST = np.array([123.0, 150.0, 69.0])
_SIZE = tuple(int(n) for n in np.ceil((HIGHEST - LOWEST) / STEP_MM).astype(int) + 1)


@dataclasses.dataclass(frozen=True)
class MassEffect:
    """Mass effect of a tumor: radial displacement from ``center``, decaying over ``radius``, excluding the bone.

    A point at distance r goes to r (1 + strength exp(-r^2 / 2 radius^2)), weighted by its distance behind the petrous
    bone.
    """

    center: np.ndarray
    radius_mm: float
    strength: float

    def push(self, points: np.ndarray) -> np.ndarray:
        """Return the positions of canonical ``points`` (..., 3) after the mass effect."""
        if self.strength <= 0:
            return points
        away = points - self.center
        fade = np.exp(-np.sum(away**2, axis=-1) / (2 * self.radius_mm**2))
        # The posterior face of the petrous bone runs through (8, 12) and (40, 42) mm on both sides (x lateral, y
        # posterior).
        side = np.sign(self.center[0])
        behind = -0.684 * (side * points[..., 0] - 8) + 0.729 * (points[..., 1] - 12)
        soft = 1 / (1 + np.exp(-(behind - 3.0) / 4.0))
        return points + away * (self.strength * fade * soft)[..., None]

    def pull(self, points: np.ndarray) -> np.ndarray:
        """Return the positions of canonical ``points`` (..., 3) before the mass effect: the inverse of :meth:`push`."""
        before = points
        for _ in range(60):  # damped fixed-point iteration
            before = before - 0.6 * (self.push(before) - points)
        return before


@dataclasses.dataclass(frozen=True)
class Deformation:
    """The mapping between a subject's scanner space and the canonical head frame."""

    affine: np.ndarray
    """4 x 4, scanner LPS mm to undeformed canonical mm"""
    field: np.ndarray
    """displacement to add in the undeformed canonical frame, (z, y, x, 3) float32 mm, component order x, y, z"""

    def to_canonical(self, points: np.ndarray) -> np.ndarray:
        """Map scanner points (N, 3) to the canonical frame."""
        return self._moved(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def from_canonical(self, points: np.ndarray) -> np.ndarray:
        """Map canonical points (N, 3) to scanner space: the inverse of :meth:`to_canonical`."""
        inverse = np.linalg.inv(self.affine)
        return self._moved(points, backward=True) @ inverse[:3, :3].T + inverse[:3, 3]

    def _moved(self, points: np.ndarray, backward: bool = False) -> np.ndarray:
        """Move points (N, 3) of the undeformed canonical frame by the field, or back."""
        from crossmoda.simulation import kernels

        points, field = np.ascontiguousarray(points, dtype=np.float64), (self.field, LOWEST, STEP_MM)
        move = kernels.undisplace_points if backward else kernels.displace_points
        out = np.empty_like(points)
        kernels.in_slabs(len(out), lambda a, b: move(field, points, out, a, b))
        return out

    def volume_ratio(self, canonical: np.ndarray) -> float:
        """Return the volume ratio (canonical to subject) around canonical points (N, 3)."""
        points = self.from_canonical(canonical)
        steps = np.concatenate([np.eye(3), -np.eye(3)])
        ends = self.to_canonical((points[:, None] + steps).reshape(-1, 3)).reshape(-1, 6, 3)
        return float(1 / np.mean(1 / np.abs(np.linalg.det((ends[:, :3] - ends[:, 3:]) / 2))))


def jacobian_determinant(field: np.ndarray) -> np.ndarray:
    """Return the Jacobian determinant of x + field at the cell centers of the 3 mm grid (forward differences,
    averaged).
    """
    slopes = []
    for axis in (2, 1, 0):
        difference = np.diff(field, axis=axis) / STEP_MM
        for fixed_axis in {0, 1, 2} - {axis}:
            low = [slice(None)] * 4
            high = [slice(None)] * 4
            low[fixed_axis], high[fixed_axis] = slice(None, -1), slice(1, None)
            difference = (difference[tuple(low)] + difference[tuple(high)]) / 2
        slopes.append(difference)
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (np.moveaxis(slope, -1, 0) for slope in slopes)
    xx, yy, zz = xx + 1, yy + 1, zz + 1
    return xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)


def smooth_field(rng: np.random.Generator, size_mm: float, *, smallest_jacobian: float = 0.3) -> np.ndarray:
    """Draw a smooth random displacement field of root-mean-square magnitude ``size_mm`` over the head.

    Nine tenths vary over about 50 mm (a Gaussian kernel of 20 mm), the rest over about 20 mm. A field whose Jacobian
    determinant falls under ``smallest_jacobian`` anywhere is shrunk until it does not: it never folds.
    """
    shape = (*_SIZE[::-1], 3)
    field = np.zeros(shape, np.float32)
    for share, width_mm in ((0.97, 20.0), (0.24, 9.0)):
        part = rng.standard_normal(shape, dtype=np.float32)
        for component in range(3):
            part[..., component] = gaussian_filter(part[..., component], width_mm / STEP_MM, mode="wrap", truncate=3)
        field += share * size_mm * part / np.sqrt(np.mean(np.sum(part**2, axis=-1)))
    while size_mm > 0 and jacobian_determinant(field).min() < smallest_jacobian:
        field *= np.float32(0.93)
    return field


def draw_pose(rng: np.random.Generator, rotation_deg: float, translation_mm: float, size_spread: float) -> np.ndarray:
    """Draw a pose: the 4 x 4 matrix from scanner LPS mm to the undeformed canonical frame.

    Standard deviations: ``rotation_deg`` about each axis, ``translation_mm`` along each axis, ``size_spread``
    (relative) of the head's size, of which a third differs between the axes.
    """
    bounded = lambda scale, n: scale * np.clip(rng.standard_normal(n), -2, 2)  # noqa: E731
    rotation = Rotation.from_euler("xyz", bounded(rotation_deg, 3), degrees=True).as_matrix()
    scale = np.exp(-(bounded(size_spread, 1) + bounded(size_spread / 3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(scale) @ rotation
    matrix[:3, 3] = CENTER - matrix[:3, :3] @ bounded(translation_mm, 3)
    return matrix


def rigid_matrix(rng: np.random.Generator, rotation_deg: float, translation_mm: float) -> np.ndarray:
    """Draw a rigid motion about the origin with the given median rotation and translation."""
    axis, way = rng.standard_normal((2, 3))
    # The median of a chi-distributed length of three standard normals is 1.538.
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(axis * rotation_deg / 1.538, degrees=True).as_matrix()
    matrix[:3, 3] = way * translation_mm / 1.538
    return matrix


def with_mass_effect(
    deformation: Deformation, mass: MassEffect, *, smallest_jacobian: float = 0.12
) -> tuple[Deformation, MassEffect]:
    """Return the deformation with the mass effect of a tumor, and the applied mass effect.

    The push (``mass``, in the canonical frame) is weakened until the Jacobian determinant stays above its bound.
    """
    axes = [LOWEST[axis] + STEP_MM * np.arange(_SIZE[axis]) for axis in range(3)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    nodes = np.stack([x, y, z], axis=-1).astype(np.float32)
    while mass.strength > 0.05:
        grown = nodes + deformation.field
        near = np.sum((grown - mass.center) ** 2, axis=-1) < (5 * mass.radius_mm) ** 2
        grown[near] = mass.pull(grown[near])
        field = np.ascontiguousarray(grown - nodes, dtype=np.float32)
        if jacobian_determinant(field).min() >= smallest_jacobian:
            return Deformation(deformation.affine, field), mass
        mass = dataclasses.replace(mass, strength=0.8 * mass.strength)
    return deformation, dataclasses.replace(mass, strength=0.0)
