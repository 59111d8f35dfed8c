"""The command ``crossmoda simulate``."""

from pathlib import Path
from typing import Any

import click

from crossmoda import simulation
from crossmoda.cli.framework import PATH, echo, echo_json, json_option, options, path_option, progress_bar
from crossmoda.parameters import from_arguments


@click.command()
@click.argument("folder", type=PATH)
@click.option("--sources", type=int, default=6, show_default=True, help="Number of labeled ceT1 subjects.")
@click.option(
    "--targets", type=int, default=4, show_default=True, help="Number of unlabeled hrT2 subjects to train on."
)
@click.option("--tests", type=int, default=2, show_default=True, help="Number of unlabeled hrT2 subjects to test on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--base", default="phantom", show_default=True, help="Anatomy: phantom, or icbm (real average head).")
@path_option("--base-folder", help="Folder of the ICBM152 images, for base icbm.")
@path_option("--shapes-folder", help="Folder of expert label maps whose shapes are used.")
@json_option
@options(simulation.Settings)
def command(folder: Path, as_json: bool, **values: Any) -> None:
    """FOLDER must be new; it receives the layout of crossMoDA 2021."""
    settings = from_arguments(simulation.Settings, values)
    names = ("sources", "targets", "tests", "seed", "base", "base_folder", "shapes_folder")
    with progress_bar() as progress:
        simulation.simulate_dataset(
            folder, settings=settings, progress=progress, **{name: values[name] for name in names}
        )
    if as_json:
        echo_json({"folder": folder})
    else:
        echo(folder)
