#!/usr/bin/env python-real
"""Slicer CLI module: train the network on labeled ceT1 scans and on noisy labels of hrT2 scans.

The work is done by :func:`crossmoda.training.train_folder` or, with a folder of models, by
:func:`crossmoda.review.improvement.improve`; this file only reads the arguments.
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
from crossmoda.errors import InputError  # noqa: E402
from crossmoda.progress import Progress  # noqa: E402
from crossmoda.training import Settings  # noqa: E402


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the module's arguments: folders, then the parameters of the training."""
    parser = argparse.ArgumentParser(prog="CrossModaTrain", description=__doc__.splitlines()[0])
    parser.add_argument("data", help="data set with labeled ceT1 scans (and hrT2 scans)")
    parser.add_argument("--noisy", help="folder with the propagations to the hrT2 scans, one folder for each")
    parser.add_argument("--validation", help="data set with labeled scans that are never learned from")
    parser.add_argument("--initial", help="weights to begin with (.safetensors)")
    parser.add_argument(
        "--models",
        help="folder of models: train the one in use further with the data set's corrections, compare, add the new one",
    )
    parser.add_argument("--output", help="folder of the weights, the metrics and the checkpoint")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
    parameters.add_arguments(parser, Settings)
    return parser


def main(options: argparse.Namespace, progress: Progress) -> None:
    """Train on the folders that ``options`` names."""
    if options.models:
        weights = improve(options, progress)
    elif options.output:
        weights = train(options, progress)
    else:
        raise InputError("Say where to: the output folder of a training, or the folder of the models to be improved.")
    slicer_cli.write_return_parameters(options.returnparameterfile, {"weights": weights})


def improve(options: argparse.Namespace, progress: Progress) -> Path:
    """Train the model in use further with the corrections of the data set; return the new model's weights."""
    from crossmoda.review import improvement

    settings = improvement.ImprovementSettings(
        **{name: getattr(options, name) for name in ("seconds", "epochs", "learning_rate", "seed", "device")}
    )
    return improvement.improve(options.data, options.noisy, options.models, settings, progress).new.weights


def train(options: argparse.Namespace, progress: Progress) -> Path:
    """Train on the folders that ``options`` names; return the weights."""
    from crossmoda.training import train_folder

    return train_folder(
        options.data,
        options.output,
        parameters.from_arguments(Settings, vars(options)),
        progress,
        noisy=options.noisy,
        validation=options.validation,
        initial=options.initial,
    )


if __name__ == "__main__":
    chosen = arguments().parse_args(slicer_cli.command_line())
    slicer_cli.run("CrossModaTrain", lambda progress: main(chosen, progress))
