"""Training of a network, with checkpoints, validation and early stopping.

All random numbers depend on the seed and the step only, so an interrupted and resumed training gives the same bits as
an uninterrupted one (without a time limit). On CUDA all operations are deterministic if the crop size is a multiple
of the network's strides.
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import cache, locks, output, preprocessing, provenance, weights
from crossmoda import device as devices
from crossmoda.dataset import open_dataset
from crossmoda.dataset.corrections import all_corrections
from crossmoda.dataset.label_reading import checksum_of
from crossmoda.errors import Cancelled, InputError
from crossmoda.progress import Progress, part, report
from crossmoda.training import logs
from crossmoda.training.cases import TrainingCase, check_cases, corrected_cases, noisy_cases
from crossmoda.training.routines import routine
from crossmoda.training.settings import Settings

if TYPE_CHECKING:
    from crossmoda.training.learner import Learner
    from crossmoda.training.sampling import Example

WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.csv"
#: Folder of the metrics for TensorBoard, if it is installed.
BOARD = "tensorboard"
#: Folder of the prepared volumes, reused when a training is resumed.
PREPARED = "prepared"
_CHECKPOINT_INTERVAL_S = 60.0
#: Number of validations per training.
_VALIDATIONS = 20


def train(
    cases: Sequence[Any],
    folder: Path | str,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    validation: Sequence[Any] | None = None,
    progress: Progress | None = None,
    *,
    preparation: preprocessing.Preparation | None = None,
    initial: Path | str | None = None,
) -> Path:
    """Train a network and write its weights.

    Args:
        cases: :class:`TrainingCase` or labeled :class:`crossmoda.dataset.Case`.
        folder: receives ``weights.safetensors`` with its model card ``weights.json``, ``metrics.csv``, and, during
            training, ``checkpoint.safetensors`` and prepared volumes.
        validation: cases for validation, never trained on; the weights with the best Dice on them are saved.
        progress: callback(fraction, message); raise ``Cancelled`` to stop with a checkpoint.
        preparation: preprocessing of the scans, stored with the weights; None: as published.
        initial: initial weights; None: the bundled ones if they are of the same network and
            ``settings.from_scratch`` is not set, else random ones.

    Returns:
        The path of the weights.

    Raises:
        InputError: no cases, an unusable case, a case used for both training and validation, a checkpoint of another
            training, or initial weights of another architecture.

    """
    begun = time.monotonic()
    initial = initial or _bundled(settings)
    learning = [TrainingCase.of(case) for case in cases]
    checking = [TrainingCase.of(case) for case in validation or ()]
    check_cases(learning, checking)
    preparation = preparation or preprocessing.Preparation()
    with locks.locked(folder):
        return _train(learning, checking, Path(folder), settings, progress, preparation, initial, begun)


def _train(
    learning: Sequence[TrainingCase],
    checking: Sequence[TrainingCase],
    folder: Path,
    settings: Settings,
    progress: Progress | None,
    preparation: preprocessing.Preparation,
    initial: Path | str | None,
    begun: float,
) -> Path:
    """Train in a folder that no other run uses; see :func:`train`."""
    identity = _identity(learning, checking, settings, preparation, initial)
    if not settings.restart and (finished := _finished(folder, identity)):
        report(progress, 1.0, "trained before; weights reused")
        return finished
    if not settings.restart and (folder / WEIGHTS).is_file() and not (folder / CHECKPOINT).exists():
        raise InputError(
            f"Folder with the model of another training (other cases or settings): {folder / WEIGHTS}. Select another "
            "folder, or restart to replace it."
        )

    from crossmoda.training import sampling
    from crossmoda.training.learner import Learner

    record = provenance.Record("train", settings, device=devices.describe(devices.choose(settings.device)))
    prepared = folder / PREPARED
    examples = sampling.load(learning, preparation, prepared, part(progress, 0.0, 0.03), settings.network.field)
    held_out = sampling.load(checking, preparation, prepared, part(progress, 0.03, 0.04), settings.network.field)
    learner = Learner(examples, routine(settings, fine_tuning=bool(initial)), settings, initial, held_out)
    if not settings.restart:
        _resume(learner, folder, identity)
    learner.spent_before = time.monotonic() - begun
    _run(learner, folder, identity, settings, part(progress, 0.04, 1.0))
    metrics = learner.best_metrics or (learner.history[-1] if learner.history else {})
    if share := learner.routine.initial_share:  # the loss is of the trained weights
        metrics = {name: value for name, value in metrics.items() if name != "loss"}
    card = weights.new_card(
        learner.network_settings,
        preparation,
        training={
            **record.finish(steps=learner.step, fallbacks=learner.fallbacks),
            "cases": len(learning),
            "examples": len(examples),
            "validation_cases": len(checking),
            "initial_share": share,
            "notes": _notes(learner.fallbacks, [*learning, *checking], [*examples, *held_out]),
            "optimization_seconds": round(learner.seconds, 1),
            "processor_minutes": round(learner.processor_seconds / 60, 2),
            "identity": identity,
        },
        metrics=metrics,
        **weights.inherited(initial),
    )
    path = weights.save(folder / WEIGHTS, learner.best_state or learner.learned(), card)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(prepared, ignore_errors=True)
    report(progress, 1.0, "trained")
    return path


def train_folder(
    data: Path | str,
    folder: Path | str,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    noisy: Path | str | None = None,
    validation: Path | str | None = None,
    initial: Path | str | None = None,
) -> Path:
    """Train on a data set on disk (see :func:`train`).

    Args:
        data: the data set; its labeled ceT1 scans and corrected or accepted hrT2 scans
            (:mod:`crossmoda.dataset.corrections`) are used with full weight.
        noisy: folder of the propagations to its hrT2 scans; uncorrected noisy labels are then used as well, weighted by
            their confidence.
        validation: another data set, whose labeled scans are used for validation only.

    """
    output.check_writable(folder, is_folder=True)
    dataset, corrections = open_dataset(data), all_corrections(data)
    cases = [TrainingCase.of(case) for case in dataset.sources]
    cases += corrected_cases(dataset.targets, corrections)
    cases += noisy_cases(dataset.targets, noisy, corrections) if noisy else []
    held_out = [TrainingCase.of(case) for case in open_dataset(validation).cases if case.label] if validation else []
    return train(cases, folder, settings, held_out, progress, initial=initial)


def notes_of(path: Path | str) -> str:
    """Return what the user has to know of the training of weights; empty if nothing.

    It names cases, so it is no part of the card's own notes, which reports of other patients show.
    """
    return str(weights.read_tensors(path)[1].get("training", {}).get("notes", ""))


def _notes(fallbacks: Sequence[str], cases: Sequence[TrainingCase], examples: "Sequence[Example]") -> str:
    """Return what the user has to know of a training: what ran out, and which cases taught nothing."""
    used = {example.id for example in examples}
    unused = [case.name for case in cases if case.name not in used]
    left_out = [f"Not used, since no ear is recognized in them: {', '.join(unused)}."] if unused else []
    return " ".join([*(f"{text[0].upper()}{text[1:]}." for text in fallbacks), *left_out])


def _bundled(settings: Settings) -> Path | None:
    """Return the bundled weights if a training of these settings begins with them."""
    path = weights.bundled()
    if settings.from_scratch or settings.network.field == "scan" or weights.load(path).settings != settings.network:
        return None
    return path


def _identity(
    learning: Sequence[TrainingCase],
    checking: Sequence[TrainingCase],
    settings: Settings,
    preparation: preprocessing.Preparation,
    initial: Path | str | None,
) -> str:
    """Return a digest of everything the result depends on."""

    def digest(case: TrainingCase) -> list[Any]:
        confidence = provenance.checksum(case.confidence) if case.confidence else None
        return [provenance.checksum(case.image), checksum_of(case.label), confidence]

    chosen = {key: value for key, value in dataclasses.asdict(settings).items() if key not in ("device", "restart")}
    start = provenance.checksum(initial) if initial else None
    content = [[digest(case) for case in group] for group in (learning, checking)]
    return cache.digest([content, chosen, preparation, start])


def _finished(folder: Path, identity: str) -> Path | None:
    """Return the weights in the folder if the same training wrote them."""
    path = folder / WEIGHTS
    if not path.is_file() or (folder / CHECKPOINT).exists():
        return None
    with contextlib.suppress(InputError):
        _, card = weights.read_tensors(path)
        training = card.get("training")
        if isinstance(training, dict) and training.get("identity") == identity:
            return path
    return None


def _resume(learner: "Learner", folder: Path, identity: str) -> None:
    """Restore the checkpoint of the folder, if there is any."""
    path = folder / CHECKPOINT
    if not path.exists():
        return
    try:
        tensors, state = weights.read_tensors(path)
    except InputError as cause:
        reason = str(cause).partition(". ")[0]
        raise InputError(f"Cannot resume the training ({reason}). Restart it, or select another folder.") from cause
    if state.get("identity") != identity:
        raise InputError(
            f"Checkpoint of another training (other cases or settings): {path}. Restart, or select another folder."
        )
    learner.restore(tensors, state)


def _run(
    learner: "Learner",
    folder: Path,
    identity: str,
    settings: Settings,
    progress: Progress | None,
) -> None:
    """Take the remaining steps and write metrics and checkpoints."""
    saved = time.monotonic()

    def save() -> None:
        tensors, state = learner.snapshot()
        weights.write_tensors(folder / CHECKPOINT, tensors, {**state, "identity": identity})

    with logs.board(folder / BOARD, len(learner.history)) as board:

        def end_epoch() -> None:
            learner.end_epoch(_VALIDATIONS)
            logs.write_metrics(folder / METRICS, learner.history)
            board(learner.history[-1])

        try:
            if learner.epoch_is_due:  # it was interrupted then
                end_epoch()
            while learner.fraction < 1 and not _stops_early(learner, settings):
                report(progress, learner.fraction, learner.describe())
                learner.take_step()
                if learner.epoch_is_due:
                    end_epoch()
                if time.monotonic() - saved > _CHECKPOINT_INTERVAL_S:
                    save()
                    saved = time.monotonic()
            if learner.epoch_is_open or not learner.history:
                end_epoch()
        except (Cancelled, KeyboardInterrupt):
            save()
            raise


def _stops_early(learner: "Learner", settings: Settings) -> bool:
    return bool(settings.patience) and learner.validations_without_gain >= settings.patience
