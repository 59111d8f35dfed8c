"""The command ``crossmoda predict``."""

from pathlib import Path
from typing import Any

import click

from crossmoda import inference
from crossmoda.cli.framework import (
    PATH,
    echo,
    files,
    open_data,
    options,
    path_option,
    progress_bar,
    pseudonymize_option,
    report_cases,
)
from crossmoda.errors import InputError
from crossmoda.parameters import from_arguments
from crossmoda.pseudonyms import create_key
from crossmoda.steps.predict import STEP


@click.command()
@click.argument("image", type=PATH, required=False)
@path_option("--targets", help="Data set whose hrT2 scans are segmented, instead of IMAGE.")
@path_option(
    "--output",
    required=True,
    help="Segmentation (.seg.nrrd, .nrrd, .nii.gz); with --targets the folder of the results.",
)
@path_option("--probabilities", help="Prefix of the probability maps, one per structure.")
@files(STEP, "weights", "uncertainty")
@pseudonymize_option
@options(inference.Settings)
def command(
    image: Path | None, targets: Path | None, output: Path, weights: Path | None, pseudonymize: bool, **values: Any
) -> None:
    """IMAGE is a file or a folder with a DICOM series.

    With --targets, OUTPUT/<id>/prediction receives everything about each scan (label map, probabilities,
    uncertainty, provenance); a second run reuses finished scans.
    """
    maps = {name: values[name] for name in ("probabilities", "uncertainty")}
    settings = from_arguments(inference.Settings, values)
    if (image is None) == (targets is None):
        raise InputError("Either IMAGE or --targets is required. Give one of them.")
    if pseudonymize:
        create_key([targets if image is None else image.parent])  # type: ignore[list-item]
    if image is not None:
        with progress_bar() as progress:
            result = inference.predict_files(image, output, weights, settings, progress, **maps)
        for name, volume_mm3 in result.provenance["volumes_mm3"].items():
            echo(f"{name}: {volume_mm3:.0f} mm3")
        for note in result.provenance["notes"]:
            echo(f"Note: {note}")
        echo(output)
    elif targets is not None:
        if any(maps.values()):
            raise InputError("--targets writes every map. Omit --probabilities and --uncertainty.")
        cases = open_data(targets).targets
        if not cases:
            raise InputError(f"No hrT2 scan in {targets}. Choose a data set with hrT2 scans.")
        with progress_bar() as progress:
            results, failures = inference.predict_all(cases, output, weights, settings, progress)
        report_cases(results, failures)
