"""Growth of the scans of a patient in files: results as JSON and CSV, labels, transforms, figures and a page."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import cache, locks, output, provenance, volume, weights
from crossmoda import device as devices
from crossmoda.dataset.label_reading import checksum_of
from crossmoda.dataset.scan_selection import select_scan
from crossmoda.errors import InputError, cannot_read
from crossmoda.growth import figure
from crossmoda.growth.page import page_of
from crossmoda.growth.patient import Interval, MeasuredTimePoint, PatientGrowth, measure_growth
from crossmoda.growth.settings import Settings
from crossmoda.growth.time_points import read_time_points
from crossmoda.measurement.growth import Criterion
from crossmoda.progress import Progress, part, report
from crossmoda.volume.transforms import affine_transform

#: Bump to invalidate earlier results.
_REVISION = 2
RESULT, TABLE, PAGE, PICTURES = "growth.json", "growth.csv", "growth.html", ("growth.png", "growth.svg")
#: Columns of the table: a row per tumor and interval.
COLUMNS = (
    "side", "from", "to", "days", "verdict", "volume before [mm3]", "volume after [mm3]", "change [mm3]", "change [%]",
    "change, low [%]", "change, high [%]", "change per year [%]", "volume doubling time [years]",
    "diameter change [mm]", "alignment error [mm]",
)  # fmt: skip


def label_file(number: int) -> str:
    """Return the name of the segmentation of a scan (numbered as given, from 1), on its grid."""
    return f"label_{number}.seg.nrrd"


def aligned_files(number: int) -> tuple[str, str, str]:
    """Return the names of a scan (numbered as given) and its label map on the earliest scan's grid, and transform."""
    return f"aligned_scan_{number}.nii.gz", f"aligned_label_{number}.nii.gz", f"transform_{number}.h5"


def growth_files(
    scans: Sequence[Path | str],
    folder: Path | str,
    dates: Sequence[str] = (),
    labels: Mapping[int, Path | str] | None = None,
    model: Path | str | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the growth of the tumors of one patient and write the results; those of the same inputs are reused.

    Args:
        scans: at least two scans, in any order if they have dates.
        folder: receives the results; see docs/clinician.md.
        dates: date of each scan (YYYY-MM-DD); empty: of the DICOM headers, else in the names.
        labels: corrected label by the number of its scan, from 0.
        model: the weights; None: bundled weights.
        settings: of the criterion.
        progress: callback(fraction, message); raise Cancelled to abort.

    Returns:
        The content of :data:`RESULT`.

    Raises:
        InputError: the scans cannot be compared, or the folder cannot be written or has other files of these names.

    """
    folder, labels = Path(folder), dict(labels or {})
    output.check_writable(folder, is_folder=True)
    _refuse_inputs(folder, [*map(Path, scans), *map(Path, labels.values())])
    path = Path(model or weights.bundled())
    with locks.locked(folder):
        step = cache.CachedStep(
            folder,
            revision=_REVISION,
            scans=[provenance.checksum(scan) for scan in scans],
            labels={str(number): checksum_of(label) for number, label in labels.items()},
            dates=list(dates),
            names=[Path(scan).name for scan in scans],
            weights=provenance.checksum(path),
            settings={key: value for key, value in dataclasses.asdict(settings).items() if key != "device"},
        )
        earlier = step.results()
        if earlier is not None:
            report(progress, 1.0, "reused")
            return earlier
        numbers = range(1, len(scans) + 1)
        step.refuse_changed(_names(numbers, numbers), lambda name, earlier: _label_advice(name, earlier, scans))
        report(progress, 0.0, "reading the scans")
        points, notes = read_time_points(scans, dates, labels, settings.any_patient)
        inputs = {f"{role}_{point.number}": file for point in points for role, file in point.files.items()}
        record = provenance.Record(
            "growth", settings, {**inputs, "weights": path}, devices.describe(devices.choose(settings.device))
        )
        result = measure_growth(points, weights.load(path), settings, part(progress, 0.05, 0.9))
        report(progress, 0.9, "writing the results")
        content = as_json(result, [*notes, *result.notes]) | {"provenance": record.finish()}
        order = [each.point.number for each in result.points]
        step.begin(names := _names(sorted(order), sorted(order[1:]), has_pictures=bool(result.intervals)))
        _write(result, content, folder)
        step.finish(names, content)
    report(progress, 1.0, "done")
    return content


def _names(numbers: Iterable[int], aligned: Iterable[int], has_pictures: bool = True) -> list[str]:
    """Return the names of the files of a result with these scans, of which some are aligned to the earliest."""
    names = [RESULT, TABLE, PAGE, *(PICTURES if has_pictures else ())]
    names += map(label_file, numbers)
    return names + [name for number in aligned for name in aligned_files(number)]


def _refuse_inputs(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuse a folder that is, or lies in, the folder of a DICOM series, and inputs that are earlier results in it.

    Raises:
        InputError: it is one.

    """
    place = folder.resolve()
    for path in (item.resolve() for item in inputs):
        if path.is_dir() and place.is_relative_to(path):
            raise InputError(f"The results would lie in the folder of a scan: {folder}. Choose another folder.")
        if path.parent == place and (place / cache.SEAL).exists():
            raise InputError(f"The output folder has results, and an input: {path}. Choose another folder.")


def _label_advice(name: str, earlier: Mapping[str, Any], scans: Sequence[Path | str]) -> str | None:
    """Return how to use the edited label of an earlier result with these scans; None: it is of none of them.

    The earlier run may have had the scans in another order: the checksum of its scan tells which one it belongs to.
    """
    inputs = earlier.get("provenance", {}).get("inputs", {})
    labeled = [inputs[f"scan_{n}"]["sha256"] for n in range(1, len(inputs) + 1) if name == label_file(n)]
    for number, scan in enumerate(scans, start=1):
        if provenance.checksum(select_scan(scan).path) in labeled:
            return f"Move it to another folder, and give it: --label {number}=FILE."
    return None


def as_json(result: PatientGrowth, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a result as JSON content: volumes in mm3, lengths in mm, changes in percent, intervals of 95 %."""
    return {
        "sentences": list(result.sentences),
        "criterion": _criterion_json(result.criterion),
        "time_points": [_point_json(each) for each in result.points],
        "intervals": [_interval_json(interval, result) for interval in result.intervals],
        "notes": list(notes),
    }


def _criterion_json(criterion: Criterion) -> dict[str, Any]:
    unit = "mm" if criterion.is_linear else "%"
    return {**dataclasses.asdict(criterion), "unit": unit, "text": str(criterion)}


def _point_json(measured: MeasuredTimePoint) -> dict[str, Any]:
    point, alignment = measured.point, measured.alignment
    return {
        "name": point.name,
        "date": point.date.isoformat() if point.date else None,
        "label": label_file(point.number),
        "segmented_by": "corrected label" if point.label is not None else "network",
        "alignment": None
        if alignment is None
        else {
            "error_mm": round(measured.error_mm, 3),
            "similarity": round(alignment.similarity, 3),
            "matrix": [[round(float(value), 6) for value in row] for row in alignment.matrix],
        },
        "tumors": [
            {
                "side": side,
                "volume_mm3": round(size.volume_mm3, 2),
                "volume_interval_mm3": [round(value, 2) for value in size.interval_mm3],
                "axial_mm": round(size.axial_mm, 2),
                "extrameatal_mm": None if size.extrameatal_mm is None else round(size.extrameatal_mm, 2),
            }
            for side, size in measured.sizes.items()
        ],
    }


def _interval_json(interval: Interval, result: PatientGrowth) -> dict[str, Any]:
    growth = interval.growth
    return {
        "side": interval.side,
        "from": result.title(interval.first),
        "to": result.title(interval.later),
        "from_number": interval.first + 1,
        "to_number": interval.later + 1,
        "days": growth.days,
        "verdict": growth.verdict,
        "volume_before_mm3": _rounded(growth.before.volume_mm3 if growth.before else None),
        "volume_after_mm3": _rounded(growth.after.volume_mm3 if growth.after else None),
        "change_mm3": _rounded(growth.change_mm3),
        "change_percent": _rounded(growth.change_percent),
        "percent_per_year": _rounded(growth.percent_per_year),
        "doubling_years": _rounded(growth.doubling_years),
        "linear_mm": _rounded(growth.linear_mm),
    }


def _rounded(value: Any) -> Any:
    """Return a number, or low, measured and high, with two decimals; None stays."""
    if isinstance(value, tuple):
        return dict(zip(("low", "measured", "high"), map(_rounded, value), strict=True))
    return None if value is None else round(float(value), 2)


def read_result(path: Path | str) -> dict[str, Any]:
    """Read the result of :func:`growth_files`.

    Raises:
        InputError: the file is none.

    """
    try:
        content = output.read_json(Path(path))
        assert {"criterion", "time_points", "intervals"} <= set(content)
    except (OSError, ValueError, TypeError, AssertionError) as cause:
        raise cannot_read(path, "not a result of crossmoda growth", f"Give the file {RESULT} of its folder") from cause
    return dict(content)


def table(content: Mapping[str, Any]) -> list[list[object]]:
    """Return the rows of :data:`COLUMNS` of a result's JSON content."""
    points = content["time_points"]
    rows: list[list[object]] = []
    for each in content["intervals"]:
        change, yearly, doubling, linear = (
            each[name] or {} for name in ("change_percent", "percent_per_year", "doubling_years", "linear_mm")
        )
        errors = [points[each[name] - 1]["alignment"] for name in ("from_number", "to_number")]
        error = np.sqrt(sum(item["error_mm"] ** 2 for item in errors if item))
        rows.append(
            [
                each["side"],
                each["from"],
                each["to"],
                each["days"],
                each["verdict"],
                each["volume_before_mm3"],
                each["volume_after_mm3"],
                each["change_mm3"],
                change.get("measured"),
                change.get("low"),
                change.get("high"),
                yearly.get("measured"),
                doubling.get("measured"),
                linear.get("measured"),
                round(float(error), 3),
            ]
        )
    return rows


def _write(result: PatientGrowth, content: Mapping[str, Any], folder: Path) -> None:
    """Write all files of a result."""
    first = result.points[0].label_map.grid
    with output.together():
        output.write_json(folder / RESULT, content)
        output.write_csv(folder / TABLE, COLUMNS, table(content))
        for each in result.points:
            number = each.point.number
            volume.write_segmentation(each.label_map, folder / label_file(number), dict(content["provenance"]))
            if each is not result.points[0]:
                transform = affine_transform(each.matrix)
                scan_file, label, transform_file = aligned_files(number)
                scan = each.point.scan
                volume.write(
                    volume.resample(scan, first, transform, outside=float(scan.array.min())), folder / scan_file
                )
                volume.write(volume.resample(each.label_map, first, transform, "label"), folder / label)
                write_transform(result.points[0], each, folder / transform_file)
        if result.intervals:
            drawing = figure.volume_figure(content)
            for name in PICTURES:
                with output.atomic(folder / name) as temporary:
                    drawing.savefig(temporary)
        page_of(result, content).write(folder / PAGE)


def write_transform(first: MeasuredTimePoint, later: MeasuredTimePoint, path: Path) -> None:
    """Write the rigid transform from points of one time point to points of another (LPS mm): it resamples the later."""
    import SimpleITK as sitk

    transform = affine_transform(later.matrix @ np.linalg.inv(first.matrix))
    with output.atomic(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))
