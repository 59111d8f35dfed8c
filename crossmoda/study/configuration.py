"""The configuration of a study, a TOML file.

Top-level keys are the fields of :class:`Configuration`. Sections contain the parameters of a step: ``[propagation]``,
``[registration]``, ``[fusion]``, ``[training]``, ``[prediction]`` and ``[cluster]``. Missing keys have defaults;
unknown keys are errors.
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

#: Sections of the file and their settings.
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
    """The configuration of a study."""

    data: Path
    """folder of the data set"""
    results: Path
    """folder for all results; all workers access both folders under the same path"""
    references: Path | None = None
    """folder with reference label maps named by target ID, used for scores only; default: labels of hrT2 scans in the
    data set"""
    atlases: tuple[str, ...] = ("*",)
    """atlases among the labeled ceT1 scans: IDs, folders of the data set, or patterns of them"""
    targets: tuple[str, ...] = ("*",)
    """targets among the hrT2 scans"""
    tests: tuple[str, ...] = ()
    """targets excluded from training"""
    train: bool = True
    """whether to train a network; otherwise ``initial`` is used"""
    initial: Path | None = None
    """initial weights of the training, or weights of the prediction without training (default: bundled weights)"""
    pseudonymize: bool = False
    """whether to replace IDs by pseudonyms, in this and later work on the data set (``pseudonym_key.txt``)"""
    pictures: int = 6
    """maximum number of cases with pictures in the report"""
    propagation: PropagationSettings = PropagationSettings()  # noqa: RUF009 (frozen)
    registration: RegistrationSettings = RegistrationSettings()  # noqa: RUF009 (frozen)
    fusion: FusionSettings = FusionSettings()  # noqa: RUF009 (frozen)
    training: TrainingSettings = TrainingSettings()  # noqa: RUF009 (frozen)
    prediction: PredictionSettings = PredictionSettings()  # noqa: RUF009 (frozen)
    cluster: ClusterSettings = ClusterSettings()  # noqa: RUF009 (frozen)
    batch_system: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``[cluster.slurm]``: arguments of dask_jobqueue.SLURMCluster"""


def read_configuration(path: Path | str) -> Configuration:
    """Read the TOML file of a study; relative paths start at its folder.

    Raises:
        InputError: the file cannot be read, or a key or value is invalid; the message suggests the closest key.

    """
    path = Path(path)
    try:
        content = _parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or "not UTF-8 text"
        raise InputError(f"Cannot read {path} ({reason.lower()}). Select the TOML file of a study.") from cause
    return configuration(content, path.parent)


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as cause:
        raise InputError(f"Invalid TOML: {path}: brackets nested too deeply. Correct the file.") from cause
    except ValueError as cause:  # numbers of thousands of digits too
        reason = str(cause) if isinstance(cause, tomllib.TOMLDecodeError) else "number with too many digits"
        raise InputError(f"Invalid TOML: {path}: {reason}. Correct the file.") from cause


def configuration(content: Mapping[str, Any], folder: Path) -> Configuration:
    """Return the configuration in ``content``; relative paths start at ``folder``.

    Raises:
        InputError: see :func:`read_configuration`.

    """
    known = {field.name: field for field in dataclasses.fields(Configuration) if field.name != "batch_system"}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise InputError(f"Unknown key: {shown(key)}. {_suggestion(key, known)}")
        if key in SECTIONS:
            values[key] = _section(key, value, values)
        else:
            values[key] = _top_level(key, known[key].type, value, folder)
    for key in ("data", "results"):
        if key not in values:
            raise InputError(f'Missing key: {key}. Add {key} = "FOLDER" to the top of the file.')
    if values.get("pictures", 0) < 0:
        raise InputError(f"pictures must be at least 0; got {shown(values['pictures'])}.")
    return Configuration(**values)


def _top_level(key: str, kind: Any, value: Any, folder: Path) -> Any:
    """Return the value of a top-level key in the type of its field."""
    accepted = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if Path in accepted:
        if not isinstance(value, str) or not value or "\0" in value:
            raise InputError(f"{key} must be a path in quotation marks; got {shown(value)}.")
        return folder / Path(value).expanduser()
    if kind in (bool, int):
        if type(value) is not kind:
            raise InputError(f"{key} must be {'true or false' if kind is bool else 'an integer'}; got {shown(value)}.")
        return value
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{key} must be a list of names such as ["crossmoda_106", "target_*"]; got {shown(value)}.')
    return tuple(names)


def _section(name: str, table: Any, values: dict[str, Any]) -> Any:
    """Return the settings of a section."""
    if not isinstance(table, Mapping):
        raise InputError(f"{name} must be a section [{name}]; got {shown(table)}.")
    kinds = {item.name: item.type for item in parameters(SECTIONS[name])}
    entries = dict(table)
    if name == "cluster" and "slurm" in entries:
        values["batch_system"] = checked_batch_system(entries.pop("slurm"))
    for key, value in entries.items():
        if key not in kinds:
            raise InputError(f"Unknown key in [{name}]: {shown(key)}. {_suggestion(key, kinds)}")
        if kinds[key] is float and type(value) is int:
            entries[key] = float(value)
    try:
        return SECTIONS[name](**entries)
    except InputError as cause:
        raise InputError(f"[{name}]: {cause}") from cause


def _suggestion(key: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."


def selected(cases: Sequence[Any], patterns: Sequence[str], data: Path, key: str) -> list[Any]:
    """Return the cases whose ID or folder in the data set matches a pattern.

    Raises:
        InputError: a pattern matches no case.

    """

    def matches(case: Any, pattern: str) -> bool:
        path = Path(case.image)
        folders = path.relative_to(data).parent.parts if path.is_relative_to(data) else ()
        names = (case.id, *folders, "/".join(folders))
        return any(fnmatch.fnmatchcase(name, pattern.rstrip("/")) for name in names)

    for pattern in patterns:
        if pattern != "*" and not any(matches(case, pattern) for case in cases):
            raise InputError(f"No scan matches {key}: {shown(pattern)} in {data}. Correct the pattern.")
    return [case for case in cases if any(matches(case, pattern) for pattern in patterns)]
