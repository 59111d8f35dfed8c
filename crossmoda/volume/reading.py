"""Reading images and label maps: NIfTI, NRRD (``.seg.nrrd`` too), MetaImage, DICOM series and DICOM segmentations.

The orientation in the file stays: nothing is flipped, reordered or rounded. The content decides about the format, not
the name.
"""

import contextlib
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import cannot_read, reason_of
from crossmoda.output import refuse_undecodable
from crossmoda.volume import compression, dicom, dicom_segmentation, geometry, metaimage, nifti, nrrd_file
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.nifti import refuse_not_finite
from crossmoda.volume.segmentation_file import label_map_of_segments, segments_of

_FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha, .mhd) or a folder with one DICOM series"
#: Air has so many Hounsfield units or less; no MR scan has such values, whether as acquired or normalized.
AIR_IN_CT = -900
#: The fraction of voxels of air from which on an image is a CT.
_LEAST_AIR = 0.01
#: Slices with at most this fraction of the voxels of the fullest one are almost empty.
_ALMOST_EMPTY = 0.02


def read(path: Path | str) -> Volume:
    """Read a 3D image or map as float32.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, or one file of a DICOM series
            (which selects that series where a folder has several).

    Raises:
        InputError: the file is missing, truncated or not an image; the image is not 3D, has several components or
            values that are not finite, or its spacing or directions are unusable or contradictory.

    """
    return _as_float32(_load_gray(Path(path)), Path(path))


def read_scan(path: Path | str) -> Volume:
    """Read an MR scan as float32.

    Raises:
        InputError: as :func:`read`; also if it has no geometry, is a CT, or slices inside of it are empty.

    """
    scan, _ = read_typed_scan(path)
    return scan


def read_typed_scan(path: Path | str, keep_small: bool = False) -> tuple[Volume, np.dtype]:
    """Read an MR scan as :func:`read_scan`; return it and the type of its voxels in the file.

    With ``keep_small``, integers of up to 16 bits stay as they are: half of the memory, and the same values.
    """
    image = _load_gray(Path(path))
    is_small = image.array.dtype.kind in "iu" and image.array.dtype.itemsize <= 2
    scan = image if keep_small and is_small else _as_float32(image, Path(path))
    _refuse_missing_geometry(scan.grid, Path(path))
    refuse_ct(scan.array, Path(path))
    _refuse_empty_slices(scan.array, Path(path))
    return scan, image.array.dtype


def _load_gray(path: Path) -> Volume:
    image, _ = _load(path)
    _refuse_components(image, path, "Select a gray-value image, not a color or vector image")
    return image


def _as_float32(image: Volume, path: Path) -> Volume:
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, which is refused below
        array = image.array.astype(np.float32, copy=image.array.dtype != np.float32)
    refuse_not_finite(array, path)
    return Volume(array, image.grid)


def read_label_map(path: Path | str, grid: Grid | None = None) -> Volume:
    """Read a label map as uint8.

    The segments of a ``.seg.nrrd`` or a DICOM segmentation become the values of :data:`crossmoda.labels.STRUCTURES` by
    their terminology or name (:mod:`crossmoda.structure_names`).

    Args:
        path: a NIfTI, NRRD, MetaImage, ``.seg.nrrd`` or DICOM SEG file.
        grid: the grid of the image to which the label map belongs. A label map on a part of that grid (Slicer saves
            segmentations cropped), or with its axes in another order or direction, is brought to it; any other comes
            back on its own grid.

    Raises:
        InputError: as :func:`read`; also values that are not integers from 0 to 255, and segments with voxels whose
            structure is not known.

    """
    path = Path(path)
    image, fields = _load(path, is_label_map=True)
    segments = segments_of(fields, path)
    if segments:
        label_map = label_map_of_segments(image, segments, path)
    else:
        _refuse_components(image, path, "Select a label map with one component per voxel")
        array = image.array
        if array.dtype != np.uint8:
            _check_label_values(array, path)
            array = np.rint(array).astype(np.uint8) if array.dtype.kind == "f" else array.astype(np.uint8)
        label_map = Volume(array, image.grid)
    if grid is not None:
        if segments and not label_map.array.any():  # Slicer saves an empty segmentation as one voxel
            return Volume(np.zeros(grid.shape, np.uint8), grid)
        return label_map.pasted_on(grid)
    if min(label_map.grid.size) < 2 and not segments:
        raise cannot_read(path, f"not a 3D image but {_size(label_map)} voxels", "Select one 3D label map")
    return label_map


def read_mask(path: Path | str) -> Volume:
    """Read a mask as uint8 (0 or 1): the voxels of any value or segment, whatever their names.

    Raises:
        InputError: as :func:`read_label_map`.

    """
    image, _ = _load(Path(path), is_label_map=True)
    array = image.array != 0
    return Volume((array.any(axis=3) if array.ndim > 3 else array).astype(np.uint8), image.grid)


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


def _load(path: Path, is_label_map: bool = False) -> tuple[Volume, Mapping[str, str]]:
    """Read a 3D image of any voxel type whose geometry is sound, and the further fields of its header.

    Several components per voxel are the last axis of the array.
    """
    refuse_undecodable(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as cause:
        raise cannot_read(path, "the file does not exist", "Check the path") from cause
    except (OSError, ValueError) as cause:
        raise cannot_read(path, reason_of(cause), "Check the path") from cause
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise cannot_read(path, "neither a file nor a folder", "Copy the data into a file")
    fields: Mapping[str, str] = {}
    try:
        if path.is_dir() or dicom.is_dicom(path):
            segmentation = dicom_segmentation.file_in(path) if is_label_map else None
            if segmentation is not None:
                image, fields = dicom_segmentation.read(segmentation)
            else:
                with _quiet_itk():
                    series = dicom.read_series(path)
                image = Volume(sitk.GetArrayFromImage(series), Grid.of(series))
        else:
            image, fields = _load_file(path)
    except PermissionError as cause:
        raise cannot_read(path, "permission denied", "Ask for the right to read it") from cause
    except (OSError, OverflowError, ValueError) as cause:  # a name with a null byte, a number that none is
        raise cannot_read(path, reason_of(cause), compression.COPY_AGAIN) from cause
    except MemoryError as cause:
        raise cannot_read(path, "not enough memory for its voxels", "Crop or resample it") from cause
    if min(image.grid.size) < 2 and not is_label_map:
        raise cannot_read(path, f"not a 3D image but {_size(image)} voxels", "Select one 3D scan")
    geometry.check(image.grid, path)
    return image, fields


def _size(image: Volume) -> str:
    return " x ".join(map(str, image.grid.size))


def _refuse_components(image: Volume, path: Path, remedy: str) -> None:
    if image.array.ndim > 3:
        raise cannot_read(path, f"{image.array.shape[3]} components per voxel", remedy)


def _load_file(path: Path) -> tuple[Volume, Mapping[str, str]]:
    """Read a file in the format of its first bytes."""
    if path.stat().st_size == 0:
        raise cannot_read(path, "the file is empty", compression.COPY_AGAIN)
    with path.open("rb") as stream:
        start = stream.read(4096)
    if start[:4] == b"NRRD":
        content = nrrd_file.read(path)
        return Volume(content.array, content.grid), content.fields
    if b"NDims" in start or path.name.lower().endswith((".mha", ".mhd")):
        with _quiet_itk():
            return metaimage.read(path), {}
    if nifti.is_nifti(path) or start[344:347] == b"n+1" or start[4:7] == b"n+2" or start[:2] == b"\x1f\x8b":
        return nifti.read(path), {}
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        raise cannot_read(path, "not an NRRD image, in spite of its name", compression.COPY_AGAIN)
    raise cannot_read(path, "not an image of a known format", f"Select {_FORMATS}")


def _refuse_missing_geometry(grid: Grid, path: Path) -> None:
    """Raise :class:`InputError` for the grid that files without a header get: voxels of 1 mm at the origin."""
    is_plain = grid.direction == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    if is_plain and set(grid.spacing) == {1.0} and set(grid.origin) == {0.0}:
        reason = "no geometry (voxels of 1 mm at the origin), so size, left and right are in doubt"
        raise cannot_read(path, reason, "Select the original DICOM or NIfTI file")


def is_ct(array: np.ndarray) -> bool:
    """Return whether an image (z, y, x) has the Hounsfield units of air, in a sample of its voxels."""
    sample = array[tuple(slice(None, None, max(size // 24, 1)) for size in array.shape)]
    return bool((sample <= AIR_IN_CT).mean() > _LEAST_AIR)


def refuse_ct(array: np.ndarray, path: Path) -> None:
    """Raise :class:`InputError` if an image is a CT."""
    if is_ct(array):
        raise cannot_read(path, f"it looks like a CT (air has {AIR_IN_CT} or less)", "Select an MR scan")


def _refuse_empty_slices(array: np.ndarray, path: Path) -> None:
    """Raise :class:`InputError` if slices between others have only zeros: they were lost on a way.

    Beside almost empty ones, at the border of a background of zeros, empty slices are no loss.
    """
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(array.any(axis=others))
        if used.size and used[-1] - used[0] + 1 > used.size:
            filled = np.count_nonzero(array, axis=others)
            used = used[filled[used] > _ALMOST_EMPTY * filled.max()]
            used = np.array([index for index in range(used[0], used[-1] + 1) if filled[index]])
        lost = 0 if used.size == 0 else int(used[-1] - used[0] + 1 - used.size)
        if lost:
            number = int(used[np.flatnonzero(np.diff(used) > 1)[0]]) + 2
            reason = f"{lost} empty slices between others (the first is number {number} along axis {'zyx'[axis]})"
            raise cannot_read(path, reason, "Copy or export it again")


def _check_label_values(array: np.ndarray, path: Path) -> None:
    with np.errstate(invalid="ignore"):
        is_integer = np.isfinite(array) & (np.abs(array - np.round(array)) < 1e-3) if array.dtype.kind == "f" else None
    if is_integer is not None and not is_integer.all():
        count, example = np.count_nonzero(~is_integer), array[~is_integer].flat[0]
        raise cannot_read(
            path, f"not a label map, since {count} voxels are not integers (such as {example:g})", "Select a label map"
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        reason = f"not a label map, since its values range from {low:g} to {high:g}"
        raise cannot_read(path, reason, "Select a label map with values from 0 to 255")
