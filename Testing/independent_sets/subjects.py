"""Heads of the independent sets: the ICBM152 average, deformed, its tissues and both ears painted anew.

Shares no code with crossmoda.simulation. Template space is LPS mm with the midplane at x = 0; the ears follow the
landmarks of the ear frame and the definition of the cochlea (docs/cochlea.md), in true mm.
"""

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.cochlea import MODES, mean_cochlea
from crossmoda.volume import Grid, Volume

SIDES = ("left", "right")
STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
#: The part of the template that is painted: lowest and highest corner, and its step, mm.
LOW, HIGH, STEP_MM = np.array([-86.0, -66.0, -76.0]), np.array([86.0, 112.0, 0.0]), 0.5
#: The box of the left ear that is painted.
EAR_LOW, EAR_HIGH = np.array([4.0, 4.0, -66.0]), np.array([58.0, 58.0, -22.0])
FIELD_STEP_MM = 4.0
#: T1 and T2 of the ICBM152 average in tissues: read off its images.
TISSUES = {
    "bone": (90, 60),
    "fluid": (300, 950),
    "gray": (640, 560),
    "white": (880, 400),
    "muscle": (600, 150),
    "fat": (700, 280),
}
#: How far a voxel may be from a tissue's values.
_SPREAD = 90.0
#: Lowest and highest signal of a tissue in each kind of scan, cerebrospinal fluid or white matter 1.
SIGNALS: dict[str, dict[str, tuple[float, float]]] = {
    "bssfp": {
        "bone": (0.02, 0.07), "fluid": (0.95, 1.05), "gray": (0.33, 0.46), "white": (0.27, 0.38), "muscle": (0.10, 0.2),
        "fat": (0.2, 0.55), "nerve": (0.3, 0.45), "vessel": (0.05, 0.6), "tumor": (0.3, 0.55), "cyst": (0.75, 1.0),
    },
    "tse": {
        "bone": (0.01, 0.05), "fluid": (0.9, 1.05), "gray": (0.42, 0.6), "white": (0.3, 0.42), "muscle": (0.08, 0.18),
        "fat": (0.45, 0.85), "nerve": (0.35, 0.5), "vessel": (0.02, 0.1), "tumor": (0.38, 0.65), "cyst": (0.75, 1.0),
    },
    "cet1": {
        "bone": (0.04, 0.12), "fluid": (0.14, 0.26), "gray": (0.6, 0.78), "white": (0.9, 1.05), "muscle": (0.5, 0.75),
        "fat": (0.9, 1.5), "nerve": (0.6, 0.8), "vessel": (1.2, 1.9), "tumor": (1.2, 2.0), "cyst": (0.25, 0.5),
    },
}  # fmt: skip


def grid_of(low: np.ndarray, high: np.ndarray, step: float) -> Grid:
    """Return a grid along the LPS axes."""
    size = np.round((high - low) / step).astype(int) + 1
    return Grid(tuple(size.tolist()), (step,) * 3, tuple(np.asarray(low, float).tolist()), STRAIGHT)


def points_of(grid: Grid) -> np.ndarray:
    """Return the voxel centers (z, y, x, 3), float32."""
    axes = [grid.origin[a] + grid.spacing[a] * np.arange(grid.size[a], dtype=np.float32) for a in range(3)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return np.stack([x, y, z], axis=-1)


@functools.lru_cache(maxsize=1)
def shares(folder: Path) -> tuple[Grid, dict[str, np.ndarray]]:
    """Return the share of each tissue in the average head at 1 mm, float32 (z, y, x)."""
    grid = grid_of(LOW, HIGH, 1.0)
    images = []
    for contrast in ("T1", "T2"):
        image = volume.read(folder / f"icbm152_09c_{contrast}.nii.gz")
        values = volume.resample(image, grid).array.astype(np.float32)
        images.append(values + 0.8 * (values - gaussian_filter(values, 1.6)))  # less blur than an average has
    distances = {
        name: ((images[0] - t1) ** 2 + (images[1] - t2) ** 2) / (2 * _SPREAD**2) for name, (t1, t2) in TISSUES.items()
    }
    least = np.min(list(distances.values()), axis=0)
    weights = {name: np.exp(least - distance) for name, distance in distances.items()}
    total = np.sum(list(weights.values()), axis=0)
    return grid, {name: (weight / total).astype(np.float32) for name, weight in weights.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Tumor:
    """A tumor in one ear, in canonical space (left ear, true mm)."""

    side: str
    distance: Volume
    """signed distance, mm, negative inside"""
    subject: str
    """the expert contour"""
    volume_mm3: float

    @property
    def points(self) -> np.ndarray:
        """The positions of its voxels (n, 3), mm."""
        return points_of(self.distance.grid)[self.distance.array < 0]


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """A deformed head; the same anatomy for all its scans."""

    seed: int
    matrix: np.ndarray
    """4 x 4, from points of the head (LPS mm) to template points before the deformation"""
    field: np.ndarray
    """(3, z, y, x) displacement of template points, mm, and its grid"""
    inverse: np.ndarray
    field_grid: Grid
    scale: float
    """size of the head relative to the template"""
    sizes: dict[str, float]
    """side -> linear size of the labyrinth in true mm relative to the mean"""
    modes: dict[str, tuple[float, ...]]
    tumor: Tumor | None

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Return template points of points (..., 3) in the head."""
        still = points @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        return still + _at(self.field, self.field_grid, still)

    def from_template(self, points: np.ndarray) -> np.ndarray:
        """Return points in the head of template points (..., 3)."""
        still = points + _at(self.inverse, self.field_grid, points)
        return (still - self.matrix[:3, 3]) @ np.linalg.inv(self.matrix[:3, :3]).T

    def transform(self) -> sitk.Transform:
        """Return the transform from head to template points."""
        affine = sitk.AffineTransform(self.matrix[:3, :3].ravel().tolist(), self.matrix[:3, 3].tolist())
        image = sitk.GetImageFromArray(np.moveaxis(self.field, 0, -1).astype(np.float64), isVector=True)
        image.SetOrigin(self.field_grid.origin)
        image.SetSpacing(self.field_grid.spacing)
        return sitk.CompositeTransform([sitk.DisplacementFieldTransform(image), affine])

    def to_ear(self, points: np.ndarray, side: str) -> np.ndarray:
        """Return canonical points (left ear, true mm around the modiolus) of template points (..., 3)."""
        center = template.load().modiolus
        return center + (points * _mirror(side) - center) * self.scale

    def from_ear(self, points: np.ndarray, side: str) -> np.ndarray:
        """Return points in the head of canonical points (..., 3)."""
        center = template.load().modiolus
        return self.from_template((center + (points - center) / self.scale) * _mirror(side))

    def cochlea_center(self, side: str) -> np.ndarray:
        """Return the center of the cochlea in the head, LPS mm."""
        return self.from_ear(template.load().modiolus[None], side)[0]

    def cochlea_distance(self, points: np.ndarray, side: str) -> np.ndarray:
        """Return the signed distance to the label of the cochlea at canonical points (..., 3), mm."""
        return mean_cochlea().distance(points, self.sizes[side], self.modes[side])


def _mirror(side: str) -> np.ndarray:
    return np.array([1.0 if side == "left" else -1.0, 1.0, 1.0])


def sampled(image: Volume, points: np.ndarray, outside: float) -> np.ndarray:
    """Return an image along the LPS axes at points (..., 3)."""
    index = (points - image.grid.origin) / image.grid.spacing
    return map_coordinates(image.array, np.moveaxis(index[..., ::-1], -1, 0), order=1, cval=outside)


def _at(field: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    index = np.moveaxis(((points - grid.origin) / grid.spacing)[..., ::-1], -1, 0)
    return np.stack([map_coordinates(part, index, order=1, mode="nearest") for part in field], axis=-1)


def exponential(velocity: np.ndarray, grid: Grid, steps: int = 6) -> np.ndarray:
    """Return the displacement (3, z, y, x) of a stationary velocity by scaling and squaring (Arsigny et al. 2006)."""
    field = velocity / 2**steps
    points = points_of(grid)
    for _ in range(steps):
        field = field + np.moveaxis(_at(field, grid, points + np.moveaxis(field, 0, -1)), -1, 0)
    return field


def draw_head(seed: int, tumor: Tumor | None = None) -> Head:
    """Return a head with random size, position, deformation and ears."""
    rng = np.random.default_rng([seed, 1])
    grid = grid_of(LOW - 40, HIGH + 40, FIELD_STEP_MM)
    velocity = np.zeros((3, *grid.shape))
    for blur_mm, amplitude_mm in ((24.0, 3.2), (9.0, 0.7)):
        noise = rng.standard_normal((3, *grid.shape))
        smooth = np.stack([gaussian_filter(part, blur_mm / FIELD_STEP_MM) for part in noise])
        velocity += amplitude_mm * smooth / smooth.std()
    scale = float(rng.uniform(0.83, 0.95))
    stretch = np.exp(rng.normal(0, 0.02, 3))
    angles = rng.normal(0, [9, 4, 6])  # pitch, roll, yaw
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(1 / (scale * stretch)) @ rotation
    matrix[:3, 3] = np.array([0.0, 20.0, -42.0]) - matrix[:3, :3] @ rng.normal(0, [8, 20, 30])
    sizes = {side: float(np.exp(rng.normal(0, 0.05))) for side in SIDES}
    modes = {side: tuple(rng.normal(0, 0.7, MODES).clip(-1.5, 1.5).tolist()) for side in SIDES}
    return Head(
        seed, matrix, exponential(velocity, grid), exponential(-velocity, grid), grid, scale, sizes, modes, tumor
    )


def _f(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)


def _segment(points: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to a line segment and the position along it, 0 to 1."""
    along = _f(stop - start)
    offset = points - _f(start)
    share = np.clip((offset @ along) / (along @ along), 0, 1)
    return np.linalg.norm(offset - share[..., None] * along, axis=-1), share


def _path(points: np.ndarray, corners: list[tuple[float, float, float]], radius: float) -> np.ndarray:
    """Return the signed distance to a chain of segments."""
    pairs = itertools.pairwise(corners)
    return np.min([_segment(points, np.array(a), np.array(b))[0] for a, b in pairs], axis=0) - radius


def _ring(points: np.ndarray, center: np.ndarray, normal: np.ndarray, radius: float, lumen: float) -> np.ndarray:
    offset = points - _f(center)
    height = offset @ _f(normal)
    flat = np.sqrt(np.maximum((offset**2).sum(axis=-1) - height**2, 0))
    return np.hypot(flat - radius, height) - lumen


def _unit(*values: float) -> np.ndarray:
    return np.array(values) / np.linalg.norm(values)


def paint(head: Head, kind: str, folder: Path, rng: np.random.Generator) -> Volume:
    """Return the signal of a head in template space for a kind of scan (``SIGNALS``)."""
    signal = {name: float(rng.uniform(*limits)) for name, limits in SIGNALS[kind].items()}
    if kind == "cet1" and rng.random() < 0.25:
        signal["fat"] *= 0.2  # fat saturation
    coarse_grid, tissue = shares(folder)
    coarse = np.zeros(coarse_grid.shape, np.float32)
    for name, share in tissue.items():
        coarse += np.float32(signal[name]) * share
    grid = grid_of(LOW, HIGH, STEP_MM)
    image = volume.resample(Volume(coarse * _texture(head, coarse_grid.shape), coarse_grid), grid).array
    for side in SIDES:
        box, steps = _ear(head, side)
        part = image[box]
        for step in steps:
            if step.warp is not None:
                part[...] = map_coordinates(part.copy(), step.warp, order=1, mode="nearest")
            else:
                part += step.share * (np.float32(signal[step.tissue]) * step.factor - part)
    return Volume(image, grid)


@functools.lru_cache(maxsize=1)
def _texture(head: Head, shape: tuple[int, int, int]) -> np.ndarray:
    noise = np.random.default_rng([head.seed, 2]).standard_normal(shape, dtype=np.float32)
    smooth = gaussian_filter(noise, 1.5)
    return 1 + np.float32(0.06) * smooth / smooth.std()


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """One layer of paint over the average, or a displacement of what is there."""

    share: np.ndarray | float = 0.0
    tissue: str = ""
    factor: np.ndarray | float = 1.0
    warp: np.ndarray | None = None


@functools.lru_cache(maxsize=2)
def _ear(head: Head, side: str) -> tuple[tuple[slice, ...], list[_Step]]:
    """Return the box of one ear on the painted grid, and its layers: the same in all scans of the head."""
    rng = np.random.default_rng([head.seed, 3 + SIDES.index(side)])
    grid = grid_of(LOW, HIGH, STEP_MM)
    corners = np.array([EAR_LOW, EAR_HIGH]) * _mirror(side)
    if head.tumor is not None and head.tumor.side == side:  # a large one reaches beyond the box
        center = template.load().modiolus
        reach = (center + (head.tumor.points - center) / head.scale) * _mirror(side)
        corners = np.vstack([corners, reach.min(axis=0) - 4, reach.max(axis=0) + 4])
    low, high = corners.min(axis=0).clip(LOW, HIGH), corners.max(axis=0).clip(LOW, HIGH)
    first = np.round((low - grid.origin) / STEP_MM).astype(int)
    stop = np.round((high - grid.origin) / STEP_MM).astype(int)
    start = np.asarray(grid.origin) + first * STEP_MM
    local = grid_of(start, start + (stop - first - 1) * STEP_MM, STEP_MM)
    points = head.to_ear(points_of(local), side).astype(np.float32)
    steps = _anatomy(head, side, points, rng)
    if head.tumor is not None and head.tumor.side == side:
        steps += _tumor(head.tumor, points, STEP_MM * head.scale, rng)
    return tuple(slice(a, b) for a, b in zip(first[::-1], stop[::-1], strict=True)), steps


def _anatomy(head: Head, side: str, points: np.ndarray, rng: np.random.Generator) -> list[_Step]:
    """Return the layers of canal, labyrinth, nerves and vessels."""
    step = STEP_MM * head.scale
    marks = template.load().landmarks
    porus, fundus = marks["porus"] + rng.normal(0, 0.5, 3), marks["fundus"] + rng.normal(0, 0.3, 3)
    vestibule, lateral = marks["vestibule"] + rng.normal(0, 0.25, 3), marks["lateral_canal"]
    steps: list[_Step] = []

    def lay(distance: np.ndarray, tissue: str, factor: np.ndarray | float = 1.0, soft: float = 1.0) -> None:
        steps.append(_Step(np.clip(0.5 - distance / (soft * step), 0, 1).astype(np.float32), tissue, factor))

    axis_distance, along = _segment(points, fundus, porus + 2.0 * (porus - fundus) / np.linalg.norm(porus - fundus))
    canal = axis_distance - (1.7 + rng.uniform(0.7, 1.9) * along)
    cochlea = head.cochlea_distance(points, side).astype(np.float32)
    turn = rng.normal(0, 0.08, 3)
    rings = np.min(
        [
            _ring(points, lateral - np.array([3.1, 0.2, 0.0]), _unit(*(np.array([0.0, 0.4, 0.92]) + turn)), 3.1, 0.6),
            _ring(points, vestibule + np.array([2.3, -1.0, 3.2]), _unit(*(np.array([0.7, 0.7, 0.0]) + turn)), 3.1, 0.6),
            _ring(points, vestibule + np.array([2.8, 3.9, 0.8]), _unit(*(np.array([0.7, -0.7, 0.0]) + turn)), 3.0, 0.6),
        ],
        axis=0,
    )
    sac = (np.linalg.norm((points - _f(vestibule)) / _f((1.9, 2.7, 2.2)), axis=-1) - 1) * 2.1
    labyrinth = np.minimum(rings, sac)
    capsule = np.minimum(np.minimum(labyrinth, cochlea) - 1.6, np.where(along < 0.75, canal - 1.3, 9.0))
    lay(capsule, "bone", soft=2.0)
    lay(canal, "fluid")
    for offset in ((0.0, -0.9, 0.9), (0.0, -0.9, -0.8), (0.0, 0.8, 0.7), (0.0, 0.9, -0.7)):
        nerve, _ = _segment(points, fundus + 0.8 * np.array(offset), porus + 1.3 * np.array(offset))
        lay(nerve - rng.uniform(0.3, 0.55), "nerve")
    root, _ = _segment(points, porus, marks["brainstem_entry"])
    lay(root - 0.8, "nerve")
    lay(labyrinth, "fluid", 0.95)
    axis = marks["cochlear_apex"] - marks["modiolus"]
    core, _ = _segment(points, marks["modiolus"] - axis, marks["modiolus"] + axis)
    lay(cochlea + 0.15, "fluid", 0.92 - 0.45 * np.exp(-((core / 0.8) ** 2)))
    sigmoid = [(50.0, 56.0, -36.0), (48.0, 50.0, -45.0), (42.0, 42.0, -56.0), (33.0, 34.0, -62.0)]
    lay(_path(points, sigmoid, 3.2 + 0.5 * rng.normal()), "vessel", soft=2.0)
    lay(_path(points, [(33.0, 16.0, -62.0), (30.0, 13.0, -52.0), (20.0, 6.0, -47.0)], 2.4), "vessel", soft=2.0)
    lay(
        _path(points, [(6.0, 17.0, -48.0), (15.0, 22.0, -46.5), (23.0, 27.5, -44.0), (20.0, 33.0, -46.0)], 0.5),
        "vessel",
    )
    return steps


def _tumor(tumor: Tumor, points: np.ndarray, step: float, rng: np.random.Generator) -> list[_Step]:
    """Return the layers of a tumor; it displaces what lies beside its cisternal part."""
    steps = []
    distance = sampled(tumor.distance, points, 20.0)
    inside = tumor.points
    free = inside[inside[:, 0] < template.load().landmarks["porus"][0] - 2]
    if len(free) > 0.3 * len(inside) and tumor.volume_mm3 > 700:
        radius = np.float32((3 * tumor.volume_mm3 * len(free) / len(inside) / (4 * np.pi)) ** (1 / 3))
        offset = points - _f(free.mean(axis=0))
        reach = np.linalg.norm(offset, axis=-1)
        pull = 0.75 * radius * np.exp(-(((reach - radius) / (0.8 * radius)) ** 2)) * (reach > 0.2 * radius)
        behind = 1 / (1 + np.exp(-(offset @ _f(_unit(-0.68, 0.73, 0.0)) + 0.3 * radius) / 2))  # not into the bone
        shift = np.minimum(pull, 0.9 * reach) * behind / np.maximum(reach, 0.1)
        mirrored = -1.0 if tumor.side == "right" else 1.0
        index = np.indices(distance.shape, dtype=np.float32)
        index -= np.moveaxis(
            (offset * shift[..., None])[..., ::-1] * _f((1.0, 1.0, mirrored)) / np.float32(step), -1, 0
        )
        steps.append(_Step(warp=index))
    shape = np.clip(0.5 - distance / step, 0, 1).astype(np.float32)
    rim = np.clip(0.5 - (distance - rng.uniform(0.2, 0.9)) / step, 0, 1) * (points[..., 0] < 26)
    steps.append(_Step(rim.astype(np.float32), "fluid"))
    coarse, fine = (gaussian_filter(rng.standard_normal(shape.shape, dtype=np.float32), blur) for blur in (3.0, 0.9))
    texture = 1 + rng.uniform(0.05, 0.25) * coarse / coarse.std() + 0.06 * fine / fine.std()
    steps.append(_Step(shape, "tumor", np.maximum(texture, 0.1).astype(np.float32)))
    deep = inside[sampled(tumor.distance, inside, 0.0) < -2.0]
    if tumor.volume_mm3 > 1200 and len(deep) and rng.random() < 0.4:
        for center in rng.permutation(deep)[: rng.integers(1, 4)]:
            cyst = np.linalg.norm((points - _f(center)) / _f(rng.uniform(1.5, 4.0, 3)), axis=-1) - 1
            share = np.clip(0.5 - 2 * cyst / step, 0, 1) * (distance < -0.8)
            steps.append(_Step(share.astype(np.float32), "cyst"))
    return steps
