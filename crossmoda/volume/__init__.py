"""Volumes in physical space: reading and writing files, resampling.

Read: NIfTI, NRRD (``.seg.nrrd`` too), MetaImage and DICOM series. Written: NIfTI, NRRD and ``.seg.nrrd``.
The orientation in the file is kept as it is: nothing is flipped, reordered or rounded.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import InputError
from crossmoda.output import atomic, refuse_undecodable
from crossmoda.volume import dicom, metaimage, nifti
from crossmoda.volume.geometry import Grid, Volume
from crossmoda.volume.resampling import filled_up, resample
from crossmoda.volume.segmentation_file import label_map_of_segments, segments_of, write_segmentation

__all__ = ["Grid", "Volume", "read", "read_label_map", "resample", "write", "write_segmentation"]

#: The file name endings that :func:`write` knows.
WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")

#: What is smaller or larger than this along its longest axis has its spacing in another unit.
_LEAST_MM, _MOST_MM = 0.1, 3000.0

_FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha, .mhd) or a folder with one DICOM series"


def read(path: Path | str) -> Volume:
    """Read a 3D image as float32.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, or one file of a DICOM series
            (which chooses that series when a folder has several).

    Raises:
        InputError: the file is missing, truncated or no image; the image is not 3D, has several components, holds
            values that are not finite, or its spacing or directions are unusable.

    """
    path = Path(path)
    image = _load(path)
    stored = sitk.GetArrayViewFromImage(image)
    with np.errstate(over="ignore"):  # what is larger than float32 can hold is not finite, which is told below
        array = stored.astype(np.float32)
    if stored.dtype.kind == "f":
        nifti.refuse_not_finite(array.size - int(np.count_nonzero(np.isfinite(array))), path)
    return Volume(array, Grid.of(image))


def read_label_map(path: Path | str, grid: Grid | None = None) -> Volume:
    """Read a label map as uint8.

    The segments of a ``.seg.nrrd`` become the values of :data:`crossmoda.labels.STRUCTURES` by their terminology or
    name; if no segment is known by either, they keep the label values they have in the file.

    Args:
        path: a NIfTI, NRRD, MetaImage or ``.seg.nrrd`` file.
        grid: the grid of the image to which the label map belongs. A label map on a part of that grid (Slicer saves
            segmentations cropped) is filled up with background; any other comes back on its own grid.

    Raises:
        InputError: as :func:`read`; also values that are no whole numbers from 0 to 255.

    """
    path = Path(path)
    image = _load(path, components=True)
    segments = segments_of(image)
    if segments:
        label_map = label_map_of_segments(image, segments)
        return label_map if grid is None else filled_up(label_map, grid)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} components per voxel; give a label map with one."
        )
    array = sitk.GetArrayFromImage(image)
    if array.dtype != np.uint8:
        _check_label_values(array, path)
        array = array.astype(np.uint8)
    label_map = Volume(array, Grid.of(image))
    return label_map if grid is None else filled_up(label_map, grid)


def write(volume: Volume, path: Path | str) -> None:
    """Write an image or a label map, compressed, in one step; the ending of ``path`` chooses the format.

    Booleans and 64-bit numbers, which image formats handle unevenly, become uint8, int32 and float32.

    Raises:
        InputError: the ending is not one of :data:`WRITABLE`, or the file cannot be written.

    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE):
        raise InputError(f"{path} does not end in {', '.join(WRITABLE)}; choose one of these formats.")
    narrower = {"bool": np.uint8, "int64": np.int32, "uint64": np.uint32, "float64": np.float32, "float16": np.float32}
    array = volume.array.astype(narrower.get(volume.array.dtype.name, volume.array.dtype), copy=False)
    with atomic(path) as temporary:
        try:
            if nifti.is_nifti(path):
                nifti.write(volume.with_array(array).to_sitk(), temporary)
            else:
                sitk.WriteImage(volume.with_array(array).to_sitk(), str(temporary), useCompression=True)
        except RuntimeError as cause:
            raise InputError(f"Cannot write {path}; is the disk full or the folder write-protected?") from cause


# ITK's switch for warnings is one for the whole process: the lock keeps threads from leaving it off.
_warnings_lock = threading.RLock()


@contextlib.contextmanager
def _quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings from the terminal: what matters of them becomes an :class:`InputError`."""
    with _warnings_lock:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _load(path: Path, components: bool = False) -> sitk.Image:
    """Read a 3D image of any voxel type whose geometry is sound; several components only with ``components``."""
    refuse_undecodable(path)
    try:
        there = path.exists()
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise InputError(f"{path} cannot be read: {reason.lower()}; check the path.") from cause
    if not there:
        raise InputError(f"{path} does not exist; check the path.")
    with _quiet_itk():
        is_series = path.is_dir() or dicom.is_dicom(path)
        image = dicom.read_series(path) if is_series else _load_file(path)
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        size = " x ".join(map(str, image.GetSize()))
        raise InputError(f"{path} is not a 3D image (its size is {size}); give one 3D scan.")
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} has complex numbers; give a gray-value image, such as their magnitude.")
    if image.GetNumberOfComponentsPerPixel() > 1 and not components:
        count = image.GetNumberOfComponentsPerPixel()
        raise InputError(f"{path} has {count} components per voxel (a color or vector image); give a gray-value image.")
    _check_geometry(Grid.of(image), path)
    return image


def _load_file(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty; copy or download the file again.")
        if metaimage.is_metaimage(path):
            metaimage.check(path)
        voxels = nifti.check(path) if nifti.is_nifti(path) else None
        reader.ReadImageInformation()
        if reader.GetDimension() != 3:
            size = " x ".join(map(str, reader.GetSize()))
            raise InputError(
                f"{path} is not a 3D image but has {reader.GetDimension()} dimensions ({size}); give one 3D scan."
            )
        if voxels is None or reader.GetNumberOfComponents() > 1 or voxels.size != math.prod(reader.GetSize()):
            return reader.Execute()
        image = sitk.GetImageFromArray(voxels.reshape(reader.GetSize()[::-1]))
        image.SetSpacing(reader.GetSpacing())
        image.SetOrigin(reader.GetOrigin())
        image.SetDirection(reader.GetDirection())
        return image
    except PermissionError as cause:
        raise InputError(f"{path} cannot be read: permission denied; ask for the right to read it.") from cause
    except RuntimeError as cause:
        if "Unable to determine ImageIO reader" in str(cause):
            raise InputError(f"{path} is not an image that can be read; give {_FORMATS}.") from cause
        if "spacing from" in str(cause) or "spacing is not" in str(cause):
            raise InputError(
                f"{path} has a voxel spacing of 0; every spacing must be positive: correct its header."
            ) from cause
        if "determinant is 0" in str(cause):
            raise InputError(
                f"{path} has axis directions that do not span space; correct the directions in its header."
            ) from cause
        reason = str(cause).strip().splitlines()[-1].strip().rstrip(".")
        raise InputError(
            f"{path} cannot be read ({reason}); it may be truncated or damaged: copy or download it again."
        ) from cause


def _check_geometry(grid: Grid, path: Path) -> None:
    numbers = (*grid.spacing, *grid.origin, *grid.direction)
    if not np.all(np.isfinite(numbers)):
        raise InputError(
            f"{path} has a position, spacing or direction that is not a finite number; correct its header."
        )
    if min(grid.spacing) <= 0:
        spacing = " x ".join(f"{value:g}" for value in grid.spacing)
        raise InputError(
            f"{path} has a voxel spacing of {spacing} mm; every spacing must be positive: correct its header."
        )
    lengths = [count * step for count, step in zip(grid.size, grid.spacing, strict=True)]
    if not _LEAST_MM <= max(lengths) <= _MOST_MM:
        size = " x ".join(f"{length:g}" for length in lengths)
        raise InputError(
            f"{path} is {size} mm in size; its spacing may be in another unit: correct the spacing in its header."
        )
    axes = np.reshape(grid.direction, (3, 3))
    nifti.refuse_sheared(axes, path)
    if np.abs(np.linalg.norm(axes, axis=0) - 1).max() > nifti.SHEAR_TOLERANCE:
        raise InputError(
            f"{path} has axis directions that are not of length 1, so that its spacing is in doubt; correct its header."
        )


def _check_label_values(array: np.ndarray, path: Path) -> None:
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(array) & (array == np.round(array))
    if not whole.all():
        example = array[~whole].flat[0]
        raise InputError(
            f"{path} is not a label map: {np.count_nonzero(~whole)} voxels are no whole number (such as {example:g}); "
            "give a label map, or an image as an image."
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise InputError(f"{path} is not a label map: its values go from {low:g} to {high:g}, not within 0 to 255.")
