"""Real scans of the training person (p03) as backgrounds: simulated and expert tumor shapes are implanted.

The cochleae of these scans were not outlined; their surroundings are ignored in training.
"""

import csv
import dataclasses
from pathlib import Path

import numpy as np
from heads import StoredEar, box_grid
from samples import Sample, _noises, scan
from scipy.ndimage import gaussian_filter

from crossmoda import volume
from crossmoda.anatomy.ear_frame import ear_frames

SCANS = ("real_t2/p03_study1_T2W.nii.gz", "real_t2/p03_study2_T2W.nii.gz")
IGNORED = 255
_IGNORED_MM = 5.5


@dataclasses.dataclass(frozen=True)
class Background:
    """A real ear in the canonical frame."""

    image: np.ndarray
    """(z, y, x) on the box's grid"""
    brain: float
    """median intensity"""
    cochlea: np.ndarray
    """int8: distance to a ball around the cochlea, 0.1 mm"""


def backgrounds(folder: Path) -> list[Background]:
    """Return the ears of the training person."""
    centers = list(csv.DictReader((folder / "real_t2" / "cochlear_centers.csv").open()))
    found = []
    for name in SCANS:
        image = volume.read(folder / name)
        for frame in ear_frames(image).accepted:
            row = next(row for row in centers if row["image"] == name and row["side"] == frame.side)
            point = np.array([[float(row[f"{axis}_lps_mm"]) for axis in "xyz"]])
            center = frame.to_canonical(point)[0]
            grid = box_grid()
            array = frame.sample(image, grid).array.astype(np.float32)
            z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
            points = np.asarray(grid.origin) + 0.6 * np.stack([x, y, z], -1)
            distance = np.linalg.norm(points - center, axis=-1) - _IGNORED_MM
            near = array[20:90, 30:100, 20:80]
            found.append(Background(array, float(np.median(near)), np.clip(10 * distance, -127, 127).astype(np.int8)))
    return found


def draw(background: Background, ear: StoredEar, rng: np.random.Generator) -> Sample:
    """Draw a sample: the background with the ear's tumor, if it has one."""
    image = background.image / background.brain
    if ear.about["tumor"]:
        depth = np.clip(-ear.tumor.astype(np.float32) / 10 + 0.3, 0, 0.6) / 0.6
        blurred = gaussian_filter(depth, (rng.uniform(0.5, 2.5), 0.8, 0.8), truncate=2.5)
        _, coarse = _noises()
        offset = rng.integers(0, 64, 3)
        rough = coarse[np.ix_(*((np.arange(n) + o) % 64 for n, o in zip(image.shape, offset, strict=True)))]
        tumor = rng.uniform(0.75, 1.5) * (1 + rng.uniform(0.03, 0.2) * rough)
        image = image * (1 - blurred) + tumor * blurred
    sample = scan(image.astype(np.float32), ear.tumor, background.cochlea, rng, "real", fine=True)
    sample.label[sample.label == 2] = IGNORED
    return sample
