"""What a network learns from: scans with labels, and how much each voxel counts."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmoda import provenance
from crossmoda.dataset import Case, results
from crossmoda.dataset.corrections import Correction
from crossmoda.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainingCase:
    """A scan to learn from."""

    image: Path
    label: Path
    confidence: Path | None = None
    """how sure each voxel's label is, 0..1, on the image's grid; None: sure everywhere"""
    weight: float = 1.0
    """how much the case counts"""
    id: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.id or Path(self.image).name

    @classmethod
    def of(cls, case: Any) -> "TrainingCase":
        """Make one of a :class:`crossmoda.dataset.Case`.

        Raises:
            InputError: the case has no label.

        """
        if isinstance(case, cls):
            return case
        if case.label is None:
            raise InputError(f"{case.id} has no label map; training needs one for every case.")
        return cls(Path(case.image), Path(case.label), id=str(case.id))


def noisy_cases(
    targets: Sequence[Case], folder: Path | str, corrections: Mapping[str, Correction] | None = None
) -> list[TrainingCase]:
    """Return the targets whose noisy label and confidence lie in ``folder/<id>`` (see :mod:`crossmoda.propagation`).

    Args:
        targets: the scans.
        folder: the results of the propagation.
        corrections: what reviewers decided (:func:`crossmoda.dataset.corrections.all_corrections`). The noisy label of
            a target with a corrected label is left out: it is wrong where it differs. That of a target whose label
            was accepted as it is counts fully, whatever its confidence was.

    Raises:
        InputError: there is none.

    """
    decided = {case: (corrections or {}).get(case.id) for case in targets}
    drawn = {case for case, one in decided.items() if one is not None and one.is_settled and one.label is not None}
    accepted = {case for case, one in decided.items() if one is not None and one.is_settled}
    files = {case: Path(folder) / case.id for case in targets if case not in drawn}
    found = [
        TrainingCase(
            case.image,
            noisy / results.NOISY_LABEL,
            None if case in accepted else noisy / results.CONFIDENCE,
            id=case.id,
        )
        for case, noisy in files.items()
        if (noisy / results.NOISY_LABEL).is_file()
    ]
    if not found and drawn:
        return []
    if not found:
        raise InputError(f"{folder} holds no noisy label of the {len(files)} targets; run crossmoda propagate first.")
    return found


def corrected_cases(targets: Sequence[Case], corrections: Mapping[str, Correction]) -> list[TrainingCase]:
    """Return the targets whose label a reviewer drew or accepted, with full weight everywhere."""
    found = {case: corrections[case.id] for case in targets if case.id in corrections}
    return [
        TrainingCase(case.image, one.label, id=case.id)
        for case, one in found.items()
        if one.is_settled and one.label is not None
    ]


def check_cases(learning: Sequence[TrainingCase], checking: Sequence[TrainingCase]) -> None:
    """Raise InputError if there is nothing to learn from, a file is missing, or a scan is in both lists."""
    if not learning:
        raise InputError("There are no labeled cases to train on; give a folder with labeled scans.")
    for case in (*learning, *checking):
        for file in (case.image, case.label):
            if not Path(file).exists():
                raise InputError(f"{case.name}: there is no file {file}; check the path.")
        if not case.weight > 0:
            raise InputError(f"{case.name}: the weight of a case must be positive; got {case.weight:g}.")
    seen = {provenance.checksum(case.image): case.name for case in learning}
    for case in checking:
        if (twin := seen.get(provenance.checksum(case.image))) is not None:
            raise InputError(
                f"The validation case {case.name} is also the training case {twin}; take it out of one list."
            )
