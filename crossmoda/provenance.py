"""The provenance of a result: version, parameters, inputs, device, time."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import platform
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda import output, pseudonyms
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


#: Entries of a record: SHA-256 of the outputs by role, and those of earlier runs with the same record.
_OUTPUTS, _EARLIER = "outputs", "earlier_outputs"


def checksums_of_outputs(outputs: Mapping[str, Path | str | None], record: Path) -> dict[str, Any]:
    """Return the entries of a record that tell a result from what somebody made of it (:func:`refuse_foreign`).

    Args:
        outputs: the files by role, also those that wait in a block of ``output.together``; None is an omitted file.
        record: the file of the record; what an earlier run stored there stays known: its other outputs may still be
            beside the new ones.

    """
    present = {role: checksum_of_file(output.content_of(path)) for role, path in outputs.items() if path is not None}
    earlier = (_listed_in(record) or set()) - set(present.values())
    return {_OUTPUTS: present, _EARLIER: sorted(earlier)}


def _listed_in(record: Path) -> set[str] | None:
    """Return the checksums that a record lists, none if there is no record; None if the file is not one."""
    if not record.is_file():
        return set()
    try:
        content = output.read_json(record)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "crossmoda" not in content:
        return None
    outputs, earlier = content.get(_OUTPUTS), content.get(_EARLIER)
    listed = [*(outputs.values() if isinstance(outputs, dict) else ()), *(earlier if isinstance(earlier, list) else ())]
    return set(map(str, listed))


def wrote(file: Path, record: Path) -> bool:
    """Return whether a file is an output of the run of a record, unchanged since."""
    with contextlib.suppress(OSError):
        return record.is_file() and checksum_of_file(file) in (_listed_in(record) or ())
    return False


def refuse_foreign(files: Iterable[Path | str | None], record: Path, scan: Path | None = None) -> None:
    """Refuse to replace files that this software did not write, or that were edited since; None is an omitted file.

    Args:
        files: the outputs; those that do not exist are accepted.
        record: the provenance in which the run that wrote them stored their checksums.
        scan: the scan of the new outputs; the result of another one is not replaced.

    Raises:
        InputError: a file exists that the record does not list with its checksum, or the record is another file, or of
            another scan.

    """
    files = list(files)
    existing = [Path(path) for path in files if path is not None and Path(path).is_file()]
    listed = _listed_in(record)
    if listed is None:
        existing.append(record)
    for path in existing:
        with contextlib.suppress(OSError):
            if checksum_of_file(path) in (listed or ()):
                continue
        raise InputError(
            f"Edited since it was written, or not a result of this version of CrossModa: {path}. "
            "Move it, or choose another output."
        )
    before = output.read_json(record).get("inputs", {}).get("image") if scan is not None and existing else None
    if scan is not None and before is not None and before["sha256"] != checksum(scan):
        raise InputError(
            f"The result of another scan, {before['name']}, would be replaced: {existing[0]}. "
            "Move it, or choose another output."
        )


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
