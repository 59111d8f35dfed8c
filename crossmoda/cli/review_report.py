"""The command ``crossmoda review-report``."""

from pathlib import Path

import click

from crossmoda.cli.framework import echo, echo_json, json_option, path_option, progress_bar
from crossmoda.review import cohort_report


@click.command()
@path_option("--data", required=True, help="Data set with its corrections.")
@path_option("--results", required=True, help="Folder of the results, one folder per target (propagate, predict).")
@path_option("--models", help="Folder of the models.")
@path_option("--output", required=True, help="Folder of report.html and cohort.csv.")
@json_option
def command(data: Path, results: Path, models: Path | None, output: Path, as_json: bool) -> None:
    """The files written are printed."""
    with progress_bar() as progress:
        reports = cohort_report.write_report(data, results, models, output, progress)
    if as_json:
        echo_json({"files": reports})
        return
    for file in reports.values():
        echo(file)
