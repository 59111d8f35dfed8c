"""What became of a study: filled step by step by its runner, read by the report."""

import dataclasses
from pathlib import Path

from crossmoda import evaluation
from crossmoda.inference import StoredPrediction
from crossmoda.study.tasks import Noisy

#: The two label maps of a target, as tables call them.
NOISY, PREDICTION = "noisy label", "prediction"


@dataclasses.dataclass
class StudyOutcome:
    """What became of a study."""

    folder: Path
    """of the study's own results"""
    noisy: dict[str, Noisy] = dataclasses.field(default_factory=dict)
    predicted: dict[str, StoredPrediction] = dataclasses.field(default_factory=dict)
    scores: dict[str, dict[str, evaluation.Scores]] = dataclasses.field(default_factory=dict)
    """target -> :data:`NOISY` or :data:`PREDICTION` -> scores"""
    failed: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """what failed -> why"""
    notes: list[str] = dataclasses.field(default_factory=list)
    learned_from: tuple[str, ...] = ()
    """the targets from which the network learned"""
    weights: Path | None = None
    registrations: int = 0
    """done in this run"""
