"""Volume and Dice of small structures after resampling: nearest neighbor, linear with threshold 0.5, and `label`.

Volume error: of the resampled structure against the volume that the transform makes of the voxelized shape (dense
sampling; for rigid transforms simply its volume before). Dice: against the same structure drawn directly on the
output grid (analytic ellipsoids), or after the way there and back against the original (expert contours).

Usage: python Testing/benchmarks/bench_label_resampling.py [--labels FOLDER] [--cases 40] [--shapes 60]
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda import labels
from crossmoda.evaluation import dice
from crossmoda.volume import Grid, Volume, read_label_map, resample

DEFAULT_LABELS = Path(__file__).resolve().parents[3] / "shared/data/vs_seg_contours/labels"
METHODS = ("nearest", "linear 0.5", "label")
#: Name, spacing of the output (mm), rotation of its axes (degrees), and kind of transform.
SCENARIOS = (
    ("same spacing, shifted", (0.5, 0.5, 1.5), 0, "shift"),
    ("same spacing, oblique", (0.5, 0.5, 1.5), 12, "shift"),
    ("finer: 0.41 x 0.41 x 1 mm", (0.41, 0.41, 1.0), 5, "shift"),
    ("finer: 0.5 mm isotropic", (0.5, 0.5, 0.5), 0, "shift"),
    ("coarser: 1 x 1 x 1.5 mm", (1.0, 1.0, 1.5), 5, "shift"),
    ("coarser: 1 x 1 x 3 mm", (1.0, 1.0, 3.0), 0, "shift"),
    ("smooth deformation", (0.5, 0.5, 1.5), 0, "deform"),
    ("shrunk to 70% of volume", (0.5, 0.5, 1.5), 5, "shrink"),
)


def resampled(volume: Volume, grid: Grid, transform: sitk.Transform, method: str) -> np.ndarray:
    if method != "linear 0.5":
        return resample(volume, grid, transform, method).array
    best = np.full(grid.shape, 0.5, np.float32)
    result = np.zeros(grid.shape, np.uint8)
    for structure in labels.structures_in(volume.array):
        occupancy = volume.with_array((volume.array == structure.value).astype(np.float32))
        occupied = resample(occupancy, grid, transform, "linear").array
        result[occupied >= best] = structure.value
        best = np.maximum(best, occupied)
    return result


def around(volume: Volume, spacing: tuple[float, ...], degrees: float, rng: np.random.Generator) -> Grid:
    """Return a grid over the volume with other spacing, turned about a random axis and shifted by part of a voxel."""
    euler = sitk.Euler3DTransform()
    euler.SetRotation(*(rng.normal(size=3) / np.sqrt(3) * np.radians(degrees)))
    direction = np.reshape(euler.GetMatrix(), (3, 3))
    extent = np.asarray(volume.grid.size) * volume.grid.spacing + 4.0
    size = np.ceil(extent / spacing).astype(int)
    center = volume.grid.index_to_physical @ [*((np.asarray(volume.grid.size) - 1) / 2), 1.0]
    origin = center[:3] - direction @ ((size - 1) / 2 * spacing) + direction @ (rng.uniform(-0.5, 0.5, 3) * spacing)
    return Grid(tuple(size.tolist()), tuple(spacing), tuple(origin.tolist()), tuple(direction.ravel().tolist()))


def transform_of(kind: str, grid: Grid, rng: np.random.Generator) -> sitk.Transform:
    center = (grid.index_to_physical @ [*((np.asarray(grid.size) - 1) / 2), 1.0])[:3]
    if kind == "shrink":
        affine = sitk.AffineTransform(3)
        affine.SetCenter(tuple(center))
        affine.Scale(0.7 ** (-1 / 3))
        return affine
    if kind == "deform":
        mesh = [max(2, round(count * spacing / 10)) for count, spacing in zip(grid.size, grid.spacing, strict=True)]
        spline = sitk.BSplineTransformInitializer(Volume(np.zeros(grid.shape, np.uint8), grid).to_sitk(), mesh, 3)
        spline.SetParameters(rng.normal(0, 1.5, len(spline.GetParameters())).tolist())
        field = sitk.TransformToDisplacementField(
            spline, sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing, grid.direction
        )
        return sitk.DisplacementFieldTransform(field)
    return sitk.Transform(3, sitk.sitkIdentity)


def densely(grid: Grid, factor: int) -> Grid:
    spacing = np.asarray(grid.spacing) / factor
    first = np.reshape(grid.direction, (3, 3)) @ ((spacing - grid.spacing) / 2)
    origin = np.asarray(grid.origin) + first
    size = tuple(count * factor for count in grid.size)
    return Grid(size, tuple(spacing.tolist()), tuple(origin.tolist()), grid.direction)


def true_volumes(volume: Volume, grid: Grid, transform: sitk.Transform, kind: str) -> dict[int, float]:
    counts = np.bincount(volume.array.ravel(), minlength=3) * volume.grid.voxel_volume_mm3
    if kind == "shift":
        return {structure.value: counts[structure.value] for structure in labels.STRUCTURES}
    if kind == "shrink":
        return {structure.value: 0.7 * counts[structure.value] for structure in labels.STRUCTURES}
    fine = densely(grid, 3)
    counts = np.bincount(resample(volume, fine, transform, "nearest").array.ravel(), minlength=3)
    return {structure.value: counts[structure.value] * fine.voxel_volume_mm3 for structure in labels.STRUCTURES}


class Ellipsoid:
    """A randomly placed and turned ellipsoid of a given volume."""

    def __init__(self, volume_mm3: float, rng: np.random.Generator):
        axes = rng.uniform(0.6, 1.0, 3)
        self.axes = axes * (volume_mm3 / (4 / 3 * np.pi * axes.prod())) ** (1 / 3)
        self.center = rng.uniform(-1, 1, 3)
        self.turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]

    def drawn(self, grid: Grid, transform: sitk.Transform | None = None) -> np.ndarray:
        """Return the mask of voxels whose center, mapped by the transform, lies inside."""
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")[::-1], axis=-1)
        points = index @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
        if transform is not None:
            field = sitk.TransformToDisplacementField(
                transform, sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing, grid.direction
            )
            points = points + sitk.GetArrayFromImage(field)
        inside = ((points - self.center) @ self.turn / self.axes) ** 2
        return inside.sum(axis=-1) <= 1


def study_ellipsoids(count: int, rows: dict) -> None:
    rng = np.random.default_rng(7)
    source = Grid((60, 60, 22), (0.5, 0.5, 1.5), (-15.0, -15.0, -16.0), tuple(np.eye(3).ravel().tolist()))
    for size, name in ((55.0, "ellipsoid 55 mm³"), (1400.0, "ellipsoid 1400 mm³")):
        for _ in range(count):
            shape = Ellipsoid(size, rng)
            volume = Volume(shape.drawn(source).astype(np.uint8), source)
            for scenario, spacing, degrees, kind in SCENARIOS:
                grid = around(volume, spacing, degrees, rng)
                transform = transform_of(kind, grid, rng)
                expected = true_volumes(volume, grid, transform, kind)[1]
                truth = shape.drawn(grid, transform)
                for method in METHODS:
                    mask = resampled(volume, grid, transform, method) == 1
                    error = 100 * (np.count_nonzero(mask) * grid.voxel_volume_mm3 / expected - 1)
                    rows[name, scenario, method].append((error, dice(mask, truth)))


def study_contours(folder: Path, count: int, rows: dict, seconds: dict) -> None:
    rng = np.random.default_rng(8)
    for path in sorted(folder.glob("*T1wspace_label.nii.gz"))[:count]:
        volume = read_label_map(path)
        for scenario, spacing, degrees, kind in SCENARIOS:
            grid = around(volume, spacing, degrees, rng)
            transform = transform_of(kind, grid, rng)
            expected = true_volumes(volume, grid, transform, kind)
            for method in METHODS:
                start = time.process_time()
                moved_array = resampled(volume, grid, transform, method)
                seconds[method].append(time.process_time() - start)
                back = None
                if kind != "deform":
                    back = resampled(Volume(moved_array, grid), volume.grid, transform.GetInverse(), method)
                for structure in labels.structures_in(volume.array):
                    volume_mm3 = np.count_nonzero(moved_array == structure.value) * grid.voxel_volume_mm3
                    error = 100 * (volume_mm3 / expected[structure.value] - 1)
                    same = (
                        dice(back == structure.value, volume.array == structure.value) if back is not None else np.nan
                    )
                    rows[f"contours, {structure.key}", scenario, method].append((error, same))


def print_table(rows: dict) -> None:
    print("| shape | scenario | " + " | ".join(f"{method}: volume error %, Dice" for method in METHODS) + " |")
    print("|---|---|" + "---|" * len(METHODS))
    for shape, scenario in dict.fromkeys(key[:2] for key in rows):
        cells = []
        for method in METHODS:
            errors, dices = np.array(rows[shape, scenario, method]).T
            cell = f"{errors.mean():+.2f} ± {errors.std(ddof=1):.2f}"
            cells.append(cell if np.isnan(dices).all() else f"{cell}, {np.nanmean(dices):.3f}")
        print(f"| {shape} | {scenario} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=DEFAULT_LABELS, help="folder with expert label maps")
    parser.add_argument("--cases", type=int, default=40, help="number of label maps")
    parser.add_argument("--shapes", type=int, default=60, help="ellipsoids of each size")
    arguments = parser.parse_args()
    rows: dict = defaultdict(list)
    seconds: dict = defaultdict(list)
    study_ellipsoids(arguments.shapes, rows)
    if arguments.labels.is_dir():
        study_contours(arguments.labels, arguments.cases, rows, seconds)
    print_table(rows)
    for method, values in seconds.items():
        print(f"CPU time, {method}: median {1000 * np.median(values):.1f} ms a label map")


if __name__ == "__main__":
    main()
