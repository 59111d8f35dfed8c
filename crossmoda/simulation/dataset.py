"""Data sets of digital subjects on disk, in the layout of crossMoDA 2021."""

import dataclasses
import shutil
import uuid
from pathlib import Path

import numpy as np

from crossmoda.errors import InputError
from crossmoda.output import PARTIAL, check_writable, write_json
from crossmoda.progress import Progress, part, report
from crossmoda.provenance import Record
from crossmoda.simulation.settings import Settings
from crossmoda.simulation.subject import SIDES, Subject, simulate_subject
from crossmoda.volume import Volume, write

SOURCE, TARGET, TEST, TRUTH = "source_training", "target_training", "target_validation", "truth"
#: Maximum number of subjects of a kind, weeks of computing and terabytes of disk.
_MAX_SUBJECTS = 10000


def simulate_dataset(
    folder: Path | str,
    *,
    sources: int = 6,
    targets: int = 4,
    tests: int = 2,
    seed: int = 0,
    base: str = "phantom",
    settings: Settings | None = None,
    base_folder: Path | str | None = None,
    shapes_folder: Path | str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a data set in crossMoDA 2021's layout and return its folder.

    ``source_training`` contains labeled ceT1 scans, ``target_training`` and ``target_validation`` unlabeled hrT2 scans
    of other subjects, ``truth`` the labels of these hrT2 scans, and ``dataset.json`` seed and tumor side of each
    subject. Tumor sides alternate within each group. The folder appears when the data set is complete.

    Args:
        folder: output folder, missing or empty.
        sources: number of labeled ceT1 subjects.
        targets: number of unlabeled hrT2 subjects for training.
        tests: number of unlabeled hrT2 subjects for testing.
        seed: subject n has the seed 1000 x ``seed`` + n.
        base: this and all others as in :func:`crossmoda.simulation.simulate_subject`.
        progress: callback(fraction, message); raise ``Cancelled`` to abort without any output.

    Raises:
        InputError: a count is out of range, all counts are 0, or the folder is not empty.

    """
    counts = {"sources": sources, "targets": targets, "tests": tests}
    for name, count in counts.items():
        if not 0 <= count <= _MAX_SUBJECTS:
            raise InputError(f"{name} must be 0 to {_MAX_SUBJECTS}; got {count}.")
    if seed < 0:
        raise InputError(f"seed must be an integer of at least 0; got {seed}.")
    total = sources + targets + tests
    if total == 0:
        raise InputError("Nothing to simulate: sources, targets and tests are 0. Increase one of them.")
    folder, settings = Path(folder), settings or Settings()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"Folder is not empty: {folder}. Select a new folder for the simulated data set.")
    check_writable(folder, is_folder=True)
    record = Record("simulate", {**dataclasses.asdict(settings), **counts, "seed": seed, "base": base})
    temporary = folder.with_name(f"{PARTIAL}{folder.name}-{uuid.uuid4().hex[:8]}")
    cases = []
    try:
        for n in range(total):
            role = SOURCE if n < sources else TARGET if n < sources + targets else TEST
            first = {SOURCE: 0, TARGET: sources, TEST: sources + targets}[role]
            step = part(progress, n / total, (n + 0.95) / total, f"subject {n + 1} of {total}: ")
            subject = simulate_subject(
                1000 * seed + n,
                base=base,
                side=SIDES[(n - first) % 2],
                settings=settings,
                base_folder=base_folder,
                shapes_folder=shapes_folder,
                progress=step,
            )
            _write_case(temporary, role, n + 1, subject)
            cases.append(
                {
                    "id": f"crossmoda_{n + 1}",
                    "role": role,
                    "seed": subject.seed,
                    "side": subject.side,
                    "tumor_mm3": round(subject.tumor_mm3(), 1),
                }
            )
            report(progress, (n + 1) / total, f"subject {n + 1} of {total} written")
        write_json(temporary / "dataset.json", {**record.finish(), "cases": cases})
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_case(folder: Path, role: str, number: int, subject: Subject) -> None:
    name = f"crossmoda_{number}"
    if role == SOURCE:
        write(_as_scanned(subject.cet1), folder / SOURCE / f"{name}_ceT1.nii.gz")
        write(subject.cet1_label, folder / SOURCE / f"{name}_Label.nii.gz")
    else:
        write(_as_scanned(subject.hrt2), folder / role / f"{name}_hrT2.nii.gz")
        write(subject.hrt2_label, folder / TRUTH / f"{name}_Label.nii.gz")


def _as_scanned(image: Volume) -> Volume:
    """Return the image in integers, as stored by scanners."""
    return image.with_array(np.clip(np.rint(image.array), 0, 32767).astype(np.int16))
