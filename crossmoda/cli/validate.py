"""The command ``crossmoda validate``."""

from pathlib import Path

import click

from crossmoda import dataset
from crossmoda.cli.framework import PATH, echo, echo_json, progress_bar, pseudonymize_option, structure_option
from crossmoda.errors import BAD_INPUT
from crossmoda.pseudonyms import create_key, key_for


@click.command()
@structure_option
@pseudonymize_option
@click.option("--json", "as_json", is_flag=True, help="Print cases, problems and notes as JSON.")
@click.argument("folder", type=PATH)
def command(folder: Path, pseudonymize: bool, as_json: bool) -> None:
    """FOLDER holds crossMoDA 2021 to 2023, Vestibular-Schwannoma-SEG as downloaded, or plainly named files."""
    if pseudonymize:
        create_key([folder])
    data = dataset.open_dataset(folder)
    if key_for(folder) is not None and not as_json:
        for case in data.cases:
            echo(f"{case.id} = {case.image}")
    with progress_bar() as progress:
        problems = dataset.validate(data, progress)
    if as_json:
        cases = [{"id": case.id, "modality": case.modality, "image": str(case.image)} for case in data.cases]
        listed = [{"file": str(problem.file), "problem": problem.message} for problem in problems]
        echo_json({"cases": cases, "problems": listed, "notes": list(data.notes)})
        if problems:
            raise click.exceptions.Exit(BAD_INPUT)
        return
    for note in data.notes:
        echo(f"Note: {note}")
    for problem in problems:
        echo(problem)
    number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    echo(f"{len(data.sources)} labeled ceT1, {len(data.targets)} hrT2, {number}.")
    if problems:
        raise click.exceptions.Exit(BAD_INPUT)
