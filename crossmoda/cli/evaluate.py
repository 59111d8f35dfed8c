"""The command ``crossmoda evaluate``."""

from pathlib import Path

import click

from crossmoda import evaluation, output
from crossmoda.cli.framework import PATH, echo, echo_json, path_option, progress_bar, structure_option
from crossmoda.dataset.label_pairs import label_pairs
from crossmoda.errors import BAD_INPUT, CASE_ERRORS, sentence_of
from crossmoda.progress import report


@click.command()
@path_option("--csv", "table", help="Table with one row per case and structure.")
@path_option("--json", "summary_file", help="All scores and their summary; - prints them.")
@structure_option
@click.argument("predictions", type=PATH)
@click.argument("references", type=PATH)
def command(predictions: Path, references: Path, table: Path | None, summary_file: Path | None) -> None:
    """PREDICTIONS and REFERENCES are two files, or two folders with files of the same cases.

    A reference without a prediction counts as an empty prediction, and is named.
    """
    pairs = label_pairs(predictions, references)
    as_json = summary_file == Path("-")
    summary = None if as_json else summary_file
    for path, ending in ((table, ".csv"), (summary, ".json")):
        if path is not None:
            output.check_ending(path, ending)
    output.check_apart(
        [table, summary], [predictions, references, *(file for pair in pairs.both.values() for file in pair)]
    )
    scores, failures = {}, {}
    cases = [*pairs.both, *pairs.missing]
    with progress_bar() as progress:
        for number, name in enumerate(cases):
            report(progress, number / len(cases), name)
            prediction, reference = pairs.both.get(name, (None, pairs.missing.get(name)))
            try:
                scores[name] = evaluation.evaluate_files(prediction, reference)  # type: ignore[arg-type]
            except CASE_ERRORS as cause:
                if len(cases) == 1:
                    raise
                failures[name] = sentence_of(cause)
    if scores:
        if table:
            evaluation.write_scores(scores, table)
        if summary:
            evaluation.write_summary(scores, summary)
        if as_json:
            echo_json(evaluation.summary(scores))
        else:
            echo(evaluation.format_table(scores))
    if pairs.missing:
        echo(f"No prediction, counted as empty: {', '.join(pairs.missing)}.", err=as_json)
    if pairs.extra:
        echo(f"No reference, left out: {', '.join(pairs.extra)}.", err=as_json)
    for name, reason in failures.items():
        echo(f"{name}: failed: {reason}", err=True)
    if failures:
        raise click.exceptions.Exit(BAD_INPUT)
