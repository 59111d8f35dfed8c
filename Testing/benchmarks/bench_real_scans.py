"""Real scans, and any step on an independent set.

Real scans (Testing/README.md):
    python Testing/benchmarks/bench_real_scans.py --repeatability    # two sessions of a person, T1 against T2
    python Testing/benchmarks/bench_real_scans.py --doors            # a DICOM series: read, locate, predict
    python Testing/benchmarks/bench_real_scans.py --pictures FOLDER  # every scan, its landmarks and cochleae
A set of Testing/independent_sets/make.py:
    python Testing/benchmarks/bench_real_scans.py --frames --set FOLDER
    python Testing/benchmarks/bench_real_scans.py --predict --set FOLDER [--weights FILE]
    python Testing/benchmarks/bench_real_scans.py --propagate --set FOLDER [--atlases 8]
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import set_scores
import SimpleITK as sitk
from set_scores import SIDES, Case, Score, score

from crossmoda import cli, dataset, inference, labels, propagation, volume, weights
from crossmoda.anatomy import template
from crossmoda.anatomy.cochlea import mean_cochlea
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames, ear_frames, patch_grid
from crossmoda.anatomy.sampling import positions
from crossmoda.errors import InputError
from crossmoda.volume import Volume

DATA = Path(os.environ.get("CROSSMODA_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
#: A right frame lies within this distance of the cochlea, mm.
RIGHT_MM = 3.0
#: Sessions with rigid transforms to a common space, and the scans of each person.
SESSIONS = {
    "p01": ("open_ms_native", "open_ms_native"),
    "p03": ("real_t2", "real_t2/transforms"),
}
SCANS = (
    *(f"real_t2/{name}" for name in ("fnndsc_T2", "fnndsc_T1", "p03_study1_T2W", "p03_study2_T2W", "p03_study2_T1W")),
    *(f"open_ms_native/p01_study{n}_{kind}" for n in (1, 2) for kind in ("T2W", "T1W")),
)


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return the probability that a right one has a higher value than a wrong one; NaN without either."""
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(right, wrong)]
    return float(np.mean(pairs)) if pairs else float("nan")


def confidence(frames: EarFrames, side: str) -> float:
    """Return one number for the trust in a frame: its similarity times the fraction of the ear inside the scan."""
    frame = frames.left if side == "left" else frames.right
    return frame.similarity * min(frame.inside / 0.8, 1.0)


def measure_frames(cases: Sequence[Case]) -> None:
    """Print errors at the cochlea, acceptance and the areas under the curve."""
    errors: dict[str, list[float]] = {}
    right, wrong, ears, other, refused, surprising = [], [], [], [], [], []
    seconds = []
    for case in cases:
        scan = volume.read(case.scan)
        start = time.process_time()
        frames = ear_frames(scan)
        seconds.append(time.process_time() - start)
        accepted = {frame.side for frame in frames.accepted}
        if accepted != case.expected:
            surprising.append(f"{case.id}: {sorted(accepted)} instead of {sorted(case.expected)}")
        for side, frame in zip(SIDES, frames, strict=True):
            value = confidence(frames, side)
            if case.centers:
                error = float(np.linalg.norm(frame.to_scan(template.load().modiolus) - case.centers[side]))
                errors.setdefault(case.part, []).append(error)
                (right if error < RIGHT_MM else wrong).append(value)
                refused.append(side not in accepted)
                ears.append(value)
            elif side not in case.expected:
                other.append(value)
                wrong.append(value)
    print("| part | ears | median mm | 95th percentile | largest | above 1.5 mm |\n|---|---|---|---|---|---|")
    for part, values in errors.items():
        print(
            f"| {part} | {len(values)} | {set_scores.interval(values)} | {np.percentile(values, 95):.2f} | "
            f"{max(values):.1f} | {sum(value > 1.5 for value in values)} |"
        )
    print(f"\nears refused: {sum(refused)} of {len(refused)}")
    print(f"right against wrong frames: area {area_under_curve(right, wrong):.3f} ({len(right)}, {len(wrong)})")
    print(f"ears against anything else: area {area_under_curve(ears, other):.3f} ({len(ears)}, {len(other)})")
    print(
        f"lowest confidence of an ear {min(ears, default=0):.2f}, highest of anything else {max(other, default=0):.2f}"
    )
    print(f"processor seconds: median {np.median(seconds):.1f}, most {max(seconds):.1f}")
    print("\n".join(["not as expected:", *surprising]) if surprising else "all ears accepted and refused as expected")


def predict_cases(cases: Sequence[Case], weights_file: Path | None) -> list[Score]:
    """Segment the cases of a set."""
    model = weights.load(weights_file or weights.bundled())
    scores = []
    for case in cases:
        scan = volume.read(case.scan)
        try:
            result = inference.predict(scan, model, inference.Settings(device="cpu"))
            scores.append(score(case, result.label_map, result.provenance["notes"]))
        except InputError as refusal:  # a refusal is a result with a note
            scores.append(score(case, _empty(scan), [f"tumor: {refusal}"]))
        _report(scores[-1])
    return scores


def propagate_cases(cases: Sequence[Case], folder: Path, count: int) -> list[Score]:
    """Propagate labels to the cases of a set from the ceT1 scans with a tumor of other heads and expert subjects."""
    sources = [
        case
        for case in dataset.open_dataset(folder / "source_training").cases
        if case.label and case.modality == "ceT1"
    ]
    experts = {case.id: case.row["expert"] for case in set_scores.cases(folder, ["heads"]) if case.side}
    scores = []
    with tempfile.TemporaryDirectory() as work:
        for case in cases:
            scan = volume.read(case.scan)
            head = "_".join(case.id.split("_")[:2])
            expert = case.row["expert"]
            atlases = [each for each in sources if each.id != head and experts.get(each.id, expert) != expert][:count]
            target = dataset.Case(case.id, "hrT2", case.scan)
            try:
                result = propagation.propagate(target, atlases, Path(work) / case.id)
                scores.append(score(case, result.label_map, result.notes))
            except InputError as refusal:
                scores.append(score(case, _empty(scan), [f"tumor: {refusal}"]))
            _report(scores[-1])
    return scores


def _to_scan(person: str, session: int, contrast: str) -> list[sitk.Transform]:
    """Return the authors' transforms from common points to points of a scan, to be applied one after the other."""
    folder = DATA / SESSIONS[person][1]
    names = (f"study{session}_FLAIR_to_common_space", f"study{session}_{contrast}_intrastudy_to_FLAIR")
    return [sitk.ReadTransform(str(folder / f"{person}_{name}.txt")) for name in names]


def measure_repeatability() -> None:
    """Print how far the frames of two scans of one person lie apart, in the common space of the authors' transforms."""
    print("| person | scans | ear | modiolus mm | porus mm | rotation degrees |\n|---|---|---|---|---|---|")
    located: dict[tuple[str, int, str], EarFrames] = {}
    distances: dict[str, list[float]] = {"T2, two sessions": [], "T1 against T2": []}
    for person, session, contrast in itertools.product(SESSIONS, (1, 2), ("T2W", "T1W")):
        path = DATA / SESSIONS[person][0] / f"{person}_study{session}_{contrast}.nii.gz"
        if path.exists():
            located[person, session, contrast] = ear_frames(volume.read(path))
    for one, two in itertools.combinations(located, 2):
        repeated = one[1] != two[1] and one[2] == two[2] == "T2W"
        if one[0] != two[0] or not (repeated or one[1] == two[1]):
            continue
        kind = "T2, two sessions" if repeated else "T1 against T2"
        for side, first, second in zip(SIDES, located[one], located[two], strict=True):
            offsets = [np.linalg.norm(_common(first, one, name) - _common(second, two, name)) for name in _MARKS]
            turn = _axes(first, one) @ np.linalg.inv(_axes(second, two))
            angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
            distances[kind].append(float(offsets[0]))
            name = f"{one[2][:2]} {one[1]} - {two[2][:2]} {two[1]}"
            print(f"| {one[0]} | {name} | {side} | {offsets[0]:.1f} | {offsets[1]:.1f} | {angle:.1f} |")
    for kind, values in distances.items():
        print(f"\n{kind}: modiolus median {np.median(values):.1f}, at most {max(values):.1f} mm ({len(values)} ears)")


_MARKS = ("modiolus", "porus")


def _common(frame: EarFrame, scan: tuple[str, int, str], landmark: str) -> np.ndarray:
    """Return a canonical landmark of a frame in the common space."""
    return _back(frame.to_scan(template.load().landmarks[landmark]), scan)


def _back(point: np.ndarray, scan: tuple[str, int, str]) -> np.ndarray:
    for transform in reversed(_to_scan(*scan)):
        point = np.array(transform.GetInverse().TransformPoint(point.tolist()))
    return point


def _axes(frame: EarFrame, scan: tuple[str, int, str]) -> np.ndarray:
    """Return the directions of the canonical axes in the common space, as columns."""
    center = template.load().modiolus
    start = _back(frame.to_scan(center), scan)
    columns = [_back(frame.to_scan(center + 10 * axis), scan) - start for axis in np.eye(3)]
    return np.stack([column / np.linalg.norm(column) for column in columns], axis=1)


def measure_doors() -> None:
    """Print what reading, locating and predicting a DICOM series give, beside the NIfTI file made from it."""
    series, file = DATA / "real_t2" / "fnndsc_dicom", DATA / "real_t2" / "fnndsc_T2.nii.gz"
    scans = {"DICOM": volume.read(series), "NIfTI": volume.read(file)}
    one, two = scans.values()
    difference = np.abs(one.array.astype(float) - two.array).max()
    print(f"read: grids equal {one.grid.same_as(two.grid)}, largest difference of values {difference:g}")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in (("DICOM", series), ("NIfTI", file)):
            landmarks, label = Path(folder) / f"{name}.mrk.json", Path(folder) / f"{name}.nii.gz"
            for command in (
                ["locate", str(path), "--output", str(landmarks)],
                ["predict", str(path), "--output", str(label)],
            ):
                print(f"crossmoda {command[0]}, {name}: exit code {_exit_code(command)}")
            positions = json.loads(landmarks.read_text("utf-8"))["markups"]
            print(f"{name}: {sum(len(points['controlPoints']) for points in positions)} landmarks")
            result = volume.read_label_map(label)
            print(
                f"{name}: label on the grid of the scan {result.grid.same_as(scans[name].grid)}, cochlea "
                f"{(result.array == labels.COCHLEA).sum() * result.grid.voxel_volume_mm3:.0f} mm³, schwannoma "
                f"{(result.array == labels.VS).sum() * result.grid.voxel_volume_mm3:.0f} mm³ (none is there)"
            )


def _exit_code(command: list[str]) -> int:
    """Run the command and return its exit code; its output is not shown."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.main(command)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def draw_scans(folder: Path) -> None:
    """Write a picture per scan: the slice of each cochlea with its label and the landmarks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    grid = patch_grid((110, 84, 9), 0.5, (31.0, 27.0, -44.4))
    distance = mean_cochlea().distance(positions(grid))
    figure, axes = plt.subplots(len(SCANS), 4, figsize=(12, 2.3 * len(SCANS)))
    for row, name in zip(axes, SCANS, strict=True):
        scan = volume.read(DATA / f"{name}.nii.gz")
        frames = ear_frames(scan)
        for pair, frame in zip((row[:2], row[2:]), frames, strict=True):
            patch = frame.sample(scan, grid).array
            for axis, index in zip(pair, (3, 7), strict=True):
                axis.imshow(patch[index], cmap="gray", vmin=0, vmax=np.percentile(patch, 99.7))
                axis.contour(distance[index], [0.0], colors="yellow", linewidths=0.8)
                points = np.array([frame.to_canonical(point[None])[0] for point in frame.landmarks.values()])
                index_xy = (points - grid.origin)[:, :2] / 0.5
                near = np.abs(points[:, 2] - grid.origin[2] - 0.5 * index) < 2
                axis.plot(*index_xy[near].T, "c+", markersize=5)
                axis.set_title(f"{name.split('/')[1]} {frame.side} {frame.similarity:.2f}", fontsize=6, pad=2)
        for axis in row:
            axis.axis("off")
    figure.tight_layout(pad=0.2)
    path = folder / "real_scans.png"
    figure.savefig(path, dpi=53)
    colors = Image.open(path).convert("RGB")
    colors.quantize(40, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def _empty(scan: Volume) -> Volume:
    return scan.with_array(np.zeros(scan.array.shape, np.uint8))


def _report(one: Score) -> None:
    print(
        f"{one.case.id}: VS {one.vs:.2f}, cochlea {one.cochlea:.2f}, {one.center_mm:.1f} mm, false {one.false_mm3:.0f} "
        f"mm³{', wrong side' if one.wrong_side else ''}{', note' if one.noted else ''}",
        flush=True,
    )


def main() -> None:
    """Run the selected measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path)
    default = [part for part in set_scores.PARTS if part != set_scores.CET1]
    parser.add_argument("--parts", nargs="+", choices=set_scores.PARTS, default=default)
    parser.add_argument("--first", type=int, help="only the first cases of each part")
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--propagate", action="store_true")
    parser.add_argument("--atlases", type=int, default=8)
    parser.add_argument("--csv", type=Path, help="scores of each case")
    parser.add_argument("--repeatability", action="store_true")
    parser.add_argument("--doors", action="store_true")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    cases: list[Case] = []
    if options.frames or options.predict or options.propagate:
        if options.set is None:
            parser.error("--set FOLDER is needed")
        for part in options.parts:
            cases += set_scores.cases(options.set, [part])[: options.first]
    if options.frames:
        measure_frames(cases)
    if options.repeatability:
        measure_repeatability()
    if options.doors:
        measure_doors()
    if options.pictures:
        draw_scans(options.pictures)
    for wanted, run in (
        (options.predict, lambda: predict_cases(cases, options.weights)),
        (options.propagate, lambda: propagate_cases(cases, options.set, options.atlases)),
    ):
        if wanted:
            scores = run()
            print("\n" + set_scores.table(scores))
            if options.csv:
                set_scores.write(scores, options.csv)


if __name__ == "__main__":
    main()
