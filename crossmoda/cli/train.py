"""The command ``crossmoda train``."""

from pathlib import Path
from typing import Any

import click

from crossmoda import training
from crossmoda.cli.framework import (
    echo,
    echo_json,
    files,
    json_option,
    options,
    path_option,
    progress_bar,
    structure_option,
)
from crossmoda.parameters import from_arguments
from crossmoda.steps.train import STEP


@click.command()
@structure_option
@files(STEP, "data", "noisy", "validation", "initial")
@path_option("--output", required=True, help=f"{STEP.file('output').help}.")
@json_option
@options(training.Settings)
def command(data: Path, output: Path, as_json: bool, **values: Any) -> None:
    """A second run resumes an interrupted training."""
    folders = {name: values[name] for name in ("noisy", "validation", "initial")}
    settings = from_arguments(training.Settings, values)
    with progress_bar() as progress:
        path = training.train_folder(data, output, settings, progress, **folders)
    notes = training.notes_of(path)
    if as_json:
        echo_json({"weights": path, "notes": notes})
        return
    if notes:
        echo(f"Note: {notes}", err=True)
    echo(path)
