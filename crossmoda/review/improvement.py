"""Improvement of a model with corrections, and comparison of the old and the new model on held-out cases.

Held-out cases are never trained on, neither with their correction nor with their noisy label. They are selected by a
hash of their ID, so the selection is stable when more cases are corrected.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossmoda import cache, dataset, output, training, weights
from crossmoda.dataset.corrections import Correction, all_corrections
from crossmoda.dataset.results import NOISY_LABEL
from crossmoda.errors import InputError
from crossmoda.evaluation import dice_per_structure
from crossmoda.progress import Progress, part, report
from crossmoda.provenance import checksum
from crossmoda.review import models
from crossmoda.review.models import Model
from crossmoda.review.settings import ImprovementSettings
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case
    from crossmoda.training import TrainingCase

#: File of the scores and folder of the pictures, in the folder of the new model.
TABLE, PICTURES = "comparison.json", "comparison"
_TRAINING = ".training-"
#: Minimum number of corrected or accepted cases: one for training and one held out.
MIN_CASES = 2


#: Dice by case and structure.
Scores = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class ModelComparison:
    """Comparison of the old and the new model on held-out corrected cases."""

    old: Model
    new: Model
    before: Scores
    """Dice of the old model"""
    after: Scores
    """Dice of the new model"""
    pictures: dict[str, tuple[Path, Path]]
    """per case: pictures of the old and the new model, correction dashed; empty without matplotlib"""
    learned_from: dict[str, int]
    """number of training cases by kind"""
    notes: tuple[str, ...]

    @property
    def gain(self) -> float:
        """Difference of the mean Dice, new minus old model."""
        return mean_dice(self.after) - mean_dice(self.before)

    def rows(self) -> list[list[str]]:
        """Return table rows: case, structure, Dice before and after."""
        return [
            [case, key, f"{value:.3f}", f"{self.after[case][key]:.3f}"]
            for case, scores in self.before.items()
            for key, value in scores.items()
        ]


def mean_dice(scores: Scores) -> float:
    """Return the mean Dice over cases and structures."""
    return float(np.mean([value for case in scores.values() for value in case.values()]))


def held_out(ids: Sequence[str], fraction: float, earlier: Sequence[str] = ()) -> list[str]:
    """Return the held-out cases: ``earlier`` ones, and those with an ID hash (0 to 1) below ``fraction``.

    At least one case is held out, and at least one is left for training.
    """
    hashes = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 for name in ids}
    order = sorted(ids, key=lambda name: (name not in earlier, hashes[name]))
    count = sum(name in earlier or hashes[name] < fraction for name in ids)
    return sorted(order[: min(max(count, 1), len(ids) - 1)])


def improve(
    data: Path | str,
    results: Path | str | None,
    models_folder: Path | str,
    settings: ImprovementSettings = ImprovementSettings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> ModelComparison:
    """Fine-tune the current model with the corrections, and compare both models. The current model does not change.

    Training cases are the labeled ceT1 scans, the corrected or accepted hrT2 scans (full weight), and the other noisy
    labels (weighted by their confidence).

    Args:
        data: the data set with its corrections.
        results: the results of the propagation, ``<id>/``; None: no noisy labels.
        models_folder: the models; receives the new model and the comparison.
        progress: callback(fraction, message); raise ``Cancelled`` to abort. The next call resumes the training.

    Raises:
        InputError: fewer than :data:`MIN_CASES` corrected or accepted labels, or an unusable file.

    """
    old = models.current(models_folder)
    initial = weights.load(old.weights)
    cases = _select_cases(data, results, models_folder, settings)
    training_settings = training.Settings(
        seconds=settings.seconds,
        epochs=settings.epochs or (1_000_000 if settings.seconds else 0),
        learning_rate=settings.learning_rate,
        unaveraged=settings.unaveraged,
        seed=settings.seed,
        device=settings.device,
        preset=initial.settings.preset,
        width=initial.settings.width,
        field=initial.settings.field,
        inputs=initial.settings.inputs,
    )
    folder = Path(models_folder) / f"{_TRAINING}{_identity(cases, training_settings, old)}"
    trained = training.train(
        cases.training,
        folder,
        training_settings,
        None,
        part(progress, 0.0, 0.85),
        preparation=initial.preparation,
        initial=old.weights,
    )
    predictions = _predict(cases.held_out, (old.weights, trained), settings, part(progress, 0.85, 0.97))
    before, after = (
        {case.id: dice_per_structure(maps[index].array, truth.array) for case, maps, truth in predictions}
        for index in (0, 1)
    )
    about = {
        "learned_from": {**cases.counts, "initial": old.name},
        "held_out": [case.id for case in cases.held_out],
        "corrections": cases.decisions,
        "metrics": {"dice_on_held_out_corrections": after, "dice_of_the_initial_model": before},
    }
    new = models.add(models_folder, trained, about=about)
    shutil.rmtree(folder, ignore_errors=True)
    pictures, notes = _draw(predictions, new.weights.parent / PICTURES)
    if about_training := training.notes_of(new.weights):
        notes.append(about_training)
    comparison = ModelComparison(old, new, before, after, pictures, cases.counts, tuple(notes))
    content = {"old": old.name, "new": new.name, "before": before, "after": after, "gain": comparison.gain}
    output.write_json(new.weights.parent / TABLE, content)
    report(progress, 1.0, "compared")
    return comparison


class _Cases(NamedTuple):
    """Held-out cases and training cases."""

    held_out: "list[Case]"
    """with their correction as label"""
    training: "list[TrainingCase]"
    counts: dict[str, int]
    decisions: dict[str, Any]
    """status and number of each correction"""


def _select_cases(
    data: Path | str, results: Path | str | None, models_folder: Path | str, settings: ImprovementSettings
) -> _Cases:
    scans, corrections = dataset.open_dataset(data), all_corrections(data)
    settled = {case.id: corrections[case.id] for case in training.corrected_cases(scans.targets, corrections)}
    if len(settled) < MIN_CASES:
        raise InputError(
            f"Too few corrected or accepted labels: {len(settled)} in {data}. Correct or accept at least {MIN_CASES}."
        )
    earlier = [name for model in models.models(models_folder) for name in model.card.get("held_out", [])]
    names = held_out(list(settled), settings.held_out, earlier)
    held_out_cases = [case for case in scans.targets if case.id in names]
    other_targets = [case for case in scans.targets if case.id not in names]
    groups = {
        "sources": [training.TrainingCase.of(case) for case in scans.sources],
        "corrected": training.corrected_cases(other_targets, settled),
        "noisy": _noisy(other_targets, results, corrections),
    }
    counts = {name: len(group) for name, group in groups.items()}
    decisions = {name: {"status": item.status, "number": item.number} for name, item in settled.items()}
    return _Cases(held_out_cases, [case for group in groups.values() for case in group], counts, decisions)


def _noisy(
    targets: "Sequence[Case]", results: Path | str | None, corrections: Mapping[str, Correction]
) -> "list[TrainingCase]":
    """Return the uncorrected noisy labels; none without results."""
    if results is None or not any((Path(results) / case.id / NOISY_LABEL).is_file() for case in targets):
        return []
    return training.noisy_cases(targets, results, corrections)


def _identity(cases: _Cases, settings: training.Settings, old: Model) -> str:
    """Return a digest of everything the training depends on, so that a cancelled training is resumed."""
    files = [[checksum(case.image), checksum(case.label)] for case in cases.training]
    confidences = [checksum(case.confidence) if case.confidence else "" for case in cases.training]
    return cache.digest([files, confidences, settings, checksum(old.weights)])[:12]


def _predict(
    cases: "Sequence[Case]", weights_paths: Sequence[Path], settings: ImprovementSettings, progress: Progress | None
) -> "list[tuple[Case, list[Volume], Volume]]":
    """Return each case with the label maps of the old and the new model and the correction."""
    from crossmoda import inference

    networks = [weights.load(path) for path in weights_paths]
    prediction_settings = inference.Settings(device=settings.device)
    predictions = []
    for number, case in enumerate(cases):
        report(progress, number / len(cases), f"comparing on {case.id}")
        image = case.read_image()
        maps = [inference.predict(image, network, prediction_settings).label_map for network in networks]
        predictions.append((case, maps, case.read_label(image)))
    return predictions


def _draw(
    predictions: "Sequence[tuple[Case, list[Volume], Volume]]", folder: Path
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Write the pictures of both models; return them and notes."""
    try:
        from crossmoda import figures

        pictures = {}
        for case, maps, truth in predictions:
            image = case.read_image()
            files = folder / f"{case.id}_before.png", folder / f"{case.id}_after.png"
            for file, label_map in zip(files, maps, strict=True):
                figure = figures.segmentation_figure(image, label_map, truth)
                with output.atomic(file) as temporary:
                    figure.savefig(temporary, format="png")
            pictures[case.id] = files
        return pictures, []
    except ImportError:
        return {}, ["No pictures, since matplotlib is not installed."]
