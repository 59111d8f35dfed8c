"""Cost of a run: seconds, processor seconds, memory (Linux)."""

import resource
import time
from pathlib import Path


class Clock:
    """Seconds and processor seconds, of this process and its children, since construction."""

    def __init__(self) -> None:
        """Start."""
        self._start = time.perf_counter(), self._processor()

    @staticmethod
    def _processor() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    def read(self) -> tuple[float, float]:
        """Return both."""
        return time.perf_counter() - self._start[0], self._processor() - self._start[1]


def memory_mib(field: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (the peak) of this process (Linux)."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def children_mib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
