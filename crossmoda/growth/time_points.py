"""The time points of a patient: scans with dates, in their order, and what speaks against comparing them."""

import dataclasses
import datetime
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from crossmoda import volume
from crossmoda.dataset.case_id import id_of_file
from crossmoda.dataset.label_reading import read_label
from crossmoda.dataset.scan_date import date_in_header, date_in_name, header_of
from crossmoda.dataset.scan_selection import select_scan
from crossmoda.errors import InputError
from crossmoda.pseudonyms import pseudonym
from crossmoda.volume import Volume


@dataclasses.dataclass(frozen=True, eq=False)
class TimePoint:
    """One scan of a patient."""

    name: str
    scan: Volume
    """float32"""
    date: datetime.date | None = None
    label: Volume | None = None
    """the corrected label on the grid of the scan, taken as truth; None: segmented by the network"""
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """``scan`` and ``label``, for the provenance"""
    number: int = 0
    """the number of the scan as given, from 1"""

    @property
    def title(self) -> str:
        """The date, or the name where there is none."""
        return self.date.isoformat() if self.date else self.name


def read_time_points(
    scans: Sequence[Path | str],
    dates: Sequence[str] = (),
    labels: Mapping[int, Path | str] | None = None,
    any_patient: bool = False,
) -> tuple[list[TimePoint], list[str]]:
    """Read the scans of one patient.

    Args:
        scans: files, or folders with a DICOM series.
        dates: date of each scan (YYYY-MM-DD); empty: of the DICOM headers, else in the names.
        labels: corrected label by the number of its scan, from 0.
        any_patient: whether differing patient IDs are accepted.

    Returns:
        The time points, earliest first, and what the user should know of their order.

    Raises:
        InputError: fewer than two scans, a date that is missing, damaged or the same as another, the same scan twice,
            or scans of different patients.

    """
    if len(scans) < 2:
        raise InputError(
            f"Growth needs at least two scans of one patient; got {len(scans)}. Give an earlier scan, too."
        )
    if dates and len(dates) != len(scans):
        raise InputError(f"{len(dates)} dates for {len(scans)} scans. Give one date for each scan, in their order.")
    points, patients = [], {}
    for number, path in enumerate(scans):
        selected = select_scan(path).path
        header = header_of(selected)
        if header is not None and header.get("PatientID"):
            patients[str(path)] = str(header.PatientID)
        date = _parsed(dates[number]) if dates else date_in_header(header) or date_in_name(Path(path))
        scan, files = volume.read_scan(selected), {"scan": selected}
        label = None
        if labels and number in labels:
            files["label"] = Path(labels[number])
            label = read_label(files["label"], scan.grid)
            if not label.grid.same_as(scan.grid):
                difference = label.grid.difference_to(scan.grid)
                raise InputError(
                    f"Label and scan {number + 1} lie on different grids: {difference}. Give its own label."
                )
        name = Path(path).name if Path(path).is_dir() else id_of_file(Path(path))
        points.append(TimePoint(pseudonym(name, path), scan, date, label, files, number + 1))
    if len(set(patients.values())) > 1 and not any_patient:
        raise InputError(
            "Patient IDs differ: " + ", ".join(patients) + ". Give scans of one patient, or --any-patient if they are."
        )
    _refuse_copies(points)
    return _ordered(points, is_given=bool(dates))


def _parsed(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text.strip())
    except ValueError:
        raise InputError(f"Not a date: {text.strip() or '(empty)'}. Write YYYY-MM-DD.") from None


def _refuse_copies(points: Sequence[TimePoint]) -> None:
    for number, point in enumerate(points):
        for earlier in points[:number]:
            if np.array_equal(earlier.scan.array, point.scan.array):
                raise InputError(f"Same scan twice: {earlier.name}, {point.name}. Give two different scans.")


def _ordered(points: list[TimePoint], is_given: bool) -> tuple[list[TimePoint], list[str]]:
    """Return the points by date, and notes."""
    dated = [point for point in points if point.date is not None]
    if not dated:
        return points, ["No dates: the scans count in the order given, without rates per year; --dates states them."]
    if len(dated) < len(points):
        missing = ", ".join(point.name for point in points if point.date is None)
        raise InputError(f"No date: {missing}. Give the dates of all scans with --dates.")
    ordered = sorted(dated, key=lambda point: point.date or datetime.date.min)
    for earlier, later in itertools.pairwise(ordered):
        if earlier.date == later.date and not is_given:
            raise InputError(
                f"Same date, {earlier.date}: {earlier.name}, {later.name}. Give the dates of all scans with --dates."
            )
    if [id(point) for point in ordered] == [id(point) for point in points]:
        return ordered, []
    return ordered, ["The scans were sorted by date: " + ", ".join(f"{p.name} ({p.date})" for p in ordered) + "."]
