"""Benefit of the order of the review queue: a simulated annotator corrects cases in that order and at random.

``python Testing/experiments/review_order.py --folder FOLDER`` simulates targets of very different difficulty, makes
their noisy labels from a few atlases and their predictions with the bundled weights, and lets an annotator who
knows the truth paste it inside the regions shown, case after case.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from crossmoda import dataset, evaluation, inference, propagation, review, training, volume, weights
from crossmoda.dataset import corrections
from crossmoda.review import operations
from crossmoda.simulation import Settings, simulate_subject

#: Field of view (mm) and slices: both inner ears and little more.
FIELD = {"field_of_view": 104.0, "slices": 36, "slice_thickness": 1.5}
SIDES = ("left", "right")
#: How many corrected cases the tables show.
SHOWN = (0, 1, 2, 5, 10, 20)


def subject_settings(seed: int, atlas: bool) -> Settings:
    """Return what a subject is like: targets differ widely in tumor size, pose, shape and image quality."""
    rng = np.random.default_rng([seed, int(atlas)])
    if atlas:
        return Settings(**FIELD, tumor_volume=float(np.exp(rng.uniform(np.log(150), np.log(3000)))))
    return Settings(
        **FIELD,
        tumor_volume=float(np.exp(rng.uniform(np.log(50), np.log(6000)))),
        rotation=float(rng.uniform(1, 9)),
        translation=float(rng.uniform(1, 6)),
        deformation=float(rng.uniform(2, 7)),
        noise=float(rng.uniform(0.02, 0.12)),
        contrast=float(rng.uniform(0.03, 0.15)),
        bias=float(rng.uniform(0, 0.5)),
    )


def simulate(folder: Path, atlases: int, targets: int, tests: int, seed: int) -> None:
    """Write ``data`` (atlases and targets), ``truth`` of the targets, and ``tests`` with their labels."""
    for role, count in (("atlas", atlases), ("case", targets), ("test", tests)):
        for number in range(1, count + 1):
            name = f"{role}_{number:02d}"
            place = folder / ("tests" if role == "test" else "data")
            modality = "ceT1" if role == "atlas" else "hrT2"
            image = place / f"{name}_{modality}.nii.gz"
            label = (folder / "truth" if role == "case" else place) / f"{name}_{modality}_label.nii.gz"
            if image.exists() and label.exists():
                continue
            own = 1000 * seed + 100 * ("atlas", "case", "test").index(role) + number
            subject = simulate_subject(own, side=SIDES[number % 2], settings=subject_settings(own, role == "atlas"))
            scan, truth = (subject.cet1, subject.cet1_label) if role == "atlas" else (subject.hrt2, subject.hrt2_label)
            volume.write(truth, label)
            volume.write(scan.with_array(np.round(scan.array).clip(0, 32767).astype(np.int16)), image)


def prepare(folder: Path, results: Path) -> None:
    """Make the noisy label and the prediction of every target (finished ones are kept)."""
    data = dataset.open_dataset(folder / "data")
    todo = [case for case in data.targets if not (results / case.id / "provenance.json").exists()]
    propagation.propagate_all(todo, data.sources, results, device="cpu")
    for case in data.targets:
        place = results / case.id / "prediction"
        if not (place / "uncertainty.nii.gz").exists():
            inference.predict_files(
                case.image,
                place / "label_map.nii.gz",
                probabilities=place / "probability",
                uncertainty=place / "uncertainty.nii.gz",
            )


@dataclasses.dataclass(frozen=True)
class Reviewed:
    """A target before and after the annotator saw the regions that are shown."""

    item: review.Item
    truth: volume.Volume
    corrected: np.ndarray
    """the noisy label with the truth inside the shown regions only"""
    before: float
    """Dice, mean of both structures"""
    after: float
    by_region: tuple[float, ...]
    """Dice after the first, second ... region"""
    regions: int
    shown_mm3: float
    errors_shown: float
    """share of the wrong voxels that lie in shown regions"""


def correct(folder: Path, results: Path, item: review.Item) -> Reviewed:
    """Let the annotator paste the truth inside the shown regions of one target."""
    noisy = volume.read_label_map(results / item.id / "noisy_label.nii.gz")
    truth = volume.read_label_map(folder / "truth" / f"{item.id}_hrT2_label.nii.gz")
    network = volume.read_label_map(results / item.id / "prediction" / "label_map.nii.gz")
    regions = review.find_regions(review.doubt(results / item.id), noisy, network=network)
    label_map, shown, by_region = noisy.array, np.zeros(noisy.array.shape, bool), []
    for region in regions:
        label_map = operations.take(label_map, truth.array, region)
        shown |= region.mask(shown.shape)
        by_region.append(mean_dice(label_map, truth.array))
    wrong = noisy.array != truth.array
    return Reviewed(
        item,
        truth,
        label_map,
        mean_dice(noisy.array, truth.array),
        mean_dice(label_map, truth.array),
        tuple(by_region),
        len(regions),
        float(shown.sum()) * noisy.grid.voxel_volume_mm3,
        float((wrong & shown).sum() / max(wrong.sum(), 1)),
    )


def mean_dice(label_map: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean Dice of both structures."""
    return float(np.mean(list(evaluation.dice_per_structure(label_map, truth).values())))


def curve(cases: Sequence[Reviewed], order: Sequence[int]) -> np.ndarray:
    """Return the mean Dice of all labels after 0, 1, 2 ... cases were corrected in this order."""
    gains = np.array([cases[index].after - cases[index].before for index in order])
    return np.mean([case.before for case in cases]) + np.append(0, np.cumsum(gains)) / len(cases)


def by(cases: Sequence[Reviewed], value: Callable[[Reviewed], float]) -> list[int]:
    """Return the order in which a value falls."""
    return sorted(range(len(cases)), key=lambda index: -value(cases[index]))


def orders(cases: Sequence[Reviewed]) -> dict[str, list[int]]:
    """Return the compared orders: the queue, single cues, and the best possible one."""

    def cue(sign: int, *names: str) -> list[int]:
        return by(cases, lambda case: sign * sum(case.item.evidence[name] for name in names))

    def relative(name: str) -> list[int]:
        return by(cases, lambda case: case.item.evidence[name] / max(case.item.volumes_mm3["VS"], 1.0))

    keys = ("VS", "cochlea")
    return {
        "queue": by(cases, lambda case: case.item.priority),
        "Dice label-network only": cue(-1, *(f"dice_network_{key}" for key in keys)),
        "atlases' doubt / tumor volume": relative("atlas_doubt_mm3"),
        "network's doubt / tumor volume": relative("network_doubt_mm3"),
        "doubtful volume, mm3": cue(1, "doubtful_mm3"),
        "smallest tumor first": by(cases, lambda case: -case.item.volumes_mm3["VS"]),
        "best possible": by(cases, lambda case: case.after - case.before),
    }


def random_orders(count: int, number: int, seed: int = 0) -> list[np.ndarray]:
    """Return ``number`` random orders of ``count`` cases."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(count) for _ in range(number)]


def report_labels(cases: Sequence[Reviewed], picture: Path | None) -> None:
    """Print the curve of the labels, how much each order gains over chance, and what the regions cover."""
    chance = np.array([curve(cases, order) for order in random_orders(len(cases), 5000)])
    curves = {name: curve(cases, order) for name, order in orders(cases).items()}
    best = curves["best possible"]
    print(f"\nMean Dice of {len(cases)} labels (VS and cochlea) after k were corrected:\n")
    print(f"| order | {' | '.join(f'k = {k}' for k in SHOWN)} | area over chance, of the best |")
    print("|---|" + "---|" * (len(SHOWN) + 1))
    mean, spread = chance.mean(axis=0), chance.std(axis=0)
    print(f"| random (5000 orders) | {' | '.join(f'{mean[k]:.3f} ± {spread[k]:.3f}' for k in SHOWN)} | 0 % |")
    for name, curve in curves.items():
        area = 100 * (curve - mean).sum() / (best - mean).sum()
        print(f"| {name} | {' | '.join(f'{curve[k]:.3f}' for k in SHOWN)} | {area:.0f} % |")
    beaten = (chance.sum(axis=1) < curves["queue"].sum()).mean()
    ranks = stats.spearmanr([case.item.priority for case in cases], [case.after - case.before for case in cases])
    print(
        f"\nThe queue's area is above that of {100 * beaten:.2f} % of random orders; rank correlation of priority and"
    )
    expected = np.mean([case.item.priority for case in cases])
    print(f"gain {ranks.statistic:.2f}. Mean priority {expected:.3f}, mean 1 - Dice {1 - curves['queue'][0]:.3f}.")
    print(
        f"Regions: {np.mean([case.regions for case in cases]):.1f} per case, "
        f"{np.mean([case.shown_mm3 for case in cases]):.0f} mm3 shown, "
        f"{100 * np.mean([case.errors_shown for case in cases]):.0f} % of the wrong voxels. Of what can be gained, the "
        f"first 1, 2, 3 regions gain {', '.join(f'{100 * share:.0f} %' for share in _first_regions(cases))}."
    )
    if picture:
        draw(cases, chance, curves, picture)


def _first_regions(cases: Sequence[Reviewed]) -> list[float]:
    gains = []
    for count in (1, 2, 3):
        each = [
            ((case.by_region[min(count, len(case.by_region)) - 1] if case.by_region else case.before) - case.before)
            / (1 - case.before)
            for case in cases
        ]
        gains.append(float(np.mean(each)))
    return gains


def draw(cases: Sequence[Reviewed], chance: np.ndarray, curves: dict[str, np.ndarray], picture: Path) -> None:
    """Draw the curves, and each case's priority beside what its correction gained."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    k = np.arange(len(cases) + 1)
    low, high = np.percentile(chance, [2.5, 97.5], axis=0)
    left.fill_between(k, low, high, color="0.88", label="95 % of random orders")
    left.plot(k, chance.mean(axis=0), color="0.5", label="random, mean")
    left.plot(k, curves["best possible"], color="0.2", linestyle="dashed", label="best possible")
    left.plot(k, curves["queue"], color="#c8452f", linewidth=2, label="queue")
    left.set(xlabel=f"corrected cases of {len(cases)}", ylabel="mean Dice of the labels", title="Labels")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False, loc="lower right")
    gains = [case.after - case.before for case in cases]
    priorities = [case.item.priority for case in cases]
    right.plot([0, max(*gains, *priorities)], [0, max(*gains, *priorities)], color="0.8", linewidth=1)
    right.scatter(priorities, gains, color="#c8452f", s=26)
    right.set(xlabel="priority (expected gain)", ylabel="gain of the correction", title="Each case")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


def data_after(folder: Path, cases: Sequence[Reviewed], chosen: Sequence[int], place: Path) -> Path:
    """Return a data set (links to the scans) in which the chosen cases are corrected."""
    data = place / "data"
    shutil.rmtree(place, ignore_errors=True)
    data.mkdir(parents=True)
    for file in (folder / "data").glob("*.nii.gz"):
        (data / file.name).symlink_to(file.resolve())
    for target in dataset.open_dataset(data).targets:
        for index in chosen:
            if cases[index].item.id == target.id:
                corrections.save(target, cases[index].truth.with_array(cases[index].corrected), data)
    return data


def score_model(weights_file: Path, tests: Sequence[dataset.Case]) -> dict[str, list[float]]:
    """Return the Dice of each structure in each test scan; stored beside the weights."""
    stored = weights_file.with_name("tests.json")
    if stored.exists():
        return json.loads(stored.read_text("utf-8"))
    model = weights.load(weights_file)
    scores: dict[str, list[float]] = {"VS": [], "cochlea": []}
    for case in tests:
        label_map = inference.predict(case.read_image(), model, inference.Settings(device="cpu")).label_map
        for key, value in evaluation.dice_per_structure(label_map.array, case.read_label().array).items():
            scores[key].append(value)
    stored.write_text(json.dumps(scores), "utf-8")
    return scores


def report_models(folder: Path, cases: Sequence[Reviewed], epochs: int, randoms: int) -> None:
    """Train on with k corrected cases, in the queue's order and at random, and print the Dice on unseen scans."""
    tests = [case for case in dataset.open_dataset(folder / "tests").cases if case.label]
    plans = {"queue": orders(cases)["queue"]}
    plans |= {f"random {number + 1}": order for number, order in enumerate(random_orders(len(cases), randoms, seed=5))}
    todo = [("none", 0)] + [(name, k) for k in (10, 5, 2, 1) for name in plans]
    table: dict[str, dict[int, dict[str, list[float]]]] = {}
    for name, k in todo:
        place = folder / "models" / f"{name}-{k}".replace(" ", "")
        file = place / "run" / training.WEIGHTS
        if not file.exists():
            start = time.process_time()
            data = data_after(folder, cases, plans[name][:k] if k else [], place)
            how = training.Settings(epochs=epochs, device="cpu")
            training.train_folder(data, place / "run", how, noisy=folder / "results", initial=weights.bundled())
            print(f"{name}, k = {k}: trained in {time.process_time() - start:.0f} processor seconds", flush=True)
        table.setdefault(name, {})[k] = score_model(file, tests)
        print(f"{name}, k = {k}: {_scores(table[name][k])}", flush=True)
    print(f"\nMean Dice (VS / cochlea) of the retrained model on {len(tests)} unseen scans:\n")
    print(f"| order | {' | '.join(f'k = {k}' for k in SHOWN[:5])} |\n|---|" + "---|" * 5)
    for name in plans:
        cells = [_scores(table["none"][0]), *(_scores(table[name][k]) for k in SHOWN[1:5])]
        print(f"| {name} | {' | '.join(cells)} |")


def _scores(scores: dict[str, list[float]]) -> str:
    return " / ".join(f"{np.mean(values):.3f}" for values in scores.values())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="keeps what was simulated and computed")
    parser.add_argument("--atlases", type=int, default=5)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--tests", type=int, default=5)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--picture", type=Path, help="PNG of the curves")
    parser.add_argument("--models", action="store_true", help="also train on with the corrections, at every k")
    parser.add_argument("--epochs", type=int, default=1, help="of every training (100 steps with the default counts)")
    parser.add_argument("--random", type=int, default=2, help="random orders that are trained on")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    folder, results = options.folder, options.folder / "results"
    simulate(folder, options.atlases, options.targets, options.tests, options.seed)
    prepare(folder, results)
    cases = [correct(folder, results, item) for item in review.review_list(folder / "data", results)]
    cases.sort(key=lambda case: case.item.id)
    report_labels(cases, options.picture)
    sys.stdout.flush()
    if options.models:
        report_models(folder, cases, options.epochs, options.random)


if __name__ == "__main__":
    main()
