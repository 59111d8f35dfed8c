"""Cases that are DICOM series, with their contours and segmentations."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossmoda import output
from crossmoda.dataset.case import CET1, HRT2, Case
from crossmoda.dataset.named_cases import Found
from crossmoda.dataset.sequences import kind_of
from crossmoda.errors import InputError
from crossmoda.volume import dicom

#: The file of a data set that assigns series by UID or description: ``{"Innenohr": "hrT2", "T1 nativ": "ignore"}``.
ASSIGNMENT_FILE = "series_names.json"
_KINDS = (CET1, HRT2, "ignore")


def find(files: Iterable[Path], folder: Path) -> Found:
    """Return the cases of the DICOM series among files.

    Series that are neither ceT1 nor hrT2 are noted with their description; :data:`ASSIGNMENT_FILE` in ``folder``
    assigns them.

    Raises:
        InputError: the assignment cannot be used.

    """
    assigned = _assignment(folder)
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    drawn: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() == ".json":
            for uid in _series_of_json(file):
                drawn[uid].append(file)
        elif dicom.is_dicom(file):
            by_folder[file.parent].append(file)
    images: list[tuple[dicom.Series, Path]] = []
    for place, members in by_folder.items():
        slices = []
        for file in members:
            if dicom.storage_class(file) in dicom.DRAWN:
                if series_uid := dicom.series_of_drawing(file):
                    drawn[series_uid].append(file)
            else:
                slices.append(file)
        all_series = dicom.list_series(slices) if slices else []
        is_alone = len(all_series) == 1 and len(slices) == len(members)
        images += [(series, place if is_alone else series.files[0]) for series in all_series]
    cases, unpaired, notes = [], [], []
    for series, image in images:
        kind = assigned.get(series.uid) or assigned.get(series.description)
        if kind is None and series.headers:
            kind = kind_of(series.headers[0], series.description)
        labels = drawn.pop(series.uid, [])
        if kind is None or kind == "ignore":
            if kind is None:
                name = json.dumps(series.description or series.uid, ensure_ascii=False)
                notes.append(
                    f"Series neither ceT1 nor hrT2, left out: {name} in {image}. To assign it, write "
                    f'{{{name}: "hrT2"}} into {ASSIGNMENT_FILE} in the folder of the data set.'
                )
            continue
        if len(labels) > 1:
            unpaired += labels
            notes.append(f"Several labels of one series, none used: {', '.join(map(str, labels))}. Keep one of them.")
        name = series.patient or (image.name if image.is_dir() else f"{image.parent.name}_{image.stem}")
        cases.append(Case(name, kind, image, labels[0] if len(labels) == 1 else None))
    unpaired += [file for files in drawn.values() for file in files]
    return Found(cases, list(dict.fromkeys(unpaired)), notes)


def _assignment(folder: Path) -> Mapping[str, str]:
    path = folder / ASSIGNMENT_FILE
    if not path.is_file():
        return {}
    try:
        content = output.read_json(path)
        if not isinstance(content, dict) or not all(kind in _KINDS for kind in content.values()):
            raise ValueError
    except (OSError, ValueError, TypeError, RecursionError) as cause:
        raise InputError(
            f'Cannot read {path}: not an assignment of series. Write {{"DESCRIPTION": KIND}}; KIND is one of '
            f"{', '.join(_KINDS)}."
        ) from cause
    return content


def _series_of_json(file: Path) -> set[str]:
    """Return the UIDs of the series to which a contour JSON belongs; none for any other JSON file."""
    try:
        if file.stat().st_size > 1 << 28:
            return set()
        entries = output.read_json(file)
        return {str(entry["MR_SeriesInstanceUID"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        return set()
