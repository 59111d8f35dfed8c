"""Phantoms that several test files share: balls, a symmetric head, a training crop; and the overlap of two masks."""

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.volume import Grid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice coefficient of two masks, independent of the engine's own."""
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def ball(grid: Grid, center_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """Return the mask of a ball; its center (z, y, x) is in mm from the first voxel, along the grid's axes."""
    z, y, x = np.ogrid[tuple(map(slice, grid.shape))]
    dz, dy, dx = grid.spacing_zyx
    square = (z * dz - center_mm[0]) ** 2 + (y * dy - center_mm[1]) ** 2 + (x * dx - center_mm[2]) ** 2
    return np.asarray(square <= radius_mm**2)


def head(
    grid: Grid,
    side: str | None,
    seed: int,
    *,
    modality: str = "hrT2",
    tumor_mm: float = 8.99,
    cochleae: tuple[str, ...] = ("left", "right"),
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map of a symmetric head: texture, two canals with cochleae, a tumor in one canal.

    Canals lie 18 mm and cochleae 32 mm from the grid's middle; radii just below whole mm
    keep voxel centers off the borders. ``seed`` draws the noise only.
    """
    fluid, cochlea, tumor = (500, 420, 250) if modality == "hrT2" else (60, 90, 700)
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, grid.shape), (1, 1.5, 1.5))
    image = 100 + 400 * (texture + texture[..., ::-1])
    label_map = np.zeros(grid.shape, np.uint8)
    z, y, x = np.array(grid.shape) / 2 * grid.spacing_zyx
    for name, sign in (("left", 1), ("right", -1)):
        mask = ball(grid, (z, y - 6, x + sign * 32), 4.99)
        image[mask] = cochlea
        if name in cochleae:
            label_map[mask] = labels.COCHLEA
        canal = (z, y + 4, x + sign * 18)
        image[ball(grid, canal, 10.99)] = fluid
        if name == side:
            mask = ball(grid, canal, tumor_mm)
            image[mask], label_map[mask] = tumor, labels.VS
    noise = np.random.default_rng(seed + 1).normal(0, 6, grid.shape)
    return (image + noise).astype(np.float32), label_map


#: Grid of :func:`crop`.
CROP_GRID = Grid((32, 32, 16), (1.0, 1.0, 1.5), (0.0, 0.0, 0.0), AXIAL)


def crop(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map of a crop to train on: a textured tumor and two small bright cochleae."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(CROP_GRID.shape)
    label_map = np.zeros(CROP_GRID.shape, np.uint8)
    row, column = 16 + rng.integers(-2, 3), 12 + rng.integers(-2, 3)
    label_map[(z - 8) ** 2 * 4 + (y - row) ** 2 + (x - column) ** 2 < 30] = labels.VS
    for column in (5, 27):
        label_map[(z - 8) ** 2 * 4 + (y - 26) ** 2 + (x - column) ** 2 < 8] = labels.COCHLEA
    image = np.array([20.0, 90.0, 60.0])[label_map] + 3 * np.sin(y / 3) + rng.normal(0, 2, CROP_GRID.shape)
    return image.astype(np.float32), label_map
