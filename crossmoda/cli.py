"""The ``crossmoda`` command: one subcommand per engine function.

A subcommand reads its options from the engine's settings (:mod:`crossmoda.parameters`) and is built only when it is
asked for, so that ``crossmoda --help`` imports none of the science.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import crossmoda
from crossmoda.errors import BAD_INPUT, BUG, INTERRUPTED, Cancelled, InputError
from crossmoda.parameters import Settings, from_arguments, parameters
from crossmoda.progress import Progress, report

_PATH = click.Path(path_type=Path)
Builder = Callable[[], click.Command]
_BUILDERS: dict[str, tuple[str, Builder]] = {}


def _subcommand(name: str, summary: str) -> Callable[[Builder], Builder]:
    """Register a function that builds the subcommand ``name``."""

    def register(builder: Builder) -> Builder:
        _BUILDERS[name] = (summary, builder)
        return builder

    return register


class _LazyGroup(click.Group):
    """A group whose commands are built when they are used; the overview needs their summaries only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_BUILDERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _BUILDERS:
            return None
        summary, builder = _BUILDERS[cmd_name]
        command = builder()
        command.name = cmd_name
        command.help = summary + ("\n\n" + command.help if command.help else "")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (summary, _) in _BUILDERS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(crossmoda.__version__, prog_name="crossmoda")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def crossmoda_command(ctx: click.Context, debug: bool, quiet: bool) -> None:
    """Segment the vestibular schwannoma and the cochlea across MR contrasts.

    Not a medical device: every result must be checked by a qualified person.
    """
    ctx.obj = {"quiet": quiet}


def options(settings: type[Settings], *, skip: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Return a decorator that adds one option per parameter of ``settings`` to a click command."""

    def decorate(function: Any) -> Any:
        for item in reversed([item for item in parameters(settings) if item.name not in skip]):
            kind: Any = click.Choice(item.choices) if item.choices else item.type
            flag = f"{item.flag}/--no-{item.flag[2:]}" if item.type is bool else item.flag
            function = click.option(flag, item.name, type=kind, default=item.default, help=item.full_help)(function)
        return function

    return decorate


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Show a progress bar on the terminal's error stream; nothing when it is not a terminal or ``--quiet``."""
    if click.get_current_context().obj["quiet"]:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(bar_width=28), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda fraction, message: bars.update(task, completed=fraction, description=message)


@_subcommand("demo", "Run the whole chain on digital subjects; nothing to download.")
def _demo() -> click.Command:
    from crossmoda import demo

    @click.command()
    @click.option("--output", "folder", type=_PATH, default="demo", help="Folder of the results. [default: demo]")
    @options(demo.Settings)
    def command(folder: Path, **values: Any) -> None:
        with progress_bar() as progress:
            result = demo.run(folder, from_arguments(demo.Settings, values), progress)
        click.echo(demo.table(result.scores))
        click.echo()
        width = max(map(len, result.files))
        for name, path in result.files.items():
            click.echo(f"{name:<{width}}  {path}")

    return command


@_subcommand("simulate", "Make a data set of digital subjects.")
def _simulate() -> click.Command:
    from crossmoda import simulation

    @click.command()
    @click.argument("folder", type=_PATH)
    @click.option("--sources", type=int, default=6, help="Labelled ceT1 subjects. [default: 6]")
    @click.option("--targets", type=int, default=4, help="Unlabelled hrT2 subjects to learn from. [default: 4]")
    @click.option("--tests", type=int, default=2, help="Unlabelled hrT2 subjects to test on. [default: 2]")
    @click.option("--seed", type=int, default=0, help="Seed of everything random. [default: 0]")
    @click.option("--base", default="phantom", help="Anatomy: phantom, or icbm (real average head). [default: phantom]")
    @click.option("--base-folder", type=_PATH, help="Folder of the ICBM152 images, for base icbm.")
    @click.option("--shapes-folder", type=_PATH, help="Folder of expert label maps whose shapes are used.")
    @options(simulation.Settings)
    def command(folder: Path, **values: Any) -> None:
        """FOLDER must be new; it receives the layout of crossMoDA 2021."""
        settings = from_arguments(simulation.Settings, values)
        own = ("sources", "targets", "tests", "seed", "base", "base_folder", "shapes_folder")
        with progress_bar() as progress:
            simulation.simulate_dataset(
                folder, settings=settings, progress=progress, **{name: values[name] for name in own}
            )
        click.echo(folder)

    return command


@_subcommand("validate", "List every problem of a data set, with its remedy.")
def _validate() -> click.Command:
    from crossmoda import dataset

    @click.command()
    @click.argument("folder", type=_PATH)
    def command(folder: Path) -> None:
        """FOLDER holds crossMoDA 2021 to 2023, Vestibular-Schwannoma-SEG as downloaded, or plainly named files."""
        found = dataset.open_dataset(folder)
        with progress_bar() as progress:
            problems = dataset.validate(found, progress)
        for problem in problems:
            click.echo(f"{problem.file}: {problem.problem} {problem.remedy}")
        number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        click.echo(f"{len(found.sources)} labelled ceT1, {len(found.targets)} hrT2, {number}.")
        if problems:
            raise click.exceptions.Exit(BAD_INPUT)

    return command


@_subcommand("register", "Register a moving image to a fixed image with deeds.")
def _register() -> click.Command:
    from crossmoda import deeds
    from crossmoda.deeds.files import register_files, statistics

    @click.command()
    @click.argument("fixed", type=_PATH)
    @click.argument("moving", type=_PATH)
    @click.option("--output", type=_PATH, required=True, help="Folder of transform, inverse and warped images.")
    @click.option("--moving-label", type=_PATH, help="Label map on the moving image's grid, warped as well.")
    @click.option("--fixed-mask", type=_PATH, help="What counts in the fixed image.")
    @click.option("--moving-mask", type=_PATH, help="What counts in the moving image.")
    @click.option("--initial", type=_PATH, help="Linear ITK transform from fixed to moving points to start from.")
    @options(deeds.Settings)
    def command(fixed: Path, moving: Path, output: Path, **values: Any) -> None:
        """FIXED is the target, MOVING the atlas."""
        files = {name: values[name] for name in ("moving_label", "fixed_mask", "moving_mask", "initial")}
        settings = from_arguments(deeds.Settings, values)
        with progress_bar() as progress:
            result = register_files(fixed, moving, output, settings=settings, progress=progress, **files)
        for name, value in statistics(result).items():
            click.echo(f"{name}: {value:g}")
        click.echo(output)

    return command


@_subcommand("fuse", "Fuse label maps of one target with STAPLE.")
def _fuse() -> click.Command:
    from crossmoda.fusion import files as fusion_files

    @click.command()
    @click.argument("label_maps", type=_PATH, nargs=-1, required=True)
    @click.option("--output", type=_PATH, required=True, help="Folder of the fused label and its maps.")
    @click.option("--reference", type=_PATH, help="Image whose grid the result has; default: the first label map's.")
    @options(fusion_files.Settings)
    def command(label_maps: tuple[Path, ...], output: Path, reference: Path | None, **values: Any) -> None:
        """LABEL_MAPS are files, one per atlas, or one folder of them."""
        files = list(label_maps)
        if len(files) == 1 and files[0].is_dir():
            files = fusion_files.find_label_maps(files[0])
        outputs = fusion_files.Outputs(
            label=output / "noisy_label.seg.nrrd",
            confidence=output / "confidence.nii.gz",
            probability_vs=output / "probability_VS.nii.gz",
            probability_cochlea=output / "probability_cochlea.nii.gz",
            agreement=output / "agreement.nii.gz",
            disagreement=output / "disagreement.nii.gz",
            performance=output / "raters.csv",
        )
        settings = from_arguments(fusion_files.Settings, values)
        with progress_bar() as progress:
            result = fusion_files.fuse_files(files, outputs, settings, reference=reference, progress=progress)
        for note in result.notes:
            click.echo(note)
        for name, value in result.measurements().items():
            click.echo(f"{name}: {value:g}")
        click.echo(output)

    return command


@_subcommand("propagate", "Bring labelled atlases to targets: register, warp, fuse to noisy labels.")
def _propagate() -> click.Command:
    from crossmoda import dataset, device, propagation

    @click.command()
    @click.option("--target", type=_PATH, multiple=True, help="A scan to be labelled; may be given several times.")
    @click.option("--targets", type=_PATH, help="Instead: a data set; all its hrT2 scans are labelled.")
    @click.option("--atlases", type=_PATH, help="A data set; all its labelled ceT1 scans are atlases.")
    @click.option("--atlas-image", type=_PATH, multiple=True, help="Instead: an atlas; may be given several times.")
    @click.option("--atlas-label", type=_PATH, multiple=True, help="Its label map, in the same order.")
    @click.option("--output", type=_PATH, required=True, help="Folder of the results; one folder in it per target.")
    @click.option("--device", type=click.Choice(device.CHOICES), default="auto", help="Processor. [default: auto]")
    @options(propagation.Settings)
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
            done, failed = propagation.propagate_all(cases, sources, output, settings, progress, device=device)
        for name, result in done.items():
            for note in result.notes:
                click.echo(f"{name}: {note}")
            click.echo(f"{name}: {result.folder}")
        for name, why in failed.items():
            click.echo(f"{name}: failed: {why}", err=True)
        if failed:
            raise click.exceptions.Exit(BAD_INPUT)

    return command


def _name(path: Path) -> str:
    """Return a file's name without its endings."""
    return path.name.partition(".")[0]


@_subcommand("predict", "Segment a scan with a trained network.")
def _predict() -> click.Command:
    from crossmoda import inference

    @click.command()
    @click.argument("image", type=_PATH)
    @click.option("--output", type=_PATH, required=True, help="The segmentation: .seg.nrrd, .nrrd or .nii.gz.")
    @click.option("--weights", type=_PATH, help="Trained weights (.safetensors); default: those that come along.")
    @click.option("--probabilities", type=_PATH, help="Prefix of the probability maps, one per structure.")
    @click.option("--uncertainty", type=_PATH, help="The uncertainty map.")
    @options(inference.Settings)
    def command(image: Path, output: Path, weights: Path | None, **values: Any) -> None:
        """IMAGE is a file or a folder with a DICOM series."""
        files = {name: values[name] for name in ("probabilities", "uncertainty")}
        with progress_bar() as progress:
            settings = from_arguments(inference.Settings, values)
            result = inference.predict_files(image, output, weights, settings, progress, **files)
        for name, value in result.provenance["volumes_mm3"].items():
            click.echo(f"{name}: {value:.0f} mm3")
        for note in result.provenance["notes"]:
            click.echo(f"Note: {note}")
        click.echo(output)

    return command


@_subcommand("train", "Train a network on labelled sources and noisy labels of targets.")
def _train() -> click.Command:
    from crossmoda import training

    @click.command()
    @click.option("--data", type=_PATH, required=True, help="Data set with the labelled ceT1 scans (and the hrT2).")
    @click.option("--noisy", type=_PATH, help="Folder with one propagation per hrT2 scan (crossmoda propagate).")
    @click.option("--validation", type=_PATH, help="Data set with labelled scans that are never learned from.")
    @click.option("--initial", type=_PATH, help="Weights to begin with.")
    @click.option("--output", type=_PATH, required=True, help="Folder of the weights, the metrics and the checkpoint.")
    @options(training.Settings)
    def command(data: Path, output: Path, **values: Any) -> None:
        given = {name: values[name] for name in ("noisy", "validation", "initial")}
        with progress_bar() as progress:
            settings = from_arguments(training.Settings, values)
            weights = training.train_folder(data, output, settings, progress, **given)
        click.echo(weights)

    return command


@_subcommand("evaluate", "Score segmentations against references: Dice, HD95, ASSD, volumes.")
def _evaluate() -> click.Command:
    from crossmoda import evaluation, volume

    @click.command()
    @click.option("--csv", "table", type=_PATH, help="One row per case and structure.")
    @click.option("--json", "summary", type=_PATH, help="All scores and their summary.")
    @click.argument("predictions", type=_PATH)
    @click.argument("references", type=_PATH)
    def command(predictions: Path, references: Path, table: Path | None, summary: Path | None) -> None:
        """PREDICTIONS and REFERENCES are two files, or two folders with files of the same name."""
        pairs = _pairs(predictions, references)
        scores = {}
        with progress_bar() as progress:
            for number, (name, files) in enumerate(pairs.items()):
                report(progress, number / len(pairs), name)
                scores[name] = evaluation.evaluate(*map(volume.read_label_map, files))
        if table:
            evaluation.write_csv(scores, table)
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error becomes one sentence on the error stream and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        code = crossmoda_command.main(args=arguments, prog_name="crossmoda", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        code = BAD_INPUT
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except InputError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        code = BAD_INPUT
    except (click.Abort, Cancelled, KeyboardInterrupt):
        click.echo("Cancelled; finished results are kept.", err=True)
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        click.echo(f"Unexpected error: {error} ({type(error).__name__}); --debug shows where.", err=True)
        code = BUG
    sys.exit(code if isinstance(code, int) else 0)
