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

#: How far slices may lie from an even stack: relative to their distance as in a series, and by the cosine of the angle.
_TOLERANCE = {"rtol": 0.1, "perpendicular_tol": 0.01}


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
        import highdicom  # noqa: F401
    except ImportError as cause:
        raise InputError('Reading a DICOM segmentation needs highdicom. Run: pip install "crossmoda[app]".') from cause
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation, has_gaps = _opened(path)
            shape = _shape(segmentation, has_gaps)
            if shape is None:
                raise cannot_read(path, "its slices are not evenly spaced", "Export it again")
            numbers = list(segmentation.segment_numbers)
            compression.refuse_large((*shape, len(numbers)), np.dtype(np.uint8), path)
            volume = segmentation.get_volume(
                allow_missing_positions=has_gaps,
                combine_segments=False,
                rescale_fractional=True,
                dtype=None,
                **_TOLERANCE,
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
    if np.linalg.det(affine[:3, :3]) < 0:  # slices follow each other along rows x columns, as those of a scan
        array = array[::-1]
        affine[:, 3] += (len(array) - 1) * affine[:, 2]
        affine[:, 2] *= -1
    grid = geometry.grid_of_affine(affine, array.shape[2::-1])
    return Volume(array.astype(np.uint8), grid), fields


def _opened(path: Path) -> tuple[Any, bool]:
    """Return a segmentation, and whether its stack has slices without a frame.

    The distance of slices that it states is taken unless their positions contradict it.
    """
    import highdicom
    import pydicom

    segmentation: Any = None
    for is_stated, has_gaps in ((True, True), (False, False), (False, True)):
        content = pydicom.dcmread(path)
        for measures in content.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence", []):
            if "SpacingBetweenSlices" in measures and (not is_stated or not measures.SpacingBetweenSlices):
                del measures.SpacingBetweenSlices
        segmentation = highdicom.seg.Segmentation.from_dataset(content, copy=False)
        if _shape(segmentation, has_gaps) is not None:
            break
    return segmentation, has_gaps


def _shape(segmentation: Any, has_gaps: bool) -> tuple[int, ...] | None:
    """Return the shape of the stack, (z, y, x); None for slices that are not evenly spaced."""
    geometry_found = segmentation.get_volume_geometry(allow_missing_positions=has_gaps, **_TOLERANCE)
    return None if geometry_found is None else tuple(geometry_found.spatial_shape)


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
