"""The processes that the panel has started."""

from pathlib import Path

#: What was there before: a test of the engine may leave a helper of Python's multiprocessing.
_earlier: set[int] = set()


def start_counting() -> None:
    """Leave out the processes that are there now."""
    _earlier.clear()
    _earlier.update(_children())


def child_processes() -> set[int]:
    """Return the processes that the panel has started and that are still there."""
    return _children() - _earlier


def _children() -> set[int]:
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in children.read_text("utf-8").split()}
    alive = {pid for pid in found if Path(f"/proc/{pid}/stat").exists()}
    return {pid for pid in alive if Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"}
