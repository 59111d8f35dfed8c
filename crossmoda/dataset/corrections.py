"""The store of corrections, ``DATA/corrections/<id>/``: no edit is ever lost.

A correction consists of the label map on the target's grid, by which :func:`crossmoda.dataset.open_dataset` makes the
target a labeled case, the same as a segmentation for Slicer, and ``correction.json``, the record of the changes and of
the label they are based on. Before a file is replaced it is copied to ``previous/<n>``; each file appears in one step.
"""

import contextlib
import dataclasses
import datetime
import glob
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import crossmoda
from crossmoda import labels, locks, output, volume
from crossmoda.dataset.case import Case
from crossmoda.dataset.case_id import safe_id
from crossmoda.dataset.layouts import CORRECTIONS, RECORD, SETTLED, correction_file, open_dataset
from crossmoda.dataset.results import PROVENANCE, label_to_review
from crossmoda.errors import InputError, reason_of
from crossmoda.evaluation import dice_per_structure
from crossmoda.provenance import checksum
from crossmoda.volume import Grid, Volume, nrrd_file

DRAFT = "draft.seg.nrrd"
PREVIOUS = "previous"
OPEN, NEEDS_EXPERT = "open", "needs expert"
CORRECTED, ACCEPTED = SETTLED
STATUSES = (OPEN, CORRECTED, ACCEPTED, NEEDS_EXPERT)
_UNSAVED = "Your edits are still in the scene: make the data set folder writable, or export the segmentation"


@dataclasses.dataclass(frozen=True)
class Correction:
    """The decision about a target, and its corrected label."""

    id: str
    status: str
    """``"corrected"``, ``"accepted"``, ``"needs expert"``, or ``"open"`` if the decision was withdrawn"""
    seconds: float
    """total time spent"""
    label: Path | None
    """the corrected label map on the target's grid; None if there is none"""
    record: dict[str, Any]
    """the content of ``correction.json``"""
    intact: bool = True
    """whether the record describes this label map (else the file was replaced or the saving was interrupted)"""

    @property
    def is_settled(self) -> bool:
        """Whether its label counts as correct: training uses it with full weight."""
        return self.status in SETTLED

    @property
    def number(self) -> int:
        """The number of times it was saved."""
        return int(self.record.get("number", 0))


@dataclasses.dataclass(frozen=True)
class Draft:
    """Unfinished edits, not yet saved as a correction."""

    id: str
    path: Path
    based_on: str
    """name of the label file they are based on"""
    seconds: float
    """time spent"""

    def read(self, grid: Grid | None = None) -> Volume:
        """Read the label map; ``grid`` as in :func:`crossmoda.volume.read_label_map`."""
        return volume.read_label_map(self.path, grid)


def folder_of(data: Path | str, case_id: str) -> Path:
    """Return the folder of a target's correction."""
    return Path(data) / CORRECTIONS / safe_id(case_id)


@contextlib.contextmanager
def _locked(data: Path | str, case_id: str) -> Iterator[None]:
    """Hold the lock of a correction: two people who save at once follow each other, and the first version is kept."""
    with _preserve_edits_on_error(), locks.store_locked(folder_of(data, case_id)):
        yield


def save(
    case: Case,
    label_map: Volume,
    data: Path | str,
    status: str = CORRECTED,
    seconds: float = 0.0,
    based_on: Path | str | None = None,
    reviewer: str | None = None,
    when: bool = False,
    *,
    noisy: Path | str | None = None,
) -> Path:
    """Save a corrected label map for training; an earlier one is copied to ``previous/<n>``.

    Args:
        case: the target.
        label_map: the corrected label map; it is resampled if it lies on another grid than the target.
        data: the folder of the data set.
        status: one of :data:`STATUSES`.
        seconds: time spent since the last save or mark, s; the times are added up.
        based_on: the label map that was corrected.
        reviewer: reviewer name or initials; None omits it.
        when: whether the record contains date and time.
        noisy: the noisy label to compare with; None: ``based_on``.

    Returns:
        The path of the label map.

    Raises:
        InputError: the label map cannot be used, ``status`` is unknown, or the folder cannot be written; all earlier
            files are unchanged then.

    """
    _check_status(status)
    image = case.read_image()
    final = _on_grid(label_map, image.grid)
    with _locked(data, case.id):
        return _save(case, label_map, final, data, status, seconds, based_on, reviewer, when, noisy)


def _save(
    case: Case,
    label_map: Volume,
    final: Volume,
    data: Path | str,
    status: str,
    seconds: float,
    based_on: Path | str | None,
    reviewer: str | None,
    when: bool,
    noisy: Path | str | None,
) -> Path:
    """Save a label map on the target's grid while no other process writes the correction."""
    folder = folder_of(data, case.id)
    earlier = load(data, case.id)
    record = _record(case, final, label_map, earlier, status, seconds, based_on, noisy or based_on)
    if reviewer:
        record["reviewer"] = reviewer
    if when:
        record["when"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = correction_file(data, case.id)
    with _preserve_edits_on_error():
        if earlier is not None and earlier.label is not None:
            _keep_previous(folder, earlier)
        volume.write(final, path)
        segmentation = folder / f"{case.id}_corrected.seg.nrrd"
        volume.write_segmentation(final, segmentation, record)
        files = {file.name: checksum(file) for file in (path, segmentation)}
        output.write_json(folder / RECORD, {**record, "files": files})
    discard_draft(data, case.id)
    return path


def mark(
    data: Path | str, case_id: str, status: str, seconds: float = 0.0, *, results: Path | str | None = None
) -> None:
    """Record a decision about a target without a new label map.

    Args:
        data: the folder of the data set.
        case_id: the target.
        status: ``"accepted"``: the label is correct (the correction if there is one, else the label of ``results``,
            of which a copy is saved); ``"needs expert"``; ``"corrected"`` only if there is a correction; ``"open"``
            withdraws the decision.
        seconds: time spent since the last save or mark, s; the times are added up.
        results: the folder of the results of all targets.

    Raises:
        InputError: ``status`` is unknown or does not fit, or the folder cannot be written.

    """
    _check_status(status)
    with _locked(data, case_id):
        _mark(data, case_id, status, seconds, results)


def _mark(data: Path | str, case_id: str, status: str, seconds: float, results: Path | str | None) -> None:
    earlier = load(data, case_id)
    has_label = earlier is not None and earlier.label is not None
    if status == CORRECTED and not has_label:
        raise InputError(f"The case has no corrected label: {case_id}. Save a correction, or accept the label.")
    if status == ACCEPTED and not has_label and results is not None:
        file = label_to_review(Path(results) / case_id)
        save(_case(data, case_id), volume.read_label_map(file), data, status, seconds, file)
        return
    total = seconds + (earlier.seconds if earlier else 0.0)
    record = {**(earlier.record if earlier else {"id": case_id, "number": 0}), "status": status, "seconds": total}
    with _preserve_edits_on_error():
        output.write_json(folder_of(data, case_id) / RECORD, record)


def load(data: Path | str, case_id: str) -> Correction | None:
    """Return the decision about a target; None if there is none."""
    folder, label = folder_of(data, case_id), correction_file(data, case_id)
    try:
        record = output.read_json(folder / RECORD)
        status, seconds = str(record["status"]), float(record["seconds"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # A label map without a readable record was copied there, or the saving was interrupted before the record.
        return Correction(case_id, CORRECTED, 0.0, label, {}, intact=False) if label.is_file() else None
    if status not in STATUSES:
        status = CORRECTED if label.is_file() else OPEN
    if not label.is_file():
        return Correction(case_id, OPEN if status == CORRECTED else status, seconds, None, record)
    intact = record.get("files", {}).get(label.name) == checksum(label)
    return Correction(case_id, status, seconds, label, record, intact)


def all_corrections(data: Path | str) -> dict[str, Correction]:
    """Return the decision about each target of a data set, by id."""
    folder = Path(data) / CORRECTIONS
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    corrections = ((name, load(data, name)) for name in names if not name.startswith("."))
    return {name: correction for name, correction in corrections if correction is not None}


def save_draft(
    data: Path | str,
    case_id: str,
    label_map: Volume,
    based_on: Path | str | None = None,
    seconds: float = 0.0,
) -> Path:
    """Save unfinished edits in one step; :func:`find_draft` finds them after a crash.

    Raises:
        InputError: the folder cannot be written, or the label map has unknown values.

    """
    path = folder_of(data, case_id) / DRAFT
    about = {"draft_of": case_id, "based_on": Path(based_on).name if based_on else "", "seconds": seconds}
    with _locked(data, case_id), _preserve_edits_on_error():
        volume.write_segmentation(label_map, path, about)
    return path


def find_draft(data: Path | str, case_id: str) -> Draft | None:
    """Return the unfinished edits of a target, or None."""
    path = folder_of(data, case_id) / DRAFT
    if not path.is_file():
        return None
    try:
        about = json.loads(nrrd_file.header_of(path)["CrossModa_Provenance"])
        return Draft(case_id, path, str(about["based_on"]), float(about["seconds"]))
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return Draft(case_id, path, "", 0.0)


def discard_draft(data: Path | str, case_id: str) -> None:
    """Remove the unfinished edits of a target, if any."""
    folder = folder_of(data, case_id)
    (folder / DRAFT).unlink(missing_ok=True)
    for leftover in folder.glob(f"{output.PARTIAL}*"):
        if leftover.is_file():
            leftover.unlink(missing_ok=True)


def _check_status(status: str) -> None:
    if status not in STATUSES:
        raise InputError(f"Unknown status: {status!r}. Use one of {', '.join(STATUSES)}.")


def _case(data: Path | str, case_id: str) -> Case:
    for case in open_dataset(data).targets:
        if case.id == case_id:
            return case
    raise InputError(f"No hrT2 scan of {case_id} in the data set: {data}. Select a case of this data set.")


def _on_grid(label_map: Volume, grid: Grid) -> Volume:
    """Return the label map on the target's grid as uint8."""
    labels.check_values(label_map.array)
    plain = label_map.with_array(label_map.array.astype(np.uint8))
    whole = plain.pasted_on(grid)
    if not whole.grid.same_as(grid):
        whole = volume.resample(plain, grid, interpolation="label")
    return Volume(whole.array, grid)


def _record(
    case: Case,
    final: Volume,
    edited: Volume,
    earlier: Correction | None,
    status: str,
    seconds: float,
    based_on: Path | str | None,
    noisy: Path | str | None,
) -> dict[str, Any]:
    """Return the content of ``correction.json``."""
    record: dict[str, Any] = {
        "id": case.id,
        "status": status,
        "number": (earlier.number if earlier else 0) + 1,
        "seconds": round(seconds + (earlier.seconds if earlier else 0.0), 1),
        "crossmoda": crossmoda.__version__,
        "image": {"name": Path(case.image).name, "sha256": checksum(case.image)},
        "resampled": not edited.grid.same_as(final.grid) and edited.pasted_on(final.grid) is edited,
        "volumes_after_mm3": _volumes(final),
    }
    if based_on is not None:
        record["based_on"] = _described(Path(based_on))
    if noisy is not None:
        record["compared_with"] = _described(Path(noisy))
        record |= _comparison(Path(noisy), final)
    return record


def _comparison(noisy: Path, final: Volume) -> dict[str, Any]:
    """Return the differences from the noisy label; an empty dictionary where it cannot be read."""
    try:
        before = volume.read_label_map(noisy, final.grid)
    except InputError:
        return {}  # no reason to refuse the correction
    comparison: dict[str, Any] = {"volumes_before_mm3": _volumes(before)}
    if before.grid.same_as(final.grid):
        scores = dice_per_structure(before.array, final.array)
        changed = float(np.count_nonzero(before.array != final.array)) * final.grid.voxel_volume_mm3
        comparison["dice_with_noisy_label"] = {key: round(value, 4) for key, value in scores.items()}
        comparison["changed_mm3"] = round(changed, 2)
    return comparison


def _described(file: Path) -> dict[str, Any]:
    """Return name and checksum of a label map, and step, version and time of its provenance."""
    about: dict[str, Any] = {"name": file.name, "sha256": checksum(file) if file.is_file() else None}
    try:
        provenance = output.read_json(file.parent / PROVENANCE)
        return {**about, **{key: provenance[key] for key in ("step", "crossmoda", "created") if key in provenance}}
    except (OSError, ValueError, TypeError):
        return about


def _volumes(label_map: Volume) -> dict[str, float]:
    voxel = label_map.grid.voxel_volume_mm3
    return {
        structure.key: round(float(np.count_nonzero(label_map.array == structure.value)) * voxel, 2)
        for structure in labels.STRUCTURES
    }


def _keep_previous(folder: Path, earlier: Correction) -> None:
    """Copy the present correction to ``previous/<n>``; the copy appears there when it is complete."""
    place = folder / PREVIOUS
    place.mkdir(parents=True, exist_ok=True)
    taken = [int(entry.name) for entry in place.iterdir() if entry.name.isdigit()]
    number = max([*taken, earlier.number - 1, 0]) + 1
    temporary = place / f"{output.PARTIAL}{number}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for file in (*folder.glob(f"{glob.escape(earlier.id)}_*"), folder / RECORD):
        if file.is_file():
            shutil.copy2(file, temporary / file.name)
    temporary.rename(place / str(number))


@contextlib.contextmanager
def _preserve_edits_on_error() -> Iterator[None]:
    """Add to an error of writing that the edits are not lost."""
    try:
        yield
    except InputError as error:
        if not str(error).startswith("Cannot write"):
            raise
        raise InputError(f"{str(error).rpartition('. ')[0]}. {_UNSAVED}.") from error
    except OSError as error:
        raise InputError(
            f"Cannot write {error.filename or 'the correction'}: {reason_of(error)}. {_UNSAVED}."
        ) from error
