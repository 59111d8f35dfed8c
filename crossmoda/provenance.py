"""The provenance of a result: version, parameters, inputs, device, time."""

import dataclasses
import datetime
import functools
import hashlib
import platform
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda import pseudonyms
from crossmoda.errors import InputError, cannot_read, reason_of


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checksum(path: Path | str) -> str:
    """Return the SHA-256 of a file, or of all files of an image (a DICOM series, a header with detached voxels).

    Raises:
        InputError: the file is missing, is a pipe or the like, or cannot be read.

    """
    from crossmoda.volume import content

    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise InputError(f"Neither a file nor a folder: {path}. Check the path.")
        digests = [checksum_of_file(file) for file in content.files_of(path)]
        if stat.S_ISREG(mode) and len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    except OSError as cause:
        raise cannot_read(path, reason_of(cause), "Check the path") from cause


def checksum_of_file(file: Path) -> str:
    """Return the SHA-256 of one file.

    Raises:
        OSError: the file cannot be read.

    """
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


class Record:
    """The provenance of one result; the clock runs from construction.

    Input files are named by their base name only: folder names may hold a patient's name.
    """

    def __init__(
        self,
        step: str,
        settings: Any = None,
        inputs: Mapping[str, Path | str] | None = None,
        device: str = "cpu",
    ):
        """Start the record of ``step`` (such as ``"register"``).

        Args:
            step: the name of the step.
            settings: its settings, a dataclass or a mapping.
            inputs: its input files by role.
            device: the processor, as :func:`crossmoda.device.describe` names it.

        """
        self._start = time.perf_counter()
        is_dataclass = dataclasses.is_dataclass(settings) and not isinstance(settings, type)
        files = {
            role: {"name": pseudonyms.shown_name(path), "sha256": checksum(path)}
            for role, path in (inputs or {}).items()
        }
        self.content: dict[str, Any] = {
            "step": step,
            "crossmoda": crossmoda.__version__,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "parameters": dataclasses.asdict(settings) if is_dataclass else dict(settings or {}),
            "inputs": files,
            "device": device,
            "python": platform.python_version(),
        }

    def finish(self, **results: Any) -> dict[str, Any]:
        """Return the record with the seconds since construction and the measurements ``results``."""
        return {**self.content, "seconds": round(time.perf_counter() - self._start, 3), **results}
