"""Random changes of training crops: pose, side, contrast, sharpness, noise. Imports torch.

Everything happens to the image *before* its MIND features are computed, since these are not simply rotated or mirrored
with it, and so that the features of changed contrast and noise are the true ones.
"""

import dataclasses
import functools
import math

import numpy as np
import torch
from torch.nn import functional

Triple = tuple[int, int, int]

#: MIND-SSC of radius 1 and dilation 1 sees two voxels around each.
MARGIN = 2


@dataclasses.dataclass(frozen=True)
class Strength:
    """How much is changed; 0 switches a change off."""

    pose: float = 0.5
    """probability of a random affine map"""
    rotation_deg: float = 10.0
    scale: float = 0.12
    shear: float = 0.05
    mirror: float = 0.5
    """probability that left and right are exchanged"""
    contrast: float = 0.25
    """probability of another, not monotone, tissue contrast"""
    blur: float = 0.2
    """probability of a less sharp image"""
    noise: float = 0.1
    """largest standard deviation of the noise, in standard deviations of the image"""


NONE = Strength(0, 0, 0, 0, 0, 0, 0, 0)
#: The published routine: affine maps and random noise.
PAPER = Strength(pose=1.0, mirror=0, contrast=0, blur=0, noise=0.1)


def random_affine(rng: np.random.Generator, strength: Strength, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Return a random 3 x 3 map of voxel offsets (z, y, x) from a crop to its volume, affine in millimeters."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * strength.rotation_deg)
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = [index for index in range(3) if index != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    shear = rng.uniform(-1, 1, (3, 3)) * strength.shear
    np.fill_diagonal(shear, 0)
    scale = np.exp(rng.uniform(-1, 1, 3) * strength.scale)
    spacing = np.asarray(spacing_zyx)
    return (matrix @ (np.eye(3) + shear) * scale) * spacing / spacing[:, None]


def cut(volume: torch.Tensor, center: np.ndarray, size: Triple, matrix: np.ndarray | None, mode: str) -> torch.Tensor:
    """Return the crop of ``size`` voxels around ``center`` of a volume (channel, z, y, x).

    Args:
        volume: what is cropped.
        center: the voxel (z, y, x) that comes to lie at index ``size // 2``.
        size: (z, y, x).
        matrix: maps offsets from the center in the crop to those in the volume; None: the identity, exactly.
        mode: ``"bilinear"`` or ``"nearest"``. Outside the volume its border continues.

    """
    # Numbers go along with the operations: an array would have to be copied to a card first, which then had to wait.
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
    # grid_sample wants (x, y, z), scaled so that the outer voxels' centers are at -1 and 1.
    points = torch.stack(
        [axis * 2 / max(extent - 1, 1) - 1 for axis, extent in zip((x, y, z), volume.shape[:0:-1], strict=True)], -1
    )
    return functional.grid_sample(volume[None], points[None], mode=mode, padding_mode="border", align_corners=True)[0]


def _along(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a vector as an array that varies along one of three axes."""
    return values[tuple(slice(None) if index == axis else None for index in range(3))]


def change_contrast(image: torch.Tensor, rng: np.random.Generator, knots: int = 8) -> torch.Tensor:
    """Map intensities through a random continuous curve: tissues keep their outline and change their brightness.

    The curve runs through ``knots`` random heights between the darkest and the brightest value (1st and 99.5th
    percentile): tissues that differ in one contrast may look alike in the result, as between ceT1 and T2.
    """
    values = image.flatten()[:: max(1, image.numel() // 20000)]
    limits = torch.tensor([0.01, 0.995]).to(image.device, non_blocking=True)
    low, high = torch.quantile(values, limits).double().unbind()  # stay where they are: nobody waits for them
    sign, share = rng.choice([-1.0, 1.0]), rng.uniform(0.2, 1.0)
    random = torch.from_numpy(rng.standard_normal(knots)).to(image.device, non_blocking=True)
    identity = torch.arange(knots, device=image.device) * ((high - low) / (knots - 1)) + low
    curve = (identity * sign * share + random * (0.25 * (high - low))).to(image.dtype)
    position = ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * (knots - 1)
    left = position.floor().clamp_max(knots - 2)
    start = left.long()
    return torch.lerp(curve[start], curve[start + 1], position - left)


def soften(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur an image (z, y, x) with a short random kernel along each axis."""
    for axis in range(3):
        side = float(rng.uniform(0, 0.3))
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, image.shape[axis] - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, image.shape[axis] - 1), image.narrow(axis, -1, 1)], axis)
        image = (1 - 2 * side) * image + side * (before + after)
    return image


def change_intensities(image: torch.Tensor, rng: np.random.Generator, strength: Strength) -> torch.Tensor:
    """Change contrast, sharpness and noise of a crop (z, y, x) of a normalized image."""
    if rng.random() < strength.contrast:
        image = change_contrast(image, rng)
    if rng.random() < strength.blur:
        image = soften(image, rng)
    if strength.noise > 0:
        generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
        deviation = float(rng.uniform(0, strength.noise)) * image.std()
        image = image + deviation * torch.randn(image.shape, generator=generator, device=image.device)
    return image
