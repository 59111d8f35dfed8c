"""DICOM segmentations (SEG) as label maps, read with highdicom."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda.errors import InputError, cannot_read
from crossmoda.volume import compression, dicom, geometry
from crossmoda.volume.grid import Volume


def file_in(path: Path) -> Path | None:
    """Return the DICOM segmentation that a path is, or the only one in a folder; None for anything else."""
    files = sorted(file for file in path.iterdir() if dicom.is_dicom(file)) if path.is_dir() else [path]
    segmentations = [file for file in files[:20] if dicom.storage_class(file) in dicom.DRAWN[1:]]
    return segmentations[0] if len(segmentations) == 1 else None


def read(path: Path) -> tuple[Volume, Mapping[str, str]]:
    """Read a DICOM segmentation: one layer per segment, and the segments as fields of a ``.seg.nrrd``.

    Raises:
        InputError: highdicom is missing, or the file is damaged or no regular stack of slices.

    """
    try:
        import highdicom
    except ImportError as cause:
        raise InputError('Reading a DICOM segmentation needs highdicom. Run: pip install "crossmoda[app]".') from cause
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation = highdicom.seg.segread(path)
            place: Any = segmentation.get_volume_geometry(allow_missing_positions=True)
            shape = tuple(place.spatial_shape)
            numbers = list(segmentation.segment_numbers)
            compression.refuse_large((*shape, len(numbers)), np.dtype(np.uint8), path)
            volume = segmentation.get_volume(
                allow_missing_positions=True, combine_segments=False, rescale_fractional=True, dtype=None
            )
            fields: dict[str, str] = {}
            for layer, number in enumerate(numbers):
                fields |= _fields(segmentation.get_segment_description(number), layer)
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as cause:  # damaged bytes end highdicom with errors of many kinds
        raise cannot_read(path, "damaged or irregular DICOM segmentation", "Export it again") from cause
    array = np.asarray(volume.array)
    if array.dtype.kind == "f":
        array = array >= 0.5
    # highdicom's index order is that of the array, (z, y, x), and its positions are LPS.
    affine = np.array(volume.affine, float)
    affine[:, :3] = affine[:, 2::-1]
    grid = geometry.grid_of_affine(affine, array.shape[2::-1])
    return Volume(array.astype(np.uint8), grid), fields


def _fields(segment: Any, layer: int) -> dict[str, str]:
    """Return the fields of a segment as in the header of a ``.seg.nrrd``."""
    codes = [
        f"{code.scheme_designator}^{code.value}^{code.meaning}"
        for code in (segment.segmented_property_category, segment.segmented_property_type)
    ]
    name = re.sub(r"\s+", " ", str(segment.segment_label)).strip()
    terminology = "~".join(["", *codes, "^^", "", "^^", "^^"])
    return {
        f"Segment{layer}_ID": f"Segment_{layer + 1}",
        f"Segment{layer}_Name": name,
        f"Segment{layer}_LabelValue": "1",
        f"Segment{layer}_Layer": str(layer),
        f"Segment{layer}_Tags": f"TerminologyEntry:{terminology}|",
    }
