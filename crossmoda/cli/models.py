"""The command ``crossmoda models``."""

import dataclasses
from pathlib import Path

import click

from crossmoda.cli.framework import PATH, echo, echo_json, json_option, path_option
from crossmoda.errors import InputError
from crossmoda.review import models


@click.command()
@click.argument("folder", type=PATH)
@click.option("--switch", help="Name of the new current model ('bundled': the bundled weights).")
@path_option("--add", "weights", help="Weights to add (.safetensors).")
@click.option("--name", help="Name of the added model. [default: the next free number]")
@json_option
def command(folder: Path, switch: str | None, weights: Path | None, name: str | None, as_json: bool) -> None:
    """An asterisk marks the current model."""
    if not weights and not folder.is_dir():
        raise InputError(f"Not a folder: {folder}. Select the folder of the models, or add weights with --add.")
    if weights:
        models.add(folder, weights, name)
    if switch:
        models.switch(folder, switch)
    if as_json:
        echo_json([dataclasses.asdict(model) for model in models.models(folder)])
        return
    for model in models.models(folder):
        learned = model.card.get("learned_from")
        origin = f"from {learned.get('initial')}, corrections: {learned.get('corrected')}" if learned else ""
        echo(f"{'*' if model.is_current else ' '} {model.name:<20} {origin}".rstrip())
