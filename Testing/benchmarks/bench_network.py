"""The network in numbers: parameters, field of view, memory, time of inference and of a training step.

    python Testing/benchmarks/bench_network.py [--device cuda] [--threads 2] [--repeats 5]

Prints Markdown tables. Times are the best of several repeats, and the processor time beside them tells how much of the
machine was at hand.
"""

import argparse
import time
from collections.abc import Callable

from crossmoda import device as devices
from crossmoda import network


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=devices.CHOICES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    device = devices.choose(options.device)
    print(f"Device: {devices.describe(device)}, {options.threads} threads, torch {torch.__version__}\n")
    describe()
    measure(device, options.repeats)


if __name__ == "__main__":
    main()
