"""The ``crossmoda`` command: one subcommand per engine function.

A subcommand reads its options from the engine's settings (:mod:`crossmoda.parameters`) and is built only when it is
asked for, so that ``crossmoda --help`` imports none of the science.
"""

import sys

import click

from crossmoda.cli.framework import crossmoda_command
from crossmoda.errors import BAD_INPUT, BUG, INTERRUPTED, Cancelled, InputError
from crossmoda.output import use_utf8

# Each registers its subcommands; the overview shows them in this order, that of the work.
# isort: off
from crossmoda.cli import data, registration, learning, scores, review, study  # noqa: F401
# isort: on


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error becomes one sentence on the error stream and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    use_utf8()
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
