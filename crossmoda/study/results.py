"""The results of a study: CSV tables, HTML report and provenance."""

import csv
import json
from pathlib import Path
from typing import Any

from crossmoda import evaluation, figures, labels, training, volume
from crossmoda.dataset import results as layout
from crossmoda.dataset.label_reading import read_label
from crossmoda.output import without_folders, write_csv, write_json
from crossmoda.provenance import Record
from crossmoda.pseudonyms import without_files
from crossmoda.report import Report
from crossmoda.study.cohort import Cohort
from crossmoda.study.configuration import Configuration
from crossmoda.study.outcome import NOISY, PREDICTION, StudyOutcome

REPORT, CASES, SCORES, FAILURES, PROVENANCE = (
    "report.html",
    "cases.csv",
    "scores.csv",
    "failures.csv",
    "provenance.json",
)
#: Measures in the summary and their number of decimals.
_DIGITS = {"dice": 3, "hd95_mm": 1, "assd_mm": 1, "volume_error_percent": 1}


def write(study: Configuration, cohort: Cohort, outcome: StudyOutcome, record: Record) -> None:
    """Write :data:`REPORT`, :data:`CASES`, :data:`SCORES`, :data:`FAILURES` and :data:`PROVENANCE`."""
    folder = outcome.folder
    header, rows = case_table(cohort, outcome)
    write_csv(folder / CASES, header, rows)
    flat = {f"{case}, {step}": scores for case, steps in outcome.scores.items() for step, scores in steps.items()}
    evaluation.write_scores(flat, folder / SCORES)
    roots = [value for value in vars(study).values() if isinstance(value, Path)]
    files = [file for case in (*cohort.atlases, *cohort.targets) for file in (case.image, case.label)]
    for name, sentences in outcome.failed.items():
        outcome.failed[name] = [without_folders(without_files(why, files), roots) for why in sentences]
    outcome.notes[:] = [without_folders(without_files(note, files), roots) for note in outcome.notes]
    failures = [[name, why] for name, sentences in outcome.failed.items() for why in sentences]
    write_csv(folder / FAILURES, ["case", "why"], failures)
    provenance = record.finish(
        atlases=[case.id for case in cohort.atlases],
        targets=[case.id for case in cohort.targets],
        tests=sorted(cohort.tests),
        learned_from=list(outcome.learned_from),
        failed=outcome.failed,
    )
    write_json(folder / PROVENANCE, json.loads(json.dumps(provenance, default=str)))
    _report(study, cohort, outcome, header, rows).write(folder / REPORT)


def case_table(cohort: Cohort, outcome: StudyOutcome) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the target table."""
    header = ["target", "used for", "tumor side", "atlases fused"]
    header += [f"predicted {structure.key} [mm3]" for structure in labels.STRUCTURES]
    header += [f"Dice {structure.key}, {step}" for step in (NOISY, PREDICTION) for structure in labels.STRUCTURES]
    header += ["failed"]
    rows = []
    for case in cohort.targets:
        noisy, predicted = outcome.noisy.get(case.id), outcome.predicted.get(case.id)
        role = "test" if case.id in cohort.tests else "training" if case.id in outcome.learned_from else ""
        row = [case.id, role, (noisy.side or "unknown") if noisy else "", str(noisy.used) if noisy else ""]
        row += [f"{predicted.volumes_mm3[item.key]:.0f}" if predicted else "" for item in labels.STRUCTURES]
        scores = outcome.scores.get(case.id, {})
        for step in (NOISY, PREDICTION):
            row += [f"{scores[step][item.key]['dice']:.3f}" if step in scores else "" for item in labels.STRUCTURES]
        rows.append([*row, " ".join(outcome.failed.get(case.id, []))])
    return header, rows


def score_rows(cohort: Cohort, outcome: StudyOutcome) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the summary of each step, for the tests and for the other targets."""
    header = ["step", "scans"]
    header += [f"{evaluation.AVERAGED[measure]} {item.key}" for measure in _DIGITS for item in labels.STRUCTURES]
    rows = []
    for step in (NOISY, PREDICTION):
        for name, tests in (("tests", True), ("other targets", False)):
            cases = {
                case: steps[step]
                for case, steps in outcome.scores.items()
                if step in steps and (case in cohort.tests) == tests
            }
            if cases:
                rows.append([f"{step}, {name}", str(len(cases)), *evaluation.mean_cells(cases, _DIGITS)])
    return header, rows


def _report(
    study: Configuration, cohort: Cohort, outcome: StudyOutcome, header: list[str], rows: list[list[str]]
) -> Report:
    network = f"a network trained on them and on {len(outcome.learned_from)} targets" if study.train else "a network"
    page = Report(
        "CrossModa study",
        f"{len(cohort.atlases)} labeled ceT1 atlases, {len(cohort.targets)} hrT2 targets ({len(cohort.tests)} of them "
        f"tests, excluded from training). Noisy labels by registration and fusion: {len(outcome.noisy)}. Predictions "
        f"of {network}: {len(outcome.predicted)}. Failures: {len(outcome.failed)}.",
    )
    if outcome.failed:
        page.section("Failures", "All other cases were completed. Correct the cause and run the study again.")
        page.table(["case", "why"], [[name, " ".join(why)] for name, why in outcome.failed.items()])
    if outcome.scores:
        page.section("Scores", "Mean ± standard deviation over scans with a reference.")
        page.table(*score_rows(cohort, outcome), "HD95, ASSD: surface distances.")
    page.section("Targets")
    page.table(header, [[*row[:-1], "yes" if row[-1] else ""] for row in rows])
    if curve := _curve(outcome):
        page.section("Training")
        page.figure(curve, "Training loss per epoch.")
    _pictures(page, study, cohort, outcome)
    notes = [[name, note] for name, noisy in outcome.noisy.items() for note in noisy.notes]
    notes += [[name, note] for name, predicted in outcome.predicted.items() for note in predicted.notes]
    notes += [["data", note] for note in outcome.notes]
    if notes:
        page.section("Notes", "Notes that did not stop a case.")
        page.table(["case", "note"], notes)
    return page


def _pictures(page: Report, study: Configuration, cohort: Cohort, outcome: StudyOutcome) -> None:
    """Add pictures of the first cases, starting with the tests."""
    ready = [case for case in cohort.targets if case.id in outcome.noisy or case.id in outcome.predicted]
    shown = sorted(ready, key=lambda case: case.id not in cohort.tests)[: study.pictures]
    if shown:
        page.section("Pictures", "Colored: result. Dashed white: reference, if available.")
    for case in shown:
        folder, image = study.results / case.id, case.read_image()
        reference = cohort.references.get(case.id)
        truth = read_label(reference, image.grid) if reference else None
        if truth is not None and not truth.grid.same_as(image.grid):
            truth = volume.resample(truth, image.grid, interpolation="label")
        files = {NOISY: folder / layout.NOISY_LABEL} if case.id in outcome.noisy else {}
        if case.id in outcome.predicted:
            files[PREDICTION] = folder / layout.PREDICTION / layout.LABEL_MAP
        for step, file in files.items():
            page.figure(figures.segmentation_figure(image, volume.read_label_map(file), truth), f"{case.id}: {step}")


def _curve(outcome: StudyOutcome) -> Any:
    """Return the training loss as a figure; None without a training."""
    file = outcome.weights.with_name(training.METRICS) if outcome.weights else Path()
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    points = [(float(row["epoch"]), float(row["loss"])) for row in rows if row.get("loss") and row.get("epoch")]
    if not points:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), color="#2f6f9f", marker="o" if len(points) < 20 else None, markersize=3)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.grid(alpha=0.3)
    return figure
