"""The size of a network: its parameters, its receptive field and its memory."""

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

from crossmoda.network.architecture import Architecture, Triple, architecture, build
from crossmoda.network.settings import Settings

if TYPE_CHECKING:
    import torch


def parameter_count(settings: Settings | None = None) -> int:
    """Return the number of trainable parameters."""
    import torch

    with torch.device("meta"):
        return sum(weights.numel() for weights in build(settings).parameters())


def receptive_field_mm(
    settings: Settings | None = None, spacing_zyx: tuple[float, float, float] = (1.5, 0.5, 0.5)
) -> tuple[float, float, float]:
    """Return the receptive field of an output voxel along (z, y, x), mm.

    It covers the convolutions of the longest path and the linear interpolations, not the global average pooling.
    """
    plan = architecture(settings)
    assert isinstance(plan, Architecture)
    fields = [_receptive_field(plan, axis) * spacing for axis, spacing in enumerate(spacing_zyx)]
    return fields[0], fields[1], fields[2]


def _receptive_field(plan: Architecture, axis: int) -> int:
    """Return the receptive field along an axis, voxels, traced from the output back to the input."""
    jumps = [plan.stem_stride[axis]]  # input voxels between neighbors, after the stem and each stage
    for stage in plan.stages:
        jumps.append(jumps[-1] * stage.stride[axis])
    levels = [jumps[-1], *(jumps[index + 1] for index in plan.low_level)]
    span = 0 if plan.subpixel else _coarse_span(0, levels[-1])  # steps between the first and the last position
    for deep, low in reversed(list(itertools.pairwise(levels))):
        span = _coarse_span(span + 2, deep // low)
    span += 2 * max(rate[axis] for rate in plan.rates)
    for stage in reversed(plan.stages):
        for index in reversed(range(stage.repeats)):
            span = span * (stage.stride[axis] if index == 0 else 1) + 2 * stage.dilation[axis]
    return span * plan.stem_stride[axis] + 3


def _coarse_span(span: int, ratio: int) -> int:
    """Return the largest span of samples that linear interpolation to a ``ratio`` times finer grid reads."""
    if ratio == 1:
        return span

    def coarse(fine: int) -> float:
        return (fine + 0.5) / ratio - 0.5

    return max(math.ceil(coarse(first + span)) - math.floor(coarse(first)) for first in range(ratio))


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of a network, bytes."""

    weights: int
    training: int
    """weights, gradients, two optimizer moments and the tensors saved for the backward pass"""
    inference: int
    """weights and the largest inputs and outputs of a layer"""


def memory(settings: Settings | None = None, size: Triple = (64, 192, 192), batch: int = 1) -> Memory:
    """Return the memory for a crop of ``size`` (z, y, x) voxels in 32-bit floats; nothing is computed or allocated."""
    import torch

    with torch.device("meta"):
        network = build(settings)
        features = torch.empty(batch, architecture(settings).inputs, *size)
        weights = sum(item.numel() * item.element_size() for item in network.state_dict().values())
        saved: dict[int, torch.Tensor] = {}
        peak = 0

        def save(tensor: "torch.Tensor") -> "torch.Tensor":
            saved[tensor.untyped_storage()._cdata] = tensor
            return tensor

        def measure(_module: object, inputs: tuple, output: "torch.Tensor") -> None:
            nonlocal peak
            peak = max(peak, sum(item.nbytes for item in inputs) + output.nbytes)

        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(measure)
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            logits = network(features)
        parameters = {item.untyped_storage()._cdata for item in network.parameters()}
        saved_bytes = sum(item.untyped_storage().nbytes() for key, item in saved.items() if key not in parameters)
    return Memory(
        weights, 4 * weights + saved_bytes + 2 * logits.nbytes, weights + features.nbytes + peak + logits.nbytes
    )
