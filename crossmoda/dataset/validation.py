"""Validation of a data set: every problem with its file and remedy."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from crossmoda import labels
from crossmoda.dataset.case import CET1, Case, Dataset
from crossmoda.errors import NOT_ENOUGH_MEMORY, InputError
from crossmoda.progress import Progress, report
from crossmoda.provenance import checksum


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem of one file of a data set."""

    file: Path
    message: str
    """the problem and its remedy, without the path"""

    def __str__(self) -> str:
        """Return the path and the message."""
        return f"{self.file}: {self.message}"


def validate(dataset: Dataset, progress: Progress | None = None) -> list[Problem]:
    """Return every problem of a data set with its remedy; an empty list if it is sound.

    Every image and label is read.
    """
    problems = [
        Problem(file, "Label without an image. Add its image or remove the label.") for file in dataset.unpaired
    ]
    problems += _duplicates(dataset)
    for number, case in enumerate(dataset.cases):
        report(progress, number / max(len(dataset.cases), 1), f"checking {case.id} {case.modality}")
        try:
            problems += _problems_of(case)
        except MemoryError:
            problems.append(Problem(case.image, NOT_ENOUGH_MEMORY))
    report(progress, 1.0, f"{len(problems)} problems")
    return problems


def _duplicates(dataset: Dataset) -> Iterator[Problem]:
    by_name: dict[tuple[str, str], list[Path]] = defaultdict(list)
    by_size: dict[int, list[Path]] = defaultdict(list)
    for case in dataset.cases:
        by_name[case.id.casefold(), case.modality].append(case.image)
        if case.image.is_file():
            by_size[case.image.stat().st_size].append(case.image)
    for (case_id, modality), files in by_name.items():
        for file in files[1:]:
            yield Problem(file, f"Duplicate {modality} image of {case_id}: {files[0]}. Keep only one of them.")
    for same_size in by_size.values():
        first: dict[str, Path] = {}
        for file in same_size if len(same_size) > 1 else ():
            original = first.setdefault(checksum(file), file)
            if original != file:
                yield Problem(file, f"Same content as another image: {original}. Remove the copy.")


def _problems_of(case: Case) -> Iterator[Problem]:
    if case.label is None and case.modality == CET1:
        yield Problem(case.image, "ceT1 image without a label. Add its label or leave the image out.")
    image = None
    try:
        image = case.read_image()
    except InputError as cause:
        yield _problem(case.image, cause)
    if image is not None and image.array.min() == image.array.max():
        yield Problem(case.image, "The same value everywhere. Copy or export it again.")
    if case.label is None:
        return
    try:
        label_map = case.read_label(image)
    except InputError as cause:
        # Contours cannot be rasterized without the image's grid: the problem of the image is reported already.
        if image is not None or str(case.label) in str(cause):
            yield _problem(case.label, cause)
        return
    if image is not None and not label_map.grid.same_as(image.grid):
        difference = label_map.grid.difference_to(image.grid)
        yield Problem(case.label, f"Label on another grid than its image: {difference}. Resample it on the image.")
    if labels.values_in(label_map.array) == [labels.BACKGROUND]:
        yield Problem(case.label, "Empty label. Draw the structures or leave the case out.")
    try:
        labels.check_values(label_map.array)
    except InputError as cause:
        yield _problem(case.label, cause)


def _problem(file: Path, cause: InputError) -> Problem:
    return Problem(file, str(cause).removeprefix(f"Cannot read {file}: "))
