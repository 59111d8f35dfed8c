"""The command ``crossmoda demo``."""

from pathlib import Path
from typing import Any

import click

from crossmoda import demo
from crossmoda.cli.framework import echo, echo_json, json_option, options, path_option, progress_bar
from crossmoda.parameters import from_arguments


@click.command()
@path_option("--output", "folder", default="demo", show_default=True, help="Folder of the results.")
@json_option
@options(demo.DemoSettings)
def command(folder: Path, as_json: bool, **values: Any) -> None:
    """A second run with the same options reuses finished steps."""
    with progress_bar() as progress:
        result = demo.run(folder, from_arguments(demo.DemoSettings, values), progress)
    if as_json:
        echo_json({"scores": result.scores, "files": result.files})
        return
    echo(demo.table(result.scores))
    echo()
    width = max(map(len, result.files))
    for name, path in result.files.items():
        echo(f"{name:<{width}}  {path}")
