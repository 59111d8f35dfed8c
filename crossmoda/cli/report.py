"""The command ``crossmoda report``."""

from pathlib import Path
from typing import Any

import click

from crossmoda import output as files
from crossmoda.cli.framework import PATH, echo, path_option, progress_bar, structure_option
from crossmoda.dataset.results import record_beside
from crossmoda.dataset.scan_selection import select_scan


@click.command()
@click.argument("label", type=PATH)
@path_option("--scan", required=True, help="Scan of the label.")
@path_option("-o", "--output", required=True, help="Report (.html); measures as .json and .csv beside it.")
@path_option("--probability", help="Probability map of the tumor, for the interval of its volume.")
@path_option("--weights", help="Weights that segmented the scan, instead of the bundled ones.")
@click.option("--reviewer", default="", help="Name or initials of the person who corrected the segmentation.")
@click.option("--identify", is_flag=True, help="State the patient's name and ID, or the file name of the scan.")
@structure_option
def command(
    label: Path,
    scan: Path,
    output: Path,
    probability: Path | None,
    weights: Path | None,
    reviewer: str,
    identify: bool,
) -> None:
    """LABEL is the segmentation of a scan. The report is one page without a name; print it from the browser."""
    from crossmoda import measurement
    from crossmoda import weights as models
    from crossmoda.measurement.report import About, about_scan, write_report

    files.check_ending(output, ".html")
    beside = [output, output.with_suffix(".json"), output.with_suffix(".csv")]
    files.check_apart(beside, [label, scan, probability, weights])
    selected = select_scan(scan).path
    with progress_bar() as progress:
        result = measurement.measure_files(label, selected, probability, weights, progress)
    date, patient = about_scan(selected, identify)
    _, card = models.read_tensors(weights or models.bundled())
    warning = str(card.get("notes", ""))
    record = _record_of(label)
    write_report(result, output, About(record, warning if record else "", date, patient, reviewer))
    for sentence in result.measures.sentences:
        echo(sentence)
    for path in beside:
        echo(path)


def _record_of(label: Path) -> dict[str, Any]:
    """Return the provenance that the segmentation of a scan left beside the label; empty without one."""
    try:
        content = files.read_json(record_beside(label))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
