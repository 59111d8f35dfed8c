"""Scores of label maps on an independent set (Testing/independent_sets): Dice, sides, false marks, with intervals."""

import csv
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from crossmoda import labels, volume
from crossmoda.evaluation import dice
from crossmoda.volume import Volume

SIDES = ("left", "right")
#: Parts of a set in the order of the table; ceT1: the heads' ceT1 as scans to segment.
CET1 = "ceT1"
PARTS = ("heads", CET1, "spacings", "real", "others", "broken")
#: Marks within this distance of the tumor are on its side.
_BESIDE_MM = 3.0
#: Draws of the bootstrap.
_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of a set's table."""

    row: dict[str, str]
    folder: Path
    is_cet1: bool = False
    """the ceT1 of a head, as a scan to segment"""

    @property
    def id(self) -> str:
        """The case ID."""
        return self.row["id"]

    @property
    def part(self) -> str:
        """One of :data:`PARTS`."""
        return CET1 if self.is_cet1 else self.row["part"]

    @property
    def side(self) -> str:
        """The side of the tumor; empty without one."""
        return self.row["side"]

    @property
    def scan(self) -> Path:
        """The hrT2, or the ceT1."""
        if self.is_cet1:
            return self.folder / "source_training" / f"{self.id}_ceT1.nii.gz"
        folder = "broken" if self.part == "broken" else "target_validation"
        return self.folder / folder / f"{self.id}_hrT2.nii.gz"

    @property
    def centers(self) -> dict[str, np.ndarray]:
        """The centers of the cochleae, LPS mm; empty where there is none."""
        if not self.row.get("left_x_mm"):
            return {}
        return {side: np.array([float(self.row[f"{side}_{axis}_mm"]) for axis in "xyz"]) for side in SIDES}

    @property
    def expected(self) -> set[str]:
        """The ears that are to be accepted."""
        return set(self.row["expected"].split())

    def truth(self) -> Volume | None:
        """Return the label map on the grid of the scan."""
        path = self.folder / ("source_training" if self.is_cet1 else "truth") / f"{self.id}_Label.nii.gz"
        return volume.read_label_map(path) if path.exists() else None


def cases(folder: Path, parts: Sequence[str]) -> list[Case]:
    """Return the cases of some parts of a set that are on disk."""
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [Case(row, folder) for row in rows if row["part"] in parts]
    chosen += [Case(row, folder, is_cet1=True) for row in rows if row["part"] == "heads" and CET1 in parts]
    return [case for case in chosen if case.scan.exists()]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a label map got right in one case."""

    case: Case
    vs: float
    """Dice of the tumor; NaN without one"""
    cochlea: float
    """Dice of both cochleae; NaN without labels"""
    center_mm: float
    """largest distance of a marked cochlea's center from the true one; infinite for one that is missing, NaN unknown"""
    wrong_side: bool
    """more than half of the marked tumor lies in the contralateral ear"""
    false_mm3: float
    """marked tumor on the side without one, or in a head without one"""
    marked_mm3: float
    noted: bool
    """whether the result has a note about the tumor"""


def score(case: Case, result: Volume, notes: Iterable[str]) -> Score:
    """Compare a label map with the truth of its case."""
    grid, array = result.grid, result.array
    truth = case.truth()
    voxel = grid.voxel_volume_mm3
    marked = _points(result, labels.VS)
    centers = case.centers
    false = len(marked)
    if case.side and len(marked):
        near = [np.linalg.norm(marked - centers[side], axis=1) for side in SIDES]
        contralateral = np.where(near[0] < near[1], *SIDES) != case.side
        if truth is not None:  # a large tumor reaches beyond the midline
            own = distance_transform_edt(truth.array != labels.VS, grid.spacing_zyx)[array == labels.VS] <= _BESIDE_MM
            contralateral &= ~own
        false = int(contralateral.sum())
    has_cochlea = truth is not None and bool((truth.array == labels.COCHLEA).any())
    note = any("schwannoma" in text or "tumor" in text for text in notes)
    return Score(
        case,
        dice(array == labels.VS, truth.array == labels.VS) if truth is not None and case.side else np.nan,
        dice(array == labels.COCHLEA, truth.array == labels.COCHLEA) if truth is not None and has_cochlea else np.nan,
        max((_missed(result, center) for center in centers.values()), default=np.nan),
        bool(case.side and len(marked) and false > len(marked) / 2),
        false * voxel,
        len(marked) * voxel,
        note,
    )


def _points(label_map: Volume, value: int) -> np.ndarray:
    index = np.argwhere(label_map.array == value)[:, ::-1]
    matrix = label_map.grid.index_to_physical
    return index @ matrix[:3, :3].T + matrix[:3, 3]


def _missed(label_map: Volume, center: np.ndarray) -> float:
    """Return how far the center of the marks within 10 mm of a cochlea is from it; infinite without marks."""
    points = _points(label_map, labels.COCHLEA)
    near = points[np.linalg.norm(points - center, axis=1) < 10] if len(points) else points
    return float(np.linalg.norm(near.mean(axis=0) - center)) if len(near) else np.inf


def interval(values: Sequence[float], statistic: Callable[..., np.ndarray] = np.median) -> str:
    """Return a statistic with its 95 % bootstrap interval over cases."""
    known = np.array([value for value in values if not np.isnan(value)])
    if not len(known):
        return "-"
    draws = np.random.default_rng(0).integers(0, len(known), (_RESAMPLES, len(known)))
    low, high = np.percentile(statistic(known[draws], axis=1), [2.5, 97.5])
    return f"{statistic(known):.2f} ({low:.2f} to {high:.2f})"


def table(scores: Sequence[Score]) -> str:
    """Return a Markdown table with a row per group of cases."""
    lines = [
        "| cases | n | tumors found | VS mean | VS median | cochlea mean | cochlea median | both cochleae within 2 mm "
        "| wrong side | healthy heads or ears marked: n, largest mm³, without a note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, group in _groups(scores):
        tumors = [one for one in group if one.case.side]
        vs, cochlea = [one.vs for one in tumors], [one.cochlea for one in group]
        placed = [one for one in group if not np.isnan(one.center_mm)]
        false = [one for one in group if one.false_mm3 > 0]
        largest = max((one.false_mm3 for one in false), default=0.0)
        lines.append(
            f"| {name} | {len(group)} | {sum(value > 0 for value in vs)} of {len(tumors)} | {interval(vs, np.mean)} | "
            f"{interval(vs)} | {interval(cochlea, np.mean)} | {interval(cochlea)} | "
            f"{sum(one.center_mm <= 2 for one in placed)} of {len(placed)} | "
            f"{sum(one.wrong_side for one in group)} | "
            f"{len(false)}, {largest:.0f}, {sum(not one.noted for one in false)} |"
        )
    return "\n".join(lines)


def _groups(scores: Sequence[Score]) -> list[tuple[str, list[Score]]]:
    """Return the groups of the table that have cases."""
    groups: list[tuple[str, list[Score]]] = []
    for part in PARTS:
        members = [one for one in scores if one.case.part == part]
        if not members:
            continue
        groups.append((part, members))
        if part in ("heads", CET1, "real"):
            kinds = sorted({one.case.row["tumor_kind"] for one in members if one.case.side})
            groups += [
                (f"- tumor {kind}", [one for one in members if one.case.row["tumor_kind"] == kind]) for kind in kinds
            ]
            groups.append(("- no tumor", [one for one in members if not one.case.side]))
        if part == "others":
            kinds = sorted({one.case.row["tumor_kind"] for one in members})
            groups += [(f"- {kind}", [one for one in members if one.case.row["tumor_kind"] == kind]) for kind in kinds]
        if part == "heads":
            groups += [
                (f"- {name}", [one for one in members if one.case.row["sequence"] == name]) for name in ("bssfp", "tse")
            ]
        for column in ("slice_mm", "orientation") if part == "spacings" else ():
            for value in sorted({one.case.row[column] for one in members}):
                groups.append((f"- {value}", [one for one in members if one.case.row[column] == value]))
    return [(name, members) for name, members in groups if members]


def write(scores: Sequence[Score], path: Path) -> None:
    """Write one row per case."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "part", "side", "tumor_mm3", "tumor_kind", "sequence", "slice_mm", "orientation",
                         "vs_dice", "cochlea_dice", "cochlea_center_mm", "wrong_side", "false_mm3", "marked_mm3",
                         "noted"])  # fmt: skip
        for one in scores:
            row = one.case.row
            writer.writerow(
                [*(row[key] for key in ("id", "part", "side", "tumor_mm3", "tumor_kind", "sequence", "slice_mm",
                                        "orientation")),
                 round(one.vs, 4), round(one.cochlea, 4), round(one.center_mm, 2), int(one.wrong_side),
                 round(one.false_mm3, 1), round(one.marked_mm3, 1), int(one.noted)]
            )  # fmt: skip
