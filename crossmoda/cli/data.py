"""Data sets and the demo."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import PATH, options, progress_bar, subcommand
from crossmoda.errors import BAD_INPUT
from crossmoda.parameters import from_arguments


@subcommand("demo", "Run the whole chain on digital subjects; nothing to download.")
def _demo() -> click.Command:
    from crossmoda import demo

    @click.command()
    @click.option("--output", "folder", type=PATH, default="demo", help="Folder of the results. [default: demo]")
    @options(demo.Settings)
    def command(folder: Path, **values: Any) -> None:
        with progress_bar() as progress:
            result = demo.run(folder, from_arguments(demo.Settings, values), progress)
        click.echo(demo.table(result.scores))
        click.echo()
        width = max(map(len, result.files))
        for name, path in result.files.items():
            click.echo(f"{name:<{width}}  {path}")

    return command


@subcommand("simulate", "Make a data set of digital subjects.")
def _simulate() -> click.Command:
    from crossmoda import simulation

    @click.command()
    @click.argument("folder", type=PATH)
    @click.option("--sources", type=int, default=6, help="Labeled ceT1 subjects. [default: 6]")
    @click.option("--targets", type=int, default=4, help="Unlabeled hrT2 subjects to learn from. [default: 4]")
    @click.option("--tests", type=int, default=2, help="Unlabeled hrT2 subjects to test on. [default: 2]")
    @click.option("--seed", type=int, default=0, help="Seed of everything random. [default: 0]")
    @click.option("--base", default="phantom", help="Anatomy: phantom, or icbm (real average head). [default: phantom]")
    @click.option("--base-folder", type=PATH, help="Folder of the ICBM152 images, for base icbm.")
    @click.option("--shapes-folder", type=PATH, help="Folder of expert label maps whose shapes are used.")
    @options(simulation.Settings)
    def command(folder: Path, **values: Any) -> None:
        """FOLDER must be new; it receives the layout of crossMoDA 2021."""
        settings = from_arguments(simulation.Settings, values)
        own = ("sources", "targets", "tests", "seed", "base", "base_folder", "shapes_folder")
        with progress_bar() as progress:
            simulation.simulate_dataset(
                folder, settings=settings, progress=progress, **{name: values[name] for name in own}
            )
        click.echo(folder)

    return command


@subcommand("validate", "List every problem of a data set, with its remedy.")
def _validate() -> click.Command:
    from crossmoda import dataset

    @click.command()
    @click.argument("folder", type=PATH)
    def command(folder: Path) -> None:
        """FOLDER holds crossMoDA 2021 to 2023, Vestibular-Schwannoma-SEG as downloaded, or plainly named files."""
        found = dataset.open_dataset(folder)
        with progress_bar() as progress:
            problems = dataset.validate(found, progress)
        for problem in problems:
            click.echo(problem)
        number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        click.echo(f"{len(found.sources)} labeled ceT1, {len(found.targets)} hrT2, {number}.")
        if problems:
            raise click.exceptions.Exit(BAD_INPUT)

    return command
