"""Weights on disk: safetensors with their model card, never a pickle.

The card travels inside the file (the safetensors header), so that weights cannot be separated from what they are made
for; the JSON file beside it holds the same for people.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import network as networks
from crossmoda import output, preprocessing
from crossmoda.errors import InputError

if TYPE_CHECKING:
    import torch

FORMAT = "CrossModa weights 1"
_CARD = "card"
#: What a model card calls the mean probabilities below which a structure that was found is doubtful.
DOUBTFUL = "doubtful_below"


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network and what belongs to it."""

    network: "torch.nn.Module"
    """in evaluation mode, 32-bit"""
    settings: networks.Settings
    preparation: preprocessing.Preparation
    """how a scan is prepared for it"""
    card: dict[str, Any]


def shipped() -> Path:
    """Return the path of the weights that come with CrossModa."""
    return Path(__file__).with_name("weights") / "default.safetensors"


def new_card(settings: networks.Settings, preparation: preprocessing.Preparation, **about: Any) -> dict[str, Any]:
    """Return the model card of a network: what is needed to use it, then what ``about`` says about it."""
    import crossmoda

    return {
        "format": FORMAT,
        "network": dataclasses.asdict(settings),
        "preprocessing": dataclasses.asdict(preparation),
        "crossmoda": crossmoda.__version__,
        **about,
    }


def write_tensors(path: Path | str, tensors: "dict[str, torch.Tensor]", about: dict[str, Any]) -> None:
    """Write tensors with ``about`` (JSON types) in the header of one safetensors file, in one step."""
    from safetensors.torch import save as to_bytes

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with output.atomic(path) as temporary:
        # Not save_file, whose files only their owner can read.
        temporary.write_bytes(to_bytes(content, metadata={_CARD: json.dumps(about)}))


def read_tensors(path: Path | str) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """Read what :func:`write_tensors` wrote.

    Raises:
        InputError: the file is missing, a pickle, damaged, or not one of ours.

    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"There are no weights at {path}; give the path of a .safetensors file.")
    with path.open("rb") as stream:
        start = stream.read(9)
    # A safetensors file begins with the length of its header (8 bytes, any values), a JSON object.
    if start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
        raise InputError(
            f"{path.name} is a pickled checkpoint, which could run any program when opened; "
            "save the weights as safetensors instead."
        )
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as cause:
        raise InputError(f"{path.name} is damaged or no safetensors file; copy it again.") from cause
    try:
        about = json.loads(metadata[_CARD])
        if not isinstance(about, dict):
            raise TypeError("a card is a JSON object")
    except (KeyError, ValueError, TypeError, RecursionError) as cause:
        raise InputError(f"{path.name} has no model card in its header; use weights that CrossModa wrote.") from cause
    return tensors, about


def save(path: Path | str, state: "dict[str, torch.Tensor]", card: dict[str, Any], *, half: bool = False) -> Path:
    """Write a network's state and its card, with the card once more as JSON beside the file.

    Args:
        path: where to, ending with ``.safetensors``.
        state: the network's ``state_dict()``.
        card: made by :func:`new_card`.
        half: store 16-bit floats.

    """
    import torch

    path = Path(path)
    kept = {name: item.half() if half and item.dtype == torch.float32 else item for name, item in state.items()}
    write_tensors(path, kept, card)
    output.write_json(path.with_suffix(".json"), card)
    return path


def load(path: Path | str) -> Model:
    """Read weights and build their network.

    Raises:
        InputError: the file is missing, a pickle, damaged, or holds another architecture.

    """
    import torch

    path = Path(path)
    tensors, card = read_tensors(path)
    if card.get("format") != FORMAT:
        raise InputError(f"{path.name} is not in the format '{FORMAT}'; use weights that this version wrote.")
    try:
        settings = networks.Settings(**card["network"])
        preparation = preprocessing.Preparation(**card["preprocessing"])
    except (KeyError, TypeError) as cause:
        raise InputError(f"The model card of {path.name} is of another version ({cause}); train again.") from cause
    except InputError as cause:
        raise InputError(
            f"The model card of {path.name} is damaged or of another version ({str(cause).rstrip('.')}); copy it again."
        ) from cause
    model = networks.build(settings)
    expected = model.state_dict()
    if {name: tuple(item.shape) for name, item in tensors.items()} != {
        name: tuple(item.shape) for name, item in expected.items()
    }:
        raise InputError(
            f"{path.name} holds the weights of another architecture than its card says "
            f"(preset {settings.preset}, width {settings.width:g}); use weights and card of one training."
        )
    if not _are_limits(card.get(DOUBTFUL, {})):
        raise InputError(f"The model card of {path.name} is damaged ({DOUBTFUL} are no numbers); copy it again.")
    if any(item.is_floating_point() != expected[name].is_floating_point() for name, item in tensors.items()):
        raise InputError(f"{path.name} holds weights of another kind of numbers; copy it again, or train again.")
    state = {name: item.to(expected[name].dtype) for name, item in tensors.items()}
    if not all(torch.isfinite(item).all() for item in state.values() if item.is_floating_point()):
        raise InputError(f"{path.name} holds weights that are not finite; train again.")
    if any((item < 0).any() for name, item in state.items() if name.endswith("running_var")):
        raise InputError(f"{path.name} holds variances below 0; copy it again, or train again.")
    model.load_state_dict(state)
    return Model(model.eval(), settings, preparation, card)


def _are_limits(doubtful: Any) -> bool:
    """Return whether an entry of a card holds numbers by the names of structures."""
    return isinstance(doubtful, dict) and all(isinstance(limit, int | float) for limit in doubtful.values())
