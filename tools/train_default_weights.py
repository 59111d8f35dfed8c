"""Train the bundled weights on digital subjects and score them on unseen ones.

    python tools/train_default_weights.py --folder FOLDER --seconds 2400 \\
        --base-folder ICBM --shapes-folder SHAPES --output crossmoda/weights/default.safetensors

Every training subject gives two cases: its ceT1 and its hrT2 scan, both with true labels (it is simulation). Subjects
differ widely in anatomy, pose, contrast, resolution and noise; those on the ICBM base have tumor shapes drawn by
experts, if SHAPES is passed. More subjects, on both bases, have a small tumor, a compact one in the canal with fluid on
both sides, or none: a network trained on tumors only reports one in every head.
Development subjects, with tumors of other patients or small ones, set the weight of the background: the Dice loss makes
structures too large. Test subjects have tumors of a third group of patients and are scanned as whole heads; more have a
small tumor of a fixed volume, or none. The weights are written only if they are good
enough on the unseen hrT2 scans (GOOD_ENOUGH) and miss none. Prints Markdown tables. Subjects and a finished training in
FOLDER are taken as they are.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from canal_tumors import draw_canal_tumor

from crossmoda import evaluation, inference, labels, training, volume, weights
from crossmoda.anatomy import plausibility
from crossmoda.provenance import checksum
from crossmoda.simulation import Settings as Simulation
from crossmoda.simulation import simulate_subject
from crossmoda.simulation.subject import SIDES

LICENSE = "Apache-2.0"
NOTES = (
    "Trained on simulated images and labels only, never on a real vestibular schwannoma. "
    "For initializing a training on real data and for trying the software; not a medical device. "
    "Expect missed tumors on real scans; check every result. "
    "The test subjects are other deformations, tumors and scans of the same digital heads."
)
#: Least median Dice on unseen hrT2 scans, 0.01 less than that of the weights before these; least mean Dice of small
#: tumors, of which none may be missed; largest share of healthy subjects in which a tumor is marked.
GOOD_ENOUGH = {"icbm": {"VS": 0.911, "cochlea": 0.905}, "phantom": {"VS": 0.898, "cochlea": 0.9}}
GOOD_ENOUGH_SMALL = 0.75
GOOD_ENOUGH_HEALTHY = 0.3
#: Seeds from here on are for training, for development and for testing only.
FIRST_TRAINING, FIRST_DEVELOPMENT, FIRST_TEST = 7000, 8000, 9000
#: Those of subjects with small tumors. The tests are what ``crossmoda simulate --seed 91 --sources 0 --targets 0
#: --tests 6 --tumor-volume V`` makes.
FIRST_SMALL = {"train": 7500, "dev": 8500, "test": 91000}
#: Those of subjects without a tumor.
FIRST_HEALTHY = {"train": 7600, "dev": 8600, "test": 93000}
#: Those of subjects with a compact tumor in the canal.
FIRST_CANAL = {"train": 7700, "dev": 8700, "test": 94000}
#: Volumes of small tumors, mm3: between these for training and development, exactly these for testing.
SMALL_MM3 = {"train": (50.0, 400.0), "dev": (60.0, 300.0)}
SMALL_TESTS_MM3 = (110.0, 245.0)
#: How many times as probable as the network says the background may be taken to be.
FACTORS = (1, 2, 4, 8, 16)


def arguments() -> argparse.Namespace:
    """Return the command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for subjects and training")
    parser.add_argument("--output", type=Path, help="file of the weights, written if good enough")
    parser.add_argument("--seconds", type=float, default=2400, help="time for training")
    parser.add_argument("--phantoms", type=int, default=10, help="training subjects, phantom base")
    parser.add_argument("--icbm", type=int, default=40, help="training subjects, ICBM152 base (0 without its images)")
    parser.add_argument("--small", type=int, default=16, help="training subjects with a small tumor, on each base")
    parser.add_argument("--canal", type=int, default=15, help="training subjects with a tumor in the canal, each base")
    parser.add_argument("--healthy", type=int, default=16, help="training subjects without a tumor, on each base")
    parser.add_argument("--healthy-tests", type=int, default=10, help="unseen subjects without a tumor, on each base")
    parser.add_argument("--tests", type=int, default=20, help="unseen subjects, ICBM152 base")
    parser.add_argument("--development", type=int, default=8, help="development subjects, ICBM152 base")
    parser.add_argument(
        "--small-development", type=int, default=6, help="with a small tumor, one in the canal, and none, each base"
    )
    parser.add_argument("--small-tests", type=int, default=6, help="of each volume, on each base")
    parser.add_argument("--canal-tests", type=int, default=8, help="with a tumor in the canal, on each base")
    parser.add_argument("--phantom-tests", type=int, default=6, help="unseen subjects, phantom base")
    parser.add_argument("--width", type=float, default=1.0, help="width of the network")
    parser.add_argument("--learning-rate", type=float, default=0.0, help="largest learning rate; 0: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base-folder", type=Path, help="folder of the ICBM152 images")
    parser.add_argument("--shapes-folder", type=Path, help="label maps drawn by experts, for the ICBM152 base")
    parser.add_argument("--initial", type=Path, help="weights to begin with")
    return parser.parse_args()


def simulation_settings(seed: int, testing: bool, tumor_volume: float | None = 0.0) -> Simulation:
    """Return how a subject is scanned: training subjects vary more, and only the region of the ears is scanned."""
    tumor = {"healthy": True} if tumor_volume is None else {"tumor_volume": tumor_volume}
    if testing:
        return Simulation(**tumor)
    rng = np.random.default_rng([seed, 11])
    return Simulation(
        field_of_view=112,
        slices=56,
        noise=float(rng.uniform(0.02, 0.07)),
        contrast=float(rng.uniform(0.03, 0.15)),
        bias=float(rng.uniform(0, 0.4)),
        rotation=8.0,
        deformation=float(rng.uniform(3, 5)),
        **tumor,
    )


def shapes_of(shapes: Path | None, folder: Path, group: str) -> Path | None:
    """Return a folder with the expert label maps of one group of patients: 3 of 5 train, 1 of 5 develops, 1 of 5 tests.

    No patient's tumor is in two groups.
    """
    if shapes is None:
        return None
    from crossmoda.simulation.shapes import shape_files

    members = {"test": (0,), "dev": (1,), "train": (2, 3, 4)}[group]
    (folder / group).mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(shape_files(shapes.resolve())):
        if number % 5 in members and not (folder / group / file.name).exists():
            (folder / group / file.name).symlink_to(file)
    return folder / group


def simulate(
    folder: Path,
    base: str,
    seed: int,
    base_folder: Path | None,
    shapes: Path | None = None,
    testing: bool = False,
    *,
    tumor_volume: float | None = 0.0,
    side: str | None = None,
) -> list[Path]:
    """Write one subject and return the paths of its images (labels lie beside them).

    The tumor has a shape of ``shapes`` with its own volume, or is drawn with ``tumor_volume`` (mm3; 0: any volume;
    None: no tumor).
    """
    modalities = ("hrT2",) if testing else ("ceT1", "hrT2")
    size = "_healthy" if tumor_volume is None else f"_{tumor_volume:.0f}mm3" if tumor_volume else ""
    paths = [folder / f"{base}_{seed}{size}_{modality}.nii.gz" for modality in modalities]
    if all(path.exists() and label_of(path).exists() for path in paths):
        return paths
    settings = simulation_settings(seed, testing, tumor_volume)
    subject = simulate_subject(
        seed, base=base, side=side, settings=settings, base_folder=base_folder, shapes_folder=shapes
    )
    scans = {"ceT1": (subject.cet1, subject.cet1_label), "hrT2": (subject.hrt2, subject.hrt2_label)}
    for path, modality in zip(paths, modalities, strict=True):
        image, label = scans[modality]
        volume.write(image.with_array(np.round(image.array).clip(0, 65535).astype(np.uint16)), path)
        volume.write(label, label_of(path))
    return paths


def subjects(options: argparse.Namespace, base: str, first: int, count: int, group: str) -> list[Path]:
    """Simulate subjects (or find them) and return the paths of their images."""
    shapes = shapes_of(options.shapes_folder, options.folder / "shapes", group) if base == "icbm" else None
    return [
        path
        for seed in range(first, first + count)
        for path in simulate(options.folder / "subjects", base, seed, options.base_folder, shapes, group != "train")
    ]


def small_subjects(options: argparse.Namespace, base: str, count: int, group: str, volume: float = 0.0) -> list[Path]:
    """Simulate subjects with a small tumor (or find them); ``volume``: the tumors', else any of the group's."""
    images = []
    for number in range(count):
        seed = FIRST_SMALL[group] + number
        # Logarithms are uniform: the smallest tumors are the hard ones.
        tumor = volume or float(np.exp(np.random.default_rng([seed, 12]).uniform(*np.log(SMALL_MM3[group]))))
        images += simulate(
            options.folder / "subjects",
            base,
            seed,
            options.base_folder,
            testing=group != "train",
            tumor_volume=tumor,
            side=SIDES[number % 2],
        )
    return images


def canal_subjects(options: argparse.Namespace, base: str, count: int, group: str) -> list[Path]:
    """Simulate subjects with a compact tumor in the canal (or find them) and return the paths of their images."""
    images = []
    for number in range(count):
        seed = FIRST_CANAL[group] + number
        shape = options.folder / "shapes" / "canal" / str(seed)
        images += simulate(
            options.folder / "subjects",
            base,
            seed,
            options.base_folder,
            shape,
            group != "train",
            tumor_volume=draw_canal_tumor(seed, shape),
            side=SIDES[number % 2],
        )
    return images


def healthy_subjects(options: argparse.Namespace, base: str, count: int, group: str) -> list[Path]:
    """Simulate subjects without a tumor (or find them) and return the paths of their images."""
    first = FIRST_HEALTHY[group]
    return [
        path
        for seed in range(first, first + count)
        for path in simulate(
            options.folder / "subjects", base, seed, options.base_folder, testing=group != "train", tumor_volume=None
        )
    ]


def label_of(image: Path) -> Path:
    """Return the label map beside an image."""
    return image.with_name(image.name.replace(".nii.gz", "_label.nii.gz"))


def say(fraction: float, message: str) -> None:
    """Print the progress, at most every 30 s."""
    now = time.monotonic()
    if now - say.last > 30 or fraction == 1:
        print(f"{100 * fraction:5.1f} %  {message}", file=sys.stderr, flush=True)
        say.last = now


say.last = 0.0


def score(images: list[Path], model: weights.TrainedNetwork) -> dict[str, list[float]]:
    """Return the Dice of each structure on each scan."""
    scores: dict[str, list[float]] = {structure.key: [] for structure in labels.STRUCTURES}
    for image in images:
        prediction = inference.predict(volume.read(image), model, inference.Settings(device="auto"))
        result = evaluation.evaluate(prediction.label_map, volume.read_label_map(label_of(image)))
        for key in scores:
            scores[key].append(float(result[key]["dice"]))
    return scores


def false_volumes(images: list[Path], model: weights.TrainedNetwork) -> list[float]:
    """Return the volume of the false tumor on each healthy scan, mm3."""
    return [inference.predict(volume.read(image), model).provenance["volumes_mm3"]["VS"] for image in images]


def main() -> None:
    """Simulate, train, choose the background bias, score, and write the weights if they are good enough."""
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    counts = {"phantom": options.phantoms, "icbm": options.icbm}
    images = [path for base in counts for path in subjects(options, base, FIRST_TRAINING, counts[base], "train")]
    images += [path for base in counts for path in small_subjects(options, base, options.small, "train")]
    images += [path for base in counts for path in healthy_subjects(options, base, options.healthy, "train")]
    images += [path for base in counts for path in canal_subjects(options, base, options.canal, "train")]
    settings = training.Settings(
        seconds=options.seconds,
        epochs=1_000_000,
        width=options.width,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    trained = training.train(
        [training.TrainingCase(path, label_of(path)) for path in images],
        options.folder / "run",
        settings,
        progress=say,
        initial=options.initial,
    )
    bases = [base for base in counts if counts[base]]
    development = subjects(options, "icbm", FIRST_DEVELOPMENT, options.development, "dev") if options.icbm else []
    development += [path for base in bases for path in small_subjects(options, base, options.small_development, "dev")]
    development += [
        path for base in bases for path in healthy_subjects(options, base, options.small_development, "dev")
    ]
    if options.canal:
        development += [
            path for base in bases for path in canal_subjects(options, base, options.small_development, "dev")
        ]
    if development:
        trained = calibrate(trained, development, options.folder / "calibrated.safetensors")
        learn_doubt(trained, development)
    model = weights.load(trained)
    tests = {"phantom": options.phantom_tests, "icbm": options.tests}
    table = {base: score(subjects(options, base, FIRST_TEST, tests[base], "test"), model) for base in tests}
    small = {
        (base, size): score(small_subjects(options, base, options.small_tests, "test", size), model)
        for base in bases
        for size in SMALL_TESTS_MM3
    }
    healthy = {
        base: false_volumes(healthy_subjects(options, base, options.healthy_tests, "test"), model) for base in bases
    }
    canal = {base: score(canal_subjects(options, base, options.canal_tests, "test"), model)["VS"] for base in bases}
    report(table, model)
    report_small(small)
    report_canal(canal)
    report_healthy(healthy)
    good = good_enough(table, small, healthy)
    if options.output and good:
        ship(trained, options.output, table, small, healthy, canal, about(options))
        print(f"\nWritten to {options.output} ({options.output.stat().st_size / 2**20:.2f} MB).")
    elif options.output:
        print("\nNot good enough: nothing was written.")


def good_enough(
    table: dict[str, dict[str, list[float]]],
    small: dict[tuple[str, float], dict[str, list[float]]],
    healthy: dict[str, list[float]],
) -> bool:
    """Whether no structure is missed, none is worse by more than 0.01, and few healthy heads have a false tumor."""
    usual = all(
        min(values) > 0 and np.median(values) >= GOOD_ENOUGH[base][key]
        for base, scores in table.items()
        for key, values in scores.items()
        if values
    )
    tumors = [value for scores in small.values() for value in scores["VS"]]
    marked = [mm3 > 0 for volumes in healthy.values() for mm3 in volumes]
    sensitive = not tumors or (min(tumors) > 0 and float(np.mean(tumors)) > GOOD_ENOUGH_SMALL)
    return usual and sensitive and (not marked or float(np.mean(marked)) < GOOD_ENOUGH_HEALTHY)


def calibrate(trained: Path, development: list[Path], calibrated: Path) -> Path:
    """Favor the background over each structure by the factor with the best mean Dice on the development scans.

    Where there is no tumor the Dice is 1 if none is marked, else 0. Each structure has its own factor: a cochlea is
    always present, a small tumor is easily lost.
    """
    tensors, card = weights.read_tensors(trained)
    model = weights.load(trained)
    dice = [dice_by_factor(image, model) for image in development]
    best = {}
    for key in (structure.key for structure in labels.STRUCTURES):
        means = {factor: round(float(np.mean([each[factor][key] for each in dice])), 4) for factor in FACTORS}
        best[key] = max(means, key=lambda factor: means[factor])
        print(f"{key}: mean Dice on {len(development)} development scans by factor of the background: {means}")
    favor_background(tensors, best)
    card["training"]["background_factors"] = best
    return weights.save(calibrated, tensors, card)


def learn_doubt(trained: Path, development: list[Path]) -> None:
    """Write into the model card below which mean probability a tumor is doubtful.

    On the development scans, it separates true tumors from false ones best.
    """
    model = weights.load(trained)
    marks: dict[bool, list[float]] = {True: [], False: []}
    for image in development:
        sure = inference.predict(volume.read(image), model).provenance["mean_probability"]["VS"]
        if sure:
            marks[bool((volume.read_label_map(label_of(image)).array == labels.VS).any())].append(sure)
    true, false = (np.array(marks[has_tumor]) for has_tumor in (True, False))
    if not len(false):
        return
    values = np.unique([*true, *false])
    limits = [*(values[1:] + values[:-1]) / 2, values[-1] + 0.01]
    best = max(limits, key=lambda limit: (true >= limit).mean() + (false < limit).mean())
    doubted = f"{(true < best).sum()} of {len(true)} tumors, {(false < best).sum()} of {len(false)} false marks"
    print(f"doubtful below a mean probability of {best:.3f}: {doubted} on the development scans")
    tensors, card = weights.read_tensors(trained)
    weights.save(trained, tensors, {**card, weights.DOUBTFUL: {"VS": round(float(best), 3)}})


def dice_by_factor(image: Path, model: weights.TrainedNetwork) -> dict[int, dict[str, float]]:
    """Return the Dice of each structure with the background so many times as probable."""
    scan, truth = volume.read(image), volume.read_label_map(label_of(image))
    probabilities = inference.predict(scan, model).probabilities
    dice = {}
    for factor in FACTORS:
        shifted = np.concatenate([factor * probabilities[:1], probabilities[1:]])
        shifted /= shifted.sum(axis=0, keepdims=True)
        label_map = plausibility.plausible(shifted.argmax(axis=0).astype(np.uint8), shifted, scan.grid)
        scores = evaluation.evaluate(scan.with_array(label_map), truth)
        dice[factor] = {structure.key: float(scores[structure.key]["dice"]) for structure in labels.STRUCTURES}
    return dice


def favor_background(tensors: dict, factors: dict[str, int]) -> None:
    """Make the background as many times as probable relative to each structure, before normalization."""
    bias = tensors["classifier.bias"]
    each = len(bias) // len(labels.VALUES)
    for structure in labels.STRUCTURES:
        bias[structure.value * each : (structure.value + 1) * each] -= float(np.log(factors[structure.key]))


def report(table: dict[str, dict[str, list[float]]], model: weights.TrainedNetwork) -> None:
    """Print the scores of the unseen subjects."""
    about = model.card["training"]
    steps = f"{about['steps']} steps, {about['processor_minutes']} minutes of one processor"
    print(f"\n{about['cases']} cases, {steps}. Unseen hrT2 scans:\n")
    print("| base | structure | cases | median Dice | mean | sd | lowest | Dice 0 |\n|---|---|---|---|---|---|---|---|")
    for base, scores in table.items():
        for key, values in scores.items():
            spread = f"{np.mean(values):.3f} | {np.std(values):.3f} | {min(values):.3f} | {values.count(0.0)}"
            print(f"| {base} | {key} | {len(values)} | {np.median(values):.3f} | {spread} |")


def report_small(small: dict[tuple[str, float], dict[str, list[float]]]) -> None:
    """Print the scores of small tumors."""
    print("\n| base | volume [mm3] | VS Dice, sorted | cochlea median |\n|---|---|---|---|")
    for (base, size), scores in small.items():
        tumors = ", ".join(f"{value:.2f}" for value in sorted(scores["VS"]))
        print(f"| {base} | {size:.0f} | {tumors} | {np.median(scores['cochlea']):.3f} |")


def report_canal(canal: dict[str, list[float]]) -> None:
    """Print the scores of compact tumors in the canal."""
    print("\n| base, tumor in the canal | VS Dice, sorted | median |\n|---|---|---|")
    for base, values in canal.items():
        print(f"| {base} | {', '.join(f'{value:.2f}' for value in sorted(values))} | {np.median(values):.3f} |")


def report_healthy(healthy: dict[str, list[float]]) -> None:
    """Print the false positives in subjects without a tumor."""
    print("\n| base, without a tumor | scans | none marked | false VS [mm3], sorted |\n|---|---|---|---|")
    for base, volumes in healthy.items():
        false = ", ".join(f"{mm3:.0f}" for mm3 in sorted(volumes))
        print(f"| {base} | {len(volumes)} | {volumes.count(0.0)} | {false} |")


def about(options: argparse.Namespace) -> dict:
    """Return what the model card says for people."""
    shapes = ", tumor shapes drawn by experts: VS-SEG, TCIA, CC BY 4.0" if options.shapes_folder else ""
    smallest, largest = SMALL_MM3["train"]
    initial = {"initial_weights_sha256": checksum(options.initial)} if options.initial else {}
    return {
        "data": f"simulated: {options.phantoms} subjects (phantom base) and {options.icbm} (icbm base{shapes}), "
        f"{options.small} of each base with a tumor of {smallest:.0f} to {largest:.0f} mm3, "
        f"{options.canal} of each base with a compact tumor in the canal and "
        f"{options.healthy} of each base without a tumor, "
        "ceT1 and hrT2 scan of each, true labels; the icbm base is the ICBM152 2009c average head (MNI)",
        "license": LICENSE,
        "notes": NOTES,
        **initial,
    }


def ship(
    trained: Path,
    output: Path,
    table: dict[str, dict[str, list[float]]],
    small: dict[tuple[str, float], dict[str, list[float]]],
    healthy: dict[str, list[float]],
    canal: dict[str, list[float]],
    said: dict,
) -> None:
    """Write the weights in half precision with what was measured, and what is ``said``, in their card."""
    tensors, card = weights.read_tensors(trained)
    dice = {
        base: {
            key: {"median": round(float(np.median(values)), 3), "cases": len(values), "failures": values.count(0.0)}
            for key, values in scores.items()
        }
        for base, scores in table.items()
    }
    card["metrics"] = {"dice_on_unseen_simulated_hrT2": dice, "dice_on_real_scans": None}
    if small:
        card["metrics"]["dice_on_small_VS"] = {
            f"{base}, {size:.0f} mm3": sorted(round(value, 2) for value in scores["VS"])
            for (base, size), scores in small.items()
        }
    if any(canal.values()):
        card["metrics"]["dice_on_VS_in_the_canal"] = {
            base: sorted(round(value, 2) for value in values) for base, values in canal.items()
        }
    if any(healthy.values()):
        card["metrics"]["false_VS_mm3_without_a_tumor"] = {
            base: sorted(round(mm3, 1) for mm3 in volumes) for base, volumes in healthy.items()
        }
    card.update(said)
    card["training"].pop("identity", None)
    weights.save(output, tensors, json.loads(json.dumps(card)), half=True)


if __name__ == "__main__":
    main()
