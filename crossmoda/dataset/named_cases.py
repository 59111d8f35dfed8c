"""Cases whose files say by their names what they are."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossmoda import output
from crossmoda.dataset.case import CET1, HRT2, Case
from crossmoda.dataset.case_id import VOLUME_ENDING, id_of_file, safe_id
from crossmoda.pseudonyms import pseudonym

_MODALITY = {"cet1": CET1, "t1": CET1, "t1w": CET1, "t1c": CET1, "hrt2": HRT2, "t2": HRT2, "t2w": HRT2}
_LABEL = r"(?:[-_. ](?:labels?|d?seg|segmentation|mask|gt|contour|vs))+"
_FILE = re.compile(
    rf"(?P<id>.+?)_(?:(?P<modality>ceT1|T1|T1w|T1c|hrT2|T2|T2w)(?P<label>{_LABEL})?|(?P<only_label>labels?|d?seg))"
    r"(?P<ending>\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.mha|\.mhd|\.nhdr)",
    re.IGNORECASE,
)
#: Entities of BIDS; those that tell scans of one patient and session apart do not belong to the ID.
_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
_NNUNET = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})(\.nii\.gz|\.nii|\.nrrd|\.mha)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Found:
    """The cases of files, the labels without an image, and what was passed over."""

    cases: list[Case]
    unpaired: list[Path]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class _File:
    """What the name of a file says."""

    id: str
    modality: str | None
    is_label: bool
    path: Path


def find(files: Iterable[Path]) -> Found:
    """Return the cases of files with known names."""
    understood: list[_File] = []
    notes: list[str] = []
    for file in files:
        if not VOLUME_ENDING.search(file.name) or output.PARTIAL in file.name:
            continue
        named = _nnunet(file) if file.parent.name in ("imagesTr", "imagesTs", "labelsTr", "labelsTs") else _named(file)
        if named is None:
            notes.append(f"Unknown name, left out: {file}. Name it like <id>_ceT1, <id>_hrT2 or <id>_label.")
        else:
            understood.append(named)
    images = [item for item in understood if not item.is_label]
    label_of: dict[Path, Path] = {}
    unpaired = []
    for label in (item for item in understood if item.is_label):
        # An image in the same folder takes precedence, and then the ceT1 image.
        candidates = [
            (image.path.parent != label.path.parent, image.modality != CET1, image.path)
            for image in images
            if image.id == label.id and label.modality in (None, image.modality) and image.path not in label_of
        ]
        if candidates:
            label_of[min(candidates, key=lambda candidate: candidate[:2])[2]] = label.path
        else:
            unpaired.append(label.path)
    cases = [Case(image.id, image.modality or "", image.path, label_of.get(image.path)) for image in images]
    return Found(cases, unpaired, notes)


def case_of_file(path: Path) -> str:
    """Return the ID of a scan by its name, as in a data set: ``crossmoda_5_hrT2.nii.gz`` is crossmoda_5.

    Where pseudonyms are used (:mod:`crossmoda.pseudonyms`) it is the pseudonym.
    """
    named = _named(path)
    case_id = named.id if named is not None and named.modality is not None else id_of_file(path)
    return pseudonym(safe_id(case_id), path)


def _named(file: Path) -> _File | None:
    name = _FILE.fullmatch(file.name)
    if name is None:
        return None
    modality = _MODALITY[name["modality"].casefold()] if name["modality"] else None
    is_label = bool(name["label"] or name["only_label"]) or name["ending"].casefold() == ".seg.nrrd"
    case_id = name["id"]
    if bids := _BIDS.match(case_id):
        case_id = bids[1]
        space = re.search(r"_space-(t1w?|t2w?)", bids[2], re.IGNORECASE)
        modality = modality or (_MODALITY[space[1].casefold()] if space else None)
        case_id = case_id if bids.end() == len(name["id"]) else name["id"]
    return _File(case_id, modality, is_label, file)


def _nnunet(file: Path) -> _File | None:
    """Return what the name of a file of nnU-Net says; ``dataset.json`` names the channels."""
    if file.parent.name.startswith("labels"):
        return _File(id_of_file(file), None, True, file)
    name = _NNUNET.fullmatch(file.name)
    modality = None if name is None else _channels(file.parent.parent).get(int(name["channel"]))
    return None if name is None or modality is None else _File(name["id"], modality, False, file)


def _channels(folder: Path) -> Mapping[int, str]:
    """Return the modality of each channel in the ``dataset.json`` of nnU-Net."""
    try:
        content = output.read_json(folder / "dataset.json")
        names = content.get("channel_names") or content.get("modality") or {}
        modalities = {}
        for number, text in names.items():
            words = re.sub(r"[^a-z0-9]", "", str(text).casefold())
            kind = CET1 if "t1" in words else HRT2 if "t2" in words and "flair" not in words else None
            if kind is not None:
                modalities[int(number)] = kind
        return modalities
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
