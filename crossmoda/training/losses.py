"""What training minimizes. Imports torch: import it where a network is trained."""

import torch
from torch.nn import functional

#: Keeps Dice defined where a structure is absent from both sides.
_SMOOTH = 1.0


def class_weights(counts: torch.Tensor, power: float = 0.5) -> torch.Tensor:
    """Return the inverse square roots (or another power) of the labels' voxel counts, normalized to a mean of 1.

    A label that never occurs gets the weight of one that occurs in a single voxel.
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
        confidence: (batch, z, y, x), 0 to 1: how much each voxel's label counts.
        weights: how much each class counts; None: all alike.

    """
    each = functional.cross_entropy(logits, label, reduction="none")
    influence = torch.ones_like(confidence) if weights is None else weights[label]
    # Unsure voxels are left out of the sum only: a crop of which little is sure teaches little.
    return (each * confidence * influence).sum() / influence.sum()


def dice_loss(logits: torch.Tensor, label: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """Return 1 - soft Dice, averaged over the structures (not the background).

    Sums run over the whole batch: a structure that one crop lacks is judged by the others (Milletari et al., 3DV 2016).
    """
    probabilities = logits.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(label, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    influence = confidence.unsqueeze(1)
    axes = (0, 2, 3, 4)
    overlap = (probabilities * truth * influence).sum(axes)
    total = ((probabilities + truth) * influence).sum(axes)
    return 1 - ((2 * overlap + _SMOOTH) / (total + _SMOOTH)).mean()
