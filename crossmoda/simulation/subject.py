"""A digital subject: both scans, their labels, and the true position of every point of the anatomy."""

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.simulation import acquisition, deformation
from crossmoda.simulation.deformation import LOWEST, STEP_MM, Deformation
from crossmoda.simulation.lesion import Lesion, draw_lesion, draw_volume, tumor_region
from crossmoda.simulation.painted_anatomy import PaintedAnatomy
from crossmoda.simulation.settings import Settings
from crossmoda.simulation.shapes import real_lesion
from crossmoda.simulation.tissues import Contrast, draw_contrast
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.simulation.bases import Base

BASES = ("phantom", "icbm")
SIDES = ("left", "right")
MODALITIES = ("ceT1", "hrT2")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A digital subject with its truth."""

    seed: int
    base: str
    side: str | None
    """side of the tumor, "left" or "right" of the patient (LPS +x is left); None: no tumor"""
    cet1: Volume
    """contrast-enhanced T1, float32"""
    cet1_label: Volume
    """1 = VS, 2 = cochlea (both sides), uint8, on the grid of ``cet1``"""
    hrt2: Volume
    """high-resolution T2, float32"""
    hrt2_label: Volume
    """like ``cet1_label``, on the grid of ``hrt2``"""
    deformation: Deformation
    """from the space of ``cet1`` to the canonical head"""
    hrt2_to_cet1: np.ndarray
    """4 x 4: movement between the scans, LPS mm"""
    settings: Settings

    def tumor_mm3(self) -> float:
        """Return the volume of the tumor in the ceT1 label."""
        return float((self.cet1_label.array == labels.VS).sum() * self.cet1_label.grid.voxel_volume_mm3)


def simulate_subject(
    seed: int,
    *,
    base: str = "phantom",
    side: str | None = None,
    settings: Settings | None = None,
    base_folder: Path | str | None = None,
    shapes_folder: Path | str | None = None,
    progress: Progress | None = None,
) -> Subject:
    """Simulate a digital subject, deterministically.

    Args:
        seed: random seed of the subject (0 or more).
        base: ``"phantom"`` (self-contained) or ``"icbm"`` (real average anatomy, see :mod:`crossmoda.simulation.icbm`).
        side: side of the tumor; None: random.
        base_folder: folder of the ICBM152 images; None: see :func:`crossmoda.simulation.icbm.find`.
        shapes_folder: expert label maps (1 = VS, 2 = cochlea) whose tumors are used, with their own volumes.

    Raises:
        InputError: unknown base or side, a healthy subject with a tumor volume, or missing images of the base.

    """
    if base not in BASES:
        raise InputError(f"base must be one of {', '.join(BASES)}; got {base!r}.")
    if side is not None and side not in SIDES:
        raise InputError(f"side must be left or right; got {side!r}.")
    if int(seed) != seed or seed < 0:
        raise InputError(f"seed must be an integer of at least 0; got {seed!r}.")
    settings = settings or Settings()
    if settings.healthy and settings.tumor_volume:
        raise InputError("Conflicting settings: healthy and tumor_volume. Remove one of them.")
    # Independent random streams: the settings of the scan do not change the anatomy.
    anatomy, body, contrasts, scan = (np.random.default_rng([int(seed), n]) for n in range(4))
    random_side = SIDES[int(anatomy.random() < 0.5)]
    side = side or random_side
    report(progress, 0.0, f"{base} anatomy")
    material = _material(base, base_folder)

    smooth = Deformation(
        deformation.draw_pose(body, settings.rotation, settings.translation, settings.size),
        deformation.smooth_field(body, settings.deformation * body.uniform(0.75, 1.25)),
    )
    if settings.healthy:
        whole, scene, side = smooth, PaintedAnatomy.healthy(material), None
    else:
        volume = settings.tumor_volume or draw_volume(anatomy)
        whole, lesion = _with_tumor(anatomy, smooth, volume, side, shapes_folder)
        scene = PaintedAnatomy.of(material, lesion, side)
    movement = deformation.rigid_matrix(body, 0.2 * settings.misalignment, 0.24 * settings.misalignment)

    contrast = draw_contrast(contrasts, spread=settings.contrast)
    center = smooth.from_canonical(deformation.CENTER[None])[0]
    volumes = {}
    for n, modality in enumerate(MODALITIES):
        report(progress, 0.3 + 0.35 * n, f"{modality} scan")
        grid = _draw_grid(scan, settings, modality, center)
        to_cet1 = movement if modality == "hrT2" else np.eye(4)
        to_undeformed = whole.affine @ to_cet1 @ grid.index_to_physical
        volumes[modality] = _scan(scan, settings, scene, contrast, modality, grid, to_undeformed, whole)
    report(progress, 1.0, "done")
    (cet1, cet1_label), (hrt2, hrt2_label) = volumes["ceT1"], volumes["hrT2"]
    return Subject(int(seed), base, side, cet1, cet1_label, hrt2, hrt2_label, whole, movement, settings)


def _with_tumor(
    rng: np.random.Generator, smooth: Deformation, volume_mm3: float, side: str, shapes_folder: Path | str | None
) -> tuple[Deformation, Lesion]:
    """Draw a tumor and return the deformation with its mass effect, and the tumor (canonical, left)."""
    mirror = np.array([1 if side == "left" else -1, 1, 1])
    ratio = smooth.volume_ratio(tumor_region(volume_mm3) * mirror)
    lesion = real_lesion(rng, shapes_folder, ratio) if shapes_folder else draw_lesion(rng, volume_mm3 * ratio)
    mass = dataclasses.replace(lesion.mass, center=lesion.mass.center * mirror)
    whole, mass = deformation.with_mass_effect(smooth, mass)
    lesion = dataclasses.replace(lesion, mass=dataclasses.replace(mass, center=mass.center * mirror))
    return whole, _fitted(lesion, whole, mirror, lesion.volume_mm3 / ratio)


def true_points(fixed: Subject, moving: Subject, points_lps: np.ndarray) -> np.ndarray:
    """Return the positions in ``moving``'s ceT1 of anatomical points of ``fixed``'s hrT2.

    Args:
        fixed: subject of the fixed T2 scan.
        moving: subject of the moving T1 scan; may be the same subject.
        points_lps: (N, 3) LPS mm.

    Returns:
        (N, 3) LPS mm, accurate to about 0.001 mm. Within a tumor, the positions of the tissue that it displaced.

    """
    points = np.atleast_2d(np.asarray(points_lps, float))
    in_cet1 = points @ fixed.hrt2_to_cet1[:3, :3].T + fixed.hrt2_to_cet1[:3, 3]
    return moving.deformation.from_canonical(fixed.deformation.to_canonical(in_cet1))


def true_displacement(fixed: Subject, moving: Subject, grid: Grid) -> np.ndarray:
    """Return :func:`true_points` minus the point itself at every voxel of ``grid``: (3, z, y, x) float32, LPS mm."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in grid.shape), indexing="ij")
    index = np.stack([i, j, k], axis=-1).reshape(-1, 3)
    points = grid.to_lps(index)
    return (true_points(fixed, moving, points) - points).T.reshape(3, *grid.shape).astype(np.float32)


def _material(base: str, base_folder: Path | str | None) -> "Base":
    from crossmoda.simulation import bases

    if base == "phantom":
        return bases.phantom()
    from crossmoda.simulation import icbm

    return icbm.base(icbm.find(base_folder))


def _fitted(lesion: Lesion, whole: Deformation, mirror: np.ndarray, volume_mm3: float) -> Lesion:
    """Return the lesion, grown or shrunk to the given volume in the subject."""
    corners = np.array(list(itertools.product(*zip(*lesion.reach, strict=True)))) * mirror
    subject_corners = whole.from_canonical(corners)
    step = max(0.5, lesion.radius_mm / 14)
    axes = [np.arange(a, b, step) for a, b in zip(subject_corners.min(0), subject_corners.max(0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = lesion.distance(lesion.mass.push(whole.to_canonical(points) * mirror))
    count = min(round(volume_mm3 / step**3), len(distance) - 1)
    shift = float(np.partition(distance, count)[count])
    return dataclasses.replace(lesion, distance=lambda at: lesion.distance(at) - shift)


def _draw_grid(rng: np.random.Generator, settings: Settings, modality: str, center: np.ndarray) -> Grid:
    """Draw the geometry of a scan, centered near the internal auditory canals."""
    random_slice_mm, pixel = float(rng.choice([1.0, 1.2, 1.5])), float(rng.choice([0.82, 0.9, 0.9375, 1.0]))
    slice_mm = settings.slice_thickness or (1.5 if modality == "ceT1" else random_slice_mm)
    in_plane = settings.in_plane_spacing * (pixel if modality == "ceT1" else 1.0)
    rotation = acquisition.draw_rotation(rng, settings.oblique, 6.0)
    offset = rng.uniform(-1, 1, 3) * np.array([3.0, 3.0, 3.0])
    spacing = in_plane, in_plane, slice_mm
    return acquisition.scan_grid(spacing, settings.slices, settings.field_of_view, center + offset, rotation)


def _scan(
    rng: np.random.Generator,
    settings: Settings,
    scene: PaintedAnatomy,
    contrast: Contrast,
    modality: str,
    grid: Grid,
    to_undeformed: np.ndarray,
    whole: Deformation,
) -> tuple[Volume, Volume]:
    """Return image and label of a scan on ``grid``."""
    from crossmoda.simulation import bases, kernels

    signal = contrast.cet1 if modality == "ceT1" else contrast.hrt2
    head, ears = bases.colored(scene.material, scene.ears, signal, contrast.texture, modality, rng)
    image = np.zeros(grid.shape, np.float32)
    label = np.zeros(grid.shape, np.uint8)
    matrix = np.ascontiguousarray(to_undeformed[:3])
    profile = acquisition.slice_profile(max(2, round(grid.spacing[2] / 0.4)))
    ear_grid = scene.ears["left"].origin, scene.ears["left"].step
    head_signal = head, scene.material.head.origin, scene.material.head.step
    ear_signals = ears["right"], ears["left"], *ear_grid
    structures = scene.cochlea, scene.lesion, *ear_grid
    field = whole.field, LOWEST, STEP_MM
    sign = -1 if scene.side == "right" else 1

    def sample(a: int, b: int) -> None:
        kernels.sample(matrix, 2, profile, field, head_signal, ear_signals, image, a, b)
        kernels.cover(matrix, 3, 5, field, structures, sign, label, a, b)

    kernels.in_slabs(len(image), sample)
    image *= acquisition.bias_field(rng, grid, settings.bias)
    image = acquisition.add_rician_noise(rng, image, settings.noise)
    image *= np.float32(rng.uniform(180, 320) if modality == "ceT1" else rng.uniform(120, 220))
    return Volume(image, grid), Volume(label, grid)
