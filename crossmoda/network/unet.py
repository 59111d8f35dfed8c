"""The torch modules of the U-Net that sees one ear. Imports torch: import this module inside functions only.

References:
    Çiçek et al., 3D U-Net: learning dense volumetric segmentation from sparse annotation, MICCAI 2016.
    Shi et al., Real-time single image and video super-resolution using sub-pixel convolution, CVPR 2016.

"""

import torch
from torch import nn
from torch.nn import functional

from crossmoda.network.architecture import ALL, ONE, Triple, UNetArchitecture
from crossmoda.network.layers import convolution, unfold_pixels


def block(inputs: int, outputs: int, kernel: int = 3, stride: Triple = ONE) -> nn.Sequential:
    """Return a convolution with instance normalization: contrasts of a batch do not mix, as they would by batch."""
    return nn.Sequential(
        convolution(inputs, outputs, kernel, stride), nn.InstanceNorm3d(outputs, affine=True), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """A U-Net whose stem halves the resolution and whose classifier restores it by sub-pixel convolution.

    Full resolution would take three quarters of the time.
    """

    def __init__(self, plan: UNetArchitecture) -> None:
        """Create the layers of an architecture."""
        super().__init__()
        first, *rest = plan.channels
        self.stem = block(plan.inputs, first, stride=ALL)
        levels = [block(first, first)]
        for shallow, deep in zip(plan.channels, rest, strict=False):
            levels.append(nn.Sequential(block(shallow, deep, stride=ALL), block(deep, deep)))
        self.encoder = nn.ModuleList(levels)
        pairs = list(zip(plan.channels, rest, strict=False))[::-1]
        self.reductions = nn.ModuleList(block(deep, shallow, 1) for shallow, deep in pairs)
        self.decoder = nn.ModuleList(block(2 * shallow, shallow) for shallow, _ in pairs)
        self.classifier = nn.Conv3d(first, plan.classes * 8, 3, padding=1)
        with torch.no_grad():
            prior = torch.log(torch.tensor(plan.prior)).repeat_interleave(8)
            self.classifier.bias.copy_(prior)  # type: ignore[union-attr]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, class, z, y, x) of features (batch, channel, z, y, x)."""
        size = features.shape[2:]
        skipped, deep = [], self.stem(features)
        for level in self.encoder:
            deep = level(deep)
            skipped.append(deep)
        skipped.pop()
        for reduction, step in zip(self.reductions, self.decoder, strict=True):
            low = skipped.pop()
            deep = functional.interpolate(reduction(deep), size=low.shape[2:], mode="nearest")
            deep = step(torch.cat([deep, low], dim=1))
        logits = unfold_pixels(self.classifier(deep), ALL)
        return logits[:, :, : size[0], : size[1], : size[2]]
