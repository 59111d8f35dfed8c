"""The time points of an ear together: whether it has a tumor, and corrected labels as truth for the others.

All time points are predicted in one canonical frame, so that their probabilities belong to the same voxels.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from crossmoda.volume.masks import components, solid

#: Probability that a voxel has the same structure in the next scan. It decides on the presence of a tumor only: a
#: prior on each voxel draws the volumes of both scans together, and with them the growth (docs/validation/growth.md).
STAY = 0.7
#: Voxels around the surface of a tumor whose probabilities count in its volume, outside and inside.
_BAND = 2


def smoothed_over_time(probabilities: Sequence[np.ndarray], stay: float = STAY) -> list[np.ndarray]:
    """Return the probabilities (label, z, y, x) of each time point, given those of all.

    Each voxel is a Markov chain whose structure stays with probability ``stay``; the forward-backward algorithm
    (L. Rabiner 1989, Proc IEEE 77:257) is exact.
    """
    change = (1 - stay) / (len(probabilities[0]) - 1)

    def step(message: np.ndarray) -> np.ndarray:
        moved = (stay - change) * message + change * message.sum(axis=0, keepdims=True)
        normalized: np.ndarray = moved / np.maximum(moved.sum(axis=0, keepdims=True), 1e-12)
        return normalized

    flat = np.full_like(probabilities[0], 1 / len(probabilities[0]))
    forward, backward = [flat], [flat]
    for values in probabilities[:-1]:
        forward.append(step(forward[-1] * values))
    for values in probabilities[:0:-1]:
        backward.append(step(backward[-1] * values))
    results = [
        before * values * after for before, values, after in zip(forward, probabilities, backward[::-1], strict=True)
    ]
    return [result / np.maximum(result.sum(axis=0, keepdims=True), 1e-12) for result in results]


def extent(marked: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Return the tumor of a time point by itself: the component of what is marked (bool) within ``called``.

    Args:
        marked: by the time point alone.
        called: the tumor (bool) by all time points; it is returned where nothing of it is a tumor by this one alone.

    """
    numbers, count = components(marked)
    overlaps = np.bincount(numbers[called], minlength=count + 1)[1:]
    return solid(numbers == 1 + int(overlaps.argmax())) if overlaps.any() else called


def corrected(values: np.ndarray, at_label: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return probabilities of a tumor that follow a corrected label of another time point.

    The tumor is the label plus the change that the network sees between both scans.

    Args:
        values: probability of the tumor by the network, 0 to 1.
        at_label: the same at the time point of the label.
        label: the part of each voxel that the label fills, 0 to 1.

    """
    return np.clip(label + values - at_label, 0, 1)


def volume_mm3(probability: np.ndarray, tumor: np.ndarray, voxel_mm3: float) -> float:
    """Return the volume of a tumor (bool) whose surface voxels count by their probability."""
    values = np.where(binary_erosion(tumor, iterations=_BAND), 1, probability)
    return float(values[binary_dilation(tumor, iterations=_BAND)].sum()) * voxel_mm3


def as_outlined(
    volumes: Sequence[dict[str, tuple[float, float]]], outlined_mm3: Sequence[dict[str, float]]
) -> list[dict[str, tuple[float, float]]]:
    """Return volumes that are those of the outlined tumors on average over time, with their ratios kept.

    A volume by probabilities changes less from scan to scan than that of an outline, but is larger (by 7 to 12 % in
    simulated heads, where that of the outline was right).

    Args:
        volumes: volume by probability (mm3) and its spread by side, at each time point.
        outlined_mm3: volume of the outlined tumor by the same sides.

    """
    logs: dict[str, list[float]] = {}
    for by_probability, by_outline in zip(volumes, outlined_mm3, strict=True):
        for side, (volume, _) in by_probability.items():
            logs.setdefault(side, []).append(float(np.log(by_outline[side] / volume)))
    scales = {side: float(np.exp(np.mean(values))) for side, values in logs.items()}
    return [{side: (volume * scales[side], spread) for side, (volume, spread) in each.items()} for each in volumes]


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice coefficient of two masks; 0 where one is empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 0.0
