"""The command ``crossmoda evaluate``."""

from pathlib import Path

import click

from crossmoda import evaluation, volume
from crossmoda.cli.framework import PATH, path_option, progress_bar
from crossmoda.errors import InputError
from crossmoda.progress import report


@click.command()
@path_option("--csv", "table", help="Table with one row per case and structure.")
@path_option("--json", "summary", help="All scores and their summary.")
@click.argument("predictions", type=PATH)
@click.argument("references", type=PATH)
def command(predictions: Path, references: Path, table: Path | None, summary: Path | None) -> None:
    """PREDICTIONS and REFERENCES are two files, or two folders with files of the same name."""
    pairs = _pairs(predictions, references)
    scores = {}
    with progress_bar() as progress:
        for number, (name, pair) in enumerate(pairs.items()):
            report(progress, number / len(pairs), name)
            scores[name] = evaluation.evaluate(*map(volume.read_label_map, pair))
    if table:
        evaluation.write_scores(scores, table)
    if summary:
        evaluation.write_summary(scores, summary)
    click.echo(evaluation.format_table(scores))


def _pairs(predictions: Path, references: Path) -> dict[str, tuple[Path, Path]]:
    """Return prediction and reference by file name."""
    if not (predictions.is_dir() and references.is_dir()):
        return {predictions.name: (predictions, references)}
    names = {path.name for path in predictions.iterdir()} & {path.name for path in references.iterdir()}
    pairs = {name: (predictions / name, references / name) for name in sorted(names) if (references / name).is_file()}
    if not pairs:
        raise InputError(f"No common file name in {predictions} and {references}. Name both files of a case alike.")
    return pairs
