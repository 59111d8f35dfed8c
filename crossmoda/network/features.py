"""The network's input: MIND-SSC, normalized intensity, T1 or T2. Imports torch: import this module inside functions."""

from typing import TYPE_CHECKING

import numpy as np

from crossmoda import mind

if TYPE_CHECKING:
    import torch

#: Normalized intensities end here.
_LOWEST, _HIGHEST = -2.0, 4.0
#: The input for the contrast of a scan; 0 where it is not known.
CONTRASTS = {"T1": -1.0, "T2": 1.0}


def normalized(array: np.ndarray) -> np.ndarray:
    """Return intensities relative to their median and 5th to 95th percentile, float32.

    Voxels of the least value do not count: outside the scan there are no others.
    """
    array = np.asarray(array, np.float32)
    least = array.min()
    low, middle, high = np.percentile(array[array > least], [5, 50, 95]) if (array > least).any() else (0, 0, 1)
    return np.clip((array - middle) / max(high - low, 1e-6), _LOWEST, _HIGHEST).astype(np.float32)


def features(image: "torch.Tensor", inputs: str, contrast: "torch.Tensor | float" = 0.0) -> "torch.Tensor":
    """Return the features (..., channel, z, y, x) of a normalized image (..., z, y, x).

    Args:
        image: float32.
        inputs: ``"mind"``, ``"intensity"``, ``"both"`` (intensity first), or ``"all"``: both, and the intensity
            times the contrast last (a constant channel would not outlive the first instance normalization).
        contrast: of all images, or of each, (...): a value of :data:`CONTRASTS`, or 0.

    """
    import torch

    intensity = image.unsqueeze(-4)
    if inputs == "intensity":
        return intensity
    descriptor = mind.mind_ssc(image)
    if inputs == "mind":
        return descriptor
    parts = [intensity, descriptor]
    if inputs == "all":
        factor = torch.as_tensor(contrast, dtype=image.dtype, device=image.device)
        parts.append(intensity * factor[..., None, None, None, None])
    return torch.cat(parts, dim=-4)
