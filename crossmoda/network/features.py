"""The network's input: MIND-SSC, normalized intensity, or both. Imports torch: import this module inside functions."""

from typing import TYPE_CHECKING

import numpy as np

from crossmoda import mind

if TYPE_CHECKING:
    import torch

#: Normalized intensities end here.
_LOWEST, _HIGHEST = -2.0, 4.0


def normalized(array: np.ndarray) -> np.ndarray:
    """Return intensities relative to their median and 5th to 95th percentile, float32.

    Voxels of the least value do not count: outside the scan there are no others.
    """
    array = np.asarray(array, np.float32)
    least = array.min()
    low, middle, high = np.percentile(array[array > least], [5, 50, 95]) if (array > least).any() else (0, 0, 1)
    return np.clip((array - middle) / max(high - low, 1e-6), _LOWEST, _HIGHEST).astype(np.float32)


def features(image: "torch.Tensor", inputs: str) -> "torch.Tensor":
    """Return the features (..., channel, z, y, x) of a normalized image (..., z, y, x).

    Args:
        image: float32.
        inputs: ``"mind"``, ``"intensity"`` or ``"both"``, intensity first.

    """
    import torch

    intensity = image.unsqueeze(-4)
    if inputs == "intensity":
        return intensity
    descriptor = mind.mind_ssc(image)
    return descriptor if inputs == "mind" else torch.cat([intensity, descriptor], dim=-4)
