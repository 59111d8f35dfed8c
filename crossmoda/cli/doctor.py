"""The command ``crossmoda doctor``."""

import dataclasses
from pathlib import Path

import click

from crossmoda.cli.framework import PATH, echo, echo_json
from crossmoda.errors import BAD_INPUT


@click.command()
@click.argument("folder", type=PATH, default=Path())
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def command(folder: Path, as_json: bool) -> None:
    """FOLDER is where results are to be written; its disk is checked. The exit code is 2 if something is missing."""
    from crossmoda import doctor

    checks = doctor.checks(folder)
    if as_json:
        echo_json([dataclasses.asdict(check) for check in checks])
    else:
        for check in checks:
            echo(f"{'OK  ' if check.is_ok else 'FAIL'}  {check.name:<17} {check.text}")
    if not all(check.is_ok for check in checks):
        raise click.exceptions.Exit(BAD_INPUT)
