"""How long work reports progress and is cancelled.

Every long function of the engine takes ``progress``, a callable that receives the fraction done (0 to 1) and what is
being done. The callable cancels the work by raising :class:`crossmoda.errors.Cancelled`; the function then leaves no
partial output behind.
"""

from collections.abc import Callable

Progress = Callable[[float, str], None]


def report(progress: Progress | None, fraction: float, message: str) -> None:
    """Tell ``progress`` (if any) that ``fraction`` (0 to 1) is done and ``message`` is what happens now."""
    if progress is not None:
        progress(min(max(fraction, 0.0), 1.0), message)


def part(progress: Progress | None, start: float, stop: float, prefix: str = "") -> Progress | None:
    """Return a progress for a part of the work: its 0 to 1 becomes ``start`` to ``stop`` of the whole.

    ``prefix`` is put before each message (``"atlas 3 of 12: "``).
    """
    if progress is None:
        return None
    whole = progress
    return lambda fraction, message: report(whole, start + (stop - start) * fraction, prefix + message)
