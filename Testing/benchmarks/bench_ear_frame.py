"""Errors, refusals, seconds and memory of the ear frame on real heads, parts of them, and scans without ears.

    python Testing/benchmarks/bench_ear_frame.py                  # the real heads
    python Testing/benchmarks/bench_ear_frame.py --variations     # slabs, small fields of view, turned heads, no ears
    python Testing/benchmarks/bench_ear_frame.py --speed          # a head of 448 x 448 x 80 voxels
    python Testing/benchmarks/bench_ear_frame.py --pictures FOLDER

Reads the real data of Testing/README.md. Errors are distances from the listed centers, which are good to 1.5 mm.
Processor seconds (all threads) hardly depend on the load of the machine.
"""

import argparse
import csv
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crossmoda import volume
from crossmoda.anatomy import ear_frame, template
from crossmoda.anatomy.sampling import moved
from crossmoda.volume import Grid, Volume

DATA = Path(os.environ.get("CROSSMODA_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
NECKS = ("sct_cord/t2.nii.gz", "sct_cord/t1w.nii.gz")
Centers = dict[str, np.ndarray]


def heads() -> dict[str, Centers]:
    """Return the listed cochlear centers (LPS mm) by image and side."""
    result: dict[str, Centers] = {}
    with (DATA / "real_t2" / "cochlear_centers.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            center = np.array([float(row[f"{axis}_lps_mm"]) for axis in "xyz"])
            result.setdefault(row["image"], {})[row["side"]] = center
    return result


def cut(scan: Volume, center_mm: np.ndarray, half_mm: tuple[float, float, float]) -> Volume:
    """Return the part of a scan around a point, in mm along the scan's axes x, y, z."""
    index, half = moved(scan.grid.physical_to_index, center_mm), np.asarray(half_mm) / scan.grid.spacing
    first = np.maximum(np.floor(index - half), 0).astype(int)
    stop = np.minimum(np.ceil(index + half) + 1, scan.grid.size).astype(int)
    array = scan.array[first[2] : stop[2], first[1] : stop[1], first[0] : stop[0]]
    origin = tuple(moved(scan.grid.index_to_physical, first).tolist())
    grid = Grid(tuple((stop - first).tolist()), scan.grid.spacing, origin, scan.grid.direction)
    return Volume(np.ascontiguousarray(array), grid)


def turned(scan: Volume, centers: Centers, axis: int, degrees: float) -> tuple[Volume, Centers]:
    """Return a scan whose header is turned about an LPS axis through its center, and the centers moved along."""
    turn = np.eye(4)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[first, first] = turn[second, second] = cosine
    turn[first, second], turn[second, first] = -sine, sine
    middle = moved(scan.grid.index_to_physical, (np.asarray(scan.grid.size) - 1) / 2)
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    direction = (turn[:3, :3] @ np.reshape(scan.grid.direction, (3, 3))).ravel()
    origin = moved(turn, np.asarray(scan.grid.origin))
    grid = Grid(scan.grid.size, scan.grid.spacing, tuple(origin.tolist()), tuple(direction.tolist()))
    return Volume(scan.array, grid), {side: moved(turn, center) for side, center in centers.items()}


def variations(scan: Volume, centers: Centers) -> Iterator[tuple[str, Volume, Centers, set[str]]]:
    """Yield name, scan, centers and the sides that are to be accepted."""
    middle, all_of_it = (centers["left"] + centers["right"]) / 2, 999.0
    both = {"left", "right"}
    for name, half in (
        ("slab of 30 mm", (all_of_it, all_of_it, 15.0)),
        ("slab of 40 mm, field of view of 150 mm", (75.0, 75.0, 20.0)),
        ("slab of 30 mm, field of view of 110 mm", (55.0, 55.0, 15.0)),
    ):
        yield name, cut(scan, middle, half), centers, both
    for axis, degrees, name in ((0, -35, "pitch"), (0, 35, "pitch"), (1, 15, "roll"), (2, 20, "yaw")):
        yield f"{name} {degrees} degrees", *turned(scan, centers, axis, degrees), both
    for side, sign in (("left", 1.0), ("right", -1.0)):
        half_head = cut(scan, centers[side] + np.array([20 * sign, 0, 0]), (45.0, all_of_it, all_of_it))
        yield f"{side} half of the head", half_head, centers, {side}
    yield "75 mm above the ears", cut(scan, middle + np.array([0, 0, 75.0]), (all_of_it, all_of_it, 45.0)), {}, set()
    yield (
        "50 mm above the ears, thin",
        cut(scan, middle + np.array([0, 0, 50.0]), (all_of_it, all_of_it, 18.0)),
        {},
        set(),
    )
    for axis, name in ((0, "upside down and back to front"), (1, "upside down"), (2, "back to front")):
        yield f"header {name}", turned(scan, centers, axis, 180)[0], {}, set()
    yield "slices in reverse order", scan.with_array(np.ascontiguousarray(scan.array[::-1])), {}, set()


def show(name: str, scan: Volume, centers: Centers, expected: set[str]) -> ear_frame.EarFrames:
    """Locate the ears, print one line per scan, and return them."""
    wall, processor = time.perf_counter(), time.process_time()
    frames = ear_frame.ear_frames(scan)
    seconds = f"{time.process_time() - processor:.1f} ({time.perf_counter() - wall:.1f})"
    cells = []
    for frame in frames:
        modiolus = frame.to_scan(template.load().modiolus)
        error = f"{np.linalg.norm(modiolus - centers[frame.side]):.1f}" if frame.side in centers else "-"
        cells.append(f"{error} / {frame.similarity:.2f} / {frame.inside:.2f} / {frame.residual_mm:.1f}")
    accepted = {frame.side for frame in frames.accepted}
    verdict = "as expected" if accepted == expected else f"NOT AS EXPECTED: accepted {sorted(accepted)}"
    print(
        f"| {name} | {frames.contrast} {frames.base_similarity:.2f} | {' | '.join(cells)} | {seconds} | {verdict} |",
        flush=True,
    )
    return frames


def draw(name: str, scan: Volume, frames: ear_frame.EarFrames, folder: Path) -> None:
    """Write a picture of both ears in their frames with the landmarks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(20, 10))
    template_ears = template.load().ears[frames.contrast]
    grid = ear_frame.patch_grid((120, 100, 100), 0.5, (34.0, 26.0, -44.0))
    low, high = np.asarray(grid.origin), np.asarray(grid.origin) + 0.5 * (np.asarray(grid.size) - 1)
    for row, frame in zip(axes, frames, strict=True):
        patch = frame.sample(scan, grid).array
        points = {key: frame.to_canonical(position) for key, position in frame.landmarks.items()}
        center = points["modiolus"]
        index = np.round((center - low) / 0.5).astype(int)
        reference = volume.resample(template_ears, grid).array
        views = (
            (reference[index[2]], 0, 1, "template, axial"),
            (patch[index[2]], 0, 1, "axial"),
            (patch[index[2] + 6], 0, 1, "axial, 3 mm above"),
            (patch[:, index[1]], 0, 2, "coronal"),
        )
        for axis, (image, across, down, title) in zip(row, views, strict=True):
            extent = (low[across], high[across], high[down], low[down])
            axis.imshow(
                image, cmap="gray", extent=extent, vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.5)
            )
            if down == 2:
                axis.invert_yaxis()
            for key, position in (template.load().landmarks if title.startswith("template") else points).items():
                axis.plot(position[across], position[down], "+", ms=9)
                axis.annotate(key[:6], (position[across], position[down]), color="y", fontsize=7)
            axis.set_title(f"{name} {frame.side}: {title} ({frame.similarity:.2f})", fontsize=8)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name.replace('/', '_')}.png", dpi=60)
    plt.close(figure)


def main() -> None:
    """Run the chosen part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variations", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--only", default="", help="part of the names of the images")
    arguments = parser.parse_args()
    ear_frame.ear_frames(volume.read(DATA / "sct_cord" / "t2.nii.gz"))  # loads the compiled program
    print("| scan | contrast | left: error mm / similarity / inside / residual mm | right | processor s (wall) | |")
    print("|---|---|---|---|---|---|")
    images = {name: centers for name, centers in heads().items() if arguments.only in name}
    if arguments.speed:
        scan = volume.read(DATA / "open_ms_native" / "p01_study1_T2W.nii.gz")
        low = np.asarray(scan.grid.origin)
        spacing = tuple(
            size * step / count
            for size, step, count in zip(scan.grid.size, scan.grid.spacing, (448, 448, 80), strict=True)
        )
        grid = Grid((448, 448, 80), spacing, tuple(low.tolist()), scan.grid.direction)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(3):
            show("448 x 448 x 80", volume.resample(scan, grid), {}, {"left", "right"})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"\nLargest resident memory: {peak / 1024:.0f} MB ({before / 1024:.0f} MB before the first head)")
        return
    for name, centers in images.items():
        scan = volume.read(DATA / name)
        frames = show(name, scan, centers, {"left", "right"})
        if arguments.pictures:
            draw(name, scan, frames, arguments.pictures)
        if arguments.variations:
            for variation, changed, moved_centers, expected in variations(scan, centers):
                show(f"{name}, {variation}", changed, moved_centers, expected)
    for name in NECKS:
        show(name, volume.read(DATA / name), {}, set())


if __name__ == "__main__":
    main()
