"""Results for other programs: DICOM SEG for archives, nnU-Net and BIDS for trainers."""

from crossmoda.export.dicom_segmentation import ENDING, check_series, write_dicom_segmentation
from crossmoda.export.training_data import FORMATS, export_training_data

__all__ = ["ENDING", "FORMATS", "check_series", "export_training_data", "write_dicom_segmentation"]
