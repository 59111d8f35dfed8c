"""Predictions of many scan files with any names: a segmentation of each, and tables of all measures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmoda import batch, output, weights
from crossmoda.dataset.case import HRT2, Case
from crossmoda.dataset.case_id import id_of_file
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
            name = pseudonym(id_of_file(scan) if not scan.is_dir() else scan.name, scan)
            free = name if name not in scans else f"{scan.parent.name}_{name}"
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

    ``folder/measures.csv`` has a row per tumor and cochlea, ``folder/cases.csv`` one per scan, also of a failed one.
    The failure of a scan does not stop the others.

    Returns:
        The result of each scan by name, and the reason for each failure.

    Raises:
        InputError: the weights cannot be used, or the folder cannot be written.

    """
    folder = Path(folder)
    output.check_writable(folder, is_folder=True)
    path = Path(weights_path or weights.bundled())
    weights.load(path)  # refused at once, not once per scan
    settings = settings or Settings()

    rows: list[list[object]] = []
    cases_rows: dict[str, list[object]] = {}

    def work(case: Case, step: Progress | None) -> ScanResult:
        result = predict_files(case.image, folder / f"{case.id}{ending}", path, settings, step)
        rows.extend([case.id, *row] for row in table(result.measures, result.label_map.grid))
        notes = " ".join(result.provenance["notes"])
        *values, measured = case_row(result.measures, result.label_map.grid)
        cases_rows[case.id] = [*values, f"{measured} {notes}".strip(), None]
        return ScanResult(result.measures, result.provenance)

    cases = [Case(name, HRT2, scan) for name, scan in scans.items()]
    results, failures = batch.for_each(cases, work, progress)
    failed = {name: [*[None] * len(CASE_COLUMNS), cause] for name, cause in failures.items()}
    with output.together():
        output.write_csv(folder / MEASURES, ["scan", *COLUMNS], rows)
        output.write_csv(
            folder / CASES,
            ["scan", *CASE_COLUMNS, "failure"],
            [[name, *(cases_rows.get(name) or failed[name])] for name in scans],
        )
    return results, failures
