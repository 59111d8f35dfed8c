"""A better model from corrections: training on, and an honest comparison before anybody uses it.

Some corrected cases are held out: neither their correction nor their noisy label is ever learned from. The old and the
new model segment them, and the corrections say which is better. Which are held out is decided by their id alone, so
that a case does not change sides when more cases are corrected.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossmoda import cache, dataset, device, output, parameters, training, weights
from crossmoda.dataset.corrections import Correction, all_corrections
from crossmoda.dataset.results import NOISY_LABEL
from crossmoda.errors import InputError
from crossmoda.evaluation import dice_per_structure
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.provenance import checksum
from crossmoda.review import models
from crossmoda.review.models import Model
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case
    from crossmoda.training import TrainingCase

#: The files of a comparison, in the folder of the new model.
TABLE, PICTURES = "comparison.json", "comparison"
_TRAINING = ".training-"
#: Fewer settled cases cannot be divided into some to learn from and some to compare on.
LEAST_CASES = 2


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """How a model learns from corrections."""

    seconds: float = parameter(
        600.0, "How long to train; 0 goes through all epochs", unit="s", minimum=0, maximum=1_000_000
    )
    epochs: int = parameter(
        0, "Largest number of passes over all cases; 0 takes the preset's", minimum=0, maximum=1_000_000, advanced=True
    )
    held_out: float = parameter(
        0.2,
        "Share of the corrected cases that is never learned from, to compare the old and the new model on",
        minimum=0.05,
        maximum=0.5,
        advanced=True,
    )
    learning_rate: float = parameter(
        0.0,
        "Largest learning rate; 0 takes a third of the preset's",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    seed: int = parameter(0, "Seed of everything random", minimum=0, maximum=2**31 - 1, advanced=True)
    device: str = parameter("auto", "Where to compute", choices=device.CHOICES)


#: Dice of each structure in each case.
Scores = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The old and the new model on corrected cases that the new one has not learned from."""

    old: Model
    new: Model
    before: Scores
    """case -> structure -> Dice of the old model with the correction"""
    after: Scores
    """the same of the new model"""
    pictures: dict[str, tuple[Path, Path]]
    """case -> pictures of the old and of the new model's outlines, the correction dashed; empty without matplotlib"""
    learned_from: dict[str, int]
    """how many cases of each kind the new model learned from"""
    notes: tuple[str, ...]

    @property
    def gain(self) -> float:
        """The new model's mean Dice less the old one's, over cases and structures."""
        return mean_dice(self.after) - mean_dice(self.before)

    def rows(self) -> list[list[str]]:
        """Return the table: case, structure, Dice before and after."""
        return [
            [case, key, f"{value:.3f}", f"{self.after[case][key]:.3f}"]
            for case, scores in self.before.items()
            for key, value in scores.items()
        ]


def mean_dice(scores: Scores) -> float:
    """Return the mean over cases and structures."""
    return float(np.mean([value for case in scores.values() for value in case.values()]))


def held_out(ids: Sequence[str], share: float, earlier: Sequence[str] = ()) -> list[str]:
    """Return the cases that are not learned from: ``earlier`` ones, and those whose id draws a number below ``share``.

    Where that is none it is the case with the lowest number; one case at least is left to learn from.
    """
    drawn = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 for name in ids}
    order = sorted(ids, key=lambda name: (name not in earlier, drawn[name]))
    count = sum(name in earlier or drawn[name] < share for name in ids)
    return sorted(order[: min(max(count, 1), len(ids) - 1)])


def improve(
    data: Path | str,
    results: Path | str | None,
    models_folder: Path | str,
    settings: Settings = Settings(),
    progress: Progress | None = None,
) -> Comparison:
    """Train the model in use further with the corrections, and compare it with the result. Nothing is switched.

    It learns from the labeled ceT1 scans, the hrT2 scans that were corrected or accepted (full weight) and the other
    noisy labels (with their confidence).

    Args:
        data: the data set, with its corrections.
        results: the results of the propagation, ``<id>/``; None: no noisy labels are learned from.
        models_folder: the models; the new one is added there, with the comparison.
        settings: how to learn.
        progress: told what is done; cancels. A cancelled training goes on where it stopped when it is called again.

    Raises:
        InputError: fewer than :data:`LEAST_CASES` corrected or accepted labels, or a file that cannot be used.

    """
    old = models.current(models_folder)
    begun = weights.load(old.weights)  # the card within the file: the one beside it is for people
    material = _material(data, results, models_folder, settings)
    how = training.Settings(
        seconds=settings.seconds,
        epochs=settings.epochs or (1_000_000 if settings.seconds else 0),
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device=settings.device,
        preset=begun.settings.preset,
        width=begun.settings.width,
    )
    place = Path(models_folder) / f"{_TRAINING}{_identity(material, how, old)}"
    trained = training.train(
        material.learning,
        place,
        how,
        None,
        part(progress, 0.0, 0.85),
        preparation=begun.preparation,
        initial=old.weights,
    )
    found = _segment(material.kept, (old.weights, trained), settings, part(progress, 0.85, 0.97))
    before = {case.id: dice_per_structure(maps[0].array, truth.array) for case, maps, truth in found}
    after = {case.id: dice_per_structure(maps[1].array, truth.array) for case, maps, truth in found}
    about = {
        "learned_from": {**material.counts, "initial": old.name},
        "held_out": [case.id for case in material.kept],
        "corrections": material.decisions,
        "metrics": {"dice_on_held_out_corrections": after, "dice_of_the_initial_model": before},
    }
    new = models.add(models_folder, trained, about=about)
    shutil.rmtree(place, ignore_errors=True)
    pictures, notes = _draw(found, new.weights.parent / PICTURES)
    comparison = Comparison(old, new, before, after, pictures, material.counts, tuple(notes))
    content = {"old": old.name, "new": new.name, "before": before, "after": after, "gain": comparison.gain}
    output.write_json(new.weights.parent / TABLE, content)
    report(progress, 1.0, "compared")
    return comparison


class _Material(NamedTuple):
    """What is learned from and what is not."""

    kept: "list[Case]"
    """the cases that are held out, with their correction as label"""
    learning: "list[TrainingCase]"
    counts: dict[str, int]
    decisions: dict[str, Any]
    """per settled case: which correction it is"""


def _material(data: Path | str, results: Path | str | None, models_folder: Path | str, settings: Settings) -> _Material:
    found = dataset.open_dataset(data)
    decided = all_corrections(data)
    settled = {case.id: decided[case.id] for case in found.targets if case.id in decided}
    settled = {name: one for name, one in settled.items() if one.is_settled and one.label is not None}
    if len(settled) < LEAST_CASES:
        raise InputError(
            f"{data} has {len(settled)} corrected or accepted labels; settle at least {LEAST_CASES}, one to learn from "
            "and one to compare on."
        )
    earlier = [name for model in models.models(models_folder) for name in model.card.get("held_out", [])]
    names = held_out(list(settled), settings.held_out, earlier)
    kept = [case for case in found.targets if case.id in names]
    others = [case for case in found.targets if case.id not in names]
    groups = {
        "sources": [training.TrainingCase.of(case) for case in found.sources],
        "corrected": training.corrected_cases(others, settled),
        "noisy": _noisy(others, results, decided),
    }
    learning = [case for group in groups.values() for case in group]
    counts = {name: len(group) for name, group in groups.items()}
    decisions = {name: {"status": one.status, "number": one.number} for name, one in settled.items()}
    return _Material(kept, learning, counts, decisions)


def _noisy(
    targets: "Sequence[Case]", results: Path | str | None, decided: Mapping[str, Correction]
) -> "list[TrainingCase]":
    """Return the noisy labels that are left; none without results."""
    if results is None or not any((Path(results) / case.id / NOISY_LABEL).is_file() for case in targets):
        return []
    return training.noisy_cases(targets, results, decided)


def _identity(material: _Material, how: training.Settings, old: Model) -> str:
    """Return what tells this training from others, so that one that was cancelled goes on."""
    files = [[checksum(case.image), checksum(case.label)] for case in material.learning]
    confidences = [checksum(case.confidence) if case.confidence else "" for case in material.learning]
    return cache.digest([files, confidences, how, checksum(old.weights)])[:12]


def _segment(
    kept: "Sequence[Case]", both: Sequence[Path], settings: Settings, progress: Progress | None
) -> "list[tuple[Case, list[Volume], Volume]]":
    """Return each held-out case with the label maps of the old and the new model and the correction."""
    from crossmoda import inference

    loaded = [weights.load(path) for path in both]
    found = []
    for number, case in enumerate(kept):
        report(progress, number / len(kept), f"comparing on {case.id}")
        image = case.read_image()
        maps = [
            inference.predict(image, model, inference.Settings(device=settings.device)).label_map for model in loaded
        ]
        found.append((case, maps, case.read_label(image)))
    return found


def _draw(
    found: "Sequence[tuple[Case, list[Volume], Volume]]", folder: Path
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Write the pictures before and after; return them and what a user should know."""
    try:
        from crossmoda import figures

        pictures = {}
        for case, maps, truth in found:
            image = case.read_image()
            files = folder / f"{case.id}_before.png", folder / f"{case.id}_after.png"
            for file, label_map in zip(files, maps, strict=True):
                figure = figures.segmentation_figure(image, label_map, truth)
                with output.atomic(file) as temporary:
                    figure.savefig(temporary, format="png")
            pictures[case.id] = files
        return pictures, []
    except ImportError:
        return {}, ["There are no pictures: matplotlib is not installed."]
