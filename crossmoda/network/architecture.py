"""The layout of the networks: 3D DeepLab for scans, a U-Net for one ear in its canonical frame.

References:
    Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018.
    Chen et al., Rethinking atrous convolution for semantic image segmentation, arXiv:1706.05587 (DeepLabv3).
    Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018 (DeepLabv3+).

"""

import dataclasses
import functools
from typing import TYPE_CHECKING

import crossmoda.labels
from crossmoda.network.settings import Settings

if TYPE_CHECKING:
    import torch

#: Channels of each kind of input: MIND-SSC, the normalized intensity, both, or both and the contrast.
INPUTS = {"mind": 12, "intensity": 1, "both": 13, "all": 14}

Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)
IN_PLANE: Triple = (1, 2, 2)
ALL: Triple = (2, 2, 2)


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
    """channels of the depthwise filter in the following blocks; None: as in the first"""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Layout of a network. Strides, dilations and rates are (z, y, x)."""

    stem: int
    """output channels of the first convolution (not depthwise)"""
    stem_stride: Triple
    stages: tuple[Stage, ...]
    pyramid: int
    """channels of each branch of the atrous pyramid and of their combination"""
    rates: tuple[Triple, ...]
    """dilations of the pyramid's 3 x 3 x 3 convolutions"""
    pooling: bool
    """whether the pyramid has a global average pooling branch"""
    low_level: tuple[int, ...]
    """indices of the stages whose output the decoder concatenates, deepest first"""
    decoder: tuple[int, ...]
    """output channels of each step of the decoder"""
    factorized: bool
    """whether depthwise 3 x 3 x 3 filters are factorized and the filters of pyramid and decoder are depthwise"""
    subpixel: bool
    """whether the classifier undoes the stem's stride by sub-pixel convolution (else: linear interpolation)"""
    prior: tuple[float, ...] | None = None
    """class frequencies that initialize the classifier's bias; None: no prior"""
    inputs: int = INPUTS["mind"]
    classes: int = len(crossmoda.labels.VALUES)


@dataclasses.dataclass(frozen=True)
class UNetArchitecture:
    """Layout of a U-Net."""

    channels: tuple[int, ...]
    """of each level, the first at half the resolution"""
    prior: tuple[float, ...]
    """class frequencies that initialize the classifier's bias"""
    inputs: int = INPUTS["both"]
    classes: int = len(crossmoda.labels.VALUES)


#: For one ear at 0.7 mm: levels of 1.4, 2.8, 5.6 and 11.2 mm.
EAR = UNetArchitecture(channels=(32, 64, 96, 128), prior=(0.985, 0.014, 0.001))

#: The challenge paper names only the families (DeepLabv3, MobileNetV2, ASPP). Channels, strides and rates follow a
#: public 3D MobileNet with ASPP of the same years, the closest match; the input is MIND-SSC.
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

#: For 0.5 x 0.5 x 1.5 mm voxels: the strides lead to 1 x 1 x 1.5, 2 x 2 x 1.5 and 4 x 4 x 3 mm. High resolutions have
#: few channels: otherwise the first two resolutions would take two thirds of the time.
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
    """Return the scaled number of channels, rounded to a multiple of 8 and down by at most 10 % (MobileNetV2)."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


def architecture(settings: Settings | None = None) -> Architecture | UNetArchitecture:
    """Return the architecture of a preset and a field of view, with its channels scaled by the width."""
    settings = settings or Settings()
    scale = functools.partial(_scaled, width=settings.width)
    inputs = INPUTS[settings.inputs]
    if settings.preset == "default" and settings.field == "ear":
        return dataclasses.replace(EAR, channels=tuple(map(scale, EAR.channels)), inputs=inputs)
    plan = dataclasses.replace(PAPER if settings.preset == "paper" else DEFAULT, inputs=inputs)
    if settings.width == 1.0:
        return plan
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
    """Return the untrained network.

    Input: features (batch, channel, z, y, x) of any size; output: logits (batch, 3, z, y, x), background first.
    """
    plan = architecture(settings)
    if isinstance(plan, UNetArchitecture):
        from crossmoda.network.unet import UNet

        return UNet(plan)
    from crossmoda.network.layers import DeepLab

    return DeepLab(plan)
