"""Slices of DICOM files as one stack: their order, their distance, and the directions of its axes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda.errors import InputError, cannot_read

_EXPORT = "Export it again as a 3D series"


@dataclasses.dataclass(frozen=True)
class Stack:
    """Parallel slices at equal distances."""

    order: np.ndarray
    """number of the slice at each place along the normal"""
    origin: tuple[float, ...]
    distance_mm: float
    direction: tuple[float, ...]


def unusable(series: Path, reason: str, remedy: str = _EXPORT) -> InputError:
    """Return the error of a series that forms no stack."""
    return cannot_read(f"the DICOM series in {series}", reason, remedy)


def numbers(header: Any, name: str, count: int) -> np.ndarray | None:
    """Return the numbers of an element; None unless there are ``count`` and all are finite."""
    try:
        values = np.array(header.get(name), dtype=float)
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def stack_of(orientations: np.ndarray, positions: np.ndarray, names: Sequence[str], series: Path) -> Stack:
    """Return the stack of slices, sorted along the normal of the first.

    Args:
        orientations: of rows and columns, (n, 6), the same for all.
        positions: of the first voxels, LPS mm, (n, 3).
        names: of the slices, for errors.
        series: what the slices belong to, for errors.

    Raises:
        InputError: the slices form no stack, or some are missing.

    """
    rows, columns = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(rows, columns)
    if max(abs(np.linalg.norm(rows) - 1), abs(np.linalg.norm(columns) - 1)) > 1e-2 or np.linalg.norm(normal) < 0.1:
        raise unusable(series, "rows and columns of slices are not two directions of length 1")
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    steps = np.diff(depth[order])
    step = float(np.median(steps))
    if steps.min() < 1e-3:
        first = int(np.argmin(steps))
        pair = " and ".join(names[order[number]] for number in (first, first + 1))
        reason = f"several slices at one position, such as {pair} (copies, or a 4D series?)"
        raise unusable(series, reason, "Leave one volume in the folder")
    if np.abs(steps - step).max() > max(0.05 * step, 0.05):
        gap = int(np.argmax(np.abs(steps - step)))
        reason = f"not evenly spaced, {steps[gap]:.2f} mm after slice {gap + 1}, {step:.2f} mm between most slices"
        raise unusable(series, reason, "Slices may be missing: download it again")
    step = float((depth[order[-1]] - depth[order[0]]) / (len(order) - 1))
    expected = positions[order[0]] + np.outer(np.arange(len(order)) * step, normal)
    if np.abs(positions[order] - expected).max() > 0.1 * step + 0.05:
        raise unusable(series, "slices are shifted against each other", "Resample it on a rectangular grid")
    direction = np.stack([rows, columns, normal], axis=1)
    return Stack(order, tuple(positions[order[0]].tolist()), step, tuple(direction.ravel().tolist()))
