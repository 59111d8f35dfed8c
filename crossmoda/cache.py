"""Reuse of finished work, identified by its content: inputs, parameters, version.

A step of a long run owns a folder. When its files are complete, a seal is written beside them: a digest of everything
the step depends on (its *key*), the files with their size, and its results. A later run with the same key reuses them;
with another key, after a killed run, or with a missing or truncated file, it repeats the step.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda import output

SEAL = "finished.json"


def digest(content: Any) -> str:
    """Return the SHA-256 of ``content`` (JSON types and settings dataclasses), whatever the order of its keys."""
    return hashlib.sha256(json.dumps(_plain(content), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _plain(content: Any) -> Any:
    """Return ``content`` in JSON's types; a settings dataclass counts with its name."""
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {"type": type(content).__qualname__, **_plain(dataclasses.asdict(content))}
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(item) for item in content]
    if content is None or isinstance(content, (bool, int, float, str)):
        return content
    raise TypeError(f"no stable text for a {type(content).__name__}")


class CachedStep:
    """One step of a run, its folder and its key."""

    def __init__(self, folder: Path | str, **depends_on: Any):
        """Set the step's folder and everything its result depends on; the package's version is added."""
        self.folder = Path(folder)
        self.key = digest({"crossmoda": crossmoda.__version__, **depends_on})

    def results(self) -> dict[str, Any] | None:
        """Return the recorded results of the finished step, or None if it is incomplete or has another key."""
        try:
            seal = json.loads((self.folder / SEAL).read_text(encoding="utf-8"))
            intact = all((self.folder / name).stat().st_size == size for name, size in seal["files"].items())
            return seal["results"] if seal["key"] == self.key and intact else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def begin(self) -> None:
        """Make the folder and remove an earlier seal: the step is unfinished from then on."""
        (self.folder / SEAL).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{output.PARTIAL}*"):
            leftover.unlink(missing_ok=True)

    def finish(self, files: Sequence[str], results: Mapping[str, Any]) -> None:
        """Seal the step: ``files`` (names inside the folder) are complete and ``results`` (JSON types) are valid."""
        for name in files:
            _flush(self.folder / name)
        sizes = {name: (self.folder / name).stat().st_size for name in files}
        output.write_json(self.folder / SEAL, {"key": self.key, "files": sizes, "results": dict(results)})


def _flush(path: Path) -> None:
    """Flush a file to the disk before its size is sealed."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
