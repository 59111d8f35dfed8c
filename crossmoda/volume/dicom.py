"""DICOM series: which series a folder holds, and one of them as an image."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
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
    "PixelSpacing",
    "BitsAllocated",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
)
#: The transfer syntaxes in which an image takes the bytes that its size says.
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
#: Where a file of several slices says what all of them share, and what each has of its own.
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


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
    """Whether a file is in DICOM format (by its mark at byte 128).

    Raises:
        InputError: the file may not be read.

    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise InputError(f"{path} cannot be read: {reason}; ask for the right to read it.") from cause


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


def _header(file: Path, tags: tuple[str, ...]) -> Any:
    """Return the named elements of a file's header; None if they cannot be parsed."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break the standard: those that matter are checked
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
            for _ in (*header.file_meta, *header.iterall()):  # a value is parsed when it is looked at first
                pass
            return header
    except Exception:  # damaged bytes end pydicom with errors of many kinds
        return None


def _series_of(files: list[Path]) -> list[Series]:
    series: dict[str, Series] = {}
    for file in files:
        header = _header(file, _TAGS)
        if not _is_image(header):
            continue
        uid = str(header.SeriesInstanceUID)
        if uid not in series:
            text = {name: str(header.get(name, "") or "") for name in ("SeriesDescription", "Modality", "PatientID")}
            series[uid] = Series(uid, text["SeriesDescription"], text["Modality"], text["PatientID"], [], [])
        series[uid].files.append(file)
        series[uid].headers.append(header)
    return list(series.values())


def _is_image(header: Any) -> bool:
    return header is not None and all(header.get(name) is not None for name in ("Rows", "Columns", "SeriesInstanceUID"))


def series_of_structures(path: Path) -> str | None:
    """Return the UID of the image series on which an RTSTRUCT was drawn; None for any other DICOM file."""
    header = _header(path, ("Modality", "ReferencedFrameOfReferenceSequence"))
    if header is None or header.get("Modality") != "RTSTRUCT":
        return None
    try:
        frame = header.ReferencedFrameOfReferenceSequence[0]
        return str(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID)
    except (AttributeError, IndexError, KeyError, TypeError):
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
        raise InputError(
            f"{path} holds no DICOM image series that can be read; give the folder that has the slices in it, or copy "
            "it again if they are damaged."
        )
    if len(found) > 1:
        listed = "; ".join(f"{one.uid} ({one.description or one.modality}, {len(one.files)} files)" for one in found)
        raise InputError(
            f"{folder} holds {len(found)} DICOM series: {listed}; "
            "put one series in a folder of its own or give one of its files."
        )
    (series,) = found
    for file in series.files:
        refuse_undecodable(file)
    for file, why in _damaged(series, folder):
        raise InputError(f"{file} {why}; copy or export the series again, or remove the file if it is none of it.")
    several = [
        file for file, one in zip(series.files, series.headers, strict=True) if _whole(one, "NumberOfFrames") > 1
    ]
    if len(series.files) == 1:
        positions = _positions_of_frames(several[0], series.headers[0]) if several else None
        image = _execute(sitk.ImageFileReader(), series.files)
        if positions is not None:
            _check_positions(positions, image, several[0])
        return image
    if several:
        raise InputError(
            f"The DICOM series in {folder} has several files with several slices each, such as {several[0].name}; "
            "put one of them in a folder of its own, or export the series again as one volume."
        )
    files, origin, spacing_z, direction = _stack(series, folder)
    reader = sitk.ImageSeriesReader()
    if len({(str(one.get("RescaleSlope")), str(one.get("RescaleIntercept"))) for one in series.headers}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)  # else all would be rounded to the type of the first slice
    image = _execute(reader, files)
    image.SetOrigin(origin)
    image.SetSpacing((*image.GetSpacing()[:2], spacing_z))
    image.SetDirection(direction)
    return image


def _execute(reader: Any, files: list[Path]) -> sitk.Image:
    """Read files with a reader of SimpleITK; what goes wrong names the file."""
    names = [str(file) for file in files]
    try:
        reader.SetFileName(names[0]) if len(names) == 1 else reader.SetFileNames(names)
        return reader.Execute()
    except RuntimeError as cause:
        faulty = next((file for file in files if len(files) == 1 or not _can_be_read(file)), None)
        reason = str(cause).strip().splitlines()[-1].strip().rstrip(".") if faulty is None else "its pixel data"
        raise InputError(
            f"{faulty or files[0].parent} cannot be read ({reason}): it may be truncated or damaged, or compressed in "
            "a way that is not known here; copy it again, or export the series uncompressed."
        ) from cause


def _can_be_read(file: Path) -> bool:
    try:
        sitk.ReadImage(str(file))
    except RuntimeError:
        return False
    return True


def _damaged(series: Series, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that seem to be slices of a series but are not complete, and what is wrong with each.

    They are looked for here, since a series of which the last slice is passed over looks complete.
    """
    endings = {_ending(file) for file in series.files}
    classes = {_storage_class(header) for header in series.headers}
    for file in sorted(folder.iterdir()):
        if file in series.files or file.name.startswith(".") or not file.is_file():
            continue
        if is_dicom(file):
            header = _header(file, _TAGS)
            if header is None or (not _is_image(header) and _storage_class(header) in (None, *classes)):
                yield file, "is a damaged DICOM file"
        elif _ending(file) in endings and (file.suffix or file.stat().st_size == 0):
            yield file, "is empty" if file.stat().st_size == 0 else "is not a DICOM file as those beside it are"
    for file, header in zip(series.files, series.headers, strict=True):
        if header.file_meta.get("TransferSyntaxUID") in _UNCOMPRESSED:
            sizes = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
            if file.stat().st_size < math.prod(_whole(header, name) for name in sizes) // 8:
                yield file, "is shorter than its image"


def _ending(file: Path) -> str:
    """Return the ending of a file's name; the last number of a UID counts as one ending."""
    return "number" if file.suffix[1:].isdigit() else file.suffix.lower()


def _storage_class(header: Any) -> str | None:
    """Return what kind of object a file says that it holds, at its very beginning."""
    return header.file_meta.get("MediaStorageSOPClassUID")


def _whole(header: Any, name: str) -> int:
    """Return the whole number of an element; 1 where there is none."""
    value = header.get(name)
    return int(value) if isinstance(value, int) and value > 0 else 1


def _numbers(header: Any, name: str, count: int) -> np.ndarray | None:
    """Return the numbers of an element; None unless there are ``count`` and all are finite."""
    try:
        values = np.array(header.get(name), dtype=float)
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def _positions_of_frames(file: Path, about: Any) -> np.ndarray:
    """Return where the slices of one file lie; refuse a file that does not say it: ITK would make it up (1 mm)."""
    header = _header(file, _FUNCTIONAL_GROUPS)
    shared, each = ([] if header is None else header.get(name) or [] for name in _FUNCTIONAL_GROUPS)

    def known(group: str, name: str, count: int) -> list[np.ndarray]:
        items = [item for frame in (*shared, *each) for item in frame.get(group) or []]
        found = [_numbers(item, name, count) for item in items]
        return [values for values in found if values is not None]

    spacings = known("PixelMeasuresSequence", "PixelSpacing", 2)
    positions = np.array(known("PlanePositionSequence", "ImagePositionPatient", 3))
    orientations = known("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if (
        not spacings
        or min(map(min, spacings)) <= 0
        or not orientations
        or len(positions) != _whole(about, "NumberOfFrames")
    ):
        raise InputError(
            f"{file} does not say the position, orientation and pixel spacing of all its slices; export the series "
            "again as a 3D series."
        )
    return positions


def _check_positions(positions: np.ndarray, image: sitk.Image, file: Path) -> None:
    """Refuse slices that do not lie where those of the image do."""
    expected = [image.TransformIndexToPhysicalPoint((0, 0, number)) for number in range(len(positions))]
    if np.abs(positions - expected).max() > 0.1 * image.GetSpacing()[2] + 0.05:
        raise InputError(
            f"{file} has slices that are not evenly spaced, or not in order; export the series again as one volume."
        )


def _stack(series: Series, folder: Path) -> tuple[list[Path], tuple[float, ...], float, tuple[float, ...]]:
    """Sort the slices along their normal; return files, origin, slice spacing and direction of the stack."""
    known = []
    for file, header in zip(series.files, series.headers, strict=True):
        orientation = _numbers(header, "ImageOrientationPatient", 6)
        position, spacing = _numbers(header, "ImagePositionPatient", 3), _numbers(header, "PixelSpacing", 2)
        if orientation is None or position is None or spacing is None or spacing.min() <= 0:
            raise InputError(
                f"The DICOM series in {folder} has slices without position, orientation or pixel spacing, such as "
                f"{file.name}; export it again as a 3D series."
            )
        known.append((orientation, position, spacing))
    orientations, positions, spacings = (np.array(one) for one in zip(*known, strict=True))
    kinds = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")
    if (
        np.abs(orientations - orientations[0]).max() > 1e-3
        or np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].min()
        or len({tuple(str(one.get(kind)) for kind in kinds) for one in series.headers}) > 1
    ):
        raise InputError(
            f"The DICOM series in {folder} mixes slices of different orientation, size or kind "
            "(a localizer?); give a series of parallel slices."
        )
    rows, columns = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(rows, columns)
    if max(abs(np.linalg.norm(rows) - 1), abs(np.linalg.norm(columns) - 1)) > 1e-2 or np.linalg.norm(normal) < 0.1:
        raise InputError(
            f"The DICOM series in {folder} has slices whose rows and columns have no two directions of length 1; "
            "export it again as a 3D series."
        )
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    steps = np.diff(depth[order])
    step = float(np.median(steps))
    if steps.min() < 1e-3:
        first = int(np.argmin(steps))
        one, other = (series.files[order[number]].name for number in (first, first + 1))
        raise InputError(
            f"The DICOM series in {folder} has several slices at one position, such as {one} and {other} "
            "(copies, or a 4D series?); leave one volume in the folder."
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
