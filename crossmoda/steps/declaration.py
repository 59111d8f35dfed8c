"""Files, parameters and results of a step, and the engine call that does it."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crossmoda.parameters import Settings, add_arguments
from crossmoda.progress import Progress

#: The kinds of a file, with the endings that a program chooses among; images are read and written in many formats.
KINDS = {
    "image": "",
    "label": "",
    "transform": ".h5",
    "linear transform": ".h5,.tfm",
    "table": ".csv",
    "markups": ".mrk.json",
    "weights": ".safetensors",
    "folder": "",
}


@dataclasses.dataclass(frozen=True)
class File:
    """A file or folder of a step."""

    name: str
    kind: str
    """one of :data:`KINDS`"""
    help: str
    """a noun phrase"""
    required: bool = False
    """whether the step needs it; a required file is an argument without a flag"""
    advanced: bool = False
    """whether the panel hides it at first"""

    @property
    def flag(self) -> str:
        """The option on the command line, such as ``--moving-label``."""
        return "--" + self.name.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class Result:
    """A number or text that a step reports beside its files."""

    name: str
    type: type
    label: str
    help: str


@dataclasses.dataclass(frozen=True)
class StepDeclaration:
    """A step of the work."""

    module: str
    """the name of its Slicer CLI module"""
    title: str
    description: str
    inputs: tuple[File, ...]
    outputs: tuple[File, ...]
    settings: tuple[type[Settings], ...]
    results: tuple[Result, ...]
    run: Callable[[Mapping[str, Any], Progress | None], Mapping[str, Any]]
    """``run(values, progress)`` with the files (None: not asked for) and parameters by name; returns the results"""
    acknowledgements: str = ""

    @property
    def files(self) -> tuple[File, ...]:
        """Inputs and outputs, those that are required first."""
        return tuple(sorted(self.inputs + self.outputs, key=lambda file: not file.required))

    def file(self, name: str) -> File:
        """Return a file by name."""
        return next(file for file in self.files if file.name == name)

    def parser(self) -> argparse.ArgumentParser:
        """Return the parser of the CLI module's arguments: files, then parameters."""
        parser = argparse.ArgumentParser(prog=self.module, description=self.description)
        for file in self.files:
            direction = "output: " if file in self.outputs else ""
            parser.add_argument(file.name if file.required else file.flag, type=_path, help=direction + file.help)
        parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
        for settings in self.settings:
            add_arguments(parser, settings)
        return parser


def _path(text: str) -> Path | None:
    """Return a path; an empty text is an omitted file, not the current folder."""
    return Path(text) if text else None
