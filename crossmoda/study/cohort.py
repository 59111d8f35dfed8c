"""The scans of a study."""

import dataclasses
import re
from pathlib import Path

from crossmoda import dataset
from crossmoda.dataset import Case
from crossmoda.dataset.case_id import ENDING, id_of_file, safe_id
from crossmoda.errors import InputError
from crossmoda.pseudonyms import create_key, pseudonym
from crossmoda.study.configuration import Configuration, selected

#: Folder of the results of the whole study, beside the folders of the targets.
STUDY = "study"
_LABEL_NAME = re.compile(r"(_(hrT2|T2))?(_(label|seg))?$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The scans of a study."""

    atlases: tuple[Case, ...]
    targets: tuple[Case, ...]
    tests: frozenset[str]
    """IDs of the targets excluded from training"""
    references: dict[str, Path]
    """target ID -> reference label map"""
    repeated: tuple[str, ...]
    """duplicate target IDs; the first scan is used"""


def open_cohort(study: Configuration) -> Cohort:
    """Open the scans of a study.

    Raises:
        InputError: the data set or the references are missing, there are no atlases or no targets, or a pattern in the
            configuration matches no scan.

    """
    if study.pseudonymize:
        create_key([study.data])
    scans = dataset.open_dataset(study.data)
    atlases = selected(scans.sources, study.atlases, study.data, "atlases")
    targets = selected(scans.targets, study.targets, study.data, "targets")
    if not atlases or not targets:
        missing = "labeled ceT1 scan" if not atlases else "hrT2 scan"
        raise InputError(f"No {missing}: {study.data}. Run crossmoda validate.")
    first: dict[str, Case] = {}
    for case in targets:
        first.setdefault(case.id.casefold(), case)  # one folder on Windows and macOS
    unique = {case.id: case for case in first.values()}
    repeated = sorted({case.id for case in targets if first[case.id.casefold()] is not case})
    if STUDY in unique:
        raise InputError(f"Reserved case ID: {STUDY}. Rename this target.")
    tests = selected(targets, study.tests, study.data, "tests")
    references = _references(study.references, set(unique), study.data) if study.references else {}
    references = {**{name: case.label for name, case in unique.items() if case.label is not None}, **references}
    return Cohort(
        tuple(atlases), tuple(unique.values()), frozenset(case.id for case in tests), references, tuple(repeated)
    )


def _references(folder: Path, target_ids: set[str], data: Path) -> dict[str, Path]:
    """Return the label maps of a folder by the target ID in their name; ``data`` has the key of pseudonyms."""
    if not folder.is_dir():
        raise InputError(f"Folder of references not found: {folder}. Correct the path, or remove it.")
    references: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and ENDING.search(file.name):
            name = pseudonym(safe_id(_LABEL_NAME.sub("", id_of_file(file))), data)
            if name in target_ids:
                references.setdefault(name, file)
    if not references:
        raise InputError(f"No reference of a target: {folder}. Name files like crossmoda_106_Label.nii.gz.")
    return references
