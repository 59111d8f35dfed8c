"""Follow-up pairs of the independent sets: one head scanned twice, its tumor changed by a given percentage.

The second scan has another position in the scanner, another grid, other noise and tissue signals, a slightly deformed
head, and often another sequence. Truths: the volumes of both tumors and where a point of the first scan lies in the
second one.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from expert_tumors import COMPACT, expert_tumor, subjects
from scanner import Protocol, scan, scan_grid, truth
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial.transform import Rotation
from subjects import SIDES, Head, Tumor, draw_head

from crossmoda.volume import Volume

#: Changes of the tumor, percent of its volume.
CHANGES = (0, 0, 5, 10, 20, 40, -20)
#: Amplitude and scale of the deformation of the head between the scans, mm.
DEFORMATION_MM, DEFORMATION_SCALE_MM = 0.15, 20.0
#: The second scan's sequence: as the first, another T2, ceT1; every one of so many pairs.
SECOND = ("same", "same", "same", "other T2", "ceT1")
_FINER = 3


@dataclasses.dataclass(frozen=True, eq=False)
class FollowUp:
    """Two scans of one head."""

    scans: tuple[Volume, Volume]
    labels: tuple[Volume, Volume]
    """truth, uint8"""
    sequences: tuple[str, str]
    volumes_mm3: tuple[float, float]
    """of the tumor, canonical mm3: their ratio is the change"""
    side: str
    heads: tuple[Head, Head]
    pose: np.ndarray
    """4 x 4, from points of the second head to points of its scan (LPS mm)"""

    def to_second(self, points: np.ndarray) -> np.ndarray:
        """Return where points (n, 3) of the first scan lie in the second one, LPS mm."""
        moved = self.heads[1].from_template(self.heads[0].to_template(points))
        return moved @ self.pose[:3, :3].T + self.pose[:3, 3]


def volume_within(tumor: Tumor, offset_mm: float = 0.0) -> float:
    """Return the volume enclosed by the level ``offset_mm`` of a tumor's signed distance, mm3."""
    fine = zoom(tumor.distance.array, _FINER, order=1, grid_mode=True, mode="nearest")
    return float((fine < offset_mm).sum()) * tumor.distance.grid.voxel_volume_mm3 / _FINER**3


def changed(tumor: Tumor, percent: float) -> Tumor:
    """Return a tumor whose surface is moved outwards so that its volume changes by a percentage."""
    wanted = volume_within(tumor) * (1 + percent / 100)
    low, high = -3.0, 3.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if volume_within(tumor, middle) < wanted else (low, middle)
    distance = tumor.distance.with_array(tumor.distance.array - np.float32((low + high) / 2))
    return dataclasses.replace(tumor, distance=distance, volume_mm3=tumor.volume_mm3 * (1 + percent / 100))


def _deformed(head: Head, tumor: Tumor | None, rng: np.random.Generator) -> Head:
    step = head.field_grid.spacing[0]
    noise = np.stack([gaussian_filter(rng.standard_normal(head.field_grid.shape), DEFORMATION_SCALE_MM / step)] * 1)
    noise = np.concatenate(
        [noise]
        + [gaussian_filter(rng.standard_normal(head.field_grid.shape), DEFORMATION_SCALE_MM / step)[None] for _ in "yz"]
    )
    small = DEFORMATION_MM * noise / noise.std()
    return dataclasses.replace(head, field=head.field + small, inverse=head.inverse - small, tumor=tumor)


def _protocol(kind: str, view: tuple[float, float, float], rng: np.random.Generator) -> Protocol:
    in_plane, slices, noise = {
        "bssfp": ((0.4, 0.6), (0.5, 1.5), (0.015, 0.05)),
        "tse": ((0.45, 0.7), (1.2, 3.0), (0.015, 0.05)),
        "cet1": ((0.42, 0.6), (1.0, 1.8), (0.02, 0.06)),
    }[kind]
    return Protocol(kind, rng.uniform(*in_plane), rng.uniform(*slices), "axial", view, rng.uniform(*noise))


def follow_up(
    data: Path, name: str, seed: int, percent: float, limits_mm3: Sequence[float] = (100.0, 6000.0)
) -> FollowUp:
    """Return a pair of a set.

    Args:
        data: folder of the contours and of the average head.
        name: the set of the expert contours, ``"tuning"`` or ``"claim"``.
        seed: decides everything.
        percent: change of the tumor's volume.
        limits_mm3: volumes of the tumor at the first scan.

    """
    rng = np.random.default_rng([seed, 21])
    low, high = limits_mm3
    shapes = [(subject, mm3) for subject, mm3 in subjects(data / "vs_seg_contours")[name] if mm3 <= high]
    goal = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    is_compact = goal < 300
    near = sorted(shapes, key=lambda shape: abs(np.log(shape[1] / goal)))[:6]
    subject = near[int(rng.integers(len(near)))][0]
    side = SIDES[seed % 2]
    tumor = expert_tumor(data / "vs_seg_contours", subject, side, rng, COMPACT if is_compact else "")
    heads = [draw_head(seed, tumor)]
    heads.append(_deformed(heads[0], changed(tumor, percent), rng))
    kinds = ["bssfp" if rng.random() < 0.6 else "tse"]
    relation = SECOND[int(rng.integers(len(SECOND)))]
    other = "tse" if kinds[0] == "bssfp" else "bssfp"
    kinds.append({"same": kinds[0], "other T2": other, "ceT1": "cet1"}[relation])
    scans, truths = [], []
    for head, kind in zip(heads, kinds, strict=True):
        view = (rng.uniform(150, 180), rng.uniform(120, 145), rng.uniform(38, 46))
        protocol = _protocol(kind, view, rng)
        grid = scan_grid(head, protocol, rng)
        scans.append(scan(head, grid, protocol, data / "icbm152_2009c_sym", rng))
        truths.append(truth(head, grid))
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(np.radians(rng.normal(0, 5, 3))).as_matrix()
    pose[:3, 3] = rng.normal(0, 12, 3)
    moved = scans[1].grid.moved(pose)
    return FollowUp(
        (scans[0], Volume(scans[1].array, moved)),
        (truths[0], Volume(truths[1].array, moved)),
        (kinds[0], kinds[1]),
        (volume_within(tumor), volume_within(heads[1].tumor or tumor)),
        side,
        (heads[0], heads[1]),
        pose,
    )
