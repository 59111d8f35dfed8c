"""The paper's experiment on digital subjects: does MIND close the gap between ceT1 and hrT2, do noisy labels help?

    python Testing/experiments/experiment.py --folder FOLDER --base-folder ICBM --shapes-folder SHAPES --figure FILE.png

One cohort on the ICBM152 base with tumor shapes drawn by experts: labeled ceT1 sources, unlabeled hrT2 targets that
get noisy labels by propagation, and unseen hrT2 test cases whose shapes come from other patients. Networks are trained
in several ways, each with several seeds and the same number of steps, and scored on the test cases:

    intensities                  the normalized image instead of MIND-SSC, sources only
    MIND                         MIND-SSC, sources only
    MIND + noisy                 MIND-SSC, sources and targets with noisy labels, fused by STAPLE as published
    MIND + noisy (local votes)   the same with noisy labels fused by locally weighted votes
    MIND + noisy (outlined)      the same, the tumor outlined by contralateral comparison (the default)
    default                      preset 'default', sources and targets with the noisy labels of STAPLE
    default (local votes)        the same with those of the votes
    default (outlined)           the same with those of the votes, outlined
    default, ...                 preset 'default' with one of its differences switched off (``--arms`` names them)
    STAPLE label                 no network: the propagated and fused labels themselves, of the targets
    local votes label            the same
    outlined label               the same

MIND and intensities have the paper's loss (cross entropy, classes weighted by the inverse square root of their
frequency) and augmentation (affine maps, noise). ``--network paper`` also gives them its network, learning rate, batch;
``--network fast`` the network of preset 'default' with one cycle of the learning rate, which learns in a hundredth of
the time. All of them are trained on crops that often hold a structure; the class weights are corrected for that, which
makes the loss on average the paper's, of whole volumes. They are scored as they are and with the class weights divided
out of the probabilities. Finished results in FOLDER are reused: run the command again to resume, with more ``--steps``
for a longer experiment, or in parts with ``--stage`` and ``--arms``.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from digital_subjects import label_of, shapes_of, simulate
from experiment_table import Scores, Table, compare, draw, report

from crossmoda import (
    cache,
    evaluation,
    inference,
    labels,
    network,
    preprocessing,
    propagation,
    training,
    volume,
    weights,
)
from crossmoda.anatomy import plausibility
from crossmoda.dataset import Case
from crossmoda.errors import InputError
from crossmoda.provenance import checksum

#: First seeds of sources, targets and tests.
SOURCE, TARGET, TEST = 7000, 7020, 9000
#: How noisy labels are fused: ``weighting`` and ``outline`` of ``propagation.Settings``.
LABELS = {
    "STAPLE label": ("global", "atlases"),
    "local votes label": ("local", "atlases"),
    "outlined label": ("local", "contralateral"),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One kind of training."""

    mind: bool = True
    """whether the input is MIND-SSC"""
    noisy: str = ""
    """the noisy labels that are learned from, by their name in ``LABELS``; empty: sources only"""
    published: bool = True
    """whether loss and augmentation are the paper's"""
    without: str = ""
    """what is switched off of preset 'default'"""

    @property
    def weighted(self) -> bool:
        """Whether the loss weights the classes."""
        return self.published or self.without == "loss"


ARMS = {
    "intensities": Arm(mind=False),
    "MIND": Arm(),
    "MIND + noisy": Arm(noisy="STAPLE label"),
    "MIND + noisy (local votes)": Arm(noisy="local votes label"),
    "MIND + noisy (outlined)": Arm(noisy="outlined label"),
    "default": Arm(noisy="STAPLE label", published=False),
    "default (local votes)": Arm(noisy="local votes label", published=False),
    "default (outlined)": Arm(noisy="outlined label", published=False),
}
#: Preset 'default' with one of its differences switched off.
ABLATIONS = {
    "default, no decoder": Arm(noisy="STAPLE label", published=False, without="decoder"),
    "default, weighted cross entropy": Arm(noisy="STAPLE label", published=False, without="loss"),
    "default, no confidence": Arm(noisy="STAPLE label", published=False, without="confidence"),
    "default, no mirroring": Arm(noisy="STAPLE label", published=False, without="mirroring"),
    "default, paper's augmentation": Arm(noisy="STAPLE label", published=False, without="augmentation"),
    "default, constant rate": Arm(noisy="STAPLE label", published=False, without="cycle"),
}
EVERY = {**ARMS, **ABLATIONS}
#: What a kind is called when the class weights of its loss are divided out of the probabilities.
DIVIDED = ", divided"
#: What a kind is called when the mirrored scan is predicted as well and both are averaged.
FLIPPED = ", flips"
#: The order of the tables.
KINDS = tuple(arm + how for arm in EVERY for how in ("", DIVIDED, FLIPPED))
#: The differences that are reported: a kind, and the kind it is compared with.
PAIRS = (
    ("MIND", "intensities"),
    ("MIND + noisy", "MIND"),
    ("MIND" + DIVIDED, "intensities" + DIVIDED),
    ("MIND + noisy" + DIVIDED, "MIND" + DIVIDED),
    ("default", "MIND + noisy"),
    ("default", "MIND + noisy" + DIVIDED),
    ("local votes label", "STAPLE label"),
    ("outlined label", "local votes label"),
    ("MIND + noisy (local votes)", "MIND"),
    ("MIND + noisy (local votes)", "MIND + noisy"),
    ("MIND + noisy (local votes)" + DIVIDED, "MIND + noisy" + DIVIDED),
    ("default (local votes)", "default"),
    *(
        (f"{arm} (outlined){how}", f"{arm} (local votes){how}")
        for arm in ("MIND + noisy", "default")
        for how in ("", DIVIDED)
    ),
    ("default" + FLIPPED, "default"),
    *((kind, "default") for arm in ABLATIONS for kind in (arm, arm + DIVIDED)),
    # The same loss: what is left is the augmentation.
    *(("default, weighted cross entropy" + how, "MIND + noisy" + how) for how in ("", DIVIDED)),
)
#: Crops of each case from which the frequency of the classes in crops is estimated.
_CROPS = 20
_REVISION = 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for all results")
    parser.add_argument("--base-folder", type=Path, help="folder of the ICBM152 images")
    parser.add_argument("--shapes-folder", type=Path, required=True, help="label maps drawn by experts")
    parser.add_argument("--cases", type=int, default=20, help="sources, targets and tests, each")
    parser.add_argument("--atlases", type=int, default=30, help="atlases per target, drawn at random")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--steps", type=int, default=800, help="steps of each training")
    parser.add_argument("--network", choices=("fast", "paper"), default="fast", help="network of the first three kinds")
    parser.add_argument("--stage", choices=("all", "simulate", "propagate", "train", "score"), default="all")
    parser.add_argument("--arms", nargs="+", choices=list(EVERY), default=list(ARMS), help="kinds of training")
    parser.add_argument("--labels", nargs="+", choices=list(LABELS), default=list(LABELS), help="fusions to propagate")
    parser.add_argument("--flips", action="store_true", help="score preset 'default' with test-time flips, too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="file of the figure")
    return parser.parse_args()


@dataclasses.dataclass(frozen=True)
class Cohort:
    sources: list[Case]
    targets: list[Case]
    """with their true labels, which serve for scoring only"""
    tests: list[Case]

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Cohort":
        """Simulate the cohort, or reuse it."""
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
    """Make the noisy labels of the targets, each from randomly drawn atlases; fusions share registrations."""
    from crossmoda import deeds

    for (number, target), kind in itertools.product(enumerate(cohort.targets), options.labels):
        folder = folder_of_labels(options, kind) / target.id
        weighting, outline = LABELS[kind]
        share(options.folder / "registrations" / target.id, folder / "registrations")
        lot = np.random.default_rng([number, 5]).permutation(len(cohort.sources))[: options.atlases]
        chosen = [dataclasses.replace(cohort.sources[index], id=cohort.sources[index].id + "_ceT1") for index in lot]
        propagation.propagate(
            dataclasses.replace(target, label=None),
            chosen,
            folder,
            propagation.Settings(region="ears", outline=outline, weighting=weighting),
            progress,
            registration=deeds.Settings(device="cpu"),
            parallel_registrations=options.threads,
        )


def learned_from(arm: str, cohort: Cohort, options: argparse.Namespace) -> list[training.TrainingCase]:
    """Return the training cases of an arm."""
    cases = [training.TrainingCase.of(case) for case in cohort.sources]
    kind = EVERY[arm]
    if not kind.noisy:
        return cases
    noisy = training.noisy_cases(cohort.targets, folder_of_labels(options, kind.noisy))
    if kind.without == "confidence":
        noisy = [dataclasses.replace(case, confidence=None) for case in noisy]
    if len(noisy) < len(cohort.targets):
        raise InputError(f"Only {len(noisy)} of {len(cohort.targets)} targets have a noisy label; propagate first.")
    return cases + noisy


@contextlib.contextmanager
def routine_of(arm: str, which_network: str) -> Iterator[str]:
    """Change input and routine for an arm while it trains or predicts; gives the preset."""
    kind = EVERY[arm]
    preset = "paper" if kind.published and which_network == "paper" else "default"
    plan = training.ROUTINES[preset]
    if kind.weighted:
        plan = dataclasses.replace(plan, rarity=0.5, dice=False, crop=(24, 64, 64), around=0.7)
    if kind.published or kind.without == "augmentation":
        plan = dataclasses.replace(plan, augmentation="paper")
    if kind.without == "cycle":
        plan = dataclasses.replace(plan, one_cycle=False, learning_rate=training.ROUTINES["paper"].learning_rate)
    with contextlib.ExitStack() as changes:
        changes.enter_context(mock.patch.dict(training.ROUTINES, {preset: plan}))
        if kind.without == "decoder":
            plain = dataclasses.replace(network.DEFAULT, low_level=(), decoder=(), subpixel=False)
            changes.enter_context(mock.patch.object(network, "DEFAULT", plain))
        if kind.without == "mirroring":
            from crossmoda.training import augmentation, learner

            one_sided = augmentation.Strength(mirror=0.0)
            changes.enter_context(mock.patch.dict(learner._STRENGTHS, {"default": one_sided}))
        yield preset


def class_weights(cases: list[training.TrainingCase], plan: training.Routine, cache: Path) -> tuple[np.ndarray, ...]:
    """Return the class weights, relative to the background's: those of the paper, and those of a voxel in a crop.

    Crops hold many more voxels of the structures than whole volumes do. With the paper's weights these would count
    twice over: because they are rare, and because they are drawn often. Divided by how much more often each class
    is drawn, they make the loss of crops on average that of whole volumes.
    """
    from crossmoda.training import augmentation, losses, sampling

    examples = sampling.load(cases, preprocessing.Preparation(), cache)
    whole = sum(np.bincount(example.targets[0].long().flatten(), minlength=len(labels.VALUES)) for example in examples)
    drawn = np.zeros(len(labels.VALUES))
    quick = network.Settings(inputs="intensity")
    for number, example in enumerate(examples * _CROPS):
        rng = [np.random.default_rng([number, 3])]
        crop = sampling.draw([example], plan.crop, augmentation.PAPER, rng, plan.around, "cpu", quick)
        drawn += np.bincount(crop.label.flatten(), minlength=len(drawn))
    published = losses.class_weights(torch_of(whole), plan.rarity).numpy()
    in_crops = published * (whole / whole.sum()) / (drawn / drawn.sum())
    return published / published[0], in_crops / in_crops[0]


def torch_of(array: np.ndarray):
    import torch

    return torch.from_numpy(np.asarray(array))


def train(arm: str, seed: int, cohort: Cohort, options: argparse.Namespace, progress) -> Path:
    """Train one network, or reuse its weights."""
    from crossmoda.training import losses

    cases = learned_from(arm, cohort, options)
    folder = folder_of(arm, seed, options)
    share(options.folder / training.PREPARED, folder / training.PREPARED)
    with routine_of(arm, options.network) as preset, contextlib.ExitStack() as changes:
        plan = training.ROUTINES[preset]
        if EVERY[arm].weighted and not (folder / training.WEIGHTS).exists():
            published, in_crops = class_weights(cases, plan, options.folder / training.PREPARED)
            print(f"class weights: {published} in volumes, {in_crops} in crops", file=sys.stderr, flush=True)
            corrected = torch_of(in_crops.astype(np.float32))
            changes.enter_context(mock.patch.object(losses, "class_weights", lambda counts, power: corrected))
        epochs = round(options.steps * plan.batch / (len(cases) * plan.visits))
        settings = training.Settings(
            preset=preset,
            field="scan",
            inputs="mind" if EVERY[arm].mind else "intensity",
            epochs=max(1, epochs),
            seed=seed,
        )
        return training.train(cases, folder, settings, progress=progress)


def share(whole: Path, link: Path) -> None:
    """Link the shared folder ``whole`` into the folder of a run."""
    whole.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(whole.resolve())


def folder_of_labels(options: argparse.Namespace, kind: str) -> Path:
    return options.folder / "propagated" / kind


def folder_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    name = f"{arm.replace(' ', '')}_{options.network}_{options.steps}_seed{seed}"
    return options.folder / "runs" / name


def score_network(
    arm: str, seed: int, cohort: Cohort, options: argparse.Namespace, flips: bool = False
) -> dict[str, Scores]:
    """Return the scores on the test cases, computed once: as trained, and with the class weights divided out.

    With ``flips`` the mirrored scans are predicted as well, and nothing is divided out.
    """
    path = folder_of(arm, seed, options) / training.WEIGHTS
    step = cache.CachedStep(
        path.parent / ("scores_flips" if flips else "scores"),
        revision=_REVISION,
        weights=checksum(path),
        tests=[checksum(x.image) for x in cohort.tests],
    )
    done = step.results()
    if done is not None:
        return done
    step.begin()
    influences = {arm + FLIPPED if flips else arm: np.ones(len(labels.VALUES))}
    with routine_of(arm, options.network) as preset:
        if EVERY[arm].weighted and not flips:
            cases, plan = learned_from(arm, cohort, options), training.ROUTINES[preset]
            influences[arm + DIVIDED], _ = class_weights(cases, plan, options.folder / training.PREPARED)
        model = weights.load(path)
        scores: dict[str, Scores] = {kind: {} for kind in influences}
        for case in cohort.tests:
            prediction = inference.predict(case.read_image(), model, inference.Settings(flips=flips))
            truth = volume.read_label_map(case.label)
            for kind, influence in influences.items():
                label_map = decide(prediction, influence)
                scores[kind][case.id] = evaluation.evaluate(label_map, truth)
                volume.write(label_map, step.folder / kind / f"{case.id}.nii.gz")
    step.finish([], json.loads(json.dumps(scores)))
    return scores


def decide(prediction: inference.Prediction, influence: np.ndarray) -> volume.Volume:
    """Return the label map, from probabilities divided by the influence that each class had in the loss."""
    if (influence == 1).all():
        return prediction.label_map
    divided = prediction.probabilities / influence[:, None, None, None].astype(np.float32)
    divided /= divided.sum(axis=0, keepdims=True)
    label_map = plausibility.plausible(divided.argmax(axis=0).astype(np.uint8), divided, prediction.label_map.grid)
    return prediction.label_map.with_array(label_map)


def score_labels(cases: list[Case], folder: Path) -> Scores:
    """Return the scores of the existing noisy labels."""
    scores = {}
    for case in cases:
        label = folder / case.id / "noisy_label.nii.gz"
        if label.exists():
            scores[case.id] = evaluation.evaluate(volume.read_label_map(label), volume.read_label_map(case.label))
    return scores


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
            for flips in (False, True) if options.flips and arm == "default" else (False,):
                for kind, scores in score_network(arm, seed, cohort, options, flips).items():
                    table.setdefault(kind, []).append(scores)
    table = {kind: table[kind] for kind in KINDS if kind in table}
    for kind in LABELS:
        if scores := score_labels(cohort.targets, folder_of_labels(options, kind)):
            table[kind] = [scores]
    report(table)
    compare(table, PAIRS)
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
