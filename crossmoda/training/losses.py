"""Loss functions. Imports torch: import this module inside functions only."""

import torch
from torch.nn import functional

#: Keeps Dice defined if a structure is absent from prediction and truth.
_SMOOTH = 1.0


def class_weights(counts: torch.Tensor, power: float = 0.5) -> torch.Tensor:
    """Return the inverse square roots (or another power) of voxel counts per label, normalized to a mean of 1.

    A label without voxels is weighted like a label of a single voxel.
    """
    weights = counts.clamp_min(1).to(torch.float32).pow(-power)
    return weights / weights.mean()


def cross_entropy(
    logits: torch.Tensor, label: torch.Tensor, confidence: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the cross entropy averaged over voxels.

    Args:
        logits: (batch, class, z, y, x).
        label: (batch, z, y, x), int64.
        confidence: (batch, z, y, x), weight of each voxel, 0 to 1.
        weights: weight of each class; None: equal.

    """
    losses = functional.cross_entropy(logits, label, reduction="none")
    influence = torch.ones_like(confidence) if weights is None else weights[label]
    # The confidence is not part of the denominator: a crop of low confidence contributes little.
    return (losses * confidence * influence).sum() / influence.sum()


def dice_loss(logits: torch.Tensor, label: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """Return 1 - soft Dice, averaged over the structures (not the background).

    Sums run over the batch, so a structure may be absent from a crop (Milletari et al., 3DV 2016).
    """
    probabilities = logits.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(label, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    influence = confidence.unsqueeze(1)
    axes = (0, 2, 3, 4)
    overlap = (probabilities * truth * influence).sum(axes)
    total = ((probabilities + truth) * influence).sum(axes)
    return 1 - ((2 * overlap + _SMOOTH) / (total + _SMOOTH)).mean()
