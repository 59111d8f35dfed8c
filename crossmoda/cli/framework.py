"""What all subcommands share: they are built lazily, take their options from settings, and show progress."""

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import crossmoda
from crossmoda.errors import BAD_INPUT, InputError
from crossmoda.parameters import Settings, parameters, shown
from crossmoda.progress import Progress


class _Path(click.Path):
    """A path that the system can look for; whether anything is there the engine says."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        try:
            path.lstat()
        except OSError as cause:
            if cause.errno == errno.ENAMETOOLONG:
                raise InputError(f"The name {shown(str(path))} is too long for a file or folder; check it.") from cause
        return path


PATH = _Path(path_type=Path)
Builder = Callable[[], click.Command]
_BUILDERS: dict[str, tuple[str, Builder]] = {}


def subcommand(name: str, summary: str) -> Callable[[Builder], Builder]:
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


def report_cases(done: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Print notes and folder of each finished case (``.notes``, ``.folder``) and why the others failed.

    Where some failed the command ends here, with the exit code of bad input.
    """
    for name, result in done.items():
        for note in result.notes:
            click.echo(f"{name}: {note}")
        click.echo(f"{name}: {result.folder}")
    for name, why in failed.items():
        click.echo(f"{name}: failed: {why}", err=True)
    if failed:
        raise click.exceptions.Exit(BAD_INPUT)
