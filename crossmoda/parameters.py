"""Parameters described once, where the engine uses them.

The settings of a step are a frozen dataclass whose fields are made by :func:`parameter`. The ``crossmoda`` command, the
Slicer CLI modules (arguments and XML) and the panel read name, default, range, unit and help from there.
"""

import argparse
import dataclasses
import math
import numbers
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from crossmoda.errors import InputError


def parameter(
    default: Any,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    advanced: bool = False,
) -> Any:
    """Make a field of a settings dataclass.

    Args:
        default: the default value; its type (bool, int, float, str) is the parameter's.
        help: one sentence for a clinician, without the unit and the default.
        unit: the unit of the value, such as ``"mm"``.
        minimum: the smallest value allowed.
        maximum: the largest value allowed.
        choices: the only values allowed.
        advanced: whether the panel hides it at first.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Smoothing(Settings):
        ...     sigma: float = parameter(1.0, "Standard deviation of the Gaussian", unit="mm", minimum=0.0)
        >>> Smoothing(sigma=-1.0)
        Traceback (most recent call last):
        crossmoda.errors.InputError: ...

    """
    about = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(default=default, metadata={**about, "advanced": advanced})


def parameter_of(settings: type, name: str, **changes: Any) -> Any:
    """Make a field that is a parameter of another settings dataclass, with ``changes`` (see :func:`parameter`)."""
    field = next(field for field in dataclasses.fields(settings) if field.name == name)
    return parameter(**{"default": field.default, **field.metadata, **changes})


def shown(value: Any) -> str:
    """Return a value as it is shown in a sentence: what is long is cut."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


#: What a value of each type is, and what it may be in Python (numbers of NumPy too).
_KINDS: dict[type, tuple[str, type]] = {
    bool: ("true or false", bool),
    int: ("a whole number", numbers.Integral),
    float: ("a number", numbers.Real),
    str: ("a text", str),
}


class Settings:
    """Base of the settings dataclasses: values of another type or outside their range raise :class:`InputError`."""

    def __post_init__(self) -> None:
        """Check each value against its type, its range and its choices."""
        kinds = _types(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, about = getattr(self, field.name), field.metadata
            choices, low, high = about.get("choices"), about.get("minimum"), about.get("maximum")
            if value is None and field.default is None:
                continue
            if choices is not None and value not in choices:
                raise InputError(f"{field.name} must be one of {', '.join(choices)}; got {shown(value)}.")
            kind = kinds[field.name]
            if kind in _KINDS and not _is_of(kind, value):
                raise InputError(f"{field.name} must be {_KINDS[kind][0]}; got {shown(value)}.")
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                span = f"{low:g} to {high:g}" if None not in (low, high) else _one_sided(low, high)
                unit = f" {about['unit']}" if about["unit"] else ""
                raise InputError(f"{field.name} must be {span}{unit}; got {shown(value)}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name} must be a number; got {shown(value)}.")


def _is_of(kind: type, value: Any) -> bool:
    """Return whether a value, from a file perhaps, can be one of a parameter: true is no number."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, _KINDS[kind][1])


def _types(settings: type) -> dict[str, Any]:
    """Return the types of the parameters, that of what may also be None included."""
    return {name: _one_type(kind) for name, kind in typing.get_type_hints(settings).items()}


def _one_type(kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return next(member for member in typing.get_args(kind) if member is not type(None))
    return kind


def _one_sided(low: float | None, high: float | None) -> str:
    return f"at most {high:g}" if low is None else f"at least {low:g}"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter as the doors see it."""

    name: str
    type: type
    default: Any
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...] | None
    advanced: bool

    @property
    def flag(self) -> str:
        """The option on the command line, such as ``--grid-spacing``."""
        return "--" + self.name.replace("_", "-")

    @property
    def full_help(self) -> str:
        """The help with unit and default."""
        unit = f" ({self.unit})" if self.unit else ""
        default = "" if self.type is bool else f" [default: {self.default}]"
        return f"{self.help.rstrip('.')}{unit}.{default}"


def parameters(settings: type[Settings]) -> Iterator[Parameter]:
    """Yield the parameters of a settings dataclass in order."""
    kinds = _types(settings)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        yield Parameter(name=field.name, type=kinds[field.name], default=field.default, **field.metadata)


def add_arguments(parser: argparse.ArgumentParser, settings: type[Settings]) -> None:
    """Add the parameters of ``settings`` as options to an argparse parser (the Slicer CLI modules)."""
    for item in parameters(settings):
        how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if item.type is not bool:
            how = {"type": item.type, "choices": item.choices}
        help_text = item.full_help.replace("%", "%%")
        parser.add_argument(item.flag, dest=item.name, default=item.default, help=help_text, **how)


def from_arguments(settings: type[Settings], values: Mapping[str, Any]) -> Any:
    """Make the settings from parsed arguments; other keys in ``values`` are ignored."""
    return settings(**{item.name: values[item.name] for item in parameters(settings)})
