"""Growth of tumors between two scans of simulated heads: bias, limits of agreement, sensitivity, alignment, time.

    python Testing/benchmarks/bench_growth.py --output FOLDER [--set claim] [--pairs 20] [--weights W]
    python Testing/benchmarks/bench_growth.py --output FOLDER --calibrate     # repeatability -> model card

Each pair is one head scanned twice with a tumor whose volume changed by a known percentage
(Testing/independent_sets/follow_up.py). Finished pairs of the same weights are reused. Compared on the same pairs:

- ``growth``: the engine, both scans in common ear frames;
- ``independent``: each scan in its own ear frames, no alignment;
- ``SimpleITK``: common frames by SimpleITK's rigid registration (mutual information) in place of the engine's;
- ``manual``: simulated readers with the published limits of agreement by volume (PMID 38980343), 200 draws a pair.

Processor seconds of a pair are in a warm process and hold ear frames, alignment and segmentation of both scans.
"""

import argparse
import dataclasses
import datetime
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from bench_ear_frame import DATA
from bench_measures import write_to_card
from scipy.stats import mannwhitneyu

from crossmoda import growth, labels, output, volume, weights
from crossmoda.anatomy.ear_frame import ear_frames
from crossmoda.anatomy.sampling import covering, moved, positions
from crossmoda.growth import joint_estimate
from crossmoda.growth.rigid_alignment import align, frame_alignment
from crossmoda.inference import Settings as InferenceSettings
from crossmoda.inference.ear_patches import EarPrediction, predict_patches
from crossmoda.inference.ears import Calling, call
from crossmoda.measurement.growth import KEY, Repeatability
from crossmoda.measurement.interval import uncertain_volume
from crossmoda.provenance import checksum
from crossmoda.volume import Volume
from crossmoda.volume.transforms import matrix_of

sys.path.append(str(Path(__file__).parents[1] / "independent_sets"))
METHODS = ("growth", "independent", "SimpleITK")
#: Limits of agreement with the mean of readers (95 %, percent) in the smallest and the largest quarter of 100 tumors,
#: whose limits are 193 and 3101 mm3 (PMID 38980343); between them the logarithm of the volume decides.
MANUAL_PERCENT, MANUAL_MM3 = (26.8, 7.3), (193.0, 3101.0)
CRITERION_PERCENT = 20.0
#: Volumes from which on the goal for the smallest detectable change holds, mm3.
LARGER_MM3 = 300.0


def manual_limit(volume_mm3: float) -> float:
    """Return the 95 % limit of agreement of a manual volume, percent."""
    return float(np.interp(np.log(volume_mm3), np.log(MANUAL_MM3), MANUAL_PERCENT))


def simpleitk_rigid(first: Volume, later: Volume) -> np.ndarray:
    """Return SimpleITK's rigid 4 x 4 matrix from points of the first to points of the later scan."""
    fixed, moving = (image.with_array(image.array.astype(np.float32)).to_sitk() for image in (first, later))
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.05, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 150)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(start, inPlace=False)
    return matrix_of(method.Execute(fixed, moving))


def tumor_volume(ear: EarPrediction, rule: Calling) -> tuple[float, float]:
    """Return the volume of the tumor of an ear (mm3, 0 without one) and its relative uncertain volume."""
    tumor = call([ear], rule)[0].argmax(axis=0) == labels.VS
    if not tumor.any():
        return 0.0, 0.0
    probability = ear.probabilities[labels.VS]
    size = joint_estimate.volume_mm3(probability, tumor, ear.voxel_mm3)
    return size, uncertain_volume(Volume(tumor, ear.grid), probability)


def run_pair(pair: Any, percent: float, model: weights.TrainedNetwork) -> dict[str, Any]:
    """Return what the tables need of a pair."""
    scans = [scan.with_array(scan.array.astype(np.float32)) for scan in pair.scans]
    marked = pair.labels[0].grid.points(pair.labels[0].array == labels.VS)
    true_mm3 = [float((each.array == labels.VS).sum()) * each.grid.voxel_volume_mm3 for each in pair.labels]
    result: dict[str, Any] = {
        "percent": percent,
        "true_log": math.log(pair.volumes_mm3[1] / pair.volumes_mm3[0]),
        "volumes_mm3": [round(value, 1) for value in true_mm3],
        "sequences": list(pair.sequences),
        "slices_mm": [round(scan.grid.spacing[2], 2) for scan in scans],
        "log": {},
        "align_mm": {},
    }

    def error_mm(matrix: np.ndarray) -> float:
        return float(np.linalg.norm(moved(matrix, marked) - pair.to_second(marked), axis=1).mean())

    dates = datetime.date(2020, 1, 1), datetime.date(2022, 1, 1)
    points = [growth.TimePoint(name, scan, date) for name, scan, date in zip("12", scans, dates, strict=True)]
    start = time.process_time()
    measured = growth.measure_growth(points, model)
    result["processor_s"] = round(time.process_time() - start, 1)
    sizes = [point.sizes.get(pair.side) for point in measured.points]
    result["verdict"] = next((each.growth.verdict for each in measured.intervals if each.side == pair.side), "none")
    result["other_side"] = sum(each.side != pair.side for each in measured.intervals)
    alignment = measured.points[1].matrix
    result["align_mm"]["growth"] = error_mm(alignment)
    result["stated_mm"] = measured.points[1].error_mm
    if sizes[0] and sizes[1]:
        result["log"]["growth"] = math.log(sizes[1].volume_mm3 / sizes[0].volume_mm3)
        result["measured_mm3"] = [round(size.volume_mm3, 1) for size in sizes if size]
        result["axial_mm"] = [round(size.axial_mm, 2) for size in sizes if size]
    frames = [ear_frames(scan) for scan in scans]
    result["align_mm"]["ear frames"] = error_mm(frame_alignment(*frames))
    own = [next(frame for frame in each if frame.side == pair.side) for each in frames]
    rule = Calling.of(model.card)
    itk = simpleitk_rigid(*scans)
    result["align_mm"]["SimpleITK"] = error_mm(itk)
    itk_frame = dataclasses.replace(own[0], matrix=itk @ own[0].matrix)
    ears = [
        predict_patches(model, scans[n], [frame], frames[n].contrast, InferenceSettings(), "cpu")[0][0]
        for n, frame in ((0, own[0]), (1, own[1]), (1, itk_frame))
    ]
    volumes = [tumor_volume(ear, rule) for ear in ears]
    result["uncertain"] = [round(each[1], 4) for each in volumes[:2]]
    for name, later in (("independent", 1), ("SimpleITK", 2)):
        if volumes[0][0] and volumes[later][0]:
            result["log"][name] = math.log(volumes[later][0] / volumes[0][0])
    return result


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the results of all pairs; those of earlier runs are read."""
    import follow_up

    path = Path(options.weights or weights.bundled())
    model, digest = weights.load(path), checksum(path)[:12]
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    first_seed = {"tuning": 31_000, "claim": 32_000}[options.set]
    for number in range(options.pairs):
        file = folder / f"{options.set}_{digest}_{number:03d}.json"
        if not file.exists():
            percent = follow_up.CHANGES[number % len(follow_up.CHANGES)]
            pair = follow_up.follow_up(DATA, options.set, first_seed + number, percent)
            output.write_json(file, run_pair(pair, percent, model))
            print(file.name, flush=True)
        results.append(output.read_json(file))
    return results


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of methods."""
    true = np.array([each["true_log"] for each in results])
    larger = np.array([each["volumes_mm3"][0] >= LARGER_MM3 for each in results])
    rng = np.random.default_rng(0)
    lines = [
        "| method | pairs | bias % | 95 % limits % | SDC % | SDC %, above 300 mm3 | sensitivity | specificity | AUC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*METHODS, "manual"):
        if name == "manual":
            spread = np.array([manual_limit(each["volumes_mm3"][0]) / 100 / 1.96 * math.sqrt(2) for each in results])
            measured = true + rng.normal(0, 1, (200, len(true))) * spread
        else:
            measured = np.array([[each["log"].get(name, np.nan) for each in results]])
        lines.append(_row(name, measured, true, larger))
    return lines


def _row(name: str, measured: np.ndarray, true: np.ndarray, larger: np.ndarray) -> str:
    known = np.isfinite(measured)
    error = (measured - true)[known]
    bias, spread = float(error.mean()), float(error.std(ddof=1))
    least = math.log(1 + CRITERION_PERCENT / 100) - 1e-3
    grown = np.broadcast_to(true >= least, measured.shape)[known]
    called = measured[known] >= least
    sdc = [100 * math.expm1(1.96 * spread)]
    within = np.broadcast_to(larger, measured.shape)[known]
    sdc.append(100 * math.expm1(1.96 * float(error[within].std(ddof=1))))
    cells = (
        name,
        f"{int(known[0].sum())}",
        f"{100 * math.expm1(bias):+.1f}",
        f"{100 * math.expm1(bias - 1.96 * spread):+.1f} to {100 * math.expm1(bias + 1.96 * spread):+.1f}",
        f"{sdc[0]:.1f}",
        f"{sdc[1]:.1f} (n = {int(np.broadcast_to(larger, measured.shape)[0][known[0]].sum())})",
        f"{called[grown].mean():.2f}",
        f"{1 - called[~grown].mean():.2f}",
        f"{_area_under_curve(measured[known][grown], measured[known][~grown]):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _area_under_curve(grown: np.ndarray, others: np.ndarray) -> float:
    """Return the probability that a tumor that has grown has the larger measured change."""
    return float(mannwhitneyu(grown, others).statistic / (len(grown) * len(others)))


def alignment_table(results: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of alignment errors."""
    lines = ["| alignment | mean | median | largest |", "|---|---|---|---|"]
    for name in ("growth", "ear frames", "SimpleITK"):
        values = np.array([each["align_mm"][name] for each in results])
        lines.append(f"| {name} | {values.mean():.2f} | {np.median(values):.2f} | {values.max():.2f} |")
    stated = np.array([each["stated_mm"] for each in results])
    return [*lines, f"| stated | {stated.mean():.2f} | {np.median(stated):.2f} | {stated.max():.2f} |"]


def calibrate(results: list[dict[str, Any]], path: Path) -> None:
    """Write the repeatability into the model card: 95 % of the errors of the logarithm of a ratio lie within."""
    default = Repeatability()
    scores = [
        abs(each["log"]["growth"] - each["true_log"])
        / (math.hypot(*(u + default.offset for u in each["uncertain"])) / math.sqrt(2))
        for each in results
        if "growth" in each["log"]
    ]
    rank = min(math.ceil((len(scores) + 1) * 0.95), len(scores))
    factor = round(float(np.sort(scores)[rank - 1]), 3)
    write_to_card(path, KEY, {"factor": factor, "offset": default.offset})
    print(f"of {len(scores)} pairs")


def real_pairs() -> list[str]:
    """Return the lines of the table of two sessions of one person: distance to the transforms of the data's authors."""
    import bench_real_pairs

    lines = ["| pair | ear frames | growth | stated | SimpleITK |", "|---|---|---|---|---|"]
    for pair in bench_real_pairs.pairs():
        if pair.truth is None or "study1" not in pair.fixed or "study2" not in pair.moving:
            continue
        first, later = (volume.read_scan(DATA / name) for name in (pair.fixed, pair.moving))
        frames = ear_frames(first), ear_frames(later)
        start = frame_alignment(*frames)
        result = align(first, later, frames[0].accepted, start)
        points = np.concatenate([_ball(ear.cochlea) for ear in frames[0].accepted])
        true = np.array([pair.truth.TransformPoint(point) for point in points.tolist()])
        errors = [
            float(np.linalg.norm(moved(matrix, points) - true, axis=1).mean())
            for matrix in (start, result.matrix, simpleitk_rigid(first, later))
        ]
        cells = (
            pair.name,
            f"{errors[0]:.2f}",
            f"{errors[1]:.2f}",
            f"{result.error_mm(points):.2f}",
            f"{errors[2]:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ball(center: np.ndarray) -> np.ndarray:
    points = positions(covering(center - 18, center + 18, 3.0)).reshape(-1, 3)
    return points[np.linalg.norm(points - center, axis=1) <= 18]


def main() -> None:
    """Run the pairs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", choices=("tuning", "claim"), default="claim")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--calibrate", action="store_true", help="write the repeatability into the model card")
    parser.add_argument("--real", action="store_true", help="the real pairs as well")
    options = parser.parse_args()
    results = run(options)
    if options.calibrate:
        calibrate(results, Path(options.weights or weights.bundled()))
        return
    seconds = np.array([each["processor_s"] for each in results])
    print("\n".join([*table(results), "", *alignment_table(results), ""]))
    print(f"Processor seconds a pair: median {np.median(seconds):.1f}, largest {seconds.max():.1f}")
    if options.real:
        print("\n".join(["", *real_pairs()]))


if __name__ == "__main__":
    main()
