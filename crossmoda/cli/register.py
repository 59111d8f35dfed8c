"""The command ``crossmoda register``."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import (
    PATH,
    echo,
    echo_json,
    files,
    json_option,
    options,
    path_option,
    progress_bar,
    structure_option,
)
from crossmoda.deeds.files import STATISTICS, RegistrationSettings, register_files
from crossmoda.parameters import from_arguments
from crossmoda.steps.register import STEP


@click.command()
@structure_option
@click.argument("fixed", type=PATH)
@click.argument("moving", type=PATH)
@path_option("--output", required=True, help="Folder of transform, inverse and warped images.")
@files(STEP, "moving_label", "fixed_mask", "moving_mask", "initial_transform")
@json_option
@options(RegistrationSettings)
def command(
    fixed: Path, moving: Path, output: Path, initial_transform: Path | None, as_json: bool, **values: Any
) -> None:
    """FIXED is the target, MOVING the atlas.

    The moving label is read as by every command: vestibular schwannoma and cochlea. A label map of other organs keeps
    its values (except those of --structure) with --region whole, and with auto if a value is above 3.
    """
    inputs = {name: values[name] for name in ("moving_label", "fixed_mask", "moving_mask")}
    settings = from_arguments(RegistrationSettings, values)
    with progress_bar() as progress:
        result = register_files(
            fixed, moving, output, settings=settings, progress=progress, initial=initial_transform, **inputs
        )
    if as_json:
        echo_json({**{name: result.provenance[name] for name in STATISTICS}, "output": output})
        return
    for name in STATISTICS:
        echo(f"{name}: {result.provenance[name]:g}")
    echo(output)
