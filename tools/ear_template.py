"""Make the images of the ear frame's template (crossmoda/anatomy/icbm152) from the ICBM152 2009c symmetric average.

Usage: python tools/ear_template.py FOLDER, with icbm152_09c_T1.nii.gz and icbm152_09c_T2.nii.gz in FOLDER.

The average is symmetric, so the left half is enough: ``slab`` is the skull base at 2 mm, ``ears`` the petrous bone at
1 mm. Eight bits per voxel.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from crossmoda import volume
from crossmoda.anatomy import sampling, template
from crossmoda.volume import Grid, Volume

#: The first and the last sample, LPS mm, and the distance of the samples.
REGIONS = {"slab": ((0, -94, -78), (92, 126, 2), 2.0), "ears": ((0, -12, -78), (70, 72, -10), 1.0)}


def region(head: Volume, name: str) -> Volume:
    """Return one region of the average as uint8; a voxel of 2 mm is the mean of its surroundings."""
    first, last, step = REGIONS[name]
    size = tuple(round((high - low) / step) + 1 for low, high in zip(first, last, strict=True))
    grid = Grid(size, (step,) * 3, tuple(map(float, first)), (1, 0, 0, 0, 1, 0, 0, 0, 1))  # type: ignore[arg-type]
    smooth = sampling.smoothed(head, step)
    values = volume.resample(smooth, grid).array * (255 / np.percentile(head.array, 99.9))
    return Volume(np.clip(np.round(values), 0, 255).astype(np.uint8), grid)


def main() -> None:
    """Write the images and MNI's notice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    source = parser.parse_args().folder
    for contrast in template.CONTRASTS:
        head = volume.read(source / f"icbm152_09c_{contrast}.nii.gz")
        for name in REGIONS:
            volume.write(region(head, name), template.FOLDER / f"{name}_{contrast}.nii.gz")
    shutil.copyfile(source / "COPYING_MNI.txt", template.FOLDER / "COPYING_MNI.txt")


if __name__ == "__main__":
    main()
