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
from crossmoda.progress import Progress

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


_INPUT = click.Path(path_type=Path)
_OUTPUT = click.Path(path_type=Path)
