"""Parameters declared once, where the engine uses them.

The settings of a step are a frozen dataclass whose fields are made by :func:`parameter`. The ``crossmoda`` command, the
Slicer CLI modules (arguments and XML) and the panel read name, default, range, unit and help from its fields.
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
        help: a noun phrase of at most 90 characters, without the unit and the default.
        unit: the unit of the value, such as ``"mm"``.
        minimum: the smallest valid value.
        maximum: the largest valid value.
        choices: the valid values.
        advanced: whether the panel hides it at first.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Smoothing(Settings):
        ...     sigma: float = parameter(1.0, "Standard deviation of the Gaussian", unit="mm", minimum=0.0)
        >>> Smoothing(sigma=-1.0)
        Traceback (most recent call last):
        crossmoda.errors.InputError: ...

    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, "unit": unit, **limits, "advanced": advanced})


def parameter_of(settings: type, name: str, **changes: Any) -> Any:
    """Make a field that is a parameter of another settings dataclass, with ``changes`` (see :func:`parameter`)."""
    field = next(field for field in dataclasses.fields(settings) if field.name == name)
    return parameter(**{"default": field.default, **field.metadata, **changes})


def shown(value: Any) -> str:
    """Return a value for a message, abbreviated if it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


#: The name of each type in messages, and its values in Python (numbers of NumPy too).
_KINDS: dict[type, tuple[str, type]] = {
    bool: ("true or false", bool),
    int: ("an integer", numbers.Integral),
    float: ("a number", numbers.Real),
    str: ("text", str),
}


class Settings:
    """Base of the settings dataclasses: values of another type or outside their range raise :class:`InputError`."""

    def __post_init__(self) -> None:
        """Check each value against its type, its range and its choices."""
        kinds = _types(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, details = getattr(self, field.name), field.metadata
            choices, low, high = details.get("choices"), details.get("minimum"), details.get("maximum")
            if value is None and field.default is None:
                continue
            if choices is not None and value not in choices:
                raise InputError(f"{field.name} must be one of {', '.join(choices)}; got {shown(value)}.")
            kind = kinds[field.name]
            if kind in _KINDS and not _is_of(kind, value):
                raise InputError(f"{field.name} must be {_KINDS[kind][0]}; got {shown(value)}.")
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                span = f"{low:g} to {high:g}" if None not in (low, high) else _one_sided(low, high)
                unit = f" {details['unit']}" if details["unit"] else ""
                raise InputError(f"{field.name} must be {span}{unit}; got {shown(value)}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name} must be a number; got {shown(value)}.")


def _is_of(kind: type, value: Any) -> bool:
    """Return whether a value, perhaps from a file, has a parameter's type; bool is not a number."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, _KINDS[kind][1])


def _types(settings: type) -> dict[str, Any]:
    """Return the types of the parameters; of an optional one the type beside None."""
    hints = typing.get_type_hints(settings)
    return {
        name: typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind for name, kind in hints.items()
    }


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
    def help_with_unit(self) -> str:
        """The help as a sentence that ends with the unit."""
        return f"{self.help.rstrip('.')}{f' ({self.unit})' if self.unit else ''}."


def parameters(settings: type[Settings]) -> Iterator[Parameter]:
    """Yield the parameters of a settings dataclass in order."""
    kinds = _types(settings)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        yield Parameter(name=field.name, type=kinds[field.name], default=field.default, **field.metadata)


def add_arguments(parser: argparse.ArgumentParser, settings: type[Settings]) -> None:
    """Add the parameters of ``settings`` as options to an argparse parser (the Slicer CLI modules)."""
    for item in parameters(settings):
        details: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if item.type is not bool:
            details = {"type": item.type, "choices": item.choices}
        shows_default = item.default not in (None, "")
        help_text = item.help_with_unit.replace("%", "%%") + (" [default: %(default)s]" if shows_default else "")
        parser.add_argument(item.flag, dest=item.name, default=item.default, help=help_text, **details)


AnySettings = typing.TypeVar("AnySettings", bound=Settings)


def from_arguments(settings: type[AnySettings], values: Mapping[str, Any]) -> AnySettings:
    """Make the settings from parsed arguments; other keys in ``values`` are ignored."""
    return settings(**{item.name: values[item.name] for item in parameters(settings)})
