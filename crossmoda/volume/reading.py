"""Reading images and label maps: NIfTI, NRRD (``.seg.nrrd`` too), MetaImage and DICOM series.

The orientation in the file stays: nothing is flipped, reordered or rounded.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import cannot_read, reason_of
from crossmoda.output import refuse_undecodable
from crossmoda.volume import dicom, metaimage, nifti
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.itk_reader import reader_of
from crossmoda.volume.segmentation_file import label_map_of_segments, segments_of

#: A volume shorter or longer than this along its longest axis has its spacing in another unit, mm.
_SHORTEST_MM, _LONGEST_MM = 0.1, 3000.0

_FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha, .mhd) or a folder with one DICOM series"
#: Reasons in ITK's words: a text in ITK's message, the reason and the remedy in the user's words.
_ITK_REASONS = (
    ("Unable to determine ImageIO reader", "not an image of a known format", f"Select {_FORMATS}"),
    ("spacing from", "voxel spacing of 0", nifti.CORRECT_SPACING),
    ("spacing is not", "voxel spacing of 0", nifti.CORRECT_SPACING),
    ("determinant is 0", "axis directions do not span space", "Correct the directions in its header"),
)


def read(path: Path | str) -> Volume:
    """Read a 3D image as float32.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, or one file of a DICOM series
            (which selects that series where a folder has several).

    Raises:
        InputError: the file is missing, truncated or not an image; the image is not 3D, has several components or
            values that are not finite, or its spacing or directions are unusable.

    """
    path = Path(path)
    image = _load(path)
    stored = sitk.GetArrayViewFromImage(image)
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, which is refused below
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
        InputError: as :func:`read`; also values that are not integers from 0 to 255.

    """
    path = Path(path)
    image = _load(path, is_label_map=True)
    segments = segments_of(image)
    if segments:
        label_map = label_map_of_segments(image, segments)
    else:
        _refuse_components(image, path, "Select a label map with one component per voxel")
        array = sitk.GetArrayFromImage(image)
        if array.dtype != np.uint8:
            _check_label_values(array, path)
            array = array.astype(np.uint8)
        label_map = Volume(array, Grid.of(image))
    return label_map if grid is None else label_map.pasted_on(grid)


# ITK's switch for warnings is one for the whole process: the lock keeps threads from leaving it off.
_warnings_lock = threading.RLock()


@contextlib.contextmanager
def _quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings from the terminal: the serious ones become an :class:`InputError`."""
    with _warnings_lock:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _load(path: Path, is_label_map: bool = False) -> sitk.Image:
    """Read a 3D image of any voxel type whose geometry is sound; a label map may have several components."""
    refuse_undecodable(path)
    try:
        exists = path.exists()
    except (OSError, ValueError) as cause:
        raise cannot_read(path, reason_of(cause), "Check the path") from cause
    if not exists:
        raise cannot_read(path, "the file does not exist", "Check the path")
    with _quiet_itk():
        is_series = path.is_dir() or dicom.is_dicom(path)
        image = dicom.read_series(path) if is_series else _load_file(path)
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        raise cannot_read(path, f"not a 3D image but {_size(image)} voxels", "Select one 3D scan")
    if "complex" in image.GetPixelIDTypeAsString():
        raise cannot_read(path, "complex numbers", "Select a gray-value image, such as their magnitude")
    if not is_label_map:
        _refuse_components(image, path, "Select a gray-value image, not a color or vector image")
    _check_geometry(Grid.of(image), path)
    return image


def _size(image: sitk.Image | sitk.ImageFileReader) -> str:
    return " x ".join(map(str, image.GetSize()))


def _refuse_components(image: sitk.Image, path: Path, remedy: str) -> None:
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise cannot_read(path, f"{image.GetNumberOfComponentsPerPixel()} components per voxel", remedy)


def _load_file(path: Path) -> sitk.Image:
    try:
        if path.stat().st_size == 0:
            raise cannot_read(path, "the file is empty", "Copy or download it again")
        if metaimage.is_metaimage(path):
            metaimage.check(path)
        voxels = nifti.check(path) if nifti.is_nifti(path) else None
        reader = reader_of(path)
        reader.ReadImageInformation()
        if reader.GetDimension() != 3:
            reason = f"not a 3D image but {reader.GetDimension()} dimensions ({_size(reader)})"
            raise cannot_read(path, reason, "Select one 3D scan")
        if voxels is None or reader.GetNumberOfComponents() > 1 or voxels.size != math.prod(reader.GetSize()):
            return reader.Execute()
        return Volume(voxels.reshape(reader.GetSize()[::-1]), Grid.of(reader)).to_sitk()
    except PermissionError as cause:
        raise cannot_read(path, "permission denied", "Ask for the right to read it") from cause
    except RuntimeError as cause:
        for text, reason, remedy in _ITK_REASONS:
            if text in str(cause):
                raise cannot_read(path, reason, remedy) from cause
        reason = f"truncated or damaged ({reason_of(cause)})"
        raise cannot_read(path, reason, "Copy or download it again") from cause


def _check_geometry(grid: Grid, path: Path) -> None:
    if not np.all(np.isfinite((*grid.spacing, *grid.origin, *grid.direction))):
        raise cannot_read(path, "position, spacing or direction is not a finite number", "Correct its header")
    nifti.refuse_spacing(grid.spacing, path)
    lengths_mm = [count * step for count, step in zip(grid.size, grid.spacing, strict=True)]
    if not _SHORTEST_MM <= max(lengths_mm) <= _LONGEST_MM:
        size = " x ".join(f"{length:g}" for length in lengths_mm)
        raise cannot_read(path, f"{size} mm in size, an unlikely spacing", "Correct the spacing in its header to mm")
    nifti.refuse_sheared(grid.axes, path)
    if np.abs(np.linalg.norm(grid.axes, axis=0) - 1).max() > nifti.SHEAR_TOLERANCE:
        reason = "axis directions are not of length 1, which makes its spacing doubtful"
        raise cannot_read(path, reason, "Correct its header")


def _check_label_values(array: np.ndarray, path: Path) -> None:
    with np.errstate(invalid="ignore"):
        is_integer = np.isfinite(array) & (array == np.round(array))
    if not is_integer.all():
        count, example = np.count_nonzero(~is_integer), array[~is_integer].flat[0]
        raise cannot_read(
            path, f"not a label map, since {count} voxels are not integers (such as {example:g})", "Select a label map"
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        reason = f"not a label map, since its values range from {low:g} to {high:g}"
        raise cannot_read(path, reason, "Select a label map with values from 0 to 255")
