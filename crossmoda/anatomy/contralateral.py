"""The other side of a head, brought onto each place of this one, as a radiologist compares the two inner ears.

A scan is registered to its own mirror image: what is found at each place is then what the same scan shows at the
opposite place. Left and right of a head are much more alike than two people; a tumor on one side stands out.
"""

import dataclasses
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda import volume
from crossmoda.anatomy import laterality
from crossmoda.progress import Progress
from crossmoda.volume import Grid, Volume

#: The percentile of the intensities that stands for the brightest tissue.
_BRIGHTEST = 97
#: Both sides are made equally bright over a distance that a small tumor does not fill, mm: coils are nearer to one of
#: them (docs/validation/propagation.md).
_EVEN_OVER_MM = 8.0
#: How much brighter one side is made at most.
_MOST = 3.0
#: The file that keeps it, and the value in it of places whose opposite is not in the scan; the others count from 0 up.
OPPOSITE, _OUTSIDE, _LEVELS = "opposite.nii.gz", 255, 254


@dataclasses.dataclass(frozen=True)
class ContralateralComparison:
    """How bright a scan is at each place, and at the opposite place of the head."""

    here: np.ndarray
    """(z, y, x), see :func:`brightness`"""
    opposite: np.ndarray
    """(z, y, x), see :func:`opposite_brightness`; NaN where the opposite place is not in the scan"""
    modality: str
    """the scan's: on ``"hrT2"`` a schwannoma is darker than the fluid in whose place it is, on ``"ceT1"`` brighter"""

    @property
    def excess(self) -> np.ndarray:
        """(z, y, x): how much more a place looks like a tumor than the opposite one, -1 to 1; NaN where unknown."""
        darker = self.opposite - self.here
        return darker if self.modality == "hrT2" else -darker

    @property
    def room(self) -> np.ndarray:
        """(z, y, x): the largest excess that there could be, given what lies opposite, 0 to 1; NaN where unknown."""
        return self.opposite if self.modality == "hrT2" else 1 - self.opposite


def brightness(target: Volume) -> np.ndarray:
    """Return how bright a scan is, (z, y, x), from 0 (its mean or less) to 1 (its brightest tissue)."""
    return _bright(target.array, target.array)


def _bright(array: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Return the brightness of intensities on the scale of a scan."""
    mean = float(scan.mean())
    brightest = float(np.percentile(scan, _BRIGHTEST))
    return np.clip((array - mean) / max(brightest - mean, 1e-6), 0, 1, dtype=np.float32)


def opposite_brightness(
    target: Volume, register: Any, settings: Any = None, progress: Progress | None = None
) -> np.ndarray:
    """Return how bright the scan is at the opposite place of the head.

    Args:
        target: the scan, or the part of it with both ears.
        register: the registration program, ``register(fixed, moving, settings, initial=, progress=)``.
        settings: its settings.
        progress: is told what is done; may cancel.

    Returns:
        (z, y, x) on the scale of :func:`brightness`, as if both sides had the same sensitivity, in the steps in which
        it is kept; NaN where the opposite place lies outside.

    Raises:
        InputError: the scan cannot be registered to its mirror image.

    """
    from crossmoda.propagation.similarity import field_of_view

    mirror = laterality.mirrored(target)
    registration = register(target, mirror, settings, initial=None, progress=progress)
    there = registration.warp_image(mirror, target.grid).array
    inside = field_of_view(mirror, target.grid, registration.transform)
    found = _bright(there * _gain(target, there, inside), target.array)
    return np.where(inside, np.round(found * _LEVELS) / np.float32(_LEVELS), np.float32(np.nan))


def _gain(target: Volume, there: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return by how much a scan is brighter than its other side in the neighborhood of each place, (z, y, x)."""
    here, other = (
        sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(target.with_array(values).to_sitk(), _EVEN_OVER_MM))
        for values in (np.where(inside, values, np.float32(0)) for values in (target.array, there))
    )
    least = 1e-3 * float(np.abs(other).max()) + 1e-6
    return np.clip(here / np.maximum(other, least), 1 / _MOST, _MOST)


def in_steps(opposite: np.ndarray, target: Volume) -> Volume:
    """Return the opposite brightness of a target (:func:`opposite_brightness`) as it is kept: in steps of 1/254."""
    values = np.where(np.isnan(opposite), _OUTSIDE, np.round(np.nan_to_num(opposite) * _LEVELS))
    return target.with_array(values.astype(np.uint8))


def from_steps(kept: Volume, grid: Grid | None = None) -> np.ndarray:
    """Return the opposite brightness that was kept (:func:`in_steps`), on its own grid or on another."""
    values = kept if grid is None else volume.resample(kept, grid, interpolation="nearest", outside=_OUTSIDE)
    brightness = values.array.astype(np.float32) / np.float32(_LEVELS)
    return np.where(values.array == _OUTSIDE, np.float32(np.nan), brightness)
