"""Scores of the experiment: table, paired differences, figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossmoda import evaluation, labels

Scores = dict[str, evaluation.Scores]
"""of each case"""
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
                # A distance of a missing structure does not exist; it is excluded from the mean and counted as Dice 0.
                over_seeds = [np.mean(column[np.isfinite(column)]) for column in each.T if np.isfinite(column).any()]
                digits = 3 if measure == "dice" else 2
                spread = f"{np.std(over_seeds, ddof=1):.{digits}f}" if len(over_seeds) > 1 else "–"
                cells.append(f"{np.mean(over_seeds):.{digits}f} ± {spread}" if over_seeds else "–")
                if measure == "dice":
                    cells.append(f"{np.median(over_seeds):.3f}")
            failures = " + ".join(str(int((run == 0).sum())) for run in values["dice"])
            seeds = ", ".join(f"{run.mean():.3f}" for run in values["dice"])
            print("| " + " | ".join([*cells, f"{failures} of {values['dice'].shape[1]}", seeds]) + " |")


def compare(table: Table, pairs: Sequence[tuple[str, str]], draws: int = 10_000) -> None:
    """Print the mean differences between kinds, paired by case, with 95 % intervals of a bootstrap over cases.

    ``pairs`` names a kind and the kind that it is compared with. A case counts with the mean over the seeds that both
    kinds have.
    """
    print("\n| difference | structure | Dice | cases with Dice 0 |")
    print("|---|---|---|---|")
    for kind, baseline in pairs:
        if kind not in table or baseline not in table:
            continue
        runs = list(zip(table[kind], table[baseline], strict=False))
        chosen = np.random.default_rng(0).integers(len(runs[0][0]), size=(draws, len(runs[0][0])))
        for structure in labels.STRUCTURES:
            dice = np.array([[[run[case][structure.key]["dice"] for case in pair[0]] for run in pair] for pair in runs])
            cells = []
            for values in (dice, 100.0 * (dice == 0)):
                each = (values[:, 0] - values[:, 1]).mean(axis=0)
                low, high = np.percentile(each[chosen].mean(axis=1), (2.5, 97.5))
                form = "{:+.3f} ({:+.3f} to {:+.3f})" if values is dice else "{:+.0f} % ({:+.0f} to {:+.0f})"
                cells.append(form.format(each.mean(), low, high))
            print("| " + " | ".join([f"{kind} − {baseline}", structure.key, *cells]) + " |")


def draw(table: Table, path: Path) -> None:
    """Draw the Dice of every case and run, a row for each kind, with its median."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 0.42 * len(table) + 1), sharey=True, layout="constrained")
    for axis, structure in zip(axes, labels.STRUCTURES, strict=True):
        for place, runs in enumerate(table.values()):
            for seed, run in enumerate(runs):
                dice = [scores[structure.key]["dice"] for scores in run.values()]
                shift = 0.26 * (seed - (len(runs) - 1) / 2)
                jitter = np.random.default_rng(0).uniform(-0.08, 0.08, len(dice))
                axis.scatter(dice, place + shift + jitter, s=14, alpha=0.6, color=f"C{seed}", linewidths=0)
            pooled = [scores[structure.key]["dice"] for run in runs for scores in run.values()]
            axis.vlines(np.median(pooled), place - 0.34, place + 0.34, color="black")
        axis.set_yticks(range(len(table)), list(table))
        axis.set_title(structure.name)
        axis.set_xlim(-0.02, 1)
        axis.set_xlabel("Dice on hrT2 scans")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
