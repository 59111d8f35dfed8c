"""Calls of the engine that take too long for the panel's own process.

``PythonSlicer worker.py VERB FOLDER`` reads ``arguments.json`` in the folder and writes ``answer.json`` there: the
paths of a cohort are too long for a command line. Progress goes to stdout as the tags of CLI modules, and the last line
on stderr is the cause of a failure.
"""

import json
import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).resolve().parent):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import CrossModaSegLib  # noqa: F401  (makes the engine importable)
from crossmoda.errors import InputError
from CrossModaSegLib.processes import growth_verb, review_verbs


def device() -> dict:
    """Return what the automatic choice of device would use, with its memory in GiB."""
    from crossmoda import device as devices

    chosen = devices.choose("auto")
    memory = round(devices.memory_gib(chosen), 1)
    return {"device": chosen, "description": devices.describe(chosen), "memory_gib": memory}


def cases(folder: str, progress) -> dict:
    """Return the cases of a data set's folder; no image is read."""
    from crossmoda.dataset import open_dataset

    return {"cases": [_as_json(case) for case in open_dataset(Path(folder)).cases]}


def check(folder: str, progress) -> dict:
    """Return the problems of a data set's folder by file; every file is read."""
    from crossmoda.dataset import open_dataset, validate

    problems: dict[str, str] = {}
    for problem in validate(open_dataset(Path(folder)), progress):
        problems.setdefault(str(problem.file), problem.message)
    return {"problems": problems}


def prepare(rows: list[dict], folder: str, progress) -> dict:
    """Read the images, and the labels of atlases; return them as arrays in files, with grids, and the tumors' sides.

    The panel only has to copy the voxels: reading and unpacking files would stop it. Targets come without a label, also
    if the data set has one.
    """
    from crossmoda.anatomy import laterality
    from crossmoda.dataset import Case

    ready = []
    for number, row in enumerate(rows):
        progress(number / len(rows), row["id"])
        label_path = Path(row["label"]) if row["label"] and row["modality"] == "ceT1" else None
        case = Case(row["id"], row["modality"], Path(row["image"]), label_path)
        answer = {"side": row["side"], "problem": "", "label": None}
        try:
            image = case.read_image()
            answer["image"] = _handed_over(image, Path(folder) / f"{number}.npy")
            if case.label is not None:
                label = case.read_label(image)
                answer["side"] = row["side"] or laterality.tumor_side(label) or ""
                answer["label"] = _handed_over(label, Path(folder) / f"{number}_label.npy")
        except InputError as error:
            answer["problem"] = str(error)
        ready.append(answer)
    return {"rows": ready}


def _handed_over(volume, path: Path) -> dict:
    """Write the voxels of a volume (whole numbers as such); return what the panel needs to know."""
    import numpy as np

    array = volume.array
    if array.dtype == np.float32:
        whole = np.clip(array, -32768, 32767).astype(np.int16)
        array = whole if np.array_equal(whole, array) else array
    np.save(path, array)
    low, high = np.percentile(array[:: max(1, len(array) // 32)], (0.1, 99.9))
    grid = {"spacing": volume.grid.spacing, "origin": volume.grid.origin, "direction": volume.grid.direction}
    return {"array": str(path), "range": [float(low), float(high)], "grid": grid}


def locate(scan: str, progress) -> dict:
    """Return the landmarks of both ears of a scan's file, or the reasons why they were not found."""
    from crossmoda.anatomy import ear_frame, landmarks
    from crossmoda.volume import read

    return landmarks.summary(ear_frame.ear_frames(read(Path(scan)), progress=progress))


def measure(
    label_map: str,
    scan: str,
    planes: dict[str, list],
    progress,
    probability: str = "",
    weights: str = "",
    intervals: dict[str, list[float]] | None = None,
) -> dict:
    """Return the measures of a label map file and its scan: a table, sentences, axial diameters and planes (LPS, mm).

    Args:
        label_map: on the grid of the scan.
        scan: the scan.
        planes: planes of the porus that a person moved: point and normal by side.
        progress: callback(fraction, message).
        probability: probability map of the tumor; empty: none.
        weights: the weights that predicted it; empty: bundled weights.
        intervals: of the volumes by side (mm3), where they are known from an earlier measurement.

    """
    from crossmoda import measurement

    result = _measured(label_map, scan, planes, progress, probability, weights, intervals)
    measures, grid = result.measures, result.label_map.grid
    rows = measurement.table(measures, grid)
    moved = ["moved" if row[0] == "VS" and row[1] in planes else None for row in rows]
    title = ["plane of the porus"] if any(moved) else []
    diameters = [
        {"name": f"{tumor['side']} {name}", **tumor[key]}
        for tumor in measurement.as_json(measures, grid)["tumors"]
        for name, key in (("axial diameter", "axial_diameter"), ("perpendicular diameter", "perpendicular_diameter"))
    ]
    return {
        "columns": [*measurement.COLUMNS, *title],
        "rows": [row + [entry] * len(title) for row, entry in zip(rows, moved, strict=True)],
        "sentences": measures.sentences,
        "notes": [*(str(tumor.koos) for tumor in measures.tumors if tumor.koos), *measures.notes],
        "diameters": diameters,
        "intervals": {tumor.side: tumor.interval_mm3 for tumor in measures.tumors if tumor.interval_mm3},
        "planes": {
            tumor.side: [tumor.parts.plane.point.tolist(), tumor.parts.plane.normal.tolist()]
            for tumor in measures.tumors
            if tumor.parts is not None and tumor.parts.plane is not None
        },
    }


def report(
    label_map: str,
    scan: str,
    path: str,
    planes: dict[str, list],
    intervals: dict[str, list[float]],
    record: dict,
    instance: str,
    reviewer: str,
    progress,
) -> dict:
    """Write the report of a segmentation; ``instance`` is a DICOM file of its scan, ``record`` its provenance."""
    from crossmoda.measurement.report import About, about_scan, write_report

    result = _measured(label_map, scan, planes, progress, intervals=intervals)
    date, patient = about_scan(Path(instance), False) if instance else ("", "")
    write_report(result, path, About(record, record.get("caution", ""), date, patient, reviewer))
    return {"path": path}


def _measured(label_map: str, scan: str, planes: dict[str, list], progress, probability="", weights="", intervals=None):
    """Return the measures of files; planes of the porus and intervals of volumes by side replace those measured."""
    import dataclasses

    from crossmoda import measurement
    from crossmoda.measurement.axial import HalfSpace

    half_spaces = {side: HalfSpace.at(*where) for side, where in planes.items()}
    result = measurement.measure_files(
        label_map, scan, probability or None, weights or None, progress=progress, planes=half_spaces
    )
    limits_by_side = {side: tuple(limits) for side, limits in (intervals or {}).items()}
    tumors = [
        dataclasses.replace(tumor, interval_mm3=limits_by_side.get(tumor.side, tumor.interval_mm3))
        for tumor in result.measures.tumors
    ]
    return dataclasses.replace(result, measures=dataclasses.replace(result.measures, tumors=tuple(tumors)))


def segment_all(scans: dict[str, str], folder: str, weights: str, device: str, flips: bool, progress) -> dict:
    """Segment and measure scans (files by case ID); return the table's file and the failures by case."""
    from crossmoda import inference
    from crossmoda.inference import scan_files

    files = {name: Path(file) for name, file in scans.items()}
    settings = inference.Settings(device=device, flips=flips)
    _results, failures = scan_files.predict_scans(files, folder, weights or None, settings, progress)
    return {"table": str(Path(folder) / scan_files.MEASURES), "failures": failures, "count": len(files)}


def dicom_segmentation(label_map: str, series: str, path: str, is_corrected: bool, model: str, progress) -> dict:
    """Write a label map file as DICOM SEG of a folder with its series; the order of the slices is the series'."""
    from crossmoda.export.dicom_segmentation import write_dicom_segmentation
    from crossmoda.volume import read, read_label_map, resampling

    grid = read(Path(series)).grid
    on_series = resampling.resample(read_label_map(Path(label_map)), grid, interpolation="nearest")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_dicom_segmentation(on_series, series, path, is_corrected=is_corrected, model=model)
    return {"path": path}


def convert(source: str, target: str, progress) -> dict:
    """Write a label map file in another format."""
    from crossmoda.volume import read_label_map, write

    write(read_label_map(Path(source)), Path(target))
    return {}


def simulate(folder: str, sources: int, targets: int, seed: int, settings: dict, progress) -> dict:
    """Write a small simulated data set into a new folder."""
    from crossmoda.simulation import Settings, simulate_dataset

    simulate_dataset(
        Path(folder),
        sources=sources,
        targets=targets,
        tests=0,
        seed=seed,
        settings=Settings(**settings),
        progress=progress,
    )
    return cases(folder, progress)


def _as_json(case) -> dict:
    return {
        "id": case.id,
        "modality": case.modality,
        "side": case.side or "",
        "image": str(case.image),
        "label": str(case.label) if case.label else "",
    }


def _tag(fraction: float, message: str) -> None:
    print(f"<filter-progress>{fraction:.4f}</filter-progress><filter-comment>{message}</filter-comment>", flush=True)


def main() -> int:
    """Run one verb; return the exit code."""
    verb, folder = sys.argv[1], Path(sys.argv[2])
    arguments = json.loads((folder / "arguments.json").read_text(encoding="utf-8"))
    from crossmoda.output import use_utf8, write_json

    use_utf8()
    verbs = {"device": device, "cases": cases, "check": check, "prepare": prepare}
    verbs |= {
        "locate": locate,
        "segment_all": segment_all,
        "dicom_segmentation": dicom_segmentation,
        "simulate": simulate,
        "measure": measure,
        "report": report,
        "convert": convert,
    }
    verbs |= {"growth": growth_verb.growth, **review_verbs.VERBS}
    try:
        write_json(folder / "answer.json", verbs[verb](**arguments, **({} if verb == "device" else {"progress": _tag})))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
