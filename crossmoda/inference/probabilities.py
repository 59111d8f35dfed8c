"""Class probabilities of a prepared scan: test-time mirroring, tiles and fallbacks when memory runs out."""

import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import device as devices
from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.inference.settings import Settings
from crossmoda.progress import Progress, report

if TYPE_CHECKING:
    import torch

#: Tile (z, y, x) and the margin on each side that adjacent tiles share, voxels.
TILE = (32, 96, 96)
MARGIN = (8, 24, 24)
#: Stride of the network's deepest features; tiles start at multiples of it.
_STRIDE = 8


def predict_probabilities(
    network: "torch.nn.Module",
    image: np.ndarray,
    settings: Settings,
    device: str,
    progress: Progress | None,
    inputs: str = "mind",
) -> tuple[np.ndarray, list[str]]:
    """Predict the probabilities (label, z, y, x) of a prepared image (z, y, x).

    If memory runs out, the image is predicted in tiles, then on the CPU.

    Returns:
        The probabilities, and a note for each fallback.

    Raises:
        InputError: the probabilities are not finite, or memory runs out on the CPU.

    """
    import torch

    from crossmoda.network.features import features

    attempts = [(device, settings.tiles)]
    if not settings.tiles:
        attempts.append((device, True))
    if device == "cuda":
        attempts.append(("cpu", True))
    fallbacks: list[str] = []
    for attempt in attempts:
        current_device, tiled = attempt
        if attempt != attempts[0]:
            fallbacks.append(f"out of memory: predicted in tiles on the {'GPU' if current_device == 'cuda' else 'CPU'}")
            report(progress, 0.3, fallbacks[-1])
        try:
            with torch.inference_mode():
                total = functools.reduce(
                    torch.add,
                    (
                        _softmax(network.to(current_device), features(view, inputs), tiled).flip(axes)
                        for axes, view in _views(torch.from_numpy(image).to(current_device), settings.flips)
                    ),
                )
            probabilities = (total / (2 if settings.flips else 1)).cpu().numpy()
        except RuntimeError as error:
            if not devices.ran_out_of_memory(error):
                raise
        else:
            if not np.isfinite(probabilities).all():  # every voxel would become background
                raise InputError("Predicted probabilities are not finite. Download the weights again, or train again.")
            return probabilities, fallbacks
        if current_device == "cuda":
            devices.free_unused_memory()
    raise InputError("Not enough memory to segment this scan. Close other programs.")


def logits_of(network: "torch.nn.Module", features: "torch.Tensor") -> "torch.Tensor":
    """Return the logits (1, class, z, y, x) of features (channel, z, y, x).

    Small volumes are padded by replication, so that the deepest features have several voxels along each axis.
    """
    import torch

    size = features.shape[1:]
    missing = [max(0, 2 * _STRIDE - extent) for extent in size]
    padding = [value for extent in reversed(missing) for value in (0, extent)]
    padded = torch.nn.functional.pad(features[None], padding, mode="replicate") if any(missing) else features[None]
    return network(padded)[:, :, : size[0], : size[1], : size[2]]


def _views(image: "torch.Tensor", flips: bool) -> "list[tuple[tuple[int, ...], torch.Tensor]]":
    """Return the image and, with ``flips``, its mirror image, each with the axes that undo the mirroring."""
    views: list[tuple[tuple[int, ...], torch.Tensor]] = [((), image)]
    if flips:
        views.append(((-1,), image.flip(-1)))
    return views


def _softmax(network: "torch.nn.Module", features: "torch.Tensor", tiled: bool) -> "torch.Tensor":
    """Return the probabilities (label, z, y, x) of features (channel, z, y, x)."""
    import torch

    use_bfloat16 = features.is_cuda and torch.cuda.is_bf16_supported()
    with torch.autocast("cuda", torch.bfloat16, enabled=use_bfloat16):
        if not tiled:
            return logits_of(network, features)[0].float().softmax(0)
        size = features.shape[1:]
        result = torch.empty((len(labels.VALUES), *size), device=features.device)
        starts = [range(0, extent, tile) for extent, tile in zip(size, TILE, strict=True)]
        for start in itertools.product(*starts):
            _predict_tile(network, features, start, result)
        return result


def _predict_tile(
    network: "torch.nn.Module", features: "torch.Tensor", start: tuple[int, ...], result: "torch.Tensor"
) -> None:
    """Predict a tile with its margin and write its interior to ``result``."""
    padded_tile, interior, destination = [], [], []
    for first, tile, margin, extent in zip(start, TILE, MARGIN, features.shape[1:], strict=True):
        low, last = max(0, first - margin), min(first + tile, extent)
        padded_tile.append(slice(low, min(last + margin, extent)))
        interior.append(slice(first - low, last - low))
        destination.append(slice(first, last))
    logits = logits_of(network, features[(slice(None), *padded_tile)])[0].float()
    result[(slice(None), *destination)] = logits.softmax(0)[(slice(None), *interior)]
