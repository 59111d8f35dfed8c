"""The review queue: labels ranked by expected benefit of a correction."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossmoda import dataset
from crossmoda.dataset import corrections
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.review import triage
from crossmoda.review.evidence import Evidence, evidence_of

#: Review statuses, in the order of the queue.
STATUSES = ("open", "needs expert", "corrected", "accepted")


@dataclasses.dataclass(frozen=True)
class Item:
    """A target in the queue."""

    id: str
    priority: float
    """expected Dice gain of a correction (mean over the structures), 0 to 1"""
    reasons: tuple[str, ...]
    """sentences, the most important first, and notes about missing files"""
    status: str
    """``"open"``, ``"corrected"``, ``"accepted"`` or ``"needs expert"``"""
    seconds: float
    """review time"""
    volumes_mm3: dict[str, float]
    """volume of each structure in the label to review"""
    evidence: dict[str, Any]
    """see :func:`crossmoda.review.evidence.measure`"""


def review_list(data: Path | str, results: Path | str, progress: Progress | None = None) -> list[Item]:
    """Return the hrT2 targets of a data set by decreasing priority.

    Open targets precede those that need an expert, and corrected or accepted targets come last. Targets without
    results are included, with the remedy as reason.

    Args:
        data: the data set.
        results: results of the targets, ``<id>/`` (see docs/architecture.md).

    Raises:
        InputError: ``data`` is not a data set or has no hrT2 scan.

    """
    targets = dataset.open_dataset(data).targets
    if not targets:
        raise InputError(f"No hrT2 scan: {data}. Select the data set of the labeled targets.")
    evidence: dict[str, Evidence | InputError] = {}
    for number, case in enumerate(targets):
        report(progress, number / len(targets), f"assessing {case.id}")
        try:
            evidence[case.id] = evidence_of(Path(results) / case.id)
        except InputError as cause:
            evidence[case.id] = cause
    decisions = corrections.all_corrections(data)
    cohort = triage.CohortStatistics([item for item in evidence.values() if isinstance(item, Evidence)])
    items = [_item(case_id, item, cohort, decisions.get(case_id)) for case_id, item in evidence.items()]
    report(progress, 1.0, "done")
    return sort(items)


def sort(items: Sequence[Item]) -> list[Item]:
    """Return the items in the order of the queue."""
    return sorted(items, key=lambda item: (STATUSES.index(item.status), -item.priority, item.id))


def _item(
    case_id: str,
    evidence: Evidence | InputError,
    cohort: triage.CohortStatistics,
    correction: corrections.Correction | None,
) -> Item:
    status, seconds = (correction.status, correction.seconds) if correction else ("open", 0.0)
    if isinstance(evidence, InputError):
        return Item(case_id, 0.0, (str(evidence),), status, seconds, {}, {})
    assessment = cohort.assess(evidence)
    return Item(
        case_id,
        round(assessment.loss, 4),
        (*assessment.reasons, *(f"Note: {note}." for note in evidence.notes)),
        status,
        seconds,
        dict(evidence.volumes_mm3),
        {**evidence.numbers, **assessment.numbers},
    )
