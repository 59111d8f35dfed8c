"""The paper's experiment on digital subjects: does MIND close the gap between ceT1 and hrT2, do noisy labels help?

    python Testing/benchmarks/experiment.py --folder FOLDER --base-folder ICBM --shapes-folder SHAPES --figure FILE.png

One cohort on the ICBM152 base with tumour shapes drawn by experts: labelled ceT1 sources, unlabelled hrT2 targets that
get noisy labels by propagation, and unseen hrT2 test cases whose shapes come from other patients. Networks are trained
in five ways, each with several seeds and the same number of steps, and scored on the test cases:

    intensities        the normalised image instead of MIND-SSC, sources only
    MIND               MIND-SSC, sources only
    MIND + noisy       MIND-SSC, sources and targets with noisy labels
    STAPLE label       no network: the propagated and fused labels themselves, of the targets
    default            preset 'default', sources and targets with noisy labels

The first three have the paper's loss (cross entropy, classes weighted by the inverse square root of their frequency)
and augmentation (affine maps, noise). ``--network paper`` also gives them its network, learning rate and batch;
``--network fast`` the network of preset 'default' with one cycle of the learning rate, which learns in a hundredth of
the time. All of them are trained on crops. What is finished is kept in FOLDER and found again: run the command again to
go on, with more ``--steps`` for a longer experiment, or in several processes with ``--stage``.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from train_default_weights import label_of, shapes_of, simulate

from crossmoda import (
    cache,
    components,
    evaluation,
    inference,
    labels,
    mind,
    network,
    preprocessing,
    propagation,
    training,
    volume,
    weights,
)
from crossmoda.dataset import Case
from crossmoda.errors import InputError
from crossmoda.provenance import checksum

#: First seeds of sources, targets and tests.
SOURCE, TARGET, TEST = 7000, 7020, 9000
#: Name, whether the input is MIND-SSC, whether noisy labels are learned from, whether the routine is the paper's.
ARMS = {
    "intensities": (False, False, True),
    "MIND": (True, False, True),
    "MIND + noisy": (True, True, True),
    "default": (True, True, False),
}
STAPLE = "STAPLE label"
ATLASES = 8
_REVISION = 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--base-folder", type=Path, help="folder of the ICBM152 images")
    parser.add_argument("--shapes-folder", type=Path, required=True, help="label maps drawn by experts")
    parser.add_argument("--cases", type=int, default=20, help="sources, targets and tests, each")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--steps", type=int, default=800, help="steps of each training")
    parser.add_argument("--network", choices=("fast", "paper"), default="fast", help="of the first three kinds")
    parser.add_argument("--stage", choices=("all", "simulate", "propagate", "train", "score"), default="all")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="kinds of training")
    parser.add_argument(
        "--without-class-weights",
        action="store_true",
        help="score the first three kinds with the class weights of their loss divided out of the probabilities",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="where the figure goes")
    return parser.parse_args()


@dataclasses.dataclass(frozen=True)
class Cohort:
    sources: list[Case]
    targets: list[Case]
    """with their true labels, which serve for scoring only"""
    tests: list[Case]

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Cohort":
        """Simulate the cohort, or find it."""
        folder = options.folder / "subjects"

        def case(seed: int, modality: str, group: str) -> Case:
            shapes = shapes_of(options.shapes_folder, options.folder / "shapes", group)
            paths = simulate(folder, "icbm", seed, options.base_folder, shapes, testing=group == "test")
            image = next(path for path in paths if modality in path.name)
            return Case(f"icbm_{seed}", modality, image, label_of(image))

        count = range(options.cases)
        return cls(
            [case(SOURCE + number, "ceT1", "train") for number in count],
            [case(TARGET + number, "hrT2", "train") for number in count],
            [case(TEST + number, "hrT2", "test") for number in count],
        )


def propagate(cohort: Cohort, folder: Path, progress) -> None:
    """Make the noisy labels of the targets, each from a few atlases that are drawn by lot."""
    from crossmoda import deeds

    for number, target in enumerate(cohort.targets):
        lot = np.random.default_rng([number, 5]).permutation(len(cohort.sources))[:ATLASES]
        chosen = [dataclasses.replace(cohort.sources[index], id=cohort.sources[index].id + "_ceT1") for index in lot]
        propagation.propagate(
            dataclasses.replace(target, label=None),
            chosen,
            folder / target.id,
            propagation.Settings(region="ears"),
            progress,
            registration=deeds.Settings(device="cpu"),
        )


@contextlib.contextmanager
def routine_of(arm: str, which_network: str) -> Iterator[str]:
    """Change input and routine for an arm while it trains or predicts; gives the preset."""
    with_mind, _, as_published = ARMS[arm]
    preset = "paper" if as_published and which_network == "paper" else "default"
    plan = training.ROUTINES[preset]
    if as_published:
        plan = dataclasses.replace(plan, rarity=0.5, dice=False, augmentation="paper", crop=(24, 64, 64), around=0.7)
    with contextlib.ExitStack() as changes:
        changes.enter_context(mock.patch.dict(training.ROUTINES, {preset: plan}))
        if not with_mind:
            name = preset.upper()
            single = dataclasses.replace(getattr(network, name), inputs=1)
            changes.enter_context(mock.patch.object(network, name, single))
            changes.enter_context(mock.patch.object(mind, "mind_ssc", lambda image: image.unsqueeze(-4)))
        yield preset


def train(arm: str, seed: int, cohort: Cohort, options: argparse.Namespace, progress) -> Path:
    """Train one network, or find its weights."""
    cases = [training.TrainingCase.of(case) for case in cohort.sources]
    if ARMS[arm][1]:
        noisy = training.noisy_cases(cohort.targets, options.folder / "propagated")
        if len(noisy) < len(cohort.targets):
            raise InputError(f"Only {len(noisy)} of {len(cohort.targets)} targets have a noisy label; propagate first.")
        cases += noisy
    with routine_of(arm, options.network) as preset:
        plan = training.ROUTINES[preset]
        epochs = round(options.steps * plan.batch / (len(cases) * plan.visits))
        settings = training.Settings(preset=preset, epochs=max(1, epochs), seed=seed)
        folder = folder_of(arm, seed, options)
        share_prepared(folder, options.folder)
        return training.train(cases, folder, settings, progress=progress)


def share_prepared(folder: Path, whole: Path) -> None:
    """Let a training find the volumes that the others have prepared."""
    (whole / training.PREPARED).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / training.PREPARED).exists():
        (folder / training.PREPARED).symlink_to((whole / training.PREPARED).resolve())


def folder_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    name = f"{arm.replace(' ', '')}_{options.network}_{options.steps}_seed{seed}"
    return options.folder / "runs" / name


def score_network(arm: str, seed: int, cohort: Cohort, options: argparse.Namespace) -> dict[str, evaluation.Scores]:
    """Return the scores of each test case, or find them."""
    path = folder_of(arm, seed, options) / training.WEIGHTS
    divided = options.without_class_weights and ARMS[arm][2]
    step = cache.Step(
        path.parent / ("scores_without_class_weights" if divided else "scores"),
        revision=_REVISION,
        weights=checksum(path),
        tests=[checksum(x.image) for x in cohort.tests],
    )
    done = step.results()
    if done is not None:
        return done
    step.begin()
    with routine_of(arm, options.network):
        model = weights.load(path)
        influence = class_weights(cohort.sources) if divided else np.ones(len(labels.VALUES))
        scores = {}
        for case in cohort.tests:
            label_map = predict(case, model, influence)
            scores[case.id] = evaluation.evaluate(label_map, volume.read_label_map(case.label))
    evaluation.write_csv(scores, step.folder / "scores.csv")
    step.finish(["scores.csv"], json.loads(json.dumps(scores)))
    return scores


def class_weights(sources: list[Case]) -> np.ndarray:
    """Return the paper's class weights, relative to the background's."""
    counts = np.zeros(len(labels.VALUES))
    for case in sources:
        image = case.read_image()
        prepared = preprocessing.prepare(image, case.read_label(image))
        counts += np.bincount(prepared.label.array.ravel(), minlength=len(counts))
    return (counts / counts[0]) ** -0.5


def predict(case: Case, model: weights.Model, influence: np.ndarray) -> volume.Volume:
    """Return the label map of a case, from probabilities divided by the influence that each class had in the loss."""
    found = inference.predict(case.read_image(), model)
    if (influence == 1).all():
        return found.label_map
    divided = found.probabilities / influence[:, None, None, None].astype(np.float32)
    divided /= divided.sum(axis=0, keepdims=True)
    label_map = components.plausible(divided.argmax(axis=0).astype(np.uint8), divided, found.label_map.grid)
    return found.label_map.with_array(label_map)


def score_staple(cases: list[Case], folder: Path) -> dict[str, evaluation.Scores]:
    """Return the scores of the noisy labels that are there."""
    found = {}
    for case in cases:
        label = folder / case.id / "noisy_label.nii.gz"
        if label.exists():
            found[case.id] = evaluation.evaluate(volume.read_label_map(label), volume.read_label_map(case.label))
    return found


Table = dict[str, list[dict[str, evaluation.Scores]]]


def report(table: Table) -> None:
    """Print a row for each kind and structure: mean ± sd over cases of the means over seeds, and failures."""
    print("| kind | structure | Dice | median | HD95 [mm] | ASSD [mm] | Dice 0 | Dice of each seed |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, runs in table.items():
        for structure in labels.STRUCTURES:
            values = {
                measure: np.array([[scores[structure.key][measure] for scores in run.values()] for run in runs], float)
                for measure in ("dice", "hd95_mm", "assd_mm")
            }
            cells = [kind, structure.key]
            for measure, each in values.items():
                # A distance of a missing structure does not exist; it stays out of the mean and is told as Dice 0.
                over_seeds = [np.mean(column[np.isfinite(column)]) for column in each.T if np.isfinite(column).any()]
                digits = 3 if measure == "dice" else 2
                spread = f"{np.std(over_seeds, ddof=1):.{digits}f}" if len(over_seeds) > 1 else "–"
                cells.append(f"{np.mean(over_seeds):.{digits}f} ± {spread}" if over_seeds else "–")
                if measure == "dice":
                    cells.append(f"{np.median(over_seeds):.3f}")
            failures = " + ".join(str(int((run == 0).sum())) for run in values["dice"])
            seeds = ", ".join(f"{run.mean():.3f}" for run in values["dice"])
            print("| " + " | ".join([*cells, f"{failures} of {values['dice'].shape[1]}", seeds]) + " |")


def draw(table: Table, path: Path) -> None:
    """Draw the Dice of every case and run, with the median of each kind."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, structure in zip(axes, labels.STRUCTURES, strict=True):
        for place, runs in enumerate(table.values()):
            for seed, run in enumerate(runs):
                dice = [scores[structure.key]["dice"] for scores in run.values()]
                shift = 0.14 * (seed - (len(runs) - 1) / 2)
                jitter = np.random.default_rng(0).uniform(-0.05, 0.05, len(dice))
                axis.scatter(place + shift + jitter, dice, s=14, alpha=0.6, color=f"C{seed}", linewidths=0)
            pooled = [scores[structure.key]["dice"] for run in runs for scores in run.values()]
            axis.hlines(np.median(pooled), place - 0.3, place + 0.3, color="black")
        axis.set_xticks(range(len(table)), [name.replace(" ", "\n", 1) for name in table])
        axis.set_title(structure.name)
        axis.set_ylim(-0.03, 1)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Dice on hrT2 scans")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def say(fraction: float, message: str) -> None:
    now = time.monotonic()
    if now - say.last > 30:
        print(f"{100 * fraction:5.1f} %  {message}", file=sys.stderr, flush=True)
        say.last = now


say.last = 0.0


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    cohort = Cohort.of(options)
    noisy = options.folder / "propagated"
    if options.stage in ("all", "propagate"):
        propagate(cohort, noisy, say)
    runs = [(arm, seed) for arm in options.arms for seed in range(options.seeds)]
    if options.stage in ("all", "train"):
        for arm, seed in runs:
            print(f"training: {arm}, seed {seed}", file=sys.stderr, flush=True)
            train(arm, seed, cohort, options, say)
    if options.stage not in ("all", "score"):
        return
    table: Table = {}
    for arm, seed in runs:
        if (folder_of(arm, seed, options) / training.WEIGHTS).exists():
            table.setdefault(arm, []).append(score_network(arm, seed, cohort, options))
    if scores := score_staple(cohort.targets, noisy):
        table[STAPLE] = [scores]
    report(table)
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
