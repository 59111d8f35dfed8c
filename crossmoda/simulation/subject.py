"""One digital subject: both scans, their labels, and where every point of the anatomy lies."""

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.parameters import Settings as _Settings
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, report
from crossmoda.simulation import acquisition, deformation
from crossmoda.simulation.deformation import LOWEST, STEP_MM, Deformation
from crossmoda.simulation.lesion import BEHIND, PORUS, Lesion, draw_lesion, draw_volume, tumor_region
from crossmoda.simulation.shapes import real_lesion
from crossmoda.simulation.tissues import Contrast, Tissue, draw_contrast
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.simulation.bases import Base

BASES = ("phantom", "icbm")
SIDES = ("left", "right")
MODALITIES = ("ceT1", "hrT2")
#: The signed distance to the tumor where there is none, mm.
_FAR_MM = 9.0


@dataclasses.dataclass(frozen=True)
class Settings(_Settings):
    """How subjects differ and how they are scanned."""

    field_of_view: float = parameter(192.0, "Width of the square slices", unit="mm", minimum=20, maximum=260)
    slices: int = parameter(64, "Number of slices of each scan", minimum=4, maximum=200)
    in_plane_spacing: float = parameter(
        0.5,
        "Pixel size of the T2 scan; that of the T1 scan is 0.8 to 1 times as large",
        unit="mm",
        minimum=0.3,
        maximum=2,
    )
    slice_thickness: float = parameter(
        0.0,
        "Slice thickness of both scans; 0 draws 1.5 mm for T1 and 1 to 1.5 mm for T2",
        unit="mm",
        minimum=0,
        maximum=5,
    )
    deformation: float = parameter(
        4.0,
        "Typical length of the smooth deformation; each subject has 0.75 to 1.25 times as much",
        unit="mm",
        minimum=0,
        maximum=8,
    )
    rotation: float = parameter(
        3.0, "Standard deviation of the head's rotation about each axis", unit="degrees", minimum=0, maximum=30
    )
    translation: float = parameter(
        3.0, "Standard deviation of the head's position along each axis", unit="mm", minimum=0, maximum=40
    )
    size: float = parameter(0.04, "Relative standard deviation of the head's size", minimum=0, maximum=0.15)
    oblique: float = parameter(
        0.5, "Share of the scans that are tilted against the scanner's axes", minimum=0, maximum=1
    )
    noise: float = parameter(0.035, "Standard deviation of the noise, relative to white matter", minimum=0, maximum=0.5)
    bias: float = parameter(0.2, "Largest relative deviation of the coil's sensitivity", minimum=0, maximum=0.8)
    contrast: float = parameter(
        0.07, "Relative standard deviation of the tissues' relaxation times between subjects", minimum=0, maximum=0.2
    )
    misalignment: float = parameter(
        1.0, "Movement between both scans: 1 is the real median of 0.2 degrees and 0.24 mm", minimum=0, maximum=20
    )
    tumor_volume: float = parameter(
        0.0, "Volume of the tumor; 0 draws from the real distribution", unit="mm3", minimum=0, maximum=15000
    )
    healthy: bool = parameter(False, "No tumor: the cochleae alone are labeled")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A digital subject with truth."""

    seed: int
    base: str
    side: str | None
    """the tumor's side, "left" or "right", the patient's (LPS +x is left); None without a tumor"""
    cet1: Volume
    """contrast-enhanced T1, float32"""
    cet1_label: Volume
    """1 = VS, 2 = cochlea (both sides), uint8, on the grid of ``cet1``"""
    hrt2: Volume
    """high-resolution T2, float32"""
    hrt2_label: Volume
    """the same structures on the grid of ``hrt2``"""
    deformation: Deformation
    """from the space of ``cet1`` to the canonical head"""
    hrt2_to_cet1: np.ndarray
    """4 x 4: the small movement between both scans, LPS mm"""
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
    """Make a digital subject; the same arguments give the same subject.

    Args:
        seed: decides everything that differs between subjects (0 or more).
        base: ``"phantom"`` (self-contained) or ``"icbm"`` (real average anatomy, see :mod:`crossmoda.simulation.icbm`).
        side: the tumor's side; drawn by ``seed`` when None. A healthy subject has none.
        settings: see :class:`Settings`.
        base_folder: where the ICBM152 images are; looked for when None.
        shapes_folder: expert label maps (1 = VS, 2 = cochlea) whose tumors are used, with their own volumes.
        progress: told what is done; may cancel.

    Raises:
        InputError: unknown base or side, a healthy subject with a volume of its tumor, or the base's images are not
            found.

    """
    if base not in BASES:
        raise InputError(f"base must be one of {', '.join(BASES)}; got {base!r}.")
    if side is not None and side not in SIDES:
        raise InputError(f"side must be left or right; got {side!r}.")
    if int(seed) != seed or seed < 0:
        raise InputError(f"seed must be a whole number from 0 on; got {seed!r}.")
    settings = settings or Settings()
    if settings.healthy and settings.tumor_volume:
        raise InputError("A healthy subject has no tumor: leave out its volume, or healthy.")
    # One stream for each concern: changing the noise does not change the anatomy.
    anatomy, body, contrasts, scan = (np.random.default_rng([int(seed), n]) for n in range(4))
    drawn = SIDES[int(anatomy.random() < 0.5)]
    side = side or drawn
    report(progress, 0.0, f"{base} anatomy")
    material = _material(base, base_folder)

    smooth = Deformation(
        deformation.draw_pose(body, settings.rotation, settings.translation, settings.size),
        deformation.smooth_field(body, settings.deformation * body.uniform(0.75, 1.25)),
    )
    if settings.healthy:
        whole, scene, side = smooth, Scene.healthy(material), None
    else:
        volume = settings.tumor_volume or draw_volume(anatomy)
        whole, lesion = _with_tumor(anatomy, smooth, volume, side, shapes_folder)
        scene = Scene.of(material, lesion, side)
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
    """Draw a tumor and return the deformation with what it pushes away, and the tumor (canonical, left)."""
    mirror = np.array([1 if side == "left" else -1, 1, 1])
    ratio = smooth.volume_ratio(tumor_region(volume_mm3) * mirror)
    lesion = real_lesion(rng, shapes_folder, ratio) if shapes_folder else draw_lesion(rng, volume_mm3 * ratio)
    mass = dataclasses.replace(lesion.mass, center=lesion.mass.center * mirror)
    whole, mass = deformation.with_mass_effect(smooth, mass)
    lesion = dataclasses.replace(lesion, mass=dataclasses.replace(mass, center=mass.center * mirror))
    return whole, _fitted(lesion, whole, mirror, lesion.volume_mm3 / ratio)


def true_points(fixed: Subject, moving: Subject, points_lps: np.ndarray) -> np.ndarray:
    """Return where anatomical points of ``fixed``'s hrT2 lie in ``moving``'s ceT1.

    Args:
        fixed: the subject whose T2 scan is registered to.
        moving: the subject whose T1 scan is registered; may be the same subject.
        points_lps: (N, 3) LPS mm.

    Returns:
        (N, 3) LPS mm, accurate to about 0.001 mm. Truth is that of the normal anatomy: where a tumor is, of the tissue
        that it pushed away.

    """
    points = np.atleast_2d(np.asarray(points_lps, float))
    in_cet1 = points @ fixed.hrt2_to_cet1[:3, :3].T + fixed.hrt2_to_cet1[:3, 3]
    return moving.deformation.from_canonical(fixed.deformation.to_canonical(in_cet1))


def true_displacement(fixed: Subject, moving: Subject, grid: Grid) -> np.ndarray:
    """Return :func:`true_points` minus the point itself at every voxel of ``grid``: (3, z, y, x) float32, LPS mm."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in grid.shape), indexing="ij")
    index = np.stack([i, j, k], axis=-1).reshape(-1, 3)
    matrix = grid.index_to_physical
    points = index @ matrix[:3, :3].T + matrix[:3, 3]
    return (true_points(fixed, moving, points) - points).T.reshape(3, *grid.shape).astype(np.float32)


def _material(base: str, base_folder: Path | str | None) -> "Base":
    from crossmoda.simulation import bases

    if base == "phantom":
        return bases.phantom()
    from crossmoda.simulation import icbm

    return icbm.base(icbm.find(base_folder))


def _fitted(lesion: Lesion, whole: Deformation, mirror: np.ndarray, volume_mm3: float) -> Lesion:
    """Return the lesion grown or shrunk by the fraction of a mm that gives it its volume in the subject."""
    corners = np.array(list(itertools.product(*zip(*lesion.reach, strict=True)))) * mirror
    around = whole.from_canonical(corners)
    step = max(0.5, lesion.radius_mm / 14)
    axes = [np.arange(a, b, step) for a, b in zip(around.min(0), around.max(0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = lesion.distance(lesion.mass.push(whole.to_canonical(points) * mirror))
    count = min(round(volume_mm3 / step**3), len(distance) - 1)
    shift = float(np.partition(distance, count)[count])
    return dataclasses.replace(lesion, distance=lambda at: lesion.distance(at) - shift)


def _draw_grid(rng: np.random.Generator, settings: Settings, modality: str, center: np.ndarray) -> Grid:
    """Draw the geometry of a scan: the technician puts its middle near the canals."""
    drawn_slice, pixel = float(rng.choice([1.0, 1.2, 1.5])), float(rng.choice([0.82, 0.9, 0.9375, 1.0]))
    slice_mm = settings.slice_thickness or (1.5 if modality == "ceT1" else drawn_slice)
    in_plane = settings.in_plane_spacing * (pixel if modality == "ceT1" else 1.0)
    rotation = acquisition.draw_rotation(rng, settings.oblique, 6.0)
    offset = rng.uniform(-1, 1, 3) * np.array([3.0, 3.0, 3.0])
    protocol = acquisition.Protocol(in_plane, slice_mm, settings.slices, settings.field_of_view)
    return protocol.grid(center + offset, rotation)


@dataclasses.dataclass(frozen=True)
class Scene:
    """The base with one subject's tumor painted into it."""

    material: "Base"
    side: str | None
    """of the tumor"""
    ears: dict
    """side to painting, with the tumor"""
    cochlea: np.ndarray
    lesion: np.ndarray
    """(z, y, x) signed distances on the ear's grid, mm"""

    @classmethod
    def healthy(cls, material: "Base") -> "Scene":
        """Return the base as it is."""
        ears = {name: ear.painting for name, ear in material.ears.items()}
        some = material.ears["left"]
        return cls(material, None, ears, some.cochlea, np.full(some.painting.shape, _FAR_MM, np.float32))

    @classmethod
    def of(cls, material: "Base", lesion: Lesion, side: str) -> "Scene":
        """Paint the tumor into a copy of its side's ear."""
        from crossmoda.simulation.painting import Painting

        ears = {name: ear.painting for name, ear in material.ears.items()}
        clean = ears[side]
        painting = Painting(clean.first.copy(), clean.second.copy(), clean.fraction.copy(), clean.origin, clean.step)
        start, stop = painting.box(*lesion.reach)
        x, y, z = painting.coordinates(start, stop)
        # The ear's grid holds the anatomy before the tumor grew; its shape is known as it is grown. Every second voxel
        # is evaluated: the surface is smooth.
        coarse = [np.append(axis.ravel()[::2], axis.ravel()[-1] + painting.step) for axis in (z, y, x)]
        points = np.stack(np.meshgrid(*coarse, indexing="ij")[::-1], axis=-1)
        grown = lesion.mass.push(points)
        shape = tuple((stop - start)[::-1])
        near = _finer(lesion.distance(grown), shape)
        distance = np.full(painting.shape, _FAR_MM, np.float32)
        distance[start[2] : stop[2], start[1] : stop[1], start[0] : stop[0]] = near
        # A cleft of fluid lies between the tumor's cistern part and the brain that it pushes.
        free = _finer((grown - PORUS) @ BEHIND, shape)
        uneven = _finer(0.6 + 0.4 * np.sin(0.5 * grown.sum(-1)) * np.cos(0.45 * (grown[..., 1] - grown[..., 2])), shape)
        painting.paint(Tissue.CSF, np.maximum(near - uneven, 1.0 - free), start)
        painting.paint(Tissue.TUMOR, near, start)
        for center, radius in lesion.cysts:
            cyst = _finer(np.linalg.norm(grown - center, axis=-1) - radius, shape)
            painting.paint(Tissue.TUMOR_CYST, np.maximum(cyst, near + 1.2), start)
        ears[side] = painting
        return cls(material, side, ears, material.ears[side].cochlea, distance)


def _finer(half: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array sampled at every second voxel (and once beyond the end), linearly interpolated to ``shape``."""
    half = np.asarray(half, np.float32)
    for axis, count in enumerate(shape):
        half = np.moveaxis(half, axis, 0)
        full = np.empty((count, *half.shape[1:]), np.float32)
        full[0::2] = half[: len(full[0::2])]
        full[1::2] = (half[: len(full[1::2])] + half[1 : len(full[1::2]) + 1]) / 2
        half = np.moveaxis(full, 0, axis)
    return np.ascontiguousarray(half)


def _scan(
    rng: np.random.Generator,
    settings: Settings,
    scene: Scene,
    contrast: Contrast,
    modality: str,
    grid: Grid,
    to_undeformed: np.ndarray,
    whole: Deformation,
) -> tuple[Volume, Volume]:
    """Take one scan: return image and label on ``grid``."""
    from crossmoda.simulation import bases, kernels

    signal = contrast.cet1 if modality == "ceT1" else contrast.hrt2
    head, ears = bases.colored(scene.material, scene.ears, signal, contrast.texture, modality, rng)
    some = scene.ears["left"]
    image = np.zeros(grid.shape, np.float32)
    label = np.zeros(grid.shape, np.uint8)
    matrix = np.ascontiguousarray(to_undeformed[:3])
    samples = max(2, round(grid.spacing[2] / 0.4))
    profile = acquisition.slice_profile(samples)
    whole_head = scene.material.head
    sign = -1 if scene.side == "right" else 1

    def sample(a: int, b: int) -> None:
        kernels.sample(
            matrix,
            grid.shape,
            2,
            samples,
            profile,
            whole.field,
            LOWEST,
            STEP_MM,
            head,
            whole_head.origin,
            whole_head.step,
            ears["right"],
            ears["left"],
            some.origin,
            some.step,
            image,
            a,
            b,
        )
        kernels.cover(
            matrix,
            grid.shape,
            3,
            5,
            whole.field,
            LOWEST,
            STEP_MM,
            scene.cochlea,
            scene.lesion,
            sign,
            some.origin,
            some.step,
            label,
            a,
            b,
        )

    kernels.in_slabs(len(image), sample)
    image *= acquisition.bias_field(rng, grid, settings.bias)
    image = acquisition.add_rician_noise(rng, image, settings.noise)
    image *= np.float32(rng.uniform(180, 320) if modality == "ceT1" else rng.uniform(120, 220))
    return Volume(image, grid), Volume(label, grid)
