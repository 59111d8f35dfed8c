#!/usr/bin/env python-real
"""Slicer CLI module: train the network on labelled ceT1 scans and on noisy labels of hrT2 scans.

The work is done by :func:`crossmoda.training.train_folder`; this file only reads the arguments.
"""

import argparse
import sys
from pathlib import Path

# The engine lies beside this folder in a source checkout, and in qt-scripted-modules when installed in Slicer.
_ABOVE = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(folder)
    for folder in (_ABOVE, _ABOVE / "qt-scripted-modules")
    if (folder / "crossmoda" / "__init__.py").is_file()
]

from crossmoda import parameters, slicer_cli  # noqa: E402
from crossmoda.progress import Progress  # noqa: E402
from crossmoda.training import Settings  # noqa: E402


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the module's arguments: folders, then the parameters of the training."""
    parser = argparse.ArgumentParser(prog="CrossModaTrain", description=__doc__.splitlines()[0])
    parser.add_argument("data", help="data set with labelled ceT1 scans (and hrT2 scans)")
    parser.add_argument("--noisy", help="folder with the propagations to the hrT2 scans, one folder for each")
    parser.add_argument("--validation", help="data set with labelled scans that are never learned from")
    parser.add_argument("--initial", help="weights to begin with (.safetensors)")
    parser.add_argument("--output", required=True, help="folder of the weights, the metrics and the checkpoint")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
    parameters.add_arguments(parser, Settings)
    return parser


def main(options: argparse.Namespace, progress: Progress) -> None:
    """Train on the folders that ``options`` names."""
    from crossmoda.training import train_folder

    weights = train_folder(
        options.data,
        options.output,
        parameters.from_arguments(Settings, vars(options)),
        progress,
        noisy=options.noisy,
        validation=options.validation,
        initial=options.initial,
    )
    slicer_cli.write_return_parameters(options.returnparameterfile, {"weights": weights})


if __name__ == "__main__":
    chosen = arguments().parse_args(slicer_cli.command_line())
    slicer_cli.run("CrossModaTrain", lambda progress: main(chosen, progress))
