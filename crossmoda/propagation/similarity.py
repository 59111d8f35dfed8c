"""What a target and a warped atlas have in common around the atlas's structures."""

from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import mind, volume
from crossmoda.propagation.target import Target, part_of
from crossmoda.volume import Grid, Volume

#: The value of a dissimilarity map outside the atlas's field of view; inside it is 0 to 60 (bits).
OUTSIDE = 255
#: How far around a structure images are compared, mm.
NEIGHBORHOOD_MM = 3.0
#: Dissimilarity by chance is measured against copies moved this far, mm: farther than any structure's edge is thick.
_CHANCE_SHIFT_MM = 8.0
#: An atlas's field of view on the target is looked up once for every so many voxels along each axis.
_COARSE = 4


class Comparison(NamedTuple):
    """A target and a warped atlas around the atlas's structures."""

    dissimilarity: np.ndarray
    """(z, y, x) uint8: differing bits of MIND-SSC (of 60), 0 elsewhere; :data:`OUTSIDE` where the atlas has no voxel"""
    intensity: np.ndarray
    """(z, y, x) uint16: the warped atlas, from 1 up, of its own scale; 0 where it was not compared"""
    quality: float
    """1 - dissimilarity around the structures / dissimilarity by chance: 0 is chance, 1 the same image"""


def compare(target: Target, image: Volume, registration: Any, label_map: np.ndarray) -> Comparison:
    """Compare the warped atlas with the target around its structures.

    Dissimilarity is the number of differing bits of MIND-SSC; quality relates its mean to that of the warped atlas
    moved by some mm along each axis, which is what images of the same texture have in common by chance.

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
    near = neighborhood(label_map > 0, grid) & inside
    shifts = [max(1, round(_CHANCE_SHIFT_MM / spacing)) for spacing in grid.spacing_zyx]
    aligned, chance, values = [], [], np.zeros(grid.shape, np.float32)
    pieces = ndimage.label(near, np.ones((3, 3, 3)))[0]
    for number, piece in enumerate(ndimage.find_objects(pieces), start=1):
        # With what MIND-SSC looks at around a voxel, and with where the voxels are moved.
        box = tuple(
            slice(max(side.start - shift - 2, 0), min(side.stop + shift + 2, size))
            for side, shift, size in zip(piece, shifts, near.shape, strict=True)
        )
        mask = pieces[box] == number
        expected = target.codes[box][mask]
        warped = registration.warp_image(image, part_of(grid, box)).array
        values[box][mask] = warped[mask]
        codes = mind_codes.codes(warped)
        aligned.append(mind.hamming(expected, codes[mask]).astype(np.uint8))
        bits[box][mask] = aligned[-1]
        moved = [
            (axis, step) for axis, shift in enumerate(shifts) if shift < mask.shape[axis] for step in (shift, -shift)
        ]
        chance += [mind.hamming(expected, np.roll(codes, step, axis=axis)[mask]) for axis, step in moved]
    if not aligned:
        return Comparison(bits, np.zeros(grid.shape, np.uint16), 0.0)
    by_chance = float(np.concatenate(chance).mean()) if chance else mind.BITS / 3
    quality = 1.0 - float(np.concatenate(aligned).mean()) / max(by_chance, 1e-6)
    return Comparison(bits, _quantized(values, near), quality)


def _quantized(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the values in the mask as 1 to 65535, linearly from the least to the largest; 0 elsewhere."""
    least, largest = float(values[mask].min()), float(values[mask].max())
    found = np.zeros(values.shape, np.uint16)
    found[mask] = 1 + np.round((values[mask] - least) * (65534 / max(largest - least, 1e-6)))
    return found


def field_of_view(image: Volume, grid: Grid, transform: sitk.Transform) -> np.ndarray:
    """Return the mask of the voxels of ``grid`` that lie in the image, (z, y, x); exact to some voxels."""
    ones = image.with_array(np.ones(image.array.shape, np.uint8))
    first = (grid.index_to_physical @ [*[(_COARSE - 1) / 2] * 3, 1.0])[:3]
    coarse = Grid(
        tuple(-(-count // _COARSE) for count in grid.size),  # type: ignore[arg-type]
        tuple(value * _COARSE for value in grid.spacing),  # type: ignore[arg-type]
        tuple(first.tolist()),
        grid.direction,
    )
    inside = volume.resample(ones, coarse, transform, "nearest").array > 0
    for axis, count in enumerate(grid.shape):
        inside = inside.repeat(_COARSE, axis).take(range(count), axis)
    return inside


def neighborhood(mask: np.ndarray, grid: Grid, distance_mm: float = NEIGHBORHOOD_MM) -> np.ndarray:
    """Return the mask grown by a distance in mm."""
    found = ndimage.find_objects(mask.view(np.uint8))
    grown = np.zeros(mask.shape, bool)
    if not found or found[0] is None:
        return grown
    reach = [int(np.ceil(distance_mm / spacing)) for spacing in grid.spacing_zyx]
    box = tuple(
        slice(max(side.start - more, 0), min(side.stop + more, size))
        for side, more, size in zip(found[0], reach, mask.shape, strict=True)
    )
    grown[box] = ndimage.distance_transform_edt(~mask[box], grid.spacing_zyx) <= distance_mm
    return grown
