"""Expert tumors implanted into real T2 of people without one, and findings that are none."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
from expert_tumors import depth_in_bone
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree
from subjects import Tumor, sampled

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame, patch_grid
from crossmoda.volume import Volume

#: Scans per set: p03 may be tuned on, the others are for claims only.
SCANS = {
    "tuning": ("real_t2/p03_study1_T2W", "real_t2/p03_study2_T2W"),
    "claim": ("real_t2/fnndsc_T2", "open_ms_native/p01_study1_T2W", "open_ms_native/p01_study2_T2W"),
}
#: Implants that move tissue aside, and that cover it.
DISPLACING, COVERING = "displacing", "covering"
#: A point of the cerebellum (canonical, mm) and its surroundings, whose signal the tumor's follows.
_CEREBELLUM, _RADIUS_MM = np.array([16.0, 50.0, -44.0]), 6.0

#: Tissue moves up to this distance from the source (full, none); the reach of a tumor is known in 400 directions and
#: smoothed (radians).
_MOVED_MM, _STILL_MM, _DIRECTIONS, _SMOOTHING = 20.0, 32.0, 400, 0.12


def centers(data: Path, scan: str) -> dict[str, np.ndarray]:
    """Return the listed centers of both cochleae, LPS mm (good to 1.5 mm)."""
    with (data / "real_t2" / "cochlear_centers.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["side"]: np.array([float(row[f"{axis}_lps_mm"]) for axis in "xyz"])
            for row in csv.DictReader(file)
            if row["image"] == f"{scan}.nii.gz"
        }


def displaced(scan: Volume, frame: EarFrame, tumor: Tumor) -> Volume:
    """Return the scan with the tissue of the posterior fossa moved aside by a tumor that grew from the canal's opening.

    The flow from a point source is incompressible: what lies at a distance r from it was at the cube root of r³ - R³
    before, R being the reach of the tumor in that direction. The source lies in the cistern, whose fluid comes to lie
    around the tumor; bone does not move.
    """
    marks = template.load().landmarks
    axis = (marks["porus"] - marks["fundus"]) / np.linalg.norm(marks["porus"] - marks["fundus"])
    source = marks["porus"] + 3.0 * axis
    box, points = _around(scan, frame.to_scan(source + _STILL_MM * np.array([[-1.0] * 3, [1.0] * 3])))
    offsets = frame.to_canonical(points.reshape(-1, 3)).reshape(points.shape) - source
    distance = np.maximum(np.linalg.norm(offsets, axis=-1), 1e-3)
    reach = _reach(tumor.points - source, offsets / distance[..., None])
    soft = np.clip(((offsets + 3.0 * axis) @ axis + 1.0) / 4.0, 0, 1)
    near = np.clip((_STILL_MM - distance) / (_STILL_MM - _MOVED_MM), 0, 1)
    before = np.cbrt(np.maximum(distance**3 - soft * near * reach**3, 0))
    places = frame.to_scan((source + offsets * (before / distance)[..., None]).reshape(-1, 3))
    index = scan.grid.to_index(places)[:, ::-1]
    moved = scan.array.astype(np.float32)
    moved[box] = map_coordinates(moved, index.T, order=1, mode="nearest").reshape(distance.shape)
    return Volume(moved, scan.grid)


def _around(scan: Volume, points: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box of voxels (z, y, x) around points (n, 3), and the positions of its voxels, LPS mm."""
    grid = scan.grid
    box = grid.box_around(points)
    index = np.stack(np.meshgrid(*(np.arange(side.start, side.stop) for side in box), indexing="ij"), -1)[..., ::-1]
    return box, grid.to_lps(index)


def _reach(points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return how far a tumor's points (n, 3) reach from the origin in each direction (..., 3), smoothed."""
    turns = np.arange(_DIRECTIONS) * np.pi * (3 - np.sqrt(5))
    height = 1 - 2 * (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
    sphere = np.stack([np.cos(turns), np.sin(turns), np.zeros(_DIRECTIONS)], -1) * np.sqrt(1 - height**2)[:, None]
    tree = cKDTree(sphere + height[:, None] * np.array([0.0, 0.0, 1.0]))
    length = np.linalg.norm(points, axis=1)
    reach = np.zeros(_DIRECTIONS)
    np.maximum.at(reach, tree.query(points / length[:, None])[1], length)
    apart, nearest = tree.query(directions.reshape(-1, 3), k=8)
    weights = np.exp(-((apart / _SMOOTHING) ** 2))
    return ((reach[nearest] * weights).sum(axis=1) / weights.sum(axis=1)).reshape(directions.shape[:-1])


def implant(
    scan: Volume,
    frame: EarFrame,
    tumor: Tumor,
    rng: np.random.Generator,
    *,
    displacing: bool = False,
    level: float | None = None,
) -> tuple[Volume, Volume]:
    """Return the scan with a tumor and the label map of the tumor (1; cochleae are not labeled).

    ``displacing``: the tumor moves brain and fluid aside; else it covers them. ``level``: its signal, hardly varying;
    near that of the cerebellum and textured if None.
    """
    grid = scan.grid
    points = frame.to_scan(tumor.points)
    index = points @ grid.physical_to_index[:3, :3].T + grid.physical_to_index[:3, 3]
    first = np.clip(np.floor(index.min(axis=0)).astype(int) - 4, 0, grid.size)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 5, first, grid.size)
    shape = tuple((stop - first)[::-1])
    box = tuple(slice(a, b) for a, b in zip(first[::-1], stop[::-1], strict=True))
    parts = 2 * np.ceil((np.asarray(grid.spacing) / 0.3 - 1) / 2).clip(0).astype(int) + 1
    voxels = np.moveaxis(np.indices(shape, dtype=float), 0, -1)[..., ::-1] + first
    share = np.zeros(shape, np.float32)
    for step in np.ndindex(*parts.tolist()):
        offset = voxels + (np.array(step) + 0.5) / parts - 0.5
        physical = offset @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
        share += sampled(tumor.distance, frame.to_canonical(physical), 20.0) < 0
    share /= parts.prod()
    blurred = gaussian_filter(share, [0, 0.5, 0.5])

    image = (displaced(scan, frame, tumor) if displacing else scan).array.astype(np.float32)
    reference = _values(scan, frame)
    spread = float(np.std(reference - np.mean(reference)))
    texture = gaussian_filter(rng.standard_normal(shape), [0.5, 4, 4])
    noise = gaussian_filter(rng.standard_normal(shape), [0, 0.6, 0.6])
    roughness = 0.03
    if level is None:
        level, roughness = np.median(reference) * rng.uniform(0.85, 1.35), rng.uniform(0.05, 0.15)
    signal = level * (1 + roughness * texture / texture.std()) + 0.6 * spread * noise / noise.std()
    image[box] = image[box] * (1 - blurred) + signal * blurred
    label = np.zeros(grid.shape, np.uint8)
    label[box] = share > 0.5
    return Volume(np.clip(np.rint(image), 0, 32767).astype(np.int16), grid), Volume(label, grid)


def fluid_level(scan: Volume, frame: EarFrame) -> float:
    """Return the signal of fluid near an ear."""
    return float(np.percentile(frame.sample(scan, patch_grid()).array, 98))


def away(tumor: Tumor, rng: np.random.Generator) -> Tumor:
    """Return a tumor's shape moved along the posterior face of the petrous bone, at least 5 mm off the canal.

    Of random places up to 26 mm away it is the one with the least part in bone. Works for tumors below 2.5 mL.
    """
    marks = template.load().landmarks
    canal = np.linspace(marks["fundus"], marks["porus"], 9)
    places = []
    for _ in range(300):
        angle, way = rng.uniform(0, 2 * np.pi), rng.uniform(12, 26)
        offset = way * np.array([0.729 * np.cos(angle), 0.684 * np.cos(angle), np.sin(angle)])
        grid = tumor.distance.grid
        origin = tuple((np.asarray(grid.origin) + offset).tolist())
        moved = dataclasses.replace(
            tumor, distance=Volume(tumor.distance.array, dataclasses.replace(grid, origin=origin))
        )
        if sampled(moved.distance, canal, 20.0).min() > 5:
            places.append((float(np.mean(depth_in_bone(moved.points))), len(places), moved))
    return min(places)[2]


def with_metal(scan: Volume, frame: EarFrame, rng: np.random.Generator) -> Volume:
    """Return the scan with the signal extinguished around a point of the mastoid, and a bright rim."""
    center = template.load().modiolus + rng.uniform([18.0, 4.0, -8.0], [30.0, 20.0, 12.0])
    radius = rng.uniform(8.0, 14.0)
    box, points = _around(scan, frame.to_scan(center + (radius + 6) * np.array([[-1.0] * 3, [1.0] * 3])))
    distance = np.linalg.norm(points - frame.to_scan(center[None])[0], axis=-1)
    image = scan.array.astype(np.float32)
    rim = np.median(_values(scan, frame)) * np.exp(-(((distance - radius) / 1.5) ** 2))
    image[box] = image[box] * np.clip((distance - radius) / 2, 0, 1) + rim
    return Volume(np.rint(image).astype(np.int16), scan.grid)


def _values(scan: Volume, frame: EarFrame) -> np.ndarray:
    """Return the values of the cerebellum beside an ear."""
    center = frame.to_scan(_CEREBELLUM[None])[0]
    middle = scan.grid.physical_to_index[:3, :3] @ center + scan.grid.physical_to_index[:3, 3]
    reach = np.ceil(_RADIUS_MM / np.asarray(scan.grid.spacing)).astype(int)
    first = np.clip(np.round(middle).astype(int) - reach, 0, np.asarray(scan.grid.size) - 1)
    stop = np.clip(np.round(middle).astype(int) + reach + 1, first + 1, scan.grid.size)
    values: np.ndarray = scan.array[tuple(slice(a, b) for a, b in zip(first[::-1], stop[::-1], strict=True))]
    return values.astype(np.float32).ravel()


def read(data: Path, scan: str) -> Volume:
    """Return a real scan."""
    return volume.read(data / f"{scan}.nii.gz")
