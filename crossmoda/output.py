"""Files appear under their name only when they are complete."""

import contextlib
import contextvars
import errno
import io
import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crossmoda.errors import InputError

#: What marks a file that is still being written. A run that is killed may leave one; it is never read.
PARTIAL = ".partial-"
#: What the system says where a disk, a share of it or what a file may hold is full.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


#: The files that are complete and wait for the others of a block of :func:`together`: (temporary, path) each.
_waiting: contextvars.ContextVar[list[tuple[Path, Path]] | None] = contextvars.ContextVar("waiting", default=None)


class CannotWrite(InputError):
    """The disk is full or the folder cannot be written: no fault of any input."""


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends, delete it when the block fails.

    The temporary name keeps the ending (``.nii.gz``, ``.seg.nrrd``), since writers choose the format by it.
    Missing folders are made.

    Raises:
        InputError: the folder cannot be made or written, or the name cannot be decoded.
        CannotWrite: the disk is full.

    """
    path = Path(path)
    refuse_undecodable(path)
    _, dot, ending = path.name.partition(".")
    temporary = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:12]}{dot}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as cause:
        raise InputError(
            f"Cannot write {path}: {(cause.strerror or str(cause)).lower()}; choose a folder that can be written."
        ) from cause
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
    except OSError as cause:  # a name that is too long as well
        raise InputError(
            f"Cannot write {path}: {(cause.strerror or str(cause)).lower()}; choose another file name."
        ) from cause
    try:
        try:
            yield temporary
        except OSError as cause:
            if cause.errno not in _NO_ROOM:
                raise
            raise CannotWrite(f"Cannot write {path}: the disk is full; make room or choose another folder.") from cause
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
        raise InputError(
            f"Cannot write {path}: {(cause.strerror or str(cause)).lower()}; choose another file name."
        ) from cause


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let all files that :func:`atomic` gives within the block appear at its end, or none if the block fails.

    Files that were there under these names stay as they are until then. The block and the writing are in one thread.
    """
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        for temporary, path in waiting:
            _rename(temporary, path)
    finally:
        _waiting.reset(token)
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)


def check_apart(outputs: Iterable[Path | str | None], inputs: Iterable[Path | str | None]) -> None:
    """Refuse outputs that would replace an input or each other; None is a file that is not given.

    Raises:
        InputError: an output is an input, or two outputs are one file.

    """
    given = [Path(path) for path in inputs if path is not None]
    taken: list[Path] = []
    for output in (Path(path) for path in outputs if path is not None):
        if any(_same(output, path) for path in given):
            raise InputError(f"{output} is an input and would be replaced by a result; choose another file name.")
        if any(_same(output, path) for path in taken):
            raise InputError(f"{output} is to hold two results; choose different file names.")
        taken.append(output)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def refuse_undecodable(path: Path) -> None:
    """Raise InputError if a path is not UTF-8 (an old computer's, say): ITK ends the whole process on such a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError as cause:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise InputError(f"{shown} has letters in its name that are not UTF-8; rename the file or folder.") from cause


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` (UTF-8) in one step."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path | str, content: Any) -> None:
    """Write ``content`` as indented JSON in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def speak_utf8() -> None:
    """Let the standard streams take every name: UTF-8 to pipes and files, whatever the computer's code page.

    On Windows a pipe has the code page of the country, in which the folder of a patient may not be writable: the work
    would end with its last message. Terminals keep their encoding and show such letters escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
