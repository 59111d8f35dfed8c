"""The outcome of a study, filled by the runner and read by the report."""

import dataclasses
from pathlib import Path

from crossmoda import evaluation
from crossmoda.inference import StoredPrediction
from crossmoda.study.tasks import Noisy

#: Names of the label maps of a target in tables.
NOISY, PREDICTION = "noisy label", "prediction"


@dataclasses.dataclass
class StudyOutcome:
    """The outcome of a study."""

    folder: Path
    """results of the whole study"""
    noisy: dict[str, Noisy] = dataclasses.field(default_factory=dict)
    predicted: dict[str, StoredPrediction] = dataclasses.field(default_factory=dict)
    scores: dict[str, dict[str, evaluation.Scores]] = dataclasses.field(default_factory=dict)
    """target -> :data:`NOISY` or :data:`PREDICTION` -> scores"""
    failed: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """case or step -> reasons"""
    notes: list[str] = dataclasses.field(default_factory=list)
    learned_from: tuple[str, ...] = ()
    """targets used for training"""
    weights: Path | None = None
    registrations: int = 0
    """number of registrations in this run"""
