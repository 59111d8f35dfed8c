"""A small data set with the results of label propagation and of a network, as they lie on disk."""

import csv
from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.volume import Grid, Volume, write

GRID = Grid((96, 72, 20), (1.0, 1.0, 2.0), (-48.0, -36.0, -20.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
#: How many voxels the noisy label of each target lies aside: the second target gains most from a correction.
SHIFTS = (1, 3, 2)
TARGETS = ("case_1", "case_2", "case_3")


def make(folder: Path) -> tuple[Path, Path]:
    """Write a data set of two atlases and three targets, and results; return both folders.

    The noisy label is the truth, moved aside; the network's label is the truth, a voxel thinner.
    """
    data, results = folder / "data", folder / "results"
    for number, name in enumerate(("atlas_1", "atlas_2", *TARGETS)):
        image, truth = head(number)
        if name in TARGETS:
            write(image, data / f"{name}_hrT2.nii.gz")
            write_results(results / name, truth, SHIFTS[TARGETS.index(name)])
        else:
            write(image.with_array(300 - image.array), data / f"{name}_ceT1.nii.gz")
            write(truth, data / f"{name}_label.nii.gz")
    return data, results


def head(seed: int) -> tuple[Volume, Volume]:
    """Return an image of two cochleae, the left one with a tumor beside it, and its label map."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=GRID.shape), 2).astype(np.float32)
    image = 100 + 60 * texture / texture.std()
    z, y, x = np.indices(GRID.shape).astype(float)
    z, y, x = 2.0 * (z - 10), y - 36, x - 48
    middle, radius = rng.uniform(-2, 2, 2), rng.uniform(5.0, 6.5)
    truth = np.zeros(GRID.shape, np.uint8)
    for side in (-1, 1):
        ball = (x - 30 * side) ** 2 + (y - middle[0]) ** 2 + (z - middle[1]) ** 2
        truth[ball < 3.0**2] = labels.COCHLEA
        image += 120 * np.exp(-ball / 20)
    tumor = (x - 20) ** 2 + (y - middle[0]) ** 2 + (z - middle[1]) ** 2 < radius**2
    truth[tumor & (truth == 0)] = labels.VS
    image[truth == labels.VS] += 60
    return Volume(image.astype(np.float32), GRID), Volume(truth, GRID)


def write_results(folder: Path, truth: Volume, shift: int) -> None:
    """Write what propagation and prediction write for one target."""
    moved = [np.roll(truth.array, step, axis=2) for step in (shift, shift + 1, shift - 1)]
    thinner = np.where(ndimage.binary_erosion(truth.array > 0, np.ones((1, 3, 3))), truth.array, 0).astype(np.uint8)
    _write_opinion(folder, "noisy_label", moved[0], truth)
    _write_opinion(folder / "prediction", "label_map", thinner, truth)
    disagreement = np.mean([one != moved[0] for one in moved], axis=0).astype(np.float32)
    write(truth.with_array(disagreement), folder / "disagreement.nii.gz")
    write(truth.with_array(1 - disagreement), folder / "confidence.nii.gz")
    with (folder / "atlases.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["atlas", "tumor_side", "mirrored", "quality", "contributes_to", "seconds", "reused", "excluded"]
        )
        for number, one in enumerate(moved):
            writer.writerow([f"atlas_{number}", "left", "no", "0.9", "VS, cochlea", "1.0", "no", ""])
            write(truth.with_array(one), folder / "registrations" / f"atlas_{number}" / "warped_label.nii.gz")


def _write_opinion(folder: Path, name: str, array: np.ndarray, truth: Volume) -> None:
    write(truth.with_array(array), folder / f"{name}.nii.gz")
    for structure in labels.STRUCTURES:
        blurred = ndimage.gaussian_filter((array == structure.value).astype(np.float32), (0.5, 1, 1))
        write(truth.with_array(blurred), folder / f"probability_{structure.key}.nii.gz")
