"""The network in numbers: parameters, field of view, memory, time of inference and of a training step.

    python Testing/benchmarks/bench_network.py [--device cuda] [--threads 2] [--repeats 5]

Prints Markdown tables, the goals beside what is measured. Times are the best of several repeats, and the processor
time beside them tells how much of the machine was at hand.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from crossmoda import device as devices
from crossmoda import network

#: Goals for preset default, s: a crop of 192 x 192 x 64 on two cores and on a GPU; a whole scan from file to files.
CROP_GOAL = {"cpu": 5.0, "cuda": 0.15}
SCAN_GOAL = 10.0


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
    """Print what the presets are."""
    print("| preset | width | parameters | field of view (z, y, x) [mm] | training [MiB] | inference [MiB] |")
    print("|---|---|---|---|---|---|")
    for preset, width in (("default", 1.0), ("default", 0.5), ("paper", 1.0)):
        settings = network.Settings(preset, width)
        field = " x ".join(f"{extent:.1f}" for extent in network.receptive_field_mm(settings))
        need = network.memory(settings)
        megabytes = f"{need.training / 2**20:.0f} | {need.inference / 2**20:.0f}"
        print(f"| {preset} | {width:g} | {network.parameter_count(settings):,} | {field} | {megabytes} |")


def measure(device: str, repeats: int) -> None:
    """Print how long the presets take."""
    import torch

    from crossmoda import inference, mind, training

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    image = torch.randn(64, 192, 192)
    print("\n| preset | width | what | best [s] | processor [s] |\n|---|---|---|---|---|")
    seconds, processor = best(lambda: mind.mind_ssc(image.to(device)), repeats, wait)
    print(f"| - | - | MIND-SSC of 192 x 192 x 64 | {seconds:.3f} | {processor:.3f} |")
    for preset, width in (("default", 1.0), ("default", 0.5), ("paper", 1.0)):
        model = network.build(network.Settings(preset, width)).to(device).eval()
        for tiled in (False, True):
            with torch.inference_mode():
                features = mind.mind_ssc(image.to(device))
                found = best(lambda: inference._softmax(model, features, tiled), repeats, wait)  # noqa: B023
            how = "in tiles" if tiled else "at once"
            print(f"| {preset} | {width:g} | inference 192 x 192 x 64, {how} | {found[0]:.3f} | {found[1]:.3f} |")
        crop = training.ROUTINES[preset].crop or (64, 192, 192)
        crop = (32, 64, 64) if device == "cpu" and preset == "paper" else crop
        batch = training.ROUTINES[preset].batch
        features = torch.rand(batch, network.INPUTS, *crop, device=device)
        model.train()
        found = best(lambda: model(features).square().mean().backward(), repeats, wait)  # noqa: B023
        size = " x ".join(map(str, reversed(crop)))
        print(f"| {preset} | {width:g} | forward and backward, {batch} x {size} | {found[0]:.3f} | {found[1]:.3f} |")


def compare(device: str, repeats: int, folder: Path) -> None:
    """Print what a user waits for beside its goal: MIND and network on a crop; a whole scan, read and written."""
    import torch

    from crossmoda import inference, volume, weights
    from crossmoda.simulation import simulate_subject

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    model = weights.load(weights.shipped())
    settings = inference.Settings(device=device)
    image = torch.randn(64, 192, 192).numpy()
    crop = best(lambda: inference._probabilities(model.network, image, settings, device, None), repeats, wait)
    volume.write(simulate_subject(1).hrt2, folder / "scan.nii.gz")
    outputs = {"probabilities": folder / "p", "uncertainty": folder / "u.nii.gz"}
    scan = best(
        lambda: inference.predict_files(folder / "scan.nii.gz", folder / "out.seg.nrrd", None, settings, **outputs),
        repeats,
        wait,
    )
    print("\n| weights that come along | best [s] | processor [s] | goal [s] | |\n|---|---|---|---|---|")
    for what, (seconds, processor), goal in (
        ("MIND and network, 192 x 192 x 64", crop, CROP_GOAL[device]),
        ("whole scan 384 x 384 x 64, .nii.gz to .seg.nrrd, probabilities and uncertainty", scan, SCAN_GOAL),
    ):
        verdict = "reached" if seconds < goal else "missed"
        print(f"| {what} | {seconds:.2f} | {processor:.2f} | {goal:g} | {verdict} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=devices.CHOICES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
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


if __name__ == "__main__":
    main()
