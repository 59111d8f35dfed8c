"""Scans of the heads of the independent sets: grids as in clinics, slice profile, noise, truth."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from subjects import SIDES, Head, Tumor, paint, sampled

from crossmoda.volume import Grid, Volume

VS, COCHLEA = 1, 2
#: Axis of the head along which slices follow each other, and its in-plane axes, as columns of the direction.
ORIENTATIONS = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a head is scanned."""

    kind: str
    """``"bssfp"``, ``"tse"`` or ``"cet1"``"""
    in_plane_mm: float
    slice_mm: float
    orientation: str
    field_of_view_mm: tuple[float, float, float]
    """along right-left, front-back and head-foot"""
    noise: float
    """relative to white matter or half of the fluid"""


def scan_grid(head: Head, protocol: Protocol, rng: np.random.Generator, tilt_deg: float = 6.0) -> Grid:
    """Return the grid of a scan around both ears, a little oblique and off center."""
    centers = [head.cochlea_center(side) for side in SIDES]
    middle = np.mean(centers, axis=0) + rng.normal(0, [3, 4, 3]) + np.array([0, 8, 0])
    straight = np.array(ORIENTATIONS[protocol.orientation], float).T
    turn = Rotation.from_rotvec(np.radians(rng.normal(0, tilt_deg, 3))).as_matrix()
    axes = turn @ straight
    spacing = np.array([protocol.in_plane_mm, protocol.in_plane_mm, protocol.slice_mm])
    extent = np.abs(straight.T) @ np.array(protocol.field_of_view_mm)
    size = np.maximum(np.round(extent / spacing), 1).astype(int)
    origin = middle - axes @ (spacing * (size - 1) / 2)
    return Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin.tolist()), tuple(axes.ravel().tolist()))


def scan(head: Head, grid: Grid, protocol: Protocol, icbm: Path, rng: np.random.Generator) -> Volume:
    """Return a scan of a head, int16."""
    signal = paint(head, protocol.kind, icbm, rng)
    image = sitk.GetImageFromArray(signal.array)
    image.SetOrigin(signal.grid.origin)
    image.SetSpacing(signal.grid.spacing)
    parts = max(1, int(np.ceil(grid.spacing[2] / 1.0)))
    transform = head.transform()
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    profile = np.hanning(parts + 2)[1:-1] + 0.4 if parts > 2 else np.ones(parts)
    total = np.zeros(grid.shape, np.float32)
    for offset, weight in zip(offsets, profile / profile.sum(), strict=True):
        origin = np.asarray(grid.origin) + grid.axes[:, 2] * offset * grid.spacing[2]
        sample = sitk.Resample(
            image, list(grid.size), transform, sitk.sitkLinear, origin.tolist(), grid.spacing, grid.direction, 0.0
        )
        total += weight * sitk.GetArrayViewFromImage(sample)
    blur = 0.35 / np.asarray(grid.spacing_zyx) * grid.spacing[0]
    total = gaussian_filter(total, [0, blur[1], blur[2]])
    return Volume(disturbed(total, grid, protocol.noise, rng), grid)


def disturbed(image: np.ndarray, grid: Grid, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return an image with receive field, ghosts and correlated Rician noise that is stronger in the middle, int16."""
    axes = np.meshgrid(*(np.linspace(-1, 1, count) for count in image.shape), indexing="ij", sparse=True)
    weights = rng.normal(0, 0.12, 6)
    terms = (axes[0], axes[1], axes[2], axes[1] * axes[2], axes[1] ** 2, axes[2] ** 2)
    field = np.exp(sum(weight * term for weight, term in zip(weights, terms, strict=True)))
    bright = image * field
    shift = int(rng.integers(8, max(image.shape[1] // 3, 9)))
    bright = bright + rng.uniform(0, 0.015) * np.roll(bright, shift, axis=1)
    strength = noise * (1 + 0.4 * np.exp(-2 * (axes[1] ** 2 + axes[2] ** 2)))
    real, imaginary = (
        gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), [0, 0.5, 0.5]) for _ in range(2)
    )
    scale = strength / real.std()
    magnitude = np.hypot(bright + scale * real, scale * imaginary)
    return np.clip(np.rint(magnitude * rng.uniform(300, 1500)), 0, 32000).astype(np.int16)


def truth(head: Head, grid: Grid) -> Volume:
    """Return the label map of a head on a grid: the structure that fills at least half of a voxel, uint8."""
    labels = np.zeros(grid.shape, np.uint8)
    for side in SIDES:
        tumor = head.tumor if head.tumor is not None and head.tumor.side == side else None
        center = head.cochlea_center(side)

        def in_tumor(ear: np.ndarray, tumor: Tumor | None = tumor) -> np.ndarray:
            return sampled(tumor.distance, ear, 20.0) < 0 if tumor else np.zeros(ear.shape[:-1], bool)

        def in_cochlea(ear: np.ndarray, side: str = side, in_tumor: _Inside = in_tumor) -> np.ndarray:
            return (head.cochlea_distance(ear, side) < 0) & ~in_tumor(ear)

        _fill(labels, head, grid, side, COCHLEA, in_cochlea, center[None])
        if tumor is not None:
            _fill(labels, head, grid, side, VS, in_tumor, head.from_ear(tumor.points, side))
    return Volume(labels, grid)


_Inside = Callable[[np.ndarray], np.ndarray]


def _fill(
    labels: np.ndarray, head: Head, grid: Grid, side: str, value: int, inside: _Inside, points: np.ndarray
) -> None:
    """Write a structure into a label map around some of its points (n, 3) in the head."""
    margin = 9.0 if value == COCHLEA else 3.0
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    index = corners @ grid.physical_to_index[:3, :3].T + grid.physical_to_index[:3, 3]
    first = np.clip(np.floor(index.min(axis=0)).astype(int), 0, grid.size)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, first, grid.size)
    if np.any(stop <= first):
        return
    shape = tuple((stop - first)[::-1])
    parts = 2 * np.ceil((np.asarray(grid.spacing) / 0.5 - 1) / 2).clip(0).astype(int) + 1
    voxels = np.moveaxis(np.indices(shape, dtype=np.float64), 0, -1)[..., ::-1] + first

    def to_ear(index: np.ndarray) -> np.ndarray:
        physical = index @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
        return head.to_ear(head.to_template(physical), side)

    ear = to_ear(voxels)
    middle = (first + stop) / 2  # within a voxel the map is linear
    linear = np.array([to_ear((middle + unit)[None])[0] - to_ear(middle[None])[0] for unit in np.eye(3)])
    count = np.zeros(shape, int)
    for step in np.ndindex(*parts.tolist()):
        count += inside(ear + ((np.array(step) + 0.5) / parts - 0.5) @ linear)
    box = tuple(slice(a, b) for a, b in zip(first[::-1], stop[::-1], strict=True))
    labels[box][count * 2 > parts.prod()] = value
