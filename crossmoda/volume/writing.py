"""Writing images and label maps: NIfTI, NRRD and MetaImage, compressed, in one step."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import InputError
from crossmoda.output import atomic
from crossmoda.volume import metaimage, nifti, nrrd_file
from crossmoda.volume.grid import Volume

#: File name endings of the formats that :func:`write` writes.
WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")

#: Voxel types that image formats handle unevenly, and the types written in their place.
_NARROWER = {"bool": np.uint8, "int64": np.int32, "uint64": np.uint32, "float64": np.float32, "float16": np.float32}


def write(volume: Volume, path: Path | str) -> None:
    """Write an image or a label map; the ending of ``path`` selects the format.

    Booleans and 64-bit numbers become uint8, int32, uint32 and float32.

    Args:
        volume: the image or label map.
        path: a file name with one of the endings :data:`WRITABLE`.

    Raises:
        InputError: the ending is not one of :data:`WRITABLE`, or the file cannot be written.

    """
    path = Path(path)
    check_ending(path)
    array = volume.array
    array = array.astype(_NARROWER.get(array.dtype.name, array.dtype), copy=False)
    write_file(volume.with_array(array), path)


def check_ending(path: Path | str) -> None:
    """Raise :class:`InputError` if no format has the ending of a file name."""
    if not str(path).lower().endswith(WRITABLE):
        raise InputError(f"Unknown file name ending: {path}. Use {', '.join(WRITABLE)}.")


def write_file(volume: Volume, path: Path, fields: Mapping[str, str] | None = None) -> None:
    """Write a volume in one step, as its array is; ``fields`` go to the header of an NRRD file.

    Raises:
        InputError: the file cannot be written.

    """
    with atomic(path) as temporary:
        try:
            if nifti.is_nifti(path):
                nifti.write(volume, path, temporary)
            elif path.suffix.lower() == ".nrrd":
                nrrd_file.write(volume, temporary, fields)
            else:
                writer = sitk.ImageFileWriter()
                writer.SetImageIO(metaimage.FORMAT)
                writer.SetFileName(str(temporary))
                writer.UseCompressionOn()
                writer.Execute(volume.to_sitk())
        except (RuntimeError, ValueError) as cause:
            raise InputError(f"Cannot write {path}. Check disk space and write permission.") from cause
