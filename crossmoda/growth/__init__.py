"""Growth: whether the tumors of a patient have grown between two or more scans."""

from crossmoda.growth.cohort import COHORT_PAGE, growth_of_patients
from crossmoda.growth.files import PAGE, growth_files
from crossmoda.growth.patient import Interval, MeasuredTimePoint, PatientGrowth, measure_growth
from crossmoda.growth.settings import Settings
from crossmoda.growth.time_points import TimePoint, read_time_points

__all__ = [
    "COHORT_PAGE",
    "PAGE",
    "Interval",
    "MeasuredTimePoint",
    "PatientGrowth",
    "Settings",
    "TimePoint",
    "growth_files",
    "growth_of_patients",
    "measure_growth",
    "read_time_points",
]
