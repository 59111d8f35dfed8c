"""The plan of a study: its steps and their cost."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossmoda import cache, output, training
from crossmoda.dataset.results import NOISY_LABEL
from crossmoda.errors import CASE_ERRORS, sentence_of
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.atlases import Atlas, examine
from crossmoda.propagation.registrations import LINEAR, REGISTRATIONS
from crossmoda.propagation.run import registrations_at_most
from crossmoda.study.cohort import STUDY, Cohort, open_cohort
from crossmoda.study.configuration import Configuration

#: Cost of a registration before any was measured: processor seconds (192 x 192 x 64 crops of full-size scans on one
#: core of the 2020s), and bytes on disk. Size of noisy label and prediction of a target, bytes.
_SECONDS, _BYTES, _TARGET_BYTES = 4.0, 60_000, 3_000_000
#: Processor seconds of a target besides its registrations: reading, contralateral comparison, fusion, prediction.
_TARGET_SECONDS = 17.0
_COPIES = "{} of them per target at most are mirrored copies, which contribute a cochlea that no atlas has"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a study and their cost."""

    atlases: int
    targets: int
    tests: int
    references: int
    unusable: dict[str, str]
    """unusable atlases and targets -> reason"""
    registrations: int
    """maximum number of registrations of the study"""
    done: int
    """finished registrations"""
    copies: int
    """maximum number of mirrored copies per target"""
    seconds_each: float
    """processor seconds of a registration"""
    measured: int
    """number of registrations measured for that; 0: a typical value"""
    targets_done: int
    """targets with a noisy label (of any parameters)"""
    training: str
    bytes_needed: int
    bytes_free: int
    workers: str

    @property
    def processor_seconds(self) -> float:
        """Processor seconds left, without the training."""
        open_targets = self.targets - self.targets_done
        return (self.registrations - self.done) * self.seconds_each + open_targets * _TARGET_SECONDS

    def lines(self) -> list[str]:
        """Return the plan as text."""
        basis = f"measured on {self.measured}" if self.measured else "a typical value"
        left = self.registrations - self.done
        lines = [
            f"{self.atlases} atlases, {self.targets} targets ({self.tests} of them tests), "
            f"{self.references} with a reference",
            f"{'at most ' if self.copies else ''}{self.registrations} registrations, {self.done} of them done, "
            f"{left} left",
            *([_COPIES.format(self.copies)] if self.copies else []),
            f"{self.seconds_each:.1f} processor seconds each ({basis})",
            f"{readable_time(self.processor_seconds)} of processor time left, without the training",
            f"training: {self.training}",
            f"workers: {self.workers}",
            f"disk: about {self.bytes_needed / 1e6:.0f} MB more, {self.bytes_free / 1e9:.1f} GB free",
        ]
        return lines + [f"unusable: {name}: {reason}" for name, reason in self.unusable.items()]


def readable_time(seconds: float) -> str:
    """Return a time in a readable unit."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def plan(study: Configuration, progress: Progress | None = None) -> Plan:
    """Return the plan of a study; only the label maps of atlases are read, nothing is written.

    Raises:
        InputError: see :func:`crossmoda.study.cohort.open_cohort`.

    """
    cohort = open_cohort(study)
    atlases, unusable = _examined(cohort, part(progress, 0.0, 0.9))
    report(progress, 0.9, "counting finished registrations")
    each, copies = registrations_at_most(atlases, study.propagation)
    folders = [study.results / target.id / REGISTRATIONS for target in cohort.targets]
    seals = [seal for folder in folders for seal in _seals(folder, study)]
    seconds = sorted(seal["results"]["seconds"] for seal in seals if "seconds" in seal["results"])
    total = each * len(cohort.targets)
    finished = sum((study.results / case.id / NOISY_LABEL).exists() for case in cohort.targets)
    sizes = [seal["bytes"] for seal in seals]
    open_registrations = max(0, total - len(seals))
    return Plan(
        atlases=len(cohort.atlases),
        targets=len(cohort.targets),
        tests=len(cohort.tests),
        references=len(cohort.references),
        unusable=unusable,
        registrations=total,
        done=min(total, len(seals)),
        copies=copies,
        seconds_each=seconds[len(seconds) // 2] if seconds else _SECONDS,
        measured=len(seconds),
        targets_done=finished,
        training=_training(study),
        bytes_needed=int(
            open_registrations * (sum(sizes) / len(sizes) if sizes else _BYTES)
            + (len(cohort.targets) - finished) * _TARGET_BYTES
        ),
        bytes_free=shutil.disk_usage(_existing(study.results)).free,
        workers=_workers(study),
    )


def _examined(cohort: Cohort, progress: Progress | None) -> tuple[list[Atlas], dict[str, str]]:
    """Return the usable atlases, and the unusable atlases and targets with the reason."""
    atlases: list[Atlas] = []
    unusable = {case.id: "the file does not exist." for case in cohort.targets if not case.image.exists()}
    for number, case in enumerate(cohort.atlases):
        report(progress, number / len(cohort.atlases), f"examining atlas {case.id}")
        try:
            atlases.append(examine(case))
        except CASE_ERRORS as cause:
            unusable[case.id] = sentence_of(cause)
    return atlases, unusable


def _seals(folder: Path, study: Configuration) -> Iterator[dict[str, Any]]:
    """Yield the seals of the registrations in a folder that were finished with the parameters of the study."""
    linear = dataclasses.replace(study.registration, levels=0)
    registrations = [cache.digest(settings) for settings in (study.registration, linear)]
    wanted = {name: cache.digest(getattr(study.propagation, name)) for name in ("initialization", "region")}
    for file in sorted([*folder.glob(f"*/{cache.SEAL}"), *folder.glob(f"{LINEAR}/*/{cache.SEAL}")]):
        try:
            seal = output.read_json(file)
        except (OSError, ValueError):
            continue
        if not isinstance(seal, dict) or not all(isinstance(seal.get(name), dict) for name in ("results", "parts")):
            continue
        parts = seal["parts"]
        if parts.get("registration") in registrations and all(parts.get(name) == wanted[name] for name in wanted):
            files = [file.parent / name for name in seal.get("files", ())]
            yield {**seal, "bytes": sum(path.stat().st_size for path in files if path.is_file())}


def _training(study: Configuration) -> str:
    if not study.train:
        return "none"
    if (study.results / STUDY / "model" / training.WEIGHTS).exists():
        return "finished before; repeated only if cases or parameters changed"
    if study.training.seconds:
        return f"at most {readable_time(study.training.seconds)}"
    routine = training.routine(study.training)
    return f"{routine.epochs} epochs; its time depends on the machine"


def _workers(study: Configuration) -> str:
    settings = study.cluster
    if settings.place == "local":
        return f"{settings.local_workers} processes of this computer, {settings.threads} threads each"
    return f"those of {settings.address}" if settings.place == "scheduler" else f"{settings.jobs} SLURM jobs"


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)
