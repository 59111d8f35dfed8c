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
from crossmoda.errors import Cancelled, InputError
from crossmoda.parameters import Settings, from_arguments, parameters
from crossmoda.progress import Progress, report

_PATH = click.Path(path_type=Path)
Builder = Callable[[], click.Command]
_BUILDERS: dict[str, tuple[str, Builder]] = {}

#: Exit codes: bad input, interrupted by the user, a bug.
BAD_INPUT, INTERRUPTED, BUG = 2, 130, 1


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
        click.echo(f"{len(found.sources)} labelled ceT1, {len(found.targets)} hrT2, {len(problems)} problems.")
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
        for fallback in result.provenance["fallbacks"]:
            click.echo(f"Note: {fallback}")
        click.echo(output)

    return command


@_subcommand("train", "Train a network on labelled sources and noisy labels of targets.")
def _train() -> click.Command:
    from crossmoda import dataset, training

    @click.command()
    @click.option("--data", type=_PATH, required=True, help="Data set with the labelled ceT1 scans (and the hrT2).")
    @click.option("--noisy", type=_PATH, help="Folder with one propagation per hrT2 scan (crossmoda propagate).")
    @click.option("--validation", type=_PATH, help="Data set with labelled scans that are never learned from.")
    @click.option("--initial", type=_PATH, help="Weights to begin with.")
    @click.option("--output", type=_PATH, required=True, help="Folder of the weights, the metrics and the checkpoint.")
    @options(training.Settings)
    def command(data: Path, noisy: Path | None, validation: Path | None, output: Path, **values: Any) -> None:
        found = dataset.open_dataset(data)
        cases = [training.TrainingCase.of(case) for case in found.sources]
        cases += training.noisy_cases(found.targets, noisy) if noisy else []
        held_out = [case for case in dataset.open_dataset(validation).cases if case.label] if validation else None
        settings = from_arguments(training.Settings, values)
        with progress_bar() as progress:
            weights = training.train(cases, output, settings, held_out, progress, initial=values["initial"])
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
