"""Files appear under their name only when they are complete."""

import contextlib
import contextvars
import csv
import errno
import io
import json
import math
import os
import platform
import shutil
import signal
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmoda.errors import InputError, reason_of

#: Mark of a file that is still being written. A run that is killed may leave one; it is never read.
PARTIAL = ".partial-"
#: Files of another computer's runs are left alone for so long, s.
_ABANDONED_S = 7 * 24 * 3600.0
#: The beginnings of a cell that a spreadsheet computes.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: Errors of the system where a disk, a quota or a file is full.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Complete files that wait for the other files of a block of :func:`together`: (temporary, path) each.
_waiting: contextvars.ContextVar[list[tuple[Path, Path]] | None] = contextvars.ContextVar("waiting", default=None)


class CannotWrite(InputError):
    """The disk is full: no input is at fault."""


def _own_partial() -> str:
    """Return the beginning of the names of this process's unfinished files: computer and process."""
    return f"{PARTIAL}{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}-"


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of runs that were killed: their process is gone, or they are a week old."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        computer, _, rest = leftover.name.removeprefix(PARTIAL).partition("-")
        process = rest.partition("-")[0]
        with contextlib.suppress(OSError):
            is_here = f"{PARTIAL}{computer}-" == _own_partial().rpartition(f"{os.getpid()}-")[0]
            is_gone = is_here and process.isdigit() and not _is_running(int(process))
            if is_gone or time.time() - leftover.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _is_running(process: int) -> bool:
    """Return whether a process of this computer runs; on Windows, where the question would end it, always True."""
    if os.name == "nt" or process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs under another user
        return True
    return True


def _cannot_write(path: Path, cause: OSError, remedy: str) -> InputError:
    return InputError(f"Cannot write {path}: {reason_of(cause)}. {remedy}.")


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends, delete it when the block fails.

    The temporary name keeps the ending (``.nii.gz``, ``.seg.nrrd``), since writers choose the format by it; in lower
    case, since some know no other.
    Missing folders are made.

    Raises:
        InputError: the folder cannot be made or written, or the name cannot be decoded.
        CannotWrite: the disk is full.

    """
    path = Path(path)
    refuse_undecodable(path)
    _, dot, ending = path.name.partition(".")
    temporary = path.with_name(f"{_own_partial()}{uuid.uuid4().hex[:8]}{dot}{ending.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as cause:
        raise _cannot_write(path, cause, "Choose a folder that can be written") from cause
    remove_leftovers(path.parent)
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
    except OSError as cause:  # a name that is too long as well
        raise _cannot_write(path, cause, "Choose another file name") from cause
    try:
        try:
            yield temporary
        except OSError as cause:
            if cause.errno not in _NO_ROOM:
                raise
            raise CannotWrite(f"Cannot write {path}: the disk is full. Make room or choose another folder.") from cause
        waiting = _waiting.get()
        if waiting is None:
            _rename(temporary, path)
        else:
            waiting.append((temporary, path))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as cause:
        raise _cannot_write(path, cause, "Choose another file name") from cause


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let all files of :func:`atomic` within the block appear at its end, or none if the block fails.

    Earlier files of these names stay until then. The block and the writing are in one thread.
    """
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        # The last file is often the record of the others. Before them, it knows the earlier and the new ones.
        for temporary, path in reversed(waiting):
            _rename(temporary, path)
    finally:
        _waiting.reset(token)
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)


def content_of(path: Path | str) -> Path:
    """Return the file with the content of ``path``: within a block of :func:`together`, what waits for this name."""
    waiting = {target: temporary for temporary, target in _waiting.get() or ()}
    return waiting.get(Path(path), Path(path))


def check_apart(outputs: Iterable[Path | str | None], inputs: Iterable[Path | str | None]) -> None:
    """Refuse, before work begins, files that could not be written later; None is an omitted file.

    Raises:
        InputError: an output is an input or a DICOM image, two outputs are one file, or an output cannot be written.

    """
    input_files = {_identity(Path(path)) for path in inputs if path is not None}
    checked: set[object] = set()
    for output in (Path(path) for path in outputs if path is not None):
        identity = _identity(output)
        if identity in input_files:
            raise InputError(f"The output would replace an input: {output}. Choose another file name or folder.")
        if identity in checked:
            raise InputError(f"Two outputs have the same file name: {output}. Choose different file names.")
        check_writable(output)
        if _is_dicom_image(output):
            raise InputError(f"The output would replace a DICOM image: {output}. Choose another file name.")
        checked.add(identity)


def check_ending(path: Path | str, ending: str) -> None:
    """Raise :class:`InputError` if the name of an output has another ending: it may be meant to be another file."""
    if not str(path).lower().endswith(ending):
        raise InputError(f"Unknown file name ending: {path}. Use {ending}.")


def check_writable(path: Path | str, is_folder: bool = False) -> None:
    """Refuse, before work begins, a file or folder that could not be written later; nothing is made.

    Raises:
        InputError: the file is a folder or a device, a folder above it is none, or permission is missing.

    """
    path = Path(path)
    refuse_undecodable(path)
    try:
        if path.exists() and not is_folder and not path.is_file():
            if path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            raise InputError(f"Cannot write {path}: not a regular file. Choose another file name.")
        folder = path if is_folder else path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(20, "Not a directory")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as cause:
        raise _cannot_write(path, cause, "Choose another path") from cause


def _is_dicom_image(path: Path) -> bool:
    """Return whether a file is an image in DICOM, such as a slice of a scan; segmentations and reports are none."""
    from crossmoda.volume import dicom

    if not path.is_file() or not dicom.is_dicom(path):
        return False
    import pydicom

    header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["Modality"])
    return header.get("Modality") not in ("SEG", "SR")


def _identity(path: Path) -> object:
    """Return what two paths have in common exactly where they are one file, whether it exists or not."""
    try:
        status = path.stat()
    except OSError:  # a file does not exist yet
        return os.path.normcase(os.path.realpath(path))
    return status.st_dev, status.st_ino


def refuse_undecodable(path: Path) -> None:
    """Raise InputError if a path is not UTF-8 (from an old computer): ITK ends the whole process on such a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError as cause:
        escaped = str(path).encode(errors="backslashreplace").decode()
        raise InputError(f"File name is not UTF-8: {escaped}. Rename the file or folder.") from cause


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` (UTF-8) in one step."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path | str, content: Any) -> None:
    """Write ``content`` as indented JSON in one step."""
    write_text(path, json_text(content) + "\n")


def json_text(content: Any) -> str:
    """Return ``content`` as indented JSON; undefined numbers are null, paths and the like are texts."""
    return json.dumps(_without_nan(content), indent=2, ensure_ascii=False, default=str)


def _without_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path | str) -> Any:
    """Return the content of a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or nested too deeply.

    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except RecursionError as cause:
        raise ValueError("nested too deeply") from cause


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table as CSV text; None and NaN become empty cells, booleans yes and no."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *([_cell(value) for value in row] for row in rows)])
    return stream.getvalue()


def _cell(value: object) -> object:
    if value is None or value != value:  # NaN differs from itself
        return ""
    if isinstance(value, bool):
        return ("no", "yes")[value]
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return "'" + value  # a spreadsheet would compute it
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def without_folders(text: str, roots: Iterable[Path]) -> str:
    """Return a text without the folders of a run: what is handed on shall not tell where somebody works.

    Example:
        >>> without_folders("Cannot read /data/anna/p1/a.nii: empty.", [Path("/data/anna")])
        'Cannot read p1/a.nii: empty.'

    """
    folders = {str(path) for root in roots for path in (root, root.absolute())}
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder + os.sep, "").replace(folder, Path(folder).name)
    return text.replace(str(Path.home()), "~")


def printable(text: object) -> str:
    """Return a text for a terminal: what would move its cursor or change its title is shown as code.

    Example:
        >>> printable("a" + chr(27) + "[2Jb")
        'a\\\\x1b[2Jb'

    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV in one step; see :func:`csv_text`."""
    write_text(path, csv_text(header, rows))


def end_as_interrupted() -> None:
    """Let the signal by which systems end a process (a shutdown, SLURM's time limit) act like Ctrl-C: work is saved."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def use_utf8() -> None:
    """Let the standard streams accept every name: UTF-8 to pipes and files, whatever the computer's code page.

    On Windows a pipe has the code page of the country, which may lack letters of a folder name: printing it would fail.
    Terminals keep their encoding and show such letters escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
