"""The group of subcommands, their options, and progress on the terminal."""

import difflib
import errno
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import crossmoda
from crossmoda.errors import BAD_INPUT, InputError
from crossmoda.output import json_text, printable
from crossmoda.parameters import Settings, parameters, shown
from crossmoda.progress import Progress
from crossmoda.steps.declaration import StepDeclaration

if TYPE_CHECKING:
    from crossmoda.dataset import Dataset

#: The subcommands in the order of the work, and their summaries; each is ``command`` in the module of its name.
COMMANDS = {
    "demo": "Run the whole chain on simulated subjects; nothing to download.",
    "simulate": "Simulate a data set.",
    "validate": "List all problems of a data set with their remedies.",
    "locate": "Locate both ears: landmarks of cochlea, canal and labyrinth.",
    "register": "Register a moving image to a fixed image (deeds).",
    "fuse": "Fuse label maps of one target (STAPLE).",
    "propagate": "Propagate atlas labels to targets: register, warp, fuse to noisy labels.",
    "segment": "Segment scans with a trained network, and measure the tumor.",
    "measure": "Measure a segmentation: volumes, diameters, meatal parts, suggested Koos grade.",
    "growth": "Measure whether a tumor has grown between two or more scans of a patient.",
    "report": "Write the report of one patient: key images, measures, provenance.",
    "export": "Write a label as DICOM SEG, or labeled scans as an nnU-Net or BIDS data set.",
    "train": "Train a network on labeled sources and noisy labels of targets.",
    "evaluate": "Score segmentations against references: Dice, HD95, ASSD, volumes.",
    "review-list": "Rank labels by expected benefit of correction, with reasons.",
    "improve": "Train the current model further with corrections; compare both on held-out cases.",
    "models": "List the models of a folder, add one, or select the current one.",
    "review-report": "Write the report of a review: agreement, corrections, volumes, time, models.",
    "study": "Run a whole study: propagate, train, predict, score, report; on many processes or machines.",
    "doctor": "Check the installation: packages, processor, memory, folders, disk, weights.",
}
#: Earlier names of commands.
ALIASES = {"predict": "segment"}


class _Path(click.Path):
    """A path with a valid name; the engine checks whether it exists."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        try:
            path.lstat()
        except OSError as cause:
            if cause.errno == errno.ENAMETOOLONG:
                raise InputError(f"File name too long: {shown(str(path))}. Check the path.") from cause
        return path


PATH = _Path(path_type=Path)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are used; the overview needs their summaries only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"crossmoda.cli.{name.replace('-', '_')}").command
        command.name = cmd_name
        command.help = f"{COMMANDS[name]}\n\n{inspect.getdoc(command.callback)}"
        if not any(parameter.name == "quiet" for parameter in command.params):
            command.params += [_everywhere("-q", "--quiet"), _everywhere("-v", "--verbose")]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], [*COMMANDS, *ALIASES], n=2, cutoff=0.5)
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _everywhere(*names: str) -> click.Option:
    """Return an option of the group that is understood behind a command as well."""

    def store(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.obj[param.name] = True

    return click.Option(names, is_flag=True, hidden=True, expose_value=False, callback=store)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(crossmoda.__version__, "-V", "--version", prog_name="crossmoda")
@click.option("-v", "--verbose", "--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def crossmoda_command(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Segment the vestibular schwannoma and the cochlea across MR contrasts.

    Not a medical device: every result must be checked by a qualified person.
    """
    ctx.obj = {"quiet": quiet}


def echo(text: object = "", err: bool = False) -> None:
    """Print a line; names and paths in it cannot move the terminal's cursor or change its title."""
    click.echo(printable(text), err=err)


def path_option(*names: str, **details: Any) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds an option with a path as its value; ``-o`` is short for ``--output``."""
    if "--output" in names and "-o" not in names:
        names = ("-o", *names)
    return click.option(*names, type=PATH, **details)


def files(step: StepDeclaration, *names: str) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds one option for each of these files of a step."""

    def decorate(function: Decorated) -> Decorated:
        for file in reversed([step.file(name) for name in names]):
            function = path_option(file.flag, file.name, required=file.required, help=f"{file.help}.")(function)
        return function

    return decorate


def options(*settings: type[Settings]) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds one option for each parameter of these settings."""

    def decorate(function: Decorated) -> Decorated:
        for item in reversed([item for each in settings for item in parameters(each)]):
            kind: Any = click.Choice(item.choices) if item.choices else item.type
            flag = f"{item.flag}/--no-{item.flag[2:]}" if item.type is bool else item.flag
            shows_default = item.default not in (None, "")
            details = {"type": kind, "default": item.default, "show_default": shows_default}
            if item.name == "device":
                details["callback"] = _available
            function = click.option(flag, item.name, help=item.help_with_unit, **details)(function)
        return function

    return decorate


pseudonymize_option = click.option(
    "--pseudonymize",
    is_flag=True,
    help="Replace IDs by pseudonyms from now on; the key is written into the folder of the scans.",
)


def _available(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a graphics card that is not there before any work."""
    if value == "cuda":
        from crossmoda import device

        device.choose(value)
    return value


def open_data(folder: Path) -> "Dataset":
    """Return the cases of a data set; what was passed over is printed on the error stream."""
    from crossmoda.dataset import open_dataset

    data = open_dataset(folder)
    for note in data.notes:
        echo(f"Note: {note}", err=True)
    return data


def structure_option(function: Decorated) -> Decorated:
    """Add ``--structure NAME=KEY``, which maps names of structures for the rest of the process."""

    def mapped(ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> None:
        if pairs:
            from crossmoda import structure_names

            structure_names.map_names(pairs)

    text = "Structure of a name or value in label files, such as GTV2=VS or 3=ignore; repeat for several."
    return click.option(
        "--structure", multiple=True, metavar="NAME=KEY", callback=mapped, expose_value=False, help=text
    )(function)


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Show a progress bar on the terminal's error stream; nothing when it is not a terminal or ``--quiet``."""
    if click.get_current_context().obj["quiet"] or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda fraction, message: bars.update(task, completed=fraction, description=printable(message))


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def echo_json(content: Any) -> None:
    """Print a result as JSON."""
    echo(json_text(content))


def report_cases(results: Mapping[str, Any], failures: Mapping[str, str], as_json: bool = False) -> None:
    """Print notes and folder of each finished case (``.notes``, ``.folder``) and the causes of failures.

    After a failure the command ends with the exit code of bad input.
    """
    if as_json:
        cases = {name: {"folder": result.folder, "notes": list(result.notes)} for name, result in results.items()}
        echo_json({"cases": cases, "failed": failures})
        results = {}
    for name, result in results.items():
        for note in result.notes:
            echo(f"{name}: {note}")
        echo(f"{name}: {result.folder}")
    for name, cause in failures.items():
        echo(f"{name}: failed: {cause}", err=True)
    if failures:
        raise click.exceptions.Exit(BAD_INPUT)
