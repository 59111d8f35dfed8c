#!/usr/bin/env python-real
"""Slicer CLI module: segment the vestibular schwannoma and the cochlea on a scan with a trained network.

The work is done by :func:`crossmoda.inference.predict_files`; this file only reads the arguments.
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
from crossmoda.inference import Settings  # noqa: E402
from crossmoda.progress import Progress  # noqa: E402


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the module's arguments: files, then the parameters of the prediction."""
    parser = argparse.ArgumentParser(prog="CrossModaPredict", description=__doc__.splitlines()[0])
    parser.add_argument("image", help="scan to segment")
    parser.add_argument("--weights", help="trained weights (.safetensors); those that come along if not given")
    parser.add_argument("--label-map", required=True, help="output: the segmentation on the scan's grid")
    parser.add_argument("--vs-probability", help="output: probability of the vestibular schwannoma")
    parser.add_argument("--cochlea-probability", help="output: probability of the cochlea")
    parser.add_argument("--uncertainty", help="output: how unsure the network is, 0 to 1")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
    parameters.add_arguments(parser, Settings)
    return parser


def main(options: argparse.Namespace, progress: Progress) -> None:
    """Segment the file that ``options`` names."""
    from crossmoda.inference import predict_files

    wanted = {"VS": options.vs_probability, "cochlea": options.cochlea_probability}
    result = predict_files(
        options.image,
        options.label_map,
        options.weights,
        parameters.from_arguments(Settings, vars(options)),
        progress,
        probabilities={key: path for key, path in wanted.items() if path},
        uncertainty=options.uncertainty,
        keep_record=False,
    )
    volumes = {f"{key.lower()}_mm3": value for key, value in result.provenance["volumes_mm3"].items()}
    slicer_cli.write_return_parameters(
        options.returnparameterfile,
        {**volumes, "processor": result.provenance["device"], "notes": "; ".join(result.provenance["notes"])},
    )


if __name__ == "__main__":
    chosen = arguments().parse_args(slicer_cli.command_line())
    slicer_cli.run("CrossModaPredict", lambda progress: main(chosen, progress))
