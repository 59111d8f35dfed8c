"""Work on many cases: failures do not stop the rest."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from crossmoda.errors import CASE_ERRORS, InputError, sentence_of
from crossmoda.progress import Progress, part

if TYPE_CHECKING:
    from crossmoda.dataset import Case

Result = TypeVar("Result")


def for_each(
    cases: "Sequence[Case]",
    work: "Callable[[Case, Progress | None], Result]",
    progress: Progress | None = None,
    *,
    fatal: tuple[type[InputError], ...] = (),
) -> tuple[dict[str, Result], dict[str, str]]:
    """Call ``work(case, progress)`` for each case.

    Args:
        cases: cases with unique IDs.
        work: raises :class:`crossmoda.errors.InputError` where a case cannot be processed.
        progress: callback(fraction, message), the message after the case's ID; raise Cancelled to abort.
        fatal: errors that stop all cases; they are raised.

    Returns:
        The result of each case by ID, and the cause of each failure by ID.

    """
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    used: set[str] = set()
    for number, case in enumerate(cases):
        step = part(progress, number / len(cases), (number + 1) / len(cases), f"{case.id}: ")
        try:
            if case.id.casefold() in used:  # one folder on Windows and macOS
                raise InputError(f"Duplicate case ID: {case.id}. Use unique IDs.")
            used.add(case.id.casefold())
            results[case.id] = work(case, step)
        except fatal:
            raise
        except CASE_ERRORS as cause:
            failures[case.id] = sentence_of(cause)
    return results, failures
