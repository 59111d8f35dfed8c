"""Predictions and references of the same cases: files in two folders, whatever their endings."""

import dataclasses
import re
from pathlib import Path

from crossmoda import output
from crossmoda.dataset import contours
from crossmoda.dataset.case_id import ENDING, id_of_file
from crossmoda.dataset.results import LABEL_MAP, NOISY_LABEL, PREDICTION, SEGMENTATION
from crossmoda.errors import InputError

#: Parts of file names that say what a file is, not whose: the same case has others among the references.
_KIND = re.compile(
    r"[-_. ](label|labels|seg|segmentation|dseg|mask|gt|pred|prediction|cet1|hrt2|t1w?|t1c|t2w?|corrected)$",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The cases of two folders."""

    both: dict[str, tuple[Path, Path]]
    """prediction and reference by case"""
    missing: dict[str, Path]
    """references without a prediction, by case"""
    extra: tuple[str, ...]
    """cases with a prediction, but without a reference"""


def case_of(name: str) -> str:
    """Return the case in the name of a label file.

    Example:
        >>> case_of("crossmoda_5_Label.nii.gz"), case_of("crossmoda_5_hrT2.seg.nrrd"), case_of("1.2.840.5.nii")
        ('crossmoda_5', 'crossmoda_5', '1.2.840.5')

    """
    stem = id_of_file(Path(name))
    while (shorter := _KIND.sub("", stem)) != stem and shorter:
        stem = shorter
    return stem


def label_pairs(predictions: Path, references: Path) -> Pairs:
    """Return the pairs of two files, or of two folders by the cases in the names.

    A folder of results (``<id>/prediction/label_map.nii.gz``, ``<id>/noisy_label.nii.gz``) has one case per folder.

    Raises:
        InputError: a path does not exist, one is a folder and the other is not, or two files are of one case.

    """
    for path in (predictions, references):
        if not path.exists():
            raise InputError(f"Cannot read {path}: the file does not exist. Check the path.")
    if not predictions.is_dir() and not references.is_dir():
        return Pairs({case_of(predictions.name): (predictions, references)}, {}, ())
    if not predictions.is_dir() or not references.is_dir():
        raise InputError(f"One file and one folder: {predictions}, {references}. Use two files or two folders.")
    predicted, expected = _labels(predictions), _labels(references)
    both = {case: (predicted[case], expected[case]) for case in expected if case in predicted}
    if not both:
        raise InputError(f"No common file name in {predictions} and {references}. Name both files of a case alike.")
    missing = {case: file for case, file in expected.items() if case not in predicted}
    return Pairs(both, missing, tuple(case for case in predicted if case not in expected))


def _labels(folder: Path) -> dict[str, Path]:
    """Return the label files of a folder by case."""
    labels: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or output.PARTIAL in file.name:
            continue
        if file.is_dir():
            names = (f"{PREDICTION}/{LABEL_MAP}", f"{PREDICTION}/{SEGMENTATION}", LABEL_MAP, NOISY_LABEL)
            label = next((file / name for name in names if (file / name).is_file()), None)
            case = file.name
        elif file.suffix.lower() == ".json":
            label, case = (file if _has_contours(file) else None), case_of(file.stem)
        else:
            label, case = (file if ENDING.search(file.name) else None), case_of(file.name)
        if label is None:
            continue
        if case in labels:
            raise InputError(f"Two files of the case {case}: {labels[case]}, {label}. Keep one of them.")
        labels[case] = label
    return labels


def _has_contours(file: Path) -> bool:
    """Return whether a JSON file has contours, not results of another kind."""
    try:
        return bool(contours.read_contours(file))
    except (InputError, OSError):
        return False
