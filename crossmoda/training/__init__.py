"""Training the network on labeled sources and on targets with noisy labels.

Two routines: ``paper`` is the published one, ``default`` the one that measures best. Everything random is drawn from
the seed and the number of the step alone, so that a training that was stopped and resumed ends with the same bits as
one that was not (with a time limit, up to what that changes). On CUDA no operation is used whose sums have no fixed
order, as long as the sides of the crops are multiples of the network's strides.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import device as devices
from crossmoda import parameters, preprocessing, provenance, weights
from crossmoda.errors import Cancelled, InputError
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.training import logs
from crossmoda.training.cases import TrainingCase, check_cases, corrected_cases, noisy_cases

if TYPE_CHECKING:
    from crossmoda.training.learner import Learner
    from crossmoda.training.sampling import Example

WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.csv"
#: The same metrics for TensorBoard, where that is installed.
BOARD = "tensorboard"
#: Prepared volumes, kept for a training that is resumed.
PREPARED = "prepared"
#: Seconds between two checkpoints.
_CHECKPOINT_EVERY = 60.0
#: How often in one training the validation cases are predicted.
_VALIDATIONS = 20


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """How to train."""

    preset: str = parameter(
        "default",
        "Network and routine: 'default' learns best; 'paper' is the published recipe, for comparison",
        choices=("default", "paper"),
    )
    epochs: int = parameter(0, "Passes over all cases; 0 takes the preset's", minimum=0, maximum=1_000_000)
    seconds: float = parameter(
        0.0,
        "End the training, with its whole schedule, after this time at the latest; 0 sets no limit",
        unit="s",
        minimum=0,
        maximum=1_000_000,
    )
    learning_rate: float = parameter(
        0.0,
        "Largest learning rate; 0 takes the preset's, or a third of it with initial weights",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    batch: int = parameter(0, "Crops per step; 0 takes the preset's", minimum=0, maximum=64, advanced=True)
    width: float = parameter(
        1.0, "Multiplies the number of channels of the network", minimum=0.125, maximum=4, advanced=True
    )
    patience: int = parameter(
        0,
        "End early after so many validations without a better Dice; 0 never does",
        minimum=0,
        maximum=1000,
        advanced=True,
    )
    seed: int = parameter(0, "Seed of everything random", minimum=0, maximum=2**31 - 1, advanced=True)
    device: str = parameter("auto", "Where to compute", choices=devices.CHOICES)
    restart: bool = parameter(False, "Begin anew even if the output folder holds a training that can be resumed")


@dataclasses.dataclass(frozen=True)
class Routine:
    """What a preset means."""

    epochs: int
    visits: int
    """crops of each case in one epoch"""
    batch: int
    learning_rate: float
    one_cycle: bool
    """whether the learning rate rises and falls once (else it is constant)"""
    weight_decay: float
    crop: tuple[int, int, int] | None
    """(z, y, x); None: the whole prepared volume"""
    around: float
    """probability that a crop holds a structure"""
    rarity: float
    """the power of a label's rarity with which it counts in the cross entropy: 0.5 is the inverse square root"""
    dice: bool
    """whether Dice is added to the cross entropy"""
    augmentation: str


ROUTINES = {
    "default": Routine(300, 8, 2, 6e-3, True, 1e-4, (24, 64, 64), 0.7, 0.0, True, "default"),
    "paper": Routine(2000, 1, 1, 1e-3, False, 0.0, None, 0.0, 0.5, False, "paper"),
}


#: The learning rate that goes on from trained weights, relative to the one for random weights.
_GOING_ON = 1 / 3


def routine(settings: Settings, going_on: bool = False) -> Routine:
    """Return the preset's routine with what the settings change; ``going_on``: it begins with trained weights."""
    plan = ROUTINES[settings.preset]
    rate = plan.learning_rate * (_GOING_ON if going_on else 1)
    return dataclasses.replace(
        plan,
        epochs=settings.epochs or plan.epochs,
        batch=settings.batch or plan.batch,
        learning_rate=settings.learning_rate or rate,
    )


def train(
    cases: Sequence[Any],
    folder: Path | str,
    settings: Settings = Settings(),
    validation: Sequence[Any] | None = None,
    progress: Progress | None = None,
    *,
    preparation: preprocessing.Preparation | None = None,
    initial: Path | str | None = None,
    about: dict[str, Any] | None = None,
) -> Path:
    """Train a network and write its weights.

    Args:
        cases: :class:`TrainingCase` or labeled :class:`crossmoda.dataset.Case`.
        folder: receives ``weights.safetensors`` with its model card ``weights.json``, ``metrics.csv``, and, while
            training, ``checkpoint.safetensors`` and prepared volumes.
        settings: how to train.
        validation: cases that are predicted now and then and never learned from; the weights with the best Dice on
            them are kept.
        progress: cancels the training by raising ``Cancelled``; the checkpoint is then written.
        preparation: how scans are prepared (None: the published way); it becomes part of the weights.
        initial: weights to begin with instead of random ones.
        about: what the model card also says (data, license, notes).

    Returns:
        The path of the weights.

    Raises:
        InputError: no cases, a case that cannot be used, a validation case that is also a training case, a checkpoint
            of another training, or initial weights of another architecture.

    """
    folder = Path(folder)
    preparation = preparation or preprocessing.Preparation()
    learning = [TrainingCase.of(case) for case in cases]
    checking = [TrainingCase.of(case) for case in validation or ()]
    check_cases(learning, checking)
    identity = _identity(learning, checking, settings, preparation, initial)
    if not settings.restart and (done := _finished(folder, identity)):
        report(progress, 1.0, "already trained")
        return done

    from crossmoda.training import learner, sampling

    record = provenance.Record("train", settings, device=devices.describe(devices.choose(settings.device)))
    cache = folder / PREPARED
    examples = sampling.load(learning, preparation, cache, part(progress, 0.0, 0.03))
    held_out = sampling.load(checking, preparation, cache, part(progress, 0.03, 0.04))
    student = learner.Learner(examples, routine(settings, bool(initial)), settings, initial)
    if not settings.restart:
        _resume(student, folder, identity)
    _run(student, held_out, folder, identity, settings, part(progress, 0.04, 1.0))
    card = weights.new_card(
        student.network_settings,
        preparation,
        training={
            **record.finish(steps=student.step, fallbacks=student.fallbacks),
            "cases": len(learning),
            "validation_cases": len(checking),
            "optimization_seconds": round(student.seconds, 1),
            "processor_minutes": round(student.processor_seconds / 60, 2),
            "identity": identity,
        },
        metrics=student.best_metrics or (student.history[-1] if student.history else {}),
        **(about or {}),
    )
    path = weights.save(folder / WEIGHTS, student.best_state or student.network.state_dict(), card)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(cache, ignore_errors=True)
    report(progress, 1.0, "trained")
    return path


def train_folder(
    data: Path | str,
    folder: Path | str,
    settings: Settings = Settings(),
    progress: Progress | None = None,
    *,
    noisy: Path | str | None = None,
    validation: Path | str | None = None,
    initial: Path | str | None = None,
) -> Path:
    """Train on a data set on disk (see :func:`train`).

    Args:
        data: the data set; its labeled ceT1 scans are learned from, and the hrT2 scans that a reviewer corrected or
            accepted (:mod:`crossmoda.dataset.corrections`), all with full weight.
        folder: see :func:`train`.
        settings: how to train.
        progress: see :func:`train`.
        noisy: folder with the propagations to its hrT2 scans; those that nobody corrected are then learned from as
            well, with their confidence.
        validation: another data set, whose labeled scans are never learned from.
        initial: see :func:`train`.

    """
    from crossmoda.dataset import open_dataset
    from crossmoda.dataset.corrections import all_corrections

    found, corrections = open_dataset(data), all_corrections(data)
    cases = [TrainingCase.of(case) for case in found.sources]
    cases += corrected_cases(found.targets, corrections)
    cases += noisy_cases(found.targets, noisy, corrections) if noisy else []
    held_out = [TrainingCase.of(case) for case in open_dataset(validation).cases if case.label] if validation else []
    return train(cases, folder, settings, held_out, progress, initial=initial)


def _identity(
    learning: Sequence[TrainingCase],
    checking: Sequence[TrainingCase],
    settings: Settings,
    preparation: preprocessing.Preparation,
    initial: Path | str | None,
) -> str:
    """Return a digest of all that decides the result."""

    def digest(case: TrainingCase) -> list[Any]:
        confidence = provenance.checksum(case.confidence) if case.confidence else None
        return [provenance.checksum(case.image), provenance.checksum(case.label), confidence, case.weight]

    chosen = {key: value for key, value in dataclasses.asdict(settings).items() if key not in ("device", "restart")}
    start = provenance.checksum(initial) if initial else None
    content = [[digest(case) for case in group] for group in (learning, checking)]
    return hashlib.sha256(json.dumps([content, chosen, dataclasses.asdict(preparation), start]).encode()).hexdigest()


def _finished(folder: Path, identity: str) -> Path | None:
    """Return the weights if this very training has already ended in the folder."""
    path = folder / WEIGHTS
    if not path.is_file() or (folder / CHECKPOINT).exists():
        return None
    with contextlib.suppress(InputError):
        _, card = weights.read_tensors(path)
        training = card.get("training")
        if isinstance(training, dict) and training.get("identity") == identity:
            return path
    return None


def _resume(student: "Learner", folder: Path, identity: str) -> None:
    path = folder / CHECKPOINT
    if not path.exists():
        return
    try:
        tensors, state = weights.read_tensors(path)
    except InputError as cause:
        reason = str(cause).partition(";")[0]
        raise InputError(f"The training cannot be resumed: {reason}; restart, or choose another folder.") from cause
    if state.get("identity") != identity:
        raise InputError(
            f"{path} belongs to a training with other cases or settings; choose another folder, or restart."
        )
    student.restore(tensors, state)


def _run(
    student: "Learner",
    held_out: "Sequence[Example]",
    folder: Path,
    identity: str,
    settings: Settings,
    progress: Progress | None,
) -> None:
    """Take the steps that are left, with metrics, validations and checkpoints on the way."""
    saved = time.monotonic()

    def save() -> None:
        tensors, state = student.snapshot()
        weights.write_tensors(folder / CHECKPOINT, tensors, {**state, "identity": identity})

    with logs.board(folder / BOARD, len(student.history)) as board:

        def end_epoch() -> None:
            student.end_epoch(held_out, validations=_VALIDATIONS)
            logs.write_metrics(folder / METRICS, student.history)
            board(student.history[-1])

        try:
            while student.fraction < 1 and not _impatient(student, settings):
                report(progress, student.fraction, student.describe())
                student.take_step()
                if student.epoch_ended:
                    end_epoch()
                    if time.monotonic() - saved > _CHECKPOINT_EVERY:
                        save()
                        saved = time.monotonic()
        except (Cancelled, KeyboardInterrupt):
            save()
            raise
        if student.step_in_epoch or not student.history:
            end_epoch()


def _impatient(student: "Learner", settings: Settings) -> bool:
    return bool(settings.patience) and student.validations_without_gain >= settings.patience
