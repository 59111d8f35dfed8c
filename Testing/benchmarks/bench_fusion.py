"""STAPLE, SimpleITK's STAPLE and majority vote on simulated raters: time, Dice, volume.

Each rater is the truth with every structure moved independently (standard deviation in pixels of 0.5 mm) and resized
(8%). ``python Testing/benchmarks/bench_fusion.py`` prints a table.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import fusion
from crossmoda.evaluation import dice

SHAPE = (64, 192, 192)


def truth() -> np.ndarray:
    """A tumor of 4600 voxels and two cochleae of 235 each, 0.5 x 0.5 x 1.5 mm."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[((z - 32) * 3) ** 2 + (y - 90) ** 2 + (x - 60) ** 2 < 15**2] = 1
    for center in (60, 132):
        label_map[((z - 30) * 3) ** 2 + (y - 66) ** 2 + (x - center) ** 2 < 5.5**2] = 2
    return label_map


def raters(label_map: np.ndarray, count: int, pixels: float, seed: int) -> list[np.ndarray]:
    """Misplaced, resized copies of each structure."""
    rng = np.random.default_rng(seed)
    copies = [np.zeros_like(label_map) for _ in range(count)]
    for value in (1, 2):
        pieces, _ = ndimage.label(label_map == value)
        for piece, box_of_piece in enumerate(ndimage.find_objects(pieces), start=1):
            box = tuple(slice(max(side.start - 20, 0), side.stop + 20) for side in box_of_piece)
            mask = (pieces[box] == piece).astype(np.float32)
            middle = np.array(ndimage.center_of_mass(mask))
            for copy in copies:
                scale = 1 + rng.normal(0, 0.08)
                offset = middle * (1 - scale) - rng.normal(0, pixels, 3) * (1 / 3, 1, 1)
                copy[box][ndimage.affine_transform(mask, np.eye(3) * scale, offset, order=1) > 0.5] = value
    return copies


def _binary_staple(maps: list[np.ndarray]) -> np.ndarray:
    """SimpleITK's STAPLE per structure; the more probable structure wins a voxel."""
    best, result = np.full(SHAPE, 0.5), np.zeros(SHAPE, np.uint8)
    for value in (1, 2):
        images = [sitk.GetImageFromArray(item) for item in maps]
        program = sitk.STAPLEImageFilter()
        program.SetForegroundValue(float(value))
        probability = sitk.GetArrayFromImage(program.Execute(images))
        result[probability > best] = value
        best = np.maximum(best, probability)
    return result


def _multi_label_staple(maps: list[np.ndarray]) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE([sitk.GetImageFromArray(item) for item in maps], 0))


METHODS: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    "CrossModa STAPLE": lambda maps: fusion.staple(maps).label_map,
    "CrossModa STAPLE, free volumes": lambda maps: fusion.staple(maps, fusion.Settings(free_volumes=True)).label_map,
    "SimpleITK MultiLabelSTAPLE": _multi_label_staple,
    "SimpleITK STAPLE per label": _binary_staple,
    "majority vote": fusion.majority_vote,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raters", type=int, default=30)
    parser.add_argument("--pixels", type=float, nargs="+", default=[1.5, 3.0])
    parser.add_argument("--repeats", type=int, default=3, help="runs; the fastest counts")
    options = parser.parse_args()
    label_map = truth()
    print(f"{options.raters} raters of {SHAPE[2]} x {SHAPE[1]} x {SHAPE[0]}\n")
    print(
        "| misplacement, pixels | method | wall s | CPU s | VS Dice | VS volume % | cochlea Dice | cochlea volume % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for pixels in options.pixels:
        maps = raters(label_map, options.raters, pixels, seed=1)
        single = [np.mean([dice(item == value, label_map == value) for item in maps]) for value in (1, 2)]
        print(f"| {pixels:g} | mean single rater | | | {single[0]:.3f} | | {single[1]:.3f} | |")
        for name, method in METHODS.items():
            wall, processor = [], []
            for _ in range(options.repeats if name.startswith("CrossModa") else 1):
                start = time.perf_counter(), time.process_time()
                fused = method(maps)
                wall.append(time.perf_counter() - start[0])
                processor.append(time.process_time() - start[1])
            cells = []
            for value in (1, 2):
                drawn, true = fused == value, label_map == value
                cells.append(f"{dice(drawn, true):.3f} | {100 * (drawn.sum() / true.sum() - 1):+.0f}")
            print(
                f"| {pixels:g} | {name} | {min(wall):.2f} | {min(processor):.2f} | {cells[0]} | {cells[1]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
