"""Registration, fusion, propagation."""

from pathlib import Path
from typing import Any

import click

from crossmoda.cli.framework import PATH, options, progress_bar, report_cases, subcommand
from crossmoda.errors import InputError
from crossmoda.parameters import from_arguments


@subcommand("register", "Register a moving image to a fixed image with deeds.")
def _register() -> click.Command:
    from crossmoda.deeds.files import RegistrationSettings, register_files, statistics

    @click.command()
    @click.argument("fixed", type=PATH)
    @click.argument("moving", type=PATH)
    @click.option("--output", type=PATH, required=True, help="Folder of transform, inverse and warped images.")
    @click.option("--moving-label", type=PATH, help="Label map on the moving image's grid, warped as well.")
    @click.option("--fixed-mask", type=PATH, help="What counts in the fixed image.")
    @click.option("--moving-mask", type=PATH, help="What counts in the moving image.")
    @click.option("--initial", type=PATH, help="Linear ITK transform from fixed to moving points to start from.")
    @options(RegistrationSettings)
    def command(fixed: Path, moving: Path, output: Path, **values: Any) -> None:
        """FIXED is the target, MOVING the atlas."""
        files = {name: values[name] for name in ("moving_label", "fixed_mask", "moving_mask", "initial")}
        settings = from_arguments(RegistrationSettings, values)
        with progress_bar() as progress:
            result = register_files(fixed, moving, output, settings=settings, progress=progress, **files)
        for name, value in statistics(result).items():
            click.echo(f"{name}: {value:g}")
        click.echo(output)

    return command


@subcommand("fuse", "Fuse label maps of one target.")
def _fuse() -> click.Command:
    from crossmoda.fusion import files as fusion_files

    @click.command()
    @click.argument("label_maps", type=PATH, nargs=-1, required=True)
    @click.option("--output", type=PATH, required=True, help="Folder of the fused label and its maps.")
    @options(fusion_files.FileFusionSettings)
    def command(
        label_maps: tuple[Path, ...],
        output: Path,
        **values: Any,
    ) -> None:
        """LABEL_MAPS are files on one grid, or one folder of them."""
        files = list(label_maps)
        if len(files) == 1 and files[0].is_dir():
            files = fusion_files.find_label_maps(files[0])
        outputs = fusion_files.FusionOutputs(
            label=output / "noisy_label.seg.nrrd",
            confidence=output / "confidence.nii.gz",
            probability_vs=output / "probability_VS.nii.gz",
            probability_cochlea=output / "probability_cochlea.nii.gz",
            agreement=output / "agreement.nii.gz",
            disagreement=output / "disagreement.nii.gz",
            performance=output / "raters.csv",
        )
        settings = from_arguments(fusion_files.FileFusionSettings, values)
        with progress_bar() as progress:
            result = fusion_files.fuse_files(files, outputs, settings, progress)
        for note in result.fusion.notes:
            click.echo(note)
        for name, value in result.measurements().items():
            click.echo(f"{name}: {value:g}")
        click.echo(output)

    return command


@subcommand("propagate", "Bring labeled atlases to targets: register, warp, fuse to noisy labels.")
def _propagate() -> click.Command:
    from crossmoda import dataset, device, fusion, propagation

    @click.command()
    @click.option("--target", type=PATH, multiple=True, help="A scan to be labeled; may be given several times.")
    @click.option("--targets", type=PATH, help="Instead: a data set; all its hrT2 scans are labeled.")
    @click.option("--atlases", type=PATH, help="A data set; all its labeled ceT1 scans are atlases.")
    @click.option("--atlas-image", type=PATH, multiple=True, help="Instead: an atlas; may be given several times.")
    @click.option("--atlas-label", type=PATH, multiple=True, help="Its label map, in the same order.")
    @click.option("--output", type=PATH, required=True, help="Folder of the results; one folder in it per target.")
    @click.option("--device", type=click.Choice(device.CHOICES), default="auto", help="Processor. [default: auto]")
    @options(propagation.Settings)
    @options(fusion.Settings)
    def command(
        target: tuple[Path, ...],
        targets: Path | None,
        atlases: Path | None,
        atlas_image: tuple[Path, ...],
        atlas_label: tuple[Path, ...],
        output: Path,
        device: str,
        **values: Any,
    ) -> None:
        """A second run takes what is finished from OUTPUT."""
        if len(atlas_image) != len(atlas_label):
            raise InputError("Give one --atlas-label for each --atlas-image.")
        cases = [dataset.Case(_name(path), "hrT2", path) for path in target]
        cases += dataset.open_dataset(targets).targets if targets else []
        sources = [
            dataset.Case(_name(image), "ceT1", image, label)
            for image, label in zip(atlas_image, atlas_label, strict=True)
        ]
        sources += dataset.open_dataset(atlases).sources if atlases else []
        if not cases or not sources:
            raise InputError(
                "Give at least one target (--target or --targets) and one atlas (--atlases, --atlas-image)."
            )
        settings = from_arguments(propagation.Settings, values)
        with progress_bar() as progress:
            done, failed = propagation.propagate_all(
                cases,
                sources,
                output,
                settings,
                progress,
                device=device,
                fusion_settings=from_arguments(fusion.Settings, values),
            )
        report_cases(done, failed)

    return command


def _name(path: Path) -> str:
    """Return a file's name without its endings."""
    return path.name.partition(".")[0]
