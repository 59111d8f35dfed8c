"""The command ``crossmoda growth``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from crossmoda.errors import InputError
from crossmoda.growth.settings import Settings
from crossmoda.parameters import from_arguments
from crossmoda.steps.growth import STEP

if TYPE_CHECKING:
    from crossmoda.study.settings import ClusterSettings


@click.command()
@structure_option
@click.argument("scans", type=PATH, nargs=-1)
@path_option("--output", required=True, help="Folder of the results.")
@path_option("--patients", help="Folder with a folder per patient, or CSV (patient, date, scan), instead of SCANS.")
@click.option("--workers", type=click.IntRange(0), default=0, help="Dask worker processes for --patients; 0: none.")
@click.option("--scheduler", default="", help="Address of a running Dask scheduler for --patients.")
@click.option("--dates", default="", help="Dates of the scans in their order (YYYY-MM-DD,YYYY-MM-DD).")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="N=FILE",
    help="Corrected label of scan N as given (from 1); repeat for several.",
)
@files(STEP, "weights")
@json_option
@options(Settings)
def command(
    scans: tuple[Path, ...],
    output: Path,
    patients: Path | None,
    workers: int,
    scheduler: str,
    dates: str,
    labels: tuple[str, ...],
    weights: Path | None,
    as_json: bool,
    **values: Any,
) -> None:
    """SCANS are two or more T2 or ceT1 scans of one patient: files or folders with a DICOM series.

    Dates come from DICOM headers, else from names (2024-01-31, 20240131), else from --dates. OUTPUT receives
    growth.json, growth.csv, growth.html, the labels on the grids of their scans (label_N.seg.nrrd of scan N as given),
    and the scans aligned to the earliest.
    """
    from crossmoda import growth

    settings = from_arguments(Settings, values)
    if bool(scans) == (patients is not None):
        raise InputError("Either SCANS or --patients is required. Give one of them.")
    if patients is not None:
        if dates or labels:
            raise InputError("--dates and --label belong to the SCANS of one patient. Put the dates into the table.")
        _cohort(patients, output, weights, settings, _cluster(workers, scheduler), as_json)
        return
    if workers or scheduler:
        raise InputError("--workers and --scheduler belong to --patients. Omit them.")
    with progress_bar() as progress:
        content = growth.growth_files(
            scans, output, dates.split(",") if dates else (), _numbered(labels, len(scans)), weights, settings, progress
        )
    if as_json:
        echo_json(content)
        return
    for sentence in content["sentences"]:
        echo(sentence)
    for point in content["time_points"]:
        if point["alignment"]:
            echo(f"Alignment error of {point['date'] or point['name']}: {point['alignment']['error_mm']:.2f} mm")
    for note in content["notes"]:
        echo(f"Note: {note}")
    echo(output / growth.PAGE)


def _numbered(labels: tuple[str, ...], count: int) -> dict[int, Path]:
    """Return the labels by the number of their scan, from 0."""
    result = {}
    for text in labels:
        number, separator, file = text.partition("=")
        if not separator or not number.isdigit() or not 1 <= int(number) <= count:
            raise InputError(f"Not the label of a scan: {text}. Write --label N=FILE with N from 1 to {count}.")
        result[int(number) - 1] = Path(file)
    return result


def _cluster(workers: int, scheduler: str) -> "ClusterSettings | None":
    """Return where the patients of a cohort are measured; None: in this process."""
    from crossmoda.study.settings import ClusterSettings

    return ClusterSettings(workers=workers, address=scheduler) if workers or scheduler else None


def _cohort(
    patients: Path,
    output: Path,
    weights: Path | None,
    settings: Settings,
    cluster: "ClusterSettings | None",
    as_json: bool,
) -> None:
    """Measure the patients of a cohort, and print their results."""
    from crossmoda import growth
    from crossmoda.errors import BAD_INPUT

    with progress_bar() as progress:
        results, failures = growth.growth_of_patients(patients, output, weights, settings, progress, cluster)
    if as_json:
        echo_json({"patients": results, "failed": failures})
    else:
        for name, content in results.items():
            for sentence in content["sentences"]:
                echo(f"{name}: {sentence}")
        echo(output / growth.COHORT_PAGE)
    for name, cause in failures.items():
        echo(f"{name}: failed: {cause}", err=True)
    if failures:
        raise click.exceptions.Exit(BAD_INPUT)
