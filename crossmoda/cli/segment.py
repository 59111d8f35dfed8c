"""The command ``crossmoda segment``; ``predict`` is its earlier name."""

from pathlib import Path
from typing import Any

import click

from crossmoda import inference
from crossmoda.cli.framework import (
    PATH,
    echo,
    echo_json,
    files,
    open_data,
    options,
    path_option,
    progress_bar,
    pseudonymize_option,
    report_cases,
)
from crossmoda.dataset.scan_selection import select_scan
from crossmoda.errors import BAD_INPUT, InputError
from crossmoda.inference import scan_files
from crossmoda.inference.prediction import Prediction
from crossmoda.parameters import from_arguments
from crossmoda.pseudonyms import create_key
from crossmoda.steps.predict import STEP


@click.command()
@click.argument("images", type=PATH, nargs=-1)
@path_option("-i", "--input", "inputs", multiple=True, help="Scan, in the place of IMAGES; repeat for several.")
@path_option("--targets", help="Data set whose hrT2 scans are segmented, instead of IMAGES.")
@path_option(
    "-o",
    "--output",
    required=True,
    help="Segmentation (.seg.nrrd, .nrrd, .nii.gz; .dcm: DICOM SEG); for several scans the folder of the results.",
)
@click.option("--series", help="Series of a DICOM study: description, number or UID.")
@click.option(
    "--format",
    "ending",
    type=click.Choice([ending[1:] for ending in scan_files.ENDINGS]),
    default=scan_files.ENDINGS[0][1:],
    show_default=True,
    help="Format of the segmentations of several scans.",
)
@path_option("--probabilities", help="Prefix of the probability maps, one per structure.")
@path_option("--report-dicom", help="Measures as a DICOM structured report (.dcm, TID 1500), beside a DICOM SEG.")
@files(STEP, "weights", "uncertainty")
@click.option("--json", "as_json", is_flag=True, help="Print measures and provenance as JSON.")
@pseudonymize_option
@options(inference.Settings)
def command(
    images: tuple[Path, ...],
    inputs: tuple[Path, ...],
    targets: Path | None,
    output: Path,
    series: str | None,
    ending: str,
    weights: Path | None,
    as_json: bool,
    pseudonymize: bool,
    **values: Any,
) -> None:
    """IMAGES are files, DICOM folders (searched in any depth), or folders of image files.

    Of a DICOM study with several series, the only high-resolution T2 is segmented, else the only ceT1; --series chooses
    another one. Several scans are written into the folder OUTPUT, with tables of all measures: a row per scan
    (cases.csv), and a row per tumor and cochlea (measures.csv).

    With --targets, OUTPUT/<id>/prediction receives everything about each scan (label map, probabilities,
    uncertainty, provenance); a second run reuses finished scans.
    """
    maps = {name: values[name] for name in ("probabilities", "uncertainty", "report_dicom")}
    settings = from_arguments(inference.Settings, values)
    paths = (*images, *inputs)
    if bool(paths) == (targets is not None):
        raise InputError("Either IMAGES or --targets is required. Give one of them.")
    if pseudonymize:
        create_key([targets] if targets is not None else sorted({path.parent for path in paths}))
    if targets is not None:
        _segment_data_set(targets, output, weights, settings, maps, as_json)
    elif len(paths) == 1 and not scan_files.is_image_folder(paths[0]):
        selection = select_scan(paths[0], series)
        if selection.note and not as_json:
            echo(f"Segmenting the {selection.note}.")
        with progress_bar() as progress:
            result = inference.predict_files(selection.path, output, weights, settings, progress, **maps)
        _print(result, output, as_json)
    else:
        if any(maps.values()):
            raise InputError(
                "Maps and DICOM reports are written for one scan. Omit --probabilities, --uncertainty, --report-dicom."
            )
        scans = {name: select_scan(path, series).path for name, path in scan_files.scans_of(paths).items()}
        with progress_bar() as progress:
            results, failures = scan_files.predict_scans(scans, output, weights, settings, progress, f".{ending}")
        _print_all(results, failures, output, as_json)


def _segment_data_set(
    targets: Path,
    output: Path,
    weights: Path | None,
    settings: inference.Settings,
    maps: dict[str, Any],
    as_json: bool,
) -> None:
    if any(maps.values()):
        raise InputError("--targets writes every map. Omit --probabilities, --uncertainty and --report-dicom.")
    cases = open_data(targets).targets
    if not cases:
        raise InputError(f"No hrT2 scan in {targets}. Choose a data set with hrT2 scans.")
    with progress_bar() as progress:
        results, failures = inference.predict_all(cases, output, weights, settings, progress)
    report_cases(results, failures, as_json)


def _print(result: Prediction, output: Path, as_json: bool) -> None:
    """Print the result of one scan."""
    if as_json:
        echo_json({**result.provenance, "output": str(output)})
        return
    for sentence in result.measures.sentences:
        echo(sentence)
    for name, volume_mm3 in result.provenance["volumes_mm3"].items():
        echo(f"{name}: {volume_mm3:.0f} mm3")
    for note in (*result.measures.notes, *result.provenance["notes"]):
        echo(f"Note: {note}")
    echo(output)


def _print_all(
    results: dict[str, scan_files.ScanResult], failures: dict[str, str], output: Path, as_json: bool
) -> None:
    """Print the results of several scans; after a failure the command ends with the exit code of bad input."""
    if as_json:
        records = {name: result.provenance for name, result in results.items()}
        echo_json({"scans": records, "failed": failures})
    else:
        for name, result in results.items():
            for sentence in result.measures.sentences:
                echo(f"{name}: {sentence}")
            for note in (*result.measures.notes, *result.provenance["notes"]):
                echo(f"{name}: {note}")
        echo(output / scan_files.MEASURES)
        echo(output / scan_files.CASES)
    for name, cause in failures.items():
        echo(f"{name}: failed: {cause}", err=True)
    if failures:
        raise click.exceptions.Exit(BAD_INPUT)
