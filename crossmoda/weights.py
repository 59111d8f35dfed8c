"""Weights on disk: safetensors with a model card, never a pickle.

The card is stored in the safetensors header, and once more as JSON beside the file for readers.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import network as networks
from crossmoda import output, preprocessing, provenance
from crossmoda.errors import InputError

if TYPE_CHECKING:
    import torch

FORMAT = "CrossModa weights 1"
_CARD = "card"
#: Key of the model card: mean probabilities below which a predicted structure is doubtful.
DOUBTFUL = "doubtful_below"
#: Keys of the model card: what is called a tumor (:class:`crossmoda.inference.ears.Calling`), and which scans the
#: network was trained for (words, and ranges as [least, largest]; :mod:`crossmoda.inference.coverage`).
CALLING, COVERS = "calling", "covers"


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with its settings and model card."""

    network: "torch.nn.Module"
    """in evaluation mode, 32-bit"""
    settings: networks.Settings
    preparation: preprocessing.Preparation
    """preprocessing of its input"""
    card: dict[str, Any]


def bundled() -> Path:
    """Return the path of the bundled weights."""
    return Path(__file__).with_name("weights") / "default.safetensors"


def new_card(settings: networks.Settings, preparation: preprocessing.Preparation, **about: Any) -> dict[str, Any]:
    """Return the model card of a network: the settings needed to load it, then the entries of ``about``."""
    import crossmoda

    return {
        "format": FORMAT,
        "network": dataclasses.asdict(settings),
        "preprocessing": dataclasses.asdict(preparation),
        "crossmoda": crossmoda.__version__,
        **about,
    }


def caution(card: dict[str, Any]) -> str:
    """Return what a user of the network has to know of its training data, from its card; empty if nothing."""
    covered = card.get(COVERS)
    not_seen = str(covered.get("not_seen", "")) if isinstance(covered, dict) else ""
    return (
        "No real schwannoma was in its training."
        if "real schwannomas" in not_seen and not card.get("learned_from")
        else ""
    )


def inherited(initial: Path | str | None) -> dict[str, Any]:
    """Return what the card of weights keeps of the card of their initial weights, and where they come from."""
    if initial is None:
        return {}
    _, card = read_tensors(initial)
    rules = {name: card[name] for name in (DOUBTFUL, CALLING, COVERS, "license") if name in card}
    about = {name: card[name] for name in ("data", "notes", "training") if name in card}
    if isinstance(rules.get(CALLING), dict):  # the new labels decide where cochleae are
        rules[CALLING] = {name: value for name, value in rules[CALLING].items() if name != "cochlea_up_mm"}
    return {**rules, "initial_weights": {"sha256": provenance.checksum(initial), **about}}


def write_tensors(path: Path | str, tensors: "dict[str, torch.Tensor]", about: dict[str, Any]) -> None:
    """Write tensors to a safetensors file atomically, with ``about`` (JSON types) in its header."""
    from safetensors.torch import save as to_bytes

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with output.atomic(path) as temporary:
        # Not save_file: only the owner can read its files.
        temporary.write_bytes(to_bytes(content, metadata={_CARD: json.dumps(about)}))


def read_tensors(path: Path | str) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """Read tensors and header of a file written by :func:`write_tensors`.

    Raises:
        InputError: the file is missing, a pickle, damaged, or has no model card.

    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"Weights not found: {path}. Select a .safetensors file.")
    with path.open("rb") as stream:
        start = stream.read(9)
    # A safetensors file begins with the length of its header (8 bytes, any values), a JSON object.
    if start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
        raise InputError(
            f"Pickled checkpoint refused, since it could run any program: {path.name}. Convert it to safetensors."
        )
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as cause:
        raise InputError(f"Not a valid safetensors file: {path.name}. Download it again.") from cause
    try:
        about = json.loads(metadata[_CARD])
        if not isinstance(about, dict):
            raise TypeError("a card is a JSON object")
    except (KeyError, ValueError, TypeError, RecursionError) as cause:
        raise InputError(f"No model card in the weights: {path.name}. Select weights written by CrossModa.") from cause
    return tensors, about


def save(path: Path | str, state: "dict[str, torch.Tensor]", card: dict[str, Any], *, half: bool = False) -> Path:
    """Write weights with their card, and the card as JSON beside them.

    Args:
        path: output path, ending with ``.safetensors``.
        state: the network's ``state_dict()``.
        card: see :func:`new_card`.
        half: whether to store 16-bit floats.

    """
    import torch

    path = Path(path)
    tensors = {name: item.half() if half and item.dtype == torch.float32 else item for name, item in state.items()}
    write_tensors(path, tensors, card)
    output.write_json(path.with_suffix(".json"), card)
    return path


def load(path: Path | str) -> TrainedNetwork:
    """Read weights and build their network.

    Raises:
        InputError: the file is missing, a pickle, damaged, or holds another architecture.

    """
    import torch

    path = Path(path)
    tensors, card = read_tensors(path)
    if card.get("format") != FORMAT:
        raise InputError(f"Unknown format of weights: {path.name}. Select weights in the format '{FORMAT}'.")
    try:
        settings = networks.Settings(**card["network"])
        preparation = preprocessing.Preparation(**card["preprocessing"])
    except (KeyError, TypeError) as cause:
        raise InputError(f"Incompatible model card ({cause}): {path.name}. Train again with this version.") from cause
    except InputError as cause:
        raise InputError(
            f"Invalid model card ({str(cause).rstrip('.')}): {path.name}. Download the weights again."
        ) from cause
    model = networks.build(settings)
    expected = model.state_dict()
    if {name: tuple(item.shape) for name, item in tensors.items()} != {
        name: tuple(item.shape) for name, item in expected.items()
    }:
        raise InputError(
            f"Weights do not match their model card (preset {settings.preset}, width {settings.width:g}): {path.name}. "
            "Select weights with their own card."
        )
    if not _are_limits(card.get(DOUBTFUL, {})):
        raise InputError(f"Invalid model card ({DOUBTFUL} is not numeric): {path.name}. Download the weights again.")
    if not _are_ranges(card.get(COVERS, {})):
        raise InputError(f"Invalid model card ({COVERS}: words or [least, largest]): {path.name}. Download it again.")
    if any(item.is_floating_point() != expected[name].is_floating_point() for name, item in tensors.items()):
        raise InputError(f"Weights of the wrong data type: {path.name}. Download them again, or train again.")
    state = {name: item.to(expected[name].dtype) for name, item in tensors.items()}
    if not all(torch.isfinite(item).all() for item in state.values() if item.is_floating_point()):
        raise InputError(f"Weights are not finite: {path.name}. Train again.")
    if any((item < 0).any() for name, item in state.items() if name.endswith("running_var")):
        raise InputError(f"Weights contain negative variances: {path.name}. Download them again, or train again.")
    model.load_state_dict(state)
    return TrainedNetwork(model.eval(), settings, preparation, card)


def _are_limits(doubtful: Any) -> bool:
    """Return whether a card entry maps structures to numbers; one that is not finite would switch a warning off."""
    return isinstance(doubtful, dict) and all(
        isinstance(limit, int | float) and math.isfinite(limit) for limit in doubtful.values()
    )


def _are_ranges(covers: Any) -> bool:
    """Return whether a card entry maps names to words or to pairs of numbers."""
    return isinstance(covers, dict) and all(
        isinstance(value, str) or (isinstance(value, list) and len(value) == 2 and _are_limits(dict(enumerate(value))))
        for value in covers.values()
    )
