"""Augmentation of training crops: pose, mirroring, contrast, blur, noise. Imports torch.

Images are augmented *before* their MIND features are computed, since features do not rotate or mirror with the image.
"""

import dataclasses
import functools
import math

import numpy as np
import torch
from torch.nn import functional

Triple = tuple[int, int, int]

#: Voxels around a crop that its MIND-SSC features (radius 1, dilation 1) depend on.
MARGIN = 2


@dataclasses.dataclass(frozen=True)
class Strength:
    """Strength of the augmentation; 0 disables a change."""

    pose: float = 0.5
    """probability of a random affine map"""
    rotation_deg: float = 10.0
    scale: float = 0.12
    shear: float = 0.05
    mirror: float = 0.5
    """probability of mirroring left and right"""
    contrast: float = 0.25
    """probability of a non-monotonic change of contrast"""
    blur: float = 0.2
    """probability of blur"""
    noise: float = 0.1
    """maximum standard deviation of the noise, relative to that of the image"""
    slices: float = 0.0
    """probability of thicker slices"""


#: For an ear in its canonical frame: errors of the frame, and sizes of ears; right ears were mirrored before.
EAR = Strength(rotation_deg=6.0, scale=0.1, shear=0.03, mirror=0, contrast=0.1, slices=0.5)
#: Distances of thicker slices, mm, and how often they lie across the axes z, y and x.
_SLICE_MM, _ACROSS = (1.0, 4.5), (0.7, 0.15, 0.15)
NONE = Strength(0, 0, 0, 0, 0, 0, 0, 0)
#: As published: affine maps and random noise.
PAPER = Strength(pose=1.0, mirror=0, contrast=0, blur=0, noise=0.1)


def random_affine(rng: np.random.Generator, strength: Strength, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Return a random 3 x 3 matrix (affine in mm) from voxel offsets (z, y, x) of a crop to those of its volume."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * strength.rotation_deg)
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [index for index in range(3) if index != axis]
        rotation = np.eye(3)
        rotation[first, first] = rotation[second, second] = math.cos(angle)
        rotation[first, second], rotation[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ rotation
    shear = rng.uniform(-1, 1, (3, 3)) * strength.shear
    np.fill_diagonal(shear, 0)
    scale = np.exp(rng.uniform(-1, 1, 3) * strength.scale)
    spacing = np.asarray(spacing_zyx)
    return (matrix @ (np.eye(3) + shear) * scale) * spacing / spacing[:, None]


def cut(volume: torch.Tensor, center: np.ndarray, size: Triple, matrix: np.ndarray | None, mode: str) -> torch.Tensor:
    """Return the crop of ``size`` voxels around ``center`` of a volume (channel, z, y, x).

    Args:
        volume: (channel, z, y, x).
        center: voxel (z, y, x) of the volume at index ``size // 2`` of the crop.
        size: (z, y, x).
        matrix: maps offsets from the center in the crop to offsets in the volume; None: identity.
        mode: ``"bilinear"`` or ``"nearest"``; border values are replicated outside.

    """
    # Python scalars instead of arrays: copying an array to the GPU would synchronize.
    device = volume.device
    if matrix is None:
        indices = [
            torch.arange(extent, device=device).add_(int(middle) - extent // 2).clamp_(0, limit - 1)
            for extent, middle, limit in zip(size, center, volume.shape[1:], strict=True)
        ]
        return volume[:, indices[0]][:, :, indices[1]][:, :, :, indices[2]]
    offsets = [torch.arange(extent, dtype=torch.float32, device=device) - extent // 2 for extent in size]
    steps: list[list[float]] = np.asarray(matrix, np.float32).tolist()
    middle: list[float] = np.asarray(center, np.float32).tolist()
    z, y, x = (
        middle[row] + functools.reduce(torch.add, (_along(offsets[c] * steps[row][c], c) for c in range(3)))
        for row in range(3)
    )
    # grid_sample expects (x, y, z), with the centers of the outer voxels at -1 and 1.
    points = torch.stack(
        [axis * 2 / max(extent - 1, 1) - 1 for axis, extent in zip((x, y, z), volume.shape[:0:-1], strict=True)], -1
    )
    return functional.grid_sample(volume[None], points[None], mode=mode, padding_mode="border", align_corners=True)[0]


def _along(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a vector as a 3D array along an axis."""
    return values[tuple(slice(None) if index == axis else None for index in range(3))]


def change_contrast(image: torch.Tensor, rng: np.random.Generator, knots: int = 8) -> torch.Tensor:
    """Map intensities through a random piecewise linear curve.

    The curve has ``knots`` random values between the 1st and the 99.5th percentile, so tissues of different intensity
    may get the same, as between ceT1 and T2.
    """
    values = image.flatten()[:: max(1, image.numel() // 20000)]
    limits = torch.tensor([0.01, 0.995]).to(image.device, non_blocking=True)
    low, high = torch.quantile(values, limits).double().unbind()  # stay on the device: no synchronization
    sign, slope = rng.choice([-1.0, 1.0]), rng.uniform(0.2, 1.0)
    random = torch.from_numpy(rng.standard_normal(knots)).to(image.device, non_blocking=True)
    identity = torch.arange(knots, device=image.device) * ((high - low) / (knots - 1)) + low
    curve = (identity * sign * slope + random * (0.25 * (high - low))).to(image.dtype)
    position = ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * (knots - 1)
    left = position.floor().clamp_max(knots - 2)
    start = left.long()
    return torch.lerp(curve[start], curve[start + 1], position - left)


def blur(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur an image (z, y, x) with a short random kernel along each axis."""
    for axis in range(3):
        weight = float(rng.uniform(0, 0.3))
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, image.shape[axis] - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, image.shape[axis] - 1), image.narrow(axis, -1, 1)], axis)
        image = (1 - 2 * weight) * image + weight * (before + after)
    return image


def thicken(image: torch.Tensor, axis: int, distance: float, first: float) -> torch.Tensor:
    """Return an image (z, y, x) as slices across an axis show it, interpolated linearly between them.

    Args:
        image: (z, y, x).
        axis: axis that the slices lie across.
        distance: thickness of the slices and distance of their centers, voxels.
        first: center of the first slice, voxels; from ``-distance`` to 0.

    """
    voxels = np.arange(image.shape[axis])[:, None]
    centers = np.arange(first, image.shape[axis] + distance, distance)
    inside = np.minimum(voxels + 0.5, centers + distance / 2) - np.maximum(voxels - 0.5, centers - distance / 2)
    averaged, between = np.clip(inside, 0, 1), np.clip(1 - np.abs(voxels - centers) / distance, 0, 1)
    covered = averaged.sum(axis=0)
    weights = (between[:, covered > 0] @ (averaged / np.maximum(covered, 1e-6))[:, covered > 0].T).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = torch.from_numpy(weights).to(image.device, non_blocking=True)
    return torch.tensordot(matrix, image, ([1], [axis])).movedim(0, axis).contiguous()


def change_intensities(
    image: torch.Tensor, rng: np.random.Generator, strength: Strength, spacing_zyx: tuple[float, float, float]
) -> tuple[torch.Tensor, bool]:
    """Change contrast, slices, sharpness and noise of a crop (z, y, x); say whether the contrast is new."""
    is_new = bool(rng.random() < strength.contrast)
    if is_new:
        image = change_contrast(image, rng)
    if strength.slices > 0 and rng.random() < strength.slices:
        axis = int(rng.choice(3, p=_ACROSS))
        distance = float(rng.uniform(*_SLICE_MM)) / spacing_zyx[axis]
        image = thicken(image, axis, distance, float(rng.uniform(-distance, 0)))
    if rng.random() < strength.blur:
        image = blur(image, rng)
    if strength.noise > 0:
        generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
        deviation = float(rng.uniform(0, strength.noise)) * image.std()
        image = image + deviation * torch.randn(image.shape, generator=generator, device=image.device)
    return image, is_new
