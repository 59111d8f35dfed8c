"""Review and correction: which label first, better models, the report."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import PATH, options, progress_bar, subcommand
from crossmoda.parameters import from_arguments

_DATA = click.option("--data", type=PATH, required=True, help="Data set; corrections lie in its folder.")
_RESULTS = click.option(
    "--results", type=PATH, required=True, help="Folder of the results, one folder per target (propagate, predict)."
)


@subcommand("review-list", "List the labels to correct, that whose correction would help most first, with reasons.")
def _review_list() -> click.Command:
    from crossmoda import review
    from crossmoda.output import write_csv

    @click.command()
    @_DATA
    @_RESULTS
    @click.option("--csv", "table", type=PATH, help="Write the list, with all numbers behind it, to this file.")
    def command(data: Path, results: Path, table: Path | None) -> None:
        with progress_bar() as progress:
            items = review.review_list(data, results, progress=progress)
        if table:
            names = list(dict.fromkeys(name for item in items for name in item.evidence))
            rows = []
            for rank, item in enumerate(items, start=1):
                numbers = [item.evidence.get(name) for name in names]
                rows.append([rank, item.id, item.priority, item.status, item.seconds, " ".join(item.reasons), *numbers])
            write_csv(table, ["rank", "case", "priority", "status", "seconds", "reasons", *names], rows)
        width = max(len(item.id) for item in items)
        for item in items:
            click.echo(f"{item.id:<{width}}  {item.priority:.2f}  {item.status:<12}  {item.reasons[0]}")
            for reason in item.reasons[1:]:
                click.echo(f"{'':<{width + 22}}{reason}")

    return command


@subcommand("improve", "Train the model further with the corrections and compare it on cases it has not learned from.")
def _improve() -> click.Command:
    from crossmoda.review import improvement

    @click.command()
    @_DATA
    @click.option("--results", type=PATH, help="Folder of the propagations; their noisy labels are learned from too.")
    @click.option("--models", type=PATH, required=True, help="Folder of the models; the new one is added there.")
    @options(improvement.ImprovementSettings)
    def command(data: Path, results: Path | None, models: Path, **values: Any) -> None:
        """The model in use stays in use: see crossmoda models --switch."""
        with progress_bar() as progress:
            settings = from_arguments(improvement.ImprovementSettings, values)
            found = improvement.improve(data, results, models, settings, progress)
        learned = ", ".join(f"{count} {kind}" for kind, count in found.learned_from.items())
        click.echo(f"{found.new.name} went on from {found.old.name} and learned from: {learned}.")
        click.echo(f"\n{'held out':<24}{'structure':<12}{'before':>8}{'after':>8}")
        for case, key, before, after in found.rows():
            click.echo(f"{case:<24}{key:<12}{before:>8}{after:>8}")
        click.echo(f"Mean Dice {found.gain:+.3f}. To use it: crossmoda models {models} --switch {found.new.name}")
        for note in found.notes:
            click.echo(f"Note: {note}")
        click.echo(found.new.weights)

    return command


@subcommand("models", "List the models of a folder, add one, or choose the one in use.")
def _models() -> click.Command:
    from crossmoda.review import models

    @click.command()
    @click.argument("folder", type=PATH)
    @click.option("--switch", help="Use this model from now on ('bundled': the bundled weights).")
    @click.option("--add", "weights", type=PATH, help="Add these weights (.safetensors).")
    @click.option("--name", help="Name of the weights that are added. [default: the next free number]")
    def command(folder: Path, switch: str | None, weights: Path | None, name: str | None) -> None:
        if weights:
            models.add(folder, weights, name)
        if switch:
            models.switch(folder, switch)
        for model in models.models(folder):
            learned = model.card.get("learned_from")
            about = f"from {learned.get('initial')}, corrections: {learned.get('corrected')}" if learned else ""
            click.echo(f"{'*' if model.is_current else ' '} {model.name:<20} {about}".rstrip())

    return command


@subcommand("review-report", "Write the report of a review: agreement, corrections, volumes, time, models.")
def _review_report() -> click.Command:
    from crossmoda.review import cohort_report

    @click.command()
    @_DATA
    @_RESULTS
    @click.option("--models", type=PATH, help="Folder of the models.")
    @click.option("--output", type=PATH, required=True, help="Folder of report.html and cohort.csv.")
    def command(data: Path, results: Path, models: Path | None, output: Path) -> None:
        with progress_bar() as progress:
            files = cohort_report.write_report(data, results, models, output, progress)
        for file in files.values():
            click.echo(file)

    return command
