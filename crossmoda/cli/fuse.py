"""The command ``crossmoda fuse``."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import (
    PATH,
    echo,
    echo_json,
    json_option,
    options,
    path_option,
    progress_bar,
    structure_option,
)
from crossmoda.fusion.files import FileFusionSettings, FusionOutputs, find_label_maps, fuse_files
from crossmoda.parameters import from_arguments

#: The files in the folder of the results.
_FILES = {
    "label": "noisy_label.seg.nrrd",
    "confidence": "confidence.nii.gz",
    "probability_vs": "probability_VS.nii.gz",
    "probability_cochlea": "probability_cochlea.nii.gz",
    "agreement": "agreement.nii.gz",
    "disagreement": "disagreement.nii.gz",
    "performance": "raters.csv",
}


@click.command()
@structure_option
@click.argument("label_maps", type=PATH, nargs=-1, required=True)
@path_option("--output", required=True, help="Folder of the fused label and its maps.")
@json_option
@options(FileFusionSettings)
def command(label_maps: tuple[Path, ...], output: Path, as_json: bool, **values: Any) -> None:
    """LABEL_MAPS are files on one grid, or one folder of them."""
    paths = list(label_maps)
    if len(paths) == 1 and paths[0].is_dir():
        paths = find_label_maps(paths[0])
    outputs = FusionOutputs(**{name: output / file for name, file in _FILES.items()})
    settings = from_arguments(FileFusionSettings, values)
    with progress_bar() as progress:
        result = fuse_files(paths, outputs, settings, progress)
    if as_json:
        echo_json({**result.measurements(), "notes": list(result.fusion.notes), "output": output})
        return
    for note in result.fusion.notes:
        echo(note)
    for name, value in result.measurements().items():
        echo(f"{name}: {value:g}")
    echo(output)
