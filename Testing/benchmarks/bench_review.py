"""Does the order of the review queue help? A simulated annotator corrects cases in that order and at random.

``python Testing/benchmarks/bench_review.py --folder FOLDER`` simulates targets of very different difficulty, makes their
noisy labels from a few atlases and their predictions with the weights that come along, and lets an annotator who knows
the truth paste it inside the regions shown, case after case.
"""

import argparse
from pathlib import Path

import numpy as np

from crossmoda import dataset, inference, propagation, volume
from crossmoda.simulation import Settings, simulate_subject

#: Field of view (mm) and slices: both inner ears and little more.
FIELD = {"field_of_view": 104.0, "slices": 36, "slice_thickness": 1.5}
SIDES = ("left", "right")


def subject_settings(seed: int, atlas: bool) -> Settings:
    """Return what a subject is like: targets differ widely in tumour size, pose, shape and image quality."""
    rng = np.random.default_rng([seed, int(atlas)])
    if atlas:
        return Settings(**FIELD, tumour_volume=float(np.exp(rng.uniform(np.log(150), np.log(3000)))))
    return Settings(
        **FIELD,
        tumour_volume=float(np.exp(rng.uniform(np.log(50), np.log(6000)))),
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
    propagation.propagate_all(data.targets, data.sources, results, device="cpu")
    for case in data.targets:
        place = results / case.id / "prediction"
        if not (place / "uncertainty.nii.gz").exists():
            inference.predict_files(
                case.image,
                place / "label_map.nii.gz",
                probabilities=place / "probability",
                uncertainty=place / "uncertainty.nii.gz",
            )


def main() -> None:
    """Simulate and prepare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="keeps what was simulated and computed")
    parser.add_argument("--atlases", type=int, default=5)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--tests", type=int, default=5)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    simulate(options.folder, options.atlases, options.targets, options.tests, options.seed)
    prepare(options.folder, options.folder / "results")


if __name__ == "__main__":
    main()
