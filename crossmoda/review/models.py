"""The models of a project, ``MODELS/<name>/``: weights with model cards, and the current model.

A new model becomes current only by :func:`switch`. No model is ever removed.
"""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

from crossmoda import locks, output, weights
from crossmoda.errors import InputError

WEIGHTS = "weights.safetensors"
#: Name of the bundled weights.
BUNDLED = "bundled"
_CURRENT = "current.json"


@dataclasses.dataclass(frozen=True)
class Model:
    """A named model of a project."""

    name: str
    weights: Path
    card: dict[str, Any]
    is_current: bool


def models(folder: Path | str) -> list[Model]:
    """Return the models of a folder: the bundled weights, then the others by age."""
    folder = Path(folder)
    current_name = _current_name(folder)
    folders = [file.parent for file in folder.glob(f"*/{WEIGHTS}")] if folder.is_dir() else []
    folders = sorted((path for path in folders if not path.name.startswith(".")), key=_age)
    files = [(BUNDLED, weights.bundled()), *((path.name, path / WEIGHTS) for path in folders)]
    return [Model(name, file, card_of(file), name == current_name) for name, file in files]


def current(folder: Path | str) -> Model:
    """Return the current model: the bundled weights until another model is selected."""
    return next(model for model in models(folder) if model.is_current)


def switch(folder: Path | str, name: str) -> Model:
    """Make another model the current one.

    Raises:
        InputError: unknown model, or the folder cannot be written.

    """
    names = [model.name for model in models(folder)]
    if name not in names:
        raise InputError(f"Unknown model: {name!r} in {folder}. Select one of {', '.join(names)}.")
    with locks.store_locked(folder):
        output.write_json(Path(folder) / _CURRENT, {"current": name})
    return current(folder)


def add(folder: Path | str, file: Path | str, name: str | None = None, about: dict[str, Any] | None = None) -> Model:
    """Add weights to a folder of models, without making them the current model.

    Args:
        folder: the models.
        file: ``.safetensors`` with a model card.
        name: name of the model; None: the next free number.
        about: additional entries of the card.

    Raises:
        InputError: the weights cannot be used, or the name exists or is invalid.

    """
    folder = Path(folder)
    weights.load(file)  # reject unusable weights now
    with locks.store_locked(folder):
        return _add(folder, file, name, about)


def _add(folder: Path, file: Path | str, name: str | None, about: dict[str, Any] | None) -> Model:
    taken = {model.name for model in models(folder)}
    name = name or _next_name(taken)
    if name in taken:
        raise InputError(f"Model exists: {name!r} in {folder}. Use another name.")
    if not re.fullmatch(r"[\w][\w .+-]*", name):
        raise InputError(f"Invalid model name: {name!r}. Use letters, digits, '-', '_' and '.'.")
    tensors, card = weights.read_tensors(file)
    temporary = folder / f"{output.PARTIAL}{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        weights.save(temporary / WEIGHTS, tensors, {**card, **(about or {})})
        temporary.rename(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return next(model for model in models(folder) if model.name == name)


def _next_name(taken: set[str]) -> str:
    number = 1
    while f"model-{number}" in taken:
        number += 1
    return f"model-{number}"


def _age(path: Path) -> tuple[float, str]:
    return (path / WEIGHTS).stat().st_mtime, path.name


def card_of(file: Path) -> dict[str, Any]:
    """Return the card beside the weights, without entries of the wrong type; empty if unreadable."""
    try:
        card = output.read_json(file.with_suffix(".json"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(card, dict):
        return {}
    kinds = {"learned_from": dict, "metrics": dict, "held_out": list}
    return {name: value for name, value in card.items() if isinstance(value, kinds.get(name, object))}


def _current_name(folder: Path) -> str:
    """Return the name of the current model; the bundled one if the selected model is missing."""
    try:
        name = str(output.read_json(folder / _CURRENT)["current"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return BUNDLED
    return name if (folder / name / WEIGHTS).is_file() else BUNDLED
