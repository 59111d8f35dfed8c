"""Image similarity of a target and a registered atlas around the atlas's structures, and the registration's quality.

The quality is the similarity (MIND-SSC) right around the cochleae: they lie in bone and look alike in everybody, so
that it falls with the registration's error. Around a tumor images differ however well they are registered.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from crossmoda import labels, mind
from crossmoda.propagation.target import Target
from crossmoda.volume import Volume
from crossmoda.volume.masks import components, grown, widened
from crossmoda.volume.resampling import field_of_view

#: The value of a dissimilarity map outside the atlas's field of view; inside it is 0 to 60 (bits).
OUTSIDE = 255
#: Distance around a structure in which images are compared, mm.
NEIGHBORHOOD_MM = 3.0
#: Distance around the cochleae in which the quality is measured, mm.
_QUALITY_MM = 1.5
#: Descriptors are computed this far around the compared voxels, mm: they are relative to the mean of an image.
_ROOM_MM = 8.0


class Similarity(NamedTuple):
    """The similarity of a target and a warped atlas around the atlas's structures."""

    dissimilarity: np.ndarray
    """(z, y, x) uint8: differing bits of MIND-SSC (of 60) around the structures, else 0; :data:`OUTSIDE` beyond the
    atlas's field of view"""
    intensity: np.ndarray
    """(z, y, x) uint16: the warped atlas, from 1 up, on its own scale; 0 where it was not compared"""
    quality: float
    """fraction of equal bits around the cochleae, or around all structures without one: 1 is the same image"""


def compare(target: Target, image: Volume, registration: Any, label_map: np.ndarray) -> Similarity:
    """Compare the warped atlas with the target around its structures.

    Dissimilarity is the number of differing bits of MIND-SSC.

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
    values = np.zeros(grid.shape, np.float32)
    pieces, _ = components(near)
    for number, piece in enumerate(ndimage.find_objects(pieces), start=1):
        box = widened(piece, grid.voxels(_ROOM_MM), near.shape)
        mask = pieces[box] == number
        warped = registration.warp_image(image, grid.crop(box)).array
        values[box][mask] = warped[mask]
        bits[box][mask] = mind.hamming(target.codes[box][mask], mind_codes.codes(warped)[mask])
    if not near.any():
        return Similarity(bits, np.zeros(grid.shape, np.uint16), 0.0)
    decisive = grown(label_map == labels.COCHLEA, _QUALITY_MM, grid) & inside
    quality = 1.0 - float(bits[decisive if decisive.any() else near].mean()) / mind.BITS
    return Similarity(bits, _quantized(values, near), quality)


def _quantized(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the values in the mask as 1 to 65535, linearly from the least to the largest, else 0."""
    least, largest = float(values[mask].min()), float(values[mask].max())
    quantized = np.zeros(values.shape, np.uint16)
    quantized[mask] = 1 + np.round((values[mask] - least) * (65534 / max(largest - least, 1e-6)))
    return quantized
