"""Noisy labels from fewer atlases: those whose ears match the target best, against as many drawn at random.

``python Testing/benchmarks/bench_atlas_limit.py FOLDER`` reads a set of ``Testing/independent_sets/make.py`` and prints
the mean Dice of VS (of the targets whose tumor side was found) and of the cochlea. Every atlas is registered once; the
labels of fewer atlases are fused from the same registrations. No atlas has the tumor of its target.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

from crossmoda import dataset, deeds, evaluation, labels, propagation, volume
from crossmoda.propagation.atlas_selection import ranking
from crossmoda.propagation.canonical_ears import target_ears
from crossmoda.propagation.frames import located
from crossmoda.propagation.run import Run

#: Random choices of the same number of atlases, whose mean is taken.
DRAWS = 2


def study(
    target: dataset.Case, atlases: list[dataset.Case], truth: Path, folder: Path, limits: list[int]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the Dice of VS and cochlea by choice and number of atlases."""
    settings, registration = propagation.Settings(most_atlases=0), deeds.Settings(device="cpu")
    propagation.propagate(target, atlases, folder, settings, registration=registration)
    run = Run(target, folder, settings, registration)
    run.examine(atlases)
    registered, side, scan = run.usable(), run.side(), run.registrations.target
    truth_array = volume.read_label_map(truth).array[scan.box]

    def dice(chosen: list[str]) -> tuple[float, float]:
        label, _ = run.fuse([item for item in registered if item.atlas.id in chosen])
        scores = [evaluation.dice(label.label_map == value, truth_array == value) for value in labels.VALUES[1:]]
        return scores[0], scores[1]

    planned = run.wanted()
    ears = {item.atlas.id: located(item.atlas).ears for item in planned}
    ranked = ranking(planned, ears, target_ears(scan.image, scan.frames), side)
    scores = {("all", len(registered)): dice(ranked)}
    for limit in limits:
        scores["ranked", limit] = dice(ranked[:limit])
        for draw in range(DRAWS):
            chosen = np.random.default_rng([draw, limit]).permutation(ranked)[:limit].tolist()
            scores[f"random {draw + 1}", limit] = dice(chosen)
    return scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--atlases", type=int, default=30, help="number of atlases: the first heads with a tumor")
    parser.add_argument("--targets", type=int, default=8, help="number of targets: the next ones")
    parser.add_argument("--limits", type=int, nargs="+", default=[16, 12, 8])
    parser.add_argument("--output", type=Path, help="folder for the registrations")
    options = parser.parse_args()
    with (options.folder / "cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream) if row["part"] == "heads" and row["side"]}
    cases = dataset.open_dataset(options.folder)
    atlases = [case for case in cases.sources if case.id in list(rows)[: options.atlases]]
    ids = list(rows)[options.atlases : options.atlases + options.targets]
    collected: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for target in (case for case in cases.targets if case.id in ids):
            own = [atlas for atlas in atlases if rows[atlas.id]["expert"] != rows[target.id]["expert"]]
            truth = options.folder / "truth" / f"{target.id}_Label.nii.gz"
            scores = study(target, own, truth, (options.output or Path(scratch)) / target.id, options.limits)
            rounded = {key: [round(float(value), 3) for value in pair] for key, pair in scores.items()}
            print(target.id, rounded, flush=True)
            for (choice, count), pair in scores.items():
                collected.setdefault((choice.split()[0], 0 if choice == "all" else count), []).append(pair)
    print("| atlases | Dice VS | Dice cochlea |\n|---|---|---|")
    for (choice, count), pairs in collected.items():
        found = [vs for vs, _ in pairs if vs > 0]
        print(f"| {count or ''} {choice} | {np.mean(found):.3f} | {np.mean([cochlea for _, cochlea in pairs]):.3f} |")


if __name__ == "__main__":
    main()
