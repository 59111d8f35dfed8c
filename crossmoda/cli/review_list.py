"""The command ``crossmoda review-list``."""

import dataclasses
from pathlib import Path

import click

from crossmoda import dataset, review
from crossmoda.cli.framework import echo, echo_json, json_option, path_option, progress_bar
from crossmoda.output import check_apart, check_ending, write_csv


@click.command()
@path_option("--data", required=True, help="Data set with its corrections.")
@path_option("--results", required=True, help="Folder of the results, one folder per target (propagate, predict).")
@path_option("--csv", "table", help="Table of the ranked cases with all evidence.")
@json_option
def command(data: Path, results: Path, table: Path | None, as_json: bool) -> None:
    """The list is printed, highest benefit first, and written with --csv."""
    if table:
        check_ending(table, ".csv")
        cases = dataset.open_dataset(data).cases
        check_apart([table], [path for case in cases for path in (case.image, case.label)])
    with progress_bar() as progress:
        items = review.review_list(data, results, progress=progress)
    if table:
        names = list(dict.fromkeys(name for item in items for name in item.evidence))
        rows = []
        for rank, item in enumerate(items, start=1):
            numbers = [item.evidence.get(name) for name in names]
            rows.append([rank, item.id, item.priority, item.status, item.seconds, " ".join(item.reasons), *numbers])
        write_csv(table, ["rank", "case", "priority", "status", "seconds", "reasons", *names], rows)
    if as_json:
        echo_json([dataclasses.asdict(item) for item in items])
        return
    width = max(len(item.id) for item in items)
    for item in items:
        echo(f"{item.id:<{width}}  {item.priority:.2f}  {item.status:<12}  {item.reasons[0]}")
        for reason in item.reasons[1:]:
            echo(f"{'':<{width + 22}}{reason}")
