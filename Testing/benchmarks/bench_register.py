"""Registration: deeds against its peers, on the same pairs in one run.

Pairs: ceT1 (moving) to hrT2 (fixed) of simulated subjects, phantom and ICBM152 anatomy, with known displacement; real
T1 and T2 scans of heads, the T1 moved and bent by a known displacement; real T1 and T2 scans of a spinal cord with a
mask on both. Peers, each if installed:

- deedsBCV: environment variables DEEDSBCV_LINEAR and DEEDSBCV_DEEDS name its programs linearBCV and deedsBCV;
- convexAdam: the package of that name (no linear stage);
- SimpleITK: affine, then B-spline, Mattes mutual information.

deedsBCV and convexAdam need both images on one grid: for them the moving image is resampled onto the fixed grid first.
Labels are warped in the same way for all, from their own grid. Each run has its own process; peak memory is counted
above what the process held before. Seconds and processor seconds (all threads and child processes) are those of the
registration with compiled programs loaded, files of deedsBCV included. ``deeds`` runs twice: the second run counts, and
whether both results agree to the bit is reported. A method that fails or times out is reported and excluded from the
medians. Nothing is built or downloaded.

    python Testing/benchmarks/bench_register.py --icbm 6 --phantom 2 --json bench_register.json
    python Testing/benchmarks/bench_register.py --curve
    python Testing/benchmarks/bench_register.py --cancel
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pickle
import queue
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from registration_peers import PeerResult, methods
from registration_size import cancelling, curve
from scipy import ndimage
from usage import children_mib, memory_mib

from crossmoda import deeds, volume
from crossmoda.evaluation import dice
from crossmoda.labels import STRUCTURES
from crossmoda.volume.grid import Grid, Volume

SHARED = Path(os.environ.get("CROSSMODA_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@dataclasses.dataclass
class Pair:
    """A pair of images with its true correspondences."""

    name: str
    fixed: Volume
    moving: Volume
    fixed_label: Volume
    moving_label: Volume
    structures: dict[str, int]
    points: np.ndarray | None = None
    """(n, 3) anatomical points of the fixed image, LPS mm"""
    truth: np.ndarray | None = None
    """their positions in the moving image"""
    cochlea: np.ndarray | None = None
    """bool: which of the points lie in a cochlea"""


#: Seeds of the fixed and the moving subjects, added to the number of the pair. Levels, thresholds and speed were tuned
#: on ``development`` (pairs 1 to 6); nothing was tuned on ``held out``, on which results are reported.
SEEDS = {"held out": (5000, 6000), "development": (100, 200)}


def simulated_pair(base: str, number: int, seeds: str = "held out") -> Pair:
    """Two subjects with the tumor on the same side: 0.5 x 0.5 x 1.5 mm, 192 x 192 x 64.

    ``seeds`` says which of :data:`SEEDS` they come from. Those for development are 101 to 106 and 201 to 206.
    """
    from crossmoda import simulation

    settings = simulation.Settings(field_of_view=96, slices=64, slice_thickness=1.5)
    folder = SHARED / "icbm152_2009c_sym" if base == "icbm" else None
    side = ("right", "left")[number % 2]
    fixed, moving = (
        simulation.simulate_subject(seed, base=base, side=side, settings=settings, base_folder=folder)
        for seed in (first + number for first in SEEDS[seeds])
    )
    grid = fixed.hrt2.grid
    within = np.zeros(grid.shape, bool)
    within[4:-4:4, 4:-4:8, 4:-4:8] = True
    within &= fixed.hrt2.array > 0.1 * np.percentile(fixed.hrt2.array, 98)
    cochlea = np.argwhere(fixed.hrt2_label.array == 2)[::3]
    index = np.concatenate([np.argwhere(within), cochlea])[:, ::-1]
    matrix = grid.index_to_physical
    points = index @ matrix[:3, :3].T + matrix[:3, 3]
    truth = simulation.true_points(fixed, moving, points)
    inverse = moving.cet1.grid.physical_to_index
    landed = truth @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((landed >= 0) & (landed <= np.array(moving.cet1.grid.size) - 1)).all(axis=1)
    is_cochlea = np.arange(len(points)) >= len(points) - len(cochlea)
    return Pair(
        f"{base} {number}",
        fixed.hrt2,
        moving.cet1,
        fixed.hrt2_label,
        moving.cet1_label,
        {structure.key: structure.value for structure in STRUCTURES},
        points[inside],
        truth[inside],
        is_cochlea[inside],
    )


#: Real heads: T2 (fixed) and T1 on one grid.
HEADS = (
    ("stroke_t1_t2/stroke_T2.nii.gz", "stroke_t1_t2/stroke_T1.nii.gz"),
    ("open_ms/patient07_T2.nii.gz", "open_ms/patient07_T1POST.nii.gz"),
)


def head_pair(number: int, seeds: str = "held out") -> Pair:
    """A real T2 scan, and the T1 scan of the same head in another pose and bent by 4 mm."""
    from crossmoda.simulation.deformation import CENTER, Deformation, draw_pose, smooth_field

    fixed, still = (volume.read(SHARED / name) for name in HEADS[number % len(HEADS)])
    rng = np.random.default_rng(SEEDS[seeds][0] + number)
    bend = Deformation(draw_pose(rng, 5.0, 4.0, 0.03), smooth_field(rng, 4.0))
    grid = fixed.grid
    middle = (grid.index_to_physical @ [*((np.array(grid.size) - 1) / 2), 1])[:3]

    place = np.indices(grid.shape).reshape(3, -1)[::-1].T
    points = place @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
    shown = bend.to_canonical(points - middle) - CENTER + middle
    index = shown @ still.grid.physical_to_index[:3, :3].T + still.grid.physical_to_index[:3, 3]
    moved = ndimage.map_coordinates(still.array, index.T[::-1], order=3, mode="constant").reshape(grid.shape)

    inside = np.zeros(grid.shape, bool)
    inside[4:-4:4, 4:-4:4, 4:-4:4] = True
    some = points[(inside & (fixed.array > 0.1 * np.percentile(fixed.array, 98))).ravel()]
    truth = bend.from_canonical(some - middle + CENTER) + middle
    positions = truth @ grid.physical_to_index[:3, :3].T + grid.physical_to_index[:3, 3]
    seen = ((positions >= 0) & (positions <= np.array(grid.size) - 1)).all(axis=1)
    nothing = Volume(np.zeros(grid.shape, np.uint8), grid)
    images = fixed, Volume(moved.astype(np.float32), grid)
    no_cochlea = np.zeros(int(seen.sum()), bool)
    return Pair(f"head {number}", *images, nothing, nothing, {}, some[seen], truth[seen], no_cochlea)


def cord_pair() -> Pair:
    """The real spinal cord, T1 to T2."""
    folder = SHARED / "sct_cord"
    images = [volume.read(folder / name) for name in ("t2.nii.gz", "t1w.nii.gz")]
    masks = [volume.read_label_map(folder / f"{name}_seg-manual.nii.gz") for name in ("t2", "t1w")]
    return Pair("cord", *images, *masks, {"cord": 1})


def pair_of(group: str, number: int, seeds: str) -> Pair:
    """Return a pair of a group: ``icbm``, ``phantom``, ``heads`` or ``cord``."""
    if group == "cord":
        return cord_pair()
    return head_pair(number, seeds) if group == "heads" else simulated_pair(group, number, seeds)


def _work(method: str, file: str, answer: Any) -> None:
    """Run one method on one pair, in its own process."""
    try:
        with Path(file).open("rb") as stream:
            pair: Pair = pickle.load(stream)
        answer.put(_measured(method, pair))
    except Exception as cause:  # a peer's failure is its result
        answer.put({"failed": f"{type(cause).__name__}: {cause}"[:300]})


def _measured(method: str, pair: Pair) -> dict[str, Any]:
    run = methods()[method]
    if method.startswith("deeds"):
        from crossmoda.deeds import registration

        registration.warm_up()
    before = memory_mib("VmRSS")
    earlier = run(pair.fixed, pair.moving) if method in ("deeds", "deeds, CUDA") else None
    outcome = run(pair.fixed, pair.moving)
    peak = children_mib() if "BCV" in method else memory_mib("VmHWM") - before
    row: dict[str, Any] = _accuracy(outcome, pair)
    row["seconds"], row["processor s"], row["MiB"] = outcome.seconds, outcome.processor_seconds, peak
    if earlier is not None:
        fields = [
            sitk.GetArrayFromImage(
                deeds.Registration(
                    each.transform, each.transform, pair.fixed.grid, pair.moving.grid
                ).displacement_field()
            )
            for each in (earlier, outcome)
        ]
        row["identical again"] = bool(np.array_equal(*fields))
    return row


def _accuracy(outcome: PeerResult, pair: Pair) -> dict[str, Any]:
    """Return Dice and target registration error (mm), folding and inverse consistency."""
    row: dict[str, Any] = {}
    transform = outcome.transform
    result = outcome.registration or deeds.Registration(transform, transform, pair.fixed.grid, pair.moving.grid)
    if pair.points is not None and pair.truth is not None and pair.cochlea is not None:
        landed = np.array([transform.TransformPoint(point) for point in pair.points.tolist()])
        error = np.linalg.norm(landed - pair.truth, axis=1)
        row["TRE mean"] = float(error[~pair.cochlea].mean())
        row["TRE 95%"] = float(np.percentile(error[~pair.cochlea], 95))
        if pair.cochlea.any():
            row["TRE cochlea"] = float(error[pair.cochlea].mean())
    warped = result.warp_label_map(pair.moving_label).array
    for name, value in pair.structures.items():
        row[f"Dice {name}"] = float(dice(warped == value, pair.fixed_label.array == value))
    row["folding %"] = result.jacobian_statistics()["folding_percent"]
    if outcome.registration is not None:
        row["inverse, voxel"] = _inverse_error(outcome.registration, pair.moving.grid)
    return row


def _inverse_error(registration: deeds.Registration, moving: Grid) -> float:
    """Return the mean distance of voxels of the fixed image from themselves after transform and inverse, voxels.

    Voxels that the transform puts outside the moving image are left out: nothing was registered landed.
    """
    grid = registration.fixed_grid
    index = np.stack(np.meshgrid(*(np.arange(3, size, 6) for size in grid.size)), axis=-1).reshape(-1, 3)
    points = index @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
    landed = np.array([registration.transform.TransformPoint(point) for point in points.tolist()])
    place = landed @ moving.physical_to_index[:3, :3].T + moving.physical_to_index[:3, 3]
    inside = ((place >= 0) & (place <= np.array(moving.size) - 1)).all(axis=1)
    back = np.array([registration.inverse_transform.TransformPoint(point) for point in landed[inside].tolist()])
    voxels = (back - points[inside]) @ grid.physical_to_index[:3, :3].T
    return float(np.linalg.norm(voxels, axis=1).mean())


def measure(method: str, pair: Pair, folder: Path, limit: float) -> dict[str, Any]:
    """Return the result of :func:`_measured`, or why it failed; ``limit`` is the time limit, s."""
    file = folder / "pair.pickle"
    with file.open("wb") as stream:
        pickle.dump(pair, stream)
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_work, args=(method, str(file), answer))
    process.start()
    row: dict[str, Any] = {"failed": f"took longer than {limit:g} s"}
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            row = answer.get(timeout=0.2)
            break
        except queue.Empty:
            if not process.is_alive() and answer.empty():
                row = {"failed": f"ended with exit code {process.exitcode}"}
                break
    else:
        process.terminate()
    process.join()
    return row


#: The columns of the tables, in order; "identical again" and "failed" are printed below them.
COLUMNS = ("TRE mean", "TRE 95%", "TRE cochlea", "Dice", "folding %", "inverse, voxel", "seconds", "processor s", "MiB")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the medians per group as Markdown tables, and the runs that failed or were not identical."""
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        known = dict.fromkeys(key for row in mine for key in row)
        columns = [key for start in COLUMNS for key in known if key == start or key.startswith(f"{start} ")]
        columns = list(dict.fromkeys(columns))
        pairs = len({row["pair"] for row in mine})
        lines += [f"\n{group}, medians of {pairs} pair(s)\n", f"| method | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in mine):
            of_method = [row for row in mine if row["method"] == method]
            middle = [[row[column] for row in of_method if column in row] for column in columns]
            shown = [
                _text(column, statistics.median(values)) if values else ""
                for column, values in zip(columns, middle, strict=True)
            ]
            lines.append(f"| {method} | {' | '.join(shown)} |")
    repeated = [row["identical again"] for row in rows if "identical again" in row]
    if repeated:
        lines.append(f"\nThe same to the bit when run again: {sum(repeated)} of {len(repeated)}.")
    lines += [f"\n{row['pair']}, {row['method']} failed: {row['failed']}" for row in rows if "failed" in row]
    return "\n".join(lines)


def _text(column: str, value: float) -> str:
    digits = 0 if column == "MiB" else 3 if "Dice" in column or column == "folding %" else 2
    return f"{value:.{digits}f}"


def main() -> None:
    """Read the arguments, run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icbm", type=int, default=6, help="simulated pairs of ICBM152 anatomy (default 6)")
    parser.add_argument("--phantom", type=int, default=2, help="simulated pairs of phantom anatomy (default 2)")
    parser.add_argument("--heads", type=int, default=0, help="pairs of real heads, bent (default 0)")
    parser.add_argument("--no-cord", action="store_true", help="exclude the real spinal cord")
    parser.add_argument("--first", type=int, default=1, help="number of the first pair of each anatomy")
    parser.add_argument("--development", action="store_true", help="pairs on which settings were tuned")
    parser.add_argument("--methods", nargs="*", choices=list(methods()), help="methods (default: all installed)")
    parser.add_argument("--limit", type=float, default=900, help="time limit of one method on one pair [s]")
    parser.add_argument("--json", type=Path, help="file for all rows, updated after each method")
    parser.add_argument("--curve", action="store_true", help="time by number of voxels only")
    parser.add_argument("--cancel", action="store_true", help="delay of a cancel only")
    options = parser.parse_args()
    if options.curve or options.cancel:
        print(curve() if options.curve else cancelling())
        return
    groups = ("icbm", "phantom", "heads")
    jobs = [(group, options.first + n) for group in groups for n in range(getattr(options, group))]
    jobs += [("cord", 0)] if (SHARED / "sct_cord").is_dir() and not options.no_cord else []
    seeds = "development" if options.development else "held out"
    rows: list[dict[str, Any]] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for done, (group, number) in enumerate(jobs):
            print(f"pair {done + 1} of {len(jobs)}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            pair = pair_of(group, number, seeds)
            for method in options.methods or list(methods()):
                measured = measure(method, pair, Path(folder), options.limit)
                rows.append({"group": group, "pair": pair.name, "method": method, **measured})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(f"Simulated pairs: {seeds} seeds.")
    print(table(rows))


if __name__ == "__main__":
    main()
