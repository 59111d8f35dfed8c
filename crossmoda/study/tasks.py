"""The tasks of a study. Each task caches its result on disk or reuses it, and returns little data.

Expected errors are returned as :class:`Failed` (of a case) or :class:`Stopped` (of the study). Tasks that raise are
retried by the scheduler.
"""

import dataclasses
import errno
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from crossmoda import cache, dataset, deeds, evaluation, fusion, inference, propagation, training, volume
from crossmoda.anatomy import laterality
from crossmoda.dataset import Case
from crossmoda.dataset.label_reading import checksum_of, read_label
from crossmoda.errors import NOT_ENOUGH_MEMORY, Cancelled, InputError
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress
from crossmoda.propagation.atlases import Atlas, examine
from crossmoda.propagation.registrations import PlannedRegistration
from crossmoda.propagation.run import Run
from crossmoda.propagation.target import load_target
from crossmoda.provenance import checksum

#: Topic of the training progress events of workers.
TOPIC = "crossmoda-training"
#: Intervals of the checks for cancellation and of the training progress events.
_CHECK_INTERVAL_S, _REPORT_INTERVAL_S = 0.5, 2.0
_REVISION = 2


class Failed(NamedTuple):
    """The failure of a case; the study continues."""

    why: str


class Stopped(NamedTuple):
    """The end of the study: the disk is full, or it was cancelled."""

    why: str


T = TypeVar("T")


def _task(function: Callable[..., T]) -> Callable[..., T | Failed | Stopped]:
    @functools.wraps(function)
    def guarded(*arguments: Any) -> T | Failed | Stopped:
        try:
            return function(*arguments)
        except Cancelled:
            return Stopped("cancelled")
        except CannotWrite as cause:
            return Stopped(str(cause))
        except InputError as cause:
            return Failed(str(cause))
        except MemoryError:
            return Failed(NOT_ENOUGH_MEMORY)
        except OSError as cause:
            if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return Stopped(f"The disk is full ({cause}). Free space and run again; finished results are reused.")

    return guarded


@dataclasses.dataclass(frozen=True)
class Job:
    """The data shared by the tasks of a target."""

    target: Case
    folder: Path
    settings: propagation.Settings
    registration: deeds.Settings
    fusion: fusion.Settings
    stop_file: Path
    """exists if the study was cancelled"""

    def run(self, atlases: Sequence[Atlas]) -> Run:
        """Return the propagation with these atlases, or a part of it."""
        run = Run(
            self.target,
            self.folder,
            self.settings,
            self.registration,
            self.fusion,
            load=_loaded,
        )
        run.examine(atlases)
        return run


#: Shared by the registrations of a worker, which registers many atlases to the same target.
_loaded = functools.lru_cache(maxsize=2)(load_target)


def watching(stop_file: Path, receiver: Progress | None = None) -> Progress:
    """Return a progress callback that cancels if the study was cancelled and forwards to ``receiver`` periodically."""
    last_check = last_report = 0.0

    def progress(fraction: float, message: str) -> None:
        nonlocal last_check, last_report
        now = time.monotonic()
        if now - last_check > _CHECK_INTERVAL_S:
            last_check = now
            if stop_file.exists():
                raise Cancelled
        if receiver is not None and now - last_report > _REPORT_INTERVAL_S:
            last_report = now
            receiver(fraction, message)

    return progress


class Checked(NamedTuple):
    """A usable scan."""

    problems: tuple[str, ...]
    """problems that do not prevent its use"""
    atlas: Atlas | None
    """the scan as an atlas; None for a target"""


@_task
def check(case: Case, folder: Path) -> Checked:
    """Check a scan and its label; cache the result in ``folder``."""
    is_atlas = case.modality == dataset.CET1
    content = [
        take(path) if path is not None and path.exists() else None
        for take, path in ((checksum, case.image), (checksum_of, case.label))
    ]
    step = cache.CachedStep(folder, check=_REVISION, content=content, side=case.side, modality=case.modality)
    results = step.results()
    if results is None:
        results = _check(case, is_atlas)
        step.begin()
        step.finish([], results)
    if "failed" in results:
        raise InputError(results["failed"])
    return Checked(tuple(results["problems"]), _atlas_of(case, results["atlas"]) if is_atlas else None)


def _check(case: Case, is_atlas: bool) -> dict[str, Any]:
    problems = dataset.validate(dataset.Dataset(Path(case.image).parent, (case,)))
    if image_problems := [problem for problem in problems if problem.file == case.image]:
        return {"failed": str(image_problems[0])}
    results: dict[str, Any] = {"problems": [str(problem) for problem in problems]}
    if is_atlas:
        try:
            atlas = examine(case)
        except InputError as cause:
            return {"failed": str(cause)}
        sides = {str(value): sorted(names) for value, names in atlas.sides.of.items()}
        results["atlas"] = {"midplane_mm": atlas.sides.midplane_mm, "sides": sides, "side": atlas.side}
        results["atlas"]["volumes_mm3"] = atlas.volumes_mm3
    return results


def _atlas_of(case: Case, results: dict[str, Any]) -> Atlas:
    sides = {int(value): frozenset(names) for value, names in results["sides"].items()}
    return Atlas(case, laterality.Sides(results["midplane_mm"], sides), results["side"], results["volumes_mm3"])


class Next(NamedTuple):
    """The next registrations of a target."""

    pairs: tuple[tuple[str, bool, bool], ...]
    """registrations: atlas, mirrored, linear"""
    last: bool
    """whether only the fusion remains after them"""


@_task
def next_registrations(job: Job, atlases: Sequence[Atlas]) -> Next:
    """Return the registrations needed for the next decision about a target."""
    run = job.run(atlases)
    if run.step().results() is not None:
        return Next((), True)
    pairs = run.pending()
    return Next(tuple(pair.key for pair in pairs), not pairs or run.fraction(pairs) == 1.0)


@_task
def register(job: Job, atlas: Atlas, mirrored: bool, linear: bool) -> float:
    """Run a registration and return its seconds. A failed registration is cached and excluded from the fusion."""
    run, planned = job.run([atlas]), PlannedRegistration(atlas, mirrored, linear)
    if not run.registrations.is_finished(planned):
        run.registrations.register([planned], watching(job.stop_file), parallel=1)
    item = run.registered(planned)
    return 0.0 if item is None else item.seconds


class Noisy(NamedTuple):
    """The noisy label of a target."""

    side: str | None
    used: int
    """number of fused atlases"""
    notes: tuple[str, ...]


@_task
def fuse(job: Job, atlases: Sequence[Atlas]) -> Noisy:
    """Compute the noisy label of a target from its registrations."""
    result = propagation.propagate(
        job.target,
        atlases,
        job.folder,
        job.settings,
        watching(job.stop_file),
        registration=job.registration,
        fusion_settings=job.fusion,
        parallel_registrations=1,
    )
    return Noisy(result.tumor_side, len(result.contributors), result.notes)


@_task
def train(
    cases: Sequence[training.TrainingCase],
    folder: Path,
    settings: training.Settings,
    initial: Path | None,
    threads: int,
    stop_file: Path,
) -> Path:
    """Train a network, or resume its training; return the path of its weights."""
    import torch
    from distributed import get_worker

    torch.set_num_threads(threads)
    worker = get_worker()
    progress = watching(stop_file, lambda fraction, message: worker.log_event(TOPIC, (fraction, message)))
    content = [[case.id, checksum_of(case.label), checksum(case.image)] for case in cases]
    step = cache.CachedStep(
        folder / "begun", cases=content, settings=settings, initial=checksum(initial) if initial else ""
    )
    # A checkpoint of a training with other cases or settings cannot be resumed.
    restart = step.results() is None
    step.begin()
    step.finish([], {})
    settings = dataclasses.replace(settings, restart=True) if restart else settings
    return training.train(cases, folder, settings, progress=progress, initial=initial)


@_task
def predict(
    target: Case, results: Path, weights: Path | None, settings: inference.Settings, stop_file: Path
) -> inference.StoredPrediction:
    """Segment a target with the network."""
    predictions, failures = inference.predict_all([target], results, weights, settings, watching(stop_file))
    if target.id in failures:
        raise InputError(failures[target.id])
    return predictions[target.id]


@_task
def evaluate(files: dict[str, Path], reference: Path) -> dict[str, evaluation.Scores]:
    """Score label maps of one target against its reference."""
    scores = {}
    for name, path in files.items():
        label_map = volume.read_label_map(path)  # of this study: a mapping of the data set's names is none of its own
        truth = read_label(reference, label_map.grid)
        if not truth.grid.same_as(label_map.grid):
            truth = volume.resample(truth, label_map.grid, interpolation="label")
        scores[name] = evaluation.evaluate(label_map, truth)
    return scores


@_task
def growth(*arguments: Any) -> dict[str, Any]:
    """Measure the growth of one patient: :func:`crossmoda.growth.growth_files` with these arguments."""
    from crossmoda.growth import growth_files

    return growth_files(*arguments)
