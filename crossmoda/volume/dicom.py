"""DICOM series: the series of a folder, and the image of a series."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import cannot_read, reason_of
from crossmoda.output import refuse_undecodable
from crossmoda.volume import dicom_frames
from crossmoda.volume.dicom_geometry import Stack, numbers, stack_of, unusable

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
    "ImageType",
    "SequenceName",
    "PulseSequenceName",
    "ProtocolName",
    "ScanOptions",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "SliceThickness",
    "ContrastBolusAgent",
)
#: What an image must state to belong to a series.
_IDENTITY = ("SeriesInstanceUID", "Rows", "Columns")
#: The transfer syntaxes whose pixel data has the size of the image.
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
#: What GDCM decodes: these, RLE, JPEG (8 and 12 bits, lossless), JPEG-LS and JPEG 2000.
_READABLE = (
    *_UNCOMPRESSED,
    *(f"1.2.840.10008.1.2.{last}" for last in ("1.99", "5", *(f"4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)))),
)
#: Attributes that all slices of a series share.
_SLICE_KIND = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")
#: The groups with which files without a preamble begin, file information or identification, and the maximum length of
#: their first element.
_FIRST_GROUPS, _FIRST_LENGTH = (b"\2\0", b"\x08\0"), 1024
#: The groups of the pixel data, and of the padding that may follow it.
_PIXELS, _PADDING = 0x7FE0, 0xFFFC
#: The kinds of objects that are drawn on an image series: contours, segmentations.
STRUCTURE_SET, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4"
DRAWN = (STRUCTURE_SET, SEGMENTATION, "1.2.840.10008.5.1.4.1.1.66.7")
_GDCM = "GDCMImageIO"


@dataclasses.dataclass
class Series:
    """The files of one DICOM series, in no order."""

    uid: str
    description: str
    modality: str
    patient: str
    files: list[Path]
    headers: list[Any]
    """of all files, or of the first one (:func:`list_series`)"""


def is_dicom(path: Path) -> bool:
    """Return whether a file is in DICOM format: by its mark at byte 128, or by the first element of old files.

    Raises:
        InputError: the file cannot be read.

    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
            return start[128:] == b"DICM" or _begins_with_an_element(start)
    except OSError as cause:
        raise cannot_read(path, reason_of(cause), "Ask for the right to read it") from cause


def _begins_with_an_element(start: bytes) -> bool:
    """Return whether a file begins with a DICOM element: group, number, then type and length, or length alone."""
    has_type = start[4:6].isalpha() and start[4:6].isupper()
    return start[:2] in _FIRST_GROUPS and (has_type or int.from_bytes(start[4:8], "little") <= _FIRST_LENGTH)


def storage_class(file: Path) -> str | None:
    """Return the UID of the kind of object in a DICOM file; None if it cannot be parsed."""
    import pydicom

    # The file's own header is enough in most files, and is read ten times as fast. Damaged bytes end pydicom with
    # errors of many kinds; a file without a preamble has the class in its elements.
    with contextlib.suppress(Exception):
        uid = pydicom.filereader.read_file_meta_info(file).get("MediaStorageSOPClassUID")
        if uid:
            return str(uid)
    header = _header(file, ("SOPClassUID",))
    return None if header is None else str(header.get("SOPClassUID", ""))


def is_structure_set(path: Path) -> bool:
    """Return whether a file is a DICOM RTSTRUCT."""
    return is_dicom(path) and storage_class(path) == STRUCTURE_SET


def find_series(folder: Path) -> list[Series]:
    """Return the image series of a folder; what was drawn on one, and files without an image, are ignored."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".") and is_dicom(file)]
    return [series for series in _series_of(files) if _storage_class(series.headers[0]) not in DRAWN]


def list_series(files: list[Path]) -> list[Series]:
    """Return the image series of DICOM files, each with the header of its first file only that can be parsed.

    The SeriesInstanceUID of every file decides to which series it belongs: names mix the series of a study.
    """
    by_uid: dict[str, list[Path]] = {}
    for file in files:
        header = _header(file, _IDENTITY)
        if _is_image(header):
            by_uid.setdefault(str(header.SeriesInstanceUID), []).append(file)
    # The files of a folder may be thousands: the three elements take two thirds of the time of all.
    firsts = (next((one for file in members for one in _series_of([file])), None) for members in by_uid.values())
    return [dataclasses.replace(first, files=by_uid[first.uid]) for first in firsts if first is not None]


def _header(file: Path, tags: tuple[str, ...]) -> Any:
    """Return the named elements of a file's header; None if they cannot be parsed."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that violate the standard: the relevant ones are checked
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags), force=True)
            for _ in (*header.file_meta, *header.iterall()):  # a value is parsed at its first access
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
    return header is not None and all(header.get(name) is not None for name in _IDENTITY)


def series_of_drawing(path: Path) -> str | None:
    """Return the UID of the image series on which an RTSTRUCT or a segmentation was drawn; None if it states none."""
    header = _header(path, ("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence"))
    if header is None:
        return None
    try:
        if header.get("ReferencedSeriesSequence"):
            return str(header.ReferencedSeriesSequence[0].SeriesInstanceUID)
        frame = header.ReferencedFrameOfReferenceSequence[0]
        return str(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def series_at(path: Path) -> Series:
    """Return the only series of a folder, or the series to which a file belongs.

    Raises:
        InputError: there is no series, or more than one.

    """
    folder = path if path.is_dir() else path.parent
    all_series = [series for series in find_series(folder) if path.is_dir() or path in series.files]
    if not all_series:
        remedy = "Select the folder of the slices, or copy them again if they are damaged"
        raise cannot_read(path, "no DICOM image series", remedy)
    if len(all_series) > 1:
        names = (f"{item.uid} ({item.description or item.modality}, {len(item.files)} files)" for item in all_series)
        reason = f"{len(all_series)} DICOM series: {'; '.join(names)}"
        raise cannot_read(folder, reason, "Move one series to a folder of its own or select one of its files")
    return all_series[0]


def files_in_order(path: Path) -> list[Path]:
    """Return the files of the series that :func:`read_series` reads, in the order of its slices.

    A file of several slices is alone: :func:`crossmoda.volume.dicom_frames.frames_of` has their order.

    Raises:
        InputError: as :func:`read_series`.

    """
    series = series_at(path)
    if len(series.files) == 1:
        return series.files
    return _stack(series, path if path.is_dir() else path.parent)[0]


def read_series(path: Path) -> sitk.Image:
    """Read the only series of a folder, or the series to which a file belongs.

    Raises:
        InputError: there is no series or more than one, slices are missing or do not form one stack, or the pixel data
            cannot be read.

    """
    folder = path if path.is_dir() else path.parent
    series = series_at(path)
    for file in series.files:
        refuse_undecodable(file)
    for file, reason in _damaged(series, folder):
        remedy = "Copy or export the series again, or remove the file if it does not belong to it"
        raise cannot_read(file, reason, remedy)
    multi_frame = [
        file for file, header in zip(series.files, series.headers, strict=True) if _count(header, "NumberOfFrames") > 1
    ]
    if len(series.files) == 1:
        frames = dicom_frames.frames_of(multi_frame[0]) if multi_frame else None
        image = _execute(sitk.ImageFileReader(), series.files)
        return dicom_frames.placed(image, frames) if frames else image
    if multi_frame:
        raise unusable(
            folder,
            f"several files with several slices each, such as {multi_frame[0].name}",
            "Move one of them to a folder of its own, or export the series again as one volume",
        )
    files, stack = _stack(series, folder)
    reader = sitk.ImageSeriesReader()
    if len({(str(item.get("RescaleSlope")), str(item.get("RescaleIntercept"))) for item in series.headers}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)  # else all would be rounded to the type of the first slice
    image = _execute(reader, files)
    image.SetOrigin(stack.origin)
    image.SetSpacing((*image.GetSpacing()[:2], stack.distance_mm))
    image.SetDirection(stack.direction)
    return image


def _execute(reader: Any, files: list[Path]) -> sitk.Image:
    """Read files with a reader of SimpleITK; an error names the damaged file."""
    names = [str(file) for file in files]
    reader.SetImageIO(_GDCM)  # asking ITK for the format would open HDF5 files, which is not safe with threads
    try:
        reader.SetFileName(names[0]) if len(names) == 1 else reader.SetFileNames(names)
        return reader.Execute()
    except RuntimeError as cause:
        faulty = next((file for file in files if len(files) == 1 or not _can_be_read(file)), None)
        syntax = _transfer_syntax(faulty) if faulty is not None else None
        if syntax is not None and syntax not in _READABLE:
            remedy = "Export it uncompressed, or as RLE, JPEG-LS or JPEG 2000"
            raise cannot_read(faulty, f"compressed as {syntax.name}, which is not supported", remedy) from cause
        detail = reason_of(cause) if faulty is None else "its pixel data"
        reason = f"truncated, damaged or compressed in an unsupported way ({detail})"
        raise cannot_read(
            faulty or files[0].parent, reason, "Copy it again, or export the series uncompressed"
        ) from cause


def _transfer_syntax(file: Path) -> Any:
    """Return the UID of the coding of a file's pixel data; None where it is not stated."""
    header = _header(file, ())
    return None if header is None else header.file_meta.get("TransferSyntaxUID")


def _can_be_read(file: Path) -> bool:
    try:
        sitk.ReadImage(str(file), imageIO=_GDCM)
    except RuntimeError:
        return False
    return True


def _damaged(series: Series, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the incomplete files that seem to be slices of a series, and the reason of each.

    A series without its last slice would look complete.
    """
    endings = {_ending(file) for file in series.files}
    classes = {_storage_class(header) for header in series.headers}
    slices = set(series.files)
    for file in sorted(folder.iterdir()):
        if file in slices or file.name.startswith(".") or not file.is_file():
            continue
        if is_dicom(file):
            header = _header(file, _TAGS)
            if header is None or (not _is_image(header) and _storage_class(header) in (None, *classes)):
                yield file, "damaged DICOM file"
        elif _ending(file) in endings and (file.suffix or file.stat().st_size == 0):
            yield file, "the file is empty" if file.stat().st_size == 0 else "not a DICOM file, unlike its series"
    for file, header in zip(series.files, series.headers, strict=True):
        if not _has_pixels(file):
            yield file, "its pixel data is missing or damaged"
            continue
        if header.file_meta.get("TransferSyntaxUID") in _UNCOMPRESSED:
            sizes = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
            if file.stat().st_size < math.prod(_count(header, name) for name in sizes) // 8:
                yield file, "the file is shorter than its image"


def _has_pixels(file: Path) -> bool:
    """Return whether the elements of a file lead to its pixel data; where they do not, GDCM may never come back."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            elements = pydicom.dcmread(file, defer_size=1024, force=True)
        groups = [tag.group for tag in elements.keys()]  # noqa: SIM118 (tags, in the order of the file)
        behind = groups[groups.index(_PIXELS) :] if _PIXELS in groups else []
        return "PixelData" in elements and max(groups) <= _PADDING and min(behind) >= _PIXELS
    except Exception:  # damaged bytes end pydicom with errors of many kinds
        return False


def _ending(file: Path) -> str:
    """Return the ending of a file's name; the last number of a UID counts as one ending."""
    return "number" if file.suffix[1:].isdigit() else file.suffix.lower()


def _storage_class(header: Any) -> str | None:
    """Return the kind of object stated at the beginning of a file."""
    return header.file_meta.get("MediaStorageSOPClassUID")


def _count(header: Any, name: str) -> int:
    """Return the positive integer of an element; 1 where it is missing."""
    value = header.get(name)
    return int(value) if isinstance(value, int) and value > 0 else 1


def _stack(series: Series, folder: Path) -> tuple[list[Path], Stack]:
    """Sort the slices along their normal; return the files and the stack."""
    known = []
    for file, header in zip(series.files, series.headers, strict=True):
        orientation = numbers(header, "ImageOrientationPatient", 6)
        position, spacing = numbers(header, "ImagePositionPatient", 3), numbers(header, "PixelSpacing", 2)
        if orientation is None or position is None or spacing is None or spacing.min() <= 0:
            raise unusable(folder, f"slices without position, orientation or pixel spacing, such as {file.name}")
        known.append((orientation, position, spacing))
    orientations, positions, spacings = (np.array(values) for values in zip(*known, strict=True))
    if len({str(header.get("PatientID")) for header in series.headers}) > 1:
        raise unusable(folder, "slices of several patients", "Leave the slices of one patient in the folder")
    if (
        np.abs(orientations - orientations[0]).max() > 1e-3
        or np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].min()
        or len({tuple(str(header.get(name)) for name in _SLICE_KIND) for header in series.headers}) > 1
    ):
        reason = "slices of different orientation, size or kind (a localizer?)"
        raise unusable(folder, reason, "Select a series of parallel slices")
    stack = stack_of(orientations, positions, [file.name for file in series.files], folder)
    return [series.files[number] for number in stack.order], stack
