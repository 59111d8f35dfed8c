"""Cases on disk: which images and labels a folder holds, read and checked.

Recognized, in any depth of folders:

- crossMoDA 2021 (``crossmoda_1_ceT1.nii.gz``, ``crossmoda_1_Label.nii.gz``, ``crossmoda_106_hrT2.nii.gz``), 2022
  (``crossmoda2022_ldn_1_ceT1.nii.gz``, ``_Label``, ``_hrT2``) and 2023 (``crossmoda2023_etz_1_ceT1.nii.gz``,
  ``_Label``, ``_T2``; its two tumor labels are joined);
- TCIA Vestibular-Schwannoma-SEG as downloaded: folders of DICOM series, with contours as RTSTRUCT or as the
  collection's JSON files, both of which name the series they belong to;
- a plain folder: ``<id>_ceT1`` or ``<id>_T1``, ``<id>_hrT2`` or ``<id>_T2``, and ``<id>_label`` (also ``_seg``), which
  belongs to the ceT1 image if there are both; ``<id>_T2_label`` says otherwise. Upper or lower case; NIfTI, NRRD,
  MetaImage, ``.seg.nrrd``.

The folder ``corrections`` holds what reviewers drew (:mod:`crossmoda.review.corrections`): a corrected label is the
label of its hrT2 scan, whatever else lies beside the scan.
"""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from crossmoda import contours, labels, output
from crossmoda.anatomy import laterality
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.provenance import checksum
from crossmoda.volume import dicom, read, read_label_map
from crossmoda.volume.grid import Volume

CET1, HRT2 = "ceT1", "hrT2"

_MODALITY = {"cet1": CET1, "t1": CET1, "t1w": CET1, "t1c": CET1, "hrt2": HRT2, "t2": HRT2, "t2w": HRT2}
_FILE = re.compile(
    r"(?P<id>.+?)_(?:(?P<modality>ceT1|T1|T1w|T1c|hrT2|T2|T2w)(?P<label>_(?:label|seg))?|(?P<only_label>label|seg))"
    r"(?:\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.mha|\.mhd)",
    re.IGNORECASE,
)
#: What the descriptions of DICOM series say.
_DESCRIPTION = {
    CET1: re.compile(r"t1|mpr|gd\b", re.IGNORECASE),
    HRT2: re.compile(r"t2|ciss|ci3d|fiesta", re.IGNORECASE),
}
#: The folder of a data set that holds what reviewers drew, and the decisions whose label counts.
CORRECTIONS = "corrections"
_SETTLED = ("corrected", "accepted")


@dataclasses.dataclass(frozen=True)
class Case:
    """One scan of a patient, perhaps with a label."""

    id: str
    """the patient or case; both modalities of a patient share it"""
    modality: str
    """``"ceT1"`` or ``"hrT2"``"""
    image: Path
    """image file, or the folder (or one file) of a DICOM series"""
    label: Path | None = None
    """label map, contour JSON or RTSTRUCT"""
    side: str | None = None
    """the tumor's side, ``"left"`` or ``"right"`` of the patient, if known"""

    def read_image(self) -> Volume:
        """Read the image (float32)."""
        return read(self.image)

    def read_label(self, image: Volume | None = None) -> Volume:
        """Read the label as a label map (uint8, 1 VS, 2 cochlea).

        Contours are rasterized on the image's grid; segmentations that Slicer saved cropped are filled up to it.

        Args:
            image: the image, if it is at hand (else it is read where its grid is needed).

        Raises:
            InputError: there is no label or it cannot be read.

        """
        if self.label is None:
            raise InputError(f"{self.image} has no label; put one beside it or choose a labeled case.")
        if self.label.suffix.lower() == ".json" or dicom.is_dicom(self.label):
            return contours.rasterize(contours.read_contours(self.label), (image or self.read_image()).grid)
        label_map = read_label_map(self.label, None if image is None else image.grid)
        return label_map.with_array(_without_parts(label_map.array))


def _without_parts(array: np.ndarray) -> np.ndarray:
    """Join the parts of crossMoDA 2023 (1, 2: tumor inside and outside the canal, 3: cochlea) to 1 VS, 2 cochlea."""
    if array.max(initial=0) != 3:
        return array
    return np.array([labels.BACKGROUND, labels.VS, labels.VS, labels.COCHLEA], np.uint8)[array]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The cases of a folder."""

    folder: Path
    cases: tuple[Case, ...]
    unpaired: tuple[Path, ...] = ()
    """labels and contours for which there is no image"""

    @property
    def sources(self) -> tuple[Case, ...]:
        """The labeled ceT1 cases."""
        return tuple(case for case in self.cases if case.modality == CET1 and case.label is not None)

    @property
    def targets(self) -> tuple[Case, ...]:
        """The hrT2 cases."""
        return tuple(case for case in self.cases if case.modality == HRT2)

    def with_sides(self, progress: Progress | None = None) -> "Dataset":
        """Return the data set with the tumor's side of every labeled case, which means reading every label."""
        cases = []
        for number, case in enumerate(self.cases):
            report(progress, number / len(self.cases), f"side of {case.id}")
            side = case.side if case.side or case.label is None else laterality.tumor_side(case.read_label())
            cases.append(dataclasses.replace(case, side=side))
        return dataclasses.replace(self, cases=tuple(cases))


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a data set that has to be put right."""

    file: Path
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return the problem as one sentence."""
        return f"{self.file}: {self.problem}; {self.remedy}."


def open_dataset(folder: Path | str) -> Dataset:
    """Return the cases that lie in a folder and its subfolders, sorted by id; no image is read.

    Raises:
        InputError: the folder is missing or holds no image with a known name.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a data set.")
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and folder / CORRECTIONS not in file.parents
    ]
    cases, unpaired = _named_cases(files)
    more_cases, more_unpaired = _dicom_cases(files)
    cases = sorted([*cases, *more_cases], key=lambda case: (_natural(case.id), case.modality))
    cases = [_corrected(case, folder) for case in cases]
    if not cases:
        raise InputError(
            f"{folder} holds no scan with a known name; name them like crossmoda_1_ceT1.nii.gz, "
            "crossmoda_1_Label.nii.gz and crossmoda_2_hrT2.nii.gz, or give folders of DICOM series."
        )
    return Dataset(folder, tuple(cases), (*unpaired, *more_unpaired))


def correction_file(folder: Path | str, case_id: str) -> Path:
    """Return where the corrected label map of a hrT2 case of a data set lies, if there is one."""
    return Path(folder) / CORRECTIONS / case_id / f"{case_id}_{HRT2}_label.nii.gz"


def _corrected(case: Case, folder: Path) -> Case:
    """Return a hrT2 case with its corrected label, if a reviewer settled it."""
    file = correction_file(folder, case.id)
    if case.modality != HRT2 or not file.is_file():
        return case
    try:
        record = json.loads((file.parent / "correction.json").read_text(encoding="utf-8"))
        settled = record["status"] in _SETTLED
    except (OSError, ValueError, KeyError, TypeError):
        settled = True  # a label map that was put there by hand
    return dataclasses.replace(case, label=file) if settled else case


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key by which case 2 comes before case 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text.casefold())]


def _named_cases(files: Iterable[Path]) -> tuple[list[Case], list[Path]]:
    """Return the cases whose file names say what they are, and the labels without image."""
    images: list[tuple[str, str, Path]] = []
    found_labels: list[tuple[str, str | None, Path]] = []
    for file in files:
        name = _FILE.fullmatch(file.name)
        if name is None or output.PARTIAL in file.name:
            continue
        modality = _MODALITY[name["modality"].casefold()] if name["modality"] else None
        if name["label"] or name["only_label"]:
            found_labels.append((name["id"], modality, file))
        elif modality is not None:
            images.append((name["id"], modality, file))
    label_of: dict[Path, Path] = {}
    unpaired = []
    for case_id, modality, file in found_labels:
        same_id = [one for one in images if one[0] == case_id and modality in (None, one[1]) and one[2] not in label_of]
        # Best the image in the same folder, and the ceT1 image before the hrT2 image.
        same_id.sort(key=lambda one: (one[2].parent != file.parent, one[1] != CET1))
        if same_id:
            label_of[same_id[0][2]] = file
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
    found: list[tuple[dicom.Series, Path]] = []
    for folder, members in by_folder.items():
        # An RTSTRUCT comes alone in its folder or beside the slices, never as one of hundreds.
        for file in members if len(members) <= 3 else ():
            if uid := dicom.series_of_structures(file):
                contours_of[uid] = file
        all_series = dicom.glance(members)
        found += [(series, folder if len(all_series) == 1 else series.files[0]) for series in all_series]
    cases = []
    for series, image in found:
        modality = next((one for one, words in _DESCRIPTION.items() if words.search(series.description)), None)
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


def validate(dataset: Dataset, progress: Progress | None = None) -> list[Problem]:
    """Return every problem of a data set: what is wrong with which file and what to do about it; none if it is sound.

    Every image and label is read.
    """
    problems = [
        Problem(file, "is a label without an image", "add its image or remove the label") for file in dataset.unpaired
    ]
    problems += _duplicates(dataset)
    for number, case in enumerate(dataset.cases):
        report(progress, number / max(len(dataset.cases), 1), f"checking {case.id} {case.modality}")
        problems += _problems_of(case)
    report(progress, 1.0, f"{len(problems)} problems found")
    return problems


def _duplicates(dataset: Dataset) -> Iterator[Problem]:
    by_name: dict[tuple[str, str], list[Path]] = defaultdict(list)
    by_size: dict[int, list[Path]] = defaultdict(list)
    for case in dataset.cases:
        by_name[case.id, case.modality].append(case.image)
        if case.image.is_file():
            by_size[case.image.stat().st_size].append(case.image)
    for (case_id, modality), files in by_name.items():
        for file in files[1:]:
            yield Problem(file, f"is a second {modality} image of {case_id} beside {files[0]}", "keep one of them")
    for same_size in by_size.values():
        first: dict[str, Path] = {}
        for file in same_size if len(same_size) > 1 else ():
            original = first.setdefault(checksum(file), file)
            if original != file:
                yield Problem(file, f"has the same content as {original}", "remove the copy")


def _problems_of(case: Case) -> Iterator[Problem]:
    if case.label is None and case.modality == CET1:
        yield Problem(case.image, "is a ceT1 image without a label", "add its label or leave the image out")
    image = None
    try:
        image = case.read_image()
    except InputError as cause:
        yield _problem(case.image, cause)
    if case.label is None:
        return
    try:
        label_map = case.read_label(image)
    except InputError as cause:
        # Contours cannot be drawn without the image's grid: its problem is told already.
        if image is not None or str(case.label) in str(cause):
            yield _problem(case.label, cause)
        return
    if image is not None and not label_map.grid.same_as(image.grid):
        yield Problem(
            case.label,
            f"lies on another grid ({label_map.grid}) than its image ({image.grid})",
            "resample it on the grid of the image",
        )
    values = set(np.unique(label_map.array).tolist())
    if values == {labels.BACKGROUND}:
        yield Problem(case.label, "is empty", "draw the structures or leave the case out")
    if unknown := sorted(values - set(labels.VALUES)):
        known = ", ".join(f"{structure.value} {structure.name}" for structure in labels.STRUCTURES)
        yield Problem(case.label, f"has the label values {', '.join(map(str, unknown))}", f"use 0 background, {known}")


def _problem(file: Path, cause: InputError) -> Problem:
    """Return the problem of an error, whose message ends with the remedy."""
    text = str(cause).removeprefix(f"Cannot read {file}: ").rstrip(".")
    problem, _, remedy = text.rpartition("; " if "; " in text else ". ")
    return Problem(file, problem, remedy)
