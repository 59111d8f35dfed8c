"""Voxels of files as they lie on the disk: plain, gzip (by Intel's ISA-L, several times as fast as zlib) or bzip2."""

import bz2
import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from isal import igzip, isal_zlib

from crossmoda.errors import InputError, cannot_read

COPY_AGAIN = "Copy or download it again"
#: What a damaged compressed stream raises.
DAMAGED: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    cast(type[Exception], isal_zlib.error),
    gzip.BadGzipFile,
    OSError,
)
#: The most bytes of the voxels of one file. A head of 0.25 mm voxels, as float32, has 3 GB.
MOST_BYTES = 3 * 1024**3
_CHUNK = 1 << 22
#: Levels of ISA-L are 0 to 3. A T2 head of int16: 0.15 s and 8.0 MB, with zlib at level 5 2.6 s and as many.
_LEVEL = 2


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacking gzip whatever the file's name."""
    with path.open("rb") as plain:
        is_gzip = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        if not is_gzip:
            yield plain
            return
        with igzip.GzipFile(fileobj=plain, mode="rb") as unpacked:
            yield cast(IO[bytes], unpacked)


def unpacking(stream: IO[bytes], encoding: str) -> IO[bytes]:
    """Return a stream that unpacks the rest of another; ``encoding`` is ``"gzip"``, ``"bzip2"`` or ``"raw"``."""
    if encoding == "gzip":
        return cast(IO[bytes], igzip.GzipFile(fileobj=stream, mode="rb"))
    return bz2.BZ2File(stream) if encoding == "bzip2" else stream


def refuse_large(shape: tuple[int, ...], dtype: np.dtype, path: Path) -> int:
    """Return the bytes of an array of a file.

    Raises:
        InputError: they are more than :data:`MOST_BYTES`.

    """
    size = dtype.itemsize
    for count in shape:
        size *= int(count)
    if size > MOST_BYTES:
        text = " x ".join(map(str, shape))
        reason = f"{text} voxels need {size / 1024**3:.1f} GB, more than {MOST_BYTES / 1024**3:.0f} GB"
        raise cannot_read(path, reason, "Crop or resample it")
    return size


def read_array(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, path: Path) -> np.ndarray:
    """Read an array of ``shape`` from the position of a stream, and not a byte more.

    Raises:
        InputError: the array is too large, or the stream is damaged or ends before it.

    """
    size = refuse_large(shape, dtype, path)
    content, filled = np.empty(size, np.uint8), 0  # takes memory only where it is filled
    view = memoryview(content)
    try:
        while filled < size and (chunk := stream.read(min(_CHUNK, size - filled))):
            view[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
    except DAMAGED as cause:
        raise cannot_read(path, "truncated or damaged", COPY_AGAIN) from cause
    if filled < size:
        raise cannot_read(path, f"truncated to {filled} of {size} bytes", COPY_AGAIN)
    return content.view(dtype).reshape(shape)


@contextlib.contextmanager
def packing(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Compress what is written, without time and name: the same voxels make the same bytes."""
    with igzip.GzipFile("", "wb", compresslevel=_LEVEL, fileobj=stream, mtime=0) as packed:
        yield cast(IO[bytes], packed)


def skip(stream: IO[bytes], count: int, path: Path) -> None:
    """Move a stream forward.

    Raises:
        InputError: the stream is damaged or ends before.

    """
    try:
        while count > 0 and (chunk := stream.read(min(_CHUNK, count))):
            count -= len(chunk)
    except DAMAGED as cause:
        raise cannot_read(path, "truncated or damaged", COPY_AGAIN) from cause
    if count > 0:
        raise InputError(f"Cannot read {path}: truncated before its voxels. {COPY_AGAIN}.")
