"""The slices of one multi-frame DICOM file (Enhanced MR): where each lies, in which order, and how it is scaled."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import cannot_read
from crossmoda.volume.dicom_geometry import Stack, numbers, stack_of, unusable

#: Attributes of each slice of a file, and of all slices.
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


@dataclasses.dataclass(frozen=True)
class Frames:
    """The slices of a file."""

    stack: Stack
    spacing: np.ndarray
    """of rows and of columns, mm"""
    scales: np.ndarray
    """slope and intercept of each slice, (n, 2)"""


def frames_of(file: Path) -> Frames:
    """Return the slices of a multi-frame file.

    Raises:
        InputError: a slice does not state where it lies, or the slices form no stack.

    """
    rows = _rows(file)
    if not rows or any(value is None for row in rows for value in row) or min(float(row[2].min()) for row in rows) <= 0:
        raise cannot_read(
            file, "missing position, orientation or pixel spacing of some slices", "Export it again as a 3D series"
        )
    orientations, positions, spacings, scales = (np.array(values) for values in zip(*rows, strict=True))
    if (
        np.abs(orientations - orientations[0]).max() > 1e-3
        or np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].min()
    ):
        reason = "slices of different orientation or pixel spacing (a localizer?)"
        raise unusable(file, reason, "Select a series of parallel slices")
    names = [f"slice {number}" for number in range(1, len(rows) + 1)]
    return Frames(stack_of(orientations, positions, names, file), spacings[0], scales)


def placed(image: sitk.Image, frames: Frames) -> sitk.Image:
    """Return the image of a multi-frame file, as ITK reads it, with its slices in their order and on their grid."""
    array = sitk.GetArrayFromImage(image)
    if len(np.unique(frames.scales, axis=0)) > 1:  # ITK scales every slice as the first one
        slope, intercept = frames.scales[0]
        stored = np.rint((array - intercept) / slope)
        array = (stored * frames.scales[:, :1, None] + frames.scales[:, 1:, None]).astype(np.float32)
    result = sitk.GetImageFromArray(array[frames.stack.order])
    result.SetOrigin(frames.stack.origin)
    result.SetSpacing((*frames.spacing[::-1].tolist(), frames.stack.distance_mm))
    result.SetDirection(frames.stack.direction)
    return result


def _rows(file: Path) -> list[tuple[Any, ...]]:
    """Return orientation, position, pixel spacing and scale of each slice, None where one is not stated.

    The list is empty where not every slice, and two at least, is described.
    """
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that violate the standard: the relevant ones are checked
            header = pydicom.dcmread(file, specific_tags=[*_GROUPS, "NumberOfFrames"], force=True)
            each, shared = (header.get(name) or [] for name in _GROUPS)
            frames = [(frame, *shared) for frame in each]
            if len(frames) != header.get("NumberOfFrames") or len(frames) < 2:
                return []
            return [
                (
                    numbers(_item(frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
                    numbers(_item(frame, "PlanePositionSequence"), "ImagePositionPatient", 3),
                    numbers(_item(frame, "PixelMeasuresSequence"), "PixelSpacing", 2),
                    _scale(_item(frame, "PixelValueTransformationSequence")),
                )
                for frame in frames
            ]
    except Exception:  # damaged bytes end pydicom with errors of many kinds
        return []


def _item(frame: tuple[Any, ...], group: str) -> Any:
    """Return the attributes of a group of a slice, else of all slices; empty where neither states it."""
    return next((items[0] for part in frame if (items := part.get(group))), {})


def _scale(item: Any) -> np.ndarray | None:
    """Return slope and intercept; 1 and 0 where they are not stated, None where they are not usable."""
    slope, intercept = (item.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
    scale = np.array([1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)])
    return scale if np.isfinite(scale).all() and scale[0] != 0 else None
