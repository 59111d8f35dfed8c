"""Growth of the tumors of one patient between two scans."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmoda import device as devices
from crossmoda import growth as engine
from crossmoda import output, parameters, volume, weights
from crossmoda.growth.files import COLUMNS, as_json, table, write_transform
from crossmoda.parameters import from_arguments, parameter
from crossmoda.progress import Progress, part, report
from crossmoda.steps.declaration import File, Result, StepDeclaration


@dataclasses.dataclass(frozen=True)
class ScanDates(parameters.Settings):
    """The dates of both scans."""

    previous_date: str = parameter("", "Date of the previous scan (YYYY-MM-DD); empty: unknown")
    current_date: str = parameter("", "Date of the current scan (YYYY-MM-DD); empty: unknown")


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Measure the growth; write the outputs together.

    Raises:
        InputError: the scans cannot be compared, or an output cannot be written.

    """
    settings = from_arguments(engine.Settings, values)
    devices.choose(settings.device)
    scans: list[Path] = [values["previous"], values["current"]]
    labels = {number: values[name] for number, name in enumerate(("previous_label", "current_label")) if values[name]}
    output.check_apart([values[file.name] for file in STEP.outputs], [*scans, *labels.values(), values["weights"]])
    report(progress, 0.0, "reading the scans")
    points, notes = engine.read_time_points(scans, _dates(values), labels, settings.any_patient)
    model = weights.load(values["weights"] or weights.bundled())
    result = engine.measure_growth(points, model, settings, part(progress, 0.1, 0.95))
    content = as_json(result, [*notes, *result.notes])
    previous, current = sorted(result.points, key=lambda each: each.point.number)
    report(progress, 0.95, "writing the outputs")
    with output.together():
        for each, name in ((previous, "previous_segmentation"), (current, "current_segmentation")):
            if values[name]:
                volume.write(each.label_map, values[name])
        if values["transform"]:
            write_transform(previous, current, values["transform"])
        if values["table"]:
            output.write_csv(values["table"], COLUMNS, table(content))
    report(progress, 1.0, "done")
    intervals = result.intervals
    changes = [interval.growth.change_percent for interval in intervals]
    without = "not compared" if any(each.sizes for each in result.points) else "no tumor"
    return {
        "verdict": ", ".join(f"{interval.side}: {interval.growth.verdict}" for interval in intervals) or without,
        "change_percent": next((round(change[1], 2) for change in changes if change), 0.0),
        "alignment_error_mm": round(max(each.error_mm for each in result.points), 3),
        "sentences": " ".join(content["sentences"]),
        "notes": " ".join(content["notes"]),
    }


def _dates(values: Mapping[str, Any]) -> list[str]:
    """Return both dates; none where both are empty: names of temporary files state none."""
    dates = [values["previous_date"], values["current_date"]]
    return dates if any(dates) else []


STEP = StepDeclaration(
    module="CrossModaGrowth",
    title="CrossModa Growth",
    description="Measures whether a vestibular schwannoma has grown between two scans of a patient: aligns them "
    "rigidly around the petrous bones, segments both in one frame, and compares the volumes. Not a medical device.",
    acknowledgements="Methods: M. P. Heinrich and colleagues, Medical Image Analysis 2012; criteria: Lees et al. 2018, "
    "Kanzaki et al. 2003.",
    inputs=(
        File("previous", "image", "Previous scan, T2 or ceT1", required=True),
        File("current", "image", "Current scan of the same patient, T2 or ceT1", required=True),
        File("previous_label", "label", "Corrected label of the previous scan, taken as truth"),
        File("current_label", "label", "Corrected label of the current scan, taken as truth"),
        File("weights", "weights", "Trained weights, instead of the bundled ones", advanced=True),
    ),
    outputs=(
        File("previous_segmentation", "label", "Schwannoma (1) and cochlea (2) on the grid of the previous scan"),
        File("current_segmentation", "label", "Schwannoma (1) and cochlea (2) on the grid of the current scan"),
        File("transform", "linear transform", "Rigid transform from previous to current points"),
        File("table", "table", "Change, rate and verdict of each tumor"),
    ),
    settings=(ScanDates, engine.Settings),
    results=(
        Result("verdict", str, "Verdict", "Stable, grown, shrunk, uncertain, appeared or removed, by side"),
        Result("change_percent", float, "Change of volume (%)", "Change of the volume of the first tumor"),
        Result("alignment_error_mm", float, "Alignment error (mm)", "Standard error of the alignment at the tumor"),
        Result("sentences", str, "Result", "The result in words"),
        Result("notes", str, "Notes", "Messages for the user"),
    ),
    run=run,
)
