"""DICOM series: which series a folder holds, and one of them as an image."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import InputError
from crossmoda.output import refuse_undecodable

_TAGS = (
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "PatientID",
    "StudyInstanceUID",
    "SOPInstanceUID",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
)


@dataclasses.dataclass
class Series:
    """The files of one DICOM series, in no order."""

    uid: str
    description: str
    modality: str
    patient: str
    files: list[Path]
    headers: list[Any]


def is_dicom(path: Path) -> bool:
    """Whether a file is in DICOM format (by its mark at byte 128)."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def find_series(folder: Path) -> list[Series]:
    """Return the image series in a folder; files that hold no image (RTSTRUCT, DICOMDIR, notes) are passed over."""
    return _series_of([file for file in sorted(folder.iterdir()) if is_dicom(file)])


def glance(files: list[Path]) -> list[Series]:
    """Return the image series of the DICOM files of one folder, reading as few headers as possible.

    A folder whose first and last image belong to one series is taken for that series.
    """
    ends = _series_of([files[0], files[-1]])
    if len(ends) == 1 and len(ends[0].files) == 2:
        return [dataclasses.replace(ends[0], files=files)]
    return _series_of(files)


def _series_of(files: list[Path]) -> list[Series]:
    import pydicom

    series: dict[str, Series] = {}
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError):
            continue
        if "Rows" not in header or "SeriesInstanceUID" not in header:
            continue
        uid = str(header.SeriesInstanceUID)
        if uid not in series:
            text = {name: str(header.get(name, "") or "") for name in ("SeriesDescription", "Modality", "PatientID")}
            series[uid] = Series(uid, text["SeriesDescription"], text["Modality"], text["PatientID"], [], [])
        series[uid].files.append(file)
        series[uid].headers.append(header)
    return list(series.values())


def series_of_structures(path: Path) -> str | None:
    """Return the UID of the image series on which an RTSTRUCT was drawn; None for any other DICOM file."""
    import pydicom

    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Modality", "ReferencedFrameOfReferenceSequence"]
        )
        if header.get("Modality") != "RTSTRUCT":
            return None
        frame = header.ReferencedFrameOfReferenceSequence[0]
        return str(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID)
    except (pydicom.errors.InvalidDicomError, AttributeError, IndexError, KeyError, OSError, ValueError):
        return None


def read_series(path: Path) -> sitk.Image:
    """Read the only series of a folder, or the series to which a file belongs.

    Raises:
        InputError: there is no series or more than one, slices are missing or do not lie on one stack, or the pixel
            data cannot be read.

    """
    folder = path if path.is_dir() else path.parent
    found = find_series(folder)
    if path.is_file():
        found = [series for series in found if path in series.files]
    if not found:
        raise InputError(f"{path} holds no DICOM image series; give the folder that has the slices in it.")
    if len(found) > 1:
        listed = "; ".join(f"{one.uid} ({one.description or one.modality}, {len(one.files)} files)" for one in found)
        raise InputError(
            f"{folder} holds {len(found)} DICOM series: {listed}; "
            "put one series in a folder of its own or give one of its files."
        )
    (series,) = found
    for file in series.files:
        refuse_undecodable(file)
    try:
        if len(series.files) == 1:
            return sitk.ReadImage(str(series.files[0]))
        files, origin, spacing_z, direction = _stack(series, folder)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(file) for file in files])
        image = reader.Execute()
    except RuntimeError as cause:
        reason = str(cause).strip().splitlines()[-1].strip().rstrip(".")
        raise InputError(f"The DICOM series in {folder} cannot be read ({reason}); export it again.") from cause
    image.SetOrigin(origin)
    image.SetSpacing((*image.GetSpacing()[:2], spacing_z))
    image.SetDirection(direction)
    return image


def _stack(series: Series, folder: Path) -> tuple[list[Path], tuple[float, ...], float, tuple[float, ...]]:
    """Sort the slices along their normal; return files, origin, slice spacing and direction of the stack."""
    if any("ImagePositionPatient" not in one or "ImageOrientationPatient" not in one for one in series.headers):
        raise InputError(
            f"The DICOM series in {folder} has slices without position or orientation; export it again as a 3D series."
        )
    orientations = np.array([one.ImageOrientationPatient for one in series.headers], dtype=float)
    if (
        np.abs(orientations - orientations[0]).max() > 1e-3
        or len({(one.Rows, one.Columns) for one in series.headers}) > 1
    ):
        raise InputError(
            f"The DICOM series in {folder} mixes slices of different orientation or size "
            "(a localizer?); give a series of parallel slices."
        )
    rows, columns = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(rows, columns)
    positions = np.array([one.ImagePositionPatient for one in series.headers], dtype=float)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    steps = np.diff(depth[order])
    step = float(np.median(steps))
    if step < 1e-3:
        raise InputError(
            f"The DICOM series in {folder} has several slices at one position (a 4D series?); export one volume."
        )
    if np.abs(steps - step).max() > 0.05 * step:
        gap = int(np.argmax(np.abs(steps - step)))
        raise InputError(
            f"The DICOM series in {folder} is not evenly spaced: {steps[gap]:.2f} mm after slice {gap + 1}, "
            f"{step:.2f} mm elsewhere; slices may be missing: download it again."
        )
    step = float((depth[order[-1]] - depth[order[0]]) / (len(order) - 1))
    expected = positions[order[0]] + np.outer(np.arange(len(order)) * step, normal)
    if np.abs(positions[order] - expected).max() > 0.1 * step + 0.05:
        raise InputError(
            f"The DICOM series in {folder} has slices that are shifted against each other; "
            "resample it on a rectangular grid."
        )
    direction = np.stack([rows, columns, normal], axis=1)
    return (
        [series.files[i] for i in order],
        tuple(positions[order[0]].tolist()),
        step,
        tuple(direction.ravel().tolist()),
    )
