"""Contralateral comparison: each place of a head scan beside its contralateral place, as a radiologist reads it.

A scan is registered to its own mirror image. Left and right of a head are much more alike than two people, so that a
tumor on one side stands out.
"""

import dataclasses
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda.anatomy import laterality
from crossmoda.progress import Progress
from crossmoda.volume.grid import Volume
from crossmoda.volume.resampling import field_of_view

#: The percentiles of the intensities that stand for the darkest and for the brightest tissue.
_DARKEST, _BRIGHTEST = 2, 97
#: Both sides are made equally bright over a distance that a small tumor does not fill, mm: each coil is nearer to one
#: of them (docs/validation/propagation.md).
_SENSITIVITY_MM = 8.0
#: Maximum factor by which one side is brightened.
_MAXIMUM_GAIN = 3.0
#: The file of a contralateral brightness; its value beyond the field of view, and its largest value.
FILE, _OUTSIDE, _LEVELS = "contralateral.nii.gz", 255, 254


@dataclasses.dataclass(frozen=True)
class ContralateralComparison:
    """The brightness of a scan at each place, and at the contralateral place."""

    ipsilateral: np.ndarray
    """(z, y, x), see :func:`brightness`"""
    contralateral: np.ndarray
    """(z, y, x), see :func:`contralateral_brightness`; NaN where the contralateral place is not in the scan"""
    modality: str
    """of the scan: on ``"hrT2"`` a schwannoma is darker than the fluid it replaces, on ``"ceT1"`` brighter"""
    mean: float = 0.0
    """the brightness of the scan's mean: bone and brain, both about as dark or darker, do not differ"""

    @property
    def excess(self) -> np.ndarray:
        """(z, y, x): how much more tumor-like a place is than the contralateral one, -1 to 1; NaN: unknown."""
        ipsilateral, contralateral = self._above_mean()
        return contralateral - ipsilateral if self.modality == "hrT2" else ipsilateral - contralateral

    @property
    def significance(self) -> np.ndarray:
        """(z, y, x): how bright the brighter one of both places is, 0 to 1; NaN: unknown.

        On T2 a tumor replaces fluid; that it is brighter than the brain that it displaced is no evidence against it.
        """
        return np.maximum(*self._above_mean())

    def _above_mean(self) -> tuple[np.ndarray, np.ndarray]:
        mean, largest = np.float32(self.mean), np.float32(max(1 - self.mean, 1e-6))
        return (
            np.maximum(self.ipsilateral - mean, 0) / largest,
            np.maximum(self.contralateral - mean, 0) / largest,
        )


def brightness(target: Volume) -> tuple[np.ndarray, float]:
    """Return the brightness of a scan, (z, y, x), from 0 (its darkest tissue) to 1 (its brightest), and of its mean."""
    scale = _scale(target.array)
    return _brightness(target.array, scale), float(_brightness(target.array.mean(), scale))


def _scale(scan: np.ndarray) -> np.ndarray:
    """Return the intensities of the darkest and of the brightest tissue of a scan, (2,)."""
    return np.percentile(scan, (_DARKEST, _BRIGHTEST))


def _brightness(array: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the brightness of intensities on the scale of a scan."""
    darkest, brightest = scale
    return np.clip((array - darkest) / max(brightest - darkest, 1e-6), 0, 1, dtype=np.float32)


def contralateral_brightness(
    target: Volume,
    register: Any,
    settings: Any = None,
    initial: sitk.Transform | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the brightness of the contralateral place at each place of a scan.

    Args:
        target: the scan, or the part of it with both ears.
        register: the registration program, ``register(fixed, moving, settings, initial=, progress=)``.
        settings: its settings.
        initial: linear transform from the scan to its mirror image, from which the registration starts; None: both on
            one grid.
        progress: callback(fraction, message); raise Cancelled to abort.

    Returns:
        (z, y, x) on the scale of :func:`brightness`, corrected for the coils' sensitivity, rounded as
        :func:`quantized`; NaN where the contralateral place is not in the scan.

    Raises:
        InputError: the scan cannot be registered to its mirror image.

    """
    mirror = laterality.mirrored(target)
    registration = register(target, mirror, settings, initial=initial, progress=progress)
    warped = registration.warp_image(mirror, target.grid).array
    inside = field_of_view(mirror, target.grid, registration.transform)
    bright = _brightness(warped * _gain(target, warped, inside), _scale(target.array))
    return np.where(inside, np.round(bright * _LEVELS) / np.float32(_LEVELS), np.float32(np.nan))


def _gain(target: Volume, warped: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the factor by which a scan is brighter than its contralateral side around each place, (z, y, x)."""
    ipsilateral, contralateral = (
        sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(target.with_array(values).to_sitk(), _SENSITIVITY_MM))
        for values in (np.where(inside, values, np.float32(0)) for values in (target.array, warped))
    )
    least = 1e-3 * float(np.abs(contralateral).max()) + 1e-6
    return np.clip(ipsilateral / np.maximum(contralateral, least), 1 / _MAXIMUM_GAIN, _MAXIMUM_GAIN)


def quantized(brightness: np.ndarray, target: Volume) -> Volume:
    """Return a contralateral brightness as the volume to be stored: uint8 in steps of 1/254."""
    values = np.where(np.isnan(brightness), _OUTSIDE, np.round(np.nan_to_num(brightness) * _LEVELS))
    return target.with_array(values.astype(np.uint8))


def dequantized(stored: Volume) -> np.ndarray:
    """Return the contralateral brightness of a stored volume (:func:`quantized`)."""
    brightness = stored.array.astype(np.float32) / np.float32(_LEVELS)
    return np.where(stored.array == _OUTSIDE, np.float32(np.nan), brightness)
