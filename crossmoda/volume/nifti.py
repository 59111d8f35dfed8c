"""NIfTI files beyond ITK's checks.

Reading: ITK reads a truncated file without complaint (the missing voxels become 0), turns values that are not finite
into 0, replaces a spacing of 0 by 1 mm, and refuses axes that are not perpendicular without naming a remedy.
Writing: ITK rounds oblique directions to single precision, which moves a result by 1e-8 against its source image.
"""

import gzip
import math
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import cannot_read
from crossmoda.volume.grid import Grid
from crossmoda.volume.itk_reader import reader_of

#: The largest sine of the angle between two axes that still counts as rounding (ITK's own limit lies near it).
SHEAR_TOLERANCE = 1e-3
#: The remedy of a spacing that is 0, negative or not a number.
CORRECT_SPACING = "Correct the spacing in its header: every spacing must be positive"
_EXPORT = "Export it again"
_CHUNK = 1 << 22
#: NumPy's names of the data types of the standard that ITK keeps as they are.
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
#: Bytes per voxel of the standard's other data types: complex, colors, 64-bit and 128-bit numbers.
_OTHER_TYPES = {32: 8, 128: 3, 1024: 8, 1280: 8, 1536: 16, 1792: 16, 2048: 32, 2304: 4}
#: The most bytes before the first voxel, for the header's extensions.
_MOST_BEFORE = 1 << 28


def is_nifti(path: Path) -> bool:
    """Return whether the file name is that of a NIfTI file (.nii, .nii.gz)."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check(path: Path) -> np.ndarray | None:
    """Raise :class:`InputError` for a NIfTI file that is truncated, has values that are not finite or a bad header.

    Returns:
        The voxels in the file's order (one axis), which saves unpacking the file again; None where ITK has to
        interpret the numbers (scaled values, colors, rare types).

    """
    with path.open("rb") as stream:
        opener = gzip.open if stream.read(2) == b"\x1f\x8b" else open
    chunks: list[bytes] = []
    try:
        with opener(path, "rb") as stream:
            header = stream.read(540)
            offset, size, kind, plain = _check_header(header, path)
            if offset > len(header):
                stream.read(offset - len(header))
            chunks.append(header[offset : offset + size])
            available = len(chunks[0])
            while available < size and (chunk := stream.read(min(_CHUNK, size - available))):
                available += len(chunk)
                chunks.append(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise cannot_read(path, "truncated or damaged", "Copy or download it again") from cause
    if available < size:
        raise cannot_read(path, f"truncated to {available} of {size} bytes", "Copy or download it again")
    if kind is None:
        return None
    values = np.frombuffer(b"".join(chunks), kind)
    if kind.kind == "f":
        refuse_not_finite(values.size - int(np.count_nonzero(np.isfinite(values))), path)
    return values.astype(kind.newbyteorder("="), copy=False) if plain else None


def refuse_not_finite(count: int, path: Path) -> None:
    """Raise :class:`InputError` if an image has voxels that are not finite."""
    if count:
        voxels = "1 voxel that is" if count == 1 else f"{count} voxels that are"
        raise cannot_read(path, f"{voxels} not a finite number (NaN or infinite)", "Replace them, for example by 0")


def refuse_spacing(spacing: Sequence[float], path: Path) -> None:
    """Raise :class:`InputError` if a spacing is not a positive number."""
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        text = " x ".join(f"{value:g}" for value in spacing)
        raise cannot_read(path, f"voxel spacing of {text} mm", CORRECT_SPACING)


def _check_header(header: bytes, path: Path) -> tuple[int, int, np.dtype | None, bool]:
    """Check a NIfTI-1 or -2 header.

    Returns:
        The offset and size of the voxels, bytes; their type if it is one of :data:`_TYPES`; whether they are unscaled.

    """
    for order in "<>":  # without the mark n+1, ITK reads a file as Analyze, with another start of the voxels
        if header[:4] == struct.pack(order + "i", 348) and header[344:347] == b"n+1":
            dimensions = struct.unpack_from(order + "8h", header, 40)
            (datatype,) = struct.unpack_from(order + "h", header, 70)
            spacing = struct.unpack_from(order + "8f", header, 76)
            offset, slope, intercept = struct.unpack_from(order + "3f", header, 108)
            (sform_code,) = struct.unpack_from(order + "h", header, 254)
            sform = struct.unpack_from(order + "12f", header, 280)
            break
        if header[:4] == struct.pack(order + "i", 540) and header[4:7] == b"n+2" and len(header) >= 540:
            (datatype,) = struct.unpack_from(order + "h", header, 12)
            dimensions = struct.unpack_from(order + "8q", header, 16)
            spacing = struct.unpack_from(order + "8d", header, 104)
            offset, slope, intercept = struct.unpack_from(order + "q2d", header, 168)
            (sform_code,) = struct.unpack_from(order + "i", header, 348)
            sform = struct.unpack_from(order + "12d", header, 400)
            break
    else:
        raise cannot_read(path, "not a NIfTI image, in spite of its name", _EXPORT)
    rank = dimensions[0]
    if not 1 <= rank <= 7 or min(dimensions[1 : rank + 1]) < 1:
        raise cannot_read(path, "impossible dimensions in its NIfTI header", _EXPORT)
    refuse_spacing(spacing[1 : min(rank, 3) + 1], path)
    if sform_code > 0 and rank >= 3:
        refuse_sheared(np.reshape(sform, (3, 4))[:, :3], path)
    if not 0 <= offset <= _MOST_BEFORE:
        raise cannot_read(path, f"impossible offset of its voxels in its NIfTI header ({offset:g})", _EXPORT)
    begin = max(int(offset), struct.unpack(order + "i", header[:4])[0])  # never within the header, as ITK reads it
    kind = np.dtype(order + _TYPES[datatype]) if datatype in _TYPES else None
    if kind is None and datatype not in _OTHER_TYPES:
        raise cannot_read(path, f"unknown NIfTI voxel type {datatype}", _EXPORT)
    plain = slope == 0 or (slope == 1 and intercept == 0)
    size = _OTHER_TYPES[datatype] if kind is None else kind.itemsize
    return begin, math.prod(dimensions[1 : rank + 1]) * size, kind, plain


def refuse_sheared(columns: np.ndarray, path: Path) -> None:
    """Raise :class:`InputError` if the axes of an image, the columns of a 3 x 3 matrix, are not perpendicular."""
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(lengths)) or min(lengths) == 0:
        raise cannot_read(path, "axis directions do not span space", "Correct the directions in its header")
    axes = columns / lengths
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > SHEAR_TOLERANCE:
        raise cannot_read(
            path,
            f"axes are not perpendicular (by {math.degrees(math.asin(min(shear, 1.0))):.2f} degrees)",
            "Resample it on a rectangular grid, for example with Slicer's Resample Scalar/Vector/DWI Volume",
        )


def write(image: sitk.Image, path: Path) -> None:
    """Write an image whose grid ITK reads back to the bit, if the grid came from a NIfTI file; gzip by the file's name.

    The grid of an image that was read from NIfTI is what ITK computes from single-precision numbers of the header,
    either the rows of the sform or the quaternion of the qform. These numbers are found again and put into the new
    header.

    Raises:
        RuntimeError: ITK or the system cannot write the file.

    """
    plain = path if path.suffix == ".nii" else path.with_name(path.name.removesuffix(".gz"))
    voxels = math.prod(image.GetSize()) * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    try:
        if shutil.disk_usage(plain.parent).free < voxels + 348:  # ITK would print a line of its own
            raise RuntimeError("the disk is full")
        sitk.WriteImage(image, str(plain))
        if plain.stat().st_size < voxels + 348:  # ITK reports no error where the disk is full
            raise RuntimeError("the file is incomplete")
        _restore_grid(plain, Grid.of(image))
        if plain != path:
            # No time and name in the file: the same voxels make the same bytes.
            with (
                plain.open("rb") as source,
                path.open("wb") as target,
                gzip.GzipFile("", "wb", compresslevel=5, fileobj=target, mtime=0) as compressed,
            ):
                shutil.copyfileobj(source, compressed, 1 << 20)
    except OSError as cause:
        raise RuntimeError(str(cause)) from cause
    finally:
        if plain != path:
            plain.unlink(missing_ok=True)


def _restore_grid(path: Path, grid: Grid) -> None:
    """Change the header that ITK wrote until ITK reads ``grid`` from it; leave it as it was if that cannot be."""
    if _grid_of(path) == grid:
        return
    with path.open("r+b") as stream:
        written = stream.read(348)
        for header in (_with_sform(written, grid), _without_sform(written), written):
            stream.seek(0)
            stream.write(header)
            stream.flush()
            if _grid_of(path) == grid:
                return


def _grid_of(path: Path) -> Grid:
    reader = reader_of(path)
    reader.ReadImageInformation()
    return Grid.of(reader)


def _with_sform(header: bytes, grid: Grid) -> bytes:
    """Return the header with single-precision sform rows whose normalized columns are the directions of the grid."""
    direction = np.diag([-1.0, -1.0, 1.0]) @ grid.axes
    rows = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    for axis, spacing in enumerate(grid.spacing):
        unit = direction[:, axis]
        largest = int(np.argmax(np.abs(unit)))
        # The length of the column is the spacing but for rounding: try the neighbors of its largest component.
        guess = np.float32(unit[largest] * spacing)
        ulp = float(np.spacing(guess))
        columns = [
            (unit * ((float(guess) + step * ulp) / unit[largest])).astype(np.float32).astype(float)
            for step in sorted(range(-16, 17), key=abs)
        ]
        rows[:, axis] = min(columns, key=lambda column: float(np.abs(column / np.linalg.norm(column) - unit).max()))
    edited = bytearray(header)
    struct.pack_into("<12f", edited, 280, *rows.ravel())
    return bytes(edited)


def _without_sform(header: bytes) -> bytes:
    """Return the header with the sform switched off: the directions are those of the quaternion that ITK wrote."""
    edited = bytearray(header)
    struct.pack_into("<h", edited, 254, 0)
    return bytes(edited)
