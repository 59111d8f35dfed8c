"""The command ``crossmoda propagate``."""

from pathlib import Path
from typing import Any

import click

from crossmoda import dataset, deeds, fusion, propagation
from crossmoda.cli.framework import (
    json_option,
    open_data,
    options,
    path_option,
    progress_bar,
    pseudonymize_option,
    report_cases,
    structure_option,
)
from crossmoda.dataset.named_cases import case_of_file
from crossmoda.errors import InputError
from crossmoda.parameters import from_arguments
from crossmoda.pseudonyms import create_key
from crossmoda.steps.propagate import STEP


@click.command()
@structure_option
@path_option("--target", multiple=True, help=f"{STEP.file('target').help}; repeat for several scans.")
@path_option("--targets", help="Data set whose hrT2 scans are labeled.")
@path_option("--atlases", help=f"{STEP.file('atlases').help}.")
@path_option("--atlas-image", multiple=True, help="Image of an atlas; repeat for several atlases.")
@path_option("--atlas-label", multiple=True, help="Label map of an atlas, in the order of the images.")
@path_option("--output", required=True, help="Folder of the results, one folder per target.")
@pseudonymize_option
@json_option
@options(*STEP.settings)
def command(
    target: tuple[Path, ...],
    targets: Path | None,
    atlases: Path | None,
    atlas_image: tuple[Path, ...],
    atlas_label: tuple[Path, ...],
    output: Path,
    pseudonymize: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """A second run reuses finished registrations in OUTPUT."""
    if len(atlas_image) != len(atlas_label):
        raise InputError("Each --atlas-image requires one --atlas-label. Add the missing files.")
    if pseudonymize:
        folders = [folder for folder in (targets, atlases) if folder is not None]
        create_key([*folders, *(file.parent for file in (*target, *atlas_image))])
    cases = [dataset.Case(case_of_file(path), dataset.HRT2, path) for path in target]
    cases += open_data(targets).targets if targets else []
    sources = [
        dataset.Case(case_of_file(image), dataset.CET1, image, label)
        for image, label in zip(atlas_image, atlas_label, strict=True)
    ]
    sources += open_data(atlases).sources if atlases else []
    if not cases or not sources:
        raise InputError(
            "At least one target (--target or --targets) and one atlas (--atlases, --atlas-image) are required. "
            "Add the missing scans."
        )
    with progress_bar() as progress:
        results, failures = propagation.propagate_all(
            cases,
            sources,
            output,
            from_arguments(propagation.Settings, values),
            progress,
            registration=from_arguments(deeds.Settings, values),
            fusion_settings=from_arguments(fusion.Settings, values),
        )
    report_cases(results, failures, as_json)
