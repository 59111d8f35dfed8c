"""The review queue: which label to correct first, and why."""

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

#: What can be the matter with a case, in the order in which they are shown.
STATUSES = ("open", "needs expert", "corrected", "accepted")


@dataclasses.dataclass(frozen=True)
class Item:
    """A target in the queue."""

    id: str
    priority: float
    """the Dice (mean of both structures) that a correction is expected to gain, 0 to 1"""
    reasons: tuple[str, ...]
    """why, in sentences, the most important first; also what is missing"""
    status: str
    """``"open"``, ``"corrected"``, ``"accepted"`` or ``"needs expert"``"""
    seconds: float
    """spent on it so far"""
    volumes_mm3: dict[str, float]
    """of each structure, in the label to be reviewed"""
    evidence: dict[str, Any]
    """the numbers behind it, see :func:`crossmoda.review.evidence.measure`"""


def review_list(data: Path | str, results: Path | str, progress: Progress | None = None) -> list[Item]:
    """Return every hrT2 target of a data set, that whose correction would help most first.

    What was corrected or accepted comes last, what needs an expert before that. A target without any result is listed
    as well, with what to do about it.

    Args:
        data: the data set.
        results: folder with the results of each target, ``<id>/`` (see docs/architecture.md).
        progress: told which case is looked at; may cancel.

    Raises:
        InputError: ``data`` is no data set or has no hrT2 scan.

    """
    targets = dataset.open_dataset(data).targets
    if not targets:
        raise InputError(f"{data} holds no hrT2 scan; choose the data set whose targets were labeled.")
    found: dict[str, Evidence | InputError] = {}
    for number, case in enumerate(targets):
        report(progress, number / len(targets), f"looking at {case.id}")
        try:
            found[case.id] = evidence_of(Path(results) / case.id)
        except InputError as cause:
            found[case.id] = cause
    done = corrections.all_corrections(data)
    cohort = triage.Cohort([one for one in found.values() if isinstance(one, Evidence)])
    items = [_item(case_id, one, cohort, done.get(case_id)) for case_id, one in found.items()]
    report(progress, 1.0, "done")
    return sort(items)


def sort(items: Sequence[Item]) -> list[Item]:
    """Return the items in the order of the queue."""
    return sorted(items, key=lambda item: (STATUSES.index(item.status), -item.priority, item.id))


def _item(
    case_id: str, found: Evidence | InputError, cohort: triage.Cohort, done: corrections.Correction | None
) -> Item:
    status, seconds = (done.status, done.seconds) if done else ("open", 0.0)
    if isinstance(found, InputError):
        return Item(case_id, 0.0, (str(found),), status, seconds, {}, {})
    judged = cohort.judge(found)
    return Item(
        case_id,
        round(judged.loss, 4),
        (*judged.sentences, *(f"Note: {note}." for note in found.notes)),
        status,
        seconds,
        dict(found.volumes_mm3),
        {**found.numbers, **judged.numbers},
    )
