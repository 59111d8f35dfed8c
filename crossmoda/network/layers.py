"""The torch modules of the network. Imports torch: import this module inside functions only."""

import torch
from torch import nn
from torch.nn import functional

from crossmoda.network.architecture import Architecture, Triple


def convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: Triple = (1, 1, 1), dilation: Triple = (1, 1, 1)
) -> nn.Conv3d:
    """Return a padded 3D convolution without bias; strides and dilations are (z, y, x)."""
    half = kernel // 2
    padding = (half * dilation[0], half * dilation[1], half * dilation[2])
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def normalized(layer: nn.Module, channels: int, activation: type[nn.Module] | None = nn.ReLU6) -> list[nn.Module]:
    """Return the layer, its batch normalization and its activation (None: linear bottleneck)."""
    layers = [layer, nn.BatchNorm3d(channels)]
    return layers if activation is None else [*layers, activation(inplace=True)]


class FactorizedDepthwise(nn.Module):
    """A depthwise 3 x 3 x 3 convolution factorized into 1 x 3 x 3 and 3 x 1 x 1, both by 2D kernels.

    Depthwise 3D convolutions have no fast CPU kernel. In the channels-last memory layout a volume can be viewed as a
    batch of (y, x) planes and as a batch of (z, y x) planes without a copy.
    """

    def __init__(self, channels: int, stride: Triple, dilation: Triple):
        """Create both filters; strides and dilations are (z, y, x)."""
        super().__init__()
        (sz, sy, sx), (dz, dy, dx) = stride, dilation
        self.plane = nn.Conv2d(channels, channels, 3, (sy, sx), (dy, dx), (dy, dx), groups=channels, bias=False)
        self.axis = nn.Conv2d(channels, channels, (3, 1), (sz, 1), (dz, 0), (dz, 1), groups=channels, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Filter (batch, channel, z, y, x)."""
        batch, _, slices, _, _ = features.shape
        features = features.contiguous(memory_format=torch.channels_last_3d)
        planes = self.plane(features.transpose(1, 2).flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        height, width = planes.shape[2:]
        columns = planes.unflatten(0, (batch, slices)).transpose(1, 2).flatten(3)
        return self.axis(columns).unflatten(3, (height, width)).contiguous(memory_format=torch.channels_last_3d)


def depthwise(channels: int, stride: Triple, dilation: Triple, factorized: bool) -> nn.Module:
    """Return a depthwise 3 x 3 x 3 convolution, factorized or not."""
    if factorized:
        return FactorizedDepthwise(channels, stride, dilation)
    return nn.Conv3d(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False)


def spatial(inputs: int, outputs: int, dilation: Triple, factorized: bool) -> list[nn.Module]:
    """Return a normalized 3 x 3 x 3 convolution; if ``factorized``, a depthwise and a 1 x 1 x 1 convolution."""
    if not factorized:
        return normalized(convolution(inputs, outputs, 3, dilation=dilation), outputs, nn.ReLU)
    filtered = normalized(depthwise(inputs, (1, 1, 1), dilation, True), inputs, nn.ReLU)
    return filtered + normalized(convolution(inputs, outputs), outputs, nn.ReLU)


class InvertedResidual(nn.Module):
    """Expansion, depthwise filter and linear projection, residual if shapes match (Sandler et al., CVPR 2018)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: Triple, dilation: Triple, factorized: bool):
        """Create the block; ``hidden`` is the number of channels between the 1 x 1 x 1 convolutions."""
        super().__init__()
        expand = [] if hidden == inputs else normalized(convolution(inputs, hidden), hidden)
        filtered = normalized(depthwise(hidden, stride, dilation, factorized), hidden)
        self.layers = nn.Sequential(*expand, *filtered, *normalized(convolution(hidden, outputs), outputs, None))
        self.residual = inputs == outputs and stride == (1, 1, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Transform (batch, channel, z, y, x)."""
        return features + self.layers(features) if self.residual else self.layers(features)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: parallel convolutions of increasing dilation (Chen et al., 2017)."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[Triple, ...], pooling: bool, factorized: bool):
        """Create the pyramid; ``pooling`` adds a global average pooling branch."""
        super().__init__()
        branches: list[nn.Module] = [nn.Sequential(*normalized(convolution(inputs, outputs), outputs, nn.ReLU))]
        branches += [nn.Sequential(*spatial(inputs, outputs, rate, factorized)) for rate in rates]
        self.branches = nn.ModuleList(branches)
        # No batch normalization after pooling: a batch of one has no variance.
        self.pooled = (
            nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(inputs, outputs, 1), nn.ReLU(inplace=True))
            if pooling
            else None
        )
        joined = outputs * (len(branches) + pooling)
        self.join = nn.Sequential(*normalized(convolution(joined, outputs), outputs, nn.ReLU))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Transform (batch, channel, z, y, x)."""
        parts = [branch(features) for branch in self.branches]
        if self.pooled is not None:
            parts.append(self.pooled(features).expand(-1, -1, *features.shape[2:]))
        return self.join(torch.cat(parts, dim=1))


class DecoderStep(nn.Module):
    """A step of the decoder: deep features are upsampled, concatenated with low-level features and filtered."""

    def __init__(self, deep: int, low: int, outputs: int, factorized: bool):
        """Create the step from ``deep`` and ``low`` channels to ``outputs``."""
        super().__init__()
        mixed = normalized(convolution(deep + low, outputs), outputs, nn.ReLU)
        self.layers = nn.Sequential(*mixed, *spatial(outputs, outputs, (1, 1, 1), factorized))

    def forward(self, deep: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """Combine (batch, deep, ...) with the larger (batch, low, z, y, x)."""
        return self.layers(torch.cat([enlarge(deep, low.shape[2:]), low], dim=1))


def enlarge(features: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Interpolate linearly to the size (z, y, x)."""
    if features.shape[2:] == size:
        return features
    if features.is_cuda and all(new in (old, 2 * old) for new, old in zip(size, features.shape[2:], strict=True)):
        for axis, new in enumerate(size, start=2):
            features = features if features.shape[axis] == new else doubled(features, axis)
        return features
    return functional.interpolate(features, size=tuple(size), mode="trilinear", align_corners=False)


def doubled(features: torch.Tensor, axis: int) -> torch.Tensor:
    """Interpolate linearly to twice the size along an axis.

    Equal to :func:`torch.nn.functional.interpolate`, whose gradients on CUDA are not reproducible.
    """
    size = features.shape[axis]
    before = torch.cat([features.narrow(axis, 0, 1), features.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([features.narrow(axis, 1, size - 1), features.narrow(axis, size - 1, 1)], axis)
    halves = torch.lerp(features, before, 0.25), torch.lerp(features, after, 0.25)
    return torch.stack(halves, axis + 1).flatten(axis, axis + 1)


def unfold_pixels(logits: torch.Tensor, factor: Triple) -> torch.Tensor:
    """Rearrange (batch, class x factor, z, y, x) to (batch, class, z fz, y fy, x fx).

    Sub-pixel convolution (Shi et al., CVPR 2016): the classifier predicts all voxels of a strided position.
    """
    fz, fy, fx = factor
    batch, channels, z, y, x = logits.shape
    parts = logits.reshape(batch, channels // (fz * fy * fx), fz, fy, fx, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return parts.reshape(batch, -1, z * fz, y * fy, x * fx)


class DeepLab(nn.Module):
    """Backbone, atrous pyramid, decoder and classifier of an architecture."""

    def __init__(self, plan: Architecture) -> None:
        """Create the layers of an architecture."""
        super().__init__()
        self.stride = plan.stem_stride
        self.subpixel = plan.subpixel
        self.low_level = plan.low_level
        self.stem = nn.Sequential(*normalized(convolution(plan.inputs, plan.stem, 3, plan.stem_stride), plan.stem))
        stages, channels = [], plan.stem
        for stage in plan.stages:
            blocks = []
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else (1, 1, 1)
                hidden = stage.hidden if index == 0 or stage.hidden_later is None else stage.hidden_later
                blocks.append(
                    InvertedResidual(channels, hidden, stage.channels, stride, stage.dilation, plan.factorized)
                )
                channels = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.pyramid = AtrousPyramid(channels, plan.pyramid, plan.rates, plan.pooling, plan.factorized)
        deep, steps = plan.pyramid, []
        for index, outputs in zip(plan.low_level, plan.decoder, strict=True):
            steps.append(DecoderStep(deep, plan.stages[index].channels, outputs, plan.factorized))
            deep = outputs
        self.decoder = nn.ModuleList(steps)
        factor = plan.stem_stride[0] * plan.stem_stride[1] * plan.stem_stride[2] if plan.subpixel else 1
        self.classifier = nn.Conv3d(deep, plan.classes * factor, 1)
        if plan.prior is not None:  # the untrained network predicts structures at their frequency
            with torch.no_grad():
                prior = torch.tensor(plan.prior).log()
                self.classifier.bias.copy_((prior - prior.mean()).repeat_interleave(factor))  # type: ignore[union-attr]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, class, z, y, x) of MIND features (batch, 12, z, y, x) of any size."""
        size = features.shape[2:]
        deep = self.stem(features.contiguous(memory_format=torch.channels_last_3d))
        outputs = []
        for stage in self.stages:
            deep = stage(deep)
            outputs.append(deep)
        deep = self.pyramid(deep)
        for index, step in zip(self.low_level, self.decoder, strict=True):
            deep = step(deep, outputs[index])
        logits = self.classifier(deep)
        if self.subpixel:
            return unfold_pixels(logits, self.stride)[:, :, : size[0], : size[1], : size[2]]
        return enlarge(logits, size)
