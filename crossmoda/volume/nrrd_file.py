"""NRRD files: headers with pynrrd, in whose hands no header can end the process as it can in ITK's.

The numeric locale of the host program (a decimal comma) has no influence, unlike on ITK's reader.
"""

import dataclasses
import io
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from crossmoda.errors import cannot_read
from crossmoda.volume import compression, geometry
from crossmoda.volume.grid import Grid, Volume

#: Bytes of the longest header: names of hundreds of segments and a provenance.
_LONGEST_HEADER = 1 << 22
_EXPORT = "Export it again"
#: The signs that turn the axes of a named space into LPS.
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_TO_MM = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "": 1.0}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TEXT = ("ascii", "text", "txt")


@dataclasses.dataclass(frozen=True)
class Content:
    """An NRRD file: its voxels and its header."""

    array: np.ndarray
    """(z, y, x) or, with several components per voxel, (z, y, x, component)"""
    grid: Grid
    fields: Mapping[str, str]
    """the key/value pairs that are not of the format, such as ``Segment0_Name``"""


def header_of(path: Path) -> dict[str, Any]:
    """Return the header of an NRRD file as pynrrd parses it.

    Raises:
        InputError: the header is damaged.

    """
    with path.open("rb") as stream:
        return _header(stream, path)


def data_files(path: Path) -> list[Path]:
    """Return the files that hold the voxels of a detached header; none for a file that is complete in itself."""
    header = header_of(path)
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return []
    if str(name).split()[:1] == ["LIST"] or "%" in str(name):
        raise cannot_read(path, "voxels spread over several files", "Export it as one file")
    return [path.parent / str(name)]


def _header(stream: IO[bytes], path: Path) -> dict[str, Any]:
    """Read a header; the stream is at the first voxel afterwards."""
    import nrrd

    lines: list[str] = []
    length = 0
    while line := stream.readline(_LONGEST_HEADER):
        length += len(line)
        if length > _LONGEST_HEADER:
            raise cannot_read(path, "damaged NRRD header: it does not end", compression.COPY_AGAIN)
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            lines.append(line.decode("latin-1"))
        if not line.strip():
            break
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = dict(nrrd.read_header(lines))
        for name in ("dimension", "type", "encoding", "sizes"):
            header[name]
        return header
    except Exception as cause:  # pynrrd raises errors of many kinds for damaged lines
        raise cannot_read(path, "damaged NRRD header", compression.COPY_AGAIN) from cause


def read(path: Path) -> Content:
    """Read an NRRD file of three axes in space, and perhaps one of components.

    Raises:
        InputError: the file is truncated or damaged, has another number of axes, or does not state where it lies.

    """
    with path.open("rb") as stream:
        header = _header(stream, path)
        shape, kind, component_axis = _checked_shape(header, path)
        grid = _grid(header, shape, component_axis, path)
        files = data_files(path)
        for file in files:
            if not file.is_file():
                raise cannot_read(path, f"its voxels are missing: {file.name}", "Copy both files into one folder")
        if files:
            with files[0].open("rb") as detached:
                array = _array(detached, header, shape, kind, path)
        else:
            array = _array(stream, header, shape, kind, path)
    if component_axis is not None:
        array = np.moveaxis(array, len(shape) - 1 - component_axis, -1)
        if array.shape[-1] == 1:
            array = array[..., 0]
    standard = {"type", "dimension", "space", "sizes", "encoding", "endian", "kinds"}
    fields = {key: value for key, value in header.items() if key not in standard and isinstance(value, str)}
    return Content(array, grid, fields)


def _checked_shape(header: Mapping[str, Any], path: Path) -> tuple[list[int], np.dtype, int | None]:
    """Return the sizes of the axes, fastest first, the type of the voxels, and the number of the component axis."""
    from nrrd.reader import _TYPEMAP_NRRD2NUMPY as TYPES

    sizes = [int(size) for size in header["sizes"]]
    if len(sizes) != header["dimension"] or not sizes or min(sizes) < 1:
        raise cannot_read(path, "impossible sizes in its NRRD header", _EXPORT)
    name = str(header["type"])
    if name not in TYPES or name == "block":
        raise cannot_read(path, f"unknown NRRD voxel type {name[:40]}", _EXPORT)
    kind = np.dtype(TYPES[name])
    endian = header.get("endian")
    if kind.itemsize > 1 and str(header["encoding"]).lower() not in _TEXT:
        if endian not in ("little", "big"):
            raise cannot_read(path, "byte order missing in its NRRD header", _EXPORT)
        kind = kind.newbyteorder("<" if endian == "little" else ">")
    kinds = [str(item).lower() for item in header.get("kinds", [])]
    if "complex" in kinds:
        raise cannot_read(path, "complex numbers", "Select a gray-value image, such as their magnitude")
    directions = header.get("space directions")
    component: int | None = None
    if len(sizes) == 4:
        if directions is not None and len(directions) == 4:
            missing = [number for number, row in enumerate(directions) if row is None or np.isnan(row).any()]
        else:
            missing = [number for number, item in enumerate(kinds) if item not in ("domain", "space")]
        component = missing[0] if len(missing) == 1 else None
        if component is not None and kinds[component : component + 1] == ["time"]:
            component = None
    if len(sizes) != 3 and component is None:
        text = " x ".join(map(str, sizes))
        raise cannot_read(path, f"not a 3D image but {len(sizes)} dimensions ({text})", "Select one 3D scan")
    return sizes, kind, component


def _grid(header: Mapping[str, Any], sizes: list[int], component: int | None, path: Path) -> Grid:
    """Return the grid that a header states."""
    axes = [number for number in range(len(sizes)) if number != component]
    size = [sizes[number] for number in axes]
    directions, origin = header.get("space directions"), header.get("space origin")
    space = str(header.get("space", "")).strip().lower()
    if directions is None or space not in _TO_LPS:
        reason = "no patient orientation in its NRRD header, so left and right are in doubt"
        raise cannot_read(path, reason, "Convert it again from DICOM, or save it with 3D Slicer")
    try:
        rows = np.array([directions[number] for number in axes], float)
        position = np.zeros(3) if origin is None else np.asarray(origin, float)
        signs = np.array(_TO_LPS[space], float)
        units = [str(unit).strip().lower() for unit in header.get("space units", [])] or [""] * 3
        scale = np.array([_TO_MM[unit] for unit in units])
        columns = rows.T * (signs * scale)[:, np.newaxis]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = columns, position * signs * scale
    except KeyError as cause:
        raise cannot_read(path, f"unknown unit {cause} in its NRRD header", "Correct its header") from cause
    except (ValueError, TypeError, IndexError) as cause:
        raise cannot_read(path, "damaged directions in its NRRD header", _EXPORT) from cause
    geometry.refuse_spacing(np.linalg.norm(columns, axis=0).tolist(), path)
    return geometry.grid_of_affine(affine, size)


def _array(stream: IO[bytes], header: Mapping[str, Any], sizes: list[int], kind: np.dtype, path: Path) -> np.ndarray:
    """Read the voxels; the slowest axis comes first in the array."""
    shape = tuple(sizes[::-1])
    encoding = str(header["encoding"]).lower()
    lines = int(header.get("lineskip", header.get("line skip", 0)))
    count = int(header.get("byteskip", header.get("byte skip", 0)))
    if lines < 0 or count < -1 or (count == -1 and encoding != "raw"):
        raise cannot_read(path, "impossible skips in its NRRD header", _EXPORT)
    for _ in range(min(lines, 1 << 16)):
        stream.readline(1 << 20)
    if encoding in _TEXT:
        size = compression.refuse_large(shape, kind, path)
        try:
            values = np.array(stream.read(64 * size).split(), kind)
        except (ValueError, OverflowError) as cause:
            raise cannot_read(path, "truncated or damaged", compression.COPY_AGAIN) from cause
        if values.size != np.prod(shape):
            raise cannot_read(path, "truncated or damaged", compression.COPY_AGAIN)
        return values.reshape(shape)
    if encoding not in _ENCODINGS:
        raise cannot_read(path, f"unknown NRRD encoding {encoding[:40]}", _EXPORT)
    if count == -1:
        stream.seek(-compression.refuse_large(shape, kind, path), 2)
    unpacked = compression.unpacking(stream, _ENCODINGS[encoding])
    compression.skip(unpacked, max(count, 0), path)
    array = compression.read_array(unpacked, shape, kind, path)
    return array.astype(kind.newbyteorder("="), copy=False)


def write(volume: Volume, temporary: Path, fields: Mapping[str, str] | None = None) -> None:
    """Write a volume, compressed, with ``fields`` as key/value pairs of the header.

    Raises:
        OSError: the disk is full, or the file cannot be written.

    """
    import nrrd

    grid = volume.grid
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "kinds": ["domain"] * 3,
        "space directions": grid.index_to_physical[:3, :3].T,
        "space origin": np.asarray(grid.origin),
        "encoding": "gzip",
        **(fields or {}),
    }
    if shutil.disk_usage(temporary.parent).free < volume.array.nbytes // 20 + 352:
        raise OSError(28, "No space left on device")
    # pynrrd makes the header, of one voxel: ISA-L compresses the voxels several times as fast.
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of datetime, within pynrrd
        nrrd.write(buffer, volume.array[:1, :1, :1], header, index_order="C")
    lines = buffer.getvalue().partition(b"\n\n")[0].splitlines()
    sizes = b"sizes: " + " ".join(map(str, grid.size)).encode()
    lines = [sizes if line.startswith(b"sizes:") else line for line in lines if not line.startswith(b"# on ")]
    with temporary.open("wb") as stream:
        stream.write(b"\n".join(lines) + b"\n\n")
        with compression.packing(stream) as packed:
            packed.write(np.ascontiguousarray(volume.array).data)
