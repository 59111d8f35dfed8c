"""The process of a Slicer CLI module: arguments, progress as Slicer reads it, errors as Slicer shows them.

Slicer starts a CLI module as a process, reads progress tags from its standard output, takes anything on its standard
error as an error, and kills it without notice when the user cancels. The modules run from a shell as well.
"""

import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NoReturn

from crossmoda.errors import BAD_INPUT, BUG, INTERRUPTED, NOT_ENOUGH_MEMORY, Cancelled, InputError
from crossmoda.output import end_as_interrupted, printable, use_utf8, write_text
from crossmoda.progress import Progress
from crossmoda.steps.declaration import StepDeclaration


def command_line(arguments: Sequence[str] | None = None) -> list[str]:
    """Return the command line with dashes in the flags, as argparse has them: ``--moving_label`` is ``--moving-label``.

    Slicer's parser refuses a ``<longflag>`` with dashes inside, so the XML has underscores; a shell may use either.
    ``--xml`` prints the XML beside the script and exits.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--xml"]:
        _print(Path(sys.argv[0]).with_suffix(".xml").read_text(encoding="utf-8").rstrip())
        sys.exit(0)
    return [re.sub(r"^--\w+", lambda flag: flag[0].replace("_", "-"), word) for word in words]


def _print(text: str) -> None:
    print(text, flush=True)  # a pipe is buffered by the block: unflushed tags arrive at the end


def progress_tags(fraction: float, message: str) -> None:
    """Report progress to Slicer; a :data:`crossmoda.progress.Progress`."""
    comment = escape(message, quote=False)
    _print(f"<filter-progress>{fraction:.4f}</filter-progress><filter-comment>{comment}</filter-comment>")


def write_return_parameters(path: Path | str | None, values: Mapping[str, Any]) -> None:
    """Write the results of a step to the file of ``--returnparameterfile``, if Slicer passed one."""
    if path:
        write_text(path, "".join(f"{name} = {_plain(value)}\n" for name, value in values.items()))


def _plain(value: Any) -> str:
    """Return a value as Slicer reads it: one line, booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())


def main(step: StepDeclaration) -> NoReturn:
    """Run a step as a CLI module with the arguments of the process, and exit."""
    values = vars(step.parser().parse_args(command_line()))

    def work(progress: Progress) -> None:
        results = step.run(values, progress)
        if results.get("notes"):
            _print(results["notes"])
        write_return_parameters(values["returnparameterfile"], results)

    run(step.module, work)


def run(name: str, work: Callable[[Progress], None]) -> NoReturn:
    """Do the work of a CLI module and exit: with 0, or with one sentence on standard error and a code above 0.

    Warnings and the traceback of a bug go to standard output, which Slicer shows in the module's log.
    """
    use_utf8()
    end_as_interrupted()
    warnings.showwarning = lambda message, category, *_: _print(f"{category.__name__}: {message}")
    start = time.perf_counter()
    _print(f"<filter-start><filter-name>{name}</filter-name><filter-comment>{name}</filter-comment></filter-start>")
    try:
        work(progress_tags)
    except InputError as error:
        _fail(str(error), BAD_INPUT)
    except MemoryError:
        _fail(NOT_ENOUGH_MEMORY, BAD_INPUT)
    except (Cancelled, KeyboardInterrupt):
        _fail("Cancelled. No output was written.", INTERRUPTED)
    except Exception as error:
        _print(traceback.format_exc())
        _fail(f"Unexpected error: {error} ({type(error).__name__}). The output shows the traceback.", BUG)
    seconds = time.perf_counter() - start
    _print(f"<filter-end><filter-name>{name}</filter-name><filter-time>{seconds:.2f}</filter-time></filter-end>")
    sys.exit(0)


def _fail(sentence: str, code: int) -> NoReturn:
    print(printable(sentence), file=sys.stderr, flush=True)
    sys.exit(code)
