#!/usr/bin/env python-real
"""Slicer CLI module: fuse label maps of one target, propagated from several atlases.

The work is done by :func:`crossmoda.propagation.label_files.fuse_files`; this file only reads the arguments.
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
from crossmoda.propagation.label_files import LabelFileOutputs, Settings, find_label_maps, fuse_files  # noqa: E402

_OUTPUTS = {
    "label": "the fused label map",
    "confidence": "probability of the fused label",
    "probability_vs": "probability of the vestibular schwannoma",
    "probability_cochlea": "probability of the cochlea",
    "agreement": "share of the label maps that say the fused label",
    "disagreement": "entropy of what the label maps say, 0 to 1",
    "performance": "table of each label map's sensitivity and specificity (.csv)",
}


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the module's arguments: label maps, outputs, then the parameters of the fusion."""
    parser = argparse.ArgumentParser(prog="CrossModaFuse", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with one label map per atlas, all of the same target")
    parser.add_argument("--pattern", default="*", help="which files of the folder [default: *]")
    parser.add_argument("--files", default="", help="instead: names in the folder or paths, separated by commas")
    parser.add_argument("--reference", help="image whose grid the result has; without it the first label map's")
    parser.add_argument("--images", help="folder with the atlases' images on the reference, named as their label maps")
    parser.add_argument("--elsewhere", help="image: probability of tumor where it is if on the other side")
    parser.add_argument("--opposite", help="image: brightness of the reference at the opposite places of the head")
    for name, text in _OUTPUTS.items():
        parser.add_argument("--" + name.replace("_", "-"), dest=name, help=f"output: {text}")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
    parameters.add_arguments(parser, Settings)
    return parser


def main(options: argparse.Namespace, progress: Progress) -> None:
    """Fuse the files that ``options`` names."""
    listed = [name.strip() for name in options.files.split(",") if name.strip()]
    folder = Path(options.folder)
    result = fuse_files(
        [folder / name for name in listed] if listed else find_label_maps(folder, options.pattern),
        LabelFileOutputs(**{name: getattr(options, name) for name in _OUTPUTS}),
        parameters.from_arguments(Settings, vars(options)),
        reference=options.reference,
        images=options.images,
        elsewhere=options.elsewhere,
        opposite=options.opposite,
        progress=progress,
    )
    for note in result.notes:
        print(note, flush=True)
    found = {**result.measurements(), "side": result.side or "", "notes": " ".join(result.notes)}
    slicer_cli.write_return_parameters(options.returnparameterfile, found)


if __name__ == "__main__":
    chosen = arguments().parse_args(slicer_cli.command_line())
    slicer_cli.run("CrossModaFuse", lambda progress: main(chosen, progress))
