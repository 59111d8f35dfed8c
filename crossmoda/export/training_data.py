"""Labeled scans for other trainers: an nnU-Net v2 raw data set, or BIDS derivatives."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossmoda import labels, output, volume
from crossmoda.dataset.case import CET1, HRT2, Case, Dataset
from crossmoda.dataset.label_reading import read_label
from crossmoda.dataset.results import label_to_review
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report

FORMATS = ("nnunet", "bids")
_LABELS = {"background": labels.BACKGROUND, **{structure.key: structure.value for structure in labels.STRUCTURES}}
_BIDS_VERSION = "1.9.0"


def export_training_data(
    cases: Sequence[Case],
    label_files: Mapping[str, Path],
    folder: Path | str,
    form: str,
    progress: Progress | None = None,
) -> list[Path]:
    """Write scans with their labels into a new folder.

    Args:
        cases: scans of one modality with unique IDs.
        label_files: the label of each case by ID: noisy labels, predictions, corrections.
        folder: new or empty; for nnU-Net its name is ``DatasetNNN_NAME``.
        form: one of :data:`FORMATS`.
        progress: callback(fraction, message); raise Cancelled to abort.

    Returns:
        The scans and labels written.

    Raises:
        InputError: there is no case, the folder is not empty or has another name, or a label lies on another grid.

    """
    folder = Path(folder)
    _check(cases, folder, form)
    files: list[Path] = []
    written: dict[Path, str] = {}
    for number, case in enumerate(cases):
        report(progress, number / len(cases), case.id)
        image = case.read_image()
        label_map = read_label(label_files[case.id], image.grid)
        if not label_map.grid.same_as(image.grid):
            difference = label_map.grid.difference_to(image.grid)
            raise InputError(f"Label and scan lie on different grids: {case.id}, {difference}. Label the scan itself.")
        paths = _nnunet_paths(folder, case) if form == "nnunet" else _bids_paths(folder, case)
        if paths[0] in written:
            raise InputError(f"Two cases have the same name: {written[paths[0]]} and {case.id}. Rename one of them.")
        written[paths[0]] = case.id
        with output.together():
            volume.write(image, paths[0])
            volume.write(volume.Volume(label_map.array, image.grid), paths[1])
        files += paths
    _describe(folder, form, len(cases), cases[0].modality)
    return files


def labeled_cases(
    data: Dataset, results: Path | None = None, modality: str = HRT2
) -> tuple[list[Case], dict[str, Path], list[str]]:
    """Return the scans of a modality that have a label, their labels by ID, and the IDs of those without one.

    Args:
        data: the data set; its labels, with the corrections, come first.
        results: folder of results, whose noisy labels or predictions stand in where a scan has no label.
        modality: of the scans.

    """
    cases, label_files, unlabeled = [], {}, []
    for case in data.cases:
        if case.modality != modality:
            continue
        label = case.label
        if label is None and results is not None and (results / case.id).is_dir():
            label = label_to_review(results / case.id)
        if label is None:
            unlabeled.append(case.id)
        else:
            label_files[case.id] = label
            cases.append(dataclasses.replace(case, label=label))
    return cases, label_files, unlabeled


def _check(cases: Sequence[Case], folder: Path, form: str) -> None:
    if form not in FORMATS:
        raise InputError(f"Unknown format: {form}. Use {' or '.join(FORMATS)}.")
    if not cases:
        raise InputError("No labeled scan to export. Add labels, or choose a folder of results with --results.")
    output.check_writable(folder, is_folder=True)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"The folder is not empty: {folder}. Choose a new folder.")
    if form == "nnunet" and not re.fullmatch(r"Dataset\d{3}_\w+", folder.name):
        raise InputError(f"Not a name of an nnU-Net data set: {folder.name}. Name it like Dataset501_CrossModa.")


def _nnunet_paths(folder: Path, case: Case) -> tuple[Path, Path]:
    return folder / "imagesTr" / f"{case.id}_0000.nii.gz", folder / "labelsTr" / f"{case.id}.nii.gz"


def _bids_paths(folder: Path, case: Case) -> tuple[Path, Path]:
    subject = "sub-" + (re.sub(r"[^0-9A-Za-z]", "", case.id) or "unnamed")
    suffix = "ce-gadolinium_T1w" if case.modality == CET1 else "T2w"
    space = suffix.removesuffix("_T1w") + "_" if case.modality == CET1 else ""
    derivative = folder / "derivatives" / "crossmoda" / subject / "anat"
    return (
        folder / subject / "anat" / f"{subject}_{suffix}.nii.gz",
        derivative / f"{subject}_{space}space-orig_dseg.nii.gz",
    )


def _describe(folder: Path, form: str, count: int, modality: str) -> None:
    """Write what the format says about the data set: last, so that an unfinished one is none."""
    import crossmoda

    if form == "nnunet":
        content = {"channel_names": {"0": modality}, "labels": _LABELS, "numTraining": count, "file_ending": ".nii.gz"}
        output.write_json(folder / "dataset.json", content)
        return
    about = {"BIDSVersion": _BIDS_VERSION, "Name": "Scans labeled with CrossModa"}
    generated = [{"Name": "crossmoda", "Version": crossmoda.__version__}]
    derivatives = folder / "derivatives" / "crossmoda"
    output.write_json(folder / "dataset_description.json", {**about, "DatasetType": "raw"})
    output.write_json(
        derivatives / "dataset_description.json", {**about, "DatasetType": "derivative", "GeneratedBy": generated}
    )
    rows = ["index\tname\tabbreviation", *(f"{value}\t{key}\t{key}" for key, value in _LABELS.items())]
    output.write_text(derivatives / "dseg.tsv", "\n".join(rows) + "\n")
