"""Pictures of digital subjects for visual inspection: axial through the canals, both sides enlarged, coronal.

Usage: python Testing/experiments/render_simulation.py OUTPUT_FOLDER [--base icbm --base-folder ... --shapes-folder ...]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from crossmoda import labels
from crossmoda.simulation import Settings, Subject, simulate_subject
from crossmoda.volume import Volume

HALF_WIDTH_MM = 28.0


def draw_scan(axes, image: Volume, label: Volume, title: str) -> None:
    """Draw one scan into four axes."""
    array, marked = image.array, label.array
    white = np.percentile(array, 99.5)
    spacing = image.grid.spacing
    tumor, cochleae = (np.argwhere(marked == value) for value in (labels.VS, labels.COCHLEA))
    row, column = tumor[:, 1].mean(), tumor[:, 2].mean()
    same = (cochleae[:, 2] > array.shape[2] / 2) == (column > array.shape[2] / 2)
    contralateral = cochleae[~same]
    views = [
        (int(np.median(tumor[:, 0])), None),
        (int(np.median(tumor[:, 0])), (row, column)),
        (int(np.median(contralateral[:, 0])), tuple(contralateral[:, 1:].mean(0)) if len(contralateral) else None),
    ]
    for axis, (k, center) in zip(axes, views, strict=False):
        axis.imshow(array[k], cmap="gray", vmin=0, vmax=white)
        if center is None:
            continue
        for value, color in ((labels.VS, "tomato"), (labels.COCHLEA, "deepskyblue")):
            axis.contour(marked[k] == value, [0.5], colors=color, linewidths=0.8)
        half = HALF_WIDTH_MM / spacing[0]
        axis.set_xlim(center[1] - half, center[1] + half)
        axis.set_ylim(center[0] + half, center[0] - half)
    axes[0].set_title(title)
    axes[3].imshow(array[::-1, int(row)], cmap="gray", vmin=0, vmax=white, aspect=spacing[2] / spacing[0])
    for axis in axes:
        axis.axis("off")


def draw_subject(subject: Subject, path: Path) -> None:
    """Write one subject's picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(20, 10), facecolor="white")
    name = f"{subject.base} {subject.seed}, {subject.side}, {subject.tumor_mm3():.0f} mm$^3$"
    draw_scan(axes[0], subject.hrt2, subject.hrt2_label, f"hrT2: {name}")
    draw_scan(axes[1], subject.cet1, subject.cet1_label, f"ceT1: {name}")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def main() -> None:
    """Draw the subjects and print what they hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="phantom")
    parser.add_argument("--base-folder", type=Path)
    parser.add_argument("--shapes-folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--field-of-view", type=float, default=192.0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print("| seed | side | VS ceT1 mm3 | VS hrT2 mm3 | cochleae hrT2 mm3 | ceT1 | hrT2 | CPU s | wall s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in options.seeds:
        cpu, wall = time.process_time(), time.perf_counter()
        subject = simulate_subject(
            seed,
            base=options.base,
            settings=Settings(field_of_view=options.field_of_view),
            base_folder=options.base_folder,
            shapes_folder=options.shapes_folder,
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        voxel = subject.hrt2.grid.voxel_volume_mm3
        volumes = [(subject.hrt2_label.array == value).sum() * voxel for value in (labels.VS, labels.COCHLEA)]
        sizes = ["x".join(map(str, scan.grid.size)) for scan in (subject.cet1, subject.hrt2)]
        print(
            f"| {seed} | {subject.side} | {subject.tumor_mm3():.0f} | {volumes[0]:.0f} | {volumes[1]:.0f} "
            f"| {sizes[0]} | {sizes[1]} | {cpu:.1f} | {wall:.1f} |",
            flush=True,
        )
        draw_subject(subject, options.folder / f"{options.base}_{seed}.png")


if __name__ == "__main__":
    main()
