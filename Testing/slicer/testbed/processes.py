"""The processes that the panel has started."""

from pathlib import Path


def child_processes() -> set[int]:
    """Return the processes that this one has started and that are still there."""
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in children.read_text("utf-8").split()}
    alive = {pid for pid in found if Path(f"/proc/{pid}/stat").exists()}
    return {pid for pid in alive if Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"}
