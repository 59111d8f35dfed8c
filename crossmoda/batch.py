"""Work on many cases: what fails does not stop the rest."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from crossmoda.errors import InputError
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
        cases: the cases; each needs its own name.
        work: raises :class:`crossmoda.errors.InputError` where a case cannot be worked on.
        progress: is told what is done, with the case's name before it; may cancel.
        fatal: errors after which no other case could go on; they are raised.

    Returns:
        The result of each case's id, and why the others failed.

    """
    done: dict[str, Result] = {}
    failed: dict[str, str] = {}
    for number, case in enumerate(cases):
        step = part(progress, number / len(cases), (number + 1) / len(cases), f"{case.id}: ")
        try:
            if case.id in done or case.id in failed:
                raise InputError(f"{case.id} is given twice; give each scan its own name.")
            done[case.id] = work(case, step)
        except fatal:
            raise
        except InputError as cause:
            failed[case.id] = str(cause)
    return done, failed
