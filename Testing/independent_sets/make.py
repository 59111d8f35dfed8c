"""Make one of the independent sets: heads with and without a tumor, with truth.

Usage: python Testing/independent_sets/make.py FOLDER --set tuning|claim [--heads N] [--parts PART ...]

Reads the real data of Testing/README.md. The same set and number give the same files; heads that the table
already lists are kept.
"""

import argparse
import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import expert_tumors
import numpy as np
import real_backgrounds
import SimpleITK as sitk
from broken import broken_cases
from expert_tumors import COMPACT, LARGE_MM3, SETS, expert_tumor
from scanner import ORIENTATIONS, Protocol, scan, scan_grid, truth
from subjects import SIDES, Head, Tumor, draw_head

from crossmoda import volume
from crossmoda.anatomy.ear_frame import EarFrames, ear_frames
from crossmoda.volume import Volume

DATA = Path(os.environ.get("CROSSMODA_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SOURCE, TARGET, TRUTH, TABLE = "source_training", "target_validation", "truth", "cases.csv"
#: Heads of a whole set; every second one has a tumor, whose kinds follow each other in this order.
HEADS = 80
KINDS = (COMPACT, "", COMPACT, "large", "")
#: Heads that are scanned with all spacings and orientations, and fields of view (right-left, front-back, head-foot).
VARIED = 8
#: Implanted tumors of each real ear: compact ones, and the same tumors moving tissue aside or covering it.
COMPACT_IMPLANTS, LARGER_IMPLANTS = 2, 2
#: Findings of each real ear that are no schwannoma.
OTHERS = ("canal full of fluid", "cyst", "mass", "mass", "metal")
SPACINGS = {0.4: 0.4, 1.0: 0.5, 1.5: 0.5, 3.0: 0.6}
VIEWS = {"axial": (140.0, 110.0, 42.0), "coronal": (140.0, 52.0, 80.0), "sagittal": (112.0, 90.0, 70.0)}
COLUMNS = (
    "id", "part", "set", "background", "side", "tumor_mm3", "tumor_kind", "expert", "sequence", "in_plane_mm",
    "slice_mm", "orientation", "expected", *(f"{side}_{axis}_mm" for side in SIDES for axis in "xyz"), "cet1_slice_mm",
)  # fmt: skip


Rows = dict[str, dict[str, Any]]


def first_seed(name: str) -> int:
    """Return the seed before the first head of a set."""
    return 10_000 * (1 + SETS.index(name))


def tumor_of(name: str, number: int) -> tuple[Tumor | None, str]:
    """Return the tumor of a head (numbered from 1) and its kind; none for every second head."""
    if number % 2 == 0:
        return None, ""
    rank = number // 2
    kind = KINDS[rank % len(KINDS)]
    folder = DATA / "vs_seg_contours"
    shapes = [
        subject
        for subject, mm3 in expert_tumors.subjects(folder)[name]
        if (mm3 < 700 if kind == COMPACT else mm3 > LARGE_MM3 if kind == "large" else 300 < mm3 <= LARGE_MM3)
    ]
    order = np.random.default_rng(first_seed(name)).permutation(len(shapes))
    earlier = sum(KINDS[k % len(KINDS)] == kind for k in range(rank))
    subject = shapes[order[earlier % len(shapes)]]
    rng = np.random.default_rng([first_seed(name), number])
    return expert_tumor(folder, subject, SIDES[rank % 2], rng, kind), kind or "other"


def head_of(name: str, number: int) -> tuple[Head, str]:
    """Return a head of a set and the kind of its tumor."""
    tumor, kind = tumor_of(name, number)
    return draw_head(first_seed(name) + number, tumor), kind


def _row(case_id: str, part: str, name: str, head: Head, kind: str, protocol: Protocol) -> dict[str, Any]:
    centers = {side: head.cochlea_center(side) for side in SIDES}
    return {
        "id": case_id,
        "part": part,
        "set": name,
        "background": "icbm152",
        **_tumor_cells(head.tumor, kind),
        "sequence": protocol.kind,
        "in_plane_mm": round(protocol.in_plane_mm, 3),
        "slice_mm": round(protocol.slice_mm, 3),
        "orientation": protocol.orientation,
        "expected": "left right",
        **_center_cells(centers),
    }


def _tumor_cells(tumor: Tumor | None, kind: str) -> dict[str, Any]:
    if tumor is None:
        return {"side": "", "tumor_mm3": 0}
    return {"side": tumor.side, "tumor_mm3": round(tumor.volume_mm3, 1), "tumor_kind": kind, "expert": tumor.subject}


def _center_cells(centers: dict[str, np.ndarray]) -> dict[str, float]:
    return {f"{side}_{axis}_mm": round(float(centers[side][k]), 2) for side in SIDES for k, axis in enumerate("xyz")}


def _write(image: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    volume.write(image, path)


def make_heads(folder: Path, name: str, count: int, known: Rows) -> Iterator[dict[str, Any]]:
    """Write hrT2 and ceT1 of heads; yield their rows."""
    icbm = DATA / "icbm152_2009c_sym"
    for number in range(1, count + 1):
        case_id = f"{name}_{number:03d}"
        if case_id in known:
            yield known[case_id]
            continue
        head, kind = head_of(name, number)
        rng = np.random.default_rng([head.seed, 7])
        view = (rng.uniform(150, 180), rng.uniform(120, 145), rng.uniform(38, 46))
        sequence, in_plane, slices = (
            ("bssfp", (0.4, 0.6), (0.5, 1.5)) if rng.random() < 0.6 else ("tse", (0.45, 0.7), (1.2, 3.5))
        )
        target = Protocol(
            sequence, rng.uniform(*in_plane), rng.uniform(*slices), "axial", view, rng.uniform(0.015, 0.05)
        )
        source = Protocol("cet1", rng.uniform(0.42, 0.6), rng.uniform(1.0, 1.8), "axial", view, rng.uniform(0.02, 0.06))
        grid = scan_grid(head, target, rng)
        _write(scan(head, grid, target, icbm, rng), folder / TARGET / f"{case_id}_hrT2.nii.gz")
        _write(truth(head, grid), folder / TRUTH / f"{case_id}_Label.nii.gz")
        grid = scan_grid(head, source, rng)
        _write(scan(head, grid, source, icbm, rng), folder / SOURCE / f"{case_id}_ceT1.nii.gz")
        _write(truth(head, grid), folder / SOURCE / f"{case_id}_Label.nii.gz")
        yield {**_row(case_id, "heads", name, head, kind, target), "cet1_slice_mm": round(source.slice_mm, 3)}


def make_spacings(folder: Path, name: str, count: int, known: Rows) -> Iterator[dict[str, Any]]:
    """Write hrT2 of a few heads with all spacings and orientations; yield their rows."""
    for number in range(1, min(count, VARIED) + 1):
        head, kind = head_of(name, number)
        for (slice_mm, in_plane), orientation in ((s, o) for s in SPACINGS.items() for o in ORIENTATIONS):
            case_id = f"{name}_{number:03d}_{orientation}_{slice_mm:g}".replace(".", "p")
            if case_id in known:
                yield known[case_id]
                continue
            rng = np.random.default_rng([head.seed, 8, round(10 * slice_mm), list(ORIENTATIONS).index(orientation)])
            protocol = Protocol("bssfp", in_plane, slice_mm, orientation, VIEWS[orientation], 0.025)
            grid = scan_grid(head, protocol, rng, tilt_deg=3.0)
            image = scan(head, grid, protocol, DATA / "icbm152_2009c_sym", rng)
            _write(image, folder / TARGET / f"{case_id}_hrT2.nii.gz")
            _write(truth(head, grid), folder / TRUTH / f"{case_id}_Label.nii.gz")
            yield _row(case_id, "spacings", name, head, kind, protocol)


def _real_scan(path: str, name: str, part: str) -> tuple[Volume, EarFrames, str, dict[str, Any]]:
    """Return a real scan, its frames, the stem of its cases and what their rows share."""
    real = real_backgrounds.read(DATA, path)
    common = {
        "part": part,
        "set": name,
        "background": path,
        "sequence": "tse",
        "in_plane_mm": round(min(real.grid.spacing), 3),
        "slice_mm": round(max(real.grid.spacing), 3),
        "orientation": "axial",
        "expected": "left right",
        **_center_cells(real_backgrounds.centers(DATA, path)),
    }
    return real, ear_frames(real), path.split("/")[-1].removesuffix("_T2W").removesuffix("_T2"), common


def make_real(folder: Path, name: str, count: int, known: Rows) -> Iterator[dict[str, Any]]:
    """Write real T2 as they are and with implanted tumors; yield their rows."""
    contours = DATA / "vs_seg_contours"
    shapes = expert_tumors.subjects(contours)[name]
    rng = np.random.default_rng([first_seed(name), 11])
    order = list(rng.permutation(len(shapes)))
    for path in real_backgrounds.SCANS[name]:
        real, frames, stem, common = _real_scan(path, name, "real")
        _write(real, folder / TARGET / f"{stem}_hrT2.nii.gz")
        _write(real.with_array(np.zeros(real.array.shape, np.uint8)), folder / TRUTH / f"{stem}_Label.nii.gz")
        yield {"id": stem, **common, **_tumor_cells(None, "")}
        for frame in frames:
            for number in range(COMPACT_IMPLANTS + LARGER_IMPLANTS):
                is_compact = number < COMPACT_IMPLANTS
                subject = shapes[int(order.pop() if order else rng.integers(len(shapes)))][0]
                tumor = expert_tumor(contours, subject, frame.side, rng, COMPACT if is_compact else "")
                for kind in (COMPACT,) if is_compact else (real_backgrounds.DISPLACING, real_backgrounds.COVERING):
                    displacing = kind != real_backgrounds.COVERING
                    image, label = real_backgrounds.implant(real, frame, tumor, rng, displacing=displacing)
                    case_id = f"{stem}_{frame.side}_{number + 1}_{kind}"
                    _write(image, folder / TARGET / f"{case_id}_hrT2.nii.gz")
                    _write(label, folder / TRUTH / f"{case_id}_Label.nii.gz")
                    yield {"id": case_id, **common, **_tumor_cells(tumor, kind)}


def make_others(folder: Path, name: str, count: int, known: Rows) -> Iterator[dict[str, Any]]:
    """Write real T2 with findings that are no schwannoma, which have no label; yield their rows."""
    contours = DATA / "vs_seg_contours"
    shapes = expert_tumors.subjects(contours)[name]
    rng = np.random.default_rng([first_seed(name), 13])
    for path in real_backgrounds.SCANS[name]:
        real, frames, stem, common = _real_scan(path, name, "others")
        for frame, (number, kind) in itertools.product(frames, enumerate(OTHERS, start=1)):
            few = [subject for subject, mm3 in shapes if kind != "mass" or 300 < mm3 < 2500]
            subject = few[int(rng.integers(len(few)))]
            tumor = expert_tumor(contours, subject, frame.side, rng, COMPACT if kind == OTHERS[0] else "")
            if kind == "metal":
                image = real_backgrounds.with_metal(real, frame, rng)
            elif kind == "mass":
                image, _ = real_backgrounds.implant(real, frame, real_backgrounds.away(tumor, rng), rng)
            else:
                fluid = real_backgrounds.fluid_level(real, frame)
                image, _ = real_backgrounds.implant(real, frame, tumor, rng, displacing=True, level=fluid)
            case_id = f"{stem}_{frame.side}_{number}_{kind.replace(' ', '_')}"
            _write(image, folder / TARGET / f"{case_id}_hrT2.nii.gz")
            _write(real.with_array(np.zeros(real.array.shape, np.uint8)), folder / TRUTH / f"{case_id}_Label.nii.gz")
            yield {"id": case_id, **common, "side": "", "tumor_mm3": 0, "tumor_kind": kind}


def make_broken(folder: Path, name: str, count: int, known: Rows) -> Iterator[dict[str, Any]]:
    """Write the scans in which ears are missing; yield their rows."""
    for case, image, expected in broken_cases(DATA, name, first_seed(name)):
        case_id = f"broken_{case}"
        _write(image, folder / "broken" / f"{case_id}_hrT2.nii.gz")
        yield {"id": case_id, "part": "broken", "set": name, "expected": " ".join(expected), "tumor_mm3": 0}


#: The parts of a set.
MAKERS = {
    "heads": make_heads,
    "spacings": make_spacings,
    "real": make_real,
    "others": make_others,
    "broken": make_broken,
}


def main() -> None:
    """Write the parts of a set and the table of its cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--heads", type=int, default=HEADS)
    parser.add_argument("--parts", nargs="+", choices=MAKERS, default=list(MAKERS))
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / TABLE
    known: Rows = {}
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            known = {row["id"]: row for row in csv.DictReader(file)}
    rows = dict(known)
    for part in arguments.parts:
        for row in MAKERS[part](folder, arguments.set, arguments.heads, known):
            rows[row["id"]] = row
            print(row["id"], flush=True)
            with table.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows.values())


if __name__ == "__main__":
    main()
