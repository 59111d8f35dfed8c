"""Growth of the cost: registration by voxels and threads, propagation by atlases; exponents, one picture.

    python Testing/benchmarks/bench_scaling.py --millions 0.5 2 8 20 40 --threads 1 2 --atlases 1 3 9 --figure cost.png

Processor seconds of registrations of two simulated subjects, resampled to ever finer voxels of the same field of view
(memory permitting), and of propagations of copies of one atlas in this process, after the ears were located. Each
exponent is the slope of a line through the logarithms; 1 is linear.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from usage import Clock, memory_mib

from crossmoda import dataset, deeds, propagation, simulation, threads, volume
from crossmoda.deeds import registration
from crossmoda.deeds.backend_cpu import sampling
from crossmoda.volume import Volume

Row = tuple[float, float, float]


def by_voxels(images: list[Volume], millions: list[float]) -> list[Row]:
    """Return (million voxels, processor seconds, MiB at the peak) of each size."""
    rows = []
    for size in millions:
        factor = (images[0].array.size / size / 1e6) ** (1 / 3)
        spacings = [tuple(step * factor for step in image.grid.spacing) for image in images]
        grids = [sampling.spaced_grid(image.grid, each) for image, each in zip(images, spacings, strict=True)]
        pair = [volume.resample(image, grid) for image, grid in zip(images, grids, strict=True)]
        clear_peak()
        clock = Clock()
        deeds.register(*pair, deeds.Settings(device="cpu"))
        rows.append((pair[0].array.size / 1e6, clock.read()[1], memory_mib("VmHWM")))
        print(f"| {rows[-1][0]:.1f} million voxels | {rows[-1][1]:.2f} | {rows[-1][2]:.0f} |", flush=True)
    return rows


def by_threads(images: list[Volume], counts: list[int]) -> list[Row]:
    """Return (threads, processor seconds, MiB at the peak) of the same registration."""
    rows = []
    for count in counts:
        os.environ["CROSSMODA_THREADS"] = str(count)
        threads.thread_count.cache_clear()
        threads._pool.cache_clear()
        clear_peak()
        clock = Clock()
        deeds.register(*images, deeds.Settings(device="cpu"))
        seconds, work = clock.read()
        rows.append((float(count), work, memory_mib("VmHWM")))
        print(f"| {count} threads | {work:.2f} | {rows[-1][2]:.0f} | wall {seconds:.2f} |", flush=True)
    return rows


def by_atlases(counts: list[int]) -> list[Row]:
    """Return (atlases, processor seconds, MiB at the peak) of propagations of copies of one atlas."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        simulation.simulate_dataset(data, sources=1, targets=1, tests=0)
        first = dataset.open_dataset(data).sources[0]
        for number in range(2, max(counts) + 1):
            for path in (first.image, first.label):
                shutil.copy(path, path.with_name(path.name.replace(first.id, f"crossmoda_{900 + number}")))
        cases = dataset.open_dataset(data)
        propagation.propagate(cases.targets[0], cases.sources[:1], Path(scratch) / "first")  # locates the ears
        for count in counts:
            clear_peak()
            clock = Clock()
            propagation.propagate(cases.targets[0], cases.sources[:count], Path(scratch) / str(count))
            rows.append((float(count), clock.read()[1], memory_mib("VmHWM")))
            print(f"| {count} atlases | {rows[-1][1]:.2f} | {rows[-1][2]:.0f} |", flush=True)
    return rows


def clear_peak() -> None:
    """Forget the peak of this process's memory so far."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def exponent(rows: list[Row]) -> float:
    """Return the power of the first column with which the processor seconds grow."""
    size, work = np.log([row[0] for row in rows]), np.log([row[1] for row in rows])
    return float(np.polyfit(size, work, 1)[0]) if len(rows) > 1 else float("nan")


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    """Draw the processor seconds over each quantity on one scale, with their exponents."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(3.4 * len(tables), 3), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tables), sharey=True))
    for axis, (name, rows) in zip(axes, tables.items(), strict=True):
        axis.loglog([row[0] for row in rows], [row[1] for row in rows], "o-", color="0.2")
        axis.set(xlabel=name, title=f"power {exponent(rows):.2f}")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylim(bottom=1)
    axes[0].set_ylabel("processor seconds")
    figure.savefig(path, dpi=100)
    with Image.open(path) as picture:
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(path, optimize=True)


def main() -> None:
    """Read the arguments, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="*", default=[0.5, 2, 8, 20, 40], help="voxels")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--atlases", type=int, nargs="*", default=[1, 3, 9])
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    registration.warm_up()
    subjects = [simulation.simulate_subject(seed, side="left") for seed in (7001, 8001)]
    images = [subjects[0].hrt2, subjects[1].cet1]
    print("| size | processor s | MiB |\n|---|---|---|")
    tables = {}
    if options.millions:
        tables["million voxels"] = by_voxels(images, options.millions)
    if options.atlases:
        tables["atlases"] = by_atlases(options.atlases)
    for name, rows in tables.items():
        print(f"{name}: power {exponent(rows):.2f}")
    if options.threads:
        by_threads(images, options.threads)
    if options.figure:
        draw(tables, options.figure)


if __name__ == "__main__":
    main()
