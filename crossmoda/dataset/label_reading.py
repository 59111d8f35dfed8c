"""Labels of every kind as label maps with the values of :data:`crossmoda.labels.VALUES`, for every door alike."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmoda import labels, structure_names
from crossmoda.cache import digest
from crossmoda.dataset import contours
from crossmoda.errors import cannot_read
from crossmoda.provenance import checksum
from crossmoda.volume import Grid, Volume, dicom, read_label_map

#: The label values of crossMoDA 2023: 1 intrameatal, 2 extrameatal, 3 cochlea.
_PARTS = np.array([labels.BACKGROUND, labels.VS, labels.VS, labels.COCHLEA], np.uint8)
#: The name of the files of crossMoDA 2023, whose labels have the values above also where no cochlea is labeled.
_WITH_PARTS = "crossmoda2023"
#: Two cochleae have 0.1 to 0.25 ml; more at the value 2, adjoining the tumor, is the extrameatal part of it.
_LARGEST_COCHLEAE_MM3 = 600.0


def has_contours(path: Path) -> bool:
    """Return whether a label is drawn as contours, which need the grid of their image."""
    return path.suffix.lower() == ".json" or dicom.is_structure_set(path)


def checksum_of(path: Path | str) -> str:
    """Return the checksum of a label and of the mapping of its names: a label read anew would be the same.

    Raises:
        InputError: the label cannot be read.

    """
    mapping = structure_names.mapping_for(path)
    return checksum(path) + ("" if not mapping else digest(mapping))


def read_label(path: Path | str, grid: Grid | None = None) -> Volume:
    """Read a label: a label map, a segmentation (``.seg.nrrd``, DICOM SEG), a contour JSON or an RTSTRUCT.

    Args:
        path: the label.
        grid: the grid of its image, to which a cropped or turned label map is brought; contours need it.

    Returns:
        The label map (uint8, 1 VS, 2 cochlea); the parts of crossMoDA 2023 are joined.

    Raises:
        InputError: the label cannot be read, or has names or values that are not known.

    """
    return read_label_and_parts(path, grid)[0]


def read_label_and_parts(path: Path | str, grid: Grid | None = None) -> tuple[Volume, np.ndarray | None]:
    """Read a label as :func:`read_label`, and the parts of the tumor where it states them.

    Returns:
        The label map, and an array (z, y, x) of 1 intrameatal and 2 extrameatal; None where all of it is one part.

    """
    path = Path(path)
    if has_contours(path):
        if grid is None:
            raise cannot_read(path, "contours need the image on which they were drawn", "Select a label map")
        return contours.rasterize(contours.read_contours(path), grid, path), None
    label_map = read_label_map(path, grid)
    array, parts = _mapped(label_map.array, path), None
    is_mapped = array is not label_map.array
    if not is_mapped and _has_parts(label_map.with_array(array), path):
        array, parts = _PARTS[array], np.where(array < 3, array, 0).astype(np.uint8)
    labels.check_values(array, path.name)
    return label_map.with_array(array), parts


def read_values(path: Path | str, grid: Grid | None = None) -> Volume:
    """Read a label map of any organs: the values that a mapping names (``255=VS``) are replaced, all others kept.

    Raises:
        InputError: the label map cannot be read.

    """
    label_map = read_label_map(path, grid)
    return label_map.with_array(_mapped(label_map.array, Path(path)))


def may_have_structures(label_map: np.ndarray) -> bool:
    """Return whether no value is beyond those that :func:`read_label` reads: 0 to 3 (crossMoDA 2023)."""
    return int(label_map.max(initial=0)) < len(_PARTS)


def _mapped(array: np.ndarray, path: Path) -> np.ndarray:
    """Return the array with the values that a mapping names (``255=VS``) replaced; the same array without any."""
    values = structure_names.mapped_values(structure_names.mapping_for(path))
    if not values or not set(labels.values_in(array)) & set(values):
        return array
    table = np.arange(256, dtype=np.uint8)
    table[list(values)] = list(values.values())
    mapped: np.ndarray = table[array]
    return mapped


def _has_parts(label_map: Volume, path: Path) -> bool:
    """Return whether a label map has the values of crossMoDA 2023 (1 intrameatal, 2 extrameatal, 3 cochlea).

    Raises:
        InputError: the value 2 seems to be a part of the tumor, but nothing says so.

    """
    array = label_map.array
    highest = int(array.max(initial=0))
    if highest == 3 or (highest == 2 and path.name.lower().startswith(_WITH_PARTS)):
        return True
    if highest != 2:
        return False
    second = array == labels.COCHLEA
    volume_mm3 = float(np.count_nonzero(second)) * label_map.grid.voxel_volume_mm3
    if volume_mm3 > _LARGEST_COCHLEAE_MM3 and (ndimage.binary_dilation(second) & (array == labels.VS)).any():
        reason = f"{volume_mm3:.0f} mm3 at the value 2, which adjoin the tumor: too large for a cochlea"
        remedy = "Use 1 for all parts of the tumor and 2 for the cochlea, or map the values: --structure 2=VS"
        raise cannot_read(path, reason, remedy)
    return False
