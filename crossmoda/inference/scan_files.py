"""Predictions of many scan files with any names: a segmentation of each, and tables of all measures."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmoda import batch, output, provenance, weights
from crossmoda import device as devices
from crossmoda.dataset import results as layout
from crossmoda.dataset.case import HRT2, Case
from crossmoda.dataset.case_id import id_of_file, safe_id
from crossmoda.errors import InputError
from crossmoda.inference.prediction_files import predict_files
from crossmoda.inference.settings import Settings
from crossmoda.measurement import CASE_COLUMNS, COLUMNS, Measures, case_row, table
from crossmoda.progress import Progress
from crossmoda.pseudonyms import pseudonym
from crossmoda.volume import dicom

#: The tables: a row per tumor and cochlea, a row per scan; the endings of segmentations.
MEASURES, CASES, ENDINGS = "measures.csv", "cases.csv", (".seg.nrrd", ".nii.gz", ".nrrd", ".dcm")
_IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def scans_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the scans of paths by unique names: image files, folders of image files, DICOM folders.

    Raises:
        InputError: a scan is named twice, or two have the same name.

    """
    scans: dict[str, Path] = {}
    used: set[Path] = set()
    for path in paths:
        for scan in _images_of(path) or [path]:
            if scan.resolve() in used:
                raise InputError(f"Scan named twice: {scan}. Name it once.")
            used.add(scan.resolve())
            name = safe_id(pseudonym(id_of_file(scan) if not scan.is_dir() else scan.name, scan))
            free = name if name not in scans else safe_id(f"{scan.parent.name}_{name}")
            if free in scans:
                raise InputError(f"Two scans have the same name: {scans[free]} and {scan}. Rename one of them.")
            scans[free] = scan
    return scans


def is_image_folder(path: Path) -> bool:
    """Return whether a folder holds image files and no DICOM files."""
    return bool(_images_of(path))


def _images_of(path: Path) -> list[Path]:
    """Return the image files of a plain folder; none of a DICOM folder or a file."""
    if not path.is_dir():
        return []
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    names = {file: file.name.lower() for file in files}
    if any(dicom.is_dicom(file) for file in files):
        return []
    return [file for file, name in names.items() if name.endswith(_IMAGES) and not name.endswith(".seg.nrrd")]


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What remains of a prediction in memory."""

    measures: Measures
    provenance: dict[str, Any]


def predict_scans(
    scans: Mapping[str, Path],
    folder: Path | str,
    weights_path: Path | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    ending: str = ENDINGS[0],
) -> tuple[dict[str, ScanResult], dict[str, str]]:
    """Segment scans into ``folder/NAME.seg.nrrd`` and write their measures.

    ``folder/measures.csv`` has a row per tumor and cochlea, ``folder/cases.csv`` one per scan, also of a failed one;
    ``folder/cases.csv.provenance.json`` says how both were made. The failure of a scan does not stop the others.

    Returns:
        The result of each scan by name, and the reason for each failure.

    Raises:
        InputError: the weights cannot be used, the folder cannot be written, or an output would replace a scan, or a
            file that is edited or of other software; nothing is written then.

    """
    folder = Path(folder)
    output.check_writable(folder, is_folder=True)
    path = Path(weights_path or weights.bundled())
    cases = [Case(name, HRT2, scan) for name, scan in scans.items()]
    segmentations = {case.id: folder / f"{case.id}{ending}" for case in cases}
    tables = {"measures": folder / MEASURES, "cases": folder / CASES}
    tables_record = layout.record_beside(folder / CASES)
    by_scan = {case.image: segmentations[case.id] for case in cases}
    _refuse_replacing(by_scan, tables.values(), tables_record, path)
    weights.load(path)  # refused at once, not once per scan
    settings = settings or Settings()
    device = devices.describe(devices.choose(settings.device))
    record = provenance.Record("predict", settings, {"weights": path}, device)

    rows: list[list[object]] = []
    cases_rows: dict[str, list[object]] = {}

    def work(case: Case, step: Progress | None) -> ScanResult:
        result = predict_files(case.image, segmentations[case.id], path, settings, step)
        rows.extend([case.id, *row] for row in table(result.measures, result.label_map.grid))
        notes = " ".join(result.provenance["notes"])
        *values, measured = case_row(result.measures, result.label_map.grid)
        cases_rows[case.id] = [*values, f"{measured} {notes}".strip(), None]
        return ScanResult(result.measures, result.provenance)

    results, failures = batch.for_each(cases, work, progress)
    failed = {name: [*[None] * len(CASE_COLUMNS), cause] for name, cause in failures.items()}
    with output.together():
        output.write_csv(tables["measures"], ["scan", *COLUMNS], rows)
        output.write_csv(
            tables["cases"],
            ["scan", *CASE_COLUMNS, "failure"],
            [[case.id, *(cases_rows.get(case.id) or failed[case.id])] for case in cases],
        )
        checksums = provenance.checksums_of_outputs(tables, tables_record)
        output.write_json(tables_record, record.finish(**checksums))
    return results, failures


def _refuse_replacing(
    segmentations: Mapping[Path, Path], tables: Iterable[Path], tables_record: Path, weights_path: Path
) -> None:
    """Refuse, before the first scan is read, any output that would replace an input or a file of the user.

    ``segmentations`` has the output of each scan.

    Raises:
        InputError: an output would.

    """
    records = {path: layout.record_beside(path) for path in segmentations.values()}
    output.check_apart([*records, *records.values(), *tables, tables_record], [*segmentations, weights_path])
    for scan, path in segmentations.items():
        provenance.refuse_foreign([path], records[path], scan)
    provenance.refuse_foreign(tables, tables_record)
