"""The review report of a cohort: agreement of labels and network, corrections and models."""

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
    """Write ``report.html`` and ``cohort.csv`` of the review of a data set; return them as ``report`` and ``table``.

    Args:
        data: the data set with its corrections.
        results: results of the targets, ``<id>/``.
        models: the models; None: only the bundled weights.
        folder: receives both files.

    Raises:
        InputError: ``data`` is not a data set, or the files cannot be written.

    """
    items = review_list(data, results, progress=part(progress, 0.0, 0.9))
    corrections = all_corrections(data)
    rows = [row(item, corrections.get(item.id)) for item in items]
    report(progress, 0.9, "writing the report")
    files = {"report": Path(folder) / REPORT, "table": Path(folder) / TABLE}
    output.write_csv(files["table"], list(rows[0]) if rows else ["case"], (cells.values() for cells in rows))
    _page(items, rows, corrections, registry.models(models or Path(folder) / "no models")).write(files["report"])
    report(progress, 1.0, "done")
    return files


def row(item: Item, correction: Correction | None) -> dict[str, Any]:
    """Return the table row of a case; missing values are None."""
    record = correction.record if correction else {}
    cells: dict[str, Any] = {
        "case": item.id,
        "status": item.status,
        "priority": item.priority,
        "seconds": item.seconds,
        "corrections": correction.number if correction else 0,
    }
    for key in _KEYS:
        cells[f"expected_dice_{key}"] = item.evidence.get(f"expected_dice_{key}")
        cells[f"dice_label_network_{key}"] = item.evidence.get(f"dice_network_{key}")
        cells[f"dice_label_correction_{key}"] = record.get("dice_with_noisy_label", {}).get(key)
        before = record.get("volumes_before_mm3", item.volumes_mm3)
        cells[f"volume_before_mm3_{key}"] = before.get(key)
        cells[f"volume_after_mm3_{key}"] = record.get("volumes_after_mm3", {}).get(key)
    cells["changed_mm3"] = record.get("changed_mm3")
    cells["reviewer"] = record.get("reviewer")
    cells["when"] = record.get("when")
    cells["based_on_version"] = record.get("based_on", {}).get("crossmoda")
    cells["reasons"] = " ".join(item.reasons)
    return cells


def _page(
    items: Sequence[Item],
    rows: Sequence[dict[str, Any]],
    corrections: dict[str, Correction],
    models: Sequence[registry.Model],
) -> Report:
    count = {status: sum(item.status == status for item in items) for status in STATUSES}
    minutes = sum(item.seconds for item in items) / 60
    counts = ", ".join(f"{number} {status}" for status, number in count.items() if number)
    page = Report("Review of noisy labels", f"{len(items)} targets: {counts}. {minutes:.0f} minutes of review.")
    page.section(
        "Agreement",
        "Label: the fused label, or the predicted label without a fused label. Expected Dice: mean over atlases and "
        "network. Priority: expected Dice gain of a correction.",
    )
    columns = ["case", "status", "priority"]
    columns += [f"{measure} {key}" for key in _KEYS for measure in ("expected Dice", "Dice label–network")]
    cells = [
        [line["case"], line["status"], f"{line['priority']:.2f}"]
        + [_number(line[f"{measure}_{key}"], 2) for key in _KEYS for measure in ("expected_dice", "dice_label_network")]
        for line in rows
    ]
    page.table(columns, cells)
    _corrections(page, rows, corrections)
    page.section("Reasons", "Reasons to review the open cases, by decreasing priority.")
    open_items = [item for item in items if item.status in ("open", "needs expert")]
    page.table(["case and reason"], [[f"{item.id}: {reason}"] for item in open_items for reason in item.reasons])
    _models(page, models)
    return page


def _corrections(page: Report, rows: Sequence[dict[str, Any]], corrections: dict[str, Correction]) -> None:
    """Add the corrections: agreement with the label before, volumes, time and version."""
    saved = [line for line in rows if line["case"] in corrections and corrections[line["case"]].label is not None]
    page.section("Corrections", "Dice of the label before the correction with the corrected label. Volumes in mm³.")
    columns = ["case", "status", "seconds", "times saved"]
    columns += [f"{measure} {key}" for key in _KEYS for measure in ("Dice", "before", "after")]
    digits = {"dice_label_correction": 3, "volume_before_mm3": 0, "volume_after_mm3": 0}
    cells = []
    for line in saved:
        numbers = [_number(line[f"{measure}_{key}"], count) for key in _KEYS for measure, count in digits.items()]
        row = [line["case"], line["status"], f"{line['seconds']:.0f}", line["corrections"]]
        cells.append([*row, *numbers, line["based_on_version"] or "–"])
    page.table([*columns, "based on version"], cells)
    if any(line["changed_mm3"] is not None for line in saved):
        page.figure(_volumes_figure(saved), "Volume before and after the correction, with the line of identity.")


def _models(page: Report, models: Sequence[registry.Model]) -> None:
    """Add the models with their training cases and their Dice on held-out cases."""
    page.section(
        "Models", "Dice on held-out corrected cases, of the initial model (before) and of the new model (after)."
    )
    cells = []
    for model in models:
        learned = model.card.get("learned_from", {})
        metrics = model.card.get("metrics") or {}
        scores = [metrics.get(name) for name in ("dice_of_the_initial_model", "dice_on_held_out_corrections")]
        cells.append(
            [
                model.name + (" (current)" if model.is_current else ""),
                model.card.get("crossmoda", "–"),
                learned.get("initial", "–"),
                learned.get("corrected", "–"),
                learned.get("noisy", "–"),
                *(_number(_mean(item), 3) for item in scores),
            ]
        )
    page.table(["model", "version", "initial model", "corrected", "noisy", "Dice before", "Dice after"], cells)


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
