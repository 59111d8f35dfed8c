"""Measures of a segmentation as a radiologist reports them: volumes, diameters, meatal parts, suggested Koos grade."""

from crossmoda.measurement.files import (
    CASE_COLUMNS,
    COLUMNS,
    FileMeasures,
    as_json,
    case_row,
    measure_files,
    read_porus_planes,
    table,
    write_markups,
)
from crossmoda.measurement.measures import CochleaMeasures, Measures, TumorMeasures, measure

__all__ = [
    "CASE_COLUMNS",
    "COLUMNS",
    "CochleaMeasures",
    "FileMeasures",
    "Measures",
    "TumorMeasures",
    "as_json",
    "case_row",
    "measure",
    "measure_files",
    "read_porus_planes",
    "table",
    "write_markups",
]
