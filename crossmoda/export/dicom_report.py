"""Measures as a DICOM structured report (TID 1500) that refers to their DICOM segmentation, written with highdicom."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda import labels
from crossmoda.errors import InputError, cannot_read
from crossmoda.export.dicom_segmentation import ENDING, REPORT_NUMBER, code, headers, series_number, side_code
from crossmoda.measurement.measures import CochleaMeasures, Measures, TumorMeasures
from crossmoda.output import atomic, check_ending
from crossmoda.volume import dicom

#: Scheme of the codes of measures for which the standard has none.
SCHEME = "99CROSSMODA"


def read_own_segmentation(path: Path | str) -> Any:
    """Return a DICOM segmentation whose segments a report can refer to.

    Raises:
        InputError: highdicom is missing, or the file is not a DICOM segmentation by CrossModa.

    """
    try:
        import highdicom
    except ImportError as cause:
        raise InputError('Writing a DICOM report needs highdicom. Run: pip install "crossmoda[app]".') from cause
    path = Path(path)
    if not dicom.is_dicom(path) or dicom.storage_class(path) != dicom.SEGMENTATION:
        raise InputError(
            f"A DICOM report refers to a DICOM segmentation, not to {path.name}. "
            "Write one first: crossmoda export LABEL --scan SERIES --output result.dcm."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation = highdicom.seg.segread(path)
            named = all(item.get("TrackingID") for item in segmentation.SegmentSequence)
    except Exception as cause:  # damaged bytes end highdicom with errors of many kinds
        raise cannot_read(path, "damaged or irregular DICOM segmentation", "Export it again") from cause
    if not named or segmentation.get("ManufacturerModelName") != "CrossModa":
        raise InputError(
            f"Not a DICOM segmentation by CrossModa: {path.name}. "
            "Write it again: crossmoda export LABEL --scan SERIES --output result.dcm."
        )
    return segmentation


def write_dicom_report(measures: Measures, segmentation: Any, series: Path | str, path: Path | str) -> None:
    """Write the measures of a segmentation as a structured report: a group for each tumor and each cochlea.

    Args:
        measures: of the label map of the segmentation.
        segmentation: what :func:`crossmoda.export.write_dicom_segmentation` or :func:`read_own_segmentation` returned.
        series: the scan: a folder with one series, or a file of the series.
        path: output, ending in ``.dcm``.

    Raises:
        InputError: the segmentation refers to another series, or the path cannot be written.

    """
    import highdicom
    from highdicom import sr
    from pydicom.sr.codedict import codes

    path = Path(path)
    check_ending(path, ENDING)
    slices = headers(Path(series))
    referenced = segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    if referenced != slices[0].SeriesInstanceUID:
        raise InputError(f"The DICOM segmentation refers to another series than {series}: {referenced}. Give that one.")
    groups = [
        _group(structure, measured, segmentation, _segment(segmentation, structure.key, measured.side))
        for structure, measured in _structures(measures)
    ]
    device = sr.DeviceObserverIdentifyingAttributes(uid=highdicom.UID(), name="CrossModa", model_name="CrossModa")
    observer = sr.ObserverContext(codes.DCM.Device, device)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.cid100.MRIUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values of the source that violate the standard
        report = sr.Comprehensive3DSR(
            evidence=[segmentation, *slices],
            content=content[0],
            series_number=series_number(slices[0], REPORT_NUMBER),
            series_instance_uid=highdicom.UID(),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="CrossModa",
            series_description="CrossModa measures",
        )
        report.SoftwareVersions = crossmoda.__version__
        report.save_as(temporary)


def _structures(measures: Measures) -> Iterator[tuple[labels.Structure, TumorMeasures | CochleaMeasures]]:
    of = {structure.value: structure for structure in labels.STRUCTURES}
    yield from ((of[labels.VS], tumor) for tumor in measures.tumors)
    yield from ((of[labels.COCHLEA], cochlea) for cochlea in measures.cochleae)


def _segment(segmentation: Any, key: str, side: str) -> Any:
    """Return the segment of a structure and side; the only one of the structure where the sides are named otherwise."""
    segments = [item for item in segmentation.SegmentSequence if item.TrackingID.split(" ")[0] == key]
    chosen = [item for item in segments if item.TrackingID == f"{key} {side}"] or segments
    if len(chosen) != 1:
        raise InputError(f"The DICOM segmentation has no segment {key} {side}. Export it again from its label.")
    return chosen[0]


def _group(
    structure: labels.Structure, measured: TumorMeasures | CochleaMeasures, segmentation: Any, segment: Any
) -> Any:
    """Return the measures of one segment (TID 1411)."""
    from highdicom import sr

    category, kind, region = (code(structure.terminology.split("~")[place]) for place in (1, 2, 5))
    site = sr.FindingSite(anatomic_location=region or kind, laterality=side_code(measured.side))
    evaluations = []
    if isinstance(measured, TumorMeasures) and measured.koos is not None:
        name = sr.CodedConcept("koos-suggested", SCHEME, "Koos grade, suggested by size and place")
        value = sr.CodedConcept(f"koos-{measured.koos.grade}", SCHEME, f"Koos {measured.koos.grade}, suggested")
        evaluations.append(sr.QualitativeEvaluation(name, value))
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=sr.ReferencedSegment.from_segmentation(segmentation, int(segment.SegmentNumber)),
        finding_category=category,
        finding_type=kind,
        finding_sites=[site],
        algorithm_id=sr.AlgorithmIdentification(name="CrossModa", version=crossmoda.__version__),
        measurements=list(_measurements(measured)),
        qualitative_evaluations=evaluations or None,
    )


def _measurements(measured: TumorMeasures | CochleaMeasures) -> Iterator[Any]:
    """Yield each measure that is known, with its code and unit."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    mm, mm3 = codes.UCUM.Millimeter, codes.UCUM.CubicMillimeter

    def own(value: str, meaning: str) -> Any:
        return sr.CodedConcept(value, SCHEME, meaning)

    yield sr.Measurement(codes.SCT.Volume, round(measured.volume_mm3, 2), mm3)
    longest = round(measured.diameter_3d.length_mm, 2)
    yield sr.Measurement(codes.SCT.Diameter, longest, mm, derivation=codes.SCT.Maximum)
    if isinstance(measured, CochleaMeasures):
        return
    parts, interval = measured.parts, measured.interval_mm3
    values = [
        (codes.SCT.LongAxis, measured.axial.largest.length_mm, mm),
        (codes.SCT.ShortAxis, measured.axial.perpendicular.length_mm, mm),
        (own("craniocaudal", "Craniocaudal extent"), measured.craniocaudal_mm, mm),
        *((own(f"gap-{side}", f"Gap to {side} cochlea"), gap, mm) for side, gap in measured.gaps_mm.items()),
    ]
    if interval is not None:
        values += [
            (own(f"volume-{name}", f"Volume, {name} limit of interval"), limit, mm3)
            for name, limit in zip(("lower", "upper"), interval, strict=True)
        ]
    if parts is not None:
        values += [
            (own("intrameatal-volume", "Intrameatal volume"), parts.intrameatal_mm3, mm3),
            (own("extrameatal-volume", "Extrameatal volume"), parts.extrameatal_mm3, mm3),
        ]
        if parts.extrameatal is not None:
            size = own("extrameatal-diameter", "Largest axial extrameatal diameter")
            values.append((size, parts.extrameatal.largest.length_mm, mm))
    for name, value, unit in values:
        yield sr.Measurement(name, round(value, 2), unit)
