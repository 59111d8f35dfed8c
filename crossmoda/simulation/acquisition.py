"""Image acquisition: grid, slice profile, coil sensitivity and noise."""

import numpy as np
from scipy.spatial.transform import Rotation

from crossmoda.volume import Grid


def scan_grid(
    spacing: tuple[float, float, float], slices: int, field_of_view_mm: float, center: np.ndarray, rotation: np.ndarray
) -> Grid:
    """Return the grid of a scan centered at ``center`` (scanner LPS mm); column k of ``rotation`` (3 x 3) is axis k."""
    pixels = max(round(field_of_view_mm / spacing[0]), 1)
    size = (pixels, pixels, slices)
    origin = center - rotation @ ((np.array(size) - 1) / 2 * spacing)
    return Grid(size, spacing, tuple(origin.tolist()), tuple(rotation.ravel().tolist()))


def draw_rotation(rng: np.random.Generator, oblique_probability: float, angle_deg: float) -> np.ndarray:
    """Draw the orientation of a scan: axial, or oblique by about ``angle_deg`` per axis (probability
    ``oblique_probability``).
    """
    angles = angle_deg * np.clip(rng.standard_normal(3), -2, 2) * np.array([1.0, 0.6, 0.5])
    return Rotation.from_euler("xyz", angles * (rng.random() < oblique_probability), degrees=True).as_matrix()


def slice_profile(samples: int) -> np.ndarray:
    """Return the weights of ``samples`` across a slice: a box with smooth edges, sum 1."""
    position = np.abs((np.arange(samples) + 0.5) / samples - 0.5)
    weights = 1 / (1 + np.exp((position - 0.45) / 0.06))
    return weights / weights.sum()


def bias_field(rng: np.random.Generator, grid: Grid, amplitude: float) -> np.ndarray:
    """Draw a coil sensitivity (z, y, x) of mean 1, smooth over at least 15 cm, with maximum deviation ``amplitude``."""
    axes = [np.arange(n) * step - (n - 1) * step / 2 for n, step in zip(grid.size, grid.spacing, strict=True)]
    total = np.zeros(grid.shape, np.float32)
    for _ in range(4):
        wave, phase = 2 * np.pi / rng.uniform(170, 400, 3), rng.uniform(0, 2 * np.pi, 3)
        x, y, z = (np.cos(k * axis + p).astype(np.float32) for axis, k, p in zip(axes, wave, phase, strict=True))
        total += z[:, None, None] * y[None, :, None] * x[None, None, :]
    total -= total.mean()
    return 1 + amplitude * total / max(float(np.abs(total).max()), 1e-6)


def add_rician_noise(rng: np.random.Generator, image: np.ndarray, deviation: float) -> np.ndarray:
    """Return the magnitude of ``image`` plus complex Gaussian noise of standard deviation ``deviation`` per channel
    (Gudbjartsson 1995).
    """
    if deviation <= 0:
        return image
    real = image + np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, imaginary)
