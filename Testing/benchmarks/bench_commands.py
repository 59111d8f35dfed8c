"""Whole commands as processes, files included, as a user or Slicer starts them: seconds, processor seconds, memory.

    DEEDSBCV=.../deedsBCV PYTHONPATH=.../convexadam python Testing/benchmarks/bench_commands.py --pairs 2
    python Testing/benchmarks/bench_commands.py --pairs 0 --predict $CROSSMODA_TEST_DATA/real_t2/*_T2*.nii.gz
    python Testing/benchmarks/bench_commands.py --pairs 0 --propagate DATA      # DATA: 30 sources, 2 targets

A pair: ceT1 (moving) to hrT2 (fixed) of two simulated subjects, 384 x 384 x 64, labels warped, all methods in one run.
Every method starts from its own files, on the fixed grid where it needs that, and ends with a warped label map:

- ``crossmoda register``, with and without the label; the CLI module on a crop of 192 x 192 x 64, beside an empty
  process; and, warm in this process, the library alone;
- linearBCV, deedsBCV and applyBCV, if $DEEDSBCV is the folder of these programs (int16, range 0 to 1000);
- convexAdam and its ``apply_convex``, if it is installed;
- SimpleITK affine + B-spline (Mattes mutual information, as in bench_register.py).

Error: distance of the centers of the cochleae from the true label's, and Dice. Compiled code is made before.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from registration_peers import simpleitk
from usage import Clock

from crossmoda import deeds, labels, volume
from crossmoda.evaluation import dice
from crossmoda.volume import Volume
from crossmoda.volume.grid import box_from

ROOT = Path(__file__).resolve().parents[2]
CROSSMODA = [Path(sys.executable).with_name("crossmoda"), "--quiet"]
#: Voxels (z, y, x) of the crop for the CLI module.
CROP = (64, 192, 192)


class Cost(NamedTuple):
    """Cost of one or several processes."""

    seconds: float
    processor_seconds: float
    mib: float


def run(*commands: Sequence[object]) -> Cost:
    """Run commands one after the other; return seconds, processor seconds, and the largest memory."""
    start, processor, mib = time.perf_counter(), 0.0, 0.0
    for command in commands:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT)
            ended = 0
            while not ended:  # the kernel's own peak includes that of this process before the program began
                mib = max(mib, peak_mib(process.pid))
                time.sleep(0.005)
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                output.seek(0)
                raise RuntimeError(f"{command[0]} failed: {output.read().decode(errors='replace')[-400:]}")
        processor += usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - start, processor, mib)


def peak_mib(process: int) -> float:
    """Return the peak of a process's memory so far; 0 where it has just ended."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def write_pair(folder: Path, number: int) -> Volume:
    """Write the files of a pair for all methods; return the true label map of the fixed image."""
    from crossmoda import simulation

    settings = simulation.Settings(slices=64, slice_thickness=1.5)
    side = ("right", "left")[number % 2]
    fixed, moving = (simulation.simulate_subject(seed + number, side=side, settings=settings) for seed in (7000, 8000))
    files = {"fixed": fixed.hrt2, "moving": moving.cet1, "label": moving.cet1_label}
    files |= {f"crop_{name}": middle(item) for name, item in files.items()}
    files["moving_there"] = volume.resample(moving.cet1, fixed.hrt2.grid)
    files["label_there"] = volume.resample(moving.cet1_label, fixed.hrt2.grid, interpolation="nearest")
    for name, item in files.items():
        scale = 1.0 if "label" in name else 1000 / np.percentile(item.array, 99)
        volume.write(item.with_array(np.round(item.array * scale).astype(np.int16)), folder / f"{name}.nii.gz")
    return fixed.hrt2_label


def middle(image: Volume) -> Volume:
    """Return the middle of an image, :data:`CROP` voxels."""
    first = [(count - wanted) // 2 for count, wanted in zip(image.array.shape, CROP, strict=True)]
    return image.crop(box_from(first, CROP))


def registrations(folder: Path) -> Iterator[tuple[str, Cost, Path | None]]:
    """Yield each method, its cost, and the warped label map if it makes one."""
    fixed, moving, label, there, label_there = (
        folder / f"{name}.nii.gz" for name in ("fixed", "moving", "label", "moving_there", "label_there")
    )
    own = [*CROSSMODA, "register", fixed, moving, "--output", folder / "own"]
    yield "crossmoda register", run([*own, "--moving-label", label]), folder / "own" / "warped_label.nii.gz"
    yield "crossmoda register, without a label", run(own), None
    yield "library, warm", library(fixed, moving, label), None
    yield "process that only imports numpy", run([sys.executable, "-c", "import numpy"]), None
    crop = [folder / f"crop_{name}.nii.gz" for name in ("fixed", "moving", "label")]
    outputs = ["--transform", folder / "crop.h5", "--warped_label", folder / "crop_warped.nii.gz"]
    module = ROOT / "CrossModaRegister" / "CrossModaRegister.py"
    yield "CrossModaRegister, crop", run([sys.executable, module, *crop[:2], "--moving_label", crop[2], *outputs]), None
    if programs := os.environ.get("DEEDSBCV"):
        files, warped = ["-F", fixed, "-M", there, "-O", folder / "bcv"], folder / "bcv_label.nii.gz"
        affine = ["-A", folder / "bcv_matrix.txt"]
        warp = ["-M", label_there, "-O", folder / "bcv", "-D", warped, *affine]
        steps = [[f"{programs}/{name}", *words] for name, words in (("linearBCV", files), ("deedsBCV", files + affine))]
        yield "linearBCV + deedsBCV", run(*steps, [f"{programs}/applyBCV", *warp]), warped
    if importlib.util.find_spec("convexAdam"):
        words = ["--path_img_fixed", fixed, "--path_img_moving", there, "--result_path", folder]
        apply = ["--input_field", folder / "disp.nii.gz", "--input_moving", label_there, "--output_warped"]
        warped = folder / "convex_label.nii.gz"
        start = [sys.executable, "-m"]
        steps = [[*start, "convexAdam.convex_adam_MIND", *words], [*start, "convexAdam.apply_convex", *apply, warped]]
        yield "convexAdam", run(*steps), warped
    warped = folder / "itk_label.nii.gz"
    yield "SimpleITK", run([sys.executable, __file__, "--simpleitk", fixed, moving, label, warped]), warped


def library(fixed: Path, moving: Path, label: Path) -> Cost:
    """Return the cost of the registration and the warped label in this process."""
    images = volume.read(fixed), volume.read(moving), volume.read_label_map(label)
    from crossmoda.deeds import registration

    registration.warm_up()
    clock = Clock()
    deeds.register(*images[:2], deeds.Settings(device="cpu")).warp_label_map(images[2])
    return Cost(*clock.read(), 0.0)


def accuracy(warped: np.ndarray, truth: Volume) -> tuple[float, float, float]:
    """Return the mean error of the centers of the cochleae, mm, and the Dice of tumor and cochlea."""
    errors, middle = [], truth.array.shape[2] // 2
    for half in (slice(0, middle), slice(middle, None)):
        centers = []
        for array in (warped, truth.array):
            mask = np.zeros(array.shape, bool)
            mask[:, :, half] = array[:, :, half] == labels.COCHLEA
            centers.append(truth.grid.points(mask).mean(axis=0))
        errors.append(float(np.linalg.norm(centers[0] - centers[1])))
    scores = [float(dice(warped == value, truth.array == value)) for value in (labels.VS, labels.COCHLEA)]
    return float(np.mean(errors)), scores[0], scores[1]


def row(name: str, cost: Cost, cells: Sequence[float] = ()) -> str:
    """Return a row of a table."""
    shown = [f"{cost.seconds:.2f}", f"{cost.processor_seconds:.2f}", f"{cost.mib:.0f}" if cost.mib else ""]
    return f"| {' | '.join([name, *shown, *(f'{value:.2f}' for value in cells)])} |"


def pairs(count: int) -> None:
    """Print a row per method and pair, and the ratios of the medians."""
    print("| method | seconds | processor s | MiB | error in the cochleae, mm | Dice VS | Dice cochlea |")
    print("|---|---|---|---|---|---|---|")
    costs: dict[str, list[Cost]] = {}
    for number in range(1, count + 1):
        with tempfile.TemporaryDirectory() as scratch:
            truth = write_pair(Path(scratch), number)
            for name, cost, warped in registrations(Path(scratch)):
                costs.setdefault(name, []).append(cost)
                is_made = warped is not None
                cells = accuracy(np.rint(volume.read(warped).array), truth) if warped is not None else ()
                print(row(name, cost, cells) + ("" if is_made else " | | |"), flush=True)
    own = costs["crossmoda register"]
    for name, each in costs.items():
        ratios = [statistics.median(a[key] / b[key] for a, b in zip(each, own, strict=True)) for key in (0, 1)]
        print(f"{name}: {ratios[0]:.2f} of the seconds of crossmoda register, {ratios[1]:.2f} of its processor seconds")


def others(scans: list[Path], data: Path | None) -> None:
    """Print the cost of ``predict`` for each scan, and of ``propagate`` for the first and the second target."""
    print("\n| command | seconds | processor s | MiB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for scan in scans:
            output = ["--output", f"{scratch}/{scan.name}"]
            print(row(f"predict {scan.name}", run([*CROSSMODA, "predict", scan, *output])), flush=True)
        if data is not None:
            from crossmoda.dataset import open_dataset

            cases = open_dataset(data)
            for case in cases.targets[:2]:
                words = ["--target", case.image, "--atlases", data, "--output", f"{scratch}/propagated"]
                name = f"propagate {len(cases.sources)} atlases to {case.id}"
                print(row(name, run([*CROSSMODA, "propagate", *words])), flush=True)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--predict", type=Path, nargs="*", default=[], help="scans")
    parser.add_argument("--propagate", type=Path, help="data set of the atlases and of two targets")
    parser.add_argument("--simpleitk", type=Path, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simpleitk:
        fixed, moving, label, output = options.simpleitk
        images = volume.read(fixed), volume.read(moving)
        transform = simpleitk(*images).transform
        volume.write(
            volume.resample(volume.read_label_map(label), images[0].grid, transform, interpolation="label"), output
        )
        return
    if options.pairs:
        pairs(options.pairs)
    if options.predict or options.propagate:
        others(options.predict, options.propagate)


if __name__ == "__main__":
    main()
