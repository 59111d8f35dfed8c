"""The date and the patient ID of a scan, as its DICOM header or its name states them."""

import datetime
import re
from pathlib import Path
from typing import Any

from crossmoda.volume import dicom

#: A date in a name: year, month, day, with or without separators.
_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")


def header_of(scan: Path) -> Any:
    """Return the header of a DICOM file, or of a slice of the series in a folder; None of any other file.

    Raises:
        InputError: a folder has no series, or several.

    """
    if not scan.is_dir() and not dicom.is_dicom(scan):
        return None
    import pydicom

    file = dicom.series_at(scan).files[0] if scan.is_dir() else scan
    return pydicom.dcmread(file, stop_before_pixels=True)


def date_in_header(header: Any) -> datetime.date | None:
    """Return the date of the acquisition, else of the series or study; None where none is stated."""
    if header is None:
        return None
    for key in ("AcquisitionDate", "SeriesDate", "StudyDate"):
        text = str(header.get(key) or "")
        try:
            return datetime.datetime.strptime(text, "%Y%m%d").date()
        except ValueError:
            continue
    return None


def date_in_name(scan: Path) -> datetime.date | None:
    """Return the date in the name of a scan, else of its folder; None where there is none.

    Example:
        >>> date_in_name(Path("anna_2021-03-09_T2.nii.gz")), date_in_name(Path("20240131/T2.nii.gz"))
        (datetime.date(2021, 3, 9), datetime.date(2024, 1, 31))

    """
    for name in (scan.name, scan.parent.name):
        for year, _, month, day in _DATE.findall(name):
            try:
                return datetime.date(int(year), int(month), int(day))
            except ValueError:
                continue
    return None
