"""The report of a cohort: how far labels and network agree, what was corrected, which models there are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import labels, output
from crossmoda.dataset.corrections import Correction, all_corrections
from crossmoda.progress import Progress, part, report
from crossmoda.report import Report
from crossmoda.review import models as registry
from crossmoda.review.queue import STATUSES, Item, review_list

REPORT, TABLE = "report.html", "cohort.csv"
_KEYS = tuple(structure.key for structure in labels.STRUCTURES)


def write_report(
    data: Path | str,
    results: Path | str,
    models: Path | str | None,
    folder: Path | str,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Write ``report.html`` and ``cohort.csv`` about the review of a data set; return them as ``report`` and ``table``.

    Args:
        data: the data set with its corrections.
        results: the results of each target, ``<id>/``.
        models: the models; None: only the weights that come along are listed.
        folder: receives both files.
        progress: told what is done; may cancel.

    Raises:
        InputError: ``data`` is no data set, or the files cannot be written.

    """
    items = review_list(data, results, progress=part(progress, 0.0, 0.9))
    decided = all_corrections(data)
    rows = [row(item, decided.get(item.id)) for item in items]
    report(progress, 0.9, "writing the report")
    files = {"report": Path(folder) / REPORT, "table": Path(folder) / TABLE}
    names = list(rows[0]) if rows else ["case"]
    output.write_csv(files["table"], names, (row.values() for row in rows))
    _page(items, rows, decided, registry.models(models or Path(folder) / "no models")).write(files["report"])
    report(progress, 1.0, "done")
    return files


def row(item: Item, done: Correction | None) -> dict[str, Any]:
    """Return one line of the table: a case; what does not exist is None."""
    record = done.record if done else {}
    line: dict[str, Any] = {
        "case": item.id,
        "status": item.status,
        "priority": item.priority,
        "seconds": item.seconds,
        "corrections": done.number if done else 0,
    }
    for key in _KEYS:
        line[f"expected_dice_{key}"] = item.evidence.get(f"expected_dice_{key}")
        line[f"dice_label_network_{key}"] = item.evidence.get(f"dice_network_{key}")
        line[f"dice_label_correction_{key}"] = record.get("dice_with_noisy_label", {}).get(key)
        before = record.get("volumes_before_mm3", item.volumes_mm3)
        line[f"volume_before_mm3_{key}"] = before.get(key)
        line[f"volume_after_mm3_{key}"] = record.get("volumes_after_mm3", {}).get(key)
    line["changed_mm3"] = record.get("changed_mm3")
    line["reviewer"] = record.get("reviewer")
    line["when"] = record.get("when")
    line["based_on_version"] = record.get("based_on", {}).get("crossmoda")
    line["reasons"] = " ".join(item.reasons)
    return line


def _page(
    items: Sequence[Item],
    rows: Sequence[dict[str, Any]],
    decided: dict[str, Correction],
    known: Sequence[registry.Model],
) -> Report:
    count = {status: sum(item.status == status for item in items) for status in STATUSES}
    minutes = sum(item.seconds for item in items) / 60
    done = ", ".join(f"{number} {status}" for status, number in count.items() if number)
    page = Report("Review of noisy labels", f"{len(items)} targets: {done}. {minutes:.0f} minutes of review.")
    page.section(
        "Agreement",
        "Label: the fused label of the atlases, or the network's where there is none. Expected Dice is what the "
        "opinions of atlases and network come to; priority is the Dice that a correction is expected to gain.",
    )
    columns = ["case", "status", "priority"]
    columns += [f"{what} {key}" for key in _KEYS for what in ("expected Dice", "Dice label–network")]
    cells = [
        [line["case"], line["status"], f"{line['priority']:.2f}"]
        + [_number(line[f"{what}_{key}"], 2) for key in _KEYS for what in ("expected_dice", "dice_label_network")]
        for line in rows
    ]
    page.table(columns, cells)
    _corrections(page, rows, decided)
    page.section("Reasons", "Why the cases that are left should be looked at, the most useful first.")
    left = [item for item in items if item.status in ("open", "needs expert")]
    page.table(["case and reason"], [[f"{item.id}: {reason}"] for item in left for reason in item.reasons])
    _models(page, known)
    return page


def _corrections(page: Report, rows: Sequence[dict[str, Any]], decided: dict[str, Correction]) -> None:
    """Add what was corrected: agreement with the label before, volumes, time, and from what."""
    saved = [line for line in rows if line["case"] in decided and decided[line["case"]].label is not None]
    page.section("Corrections", "Dice: of the label before with the corrected one. Volumes in mm³, before and after.")
    columns = ["case", "status", "seconds", "times saved"]
    columns += [f"{what} {key}" for key in _KEYS for what in ("Dice", "before", "after")]
    cells = [
        [line["case"], line["status"], f"{line['seconds']:.0f}", line["corrections"]]
        + [
            _number(line[f"{what}_{key}"], digits)
            for key in _KEYS
            for what, digits in (("dice_label_correction", 3), ("volume_before_mm3", 0), ("volume_after_mm3", 0))
        ]
        for line in saved
    ]
    page.table(
        [*columns, "based on version"],
        [[*one, line["based_on_version"] or "–"] for one, line in zip(cells, saved, strict=True)],
    )
    if any(line["changed_mm3"] is not None for line in saved):
        page.figure(_volumes_figure(saved), "Volume before and after the correction; on the line nothing changed.")


def _models(page: Report, known: Sequence[registry.Model]) -> None:
    """Add the models: what each learned from, and how it did on cases it had not seen."""
    page.section(
        "Models", "Dice on corrected cases that were not learned from: of the model it began with, and its own."
    )
    cells = []
    for model in known:
        learned = model.card.get("learned_from", {})
        metrics = model.card.get("metrics") or {}
        both = [metrics.get(name) for name in ("dice_of_the_initial_model", "dice_on_held_out_corrections")]
        cells.append(
            [
                model.name + (" (in use)" if model.is_current else ""),
                model.card.get("crossmoda", "–"),
                learned.get("initial", "–"),
                learned.get("corrected", "–"),
                learned.get("noisy", "–"),
                *(_number(_mean(one), 3) for one in both),
            ]
        )
    page.table(["model", "version", "began with", "corrected", "noisy", "Dice before", "Dice after"], cells)


def _mean(scores: Any) -> float | None:
    if not isinstance(scores, dict) or not scores:
        return None
    return float(np.mean([value for case in scores.values() for value in case.values()]))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _volumes_figure(saved: Sequence[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(_KEYS), 4), layout="constrained", dpi=110)
    for axes, structure in zip(figure.subplots(1, len(_KEYS), squeeze=False)[0], labels.STRUCTURES, strict=True):
        pairs = [[line[f"volume_{when}_mm3_{structure.key}"] for when in ("before", "after")] for line in saved]
        points = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
        largest = max(float(points.max(initial=1.0)) * 1.1, 1.0)
        axes.plot([0, largest], [0, largest], color="0.7", linewidth=1)
        axes.scatter(points[:, 0], points[:, 1], color=[channel / 255 for channel in structure.color], s=26)
        axes.set(title=structure.name, xlabel="before, mm³", ylabel="after, mm³", xlim=(0, largest), ylim=(0, largest))
    return figure
