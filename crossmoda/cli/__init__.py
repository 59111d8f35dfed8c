"""The ``crossmoda`` command: one subcommand per file.

A subcommand has its options from the engine's declarations (:mod:`crossmoda.parameters`, :mod:`crossmoda.steps`) and is
imported only when it is used, so that ``crossmoda --help`` imports none of the science.
"""

from crossmoda.cli.entry import main
from crossmoda.cli.framework import crossmoda_command

__all__ = ["crossmoda_command", "main"]
