"""The entry point of the command: arguments, errors, exit code."""

import sys

import click

from crossmoda.cli.framework import crossmoda_command
from crossmoda.errors import BAD_INPUT, BUG, INTERRUPTED, NOT_ENOUGH_MEMORY, Cancelled, InputError
from crossmoda.output import end_as_interrupted, printable, use_utf8


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error becomes one sentence on the error stream and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = not {"-v", "--verbose", "--debug"}.isdisjoint(arguments)
    use_utf8()
    end_as_interrupted()
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
        click.echo(f"Error: {printable(error)}", err=True)
        code = BAD_INPUT
    except MemoryError:
        click.echo(f"Error: {NOT_ENOUGH_MEMORY}", err=True)
        code = BAD_INPUT
    except (click.Abort, Cancelled, KeyboardInterrupt):
        click.echo("Cancelled; finished results stay.", err=True)
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"Unexpected error: {printable(error)} ({type(error).__name__}). --debug shows the traceback.", err=True
        )
        code = BUG
    sys.exit(code if isinstance(code, int) else 0)
