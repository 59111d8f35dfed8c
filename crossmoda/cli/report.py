"""The command ``crossmoda report``."""

import functools
from pathlib import Path
from typing import Any

import click

from crossmoda import output as files
from crossmoda.cli.framework import PATH, echo, echo_json, json_option, path_option, progress_bar, structure_option
from crossmoda.dataset.results import record_beside
from crossmoda.dataset.scan_selection import scan_of_label


@click.command()
@click.argument("label", type=PATH)
@path_option("--scan", required=True, help="Scan of the label, or its DICOM study.")
@path_option("-o", "--output", required=True, help="Report (.html); measures as .json and .csv beside it.")
@path_option("--probability", help="Probability map of the tumor, for the interval of its volume.")
@path_option("--weights", help="Weights that segmented the scan, instead of the bundled ones.")
@path_option("--growth", help="Result of crossmoda growth (growth.json), added as a section.")
@click.option("--reviewer", default="", help="Name or initials of the person who corrected the segmentation.")
@click.option("--identify", is_flag=True, help="State the patient's name and ID, or the file name of the scan.")
@click.option("--pdf", is_flag=True, help="Write the report as PDF, too; needs Chromium, Chrome or Edge.")
@json_option
@structure_option
def command(
    label: Path,
    scan: Path,
    output: Path,
    probability: Path | None,
    weights: Path | None,
    growth: Path | None,
    reviewer: str,
    identify: bool,
    pdf: bool,
    as_json: bool,
) -> None:
    """LABEL is the segmentation of a scan. The report is one page without a name; --pdf, or a browser, prints it."""
    from crossmoda import measurement, printing
    from crossmoda import weights as models
    from crossmoda.growth.files import read_result
    from crossmoda.growth.page import add_change
    from crossmoda.measurement.report import About, about_scan, files_of, refuse_replacing, write_report

    files.check_ending(output, ".html")
    if pdf:
        printing.browser()
    refuse_replacing(output, pdf)
    files.check_apart(files_of(output, pdf), [label, scan, probability, weights, growth])
    further = [functools.partial(add_change, content=read_result(growth))] if growth is not None else []
    selected = scan_of_label(scan, label)
    with progress_bar() as progress:
        result = measurement.measure_files(label, selected, probability, weights, progress)
    date, patient = about_scan(selected, identify)
    _, card = models.read_tensors(weights or models.bundled())
    warning = str(card.get("notes", ""))
    record = _record_of(label)
    about = About(record, warning if record else "", date, patient, reviewer)
    written = write_report(result, output, about, pdf=pdf, further=further)
    if as_json:
        echo_json({"sentences": list(result.measures.sentences), "files": written})
        return
    for sentence in result.measures.sentences:
        echo(sentence)
    for path in written:
        echo(path)


def _record_of(label: Path) -> dict[str, Any]:
    """Return the provenance that the segmentation of a scan left beside the label; empty without one."""
    try:
        content = files.read_json(record_beside(label))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
