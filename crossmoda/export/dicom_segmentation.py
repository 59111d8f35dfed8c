"""A label map as a DICOM segmentation (SEG) that refers to the scan's series, written with highdicom."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import crossmoda
from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.errors import InputError, cannot_read
from crossmoda.output import atomic
from crossmoda.volume import Volume, dicom, dicom_frames

if TYPE_CHECKING:
    from crossmoda.anatomy.ear_frame import EarFrames

ENDING = ".dcm"
#: Attributes that a scan's series must state to be referred to.
_REQUIRED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
#: Attributes that may be empty; anonymized series often lack them.
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
#: SNOMED CT codes of the sides.
_SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}
#: Numbers of the series of a segmentation and of a report, beyond that of the scan.
_SEGMENTATION_NUMBER, REPORT_NUMBER = 1000, 2000


def check_series(series: Path) -> None:
    """Refuse, before work begins, a scan to which no DICOM segmentation can refer.

    Raises:
        InputError: highdicom is missing, or the scan is not a DICOM series.

    """
    try:
        import highdicom  # noqa: F401
    except ImportError as cause:
        raise InputError('Writing a DICOM segmentation needs highdicom. Run: pip install "crossmoda[app]".') from cause
    if not series.is_dir() and not dicom.is_dicom(series):
        raise InputError(
            f"A DICOM segmentation refers to the scan's DICOM series, not to {series.name}. "
            "Give the DICOM folder, or choose an output that ends in .seg.nrrd or .nii.gz."
        )


def write_dicom_segmentation(
    label_map: Volume,
    series: Path | str,
    path: Path | str,
    frames: "EarFrames | None" = None,
    *,
    is_corrected: bool = False,
    model: str = "",
) -> Any:
    """Write a DICOM segmentation with a segment for each structure and side that has voxels.

    Args:
        label_map: with the values of :data:`crossmoda.labels.VALUES`, on the grid of the series.
        series: the scan: a folder with one series, or a file of the series.
        path: output, ending in ``.dcm``.
        frames: the ear frames of the scan, for the sides.
        is_corrected: whether a person corrected the label map: the segments are then semi-automatic.
        model: name or checksum of the weights.

    Returns:
        The segmentation, a :class:`highdicom.seg.Segmentation`.

    Raises:
        InputError: the label map is empty, lies on another grid or the series lacks what a reference needs.

    """
    import highdicom

    series, path = Path(series), Path(path)
    check_series(series)
    slices = headers(series)
    segments = list(_segments(label_map, frames))
    if not segments:
        raise InputError("Empty segmentation: a DICOM segmentation has no segment to hold. Choose another format.")
    array = np.stack([mask for _, _, mask in segments], axis=-1).astype(np.uint8)
    count = int(slices[0].get("NumberOfFrames", 1)) if len(slices) == 1 else len(slices)
    if array.shape[:3] != (count, int(slices[0].Rows), int(slices[0].Columns)):
        raise InputError(f"Label map and series lie on different grids: {series}. Give the series that was segmented.")
    if len(slices) == 1 and count > 1:  # highdicom expects the order of the frames
        by_place, array = array, np.empty_like(array)
        array[dicom_frames.frames_of(dicom.files_in_order(series)[0]).stack.order] = by_place
    for header in slices:
        _state_distance(header, label_map.grid.spacing[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values of the source that violate the standard
        try:
            segmentation = highdicom.seg.Segmentation(
                source_images=slices,
                pixel_array=array,
                segmentation_type="BINARY",
                segment_descriptions=[
                    _description(index, structure, side, is_corrected, model)
                    for index, (structure, side, _) in enumerate(segments, start=1)
                ],
                series_instance_uid=highdicom.UID(),
                series_number=series_number(slices[0], _SEGMENTATION_NUMBER),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="CrossModa",
                manufacturer_model_name="CrossModa",
                software_versions=crossmoda.__version__,
                device_serial_number="0",
                content_description="Vestibular schwannoma and cochlea",
                series_description="CrossModa segmentation" + (", corrected" if is_corrected else ""),
                omit_empty_frames=False,  # the geometry is that of the scan
            )
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            remedy = "Export the series again from the archive"
            raise cannot_read(series, f"no segmentation can refer to this series ({cause})", remedy) from cause
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segmentation.save_as(temporary)
    return segmentation


def series_number(header: Any, beyond: int) -> int:
    """Return the number of a derived series by the header of a slice of the scan."""
    return beyond + int(header.get("SeriesNumber") or 0)


def headers(series: Path) -> list[Any]:
    """Return the headers of the slices of a series in their order, with what a reference to them needs.

    Raises:
        InputError: the series cannot be read, or states no identity.

    """
    import pydicom

    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in dicom.files_in_order(series)]
    missing = [name for name in _REQUIRED if not slices[0].get(name)]
    if missing:
        reason = f"no segmentation can refer to this series, which states no {', '.join(missing)}"
        raise cannot_read(series, reason, "Export the series again from the archive")
    for header in slices:
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
    return slices


def _state_distance(header: Any, distance: float) -> None:
    """State the measured distance of slices, mm, which many series leave out or state wrongly."""
    from pydicom.valuerep import DSfloat

    groups = header.get("SharedFunctionalGroupsSequence") or [{}]
    measures = (groups[0].get("PixelMeasuresSequence") or [header])[0]
    measures.SpacingBetweenSlices = DSfloat(distance, auto_format=True)
    if not measures.get("SliceThickness"):
        measures.SliceThickness = measures.SpacingBetweenSlices


def _segments(label_map: Volume, frames: "EarFrames | None") -> Iterator[tuple[labels.Structure, str, np.ndarray]]:
    """Yield structure, side and mask (z, y, x) of each segment."""
    for structure in labels.STRUCTURES:
        for side, mask in laterality.by_side(label_map, structure.value, frames).items():
            yield structure, side, mask.array


def _description(number: int, structure: labels.Structure, side: str, is_corrected: bool, model: str) -> Any:
    """Return the description of a segment, with the codes of :data:`crossmoda.labels.STRUCTURES`."""
    import highdicom
    from pydicom.sr.codedict import codes

    category, kind, region = (code(structure.terminology.split("~")[place]) for place in (1, 2, 5))
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name + (f", {side}" if side in _SIDES else ""),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="SEMIAUTOMATIC" if is_corrected else "AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="CrossModa",
            family=codes.cid7162.ArtificialIntelligence,
            version=crossmoda.__version__,
            parameters={"model": model} if model else None,
        ),
        anatomic_regions=[region] if region is not None else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*structure.color),
        tracking_uid=highdicom.UID(),
        tracking_id=f"{structure.key} {side}",
    )
    modifier = side_code(side)
    if modifier is not None:
        if region is not None:
            description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [modifier]
        else:
            description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def side_code(side: str) -> Any:
    """Return the code of a side; None for an unknown one."""
    import highdicom

    return highdicom.sr.CodedConcept(_SIDES[side][0], "SCT", _SIDES[side][1]) if side in _SIDES else None


def code(text: str) -> Any:
    """Return the code of a terminology entry ``scheme^value^meaning``; None for an empty one."""
    import highdicom

    scheme, value, meaning = text.split("^")
    return highdicom.sr.CodedConcept(value, scheme, meaning) if value else None
