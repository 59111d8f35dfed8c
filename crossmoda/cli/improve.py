"""The command ``crossmoda improve``."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import echo, echo_json, json_option, options, path_option, progress_bar, structure_option
from crossmoda.parameters import from_arguments
from crossmoda.review import improvement


@click.command()
@structure_option
@path_option("--data", required=True, help="Data set with its corrections.")
@path_option("--results", help="Folder of the propagations, whose noisy labels are used too.")
@path_option("--models", required=True, help="Folder of the models; it receives the new one.")
@json_option
@options(improvement.ImprovementSettings)
def command(data: Path, results: Path | None, models: Path, as_json: bool, **values: Any) -> None:
    """The current model stays current: see crossmoda models --switch."""
    settings = from_arguments(improvement.ImprovementSettings, values)
    with progress_bar() as progress:
        result = improvement.improve(data, results, models, settings, progress)
    if as_json:
        about = {"model": result.new.name, "initial": result.old.name, "training_cases": result.learned_from}
        dice = {"dice_before": result.before, "dice_after": result.after, "mean_dice_gain": result.gain}
        echo_json({**about, **dice, "notes": list(result.notes), "weights": result.new.weights})
        return
    learned = ", ".join(f"{count} {kind}" for kind, count in result.learned_from.items())
    echo(f"{result.new.name} continues {result.old.name}. Training cases: {learned}.")
    echo(f"\n{'held out':<24}{'structure':<12}{'before':>8}{'after':>8}")
    for case, key, before, after in result.rows():
        echo(f"{case:<24}{key:<12}{before:>8}{after:>8}")
    echo(f"Mean Dice {result.gain:+.3f}. To use it: crossmoda models {models} --switch {result.new.name}")
    for note in result.notes:
        echo(f"Note: {note}")
    echo(result.new.weights)
