#!/usr/bin/env python-real
"""Slicer CLI module: register a moving image (atlas) to a fixed image (target) with deeds, and its label map with it.

The work is done by :func:`crossmoda.propagation.single.register_files`; this file only reads the arguments.
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
from crossmoda.propagation.single import Settings  # noqa: E402

#: What is told to Slicer of a registration; the last four with a moving label map only.
_MEASURED = (
    *("mean_displacement_mm", "percentile_95_displacement_mm", "folding_percent"),
    *("quality", "tumor_side", "cochlea_sides", "mirrored"),
)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the module's arguments: files, then the parameters of the registration."""
    parser = argparse.ArgumentParser(prog="CrossModaRegister", description=__doc__.splitlines()[0])
    parser.add_argument("fixed", help="image whose space the result lies in (target)")
    parser.add_argument("moving", help="image that is moved (atlas)")
    parser.add_argument("--moving-label", help="label map on the moving image's grid")
    parser.add_argument("--fixed-mask", help="label map on the fixed image's grid: what counts")
    parser.add_argument("--moving-mask", help="label map on the moving image's grid: what counts")
    parser.add_argument("--initial-transform", help="linear transform from fixed to moving points to start from")
    parser.add_argument("--transform", help="output: fixed to moving points; resamples the moving image (.h5)")
    parser.add_argument("--inverse-transform", help="output: moving to fixed points (.h5)")
    parser.add_argument("--warped", help="output: the moving image on the fixed grid")
    parser.add_argument("--warped-label", help="output: the moving label map on the fixed grid")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
    parameters.add_arguments(parser, Settings)
    return parser


def main(options: argparse.Namespace, progress: Progress) -> None:
    """Register the files that ``options`` names."""
    from crossmoda.deeds.files import RegistrationOutputs
    from crossmoda.propagation.single import register_files

    result = register_files(
        options.fixed,
        options.moving,
        RegistrationOutputs(options.transform, options.inverse_transform, options.warped, options.warped_label),
        moving_label=options.moving_label,
        fixed_mask=options.fixed_mask,
        moving_mask=options.moving_mask,
        initial=options.initial_transform,
        settings=parameters.from_arguments(Settings, vars(options)),
        progress=progress,
    )
    found = {name: result.provenance.get(name) for name in _MEASURED}
    found["processor"] = result.provenance["device"]
    slicer_cli.write_return_parameters(
        options.returnparameterfile, {name: value for name, value in found.items() if value is not None}
    )


if __name__ == "__main__":
    chosen = arguments().parse_args(slicer_cli.command_line())
    slicer_cli.run("CrossModaRegister", lambda progress: main(chosen, progress))
