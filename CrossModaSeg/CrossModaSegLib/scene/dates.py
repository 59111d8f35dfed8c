"""Dates of scans: stated by the user, else of the DICOM header, else in the name."""

import functools
from pathlib import Path

from CrossModaSegLib.scene import dicom

#: On a scan: its date as the user stated it (YYYY-MM-DD).
DATE = "CrossModa.Date"


def of(volume) -> str:
    """Return the date of a scan (YYYY-MM-DD); empty where it is not known."""
    from crossmoda.dataset.scan_date import date_in_name

    if stated := volume.GetAttribute(DATE):
        return stated
    storage, files = volume.GetStorageNode(), dicom.source_files(volume)
    date = _of_file(files[0]) if files else None
    for name in (volume.GetName(), storage.GetFileName() if storage is not None else ""):
        date = date or (date_in_name(Path(name)) if name else None)
    return date.isoformat() if date else ""


@functools.lru_cache
def _of_file(file: str):
    """Return the date in a DICOM file, or None."""
    from crossmoda.dataset.scan_date import date_in_header, header_of

    return date_in_header(header_of(Path(file)))


def state(volume, date: str) -> None:
    """Keep the date that the user states; empty: that of header or name."""
    volume.SetAttribute(DATE, date.strip() or None)
