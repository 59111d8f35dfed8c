"""Reuse of finished work, identified by its content: inputs, parameters, version.

A step of a long run owns a folder. When its files are complete, a seal is written beside them: a digest of everything
the step depends on (its *key*), the files with their checksums, and its results. A later run with the same key reuses
them; with another key, after a killed run, or with a missing file, it removes them and repeats the step. A result that
somebody changed is never removed (:meth:`CachedStep.refuse_changed`).

One run at a time works in a folder: its commands hold the lock of the output folder (:mod:`crossmoda.locks`).
"""

import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda import output
from crossmoda.errors import InputError
from crossmoda.provenance import checksum_of_file

#: Of a step that has begun and is not finished, it has no key.
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
        self.parts = {name: digest(value) for name, value in depends_on.items()}
        self._token: str | None = None

    def results(self) -> dict[str, Any] | None:
        """Return the recorded results of the finished step, or None if it is incomplete, damaged or has another key."""
        seal = _seal_of(self.folder)
        if seal is None or seal.get("key") != self.key or not is_intact(self.folder):
            return None
        results = seal.get("results")
        return results if isinstance(results, dict) else None

    def refuse_changed(
        self, files: Sequence[str], remedy: Callable[[str, Mapping[str, Any]], str | None] = lambda *_: None
    ) -> None:
        """Refuse to replace results changed after the step was finished, and files that the seal does not list.

        Outputs of a run that was killed are no results: its seal lists them without checksums; they are replaced.

        Args:
            files: the outputs (names inside the folder).
            remedy: ``remedy(name, results)`` returns what to do with a changed file; None: the usual advice.

        Raises:
            InputError: a file was changed, or is not of this software.

        """
        listed = _sealed_files(self.folder)
        for name in files:
            if name not in listed and (self.folder / name).exists():
                raise InputError(
                    f"Not a result of a finished run: {self.folder / name}. Move it, or choose another folder."
                )
        for name, sealed in listed.items():
            file = self.folder / name
            if sealed and file.exists() and not _has_digest(file, sealed):
                results = (_seal_of(self.folder) or {}).get("results")
                advice = remedy(name, results if isinstance(results, dict) else {})
                advice = advice or "Move it to another folder, then run again."
                raise InputError(f"Edited or damaged after it was written: {file}. {advice}")

    def begin(self, files: Sequence[str] = ()) -> None:
        """Make the folder, and remove earlier outputs and their seal: the step is unfinished from then on.

        Args:
            files: the outputs (names inside the folder) that a user opens and may change; without them, all files are
                of the program alone, and are made again where they are damaged.

        Raises:
            InputError: one of these outputs was changed; see :meth:`refuse_changed`.

        """
        if files:
            self.refuse_changed(files)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in {*files, *_sealed_files(self.folder)}:
            (self.folder / name).unlink(missing_ok=True)
        output.remove_leftovers(self.folder)
        self._token = uuid.uuid4().hex
        output.write_json(self.folder / SEAL, {"begun": self._token, "files": dict.fromkeys(files)})

    def finish(self, files: Sequence[str], results: Mapping[str, Any]) -> None:
        """Seal the step: ``files`` (names inside the folder) are complete and ``results`` (JSON types) are valid.

        Raises:
            InputError: another run began the step meanwhile; the files may be its own.

        """
        if (_seal_of(self.folder) or {}).get("begun") != self._token:
            raise InputError(f"Another run wrote into {self.folder} at the same time. Run again, one at a time.")
        for name in files:
            _flush(self.folder / name)
        digests = {name: checksum_of_file(self.folder / name) for name in files}
        seal = {"key": self.key, "parts": self.parts, "files": digests, "results": dict(results)}
        output.write_json(self.folder / SEAL, seal)


def is_finished(folder: Path) -> bool:
    """Return whether the step of a folder was finished; its files are not looked at."""
    return "key" in (_seal_of(folder) or {})


def is_intact(folder: Path) -> bool:
    """Return whether the files in a folder are those of the step that was finished there.

    A folder without a seal, such as one with labels of another program, counts as intact.
    """
    if not (folder / SEAL).exists():
        return True
    seal = _seal_of(folder)
    files = seal.get("files") if seal else None
    if seal is None or "key" not in seal or not isinstance(files, dict):
        return False
    return all(_has_digest(folder / name, digest) for name, digest in files.items())


def _has_digest(file: Path, digest: str | None) -> bool:
    try:
        return checksum_of_file(file) == digest
    except OSError:
        return False


def _sealed_files(folder: Path) -> dict[str, str | None]:
    """Return the checksums of the files that the seal of a folder lists; None: begun and not finished."""
    files = (_seal_of(folder) or {}).get("files")
    inside = folder.resolve()
    listed = files.items() if isinstance(files, dict) else ()
    return {name: digest for name, digest in listed if (folder / name).resolve().is_relative_to(inside)}


def _seal_of(folder: Path) -> dict[str, Any] | None:
    try:
        seal = output.read_json(folder / SEAL)
    except (OSError, ValueError, RecursionError):
        return None
    return seal if isinstance(seal, dict) else None


def _flush(path: Path) -> None:
    """Flush a file to the disk before its content is sealed."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
