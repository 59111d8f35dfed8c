"""The network."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import PATH, options, progress_bar, report_cases, subcommand
from crossmoda.errors import InputError
from crossmoda.parameters import from_arguments


@subcommand("predict", "Segment scans with a trained network.")
def _predict() -> click.Command:
    from crossmoda import dataset, inference

    @click.command()
    @click.argument("image", type=PATH, required=False)
    @click.option("--targets", type=PATH, help="Instead of IMAGE: a data set; all its hrT2 scans are segmented.")
    @click.option(
        "--output",
        type=PATH,
        required=True,
        help="The segmentation: .seg.nrrd, .nrrd or .nii.gz; with --targets the folder of the results.",
    )
    @click.option("--weights", type=PATH, help="Trained weights (.safetensors); default: those that come along.")
    @click.option("--probabilities", type=PATH, help="Prefix of the probability maps, one per structure.")
    @click.option("--uncertainty", type=PATH, help="The uncertainty map.")
    @options(inference.Settings)
    def command(image: Path | None, targets: Path | None, output: Path, weights: Path | None, **values: Any) -> None:
        """IMAGE is a file or a folder with a DICOM series.

        With --targets, OUTPUT/<id>/prediction receives everything about each scan (label map, probabilities,
        uncertainty, provenance); a second run takes what is finished from there.
        """
        files = {name: values[name] for name in ("probabilities", "uncertainty")}
        settings = from_arguments(inference.Settings, values)
        if targets is not None:
            if image is not None:
                raise InputError("Give either a scan (IMAGE) or a data set (--targets), not both.")
            if any(files.values()):
                raise InputError("With --targets every map is written; leave --probabilities and --uncertainty out.")
            cases = dataset.open_dataset(targets).targets
            if not cases:
                raise InputError(f"{targets} holds no hrT2 scans.")
            with progress_bar() as progress:
                done, failed = inference.predict_all(cases, output, weights, settings, progress)
            report_cases(done, failed)
            return
        if image is None:
            raise InputError("Give a scan (IMAGE) or a data set (--targets).")
        with progress_bar() as progress:
            result = inference.predict_files(image, output, weights, settings, progress, **files)
        for name, value in result.provenance["volumes_mm3"].items():
            click.echo(f"{name}: {value:.0f} mm3")
        for note in result.provenance["notes"]:
            click.echo(f"Note: {note}")
        click.echo(output)

    return command


@subcommand("train", "Train a network on labeled sources and noisy labels of targets.")
def _train() -> click.Command:
    from crossmoda import training

    @click.command()
    @click.option("--data", type=PATH, required=True, help="Data set with the labeled ceT1 scans (and the hrT2).")
    @click.option("--noisy", type=PATH, help="Folder with one propagation per hrT2 scan (crossmoda propagate).")
    @click.option("--validation", type=PATH, help="Data set with labeled scans that are never learned from.")
    @click.option("--initial", type=PATH, help="Weights to begin with.")
    @click.option("--output", type=PATH, required=True, help="Folder of the weights, the metrics and the checkpoint.")
    @options(training.Settings)
    def command(data: Path, output: Path, **values: Any) -> None:
        given = {name: values[name] for name in ("noisy", "validation", "initial")}
        with progress_bar() as progress:
            settings = from_arguments(training.Settings, values)
            weights = training.train_folder(data, output, settings, progress, **given)
        click.echo(weights)

    return command
