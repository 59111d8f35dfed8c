"""Correctness and speed of all CUDA paths, in one command.

    python Testing/benchmarks/bench_gpu.py                        # all parts, about five minutes
    python Testing/benchmarks/bench_gpu.py --only registration    # one part
    python Testing/benchmarks/bench_gpu.py --device cpu --quick   # dry run of the benchmark without a card

Simulates its digital subjects. Each part runs in its own process; if it fails or hangs, its last output is shown and
the others go on. Prints a Markdown table with the goals. Needs numpy, scipy, SimpleITK, torch, numba and safetensors;
downloads nothing.
"""

import argparse
import contextlib
import json
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from crossmoda import volume
from crossmoda.device import cores
from crossmoda.volume import Grid, Volume

#: Time limit of a part, s.
LIMIT = 150
#: Marks the line with the results of a part.
RESULT = "RESULT "

Row = tuple[str, str, str, bool | None]
"""quantity, measured value, goal, whether the goal is reached"""


def row(what: str, value: float, unit: str, goal: float, more: bool = False) -> Row:
    """Return a line of the table: ``value`` below the goal, or above it with ``more``."""
    return (
        what,
        f"{value:.3g} {unit}",
        f"{'>' if more else '<'} {goal:g} {unit}",
        value > goal if more else value < goal,
    )


def seconds_of(work: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Return the wall seconds of each run; a warm-up run is excluded."""
    import torch

    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(f"first {seconds[0]:.3f} s, then {', '.join(f'{value:.3f}' for value in seconds[1:])}")
    return seconds[1:]


# Data


def subject(job: tuple[int, Path | None]) -> tuple[Volume, ...]:
    """Simulate a subject; also write image and label map where paths are passed."""
    from crossmoda.simulation import simulate_subject

    seed, path = job
    scans = simulate_subject(seed)
    if path is not None:
        modality = "hrT2" if "hrT2" in path.name else "ceT1"
        image, label = (scans.hrt2, scans.hrt2_label) if modality == "hrT2" else (scans.cet1, scans.cet1_label)
        volume.write(Volume(image.array.astype(np.float32), image.grid), path)
        volume.write(label, path.with_name(path.name.replace(f"_{modality}", "_Label")))
    return scans.cet1, scans.hrt2


def middle(image: Volume, grid: Grid | None = None) -> Volume:
    """Return the 192 x 192 x 64 voxels in the middle of an image, or its voxels on a grid."""
    if grid is None:
        corner = [(size - part) // 2 for size, part in zip(image.grid.size, (192, 192, 64), strict=True)]
        origin = (image.grid.index_to_physical @ [*corner, 1])[:3]
        grid = Grid((192, 192, 64), image.grid.spacing, tuple(origin.tolist()), image.grid.direction)
    return volume.resample(image, grid)


def make_data(folder: Path, atlases: int) -> None:
    """Write the pair to register, and a data set of atlases and one target."""
    from crossmoda.deeds import registration

    jobs: list[tuple[int, Path | None]] = [(1, None), (2, None)]
    for number in range(1, atlases + 1):
        jobs.append((100 + number, folder / "data" / "source_training" / f"crossmoda_{number}_ceT1.nii.gz"))
    jobs.append((99, folder / "data" / "target_validation" / "crossmoda_900_hrT2.nii.gz"))
    for _, path in jobs[2:]:
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
    workers = min(cores(), 16)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = pool.map(subject, jobs)
        registration.warm_up()  # compiled here once, while the subjects are made, for all parts
        subjects = list(made)
    fixed = middle(subjects[0][1])
    moving = middle(subjects[1][0], fixed.grid)
    (folder / "pair.pkl").write_bytes(pickle.dumps((fixed, moving)))


# Parts: each returns lines of the table


def card(folder: Path, device: str, quick: bool) -> list[Row]:
    """Software, card, and which of torch's two optional helpers work."""
    import torch

    from crossmoda.deeds import backend_cuda

    print(f"python {sys.version.split()[0]}, torch {torch.__version__}, {cores()} processor cores")
    if device != "cuda":
        return [("card", "none", "", None)]
    properties = torch.cuda.get_device_properties(0)
    about = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    counts = backend_cuda._bit_counter(torch.device("cuda")) is not backend_cuda._differing_bits
    if not counts:
        with contextlib.suppress(AssertionError):
            from torch.cuda.jiterator import _create_jit_fn

            sample = torch.arange(5, device="cuda")
            print(_create_jit_fn(backend_cuda._COUNT_ON_CARD)(sample, sample, sample))  # raises the reason
    return [("card", about, "", None), ("bits counted by the card", "yes" if counts else "no", "yes", counts)]


def registration(folder: Path, device: str, quick: bool) -> list[Row]:
    """Default settings on a pair of 192 x 192 x 64 voxels: seconds, agreement with the processor, same bits."""
    import SimpleITK as sitk

    from crossmoda import deeds

    fixed, moving = pickle.loads((folder / "pair.pkl").read_bytes())
    on_card = []

    def register() -> None:
        on_card.append(deeds.register(fixed, moving, deeds.Settings(device=device, levels=2 if quick else 5)))

    times = seconds_of(register, 2 if quick else 7, device)
    on_cpu = deeds.register(fixed, moving, deeds.Settings(device="cpu", levels=2 if quick else 5))
    fields = [sitk.GetArrayFromImage(each.displacement_field()) for each in (on_cpu, on_card[-1], on_card[-2])]
    difference = float(np.linalg.norm(fields[0] - fields[1], axis=-1).mean())
    same = bool(np.array_equal(fields[1], fields[2]))
    rows = [
        row("registration 192 x 192 x 64, median", statistics.median(times), "s", 0.3),
        row("its difference from the processor's, mean", difference, "mm", 0.1),
        ("the same bits on every run", "yes" if same else "no", "yes", same),
        row("its inverse consistency, mean", float(on_card[-1].inverse_consistency().mean()), "mm", 0.25),
    ]
    if device == "cuda":
        rows.append(_profile(register))
    return rows


def _profile(work: Callable[[], object]) -> Row:
    """Print the kernel time of one registration and its longest kernels."""
    from bench_network import device_intervals

    busy, names = device_intervals(work)
    for name, seconds in names[:12]:
        print(f"  {seconds * 1e3:8.2f} ms  {name[:90]}")
    return ("of that, kernels", f"{busy:.3g} s", "", None)


def inference(folder: Path, device: str, quick: bool) -> list[Row]:
    """MIND and the network with the bundled weights on one crop, from array to array."""
    import torch

    from crossmoda import inference, weights
    from crossmoda.inference.probabilities import predict_probabilities

    model = weights.load(weights.bundled())
    image = np.random.default_rng(0).normal(size=(16, 64, 64) if quick else (64, 192, 192)).astype(np.float32)
    settings = inference.Settings(device=device)
    probabilities = {}
    for where in dict.fromkeys(("cpu", device)):
        probabilities[where] = predict_probabilities(model.network, image, settings, where, None)[0]
    difference = float(np.abs(probabilities["cpu"] - probabilities[device]).max())
    times = seconds_of(
        lambda: predict_probabilities(model.network, image, settings, device, None),
        2 if quick else 9,
        device,
    )
    rows = [
        row("MIND and network, 192 x 192 x 64, median", statistics.median(times), "s", 0.15),
        row("its largest difference from the processor's (bfloat16)", difference, "", 0.1),
    ]
    if device == "cuda":
        rows.append(("memory of the card, most", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", "", None))
    return rows


def noise_example() -> Any:
    """Return random training cases where no subject could be simulated; the time is the same."""
    import torch

    from crossmoda.training.sampling import Example

    label = np.zeros((64, 192, 192), np.float32)
    label[20:30, 80:100, 80:100], label[20:23, 20:25, 20:25] = 1, 2
    image = np.random.default_rng(0).normal(size=(1, *label.shape)).astype(np.float32)
    targets = torch.from_numpy(np.stack([label, np.ones_like(label)]))
    voxels = tuple(np.argwhere(label == value) for value in (1, 2))
    return Example("noise", torch.from_numpy(image), targets, (1.5, 0.5, 0.5), voxels)


def training(folder: Path, device: str, quick: bool) -> list[Row]:
    """Steps of the default routine: fraction of time in kernels; whether two trainings agree."""
    import torch
    from bench_network import device_intervals, load_examples

    from crossmoda import training
    from crossmoda.training import learner

    has_data = (folder / "data").is_dir()
    examples = load_examples(folder / "data", 1 if quick else 4) if has_data else [noise_example()]
    steps, rows = (2 if quick else 40), []
    for batch in (2,) if quick else (2, 8):
        settings = training.Settings(device=device, batch=batch)
        student = learner.Learner(examples, training.routine(settings), settings, None)
        first = [student.take_step() or student._losses[-1] for _ in range(3)]

        def several(student=student) -> None:
            for _ in range(steps):
                student.take_step()

        seconds = min(seconds_of(several, 2, device))
        rows.append((f"training, {batch} crops a step", f"{seconds / steps * 1e3:.3g} ms a step", "", None))
        if device == "cuda":
            recorded = student._records
            rows.append(("a step recorded as a CUDA graph", "yes" if recorded else "no", "yes", recorded))
            busy, names = device_intervals(several)
            rows.append(row(f"time in kernels, {batch} crops a step", 100 * min(busy / seconds, 1), "%", 80, True))
            for name, spent in names[:8]:
                print(f"  {spent / steps * 1e6:8.1f} us a step  {name[:90]}")
        again = learner.Learner(examples, training.routine(settings), settings, None)
        same = first == [again.take_step() or again._losses[-1] for _ in range(3)]
        rows.append(("the same losses in a second training", "yes" if same else "no", "yes", same))
        if device == "cuda" and not student._records:
            _show_why(student, learner)
    if device == "cuda":
        rows.append(("memory of the card, most", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", "", None))
    return rows


def _show_why(student: Any, learner: Any) -> None:
    """Print why a step is not recorded."""
    try:
        learner.Recording(student.network, student.optimizer, student._forward_and_backward, student._draw(0))
    except Exception as error:
        print(f"not recorded: {type(error).__name__}: {error}")


def propagation(folder: Path, device: str, quick: bool) -> list[Row]:
    """All atlases to one target, files to files, fused."""
    from crossmoda import dataset, deeds, evaluation, propagation
    from crossmoda.deeds import registration

    cohort = dataset.open_dataset(folder / "data")
    how = deeds.Settings(device=device, levels=2 if quick else 5)
    registration.warm_up()
    pair = pickle.loads((folder / "pair.pkl").read_bytes())
    deeds.register(*pair, how)
    wall, processor = time.perf_counter(), time.process_time()
    result = propagation.propagate(cohort.targets[0], cohort.sources, folder / "result", registration=how)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    count = len(list((folder / "result" / "registrations").iterdir()))
    truth = volume.read_label_map(folder / "data" / "target_validation" / "crossmoda_900_Label.nii.gz").array
    rows = [row(f"{len(cohort.sources)} atlases to one target ({count} registrations)", wall, "s", 15)]
    rows.append(("its processor seconds", f"{processor:.1f} s", "", None))
    for value, name in ((1, "VS"), (2, "cochlea")):
        dice = evaluation.dice(result.label_map.array == value, truth == value)
        rows.append((f"its Dice, {name}", f"{dice:.3f}", "", None))
    return rows


PARTS = {part.__name__: part for part in (card, registration, inference, training, propagation)}


def run_part(name: str, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Run a part in its own process and return its rows; a failure is a row too."""
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder), "--device", options.device]
    try:
        done = subprocess.run(
            command + ["--quick"] * options.quick, capture_output=True, text=True, timeout=options.limit, check=False
        )
    except subprocess.TimeoutExpired as late:
        words = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        print(words[-3000:])
        return [(name, f"stopped after {options.limit:g} s", "", False)]
    lines = done.stdout.splitlines()
    print("\n".join(f"  {line}" for line in lines if not line.startswith(RESULT)), flush=True)
    for line in lines:
        if line.startswith(RESULT):
            return [tuple(item) for item in json.loads(line.removeprefix(RESULT))]  # type: ignore[misc]
    print(done.stderr[-4000:], flush=True)
    last = (done.stderr.strip().splitlines() or ["no result"])[-1]
    return [(name, f"failed: {last[:160]}", "", False)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small data: checks the benchmark, not the card")
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="one part; may be repeated")
    parser.add_argument("--atlases", type=int, default=0, help="number of atlases (default 30, with --quick 2)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each part")
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(RESULT + json.dumps(PARTS[options.part](options.folder, options.device, options.quick)))
        return 0
    rows: list[Row] = []
    wanted = options.only or list(PARTS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        start = time.perf_counter()
        if not (folder / "pair.pkl").exists():
            alone = "propagation" not in wanted
            try:
                make_data(folder, options.atlases or (2 if options.quick else 4 if alone else 30))
            except Exception as error:  # the parts that need no subject still tell something
                traceback.print_exc()
                rows.append(("digital subjects", f"failed: {error}"[:160], "", False))
                shutil.rmtree(folder / "data", ignore_errors=True)
        print(f"digital subjects: {time.perf_counter() - start:.0f} s", flush=True)
        for name in wanted:
            start = time.perf_counter()
            print(f"{name}:", flush=True)
            rows += run_part(name, folder, options)
            print(f"  {time.perf_counter() - start:.0f} s in all", flush=True)
    print("\n| quantity | measured | goal | |\n|---|---|---|---|")
    for what, value, goal, reached in rows:
        print(f"| {what} | {value} | {goal} | {'' if reached is None else 'PASS' if reached else 'below goal'} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0 if all(item[3] is not False for item in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
