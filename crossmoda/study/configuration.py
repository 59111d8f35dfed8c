"""What a study does, as a TOML file says it.

The keys at the top are the fields of :class:`Configuration`; each section holds parameters of one step under the names
that they have everywhere else: ``[propagation]``, ``[registration]``, ``[fusion]``, ``[training]``, ``[prediction]``
and ``[cluster]``. What is left out has its default; what is not known is refused.
"""

import dataclasses
import difflib
import fnmatch
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmoda.deeds import Settings as RegistrationSettings
from crossmoda.errors import InputError
from crossmoda.fusion import Settings as FusionSettings
from crossmoda.inference import Settings as PredictionSettings
from crossmoda.parameters import parameters, shown
from crossmoda.propagation import Settings as PropagationSettings
from crossmoda.study.cluster import checked_batch_system
from crossmoda.study.settings import ClusterSettings
from crossmoda.training import Settings as TrainingSettings

#: The sections of the file, and the engine's settings whose parameters they hold.
SECTIONS: dict[str, type] = {
    "propagation": PropagationSettings,
    "registration": RegistrationSettings,
    "fusion": FusionSettings,
    "training": TrainingSettings,
    "prediction": PredictionSettings,
    "cluster": ClusterSettings,
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A study."""

    data: Path
    """folder of the data set"""
    results: Path
    """folder that receives all results; every worker must reach both under the same path"""
    references: Path | None = None
    """folder with reference label maps of targets, named by the target's id, only read for the scores; where it has
    none, a hrT2 scan's own label in the data set is its reference"""
    atlases: tuple[str, ...] = ("*",)
    """which labeled ceT1 scans are atlases: ids, folders of the data set, patterns of either"""
    targets: tuple[str, ...] = ("*",)
    """which hrT2 scans are targets"""
    tests: tuple[str, ...] = ()
    """which of the targets are never learned from"""
    train: bool = True
    """whether a network is trained; else ``initial`` predicts"""
    initial: Path | None = None
    """weights that the training begins with; without training: that predict (default: those that come along)"""
    pictures: int = 6
    """cases of which the report shows pictures, at most"""
    propagation: PropagationSettings = PropagationSettings()  # noqa: RUF009 (frozen)
    registration: RegistrationSettings = RegistrationSettings()  # noqa: RUF009 (frozen)
    fusion: FusionSettings = FusionSettings()  # noqa: RUF009 (frozen)
    training: TrainingSettings = TrainingSettings()  # noqa: RUF009 (frozen)
    prediction: PredictionSettings = PredictionSettings()  # noqa: RUF009 (frozen)
    cluster: ClusterSettings = ClusterSettings()  # noqa: RUF009 (frozen)
    batch_system: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``[cluster.slurm]``: arguments of dask_jobqueue.SLURMCluster"""


def read_configuration(path: Path | str) -> Configuration:
    """Read the TOML file of a study; relative paths in it begin at its folder.

    Raises:
        InputError: the file cannot be read, or a key or value in it cannot be used; the sentence names the nearest
            known key.

    """
    path = Path(path)
    try:
        content = _parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"{path} cannot be read ({reason.lower()}); give the TOML file of a study.") from cause
    return configuration(content, path.parent)


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as cause:
        raise InputError(f"{path} is no valid TOML: its brackets are nested too deeply; correct it there.") from cause
    except ValueError as cause:  # numbers of thousands of digits too
        reason = str(cause) if isinstance(cause, tomllib.TOMLDecodeError) else "a number in it has too many digits"
        raise InputError(f"{path} is no valid TOML: {reason}; correct it there.") from cause


def configuration(content: Mapping[str, Any], folder: Path) -> Configuration:
    """Return the study that ``content`` describes; relative paths begin at ``folder``.

    Raises:
        InputError: see :func:`read_configuration`.

    """
    known = {field.name: field for field in dataclasses.fields(Configuration) if field.name != "batch_system"}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise InputError(f"The study has an unknown key {shown(key)}{_nearest(key, known)}.")
        if key in SECTIONS:
            values[key] = _section(key, value, values)
        else:
            values[key] = _top_level(key, known[key].type, value, folder)
    for key in ("data", "results"):
        if key not in values:
            raise InputError(f'The study does not say {key} = "FOLDER"; add it to the top of the file.')
    if values.get("pictures", 0) < 0:
        raise InputError(f"pictures must be at least 0; got {shown(values['pictures'])}.")
    return Configuration(**values)


def _top_level(key: str, kind: Any, value: Any, folder: Path) -> Any:
    """Return the value of a key at the top, as its field wants it."""
    wanted = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if Path in wanted:
        if not isinstance(value, str) or not value or "\0" in value:
            raise InputError(f"{key} must be a path in quotation marks; got {shown(value)}.")
        return folder / Path(value).expanduser()
    if kind in (bool, int):
        if type(value) is not kind:
            raise InputError(
                f"{key} must be {'true or false' if kind is bool else 'a whole number'}; got {shown(value)}."
            )
        return value
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{key} must be a list of names such as ["crossmoda_106", "target_*"]; got {shown(value)}.')
    return tuple(names)


def _section(name: str, table: Any, values: dict[str, Any]) -> Any:
    """Return the settings of a section."""
    if not isinstance(table, Mapping):
        raise InputError(f"{name} must be a section, [{name}], with its parameters below it; got {shown(table)}.")
    kinds = {item.name: item.type for item in parameters(SECTIONS[name])}
    given = dict(table)
    if name == "cluster" and "slurm" in given:
        values["batch_system"] = checked_batch_system(given.pop("slurm"))
    for key, value in given.items():
        if key not in kinds:
            raise InputError(f"[{name}] has an unknown key {shown(key)}{_nearest(key, kinds)}.")
        kind = kinds[key]
        if kind is float and type(value) is int:
            given[key] = value = float(value)
        if type(value) is not kind:
            wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotation marks"}
            raise InputError(f"{key} in [{name}] must be {wanted[kind]}; got {shown(value)}.")
    try:
        return SECTIONS[name](**given)
    except InputError as cause:
        raise InputError(f"[{name}]: {cause}") from cause


def _nearest(key: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def selected(cases: Sequence[Any], patterns: Sequence[str], data: Path, what: str) -> list[Any]:
    """Return the cases that one of the patterns names by id or by a folder of the data set that holds them.

    Raises:
        InputError: a pattern names no case.

    """

    def matches(case: Any, pattern: str) -> bool:
        place = Path(case.image)
        folders = place.relative_to(data).parent.parts if place.is_relative_to(data) else ()
        names = (case.id, *folders, "/".join(folders))
        return any(fnmatch.fnmatchcase(name, pattern.rstrip("/")) for name in names)

    for pattern in patterns:
        if pattern != "*" and not any(matches(case, pattern) for case in cases):
            raise InputError(f"{what} names {shown(pattern)}, but no such scan is in {data}; correct the name.")
    return [case for case in cases if any(matches(case, pattern) for pattern in patterns)]
