"""Majority vote of label maps."""

from collections.abc import Sequence

import numpy as np

from crossmoda import labels
from crossmoda.fusion.raters import checked_label_maps


def majority_vote(label_maps: Sequence[np.ndarray], values: Sequence[int] = labels.VALUES) -> np.ndarray:
    """Return the most frequent label at each voxel, (z, y, x) uint8; ties go to the earlier of ``values``.

    Raises:
        InputError: no label maps, different shapes, or a label value that is not in ``values``.

    """
    return np.asarray(values, np.uint8)[_votes(label_maps, values).argmax(axis=0)]


def vote_fractions(label_maps: Sequence[np.ndarray], values: Sequence[int] = labels.VALUES) -> np.ndarray:
    """Return the fraction of the label maps with each label at each voxel, (label, z, y, x) float32.

    Raises:
        InputError: see :func:`majority_vote`.

    """
    return _votes(label_maps, values) / np.float32(len(label_maps))


def _votes(label_maps: Sequence[np.ndarray], values: Sequence[int]) -> np.ndarray:
    """Return the number of label maps with each label at each voxel, (label, z, y, x)."""
    maps = checked_label_maps(label_maps, values)
    votes = np.zeros((len(values), *maps[0].shape), np.uint16)
    for label_map in maps:
        for index, value in enumerate(values):
            votes[index] += label_map == value
    return votes
