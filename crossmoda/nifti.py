"""What ITK does not say about a NIfTI file: whether it is complete and its spacing usable.

ITK reads a truncated NIfTI file without complaint (the missing voxels become 0) and replaces a spacing of 0 by 1 mm;
it refuses axes that are not perpendicular without naming a remedy.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from crossmoda.errors import InputError

#: The largest sine of the angle between two axes that still counts as rounding (ITK's own limit lies near it).
SHEAR_TOLERANCE = 1e-3


def is_nifti(path: Path) -> bool:
    """Whether the file's name says NIfTI (one file: .nii, .nii.gz)."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check(path: Path) -> None:
    """Raise :class:`InputError` for a NIfTI file that is truncated or whose header cannot be used."""
    opener = gzip.open if path.open("rb").read(2) == b"\x1f\x8b" else open
    try:
        with opener(path, "rb") as stream:
            expected = _check_header(stream.read(540), path)
            available = 540
            while available < expected and (chunk := stream.read(1 << 22)):
                available += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise InputError(f"{path} is truncated or damaged; copy or download it again.") from cause
    if available < expected:
        raise InputError(f"{path} is truncated: {available} of {expected} bytes are there; copy or download it again.")


def _check_header(header: bytes, path: Path) -> int:
    """Check a NIfTI-1 or -2 header and return how many bytes the file has to have."""
    for order in "<>":
        if header[:4] == struct.pack(order + "i", 348) and len(header) >= 348:
            dimensions = struct.unpack_from(order + "8h", header, 40)
            (bits,) = struct.unpack_from(order + "h", header, 72)
            spacing = struct.unpack_from(order + "8f", header, 76)
            (offset,) = struct.unpack_from(order + "f", header, 108)
            (sform_code,) = struct.unpack_from(order + "h", header, 254)
            sform = struct.unpack_from(order + "12f", header, 280)
            break
        if header[:4] == struct.pack(order + "i", 540) and len(header) >= 540:
            (bits,) = struct.unpack_from(order + "h", header, 14)
            dimensions = struct.unpack_from(order + "8q", header, 16)
            spacing = struct.unpack_from(order + "8d", header, 104)
            (offset,) = struct.unpack_from(order + "q", header, 168)
            (sform_code,) = struct.unpack_from(order + "i", header, 348)
            sform = struct.unpack_from(order + "12d", header, 400)
            break
    else:
        raise InputError(f"{path} is not a NIfTI image, whatever its name says; export it again.")
    rank = dimensions[0]
    if not 1 <= rank <= 7 or min(dimensions[1 : rank + 1]) < 1:
        raise InputError(
            f"{path} has a NIfTI header with impossible dimensions {dimensions[: max(rank, 0) + 1]}; export it again."
        )
    used = spacing[1 : min(rank, 3) + 1]
    if not all(math.isfinite(value) and value > 0 for value in used):
        raise InputError(
            f"{path} has a voxel spacing of {' x '.join(f'{value:g}' for value in used)} mm; "
            "every spacing must be positive: correct its header."
        )
    if sform_code > 0 and rank >= 3:
        _check_axes(np.reshape(sform, (3, 4))[:, :3], path)
    return int(offset) + math.prod(dimensions[1 : rank + 1]) * bits // 8


def _check_axes(sform: np.ndarray, path: Path) -> None:
    lengths = np.linalg.norm(sform, axis=0)
    if not np.all(np.isfinite(lengths)) or min(lengths) == 0:
        raise InputError(f"{path} has axis directions that do not span space; correct the sform in its header.")
    axes = sform / lengths
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > SHEAR_TOLERANCE:
        raise InputError(
            f"{path} has axes that are not perpendicular (by {math.degrees(math.asin(min(shear, 1.0))):.2f} degrees); "
            "resample it on a rectangular grid, for example with Slicer's Resample Scalar/Vector/DWI Volume."
        )
