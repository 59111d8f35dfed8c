"""Where the template's skull base lies in a scan, whatever its position, field of view and pitch.

The masked normalized cross-correlation of scan and template (D. Padfield, IEEE TIP 2012) is computed for all
translations at once, at a coarse spacing and for several pitches of the head. Only the orientation in the header is
used, not the position.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy import fft

from crossmoda import volume
from crossmoda.anatomy.sampling import bounds, covering, moved, smoothed
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform

#: mm between the samples that are compared.
_SPACING_MM = 6.0
#: Size of a head relative to the ICBM152 average, which is large.
_SCALE = 0.92
#: Fraction of the largest possible overlap that is required.
_LEAST_OVERLAP = 0.55
#: Intensities relative to the range between the 2nd and the 98th percentile end here.
_BRIGHTEST = 1.2


@dataclasses.dataclass(frozen=True)
class Start:
    """A candidate position of the template."""

    matrix: np.ndarray
    """4 x 4, from template to scan (LPS mm)"""
    similarity: float
    """normalized cross-correlation, -1 to 1"""
    pitch_deg: float
    """rotation about the axis from right to left"""
    center_mm: np.ndarray
    """where the center of the pattern lies in the scan, LPS mm"""


def candidates(scan: Volume, slab: Volume, pitches_deg: Iterable[float]) -> list[Start]:
    """Return the best position of the template's slab in a scan for each pitch, the most similar one first.

    Args:
        scan: a scan whose header says where left, posterior and superior are; sampled at about 2 mm.
        slab: image of the template around the skull base.
        pitches_deg: rotations that are tried.

    """
    scan = scan.with_array(_standardized(smoothed(scan, _SPACING_MM).array))
    grid = covering(*bounds(slab.grid), _SPACING_MM / _SCALE)
    pattern = np.clip(volume.resample(smoothed(slab, grid.spacing[0]), grid).array / 255, 0, _BRIGHTEST)
    starts = [_best_shift(scan, pattern, grid, pitch) for pitch in pitches_deg]
    return sorted(starts, key=lambda start: -start.similarity)


def _standardized(array: np.ndarray) -> np.ndarray:
    low, high = np.percentile(array, [2, 98])
    return np.clip((array - low) / max(high - low, 1e-6), 0, _BRIGHTEST).astype(np.float32)


def _pitch(scan: Grid, pitch_deg: float) -> np.ndarray:
    """Return the 4 x 4 rotation about the right-to-left axis through the center of the scan."""
    cosine, sine = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    center = np.mean(bounds(scan), axis=0)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, 3] = center - matrix[:3, :3] @ center
    return matrix


def _best_shift(scan: Volume, pattern: np.ndarray, grid: Grid, pitch_deg: float) -> Start:
    """Return the best translation of the pattern, which lies on ``grid`` (template mm), for one pitch."""
    turn = _pitch(scan.grid, pitch_deg)
    low, high = bounds(scan.grid)
    corners = np.array(
        [[x, y, z, 1.0] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
    turned = (corners @ np.linalg.inv(turn).T)[:, :3]
    field = covering(turned.min(axis=0), turned.max(axis=0), _SPACING_MM)
    image = volume.resample(scan, field, affine_transform(turn), outside=-1.0).array
    inside = image >= 0
    image = np.where(inside, image, 0)
    similarity = _masked_correlation(image, inside.astype(np.float32), pattern)
    best = np.unravel_index(int(similarity.argmax()), similarity.shape)
    shift = (np.array(best) - (np.array(pattern.shape) - 1))[::-1]
    place = np.diag([_SCALE] * 3 + [1.0])
    place[:3, 3] = np.asarray(field.origin) + shift * _SPACING_MM - _SCALE * np.asarray(grid.origin)
    matrix = turn @ place
    return Start(matrix, float(similarity[best]), pitch_deg, moved(matrix, np.mean(bounds(grid), axis=0)))


def _masked_correlation(image: np.ndarray, mask: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Return the normalized cross-correlation at every shift of the pattern; -1 where too little overlaps.

    Index k is the shift k - (size of the pattern - 1) along each axis.
    """
    full = [a + b - 1 for a, b in zip(image.shape, pattern.shape, strict=True)]
    shape = [fft.next_fast_len(size, real=True) for size in full]

    def spectrum(array: np.ndarray) -> np.ndarray:
        return fft.rfftn(array.astype(np.float32), shape)

    def back(product: np.ndarray) -> np.ndarray:
        return fft.irfftn(product, shape)[tuple(slice(size) for size in full)]

    flipped = pattern[::-1, ::-1, ::-1]
    image_1, image_2, image_mask = (spectrum(array) for array in (image * mask, image**2 * mask, mask))
    pattern_1, pattern_2, pattern_mask = (spectrum(array) for array in (flipped, flipped**2, np.ones_like(flipped)))
    count = np.maximum(back(image_mask * pattern_mask), 1.0)
    image_sum, pattern_sum = back(image_1 * pattern_mask), back(image_mask * pattern_1)
    covariance = back(image_1 * pattern_1) - image_sum * pattern_sum / count
    image_variance = np.maximum(back(image_2 * pattern_mask) - image_sum**2 / count, 0)
    pattern_variance = np.maximum(back(image_mask * pattern_2) - pattern_sum**2 / count, 0)
    scale = np.sqrt(image_variance * pattern_variance)
    possible = min(float(mask.sum()), float(np.prod(np.minimum(mask.shape, pattern.shape))))
    usable = (count > _LEAST_OVERLAP * possible) & (scale > 1e-3 * scale.max())
    return np.where(usable, covariance / np.maximum(scale, 1e-9), -1.0)
