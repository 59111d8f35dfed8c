"""The models of a project, ``MODELS/<name>/``: weights with their card, and which of them is in use.

A new model is added beside the others and used only after :func:`switch`; every model stays and can be switched back.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

from crossmoda import output, weights
from crossmoda.errors import InputError

WEIGHTS = "weights.safetensors"
#: The name of the weights that come along.
BUNDLED = "bundled"
_CURRENT = "current.json"


@dataclasses.dataclass(frozen=True)
class Model:
    """Weights with a name."""

    name: str
    weights: Path
    card: dict[str, Any]
    """the model card"""
    is_current: bool


def models(folder: Path | str) -> list[Model]:
    """Return the models of a folder, first the weights that come along, then the others by age."""
    folder = Path(folder)
    chosen = _current_name(folder)
    found = [file.parent for file in folder.glob(f"*/{WEIGHTS}")] if folder.is_dir() else []
    names = sorted((path for path in found if not path.name.startswith(".")), key=_age)
    places = [(BUNDLED, weights.bundled()), *((path.name, path / WEIGHTS) for path in names)]
    return [Model(name, file, _card(file), name == chosen) for name, file in places]


def current(folder: Path | str) -> Model:
    """Return the model in use: the weights that come along until another is chosen."""
    return next(model for model in models(folder) if model.is_current)


def switch(folder: Path | str, name: str) -> Model:
    """Use another model.

    Raises:
        InputError: there is none of that name, or the folder cannot be written.

    """
    known = [model.name for model in models(folder)]
    if name not in known:
        raise InputError(f"There is no model {name!r} in {folder}; choose one of {', '.join(known)}.")
    output.write_json(Path(folder) / _CURRENT, {"current": name})
    return current(folder)


def add(folder: Path | str, file: Path | str, name: str | None = None, about: dict[str, Any] | None = None) -> Model:
    """Add weights to a folder of models without using them.

    Args:
        folder: the models.
        file: ``.safetensors`` with their card, as CrossModa writes them.
        name: of the model; None: the next free number.
        about: what the card also says.

    Raises:
        InputError: the weights cannot be used, or the name is taken or cannot be a folder's.

    """
    folder = Path(folder)
    taken = {model.name for model in models(folder)}
    name = name or _next_name(taken)
    if name in taken:
        raise InputError(f"There is already a model {name!r} in {folder}; choose another name.")
    if not re.fullmatch(r"[\w][\w .+-]*", name):
        raise InputError(f"{name!r} cannot be the name of a model; use letters, digits, '-', '_' and '.'.")
    weights.load(file)  # what cannot be used is refused now, not when it is chosen
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


def _card(file: Path) -> dict[str, Any]:
    """Return the card beside the weights; what cannot be read, of what the review tells from it, is empty."""
    try:
        card = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(card, dict):
        return {}
    kinds = {"learned_from": dict, "metrics": dict, "held_out": list}
    return {name: value for name, value in card.items() if isinstance(value, kinds.get(name, object))}


def _current_name(folder: Path) -> str:
    """Return the name of the model in use; the shipped one if another was chosen that is no longer there."""
    try:
        name = str(json.loads((folder / _CURRENT).read_text(encoding="utf-8"))["current"])
    except (OSError, ValueError, KeyError, TypeError):
        return BUNDLED
    return name if (folder / name / WEIGHTS).is_file() else BUNDLED
