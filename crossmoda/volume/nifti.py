"""NIfTI-1 and NIfTI-2 files, read and written with nibabel.

A header states the position of the voxels up to three times: as spacing (``pixdim``), as rotation (``qform``) and as
matrix (``sform``). Readers choose differently among them, so contradictions are refused. As in ITK and Slicer, the
sform decides where it describes the scanner (code 1) or is alone, else the qform.
"""

import contextlib
import logging
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from crossmoda.errors import cannot_read
from crossmoda.volume import compression, geometry
from crossmoda.volume.grid import CORNERS, Grid, Volume

_EXPORT = "Export it again"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: The most bytes before the first voxel, for the header's extensions.
_MOST_BEFORE = 1 << 28
#: Relative difference of spacings, and distance in voxels, within which two statements of a header agree.
_SAME_SPACING, _SAME_PLACE = 0.01, 0.5
_SCANNER = 1
_TO_MM = {"meter": 1000.0, "micron": 0.001}


def is_nifti(path: Path) -> bool:
    """Return whether the file name is that of a NIfTI file (.nii, .nii.gz)."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep nibabel's remarks about headers from the terminal."""
    from nibabel import imageglobals

    with imageglobals.LoggingOutputSuppressor(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imageglobals.logger.setLevel(logging.CRITICAL)
        yield


def read(path: Path) -> Volume:
    """Read a 3D image of any real voxel type, unscaled where the file has no scale.

    Raises:
        InputError: the file is truncated, damaged or not a 3D image, has values that are not finite, or its header
            contradicts itself.

    """
    with compression.opened(path) as stream:
        header = _header(stream, path)
        size, kind = _checked_size(header, path)
        offset = float(header["vox_offset"])
        if not 0 <= offset <= _MOST_BEFORE:
            raise cannot_read(path, f"impossible offset of its voxels in its NIfTI header ({offset:g})", _EXPORT)
        grid = _grid(header, size, path)
        # The voxels never begin within the header, as ITK reads it.
        compression.skip(stream, max(int(offset) - header.template_dtype.itemsize, 0), path)
        array = compression.read_array(stream, size[::-1], kind, path)
    array = array.astype(kind.newbyteorder("="), copy=False)
    refuse_not_finite(array, path)
    return Volume(_scaled(array, header, path), grid)


def check_complete(path: Path) -> None:
    """Raise :class:`InputError` if a file, of any dimensions, has fewer voxels than its header states."""
    with compression.opened(path) as stream:
        header = _header(stream, path)
        count = math.prod(int(value) for value in header["dim"][1 : int(header["dim"][0]) + 1])
        size = count * np.dtype(header.get_data_dtype()).itemsize
        compression.skip(stream, int(header["vox_offset"]) - header.template_dtype.itemsize + size, path)


def _header(stream: IO[bytes], path: Path) -> Any:
    """Read the header of a NIfTI-1 or NIfTI-2 file; without its mark, ITK would read the file as Analyze."""
    from nibabel import Nifti1Header, Nifti2Header

    try:
        start = stream.read(348)
        if start[344:347] == b"n+1":
            kind: Any = Nifti1Header
        elif start[4:7] == b"n+2":
            kind, start = Nifti2Header, start + stream.read(540 - 348)
        else:
            raise cannot_read(path, "not a NIfTI image, in spite of its name", _EXPORT)
        return kind(start, check=False)
    except compression.DAMAGED as cause:
        raise cannot_read(path, "truncated or damaged", compression.COPY_AGAIN) from cause
    except Exception as cause:
        if type(cause).__module__.startswith("nibabel"):
            raise cannot_read(path, "damaged NIfTI header", _EXPORT) from cause
        raise


def _checked_size(header: Any, path: Path) -> tuple[tuple[int, int, int], np.dtype]:
    """Return the size (x, y, z) and the type of the voxels."""
    dimensions = [int(value) for value in header["dim"]]
    rank = dimensions[0]
    if not 1 <= rank <= 7 or min(dimensions[1 : rank + 1]) < 1:
        raise cannot_read(path, "impossible dimensions in its NIfTI header", _EXPORT)
    size = dimensions[1 : rank + 1]
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    if len(size) != 3:
        text = " x ".join(map(str, size))
        raise cannot_read(path, f"not a 3D image but {len(size)} dimensions ({text})", "Select one 3D scan")
    from nibabel.spatialimages import HeaderDataError

    try:
        kind = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError) as cause:
        raise cannot_read(path, f"unknown NIfTI voxel type {int(header['datatype'])}", _EXPORT) from cause
    if kind.fields:
        remedy = "Select a gray-value image, not a color or vector image"
        raise cannot_read(path, f"{len(kind.fields)} components per voxel", remedy)
    if kind.kind == "c":
        raise cannot_read(path, "complex numbers", "Select a gray-value image, such as their magnitude")
    if kind.kind not in "iuf":
        raise cannot_read(path, f"voxels of the type {kind.name}", _EXPORT)
    return (size[0], size[1], size[2]), kind


def _grid(header: Any, size: tuple[int, int, int], path: Path) -> Grid:
    """Return the grid that the header states; refuse statements that contradict each other."""
    with _quiet():
        unit = _TO_MM.get(_unit(header), 1.0)
    pixdim = np.asarray(header["pixdim"][1:4], float)
    geometry.refuse_spacing((pixdim * unit).tolist(), path)
    forms = {"sform": _sform(header, path), "qform": _qform(header, path)}
    known = {name: affine for name, affine in forms.items() if affine is not None}
    if not known:
        raise cannot_read(
            path,
            "no orientation in its NIfTI header (qform and sform codes are 0), so left and right are in doubt",
            "Convert it again from DICOM, for example with dcm2niix",
        )
    if len(known) == 2:
        _refuse_contradiction(known["sform"], known["qform"], header, size, path)
    is_scanner = int(header["sform_code"]) == _SCANNER
    name = "sform" if "sform" in known and (is_scanner or "qform" not in known) else "qform"
    if name == "sform" and "qform" in known and geometry.shear_of(known["sform"][:3, :3]) > geometry.SHEAR_TOLERANCE:
        name = "qform"
    affine = known[name]
    geometry.refuse_sheared(affine[:3, :3], path)
    if name == "sform":
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if np.abs(lengths / pixdim - 1).max() > _SAME_SPACING:
            texts = [" x ".join(f"{value:.4g}" for value in values * unit) for values in (pixdim, lengths)]
            reason = f"two voxel spacings in its NIfTI header: {texts[0]} mm (pixdim) and {texts[1]} mm (sform)"
            raise cannot_read(path, reason, "Correct the header, or convert it again from DICOM")
    affine[:3] *= unit
    # In single precision, as a header stores it: a result beside the scan then has its grid to the bit.
    affine = affine.astype(np.float32).astype(float)
    return geometry.grid_of_affine(_LPS_TO_RAS @ affine, size)


def _unit(header: Any) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except (KeyError, ValueError):
        return "unknown"


def _sform(header: Any, path: Path) -> np.ndarray | None:
    if int(header["sform_code"]) <= 0:
        return None
    affine = np.asarray(header.get_sform(), float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise cannot_read(path, "axis directions do not span space", "Correct the directions in its header")
    return affine


def _qform(header: Any, path: Path) -> np.ndarray | None:
    if int(header["qform_code"]) <= 0:
        return None
    header["pixdim"][0] = -1.0 if header["pixdim"][0] < 0 else 1.0
    try:
        with _quiet():
            affine = np.asarray(header.get_qform(), float)
    except Exception as cause:  # a quaternion that is none
        raise cannot_read(path, "impossible rotation in its NIfTI header (qform)", "Correct its header") from cause
    if not np.isfinite(affine).all():
        raise cannot_read(path, "impossible rotation in its NIfTI header (qform)", "Correct its header")
    return affine


def _refuse_contradiction(
    sform: np.ndarray, qform: np.ndarray, header: Any, size: tuple[int, int, int], path: Path
) -> None:
    """Raise :class:`InputError` if sform and qform mirror the scan, or place the same scanner's voxels differently."""
    first, second = sform[:3, :3], qform[:3, :3]
    is_mirrored = np.linalg.det(first) * np.linalg.det(second) < 0
    corners = CORNERS * (np.asarray(size) - 1)
    distances = np.linalg.norm((corners @ (first - second).T) + sform[:3, 3] - qform[:3, 3], axis=1)
    is_elsewhere = distances.max() > _SAME_PLACE * np.linalg.norm(second, axis=0).max()
    is_same_space = int(header["sform_code"]) == int(header["qform_code"])
    if is_mirrored:
        raise cannot_read(
            path,
            "sform and qform in its NIfTI header are mirrored, so left and right are in doubt",
            "Convert it again from DICOM, or correct the header",
        )
    if is_elsewhere and is_same_space and geometry.shear_of(first) <= geometry.SHEAR_TOLERANCE:
        raise cannot_read(
            path,
            f"sform and qform in its NIfTI header differ by up to {distances.max():.3g} mm",
            "Convert it again from DICOM, or correct the header",
        )


def _scaled(array: np.ndarray, header: Any, path: Path) -> np.ndarray:
    """Return the array with the scale of its header; what is not scaled keeps its type."""
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if not math.isfinite(slope) or slope == 0:
        return array
    intercept = intercept if math.isfinite(intercept) else 0.0
    if slope == 1 and intercept == 0:
        return array
    with np.errstate(over="ignore"):
        scaled = array.astype(np.float64) * slope + intercept
        scaled = scaled if np.array_equal(scaled, np.round(scaled)) else scaled.astype(np.float32)
    refuse_not_finite(scaled, path)
    return scaled


def refuse_not_finite(array: np.ndarray, path: Path) -> None:
    """Raise :class:`InputError` if an image has voxels that are not finite."""
    if array.dtype.kind != "f":
        return
    count = array.size - sum(int(np.count_nonzero(np.isfinite(part))) for part in array)
    if count:
        voxels = "1 voxel that is" if count == 1 else f"{count} voxels that are"
        raise cannot_read(path, f"{voxels} not a finite number (NaN or infinite)", "Replace them, for example by 0")


def write(volume: Volume, path: Path, temporary: Path) -> None:
    """Write a volume to ``temporary``; gzip if the name of ``path`` ends in ``.gz``, in any case.

    The sform holds the grid. A grid that was read from NIfTI is read back from it to the bit.

    Raises:
        OSError: the disk is full, or the file cannot be written.

    """
    from nibabel import Nifti1Header

    header = Nifti1Header()
    header.set_data_dtype(volume.array.dtype)
    header.set_data_shape(volume.grid.size)
    affine = _LPS_TO_RAS @ volume.grid.index_to_physical
    header.set_qform(affine, code=_SCANNER, strip_shears=True)
    header.set_sform(affine, code=_SCANNER)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    is_packed = path.suffix.lower() == ".gz"
    if shutil.disk_usage(temporary.parent).free < volume.array.nbytes // (20 if is_packed else 1) + 352:
        raise OSError(28, "No space left on device")
    voxels = np.ascontiguousarray(volume.array).data
    with temporary.open("wb") as stream:
        if is_packed:
            with compression.packing(stream) as packed:
                packed.write(header.binaryblock + b"\0" * 4)
                packed.write(voxels)
        else:
            stream.write(header.binaryblock + b"\0" * 4)
            stream.write(voxels)
