"""The command ``crossmoda study``."""

import dataclasses
from pathlib import Path

import click

from crossmoda import study
from crossmoda.cli.framework import PATH, echo, echo_json, json_option, progress_bar
from crossmoda.errors import BAD_INPUT


@click.command()
@click.argument("configuration", type=PATH)
@click.option("--dry-run", is_flag=True, help="Print steps and expected cost only.")
@click.option("--scheduler", help="Address of a running Dask scheduler, overrides [cluster].")
@click.option("--workers", type=click.IntRange(min=1), help="Number of worker processes or jobs, overrides [cluster].")
@json_option
def command(configuration: Path, dry_run: bool, scheduler: str | None, workers: int | None, as_json: bool) -> None:
    """CONFIGURATION is a TOML file (docs/studies.md). A second run reuses finished results."""
    read = study.read_configuration(configuration)
    changes: dict[str, str | int] = {"address": scheduler, "kind": "scheduler"} if scheduler else {}
    changes |= {"workers": workers} if workers else {}
    cluster = dataclasses.replace(read.cluster, **changes)  # type: ignore[arg-type]
    read = dataclasses.replace(read, cluster=cluster)
    if dry_run:
        with progress_bar() as progress:
            planned = study.plan(read, progress)
        if as_json:
            echo_json(dataclasses.asdict(planned))
        else:
            echo("\n".join(planned.lines()))
        if planned.unusable:
            raise click.exceptions.Exit(BAD_INPUT)
        return
    with progress_bar() as progress:
        outcome = study.run(read, progress, lambda line: echo(line, err=True))
    files = [outcome.folder / name for name in ("report.html", "scores.csv", "cases.csv")]
    if as_json:
        echo_json({"files": files, "failed": list(outcome.failed)})
    else:
        for file in files:
            echo(file)
    if outcome.failed:
        names = ", ".join(outcome.failed)
        echo(f"{len(outcome.failed)} failed: {names}. failures.csv lists the causes.", err=True)
        raise click.exceptions.Exit(BAD_INPUT)
