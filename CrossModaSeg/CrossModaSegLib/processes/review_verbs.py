"""Calls of the review that run in the worker's process: the queue, a case's files, the report."""

import dataclasses
from pathlib import Path

from crossmoda.errors import InputError


def review_list(data: str, results: str, progress) -> dict:
    """Return the cases of a data set, that whose correction would help most first."""
    from crossmoda.review import review_list as listed

    items = [dataclasses.asdict(item) for item in listed(Path(data), Path(results), progress=progress)]
    for item in items:
        item.pop("evidence")  # numbers behind the reasons, among them arrays
    return {"items": items}


def review_case(data: str, results: str, case_id: str, folder: str, progress) -> dict:
    """Return the files of a case that the scene can load, and its doubtful regions.

    Files that can be loaded as they are stay as they are; the doubt, the regions (their numbers), the majority vote and
    the atlases' labels are written into ``folder``. Missing ones are empty.
    """
    from crossmoda.dataset.results import LABEL_MAP, NOISY_LABEL, PREDICTION
    from crossmoda.review import doubt, find_regions, label_to_review
    from crossmoda.volume import Volume, read_label_map, write

    case, at, into = _target(data, case_id), Path(results) / case_id, Path(folder)
    progress(0.0, case_id)
    image = case.read_image()
    file = case.image
    if file.is_dir() or not file.name.lower().endswith((".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")):
        file = into / f"{case_id}.nrrd"
        write(image, file)
    reviewed = label_to_review(at)
    label_map = read_label_map(reviewed)
    network = at / PREDICTION / LABEL_MAP
    progress(0.3, case_id)
    wrong = doubt(at)
    regions = find_regions(wrong, label_map, network=read_label_map(network) if network.is_file() else None)
    write(wrong, into / "doubt.nrrd")
    numbers = label_map.array.copy()
    numbers[...] = 0
    for region in reversed(regions):
        numbers[region.mask(numbers.shape)] = region.number
    write(Volume(numbers, label_map.grid), into / "regions.nrrd")
    progress(0.6, case_id)
    votes = _votes(at, label_map.grid, into)
    maps = {
        key: str(path) if path.is_file() else ""
        for key, path in {
            "fused": at / NOISY_LABEL,
            "network": network,
            "majority": into / "majority.nrrd",
        }.items()
    }
    return {
        "id": case_id,
        "folder": folder,
        "image": str(file),
        "original": str(case.image),
        "reviewed": str(reviewed),
        "labels": maps,
        "doubt": str(into / "doubt.nrrd"),
        "numbers": str(into / "regions.nrrd"),
        "votes": votes,
        "probabilities": _probabilities(at),
        "regions": [_as_json(region) for region in regions],
        "correction": _correction(data, case_id),
    }


def compare_cochleae(image: str, label_map: str, folder: str, progress) -> dict:
    """Compare the cochleae of both sides; a suggestion is written into ``folder``."""
    from crossmoda.review import operations
    from crossmoda.volume import read, read_label_map, write

    progress(0.1, "")
    label, scan = read_label_map(label_map), read(image)
    comparison = operations.mirror_check(label.array, scan.array, label.grid)
    suggestion = Path(folder) / "suggestion.nrrd"
    if comparison.suggestion is not None:
        write(label.with_array(comparison.suggestion), suggestion)
    return {
        "messages": list(comparison.messages),
        "suggestion": str(suggestion) if comparison.suggestion is not None else "",
    }


def review_report(data: str, results: str, models: str, folder: str, progress) -> dict:
    """Write the report of a cohort; return its files."""
    from crossmoda.review.cohort_report import write_report

    return {
        name: str(path)
        for name, path in write_report(data, results, models or None, Path(folder), progress=progress).items()
    }


def export_training_data(data: str, results: str, folder: str, form: str, progress) -> dict:
    """Write the labeled T2 scans of a data set for other trainers; return their number and the IDs left out."""
    from crossmoda import export
    from crossmoda.dataset import open_dataset

    cases, labels, unlabeled = export.labeled_cases(open_dataset(Path(data)), Path(results) if results else None)
    export.export_training_data(cases, labels, folder, form, progress)
    return {"count": len(cases), "unlabeled": unlabeled, "folder": folder}


def _target(data: str, case_id: str):
    from crossmoda.dataset import open_dataset

    case = next((case for case in open_dataset(Path(data)).targets if case.id == case_id), None)
    if case is None:
        raise InputError(f"{case_id} is no longer in the data set; list the cases again.")
    return case


def _as_json(region) -> dict:
    content = {
        field.name: getattr(region, field.name) for field in dataclasses.fields(region) if field.name != "inside"
    }
    return {**content, "center_lps": list(region.center_lps), "box": [list(part) for part in region.box]}


def _probabilities(at: Path) -> dict[str, str]:
    """Return the probability map of each structure: the network's, else that of the fused atlases."""
    from crossmoda import labels
    from crossmoda.dataset.results import PREDICTION, probability

    files_of = {}
    for structure in labels.STRUCTURES:
        name = probability(structure)
        files = [file for file in (at / PREDICTION / name, at / name) if file.is_file()]
        files_of[structure.key] = str(files[0]) if files else ""
    return files_of


def _votes(at: Path, grid, into: Path) -> list[list[str]]:
    """Write the label map of each fused atlas, and their majority; return (atlas, file)."""
    from crossmoda.fusion import majority_vote
    from crossmoda.review.atlas_votes import read_atlas_votes
    from crossmoda.volume import Volume, write

    votes = read_atlas_votes(at, grid)
    files = [into / f"vote_{number}.nrrd" for number in range(len(votes))]
    for file, (_atlas, label_map) in zip(files, votes, strict=True):
        write(label_map, file)
    if votes:
        write(Volume(majority_vote([label_map.array for _atlas, label_map in votes]), grid), into / "majority.nrrd")
    return [[atlas, str(file)] for file, (atlas, _label_map) in zip(files, votes, strict=True)]


def _correction(data: str, case_id: str) -> str:
    """Return the label map of the correction in the data set; empty if there is none."""
    from crossmoda.dataset import corrections

    correction = corrections.load(data, case_id)
    return str(correction.label) if correction is not None and correction.label is not None else ""


VERBS = {
    "review_list": review_list,
    "review_case": review_case,
    "review_report": review_report,
    "compare_cochleae": compare_cochleae,
    "export_training_data": export_training_data,
}
