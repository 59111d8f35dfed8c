"""The scans of a study, and where its results lie."""

import dataclasses
import re
from pathlib import Path

from crossmoda import dataset
from crossmoda.dataset import Case
from crossmoda.errors import InputError
from crossmoda.study.configuration import Configuration, selected

#: The folder of the results that belongs to the whole study; each target has its own beside it.
STUDY = "study"
_ENDINGS = re.compile(r"(\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.mha|\.mhd)$", re.IGNORECASE)
_LABEL_NAME = re.compile(r"(_(hrT2|T2))?(_(label|seg))?$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The scans of a study."""

    atlases: tuple[Case, ...]
    targets: tuple[Case, ...]
    tests: frozenset[str]
    """the ids of the targets that are never learned from"""
    references: dict[str, Path]
    """target id -> its reference label map"""
    repeated: tuple[str, ...]
    """ids of targets that occur twice; the first is used"""


def open_cohort(study: Configuration) -> Cohort:
    """Find the scans of a study on disk.

    Raises:
        InputError: the data set or the references are missing, there are no atlases or no targets, or a name in the
            configuration names no scan.

    """
    found = dataset.open_dataset(study.data)
    atlases = selected(found.sources, study.atlases, study.data, "atlases")
    targets = selected(found.targets, study.targets, study.data, "targets")
    if not atlases or not targets:
        missing = "labeled ceT1 scan" if not atlases else "hrT2 scan"
        raise InputError(f"{study.data} has no {missing} for the study; see crossmoda validate.")
    unique = {case.id: case for case in reversed(targets)}
    repeated = sorted({case.id for case in targets if unique[case.id] is not case})
    if STUDY in unique:
        raise InputError(f"A target is called {STUDY!r}, as the folder of the study's own results; rename it.")
    tests = selected(targets, study.tests, study.data, "tests")
    references = _references(study.references, set(unique)) if study.references else {}
    references = {**{name: case.label for name, case in unique.items() if case.label is not None}, **references}
    kept = tuple(case for case in targets if unique[case.id] is case)
    return Cohort(tuple(atlases), kept, frozenset(case.id for case in tests), references, tuple(repeated))


def _references(folder: Path, wanted: set[str]) -> dict[str, Path]:
    """Return the label maps of a folder by the id of the target in their name."""
    if not folder.is_dir():
        raise InputError(f"The folder of references {folder} does not exist; correct it or leave it out.")
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and _ENDINGS.search(file.name):
            name = _LABEL_NAME.sub("", _ENDINGS.sub("", file.name))
            if name in wanted:
                found.setdefault(name, file)
    if not found:
        raise InputError(f"{folder} holds no reference of a target; name them like crossmoda_106_Label.nii.gz.")
    return found
