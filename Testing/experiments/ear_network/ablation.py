"""What the network for ears sees, measured: arms trained from random weights on the same samples, three seeds each.

    python ablation.py HEADS OUTPUT --real SHARED --people PEOPLE --check PERSON

Samples are drawn once and stored without features, so that all arms see the same ones in the same order and number:
the part of the patch around the opening of the canal, which takes a seventh of the time. Scores of each run, in the
same part, go to ``OUTPUT/ablation.csv``; a run that is there is not repeated. The table is printed.
"""

import argparse
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import real
import torch
from heads import read
from samples import Sample, draw
from train import PEAK, fit, prepared, stored, validate

from crossmoda import network

#: What each arm sees, and its network.
ARMS = {
    "MIND-SSC": network.Settings("default", 1.0, "ear", "mind"),
    "intensity": network.Settings("default", 1.0, "ear", "intensity"),
    "both": network.Settings("default", 1.0, "ear", "both"),
    "both and contrast": network.Settings("default", 1.0, "ear", "all"),
    "paper (MIND-SSC)": network.Settings("paper", 1.0, "ear", "mind"),
}
_BATCH = 2
#: The part of the patch (z, y, x): 22 x 28 x 34 mm around the opening of the canal, with the cochlea.
_PART = (slice(16, 48), slice(13, 53), slice(17, 65))
_FIELDS = ("arm", "seed", "steps", "vs", "cochlea", "missed", "false", "real_vs", "real_missed", "real_false")


def part(sample: Sample) -> Sample:
    """Return the part of a sample."""
    return Sample(np.ascontiguousarray(sample.image[_PART]), np.ascontiguousarray(sample.label[_PART]), sample.contrast)


def write(sample: Sample, path: Path) -> None:
    """Store the part of a sample."""
    small = part(sample)
    np.savez(path, image=small.image.astype(np.float16), label=small.label, contrast=small.contrast)


def load(path: Path) -> Sample:
    """Read a sample."""
    with np.load(path) as found:
        return Sample(found["image"].astype(np.float32), found["label"], str(found["contrast"]))


def draw_all(options: argparse.Namespace, folder: Path) -> None:
    """Draw the samples of all steps, a real background in four of ten."""
    backgrounds = real.backgrounds(options.real, options.people)
    paths = stored(options.heads, learned=True)
    for number in range(_BATCH * options.steps):
        path = folder / f"{number:04d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([9, number])
        ear = read(paths[rng.integers(len(paths))])
        background = next(real.endless(backgrounds, rng))
        write(real.draw(background, ear, rng) if rng.random() < 0.4 else draw(ear, rng), path)


def stream(folder: Path, steps: int, arm: str, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches in the order of a seed."""
    order = np.random.default_rng([seed, 3]).permutation(_BATCH * steps)
    for numbers in order.reshape(steps, _BATCH):
        pairs = [prepared(load(folder / f"{number:04d}.npz"), ARMS[arm].inputs) for number in numbers]
        yield torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])


def main() -> None:
    """Train and score all arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--real", type=Path, required=True, help="folder of shared data with real_t2")
    parser.add_argument("--people", type=Path, help="folder of further real scans for training")
    parser.add_argument("--check", type=Path, required=True, help="real scans of people for validation")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.output / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    draw_all(options, folder)
    checking = [read(path) for path in stored(options.heads, learned=False)]
    heads = [part(draw(ear, np.random.default_rng([1, n]))) for n, ear in enumerate(checking)]
    ears = itertools.product(real.people(options.check), checking)
    implanted = [part(real.draw(*pair, np.random.default_rng([2, n]))) for n, pair in enumerate(ears)]
    table = options.output / "ablation.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else []
    for seed, name in itertools.product(range(options.seeds), options.arms):
        if any(row["arm"] == name and row["seed"] == str(seed) for row in rows):
            continue
        torch.manual_seed(seed)
        model, average = network.build(ARMS[name]), network.build(ARMS[name]).eval()
        average.load_state_dict(model.state_dict())
        batches = stream(folder, options.steps, name, seed)
        for _ in fit(model, average, batches, PEAK, lambda number: (number + 1) / options.steps):
            pass
        scores = validate(average, [prepared(sample, ARMS[name].inputs) for sample in heads])
        on_real = validate(average, [prepared(sample, ARMS[name].inputs) for sample in implanted])
        row = {"arm": name, "seed": seed, "steps": options.steps, **scores}
        row |= {f"real_{key}": value for key, value in on_real.items()}
        rows.append({field: str(row.get(field, "")) for field in _FIELDS})
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        print(rows[-1], flush=True)
    for name in options.arms:
        runs = [row for row in rows if row["arm"] == name]
        means = {field: np.mean([float(row[field]) for row in runs]) for field in _FIELDS[3:]}
        spans = {field: np.ptp([float(row[field]) for row in runs]) / 2 for field in _FIELDS[3:]}
        print(name, len(runs), {field: f"{means[field]:.2f} ± {spans[field]:.2f}" for field in means})


if __name__ == "__main__":
    main()
