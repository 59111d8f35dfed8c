"""Tumors of the independent sets: expert contours of Vestibular-Schwannoma-SEG, placed by their cochlea."""

import csv
import functools
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from subjects import Tumor, grid_of, points_of, sampled

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.volume import Volume

SETS = ("tuning", "claim")
#: Step of the signed distances, mm.
STEP_MM = 0.5
COMPACT, LARGE_MM3 = "compact", 4000.0


@functools.lru_cache(maxsize=1)
def subjects(folder: Path) -> dict[str, list[tuple[str, float]]]:
    """Return per set the subjects with a cochlea and the volume of their tumor, smallest first: every second each."""
    with (folder / "volumes.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["has_cochlea"] == "1"]
    by_size = sorted((float(row["vs_mm3_T2w"]), row["subject"]) for row in rows)
    return {name: [(subject, mm3) for mm3, subject in by_size[k::2]] for k, name in enumerate(SETS)}


def _points(labels: Volume, value: int) -> np.ndarray:
    index = np.argwhere(labels.array == value)[:, ::-1]
    return index @ labels.grid.index_to_physical[:3, :3].T + labels.grid.index_to_physical[:3, 3]


@functools.lru_cache(maxsize=1)
def _room() -> Volume:
    """Return how deep points of the left ear lie in bone, mm: outside of the canal and of the posterior fossa."""
    grid = grid_of(np.array([0.0, -10.0, -78.0]), np.array([70.0, 70.0, -10.0]), 1.0)
    points = points_of(grid)
    marks = template.load().landmarks
    porus, fundus = marks["porus"], marks["fundus"]
    axis = (porus - fundus) / np.linalg.norm(porus - fundus)
    along = np.clip((points - fundus) @ axis, 0, np.linalg.norm(porus - fundus) + 3)
    canal = np.linalg.norm(points - fundus - along[..., None] * axis, axis=-1) < 2.5 + 0.1 * along
    behind = (points - porus) @ np.array([-0.684, 0.729, 0.0]) > 0  # the posterior face of the petrous bone
    return Volume(distance_transform_edt(~(canal | behind)).astype(np.float32), grid)


def depth_in_bone(points: np.ndarray) -> np.ndarray:
    """Return how deep points (..., 3) of the left ear lie in bone, mm; 0 in the canal and in the posterior fossa."""
    return sampled(_room(), points, 5.0)


def expert_tumor(folder: Path, subject: str, side: str, rng: np.random.Generator, kind: str = "") -> Tumor:
    """Return the tumor of a subject in canonical space.

    The contour keeps its place relative to the cochlea of its side, whose center comes to the modiolus. A small
    rotation and shift brings it out of the bone, since patients lie in the scanner at different angles.

    Args:
        folder: the contours.
        subject: name in volumes.csv.
        side: the ear in which it will lie.
        rng: random source.
        kind: ``COMPACT``: shrunk to 60 to 350 mm³ and moved into the canal.

    """
    labels = volume.read(folder / "labels" / f"{subject}_T2wspace_label.nii.gz")
    tumor, cochlea = (_points(labels, value) for value in (1, 2))
    mirror = np.array([np.sign(cochlea[:, 0].mean() - tumor[:, 0].mean()), 1.0, 1.0])
    center = template.load().modiolus
    offsets = (tumor - cochlea.mean(axis=0)) * mirror
    voxel = labels.grid.voxel_volume_mm3
    size = 1.0
    if kind == COMPACT:
        size = float((min(rng.uniform(60, 350), len(tumor) * voxel) / (len(tumor) * voxel)) ** (1 / 3))
        tip = offsets[np.argsort(-offsets[:, 0])[: max(len(offsets) // 50, 3)]].mean(axis=0)
        offsets = tip + (offsets - tip) * size
    sparse = offsets[:: max(len(offsets) // 400, 1)]
    canal = template.load().landmarks
    goal = canal["fundus"] + rng.uniform(0.45, 0.75) * (canal["porus"] - canal["fundus"])

    def cost(pose: np.ndarray) -> float:
        moved = sparse @ Rotation.from_rotvec(pose[:3]).as_matrix().T + center + pose[3:]
        loss = np.mean(depth_in_bone(moved).clip(0, 4) ** 2) + 2.0 * np.sum((pose[:3] / 0.2) ** 2) / 6
        if kind == COMPACT:
            return float(loss + 0.1 * np.sum((moved.mean(axis=0) - goal) ** 2))
        return float(loss + np.sum((pose[3:] / 2.0) ** 2) / 6)

    pose = minimize(cost, np.zeros(6), method="Powell", options={"maxiter": 6, "xtol": 1e-2, "ftol": 1e-3}).x
    rotation = Rotation.from_rotvec(pose[:3]).as_matrix()
    points = offsets @ rotation.T + center + pose[3:]
    # Signed distance on a grid of the canonical space: sample the contour there.
    grid = grid_of(np.floor(points.min(axis=0)) - 6, np.ceil(points.max(axis=0)) + 6, STEP_MM)
    still = (points_of(grid) - center - pose[3:]) @ rotation
    if kind == COMPACT:
        still = tip + (still - tip) / size
    index = np.moveaxis(
        ((still * mirror + cochlea.mean(axis=0) - labels.grid.origin) @ np.linalg.inv(labels.grid.axes).T)
        / labels.grid.spacing,
        -1,
        0,
    )[::-1]
    inside = gaussian_filter(
        map_coordinates((labels.array == 1).astype(np.float32), index, order=1), 0.8 * size / STEP_MM
    )
    wanted = len(tumor) * voxel * size**3
    level = np.sort(inside, axis=None)[-max(round(wanted / STEP_MM**3), 1)]
    mask = inside >= max(level, 1e-3)
    distance = (distance_transform_edt(~mask) - distance_transform_edt(mask)) * STEP_MM
    distance += np.where(mask, 0.5, -0.5) * STEP_MM
    return Tumor(side, Volume(distance.astype(np.float32), grid), subject, float(mask.sum() * STEP_MM**3))
