"""3D DeepLab on MIND-SSC features: what the two presets are made of, how large they are, how far they see.

References:
    Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018.
    Chen et al., Rethinking atrous convolution for semantic image segmentation, arXiv:1706.05587 (DeepLabv3).
    Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018 (DeepLabv3+).

"""

import dataclasses
import functools
import itertools
import math
from typing import TYPE_CHECKING

import crossmoda.labels
from crossmoda.parameters import Settings as Base
from crossmoda.parameters import parameter

if TYPE_CHECKING:
    import torch

#: Channels of MIND-SSC: the network's input.
INPUTS = 12

Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)
IN_PLANE: Triple = (1, 2, 2)
ALL: Triple = (2, 2, 2)


@dataclasses.dataclass(frozen=True)
class Settings(Base):
    """Which network."""

    preset: str = parameter(
        "default",
        "The network: 'default' segments best; 'paper' is the published one, for comparison",
        choices=("default", "paper"),
    )
    width: float = parameter(
        1.0, "Multiplies the number of channels of every layer", minimum=0.125, maximum=4, advanced=True
    )


@dataclasses.dataclass(frozen=True)
class Stage:
    """Inverted residuals of one resolution. Strides and dilations are (z, y, x)."""

    hidden: int
    """channels of the depthwise filter in the first block"""
    channels: int
    repeats: int = 1
    stride: Triple = ONE
    dilation: Triple = ONE
    hidden_later: int | None = None
    """channels of the depthwise filter in the following blocks, where it differs"""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network. Strides, dilations and rates are (z, y, x)."""

    stem: int
    """channels behind the first convolution, which is not depthwise"""
    stem_stride: Triple
    stages: tuple[Stage, ...]
    pyramid: int
    """channels of each branch of the atrous pyramid and of their union"""
    rates: tuple[Triple, ...]
    """dilations of the pyramid's 3 x 3 x 3 convolutions"""
    pooling: bool
    """whether the pyramid has a branch that averages the whole image"""
    low_level: tuple[int, ...]
    """the stages whose output the decoder takes up, deepest first"""
    decoder: tuple[int, ...]
    """channels behind each step of the decoder"""
    factorized: bool
    """whether depthwise 3 x 3 x 3 filters are factorized, and the pyramid's and decoder's filters depthwise"""
    subpixel: bool
    """whether the classifier makes the stem's stride good itself (else by linear interpolation)"""
    prior: tuple[float, ...] | None = None
    """the frequencies of the classes that the untrained network begins with"""
    inputs: int = INPUTS
    classes: int = len(crossmoda.labels.VALUES)


#: The challenge paper names the families only (DeepLabv3, MobileNetV2, ASPP). The numbers of channels, strides and
#: rates are those of a public 3D MobileNet with ASPP of the same years, as the closest match; the input is MIND-SSC.
PAPER = Architecture(
    stem=32,
    stem_stride=ALL,
    stages=(
        Stage(32, 16),
        Stage(96, 24, 2, hidden_later=144),
        Stage(144, 32),
        Stage(192, 32),
        Stage(192, 32, stride=ALL),
        Stage(192, 64, 2, hidden_later=384),
    ),
    pyramid=128,
    rates=((2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16)),
    pooling=True,
    low_level=(0,),
    decoder=(64,),
    factorized=False,
    subpixel=False,
)

#: For 0.5 x 0.5 x 1.5 mm voxels: the strides bring them to 1 x 1 x 1.5, 2 x 2 x 1.5 and 4 x 4 x 3 mm. Few channels
#: where voxels are many, many where they are few: else the first two resolutions would take two thirds of the time.
DEFAULT = Architecture(
    stem=8,
    stem_stride=IN_PLANE,
    stages=(
        Stage(8, 8),
        Stage(24, 16, 2, stride=IN_PLANE, hidden_later=48),
        Stage(64, 48, 3, stride=ALL, hidden_later=144),
        Stage(192, 64, 2, dilation=ALL),
    ),
    pyramid=64,
    rates=((1, 1, 1), (2, 2, 2), (3, 4, 4)),
    pooling=False,
    low_level=(1, 0),
    decoder=(32, 16),
    factorized=True,
    subpixel=True,
    prior=(0.97, 0.02, 0.01),
)


def _scaled(channels: int, width: float) -> int:
    """Scale to a multiple of 8 that loses at most a tenth (the rule of MobileNetV2)."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


def architecture(settings: Settings | None = None) -> Architecture:
    """Return the architecture of a preset with its channels scaled by the width."""
    settings = settings or Settings()
    plan = PAPER if settings.preset == "paper" else DEFAULT
    if settings.width == 1.0:
        return plan
    scale = functools.partial(_scaled, width=settings.width)
    stages = tuple(
        dataclasses.replace(
            stage,
            hidden=scale(stage.hidden),
            channels=scale(stage.channels),
            hidden_later=None if stage.hidden_later is None else scale(stage.hidden_later),
        )
        for stage in plan.stages
    )
    return dataclasses.replace(
        plan,
        stem=scale(plan.stem),
        stages=stages,
        pyramid=scale(plan.pyramid),
        decoder=tuple(scale(channels) for channels in plan.decoder),
    )


def build(settings: Settings | None = None) -> "torch.nn.Module":
    """Make the network, untrained.

    Input: MIND-SSC (batch, 12, z, y, x) of any size; output: logits (batch, 3, z, y, x), background first.
    """
    from crossmoda.network.layers import DeepLab

    return DeepLab(architecture(settings))


def parameter_count(settings: Settings | None = None) -> int:
    """Return the number of trained parameters."""
    import torch

    with torch.device("meta"):
        return sum(weights.numel() for weights in build(settings).parameters())


def receptive_field_mm(
    settings: Settings | None = None, spacing_zyx: tuple[float, float, float] = (1.5, 0.5, 0.5)
) -> tuple[float, float, float]:
    """Return how far apart, along (z, y, x), the outermost voxels are that can change one voxel of the output.

    The field of the convolutions on the longest path and of the linear interpolations, without the branch that averages
    the whole image; a field wider than the image ends at its border.
    """
    plan = architecture(settings)
    fields = [_receptive_field(plan, axis) * spacing for axis, spacing in enumerate(spacing_zyx)]
    return fields[0], fields[1], fields[2]


def _receptive_field(plan: Architecture, axis: int) -> int:
    """Return the receptive field along one axis in voxels, followed from the output back to the input."""
    jumps = [plan.stem_stride[axis]]  # voxels between neighbors: behind the stem, behind each stage
    for stage in plan.stages:
        jumps.append(jumps[-1] * stage.stride[axis])
    levels = [jumps[-1], *(jumps[index + 1] for index in plan.low_level)]
    span = 0 if plan.subpixel else _coarse_span(0, levels[-1])  # neighbors between the first and the last position seen
    for deep, low in reversed(list(itertools.pairwise(levels))):
        span = _coarse_span(span + 2, deep // low)
    span += 2 * max(rate[axis] for rate in plan.rates)
    for stage in reversed(plan.stages):
        for index in reversed(range(stage.repeats)):
            span = span * (stage.stride[axis] if index == 0 else 1) + 2 * stage.dilation[axis]
    return span * plan.stem_stride[axis] + 3


def _coarse_span(span: int, ratio: int) -> int:
    """Return the widest span that linear interpolation to a span on a ``ratio`` times finer grid reads."""
    if ratio == 1:
        return span

    def coarse(fine: int) -> float:
        return (fine + 0.5) / ratio - 0.5

    return max(math.ceil(coarse(first + span)) - math.floor(coarse(first)) for first in range(ratio))


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a network needs, in bytes."""

    weights: int
    training: int
    """weights, gradients, two optimizer moments and what the backward pass keeps"""
    inference: int
    """weights and the largest set of tensors alive at once, estimated from the layers' inputs and outputs"""


def memory(settings: Settings | None = None, size: Triple = (64, 192, 192), batch: int = 1) -> Memory:
    """Return the memory for a crop of ``size`` (z, y, x) voxels in 32-bit floats; nothing is computed or allocated."""
    import torch

    with torch.device("meta"):
        network = build(settings)
        features = torch.empty(batch, INPUTS, *size)
        weights = sum(item.numel() * item.element_size() for item in network.state_dict().values())
        kept: dict[int, torch.Tensor] = {}
        peak = 0

        def keep(tensor: "torch.Tensor") -> "torch.Tensor":
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        def watch(_module: object, inputs: tuple, output: "torch.Tensor") -> None:
            nonlocal peak
            peak = max(peak, sum(item.nbytes for item in inputs) + output.nbytes)

        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(watch)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = network(features)
        parameters = {item.untyped_storage()._cdata for item in network.parameters()}
        saved = sum(item.untyped_storage().nbytes() for key, item in kept.items() if key not in parameters)
    return Memory(weights, 4 * weights + saved + 2 * logits.nbytes, weights + features.nbytes + peak + logits.nbytes)
