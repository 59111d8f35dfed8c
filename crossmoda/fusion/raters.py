"""Label maps of raters: checks before they are fused."""

from collections.abc import Sequence

import numpy as np

from crossmoda import labels
from crossmoda.errors import InputError


def checked_label_maps(label_maps: Sequence[np.ndarray], values: Sequence[int]) -> list[np.ndarray]:
    """Return label maps as uint8 arrays of one shape.

    Raises:
        InputError: no label maps, different shapes, or a label value that is not in ``values``.

    """
    maps = [np.asarray(label_map) for label_map in label_maps]
    if not maps:
        raise InputError("There are no label maps to fuse. Add at least one.")
    if not 2 <= len(values) <= 8:
        raise InputError(f"Number of label values: {len(values)}. Use 2 to 8.")
    for number, label_map in enumerate(maps, 1):
        if label_map.shape != maps[0].shape:
            raise InputError(
                f"Label map {number} has the shape {label_map.shape}, the first {maps[0].shape}. Use one grid for all."
            )
        if label_map.min() >= 0 and label_map.max() < len(values) and list(values) == list(range(len(values))):
            continue
        unknown = sorted(_values_in(label_map) - set(values))
        if unknown:
            raise InputError(f"Label map {number} has the label value {unknown[0]}. Use {', '.join(map(str, values))}.")
    return [np.ascontiguousarray(label_map, dtype=np.uint8) for label_map in maps]


def checked_weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """Return the weight of each of ``count`` raters as float32; None: 1.

    Raises:
        InputError: a weight is outside 0 to 1, or all are 0.

    """
    checked = np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32)
    if checked.shape != (count,) or not np.all((checked >= 0) & (checked <= 1)) or not checked.any():
        raise InputError(f"Invalid weights: {weights}. Use {count} numbers between 0 and 1, not all 0.")
    return checked


def absent_structures(label_maps: Sequence[np.ndarray], values: Sequence[int] = labels.VALUES) -> list[int]:
    """Return per rater the bits of the structures it lacks everywhere although others have them.

    Bits as ``missing`` of :func:`crossmoda.fusion.staple`.
    """
    present = [_values_in(label_map) for label_map in label_maps]
    anywhere = set().union(*present)
    return [
        sum(1 << index for index, value in enumerate(values) if index and value in anywhere and value not in own)
        for own in present
    ]


def _values_in(label_map: np.ndarray) -> set[int]:
    """Return the label values of a map, 0 always among them."""
    return {0, *np.unique(label_map[label_map != 0]).tolist()}
