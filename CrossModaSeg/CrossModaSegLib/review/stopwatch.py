"""The time spent on a case."""

import time

_now = time.monotonic


class Stopwatch:
    """Measures the time spent on a case while the panel is open."""

    def __init__(self):
        """Start stopped."""
        self._since: float | None = None

    def go(self) -> None:
        """Start, if stopped."""
        if self._since is None:
            self._since = _now()

    def stop(self) -> float:
        """Stop; return the seconds since the last lap."""
        seconds = self.lap()
        self._since = None
        return seconds

    def lap(self) -> float:
        """Return the seconds since the last lap, and continue."""
        if self._since is None:
            return 0.0
        now = _now()
        seconds, self._since = now - self._since, now
        return seconds
