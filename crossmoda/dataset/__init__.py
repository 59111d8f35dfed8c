"""Cases on disk: the layouts of data sets, labels, corrections and results."""

from crossmoda.dataset.case import CET1, HRT2, Case, Dataset
from crossmoda.dataset.layouts import correction_file, open_dataset
from crossmoda.dataset.validation import Problem, validate

__all__ = ["CET1", "HRT2", "Case", "Dataset", "Problem", "correction_file", "open_dataset", "validate"]
