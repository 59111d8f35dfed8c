"""Evaluation."""

from pathlib import Path

import click

from crossmoda.cli.framework import PATH, progress_bar, subcommand
from crossmoda.errors import InputError
from crossmoda.progress import report


@subcommand("evaluate", "Score segmentations against references: Dice, HD95, ASSD, volumes.")
def _evaluate() -> click.Command:
    from crossmoda import evaluation, volume

    @click.command()
    @click.option("--csv", "table", type=PATH, help="One row per case and structure.")
    @click.option("--json", "summary", type=PATH, help="All scores and their summary.")
    @click.argument("predictions", type=PATH)
    @click.argument("references", type=PATH)
    def command(predictions: Path, references: Path, table: Path | None, summary: Path | None) -> None:
        """PREDICTIONS and REFERENCES are two files, or two folders with files of the same name."""
        pairs = _pairs(predictions, references)
        scores = {}
        with progress_bar() as progress:
            for number, (name, files) in enumerate(pairs.items()):
                report(progress, number / len(pairs), name)
                scores[name] = evaluation.evaluate(*map(volume.read_label_map, files))
        if table:
            evaluation.write_scores(scores, table)
        if summary:
            evaluation.write_summary(scores, summary)
        click.echo(evaluation.format_table(scores))

    return command


def _pairs(predictions: Path, references: Path) -> dict[str, tuple[Path, Path]]:
    """Return the files to compare by name."""
    if not (predictions.is_dir() and references.is_dir()):
        return {predictions.name: (predictions, references)}
    names = {path.name for path in predictions.iterdir()} & {path.name for path in references.iterdir()}
    pairs = {name: (predictions / name, references / name) for name in sorted(names) if (references / name).is_file()}
    if not pairs:
        raise InputError(
            f"{predictions} and {references} have no file name in common; name both files of a case alike."
        )
    return pairs
