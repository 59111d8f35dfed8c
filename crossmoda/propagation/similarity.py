"""Image similarity of a target and a registered atlas around the atlas's structures, and the registration's quality."""

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from crossmoda import mind
from crossmoda.propagation.target import Target
from crossmoda.volume import Volume
from crossmoda.volume.masks import components, grown, widened
from crossmoda.volume.resampling import field_of_view

#: The value of a dissimilarity map outside the atlas's field of view; inside it is 0 to 60 (bits).
OUTSIDE = 255
#: Distance around a structure in which images are compared, mm.
NEIGHBORHOOD_MM = 3.0
#: Dissimilarity by chance is measured against copies shifted this far, mm: farther than any structure's edge is thick.
_CHANCE_SHIFT_MM = 8.0


class Similarity(NamedTuple):
    """The similarity of a target and a warped atlas around the atlas's structures."""

    dissimilarity: np.ndarray
    """(z, y, x) uint8: differing bits of MIND-SSC (of 60) around the structures, else 0; :data:`OUTSIDE` beyond the
    atlas's field of view"""
    intensity: np.ndarray
    """(z, y, x) uint16: the warped atlas, from 1 up, on its own scale; 0 where it was not compared"""
    quality: float
    """1 - dissimilarity around the structures / dissimilarity by chance: 0 is chance, 1 the same image"""


def compare(target: Target, image: Volume, registration: Any, label_map: np.ndarray) -> Similarity:
    """Compare the warped atlas with the target around its structures.

    Dissimilarity is the number of differing bits of MIND-SSC. Quality relates its mean to that of the warped atlas
    shifted by some mm along each axis: the similarity by chance of images with the same texture.

    Args:
        target: the target.
        image: the atlas.
        registration: the atlas's registration to the target.
        label_map: its warped label map, (z, y, x) on the target's part.

    """
    from crossmoda.deeds import mind_codes

    grid = target.part.grid
    inside = field_of_view(image, grid, registration.transform) | (label_map > 0)
    bits = np.where(inside, np.uint8(0), np.uint8(OUTSIDE))
    near = grown(label_map > 0, NEIGHBORHOOD_MM, grid) & inside
    shifts = [max(1, round(_CHANCE_SHIFT_MM / spacing)) for spacing in grid.spacing_zyx]
    aligned, chance, values = [], [], np.zeros(grid.shape, np.float32)
    pieces, _ = components(near)
    for number, piece in enumerate(ndimage.find_objects(pieces), start=1):
        # Room for the patches of MIND-SSC, and for the shifts.
        box = widened(piece, [shift + 2 for shift in shifts], near.shape)
        mask = pieces[box] == number
        expected = target.codes[box][mask]
        warped = registration.warp_image(image, grid.crop(box)).array
        values[box][mask] = warped[mask]
        codes = mind_codes.codes(warped)
        aligned.append(mind.hamming(expected, codes[mask]).astype(np.uint8))
        bits[box][mask] = aligned[-1]
        shifted = [
            (axis, step) for axis, shift in enumerate(shifts) if shift < mask.shape[axis] for step in (shift, -shift)
        ]
        chance += [mind.hamming(expected, np.roll(codes, step, axis=axis)[mask]) for axis, step in shifted]
    if not aligned:
        return Similarity(bits, np.zeros(grid.shape, np.uint16), 0.0)
    by_chance = float(np.concatenate(chance).mean()) if chance else mind.BITS / 3
    quality = 1.0 - float(np.concatenate(aligned).mean()) / max(by_chance, 1e-6)
    return Similarity(bits, _quantized(values, near), quality)


def _quantized(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the values in the mask as 1 to 65535, linearly from the least to the largest, else 0."""
    least, largest = float(values[mask].min()), float(values[mask].max())
    quantized = np.zeros(values.shape, np.uint16)
    quantized[mask] = 1 + np.round((values[mask] - least) * (65534 / max(largest - least, 1e-6)))
    return quantized
