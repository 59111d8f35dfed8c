"""Layouts of data sets: the cases of a folder.

Recognized, in any depth of folders:

- crossMoDA 2021 (``crossmoda_1_ceT1.nii.gz``, ``crossmoda_1_Label.nii.gz``, ``crossmoda_106_hrT2.nii.gz``), 2022
  (``crossmoda2022_ldn_1_ceT1.nii.gz``, ``_Label``, ``_hrT2``) and 2023 (``crossmoda2023_etz_1_ceT1.nii.gz``,
  ``_Label``, ``_T2``; its two tumor labels are joined);
- TCIA Vestibular-Schwannoma-SEG as downloaded, and other folders of DICOM series, with contours as RTSTRUCT or as the
  collection's JSON files, or DICOM segmentations, all of which name the series they belong to;
- BIDS (``sub-01_ce-gadolinium_T1w.nii.gz``, ``sub-01_T2w.nii.gz``, ``_dseg``) and nnU-Net (``imagesTr``, ...);
- a plain folder: ``<id>_ceT1`` or ``<id>_T1``, ``<id>_hrT2`` or ``<id>_T2``, and ``<id>_label`` (also ``_seg``), which
  belongs to the ceT1 image if there are both; ``<id>_T2_label`` and ``<id>_T2.seg.nrrd`` belong to the hrT2 image.
  Upper or lower case; NIfTI, NRRD, MetaImage, ``.seg.nrrd``.

Links to folders are followed. What is passed over is named in :attr:`crossmoda.dataset.Dataset.notes`.
With a key (:mod:`crossmoda.pseudonyms`) the IDs are pseudonyms.

The folder ``corrections`` holds the corrections of reviewers (:mod:`crossmoda.dataset.corrections`): a corrected label
takes precedence over every other label of its hrT2 scan.
"""

import dataclasses
import os
import re
from pathlib import Path

from crossmoda import output
from crossmoda.dataset import dicom_cases, named_cases
from crossmoda.dataset.case import HRT2, Case, Dataset
from crossmoda.dataset.case_id import safe_id
from crossmoda.dataset.results import record_beside
from crossmoda.errors import InputError, reason_of
from crossmoda.provenance import wrote
from crossmoda.pseudonyms import pseudonym

#: The folder of a data set for the corrections of reviewers, the record of each, and the decisions that settle a label.
CORRECTIONS, RECORD = "corrections", "correction.json"
SETTLED = ("corrected", "accepted")


def open_dataset(folder: Path | str) -> Dataset:
    """Return the cases of a folder and its subfolders, sorted by id; no image is read.

    Raises:
        InputError: the folder is missing or has no image with a known name.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"Not a folder: {folder}. Select the folder of a data set.")
    notes: list[str] = []
    files = _files(folder, notes)
    named = named_cases.find(files)
    series = dicom_cases.find(files, folder)
    cases = [dataclasses.replace(case, id=pseudonym(case.id, folder)) for case in (*named.cases, *series.cases)]
    cases.sort(key=lambda case: (_natural(case.id), case.modality))
    notes += [*named.notes, *series.notes]
    if not cases:
        raise InputError(
            f"No scan with a known name: {folder}. Name the files like crossmoda_1_ceT1.nii.gz, "
            "crossmoda_1_Label.nii.gz and crossmoda_2_hrT2.nii.gz, or add folders of DICOM series."
            + "".join(f" {note}" for note in notes[:5])
        )
    unpaired = (*named.unpaired, *series.unpaired)
    cases = [_without_prediction(_corrected(case, folder), notes) for case in cases]
    return Dataset(folder, tuple(cases), unpaired, tuple(notes))


def _files(folder: Path, notes: list[str]) -> list[Path]:
    """Return the files of a folder and its subfolders, sorted; links to folders are followed, each folder once."""
    files: list[Path] = []
    visited = set()

    def unreadable(cause: OSError) -> None:
        notes.append(f"Folder not read: {cause.filename} ({reason_of(cause)}).")

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        parent = Path(place)
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not (parent == folder and name == CORRECTIONS))
        for name in names:
            file = parent / name
            if name.startswith("."):
                continue
            if file.is_file():
                files.append(file)
            elif file.is_symlink():
                notes.append(f"Link to nothing: {file}.")
    return sorted(files)


def correction_file(folder: Path | str, case_id: str) -> Path:
    """Return the path of the corrected label map of a hrT2 case; the file need not exist."""
    case_id = safe_id(case_id)
    return Path(folder) / CORRECTIONS / case_id / f"{case_id}_{HRT2}_label.nii.gz"


def _corrected(case: Case, folder: Path) -> Case:
    """Return a hrT2 case with its corrected label if a reviewer settled it."""
    file = correction_file(folder, case.id)
    if case.modality != HRT2 or not file.is_file():
        return case
    try:
        is_settled = output.read_json(file.parent / RECORD)["status"] in SETTLED
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_settled = True  # a label map that somebody copied into the folder
    return dataclasses.replace(case, label=file) if is_settled else case


def _without_prediction(case: Case, notes: list[str]) -> Case:
    """Return a case without its label if that is a segmentation as CrossModa wrote it, which nobody corrected."""
    if case.label is None or not wrote(case.label, record := record_beside(case.label)):
        return case
    notes.append(f"No label, but a segmentation by CrossModa: {case.label}. Correct it, or delete {record.name}.")
    return dataclasses.replace(case, label=None)


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key by which case 2 comes before case 10."""
    parts = re.split(r"([0-9]{1,18})", text.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
