"""The network: parameters, field of view, memory, time of inference and of a training step.

    python Testing/benchmarks/bench_network.py [--device cuda] [--threads 2] [--repeats 5] [--steps 20]

Prints Markdown tables with the goals. Times are the best of several repeats; the processor time beside them shows the
load of the machine. A training on two digital subjects yields the fraction of time spent on data and, on a GPU, in
kernels.
"""

import argparse
import collections
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import network_size

from crossmoda import device as devices
from crossmoda import network

#: Goals for preset default, s: a crop of 192 x 192 x 64 on two cores and on a GPU; a whole scan from file to files.
CROP_GOAL = {"cpu": 5.0, "cuda": 0.15}
SCAN_GOAL = 10.0
#: Least fraction of training time in GPU kernels; largest fraction spent on data.
BUSY_GOAL, DATA_GOAL = 0.8, 0.2


def best(work: Callable[[], object], repeats: int, wait: Callable[[], None]) -> tuple[float, float]:
    """Return the shortest time and the least processor time of several runs, s."""
    seconds, processor = [], []
    for _ in range(repeats):
        wait()
        start, used = time.perf_counter(), time.process_time()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return min(seconds), min(processor)


def describe() -> None:
    """Print the properties of the presets."""
    print("| preset | width | parameters | field of view (z, y, x) [mm] | training [MiB] | inference [MiB] |")
    print("|---|---|---|---|---|---|")
    for preset, width in (("default", 1.0), ("default", 0.5), ("paper", 1.0)):
        settings = network.Settings(preset, width)
        field = " x ".join(f"{extent:.1f}" for extent in network_size.receptive_field_mm(settings))
        need = network_size.memory(settings)
        megabytes = f"{need.training / 2**20:.0f} | {need.inference / 2**20:.0f}"
        print(f"| {preset} | {width:g} | {network_size.parameter_count(settings):,} | {field} | {megabytes} |")


def measure(device: str, repeats: int) -> None:
    """Print the times of the presets."""
    import torch

    from crossmoda import inference, mind, training

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    image = torch.randn(64, 192, 192)
    print("\n| preset | width | task | best [s] | processor [s] |\n|---|---|---|---|---|")
    seconds, processor = best(lambda: mind.mind_ssc(image.to(device)), repeats, wait)
    print(f"| - | - | MIND-SSC of 192 x 192 x 64 | {seconds:.3f} | {processor:.3f} |")
    for preset, width in (("default", 1.0), ("default", 0.5), ("paper", 1.0)):
        model = network.build(network.Settings(preset, width)).to(device).eval()
        for tiled in (False, True):
            with torch.inference_mode():
                features = mind.mind_ssc(image.to(device))
                times = best(lambda: inference.probabilities._softmax(model, features, tiled), repeats, wait)  # noqa: B023
            how = "in tiles" if tiled else "at once"
            print(f"| {preset} | {width:g} | inference 192 x 192 x 64, {how} | {times[0]:.3f} | {times[1]:.3f} |")
        crop = training.ROUTINES[preset].crop or (64, 192, 192)
        crop = (32, 64, 64) if device == "cpu" and preset == "paper" else crop
        batch = training.ROUTINES[preset].batch
        features = torch.rand(batch, network.INPUTS["mind"], *crop, device=device)
        model.train()
        times = best(lambda: model(features).square().mean().backward(), repeats, wait)  # noqa: B023
        size = " x ".join(map(str, reversed(crop)))
        print(f"| {preset} | {width:g} | forward and backward, {batch} x {size} | {times[0]:.3f} | {times[1]:.3f} |")


def compare(device: str, repeats: int, folder: Path) -> None:
    """Print the time of a prediction with its goal: MIND and network on a crop; a whole scan, read and written."""
    import torch

    from crossmoda import inference, volume, weights
    from crossmoda.inference.probabilities import predict_probabilities
    from crossmoda.simulation import simulate_subject

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    model = weights.load(weights.bundled())
    settings = inference.Settings(device=device)
    image = torch.randn(64, 192, 192).numpy()
    crop = best(
        lambda: predict_probabilities(model.network, image, settings, device, None),
        repeats,
        wait,
    )
    volume.write(simulate_subject(1).hrt2, folder / "scan.nii.gz")
    outputs = {"probabilities": folder / "p", "uncertainty": folder / "u.nii.gz"}
    scan = best(
        lambda: inference.predict_files(folder / "scan.nii.gz", folder / "out.seg.nrrd", None, settings, **outputs),
        repeats,
        wait,
    )
    print("\n| bundled weights | best [s] | processor [s] | goal [s] | |\n|---|---|---|---|---|")
    for what, (seconds, processor), goal in (
        ("MIND and network, 192 x 192 x 64", crop, CROP_GOAL[device]),
        ("whole scan 384 x 384 x 64, .nii.gz to .seg.nrrd, probabilities and uncertainty", scan, SCAN_GOAL),
    ):
        verdict = "reached" if seconds < goal else "missed"
        print(f"| {what} | {seconds:.2f} | {processor:.2f} | {goal:g} | {verdict} |")


def train(device: str, steps: int, folder: Path) -> None:
    """Print the time of training steps: preset default, several batch sizes."""
    import torch

    from crossmoda import training, volume
    from crossmoda.simulation import simulate_subject
    from crossmoda.training import learner

    for seed in (1, 2):
        subject = simulate_subject(seed)
        sources = folder / "source_training"
        volume.write(subject.cet1, sources / f"crossmoda_{seed}_ceT1.nii.gz")
        volume.write(subject.cet1_label, sources / f"crossmoda_{seed}_Label.nii.gz")
    examples = load_examples(folder, 2)
    print("\n| training | s per step | data | goal | GPU busy | goal |\n|---|---|---|---|---|---|")
    for batch in (2, 8, 16) if device == "cuda" else (2,):
        settings = training.Settings(device=device, batch=batch)
        student = learner.Learner(examples, training.routine(settings), settings, None)
        draw, waited = student._draw, []

        def timed_draw(step, draw=draw, waited=waited):
            start = time.perf_counter()
            drawn = draw(step)
            if device == "cuda":
                torch.cuda.synchronize()
            waited.append(time.perf_counter() - start)
            return drawn

        def several(student=student):
            for _ in range(steps):
                student.take_step()

        several()  # memory is taken and kernels are chosen in the first steps
        busy, seconds = kernel_share(several) if device == "cuda" else (None, best(several, 1, lambda: None)[0])
        student._draw = timed_draw
        start = time.perf_counter()
        several()
        data = sum(waited) / (time.perf_counter() - start)
        shown = "" if busy is None else f"{busy:.0%} | > {BUSY_GOAL:.0%}"
        size = " x ".join(map(str, reversed(student.crop)))
        print(
            f"| {batch} crops of {size} | {seconds / steps:.3f} | {data:.0%} | < {DATA_GOAL:.0%} | {shown or ' | '} |"
        )


def load_examples(folder: Path, most: int) -> list[Any]:
    """Return the labeled sources of a data set, prepared for training, at most ``count``."""
    from crossmoda import dataset, preprocessing, training
    from crossmoda.training import sampling

    cases = [training.TrainingCase.of(case) for case in dataset.open_dataset(folder).sources[:most]]
    with tempfile.TemporaryDirectory() as prepared:
        return sampling.load(cases, preprocessing.Preparation(), Path(prepared))


def device_intervals(work: Callable[[], object]) -> tuple[float, list[tuple[str, float]]]:
    """Return the seconds in GPU kernels, in total and per kernel, longest first."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    kernels = [event for event in kernels if not event.name.startswith(("Memcpy", "Memset"))]
    busy, end, names = 0.0, 0.0, collections.Counter[str]()
    for event in sorted(kernels, key=lambda event: event.time_range.start):
        busy += max(event.time_range.end - max(event.time_range.start, end), 0.0)
        end = max(end, event.time_range.end)
        names[event.name] += event.time_range.end - event.time_range.start
    return busy / 1e6, [(name, spent / 1e6) for name, spent in names.most_common()]


def kernel_share(work: Callable[[], object]) -> tuple[float, float]:
    """Return the fraction of time in GPU kernels, and the time without the profiler, s."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return min(1.0, device_intervals(work)[0] / seconds), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=devices.CHOICES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps")
    options = parser.parse_args()
    import numba
    import torch

    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    device = devices.choose(options.device)
    print(f"Device: {devices.describe(device)}, {options.threads} threads, torch {torch.__version__}\n")
    describe()
    measure(device, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        compare(device, options.repeats, Path(folder))
        train(device, options.steps, Path(folder))


if __name__ == "__main__":
    main()
