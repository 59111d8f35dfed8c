"""The scan in a study: the series of a folder that is to be segmented, chosen by its kind or by the user."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from crossmoda.dataset.sequences import CET1, HRT2, kind_of
from crossmoda.errors import InputError, cannot_read
from crossmoda.volume import dicom

#: Candidates that an error lists.
_MOST_LISTED = 12


@dataclasses.dataclass(frozen=True)
class Selection:
    """A series of a study."""

    path: Path
    """what :func:`crossmoda.volume.read_scan` reads: the folder of the series, or one of its files"""
    note: str
    """the choice in words; empty where there was none"""


@dataclasses.dataclass(frozen=True)
class _Candidate:
    series: dicom.Series
    path: Path

    @property
    def number(self) -> str:
        return str(self.series.headers[0].get("SeriesNumber", "") or "") if self.series.headers else ""

    @property
    def kind(self) -> str | None:
        return kind_of(self.series.headers[0], self.series.description) if self.series.headers else None

    def matches(self, wanted: str) -> bool:
        """Return whether UID, number or description are as wanted."""
        return wanted in (self.series.uid, self.number) or wanted.casefold() == self.series.description.casefold()

    def __str__(self) -> str:
        name = self.series.description or self.series.modality or "without description"
        number = f"number {self.number}, " if self.number else ""
        return f"{name!r} ({number}{self.kind or 'neither T2 nor ceT1'}, {len(self.series.files)} files)"


def select_scan(path: Path | str, series: str | None = None) -> Selection:
    """Return the scan of a path: of a DICOM study, the series that fits.

    Args:
        path: an image file, or a folder with DICOM files in any depth.
        series: description, number or UID of the series; None: the only high-resolution T2, else the only ceT1.

    Raises:
        InputError: no series fits, or several do; the message lists the candidates.

    """
    path = Path(path)
    if not path.is_dir():
        if series is not None:
            raise InputError(f"--series selects a series of a DICOM folder; this is a file: {path}. Omit --series.")
        return Selection(path, "")
    candidates = _candidates(path)
    if not candidates:
        raise cannot_read(path, "no DICOM image series", "Select the folder of the slices, or an image file")
    if series is not None:
        chosen = [item for item in candidates if item.matches(series)] or [
            item for item in candidates if series.casefold() in item.series.description.casefold()
        ]
    elif len(candidates) == 1:
        return Selection(candidates[0].path, "")
    else:
        chosen = next((fit for kind in (HRT2, CET1) if (fit := [c for c in candidates if c.kind == kind])), [])
    if len(chosen) != 1:
        raise _ambiguous(path, series, chosen, candidates)
    return Selection(chosen[0].path, f"series {chosen[0]}")


def scan_of_label(path: Path | str, label: Path | str) -> Path:
    """Return the scan of a label: of a DICOM study, the series on which a DICOM label was drawn.

    Args:
        path: an image file, or a folder with DICOM files in any depth.
        label: a label file of any kind.

    Raises:
        InputError: the series of the label is not in the folder, or it is not stated and none or several fit.

    """
    path, label = Path(path), Path(label)
    uid = dicom.series_of_drawing(label) if dicom.is_dicom(label) else None
    if uid is None or not (path.is_dir() or dicom.is_dicom(path)):
        return select_scan(path).path
    candidates = _candidates(path) if path.is_dir() else [_Candidate(dicom.series_at(path), path)]
    for candidate in candidates:
        if candidate.series.uid == uid:
            return candidate.path
    raise InputError(f"{label.name} was drawn on a series that is not in {path}: {uid}. Give the study of that series.")


def _ambiguous(
    path: Path, series: str | None, chosen: Sequence[_Candidate], candidates: Sequence[_Candidate]
) -> InputError:
    wanted = f"{series!r}" if series is not None else "T2 or ceT1"
    problem = f"{len(chosen)} series fit {wanted}" if chosen else f"No series fits {wanted}"
    listed = "; ".join(map(str, (chosen or candidates)[:_MOST_LISTED]))
    return InputError(f"{problem}: {path}. Choose one with --series (description, number or UID): {listed}.")


def _candidates(folder: Path) -> list[_Candidate]:
    """Return the image series in a folder and its subfolders."""
    candidates = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        files = [Path(place) / name for name in sorted(names) if not name.startswith(".")]
        slices = [file for file in files if dicom.is_dicom(file) and dicom.storage_class(file) not in dicom.DRAWN]
        if not slices:
            continue
        all_series = dicom.list_series(slices)
        for item in all_series:
            is_alone = len(all_series) == 1 and len(item.files) == len(slices)
            candidates.append(_Candidate(item, Path(place) if is_alone else item.files[0]))
    return candidates
