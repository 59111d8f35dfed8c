"""What the suites of the engine share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossmoda import cli


def _write_rtstruct(path: Path, contours: dict[str, list[np.ndarray]], series_uid: str = "1.2.3.4") -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = RTStructureSetStorage, "1.2.3.99", "RTSTRUCT"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, polygons) in enumerate(contours.items(), start=1):
        roi, roi_contour = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi_contour.ReferencedROINumber = number
        roi_contour.ContourSequence = []
        for polygon in polygons:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
            contour.ContourData = [f"{value:.6f}" for value in polygon.ravel()]
            roi_contour.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(roi_contour)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


@pytest.fixture(scope="session")
def write_rtstruct() -> Callable[..., None]:
    """Write polygons (points, 3) in LPS mm by name as what is needed of an RTSTRUCT that refers to a series."""
    return _write_rtstruct


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; return its exit code, what it printed, and its errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return call
