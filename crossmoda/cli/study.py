"""A whole study."""

import dataclasses
from pathlib import Path

import click

from crossmoda.cli.framework import PATH, progress_bar, subcommand
from crossmoda.errors import BAD_INPUT


@subcommand("study", "Run a whole study: propagate, train, predict, score, report; on many processes or machines.")
def _study() -> click.Command:
    from crossmoda import study

    @click.command()
    @click.argument("configuration", type=PATH)
    @click.option("--dry-run", is_flag=True, help="Say what would be done and what it would cost, and do nothing.")
    @click.option("--scheduler", help="Address of a running Dask scheduler, instead of what [cluster] says.")
    @click.option("--workers", type=click.IntRange(min=1), help="Worker processes or jobs, instead of [cluster].")
    def command(configuration: Path, dry_run: bool, scheduler: str | None, workers: int | None) -> None:
        """CONFIGURATION is a TOML file (docs/studies.md). A second run takes what is finished from its results."""
        what = study.read_configuration(configuration)
        changes: dict[str, str | int] = {"address": scheduler, "kind": "scheduler"} if scheduler else {}
        changes |= {"workers": workers} if workers else {}
        what = dataclasses.replace(what, cluster=dataclasses.replace(what.cluster, **changes))  # type: ignore[arg-type]
        if dry_run:
            with progress_bar() as progress:
                planned = study.plan(what, progress)
            click.echo("\n".join(planned.lines()))
            return
        with progress_bar() as progress:
            outcome = study.run(what, progress, lambda line: click.echo(line, err=True))
        for name in ("report.html", "scores.csv", "cases.csv"):
            click.echo(outcome.folder / name)
        if outcome.failed:
            names = ", ".join(outcome.failed)
            click.echo(f"{len(outcome.failed)} failed: {names}; failures.csv says why.", err=True)
            raise click.exceptions.Exit(BAD_INPUT)

    return command
