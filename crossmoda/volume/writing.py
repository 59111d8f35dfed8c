"""Writing images and label maps: NIfTI, NRRD and MetaImage, compressed, in one step."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import InputError
from crossmoda.output import atomic
from crossmoda.volume import nifti
from crossmoda.volume.grid import Volume

#: File name endings of the formats that :func:`write` writes.
WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")

#: Voxel types that image formats handle unevenly, and the types written in their place.
_NARROWER = {"bool": np.uint8, "int64": np.int32, "uint64": np.uint32, "float64": np.float32, "float16": np.float32}


def write(volume: Volume, path: Path | str) -> None:
    """Write an image or a label map; the ending of ``path`` selects the format.

    Booleans and 64-bit numbers become uint8, int32, uint32 and float32.

    Raises:
        InputError: the ending is not one of :data:`WRITABLE`, or the file cannot be written.

    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE):
        raise InputError(f"Unknown file name ending: {path}. Use {', '.join(WRITABLE)}.")
    array = volume.array.astype(_NARROWER.get(volume.array.dtype.name, volume.array.dtype), copy=False)
    write_image(volume.with_array(array).to_sitk(), path)


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image of SimpleITK, compressed, in one step.

    Raises:
        InputError: the file cannot be written.

    """
    with atomic(path) as temporary:
        try:
            if nifti.is_nifti(path):
                nifti.write(image, temporary)
            else:
                sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as cause:
            raise InputError(f"Cannot write {path}. Check disk space and write permission.") from cause
