"""Real scans of people without a tumor as backgrounds: simulated and expert tumor shapes are implanted.

The people are in none of the tests: p03 and the stroke patient of the shared data (the latter 1 mm, MIT license), and
of the public set of p03 (Lesjak et al., Neuroinformatics 2016, CC BY; ``longitudinal/raw`` of
github.com/muschellij2/open_ms_data) patients 12 (T2 and T1), 19 and 20 (T1), and 04 (T2) for validation. Their
cochleae were not outlined; the surroundings are ignored in training. A tumor may cover what was there, or push it
aside outside of the canal, with or without a cleft of fluid.
"""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from heads import SPACING_MM, StoredEar, box_grid
from samples import Sample, _noises, scan
from scipy.ndimage import gaussian_filter

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame, ear_frames
from crossmoda.simulation.kernels import in_slabs, jit, trilinear

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


@dataclasses.dataclass(frozen=True)
class Background:
    """A real ear in the canonical frame."""

    image: np.ndarray
    """(z, y, x) float32 on the box's grid, relative to the brain"""
    fluid: float
    """signal of cerebrospinal fluid, relative to the brain"""
    contrast: str
    """real T2 or real T1"""
    cochlea: np.ndarray
    """int8: distance to a ball around the cochlea, 0.1 mm"""


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
        array = frame.sample(image, box_grid()).array.astype(np.float32)
        near = array[20:90, 30:100, 20:80]
        brain = float(np.median(near))
        fluid = float(np.percentile(near, 98)) / brain if t2 else _FLUID_T1
        ball = _ball(frame, centers.get((path.name, frame.side)))
        found.append(Background(array / brain, fluid, "real T2" if t2 else "real T1", ball))
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


def draw(background: Background, ear: StoredEar, rng: np.random.Generator) -> Sample:
    """Draw a sample: the background with the ear's tumor, if it has one."""
    image = background.image
    if rng.random() < 0.5:
        image = np.maximum(image, 0) ** np.float32(rng.uniform(0.75, 1.3))
    fluid = background.fluid
    if ear.about["tumor"]:
        distance = ear.tumor.astype(np.float32) / 10
        if rng.random() < 0.65:
            image = _pushed(image, distance, rng)
            if rng.random() < 0.6:
                image = _cleft(image, distance, fluid, rng)
        image = _with_tumor(image, distance, background.contrast, rng)
    sample = scan(image.astype(np.float32), ear.tumor, background.cochlea, rng, background.contrast, real=True)
    sample.label[sample.label == 2] = IGNORED
    return sample


def _medial() -> np.ndarray:
    """Return how far tissue gives way: 0 in the bone, 1 medial of the canal; (z, y, x) float32."""
    landmarks = template.load().landmarks
    axis = landmarks["porus"] - landmarks["fundus"]
    along = (_positions() - landmarks["porus"]) @ (axis / np.linalg.norm(axis))
    part = np.clip((along - _PUSHED_FROM_MM) / (_PUSHED_FULLY_MM - _PUSHED_FROM_MM), 0, 1)
    return (part * part * (3 - 2 * part)).astype(np.float32)


@jit
def _moved(image, gradient, shift, out, start, stop):
    for k in range(start, stop):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                s = shift[k, j, i]
                if s == 0:
                    out[k, j, i] = image[k, j, i]
                else:
                    gx, gy, gz = gradient[2, k, j, i], gradient[1, k, j, i], gradient[0, k, j, i]
                    out[k, j, i] = trilinear(image, i - s * gx, j - s * gy, k - s * gz)


def _pushed(image: np.ndarray, distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with the tissue of the tumor's place pressed into its surroundings."""
    smooth = gaussian_filter(distance, 2.0, truncate=2)
    gradient = np.stack(np.gradient(smooth, SPACING_MM)).astype(np.float32)
    gradient /= np.maximum(np.linalg.norm(gradient, axis=0), 0.3)
    depth = min(float(-distance.min()), 12.0) * rng.uniform(0.5, 1.0)
    shift = depth * np.clip(1 - distance / _REACH_MM, 0, 1) ** 2 * (distance > 0) * _medial()
    out = np.empty(image.shape, np.float32)
    arguments = np.ascontiguousarray(image, np.float32), gradient, (shift / SPACING_MM).astype(np.float32), out
    in_slabs(len(out), lambda a, b: _moved(*arguments, a, b))
    return out


def _cleft(image: np.ndarray, distance: np.ndarray, fluid: float, rng: np.random.Generator) -> np.ndarray:
    """Return the image with fluid between parts of the tumor and the brain."""
    _, coarse = _noises()
    width = np.clip(rng.uniform(0.3, 1.2) + 0.8 * _shifted(coarse, image.shape, rng), 0, 2.5)
    share = gaussian_filter(((distance > 0) & (distance < width)).astype(np.float32), 0.6) * _medial()
    return image * (1 - share) + np.float32(fluid * rng.uniform(0.6, 1.0)) * share


def _with_tumor(image: np.ndarray, distance: np.ndarray, contrast: str, rng: np.random.Generator) -> np.ndarray:
    """Return the image with the tumor in it, its edge blurred by thick slices."""
    fine, coarse = _noises()
    depth = np.clip(-distance + 0.3, 0, 0.6) / 0.6
    blurred = gaussian_filter(depth, (rng.uniform(0.5, 3.5), rng.uniform(0.5, 1.2), rng.uniform(0.5, 1.2)), truncate=2)
    rough = rng.uniform(0.03, 0.2) * _shifted(coarse, image.shape, rng)
    rough = rough + rng.uniform(0.0, 0.1) * _shifted(fine, image.shape, rng)
    level = rng.uniform(0.75, 1.5) if contrast == "real T2" else rng.uniform(1.2, 2.6)
    return image * (1 - blurred) + np.float32(level) * np.maximum(1 + rough, 0.05) * blurred


def _shifted(noise: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return periodic noise at a random place, (z, y, x)."""
    offset = rng.integers(0, len(noise), 3)
    return noise[np.ix_(*((np.arange(n) + o) % len(noise) for n, o in zip(shape, offset, strict=True)))]


def endless(found: list[Background], rng: np.random.Generator) -> Iterator[Background]:
    """Yield backgrounds at random, T2 three times as often as T1."""
    weight = np.array([3.0 if background.contrast == "real T2" else 1.0 for background in found])
    while True:
        yield found[rng.choice(len(found), p=weight / weight.sum())]
