"""Real scans of people without a tumor as backgrounds: simulated and expert tumor shapes are implanted.

The people are in none of the tests: p03 and the stroke patient of the shared data (the latter 1 mm, MIT license), and
in a folder patients 04 and 12 (T2 and T1), 19 and 20 (T1) of the public set of p03 (Lesjak et al., Neuroinformatics
2016, CC BY; ``longitudinal/raw`` of github.com/muschellij2/open_ms_data), p51 (``register/T2w.nii.gz`` of
github.com/niivue/niivue-demo-images, BSD 2-Clause) and p52 (T1, ``seg3D/MR.nii.gz`` of
github.com/neurolabusc/VolumeRenderingData, MIT). For validation: p99 (``T2.nii.gz`` of
github.com/muschellij2/msseg_test) and p98 (``BRAINIX/NIfTI/T2.nii.gz`` of github.com/muschellij2/Neurohacking_data,
slices of 6 mm). Their cochleae were not outlined; the surroundings are ignored in training. A tumor may cover what was
there, or push it aside outside of the canal, with or without a cleft of fluid. What is no schwannoma is drawn as well,
without a label: fluid in the shape of one (arachnoid cysts, canals after surgery), masses away from the canal, metal.
"""

import csv
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from heads import SPACING_MM, StoredEar, box_grid
from samples import Sample, _noises, scan
from scipy.ndimage import gaussian_filter

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame, ear_frames
from crossmoda.simulation.kernels import in_slabs, jit, mapped, trilinear

SHARED = (
    *(f"real_t2/p03_{name}" for name in ("study1_T2W", "study2_T2W", "study2_T1W")),
    *(f"stroke_t1_t2/stroke_{name}" for name in ("T2", "T1")),
)
IGNORED = 255
_IGNORED_MM = 5.5
#: Signal of cerebrospinal fluid in T1, relative to the brain.
_FLUID_T1 = 0.35
#: Where a tumor pushes tissue aside: medial of the opening of the canal (mm along its axis), up to this distance.
_PUSHED_FROM_MM, _PUSHED_FULLY_MM, _REACH_MM = -1.0, 3.0, 12.7
#: How often metal is drawn, and how often another mass is fluid; how far one that is not lies from the canal, mm.
_METAL, _FLUID_FILLED, _AWAY_MM = 0.04, 0.6, 5.0
#: Directions along the posterior face of the petrous bone (canonical): lateral and up.
_ALONG_BONE = np.array([[0.729, 0.684, 0.0], [0.0, 0.0, 1.0]])


@dataclasses.dataclass(frozen=True)
class Background:
    """A real ear with the slices of its scan."""

    scan: np.ndarray
    """(z, y, x) float32: the part of the scan around the ear, relative to the brain"""
    to_box: np.ndarray
    """4 x 4, from its index (x, y, z) to that of the canonical box"""
    slice_mm: float
    fluid: float
    """signal of cerebrospinal fluid, relative to the brain"""
    contrast: str
    """real T2 or real T1"""
    cochlea: np.ndarray
    """int8 on the box's grid: distance to a ball around the cochlea, 0.1 mm"""


def backgrounds(shared: Path, folder: Path | None = None) -> list[Background]:
    """Return the ears of the training people: of the shared data, and of a folder (:func:`people`)."""
    centers = _listed_centers(shared)
    own = [ear for name in SHARED for ear in _ears(shared / f"{name}.nii.gz", centers)]
    return own + (people(folder) if folder else [])


def people(folder: Path) -> list[Background]:
    """Return the ears of all scans ``pNN_studyN_T2W.nii.gz`` and ``_T1W`` in a folder."""
    return [ear for path in sorted(folder.glob("p*_T?W.nii.gz")) for ear in _ears(path, {})]


def _ears(path: Path, centers: dict[tuple[str, str], np.ndarray]) -> list[Background]:
    image, t2 = volume.read(path), "_T2" in path.name
    found = []
    for frame in ear_frames(image).accepted:
        box = box_grid()
        near = frame.sample(image, box).array[20:90, 30:100, 20:80]
        brain = float(np.median(near))
        fluid = float(np.percentile(near, 98)) / brain if t2 else _FLUID_T1
        corners = box.to_lps(np.array(list(itertools.product(*((0, n - 1) for n in box.size)))))
        part = image.crop(image.grid.box_around(frame.to_scan(corners)))
        matrix = np.linalg.inv(frame.matrix @ box.index_to_physical) @ part.grid.index_to_physical
        ball = _ball(frame, centers.get((path.name, frame.side)))
        scan = np.ascontiguousarray(part.array / brain, np.float32)
        found.append(Background(scan, matrix, part.grid.spacing[2], fluid, "real T2" if t2 else "real T1", ball))
    return found


def _listed_centers(shared: Path) -> dict[tuple[str, str], np.ndarray]:
    with (shared / "real_t2" / "cochlear_centers.csv").open(encoding="utf-8", newline="") as file:
        return {
            (Path(row["image"]).name, row["side"]): np.array([float(row[f"{axis}_lps_mm"]) for axis in "xyz"])
            for row in csv.DictReader(file)
        }


def _positions() -> np.ndarray:
    """Return the canonical points of the box, (z, y, x, 3) mm."""
    grid = box_grid()
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return np.asarray(grid.origin) + SPACING_MM * np.stack([x, y, z], -1)


def _ball(frame: EarFrame, center: np.ndarray | None) -> np.ndarray:
    canonical = template.load().landmarks["modiolus"] if center is None else frame.to_canonical(center[None])[0]
    distance = np.linalg.norm(_positions() - canonical, axis=-1) - _IGNORED_MM
    return np.clip(10 * distance, -127, 127).astype(np.int8)


def draw(background: Background, ear: StoredEar, rng: np.random.Generator, other: StoredEar | None = None) -> Sample:
    """Draw a sample: the background with the ear's tumor, if it has one, in the slices of its scan.

    ``other``: an ear whose tumor's shape becomes that of a finding that is no schwannoma.
    """
    power = rng.uniform(0.7, 1.35) if rng.random() < 0.5 else 1.0
    image = np.maximum(background.scan, 0) ** np.float32(power) if power != 1 else background.scan
    fluid, tumor = float(background.fluid**power), ear.tumor.astype(np.float32) / 10
    if other is not None:
        image = _with_other(image, background, fluid, other.tumor.astype(np.float32) / 10, rng)
    if ear.about["tumor"]:
        image = _implanted(image, background, fluid, tumor, _tumor_level(background, rng), rng)
    box = np.empty(ear.tumor.shape, np.float32)
    from_box = np.ascontiguousarray(np.linalg.inv(background.to_box)[:3])
    image = np.ascontiguousarray(image, np.float32)
    in_slabs(len(box), lambda a, b: _sampled(image, from_box, image.min(), box, a, b))
    if background.contrast == "real T2" and rng.random() < 0.6:
        _flow(box, fluid, rng)
    if rng.random() < _METAL:
        _metal(box, tumor, rng)
    sample = scan(box, ear.tumor, background.cochlea, rng, background.contrast, real=True)
    sample.label[sample.label == 2] = IGNORED
    return sample


def _tumor_level(background: Background, rng: np.random.Generator) -> float:
    """Return the signal of a tumor, relative to the brain."""
    return float(rng.uniform(0.75, 1.5) if background.contrast == "real T2" else rng.uniform(1.2, 2.6))


def _with_other(
    image: np.ndarray, background: Background, fluid: float, shape: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return a scan with a finding of a tumor's shape that is none: full of fluid, or solid and away from the canal."""
    if rng.random() < _FLUID_FILLED:
        return _implanted(image, background, fluid, shape, fluid * rng.uniform(0.85, 1.05), rng, rough=0.03)
    angle, way = rng.uniform(0, 2 * np.pi), rng.uniform(12.0, 24.0)
    shape = _shifted_by(shape, way * (np.cos(angle) * _ALONG_BONE[0] + np.sin(angle) * _ALONG_BONE[1]))
    index = box_grid().to_index(np.array([template.load().landmarks[name] for name in ("porus", "fundus")]))
    if min(shape[tuple(np.rint(point[::-1]).astype(int))] for point in index) < _AWAY_MM:
        return image
    return _implanted(image, background, fluid, shape, _tumor_level(background, rng), rng)


def _shifted_by(distance: np.ndarray, offset_mm: np.ndarray) -> np.ndarray:
    """Return distances moved by an offset (x, y, z) in canonical space; far from the shape where none are known."""
    moved = np.full_like(distance, 12.7)
    steps = np.rint(offset_mm[::-1] / SPACING_MM).astype(int)
    to = tuple(slice(max(n, 0), size + min(n, 0)) for n, size in zip(steps, distance.shape, strict=True))
    of = tuple(slice(max(-n, 0), size + min(-n, 0)) for n, size in zip(steps, distance.shape, strict=True))
    moved[to] = distance[of]
    return moved


def _metal(box: np.ndarray, tumor: np.ndarray, rng: np.random.Generator) -> None:
    """Extinguish the signal around a point, with a bright rim, where that hides no tumor."""
    points = _positions()
    center = points[tuple(rng.integers(0, n) for n in box.shape)]
    distance = np.linalg.norm(points - center, axis=-1).astype(np.float32)
    radius = rng.uniform(5.0, 18.0)
    if distance[tumor < 0].min(initial=np.inf) > radius + 2:
        box *= np.clip((distance - radius) / 2, 0, 1)
        box += np.float32(rng.uniform(0.3, 2.0)) * np.exp(-(((distance - radius) / 1.5) ** 2))


def _flow(box: np.ndarray, fluid: float, rng: np.random.Generator) -> None:
    """Darken parts of the fluid, as its flow does: what stays bright beside them is no tumor."""
    _, coarse = _noises()
    least = 1 + 0.5 * (fluid - 1)
    share = np.clip((box - least) / max(fluid - least, 1e-3), 0, 1)
    where = np.clip(0.5 + 0.8 * _shifted(coarse, box.shape, rng), 0, 1)
    box -= np.float32(rng.uniform(0.2, 0.9)) * where * share * (box - 1)


@jit
def _sampled(image, matrix, outside, out, start, stop):
    nz, ny, nx = image.shape
    for k in range(start, stop):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                x, y, z = mapped(matrix, i, j, k)
                within = x > -1 and y > -1 and z > -1 and x < nx and y < ny and z < nz
                out[k, j, i] = trilinear(image, x, y, z) if within else outside


@functools.cache
def _medial() -> np.ndarray:
    """Return how far tissue gives way: 0 in the bone, 1 medial of the canal; (z, y, x) float32."""
    landmarks = template.load().landmarks
    axis = landmarks["porus"] - landmarks["fundus"]
    along = (_positions() - landmarks["porus"]) @ (axis / np.linalg.norm(axis))
    part = np.clip((along - _PUSHED_FROM_MM) / (_PUSHED_FULLY_MM - _PUSHED_FROM_MM), 0, 1)
    return (part * part * (3 - 2 * part)).astype(np.float32)


def _implanted(
    image: np.ndarray,
    background: Background,
    fluid: float,
    distance: np.ndarray,
    level: float,
    rng: np.random.Generator,
    rough: float = 0.2,
) -> np.ndarray:
    """Return a scan with a tumor that covers what was there, or pushes it aside, with or without a cleft of fluid.

    Every voxel of the scan holds the average over its slice, as a scanner would measure it.

    Args:
        image: the background's scan, (z, y, x).
        background: where it lies, and its slices.
        fluid: signal of fluid, relative to the brain.
        distance: signed distance to the tumor on the box's grid, mm.
        level: signal of the tumor, relative to the brain.
        rng: random source.
        rough: up to which share of it its signal varies.

    """
    gradient = np.zeros((3, *distance.shape), np.float32)
    shift, cleft = np.zeros_like(distance), np.zeros_like(distance)
    if rng.random() < 0.65:
        gradient, shift = _push(distance, rng)
        if rng.random() < 0.6:
            cleft = _cleft(distance, rng)
    out = np.empty((4, *image.shape), np.float32)
    profile = rng.uniform(0.85, 1.3)
    parts = int(np.clip(np.ceil(background.slice_mm * profile / 0.5), 1, 9))
    offsets = profile * ((np.arange(parts) + 0.5) / parts - 0.5)
    matrix, back = background.to_box[:3], np.linalg.inv(background.to_box)[:3]
    _, coarse = _noises()
    start = rng.integers(0, len(coarse), 3)
    arguments = np.ascontiguousarray(matrix), np.ascontiguousarray(back), image, gradient, shift, distance, cleft
    in_slabs(len(image), lambda a, b: _in_slices(*arguments, offsets, coarse, start, out, a, b))
    moved, share, share_of_fluid, coarse_noise = out
    in_plane = (0.0, *rng.uniform(0.3, 1.2, 2))
    share, share_of_fluid = (gaussian_filter(part, in_plane, truncate=2.5) for part in (share, share_of_fluid))
    moved = moved * (1 - share_of_fluid) + np.float32(fluid * rng.uniform(0.6, 1.0)) * share_of_fluid
    grain = gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (0, 0.6, 0.6), truncate=2)
    texture = rng.uniform(0.03, rough) * coarse_noise + rng.uniform(0.0, rough / 2) / 0.47 * grain
    return moved * (1 - share) + np.float32(level) * np.maximum(1 + texture, 0.05) * share


@jit
def _in_slices(matrix, back, image, gradient, shift, distance, cleft, offsets, coarse, offset, out, start, stop):
    """Write the pushed image, the shares of tumor and of fluid in each voxel's slice, and smooth noise."""
    period = coarse.shape[0]
    for k in range(start, stop):
        for j in range(image.shape[1]):
            for i in range(image.shape[2]):
                u, v, w = mapped(matrix, i, j, k)
                value = image[k, j, i]
                s = trilinear(shift, u, v, w)
                if s > 0:
                    x = u - s * trilinear(gradient[2], u, v, w)
                    y = v - s * trilinear(gradient[1], u, v, w)
                    z = w - s * trilinear(gradient[0], u, v, w)
                    a, b, c = mapped(back, x, y, z)
                    value = trilinear(image, a, b, c)
                inside = fluid = np.float32(0)
                if trilinear(distance, u, v, w) < 6:
                    for n in range(len(offsets)):
                        x, y, z = mapped(matrix, i, j, k + offsets[n])
                        inside += min(max(0.5 - trilinear(distance, x, y, z) / 0.6, 0.0), 1.0)
                        fluid += trilinear(cleft, x, y, z)
                out[0, k, j, i] = value
                out[1, k, j, i] = inside / len(offsets)
                out[2, k, j, i] = fluid / len(offsets)
                p, q, r = (int(u) + offset[0]) % period, (int(v) + offset[1]) % period, (int(w) + offset[2]) % period
                out[3, k, j, i] = coarse[r, q, p]


def _push(distance: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return in which direction (3, z, y, x) and how far (voxels of the box) the tumor presses tissue aside."""
    smooth = gaussian_filter(distance, 2.0, truncate=2)
    gradient = np.stack(np.gradient(smooth, SPACING_MM)).astype(np.float32)
    gradient /= np.maximum(np.linalg.norm(gradient, axis=0), 0.3)
    depth = min(float(-distance.min()), 12.0) * rng.uniform(0.5, 1.0)
    shift = depth * np.clip(1 - distance / _REACH_MM, 0, 1) ** 2 * (distance > 0) * _medial()
    return gradient, (shift / SPACING_MM).astype(np.float32)


def _cleft(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the share of fluid between parts of the tumor and the brain."""
    _, coarse = _noises()
    width = np.clip(rng.uniform(0.3, 1.2) + 0.8 * _shifted(coarse, distance.shape, rng), 0, 2.5)
    within = ((distance > 0) & (distance < width)).astype(np.float32)
    return (gaussian_filter(within, 0.6) * _medial()).astype(np.float32)


def _shifted(noise: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return periodic noise at a random place, (z, y, x)."""
    offset = rng.integers(0, len(noise), 3)
    return noise[np.ix_(*((np.arange(n) + o) % len(noise) for n, o in zip(shape, offset, strict=True)))]


def endless(found: list[Background], rng: np.random.Generator) -> Iterator[Background]:
    """Yield backgrounds at random, T2 three times as often as T1."""
    weight = np.array([3.0 if background.contrast == "real T2" else 1.0 for background in found])
    while True:
        yield found[rng.choice(len(found), p=weight / weight.sum())]
