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
the time. All of them are trained on crops that often hold a structure; the class weights are corrected for that, which
makes the loss on average the paper's, of whole volumes. They are scored as they are and with the class weights divided
out of the probabilities. What is finished is kept in FOLDER and found again: run the command again to go on, with more
``--steps`` for a longer experiment, or in parts with ``--stage`` and ``--arms``.
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
    fusion,
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
#: What a kind is called when the class weights of its loss are divided out of the probabilities.
DIVIDED = ", divided"
#: The differences that are reported: a kind, and the kind it is compared with.
PAIRS = (
    ("MIND", "intensities"),
    ("MIND + noisy", "MIND"),
    ("MIND" + DIVIDED, "intensities" + DIVIDED),
    ("MIND + noisy" + DIVIDED, "MIND" + DIVIDED),
    ("default", "MIND + noisy"),
    ("default", "MIND + noisy" + DIVIDED),
)
#: Crops of each case from which the frequency of the classes in crops is estimated.
_CROPS = 20
_REVISION = 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--base-folder", type=Path, help="folder of the ICBM152 images")
    parser.add_argument("--shapes-folder", type=Path, required=True, help="label maps drawn by experts")
    parser.add_argument("--cases", type=int, default=20, help="sources, targets and tests, each")
    parser.add_argument("--atlases", type=int, default=30, help="drawn by lot for each target; at most all sources")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--steps", type=int, default=800, help="steps of each training")
    parser.add_argument("--network", choices=("fast", "paper"), default="fast", help="of the first three kinds")
    parser.add_argument("--stage", choices=("all", "simulate", "propagate", "train", "score"), default="all")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="kinds of training")
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


def propagate(cohort: Cohort, options: argparse.Namespace, progress) -> None:
    """Make the noisy labels of the targets, each from atlases that are drawn by lot."""
    from crossmoda import deeds

    for number, target in enumerate(cohort.targets):
        lot = np.random.default_rng([number, 5]).permutation(len(cohort.sources))[: options.atlases]
        chosen = [dataclasses.replace(cohort.sources[index], id=cohort.sources[index].id + "_ceT1") for index in lot]
        propagation.propagate(
            dataclasses.replace(target, label=None),
            chosen,
            folder_of_labels(options) / target.id,
            propagation.Settings(region="ears"),
            progress,
            registration=deeds.Settings(device="cpu"),
            fusion_settings=fusion.Settings(weighting="global"),  # STAPLE alone, as published
            at_once=options.threads,
        )


def learned_from(arm: str, cohort: Cohort, options: argparse.Namespace) -> list[training.TrainingCase]:
    """Return the cases that an arm learns from."""
    cases = [training.TrainingCase.of(case) for case in cohort.sources]
    if not ARMS[arm][1]:
        return cases
    noisy = training.noisy_cases(cohort.targets, folder_of_labels(options))
    if len(noisy) < len(cohort.targets):
        raise InputError(f"Only {len(noisy)} of {len(cohort.targets)} targets have a noisy label; propagate first.")
    return cases + noisy


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
            changes.enter_context(mock.patch.object(mind, "mind_ssc", as_it_is))
        yield preset


def as_it_is(image):
    """Return the image as its only feature."""
    return image.unsqueeze(-4)


def class_weights(cases: list[training.TrainingCase], plan: training.Routine, cache: Path) -> tuple[np.ndarray, ...]:
    """Return the class weights, relative to the background's: those of the paper, and those of a voxel in a crop.

    Crops hold many more voxels of the structures than whole volumes do. With the paper's weights these would count
    twice over: because they are rare, and because they are drawn often. Divided by how much more often each class
    is drawn, they make the loss of crops on average that of whole volumes.
    """
    from crossmoda.training import augmentation, losses, sampling

    examples = sampling.load(cases, preprocessing.Settings(), cache)
    whole = sum(np.bincount(example.targets[0].long().flatten(), minlength=len(labels.VALUES)) for example in examples)
    drawn = np.zeros(len(labels.VALUES))
    with mock.patch.object(mind, "mind_ssc", as_it_is):
        for number, example in enumerate(examples * _CROPS):
            rng = [np.random.default_rng([number, 3])]
            crop = sampling.draw([example], plan.crop, augmentation.PAPER, rng, plan.around, "cpu")
            drawn += np.bincount(crop.label.flatten(), minlength=len(drawn))
    published = losses.class_weights(torch_of(whole), plan.rarity).numpy()
    in_crops = published * (whole / whole.sum()) / (drawn / drawn.sum())
    return published / published[0], in_crops / in_crops[0]


def torch_of(array: np.ndarray):
    import torch

    return torch.from_numpy(np.asarray(array))


def train(arm: str, seed: int, cohort: Cohort, options: argparse.Namespace, progress) -> Path:
    """Train one network, or find its weights."""
    from crossmoda.training import losses

    cases = learned_from(arm, cohort, options)
    folder = folder_of(arm, seed, options)
    share_prepared(folder, options.folder)
    with routine_of(arm, options.network) as preset, contextlib.ExitStack() as changes:
        plan = training.ROUTINES[preset]
        if ARMS[arm][2] and not (folder / training.WEIGHTS).exists():
            published, in_crops = class_weights(cases, plan, options.folder / training.PREPARED)
            print(f"class weights: {published} in volumes, {in_crops} in crops", file=sys.stderr, flush=True)
            corrected = torch_of(in_crops.astype(np.float32))
            changes.enter_context(mock.patch.object(losses, "class_weights", lambda counts, power: corrected))
        epochs = round(options.steps * plan.batch / (len(cases) * plan.visits))
        settings = training.Settings(preset=preset, epochs=max(1, epochs), seed=seed)
        return training.train(cases, folder, settings, progress=progress)


def share_prepared(folder: Path, whole: Path) -> None:
    """Let a training find the volumes that the others have prepared."""
    (whole / training.PREPARED).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / training.PREPARED).exists():
        (folder / training.PREPARED).symlink_to((whole / training.PREPARED).resolve())


def folder_of_labels(options: argparse.Namespace) -> Path:
    return options.folder / "propagated"


def folder_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    name = f"{arm.replace(' ', '')}_{options.network}_{options.steps}_seed{seed}"
    return options.folder / "runs" / name


Scores = dict[str, evaluation.Scores]
"""of each case"""


def score_network(arm: str, seed: int, cohort: Cohort, options: argparse.Namespace) -> dict[str, Scores]:
    """Return the scores on the test cases, or find them: as trained, and with the class weights divided out."""
    path = folder_of(arm, seed, options) / training.WEIGHTS
    step = cache.Step(
        path.parent / "scores",
        revision=_REVISION,
        weights=checksum(path),
        tests=[checksum(x.image) for x in cohort.tests],
    )
    done = step.results()
    if done is not None:
        return done
    step.begin()
    influences = {arm: np.ones(len(labels.VALUES))}
    with routine_of(arm, options.network) as preset:
        if ARMS[arm][2]:
            cases, plan = learned_from(arm, cohort, options), training.ROUTINES[preset]
            influences[arm + DIVIDED], _ = class_weights(cases, plan, options.folder / training.PREPARED)
        model = weights.load(path)
        scores: dict[str, Scores] = {kind: {} for kind in influences}
        for case in cohort.tests:
            found, truth = inference.predict(case.read_image(), model), volume.read_label_map(case.label)
            for kind, influence in influences.items():
                label_map = decide(found, influence)
                scores[kind][case.id] = evaluation.evaluate(label_map, truth)
                volume.write(label_map, step.folder / kind / f"{case.id}.nii.gz")
    step.finish([], json.loads(json.dumps(scores)))
    return scores


def decide(found: inference.Prediction, influence: np.ndarray) -> volume.Volume:
    """Return the label map, from probabilities divided by the influence that each class had in the loss."""
    if (influence == 1).all():
        return found.label_map
    divided = found.probabilities / influence[:, None, None, None].astype(np.float32)
    divided /= divided.sum(axis=0, keepdims=True)
    label_map = components.plausible(divided.argmax(axis=0).astype(np.uint8), divided, found.label_map.grid)
    return found.label_map.with_array(label_map)


def score_staple(cases: list[Case], folder: Path) -> Scores:
    """Return the scores of the noisy labels that are there."""
    found = {}
    for case in cases:
        label = folder / case.id / "noisy_label.nii.gz"
        if label.exists():
            found[case.id] = evaluation.evaluate(volume.read_label_map(label), volume.read_label_map(case.label))
    return found


Table = dict[str, list[Scores]]
"""of each kind: the scores of each seed"""


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


def compare(table: Table, draws: int = 10_000) -> None:
    """Print the mean differences between kinds, paired by case, with 95 % intervals of a bootstrap over cases.

    A case counts with the mean over the seeds that both kinds have.
    """
    print("\n| difference | structure | Dice | cases with Dice 0 |")
    print("|---|---|---|---|")
    for kind, other in PAIRS:
        if kind not in table or other not in table:
            continue
        runs = list(zip(table[kind], table[other], strict=False))
        chosen = np.random.default_rng(0).integers(len(runs[0][0]), size=(draws, len(runs[0][0])))
        for structure in labels.STRUCTURES:
            dice = np.array([[[run[case][structure.key]["dice"] for case in pair[0]] for run in pair] for pair in runs])
            cells = []
            for values in (dice, 100.0 * (dice == 0)):
                each = (values[:, 0] - values[:, 1]).mean(axis=0)
                low, high = np.percentile(each[chosen].mean(axis=1), (2.5, 97.5))
                form = "{:+.3f} ({:+.3f} to {:+.3f})" if values is dice else "{:+.0f} % ({:+.0f} to {:+.0f})"
                cells.append(form.format(each.mean(), low, high))
            print("| " + " | ".join([f"{kind} − {other}", structure.key, *cells]) + " |")


def draw(table: Table, path: Path) -> None:
    """Draw the Dice of every case and run, with the median of each kind."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(1.9 * len(table) + 1, 4), sharey=True, layout="constrained")
    for axis, structure in zip(axes, labels.STRUCTURES, strict=True):
        for place, runs in enumerate(table.values()):
            for seed, run in enumerate(runs):
                dice = [scores[structure.key]["dice"] for scores in run.values()]
                shift = 0.14 * (seed - (len(runs) - 1) / 2)
                jitter = np.random.default_rng(0).uniform(-0.05, 0.05, len(dice))
                axis.scatter(place + shift + jitter, dice, s=14, alpha=0.6, color=f"C{seed}", linewidths=0)
            pooled = [scores[structure.key]["dice"] for run in runs for scores in run.values()]
            axis.hlines(np.median(pooled), place - 0.3, place + 0.3, color="black")
        axis.set_xticks(range(len(table)), [name.replace(", ", ",\n").replace(" + ", "\n+ ") for name in table])
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
    if options.stage in ("all", "propagate"):
        propagate(cohort, options, say)
    runs = [(arm, seed) for seed in range(options.seeds) for arm in options.arms]
    if options.stage in ("all", "train"):
        for arm, seed in runs:
            print(f"training: {arm}, seed {seed}", file=sys.stderr, flush=True)
            train(arm, seed, cohort, options, say)
    if options.stage not in ("all", "score"):
        return
    table: Table = {}
    for arm, seed in runs:
        if (folder_of(arm, seed, options) / training.WEIGHTS).exists():
            for kind, scores in score_network(arm, seed, cohort, options).items():
                table.setdefault(kind, []).append(scores)
    table = {kind: table[kind] for arm in ARMS for kind in (arm, arm + DIVIDED) if kind in table}
    if scores := score_staple(cohort.targets, folder_of_labels(options)):
        table[STAPLE] = [scores]
    report(table)
    compare(table)
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
