"""Training cases: scans with labels and weights."""

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
    """A labeled scan for training."""

    image: Path
    label: Path
    confidence: Path | None = None
    """confidence of the label per voxel, 0 to 1, on the image's grid; None: 1 everywhere"""
    id: str = ""

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.id or Path(self.image).name

    @classmethod
    def of(cls, case: Any) -> "TrainingCase":
        """Return a :class:`crossmoda.dataset.Case` as a training case.

        Raises:
            InputError: the case has no label.

        """
        if isinstance(case, cls):
            return case
        if case.label is None:
            raise InputError(f"Training case without a label map: {case.id}. Add its label map, or exclude the case.")
        return cls(Path(case.image), Path(case.label), id=str(case.id))


def noisy_cases(
    targets: Sequence[Case], folder: Path | str, corrections: Mapping[str, Correction] | None = None
) -> list[TrainingCase]:
    """Return the targets with a noisy label and its confidence in ``folder/<id>`` (see :mod:`crossmoda.propagation`).

    Args:
        targets: the scans.
        folder: the results of the propagation.
        corrections: decisions of reviewers (:func:`crossmoda.dataset.corrections.all_corrections`). Targets with a
            corrected label are excluded. Accepted noisy labels are used with full weight.

    Raises:
        InputError: no target has a noisy label or a corrected label.

    """
    settled = {name: correction for name, correction in (corrections or {}).items() if correction.is_settled}
    uncorrected = [case for case in targets if case.id not in settled or settled[case.id].label is None]
    cases = []
    for case in uncorrected:
        noisy_label = Path(folder) / case.id / results.NOISY_LABEL
        if noisy_label.is_file():
            results.refuse_unfinished(noisy_label)
            confidence = None if case.id in settled else noisy_label.with_name(results.CONFIDENCE)
            cases.append(TrainingCase(case.image, noisy_label, confidence, id=case.id))
    if not cases and len(uncorrected) == len(targets):
        raise InputError(f"No noisy label of {len(targets)} targets: {folder}. Run crossmoda propagate first.")
    return cases


def corrected_cases(targets: Sequence[Case], corrections: Mapping[str, Correction]) -> list[TrainingCase]:
    """Return the targets with a corrected or accepted label, with full weight."""
    return [
        TrainingCase(case.image, correction.label, id=case.id)
        for case in targets
        if (correction := corrections.get(case.id)) is not None
        and correction.is_settled
        and correction.label is not None
    ]


def check_cases(learning: Sequence[TrainingCase], checking: Sequence[TrainingCase]) -> None:
    """Raise InputError if there is no case, a file is missing, or a scan is used for training and validation."""
    if not learning:
        raise InputError("No labeled cases to train on. Select a folder with labeled scans.")
    for case in (*learning, *checking):
        for file in (case.image, case.label):
            if not Path(file).exists():
                raise InputError(f"{case.name}: file not found: {file}. Check the path.")
    names = {provenance.checksum(case.image): case.name for case in learning}
    for case in checking:
        if (training_name := names.get(provenance.checksum(case.image))) is not None:
            raise InputError(
                f"Case used for training and validation: {case.name} ({training_name}). Remove it from one of them."
            )
