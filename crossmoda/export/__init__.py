"""Results for other programs: DICOM SEG and structured reports for archives, nnU-Net and BIDS for trainers."""

from crossmoda.export.dicom_report import read_own_segmentation, write_dicom_report
from crossmoda.export.dicom_segmentation import ENDING, check_series, write_dicom_segmentation
from crossmoda.export.training_data import FORMATS, export_training_data, labeled_cases

__all__ = [
    "ENDING",
    "FORMATS",
    "check_series",
    "export_training_data",
    "labeled_cases",
    "read_own_segmentation",
    "write_dicom_report",
    "write_dicom_segmentation",
]
