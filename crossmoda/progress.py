"""Progress and cancellation of long functions.

Every long function of the engine takes ``progress``, a callback(fraction, message) with the finished fraction (0 to 1)
and the current activity. It cancels the work by raising :class:`crossmoda.errors.Cancelled`; the function then leaves
no partial output behind.
"""

from collections.abc import Callable

Progress = Callable[[float, str], None]


def report(progress: Progress | None, fraction: float, message: str) -> None:
    """Call ``progress`` (if any) with ``fraction``, limited to 0 to 1, and ``message``."""
    if progress is not None:
        progress(min(max(fraction, 0.0), 1.0), message)


def part(progress: Progress | None, start: float, stop: float, prefix: str = "") -> Progress | None:
    """Return the progress of a part of the work: its 0 to 1 is ``start`` to ``stop`` of the whole.

    Each message begins with ``prefix`` (``"atlas 3 of 12: "``).
    """
    if progress is None:
        return None
    whole = progress
    return lambda fraction, message: report(whole, start + (stop - start) * fraction, prefix + message)
