"""Systematic offset of registered cochleae, ceT1 to hrT2 of one digital subject, and its causes.

Nothing moved between both scans: the true displacement is 0, and the mean over subjects is an offset of method or data.
Rows separate the causes: the same contrast with other noise, contrast inverted, scans
swapped, arrays turned upside down, thinner slices, the phantom base, and ICBM bases whose T2 average is made of the T1
average, or moved. The last lines ask mutual information where the averages themselves lie about the ears. deedsBCV
takes part if DEEDSBCV_LINEAR and DEEDSBCV_DEEDS name its programs.

    python Testing/experiments/registration_offset.py --subjects 6
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda import simulation, volume
from crossmoda.simulation import ear, icbm
from crossmoda.simulation.subject import Subject
from crossmoda.volume.grid import Volume

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from bench_register import SHARED
from registration_peers import methods

BASE = SHARED / "icbm152_2009c_sym"
#: Tone curve that makes a T2 contrast of the T1 average (white matter = 1): fluid bright, bone and air dark.
T2_OF_T1 = (
    [0, 0.12, 0.20, 0.33, 0.45, 0.80, 1.0, 1.1, 2.0],
    [0, 0.02, 0.10, 2.6, 1.9, 1.10, 0.93, 0.90, 0.7],
)

Triple = tuple[Volume, Volume, Volume]
"""fixed image, moving image, label map of the fixed image"""


def subjects(seeds: range, base: str = "icbm", **settings: float) -> list[Subject]:
    """Subjects of whom both scans were taken in the same place."""
    chosen: dict[str, Any] = {
        "field_of_view": 96,
        "slices": 64,
        "slice_thickness": 1.5,
        "misalignment": 0.0,
        **settings,
    }
    folder = BASE if base == "icbm" else None
    return [
        simulation.simulate_subject(seed, base=base, settings=simulation.Settings(**chosen), base_folder=folder)
        for seed in seeds
    ]


def to_t2(cohort: list[Subject]) -> list[Triple]:
    """ceT1 to hrT2."""
    return [(each.hrt2, each.cet1, each.hrt2_label) for each in cohort]


def offsets(pairs: list[Triple], method: str) -> np.ndarray:
    """Return the mean displacement (n, 3), LPS mm, of each cochlea that the fixed label maps show."""
    run, rows = methods()[method], []
    for fixed, moving, label in pairs:
        transform, grid = run(fixed, moving).transform, label.grid
        index = np.argwhere(label.array == 2)[:, ::-1]
        points = index @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
        landed = np.array([transform.TransformPoint(point) for point in points.tolist()])
        middle = (grid.index_to_physical @ [*((np.array(grid.size) - 1) / 2), 1])[0]
        sides = [points[:, 0] > middle, points[:, 0] <= middle]
        rows += [(landed - points)[side].mean(axis=0) for side in sides if side.sum() >= 20]
    return np.array(rows)


def turned(image: Volume, about_z: float) -> Volume:
    """Return an axial image upside down: the array and the place, mirrored at the plane ``about_z``."""
    grid = image.grid
    x, y, z = grid.origin
    last = z + (grid.size[2] - 1) * grid.spacing[2]
    return Volume(np.ascontiguousarray(image.array[::-1]), dataclasses.replace(grid, origin=(x, y, 2 * about_z - last)))


def upside_down(triple: Triple) -> Triple:
    """Turn all three at the middle of the fixed image."""
    grid = triple[0].grid
    middle = grid.origin[2] + (grid.size[2] - 1) / 2 * grid.spacing[2]
    fixed, moving, label = (turned(image, middle) for image in triple)
    return fixed, moving, label


@contextlib.contextmanager
def other_t2_average(change: Callable[[Volume], Volume]) -> Iterator[None]:
    """Simulate with a T2 average changed by ``change``."""
    original = icbm._toned

    def toned(image: Volume, mask: Volume, modality: str) -> Volume:
        made = original(image, mask, modality)
        return made if modality == "ceT1" else change(made)

    icbm._toned = toned
    icbm.base.cache_clear()
    try:
        yield
    finally:
        icbm._toned = original
        icbm.base.cache_clear()


def of_t1(made: Volume) -> Volume:
    """A T2 contrast by a tone curve from the T1 average."""
    t1 = volume.read(BASE / icbm.NAMES["ceT1"])
    brain = t1.array[volume.read(BASE / icbm.MASK).array > 0]
    return made.with_array(np.interp(t1.array / np.percentile(brain, 90), *T2_OF_T1).astype(np.float32))


def moved(by_mm: float) -> Callable[[Volume], Volume]:
    """Move the T2 average upwards."""

    def change(made: Volume) -> Volume:
        x, y, z = made.grid.origin
        return Volume(made.array, dataclasses.replace(made.grid, origin=(x, y, z + by_mm)))

    return change


def averages_apart(side: int) -> np.ndarray:
    """Return the offset of the T1 average from the T2 average about an ear, LPS mm.

    A translation, by mutual information, in the box of the painted ear; ``side`` is 1 for the left, -1 for the right.
    """
    t1, t2 = (volume.read(BASE / icbm.NAMES[name]) for name in ("ceT1", "hrT2"))
    corners = np.array([ear.LOWEST, ear.HIGHEST]) * [side, 1, 1]
    index = np.sort(corners @ t2.grid.physical_to_index[:3, :3].T + t2.grid.physical_to_index[:3, 3], axis=0)
    low, high = np.floor(index[0]).astype(int).tolist(), np.ceil(index[1]).astype(int).tolist()
    box = t2.to_sitk()[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsMattesMutualInformation(32)
    registration.SetInterpolator(sitk.sitkBSpline)
    registration.SetOptimizerAsRegularStepGradientDescent(0.3, 0.005, 100)
    registration.SetInitialTransform(sitk.TranslationTransform(3), inPlace=False)
    return np.array(registration.Execute(box, t1.to_sitk()).GetParameters())


def line(name: str, shifts: np.ndarray) -> str:
    """Return a row of the table: mean and its standard error along x, y and z."""
    error = shifts.std(axis=0, ddof=1) / np.sqrt(len(shifts))
    cells = " | ".join(f"{mean:+.2f} ± {spread:.2f}" for mean, spread in zip(shifts.mean(axis=0), error, strict=True))
    return f"| {name} | {len(shifts)} | {cells} |"


def main() -> None:
    """Read the arguments, register, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=6, help="digital subjects of each row (default 6)")
    parser.add_argument("--first", type=int, default=301, help="seed of the first (default 301)")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.subjects)

    def tell(name: str, pairs: list[Triple], method: str = "deeds") -> None:
        print(line(name, offsets(pairs, method)), flush=True)

    print("| registered | cochleae | x, mm | y, mm | z, mm |\n|---|---|---|---|---|")
    cohort, quiet = subjects(seeds), subjects(seeds, noise=0.0)
    tell("ceT1 to hrT2", to_t2(cohort))
    tell("hrT2 to ceT1", [(each.cet1, each.hrt2, each.cet1_label) for each in cohort])
    tell("ceT1 to hrT2, `units=voxel`", to_t2(cohort), "deeds, voxel units")
    if "linearBCV + deedsBCV" in methods():
        tell("ceT1 to hrT2, linearBCV + deedsBCV", to_t2(cohort), "linearBCV + deedsBCV")
    both = list(zip(cohort, quiet, strict=True))
    tell("hrT2 to hrT2, other noise", [(first.hrt2, second.hrt2, first.hrt2_label) for first, second in both])
    tell("ceT1 to ceT1, other noise", [(first.cet1, second.cet1, first.cet1_label) for first, second in both])
    inverted = [each.hrt2.with_array(each.hrt2.array.max() - each.hrt2.array) for each in cohort]
    tell("inverted hrT2 to hrT2", [(a.hrt2, b, a.hrt2_label) for a, b in zip(cohort, inverted, strict=True)])
    axial = to_t2(subjects(seeds, oblique=0.0))
    tell("ceT1 to hrT2, axial scans", axial)
    tell("the same, arrays upside down", [upside_down(triple) for triple in axial])
    tell("ceT1 to hrT2, slices of 0.75 mm", to_t2(subjects(seeds, slices=128, slice_thickness=0.75)))
    tell("ceT1 to hrT2, phantom base", to_t2(subjects(seeds, base="phantom")))
    with other_t2_average(of_t1):
        tell("ceT1 to hrT2, both bases from the T1 average", to_t2(subjects(seeds)))
    for by_mm in (0.2, 0.4, 0.6):
        with other_t2_average(moved(by_mm)):
            tell(f"ceT1 to hrT2, T2 average {by_mm} mm higher", to_t2(subjects(seeds)))
    print("\nThe T1 average against the T2 average about an ear, by mutual information (x, y, z, mm):")
    for name, side in (("left", 1), ("right", -1)):
        print(f"{name} {' '.join(f'{value:+.2f}' for value in averages_apart(side))}")


if __name__ == "__main__":
    main()
