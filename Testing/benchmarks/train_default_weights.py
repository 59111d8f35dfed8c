"""Train the weights that come with CrossModa, on digital subjects only, and score them on subjects they never saw.

    python Testing/benchmarks/train_default_weights.py --folder FOLDER --seconds 2400 \\
        --output crossmoda/weights/default.safetensors

Every training subject gives two cases: its ceT1 and its hrT2 scan, both with true labels (it is simulation). Subjects
differ widely in anatomy, pose, contrast, resolution and noise. The weights are written only if they are good enough on
the unseen hrT2 scans (median Dice of at least 0.5 for the schwannoma and 0.4 for the cochlea). Prints a Markdown table.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from crossmoda import evaluation, inference, labels, training, volume, weights
from crossmoda.simulation import Settings as Simulation
from crossmoda.simulation import simulate_subject

LICENCE = "Apache-2.0"
NOTES = (
    "These weights have seen no real vestibular schwannoma: every image and label they were trained on is simulated. "
    "They are a start for training on real data and for trying the software, and no medical device. "
    "Expect them to miss tumours on real scans; check every result. "
    "The unseen subjects they were scored on are other deformations, tumours and scans of the same digital heads."
)
GOOD_ENOUGH = {"VS": 0.5, "cochlea": 0.4}
#: Subjects of this number on are for testing only.
FIRST_TEST = 9000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where subjects and the training are kept")
    parser.add_argument("--output", type=Path, help="where good weights go; none: nowhere")
    parser.add_argument("--seconds", type=float, default=2400, help="time for training")
    parser.add_argument("--phantoms", type=int, default=16, help="training subjects, phantom base")
    parser.add_argument("--icbm", type=int, default=8, help="training subjects, ICBM152 base (0 without its images)")
    parser.add_argument("--tests", type=int, default=5, help="unseen subjects per base")
    parser.add_argument("--width", type=float, default=1.0, help="width of the network")
    parser.add_argument("--learning-rate", type=float, default=0.0, help="largest learning rate; 0: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base-folder", type=Path, help="folder of the ICBM152 images")
    parser.add_argument("--initial", type=Path, help="weights to begin with")
    return parser.parse_args()


def simulation_settings(seed: int, testing: bool) -> Simulation:
    """Return how a subject is scanned: training subjects vary more, and only the region of the ears is scanned."""
    if testing:
        return Simulation()
    rng = np.random.default_rng([seed, 11])
    return Simulation(
        field_of_view=112,
        slices=56,
        noise=float(rng.uniform(0.02, 0.07)),
        contrast=float(rng.uniform(0.03, 0.15)),
        bias=float(rng.uniform(0, 0.4)),
        rotation=8.0,
        deformation=float(rng.uniform(3, 5)),
    )


def simulate(folder: Path, base: str, seed: int, base_folder: Path | None, testing: bool = False) -> list[Path]:
    """Write one subject and return the paths of its images (labels lie beside them)."""
    modalities = ("hrT2",) if testing else ("ceT1", "hrT2")
    paths = [folder / f"{base}_{seed}_{modality}.nii.gz" for modality in modalities]
    if all(path.exists() and label_of(path).exists() for path in paths):
        return paths
    settings = simulation_settings(seed, testing)
    subject = simulate_subject(seed, base=base, settings=settings, base_folder=base_folder)
    scans = {"ceT1": (subject.cet1, subject.cet1_label), "hrT2": (subject.hrt2, subject.hrt2_label)}
    for path, modality in zip(paths, modalities, strict=True):
        image, label = scans[modality]
        volume.write(image.with_array(np.round(image.array).clip(0, 65535).astype(np.uint16)), path)
        volume.write(label, label_of(path))
    return paths


def label_of(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", "_label.nii.gz"))


def say(fraction: float, message: str) -> None:
    now = time.monotonic()
    if now - say.last > 30 or fraction == 1:
        print(f"{100 * fraction:5.1f} %  {message}", file=sys.stderr, flush=True)
        say.last = now


say.last = 0.0


def score(images: list[Path], model: weights.Model) -> dict[str, list[float]]:
    """Return the Dice of each structure on each scan."""
    scores: dict[str, list[float]] = {structure.key: [] for structure in labels.STRUCTURES}
    for image in images:
        found = inference.predict(volume.read(image), model, inference.Settings(device="auto"))
        result = evaluation.evaluate(found.label_map, volume.read_label_map(label_of(image)))
        for key in scores:
            scores[key].append(float(result[key]["dice"]))
    return scores


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    counts = {base: count for base, count in (("phantom", options.phantoms), ("icbm", options.icbm)) if count}
    subjects = options.folder / "subjects"
    images = [
        path
        for base, count in counts.items()
        for number in range(count)
        for path in simulate(subjects, base, 7000 + number, options.base_folder)
    ]
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
        about={
            "data": f"simulated: {' and '.join(f'{count} subjects ({base} base)' for base, count in counts.items())}, "
            "ceT1 and hrT2 scan of each, true labels; the icbm base is the ICBM152 2009c average head (MNI)",
            "licence": LICENCE,
            "notes": NOTES,
        },
    )
    model = weights.load(trained)
    table = {}
    for base in counts:
        unseen = [
            path
            for number in range(options.tests)
            for path in simulate(subjects, base, FIRST_TEST + number, options.base_folder, testing=True)
        ]
        table[base] = score(unseen, model)
    report(table, model)
    everything = {key: [value for scores in table.values() for value in scores[key]] for key in GOOD_ENOUGH}
    good = all(np.median(everything[key]) >= least for key, least in GOOD_ENOUGH.items())
    if options.output and good:
        ship(trained, options.output, table)
        print(f"\nWritten to {options.output} ({options.output.stat().st_size / 2**20:.2f} MB).")
    elif options.output:
        print("\nNot good enough: nothing was written.")


def report(table: dict[str, dict[str, list[float]]], model: weights.Model) -> None:
    about = model.card["training"]
    steps = f"{about['steps']} steps, {about['processor_minutes']} minutes of one processor"
    print(f"\n{about['cases']} cases, {steps}. Unseen hrT2 scans:\n")
    print("| base | structure | cases | median Dice | mean | sd | lowest |\n|---|---|---|---|---|---|---|")
    for base, scores in table.items():
        for key, values in scores.items():
            spread = f"{np.mean(values):.3f} | {np.std(values):.3f} | {min(values):.3f}"
            print(f"| {base} | {key} | {len(values)} | {np.median(values):.3f} | {spread} |")


def ship(trained: Path, output: Path, table: dict[str, dict[str, list[float]]]) -> None:
    """Write the weights in half precision with what was measured in their card."""
    tensors, card = weights.read_tensors(trained)
    dice = {
        base: {
            key: {"median": round(float(np.median(values)), 3), "cases": len(values)} for key, values in scores.items()
        }
        for base, scores in table.items()
    }
    card["metrics"] = {"dice_on_unseen_simulated_hrT2": dice, "dice_on_real_scans": None}
    card["training"].pop("identity", None)
    weights.save(output, tensors, json.loads(json.dumps(card)), half=True)


if __name__ == "__main__":
    main()
