"""What the workers do. Each task finds its work done, or does it and seals it; what it returns is small.

A task does not raise what a user has to hear: that travels home as :class:`Failed` (of this case) or :class:`Stopped`
(of all). What it raises is unexpected, and the scheduler has it done again.
"""

import dataclasses
import errno
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from crossmoda import cache, dataset, deeds, evaluation, fusion, inference, labels, propagation, training, volume
from crossmoda.anatomy import laterality
from crossmoda.dataset import Case
from crossmoda.errors import Cancelled, InputError
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress
from crossmoda.propagation.atlases import Atlas, PreparedAtlases, examine
from crossmoda.propagation.run import PlannedRegistration, Run
from crossmoda.propagation.target import load_target
from crossmoda.provenance import checksum

#: Under which name workers tell how far a training is.
TOPIC = "crossmoda-training"
#: Seconds between two looks whether the study was cancelled, and between two reports of a training.
_LOOK_EVERY, _TELL_EVERY = 0.5, 2.0
_REVISION = 2


class Failed(NamedTuple):
    """A task of a case could not be done: the case is reported, the rest goes on."""

    why: str


class Stopped(NamedTuple):
    """Nothing can go on: the disk is full, or the study was cancelled."""

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
        except OSError as cause:
            if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return Stopped(f"The disk is full ({cause}). Free some space and run again; what is finished is kept.")

    return guarded


@dataclasses.dataclass(frozen=True)
class Job:
    """What the tasks of one target share."""

    target: Case
    folder: Path
    settings: propagation.Settings
    registration: deeds.Settings
    fusion: fusion.Settings
    has_cochlea: bool
    """whether any atlas of the study has a cochlea"""
    stop_file: Path
    """there when the study was cancelled"""

    def run(self, atlases: Sequence[Atlas]) -> Run:
        """Return the propagation with these atlases, or with some of them for some of its registrations."""
        run = Run(
            self.target,
            self.folder,
            self.settings,
            self.registration,
            self.fusion,
            load=_loaded,
            has_cochlea=self.has_cochlea,
            prepared=_prepared,
        )
        run.examine(atlases)
        return run


#: A worker registers the same atlases to one target after the other.
_prepared = PreparedAtlases()
#: One worker registers many atlases to the same target, one after the other.
_loaded = functools.lru_cache(maxsize=2)(load_target)


def watching(stop_file: Path, tell: Progress | None = None) -> Progress:
    """Return a progress that cancels when the study was cancelled, and tells ``tell`` every other second."""
    last = {"look": 0.0, "tell": 0.0}

    def progress(fraction: float, message: str) -> None:
        now = time.monotonic()
        if now - last["look"] > _LOOK_EVERY:
            last["look"] = now
            if stop_file.exists():
                raise Cancelled
        if tell is not None and now - last["tell"] > _TELL_EVERY:
            last["tell"] = now
            tell(fraction, message)

    return progress


class Checked(NamedTuple):
    """A scan that can be used."""

    problems: tuple[str, ...]
    """what is wrong with it nevertheless"""
    atlas: Atlas | None
    """it as an atlas; None for a target"""


@_task
def check(case: Case, folder: Path) -> Checked:
    """Read a scan and its label once; remember in ``folder`` what was found."""
    is_atlas = case.modality == dataset.CET1
    content = [checksum(path) if path is not None and path.exists() else None for path in (case.image, case.label)]
    step = cache.Step(folder, check=_REVISION, content=content, side=case.side, modality=case.modality)
    found = step.results()
    if found is None:
        found = _check(case, is_atlas)
        step.begin()
        step.finish([], found)
    if "failed" in found:
        raise InputError(found["failed"])
    return Checked(tuple(found["problems"]), _atlas_of(case, found["atlas"]) if is_atlas else None)


def _check(case: Case, is_atlas: bool) -> dict[str, Any]:
    problems = dataset.validate(dataset.Dataset(Path(case.image).parent, (case,)))
    if spoiled := [problem for problem in problems if problem.file == case.image]:
        return {"failed": str(spoiled[0])}
    about: dict[str, Any] = {"problems": [str(problem) for problem in problems]}
    if is_atlas:
        try:
            atlas = examine(case)
        except InputError as cause:
            return {"failed": str(cause)}
        sides = {str(value): sorted(names) for value, names in atlas.sides.of.items()}
        about["atlas"] = {"midplane_mm": atlas.sides.midplane_mm, "sides": sides, "side": atlas.side}
        about["atlas"]["volumes_mm3"] = atlas.volumes_mm3
    return about


def _atlas_of(case: Case, found: dict[str, Any]) -> Atlas:
    sides = {int(value): frozenset(names) for value, names in found["sides"].items()}
    return Atlas(case, laterality.Sides(found["midplane_mm"], sides), found["side"], found["volumes_mm3"])


class Next(NamedTuple):
    """What a target waits for."""

    pairs: tuple[tuple[str, bool, bool], ...]
    """registrations: atlas, mirrored, linear"""
    last: bool
    """whether only the fusion comes after them"""
    finished: bool
    """whether the noisy label is there"""


@_task
def next_registrations(job: Job, atlases: Sequence[Atlas]) -> Next:
    """Return the registrations that the next decision about a target waits for."""
    run = job.run(atlases)
    if run.step().results() is not None:
        return Next((), True, True)
    pairs = run.pending()
    return Next(tuple(pair.key for pair in pairs), not pairs or run.fraction(pairs) == 1.0, False)


@_task
def register(job: Job, atlas: Atlas, mirrored: bool, linear: bool) -> float:
    """Do one registration; return its seconds. One that fails is sealed as failed and excluded by the fusion."""
    run, planned = job.run([atlas]), PlannedRegistration(atlas, mirrored, linear)
    if not run.is_finished(planned):
        run.register([planned], watching(job.stop_file), parallel=1)
    item = run.registered(planned)
    return 0.0 if item is None else item.seconds


class Noisy(NamedTuple):
    """The noisy label of a target."""

    side: str | None
    used: int
    """atlases that were fused"""
    notes: tuple[str, ...]
    reused: bool


@_task
def fuse(job: Job, atlases: Sequence[Atlas]) -> Noisy:
    """Make the noisy label of a target from its registrations."""
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
    return Noisy(result.tumor_side, len(result.contributors), result.notes, result.reused)


@_task
def train(
    cases: Sequence[training.TrainingCase],
    folder: Path,
    settings: training.Settings,
    initial: Path | None,
    threads: int,
    stop_file: Path,
) -> Path:
    """Train a network, or go on where an earlier worker stopped; return its weights."""
    import torch
    from distributed import get_worker

    torch.set_num_threads(threads)
    worker = get_worker()
    tell = watching(stop_file, lambda fraction, message: worker.log_event(TOPIC, (fraction, message)))
    content = [[case.id, checksum(case.label), checksum(case.image)] for case in cases]
    step = cache.Step(folder / "begun", cases=content, settings=settings, initial=checksum(initial) if initial else "")
    # A checkpoint of a training with other cases or settings is of no use here.
    restart = step.results() is None
    step.begin()
    step.finish([], {})
    how = dataclasses.replace(settings, restart=True) if restart else settings
    return training.train(cases, folder, how, progress=tell, initial=initial)


class Predicted(NamedTuple):
    """The prediction of a target."""

    volumes_mm3: dict[str, float]
    notes: tuple[str, ...]
    reused: bool


@_task
def predict(target: Case, results: Path, weights: Path | None, settings: inference.Settings, stop: Path) -> Predicted:
    """Segment a target with the network."""
    done, failed = inference.predict_all([target], results, weights, settings, watching(stop))
    if target.id in failed:
        raise InputError(failed[target.id])
    found = done[target.id]
    return Predicted(dict(found.volumes_mm3), tuple(found.notes), found.reused)


@_task
def evaluate(files: dict[str, Path], reference: Path) -> dict[str, evaluation.Scores]:
    """Score label maps of one target against its reference."""
    scores = {}
    for name, path in files.items():
        label_map = volume.read_label_map(path)
        truth = volume.read_label_map(reference, label_map.grid)
        labels.check_values(truth.array, f"the reference {reference}")
        if not truth.grid.same_as(label_map.grid):
            truth = volume.resample(truth, label_map.grid, interpolation="label")
        scores[name] = evaluation.evaluate(label_map, truth)
    return scores
