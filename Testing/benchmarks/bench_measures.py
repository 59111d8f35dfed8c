"""Errors of the measures on an independent set: bias, limits of agreement, Bland-Altman picture, intervals of volumes.

    python Testing/benchmarks/bench_measures.py SET --output FOLDER [--weights W] [--cases 40] [--picture P.png]
    python Testing/benchmarks/bench_measures.py SET --output FOLDER --calibrate     # interval of volumes -> model card

Every hrT2 of a head with a tumor is segmented and measured; the truth is the label map, measured with the true plane
of the porus, which the set's generator states. The predictions of a network are kept in FOLDER, so that a run that was
stopped goes on, and changed measures are taken again without the network. ``--calibrate`` writes the interval of
volumes into the card of the weights: calibrate on the tuning set, state coverage on another one.
"""

import argparse
import dataclasses
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import set_scores

from crossmoda import inference, labels, output, volume, weights
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import ear_frames
from crossmoda.measurement import measure
from crossmoda.measurement.axial import HalfSpace
from crossmoda.measurement.interval import KEY, VolumeInterval, uncertain_volume
from crossmoda.measurement.measures import TumorMeasures
from crossmoda.measurement.meatus import porus_plane, split_by_plane
from crossmoda.volume import Volume

sys.path.append(str(Path(__file__).parents[1] / "independent_sets"))
#: Name, unit, and whether errors are in percent of the truth.
MEASURES = {
    "volume": ("mm3", True), "axial diameter": ("mm", False), "perpendicular diameter": ("mm", False),
    "craniocaudal extent": ("mm", False), "3D diameter": ("mm", False), "extrameatal diameter": ("mm", False),
    "intrameatal volume": ("mm3", False), "extrameatal volume": ("mm3", False), "gap to the cochlea": ("mm", False),
}  # fmt: skip


def true_plane(set_name: str, case: set_scores.Case, side: str) -> HalfSpace:
    """Return the plane of the porus that the generator of the set painted."""
    import make
    import subjects

    head, _ = make.head_of(set_name, int(case.id.split("_")[1]))
    marks = template.load().landmarks
    rng = np.random.default_rng([head.seed, 3 + subjects.SIDES.index(side)])  # the first draws of an ear's anatomy
    porus, fundus = marks["porus"] + rng.normal(0, 0.5, 3), marks["fundus"] + rng.normal(0, 0.3, 3)
    ends = head.from_ear(np.stack([porus, fundus]), side)
    return HalfSpace(ends[0], (ends[0] - ends[1]) / np.linalg.norm(ends[0] - ends[1]))


def numbers(tumor: TumorMeasures, side: str) -> dict[str, float | None]:
    """Return the measures by name; None where one is not known."""
    parts = tumor.parts
    return {
        "volume": tumor.volume_mm3,
        "axial diameter": tumor.axial.largest.length_mm,
        "perpendicular diameter": tumor.axial.perpendicular.length_mm,
        "craniocaudal extent": tumor.craniocaudal_mm,
        "3D diameter": tumor.diameter_3d.length_mm,
        "extrameatal diameter": tumor.extrameatal_mm,
        "intrameatal volume": parts.intrameatal_mm3 if parts else None,
        "extrameatal volume": parts.extrameatal_mm3 if parts else None,
        "gap to the cochlea": tumor.gaps_mm.get(side),
    }


def predicted(case: set_scores.Case, model: weights.TrainedNetwork, mark: str, folder: Path) -> tuple[Volume, Volume]:
    """Return the label map and the tumor's probability of a head; those of the same network are reused."""
    about, label, probability = (folder / f"{case.id}{end}" for end in (".json", "_label.nii.gz", "_VS.nii.gz"))
    if not about.exists() or output.read_json(about).get("network") != mark:
        about.unlink(missing_ok=True)
        prediction = inference.predict(volume.read_scan(case.scan), model)
        volume.write(prediction.label_map, label)
        volume.write(prediction.label_map.with_array(prediction.probabilities[labels.VS]), probability)
        output.write_json(about, {"network": mark})
    return volume.read_label_map(label), volume.read(probability)


def run_case(case: set_scores.Case, model: weights.TrainedNetwork, mark: str, folder: Path) -> dict[str, Any]:
    """Segment and measure one head; return what the tables need."""
    truth, scan = case.truth(), volume.read_scan(case.scan)
    assert truth is not None
    set_name = case.row["set"]
    planes: dict[str, Any] = {}
    frames = ear_frames(scan)
    for frame in frames.accepted:
        plane, true = porus_plane(frame), true_plane(set_name, case, frame.side)
        angle = float(np.degrees(np.arccos(np.clip(plane.normal @ true.normal, -1, 1))))
        planes[frame.side] = {"shift_mm": float(true.depth_mm(plane.point)), "angle_deg": angle}
    result: dict[str, Any] = {"id": case.id, "side": case.side, "planes": planes}
    if not case.side:
        return result
    (tumor,) = measure(truth).tumors
    mask = Volume(truth.array == labels.VS, truth.grid)
    own = numbers(tumor, case.side)
    parts = split_by_plane(mask, true_plane(set_name, case, case.side), error_mm=0.0)
    own["extrameatal diameter"] = parts.extrameatal.largest.length_mm if parts.extrameatal else 0.0
    own["intrameatal volume"], own["extrameatal volume"] = parts.intrameatal_mm3, parts.extrameatal_mm3
    result["true"] = own
    label_map, probability = predicted(case, model, mark, folder)
    matched = [tumor for tumor in measure(label_map, frames).tumors if tumor.side == case.side]
    if matched:
        mask = Volume(label_map.array == labels.VS, label_map.grid)
        result["measured"] = numbers(matched[0], case.side)
        result["extrameatal limits"] = list(matched[0].parts.limits_mm) if matched[0].parts else None
        result["uncertain"] = uncertain_volume(mask, probability.array)
    return result


def error_table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the measures: cases, bias, limits of agreement (Bland and Altman 1986)."""
    lines = ["| measure | cases | bias | limits of agreement | median absolute error |", "|---|---|---|---|---|"]
    for name, (unit, in_percent) in MEASURES.items():
        pairs = [(r["measured"][name], r["true"][name]) for r in results if "measured" in r]
        values = np.array([(m, t) for m, t in pairs if m is not None and t is not None], float)
        if not len(values):
            continue
        errors = values[:, 0] - values[:, 1]
        if in_percent:
            errors, unit = 100 * errors / values[:, 1], "%"
        bias, spread = errors.mean(), 1.96 * errors.std(ddof=1)
        limits = f"{bias - spread:+.1f} to {bias + spread:+.1f}"
        lines.append(f"| {name} [{unit}] | {len(values)} | {bias:+.1f} | {limits} | {np.median(np.abs(errors)):.1f} |")
    return "\n".join(lines)


def plane_table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the error of the plane of the porus."""
    lines = [
        "| ears | n | shift along the canal: bias, SD [mm] | absolute, median, 95 % [mm] | angle, median [deg] |",
        "|---|---|---|---|---|",
    ]
    for name, with_tumor in (("with a tumor", True), ("without", False)):
        chosen = [p for r in results for side, p in r["planes"].items() if (side == r["side"]) == with_tumor]
        if chosen:
            shift = np.array([plane["shift_mm"] for plane in chosen])
            angle = np.median([plane["angle_deg"] for plane in chosen])
            absolute = f"{np.median(np.abs(shift)):.1f}, {np.percentile(np.abs(shift), 95):.1f}"
            lines.append(
                f"| {name} | {len(shift)} | {shift.mean():+.1f}, {shift.std():.1f} | {absolute} | {angle:.0f} |"
            )
    return "\n".join(lines)


def intervals(results: list[dict[str, Any]], stored: VolumeInterval | None) -> tuple[str, VolumeInterval | None]:
    """Return sentences about intervals of volumes, and the model calibrated on these cases."""
    chosen = [r for r in results if "measured" in r]
    uncertain = np.array([r["uncertain"] for r in chosen])
    measured, true = (np.array([r[key]["volume"] for r in chosen]) for key in ("measured", "true"))
    if len(chosen) < 10:
        return "Fewer than 10 tumors: intervals are not calibrated.", None

    def inside(model: VolumeInterval, index: int) -> bool:
        low, high = model.around(measured[index], uncertain[index])
        return bool(low <= true[index] <= high)

    left_out = []
    for index in range(len(chosen)):
        rest = np.arange(len(chosen)) != index
        left_out.append(inside(VolumeInterval.calibrated(uncertain[rest], measured[rest], true[rest]), index))
    model = VolumeInterval.calibrated(uncertain, measured, true)
    lines = [
        f"Calibrated on these {len(chosen)} cases, factor {model.factor}; each left out: {np.mean(left_out):.0%} in."
    ]
    if stored is not None:
        covered = [inside(stored, index) for index in range(len(chosen))]
        widths = [stored.around(1.0, value)[1] - 1 for value in uncertain]
        lines.append(
            f"Model card (factor {stored.factor}, {stored.scans} cases): {sum(covered)} of {len(covered)} inside "
            f"({np.mean(covered):.0%}, nominal {stored.nominal:.0%}); median upper limit +{np.median(widths):.0%}."
        )
    return "\n".join(lines), model


def limits_sentence(results: list[dict[str, Any]]) -> str:
    """Return how often the true extrameatal diameter lies within its limits."""
    chosen = [r for r in results if r.get("extrameatal limits")]
    inside = [
        low - 1e-6 <= r["true"]["extrameatal diameter"] <= high + 1e-6
        for r in chosen
        for low, high in [r["extrameatal limits"]]
    ]
    return f"Extrameatal diameter: {sum(inside)} of {len(inside)} true values within the limits."


def picture(results: list[dict[str, Any]], path: Path) -> None:
    """Write the Bland-Altman picture: error against the mean of measured and true, volume and axial diameter."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    for axis, name in zip(axes, ("volume", "axial diameter"), strict=True):
        values = np.array([(r["measured"][name], r["true"][name]) for r in results if "measured" in r], float)
        unit, in_percent = MEASURES[name]
        error, mean = values[:, 0] - values[:, 1], values.mean(axis=1)
        error = 100 * error / values[:, 1] if in_percent else error
        axis.scatter(mean, error, s=14, color="#33658a")
        spread = 1.96 * error.std(ddof=1)
        for offset, style in ((0, "-"), (-spread, "--"), (spread, "--")):
            axis.axhline(error.mean() + offset, color="#c1443c", linestyle=style, linewidth=1)
        if in_percent:
            axis.set_xscale("log")
        axis.set_xlabel(f"{name}, mean of measured and true [{unit}]")
        axis.set_ylabel(f"measured - true [{'%' if in_percent else unit}]")
    figure.savefig(path, dpi=110)
    Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)


def main() -> None:
    """Run the selected cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=weights.bundled())
    parser.add_argument("--cases", type=int, default=80, help="heads, with and without a tumor")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args()
    model, mark = weights.load(options.weights), checksum_of_network(options.weights)
    results = []
    for case in set_scores.cases(options.set, ["heads"])[: options.cases]:
        results.append(run_case(case, model, mark, options.output))
    tumors = [result for result in results if result["side"]]
    print(f"{len(tumors)} tumors, {sum('measured' not in result for result in tumors)} of them not found.\n")
    print(error_table(tumors), plane_table(results), sep="\n\n", end="\n\n")
    text, interval = intervals(tumors, VolumeInterval.of(model.card))
    print(text, limits_sentence(tumors), sep="\n")
    if options.picture:
        picture(tumors, options.picture)
    if options.calibrate and interval is not None:
        write_to_card(options.weights, KEY, dataclasses.asdict(interval))


def checksum_of_network(path: Path) -> str:
    """Return a checksum of the weights that a change of the interval in their card does not change."""
    tensors, card = weights.read_tensors(path)
    total = sum(float(tensor.double().sum()) for tensor in tensors.values())
    return f"{total:.9g} {checksum_text({name: value for name, value in card.items() if name != KEY})}"


def checksum_text(card: dict[str, Any]) -> str:
    """Return a short checksum of a card."""
    return f"{zlib.crc32(json.dumps(card, sort_keys=True).encode()):08x}"


def write_to_card(path: Path, key: str, entry: dict[str, Any]) -> None:
    """Write an entry into the card of weights."""
    tensors, card = weights.read_tensors(path)
    weights.save(path, tensors, {**card, key: entry})
    print(f"Written to {path}: {key} = {entry}")


if __name__ == "__main__":
    main()
