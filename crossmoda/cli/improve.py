"""The command ``crossmoda improve``."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import echo, options, path_option, progress_bar, structure_option
from crossmoda.parameters import from_arguments
from crossmoda.review import improvement


@click.command()
@structure_option
@path_option("--data", required=True, help="Data set with its corrections.")
@path_option("--results", help="Folder of the propagations, whose noisy labels are used too.")
@path_option("--models", required=True, help="Folder of the models; it receives the new one.")
@options(improvement.ImprovementSettings)
def command(data: Path, results: Path | None, models: Path, **values: Any) -> None:
    """The current model stays current: see crossmoda models --switch."""
    settings = from_arguments(improvement.ImprovementSettings, values)
    with progress_bar() as progress:
        result = improvement.improve(data, results, models, settings, progress)
    learned = ", ".join(f"{count} {kind}" for kind, count in result.learned_from.items())
    echo(f"{result.new.name} continues {result.old.name}. Training cases: {learned}.")
    echo(f"\n{'held out':<24}{'structure':<12}{'before':>8}{'after':>8}")
    for case, key, before, after in result.rows():
        echo(f"{case:<24}{key:<12}{before:>8}{after:>8}")
    echo(f"Mean Dice {result.gain:+.3f}. To use it: crossmoda models {models} --switch {result.new.name}")
    for note in result.notes:
        echo(f"Note: {note}")
    echo(result.new.weights)
