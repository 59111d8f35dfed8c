"""Layouts of data sets: the cases of a folder.

Recognized, in any depth of folders:

- crossMoDA 2021 (``crossmoda_1_ceT1.nii.gz``, ``crossmoda_1_Label.nii.gz``, ``crossmoda_106_hrT2.nii.gz``), 2022
  (``crossmoda2022_ldn_1_ceT1.nii.gz``, ``_Label``, ``_hrT2``) and 2023 (``crossmoda2023_etz_1_ceT1.nii.gz``,
  ``_Label``, ``_T2``; its two tumor labels are joined);
- TCIA Vestibular-Schwannoma-SEG as downloaded: folders of DICOM series, with contours as RTSTRUCT or as the
  collection's JSON files, both of which name the series they belong to;
- a plain folder: ``<id>_ceT1`` or ``<id>_T1``, ``<id>_hrT2`` or ``<id>_T2``, and ``<id>_label`` (also ``_seg``), which
  belongs to the ceT1 image if there are both; ``<id>_T2_label`` belongs to the hrT2 image. Upper or lower case; NIfTI,
  NRRD, MetaImage, ``.seg.nrrd``.

The folder ``corrections`` holds the corrections of reviewers (:mod:`crossmoda.dataset.corrections`): a corrected label
takes precedence over every other label of its hrT2 scan.
"""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from crossmoda import output
from crossmoda.dataset.case import CET1, HRT2, Case, Dataset
from crossmoda.errors import InputError
from crossmoda.volume import dicom

_MODALITY = {"cet1": CET1, "t1": CET1, "t1w": CET1, "t1c": CET1, "hrt2": HRT2, "t2": HRT2, "t2w": HRT2}
_FILE = re.compile(
    r"(?P<id>.+?)_(?:(?P<modality>ceT1|T1|T1w|T1c|hrT2|T2|T2w)(?P<label>_(?:label|seg))?|(?P<only_label>label|seg))"
    r"(?:\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.mha|\.mhd)",
    re.IGNORECASE,
)
#: Words in the descriptions of DICOM series.
_DESCRIPTION = {
    CET1: re.compile(r"t1|mpr|gd\b", re.IGNORECASE),
    HRT2: re.compile(r"t2|ciss|ci3d|fiesta", re.IGNORECASE),
}
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
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and folder / CORRECTIONS not in file.parents
    ]
    named_cases, unpaired = _named_cases(files)
    dicom_cases, unpaired_contours = _dicom_cases(files)
    cases = sorted([*named_cases, *dicom_cases], key=lambda case: (_natural(case.id), case.modality))
    if not cases:
        raise InputError(
            f"No scan with a known name: {folder}. Name the files like crossmoda_1_ceT1.nii.gz, "
            "crossmoda_1_Label.nii.gz and crossmoda_2_hrT2.nii.gz, or add folders of DICOM series."
        )
    return Dataset(folder, tuple(_corrected(case, folder) for case in cases), (*unpaired, *unpaired_contours))


def correction_file(folder: Path | str, case_id: str) -> Path:
    """Return the path of the corrected label map of a hrT2 case; the file need not exist."""
    return Path(folder) / CORRECTIONS / case_id / f"{case_id}_{HRT2}_label.nii.gz"


def _corrected(case: Case, folder: Path) -> Case:
    """Return a hrT2 case with its corrected label if a reviewer settled it."""
    file = correction_file(folder, case.id)
    if case.modality != HRT2 or not file.is_file():
        return case
    try:
        is_settled = json.loads((file.parent / RECORD).read_text(encoding="utf-8"))["status"] in SETTLED
    except (OSError, ValueError, KeyError, TypeError):
        is_settled = True  # a label map that somebody copied into the folder
    return dataclasses.replace(case, label=file) if is_settled else case


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key by which case 2 comes before case 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text.casefold())]


def _named_cases(files: Iterable[Path]) -> tuple[list[Case], list[Path]]:
    """Return the cases of files with known names, and the labels without image."""
    images: list[tuple[str, str, Path]] = []
    label_files: list[tuple[str, str | None, Path]] = []
    for file in files:
        name = _FILE.fullmatch(file.name)
        if name is None or output.PARTIAL in file.name:
            continue
        modality = _MODALITY[name["modality"].casefold()] if name["modality"] else None
        if name["label"] or name["only_label"]:
            label_files.append((name["id"], modality, file))
        elif modality is not None:
            images.append((name["id"], modality, file))
    label_of: dict[Path, Path] = {}
    unpaired = []
    for case_id, modality, file in label_files:
        # An image in the same folder takes precedence, and then the ceT1 image.
        candidates = [
            (image.parent != file.parent, image_modality != CET1, image)
            for image_id, image_modality, image in images
            if image_id == case_id and modality in (None, image_modality) and image not in label_of
        ]
        if candidates:
            label_of[min(candidates, key=lambda candidate: candidate[:2])[2]] = file
        else:
            unpaired.append(file)
    return [Case(case_id, modality, file, label_of.get(file)) for case_id, modality, file in images], unpaired


def _dicom_cases(files: Iterable[Path]) -> tuple[list[Case], list[Path]]:
    """Return the cases that are DICOM series, with their contours, and the contours without series."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    contours_of: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() == ".json":
            contours_of.update(dict.fromkeys(_series_of_json(file), file))
        elif dicom.is_dicom(file):
            by_folder[file.parent].append(file)
    images: list[tuple[dicom.Series, Path]] = []
    for folder, members in by_folder.items():
        # An RTSTRUCT comes alone in its folder or beside the slices, never as one of hundreds.
        for file in members if len(members) <= 3 else ():
            if uid := dicom.series_of_structures(file):
                contours_of[uid] = file
        all_series = dicom.list_series(members)
        images += [(series, folder if len(all_series) == 1 else series.files[0]) for series in all_series]
    cases = []
    for series, image in images:
        modality = next((name for name, words in _DESCRIPTION.items() if words.search(series.description)), None)
        if modality is not None:
            cases.append(Case(series.patient or image.name, modality, image, contours_of.pop(series.uid, None)))
    return cases, list(dict.fromkeys(contours_of.values()))


def _series_of_json(file: Path) -> set[str]:
    """Return the UIDs of the series to which a contour JSON belongs; none for any other JSON file."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {entry["MR_SeriesInstanceUID"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
