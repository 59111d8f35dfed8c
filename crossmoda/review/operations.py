"""Helpers of the correction: pure functions on label maps, so that the caller can undo them.

Label maps are uint8 (z, y, x). Each function returns a new array. ``region`` says where voxels may change: a bool array
(z, y, x), a :class:`~crossmoda.review.regions.Region`, or None for everywhere. Nothing but the structure that is asked
for changes: another structure is never painted over (except by :func:`take`, which brings the labels of a source).
"""

import dataclasses

import numpy as np
from scipy import ndimage, signal

from crossmoda import labels
from crossmoda.components import COCHLEAR_DISTANCE_MM
from crossmoda.errors import InputError
from crossmoda.propagation import laterality
from crossmoda.review.regions import Region
from crossmoda.volume import Grid, Volume

Where = np.ndarray | Region | None

#: The neighbours of a voxel that belong to the same piece.
_NEIGHBOURS = np.ones((3, 3, 3), bool)
#: How far around a cochlea the image is compared with the other side, and how far the other may lie up or down, mm.
_AROUND_MM, _TILT_MM = 6.0, 15.0
#: The least correlation at which the other side is thought to show a cochlea.
_LEAST_ALIKE = 0.5
#: Cochleae of one patient: how many times larger one may be, and how far the label may lie from the image's place, mm.
_UNEQUAL, _MISPLACED_MM = 2.0, 2.0


def take(label_map: np.ndarray, source: np.ndarray, region: Where) -> np.ndarray:
    """Return the label map with the labels of ``source`` (of the same shape) inside ``region``."""
    if source.shape != label_map.shape:
        raise InputError(
            f"The source has the shape {source.shape}, the label map {label_map.shape}; bring it on the same grid."
        )
    return np.where(_mask(region, label_map.shape), source, label_map).astype(np.uint8)


def fill_holes(label_map: np.ndarray, value: int, region: Where = None) -> np.ndarray:
    """Return the label map with the holes of a structure filled: background that it encloses on all sides."""
    mask = label_map == value
    result = label_map.copy()
    if mask.any():
        box = _around(mask, [1, 1, 1])
        holes = ndimage.binary_fill_holes(mask[box]) & (label_map[box] == labels.BACKGROUND)
        result[box][holes & _mask(region, label_map.shape)[box]] = value
    return result


def remove_islands(
    label_map: np.ndarray, value: int, smallest_mm3: float, grid: Grid, region: Where = None
) -> np.ndarray:
    """Return the label map without the pieces of a structure that are smaller than ``smallest_mm3``.

    Voxels that touch with a face, an edge or a corner belong to one piece. The largest piece always stays, however
    small, and so do pieces that do not lie wholly inside ``region``.
    """
    pieces, count = ndimage.label(label_map == value, _NEIGHBOURS)
    if count < 2:
        return label_map.copy()
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    small = sizes * grid.voxel_volume_mm3 < smallest_mm3
    small[[0, int(sizes.argmax())]] = False
    small[np.unique(pieces[~_mask(region, label_map.shape)])] = False
    return _painted(label_map, small[pieces], labels.BACKGROUND)


def smooth(label_map: np.ndarray, value: int, radius_mm: float, grid: Grid, region: Where = None) -> np.ndarray:
    """Return the label map with the outline of a structure smoothed; its volume stays.

    The structure is blurred with a Gaussian whose standard deviation is half of ``radius_mm`` (in mm along every axis,
    whatever the voxels are) and gets as many voxels as it had, those with the highest values. It trades voxels with
    the background only.

    Raises:
        InputError: the radius is not positive.

    """
    if not radius_mm > 0:
        raise InputError(f"The radius of smoothing must be positive; got {radius_mm:g} mm.")
    mask = label_map == value
    free = (mask | (label_map == labels.BACKGROUND)) & _mask(region, label_map.shape)
    count = int(np.count_nonzero(mask & free))
    if not count:
        return label_map.copy()
    reach = [int(np.ceil(2 * radius_mm / spacing)) + 1 for spacing in grid.spacing_zyx]
    box = _around(mask, reach)
    blurred = ndimage.gaussian_filter(
        mask[box].astype(np.float32), [radius_mm / 2 / spacing for spacing in grid.spacing_zyx], mode="nearest"
    )
    # The voxel's own label decides between equal values, so that a smooth outline stays as it is.
    height = np.where(free[box], blurred + 1e-6 * mask[box], -1.0)
    order = np.argpartition(height.ravel(), -count)[-count:]
    chosen = np.zeros(height.size, bool)
    chosen[order] = True
    result = label_map.copy()
    part = result[box]
    part[free[box] & mask[box]] = labels.BACKGROUND
    part[chosen.reshape(height.shape) & free[box]] = value
    return result


@dataclasses.dataclass(frozen=True)
class MirrorCheck:
    """What the comparison of both cochleae says."""

    messages: tuple[str, ...]
    """what is the matter, in sentences; empty if the cochleae match"""
    suggestion: np.ndarray | None
    """(z, y, x) uint8: the label map with the other cochlea as the image suggests it; None if it suggests nothing"""


def mirror_check(label_map: np.ndarray, image: np.ndarray, grid: Grid) -> MirrorCheck:
    """Compare the cochleae of both sides, and suggest the one that is missing or does not match.

    The surroundings of one cochlea, mirrored, are looked for on the other side (normalised cross-correlation); its
    mirrored label there is the suggestion. The cochlea that is trusted is the one on the side without tumour, unless
    it is much smaller than the other or missing. The tumour is never painted over.

    Args:
        label_map: (z, y, x) uint8.
        image: the scan, (z, y, x).
        grid: where both lie.

    """
    sides = _cochleae_by_side(label_map, grid)
    present = [side for side, mask in sides.items() if mask.any()]
    if not present:
        return MirrorCheck(("There is no cochlea to compare with: draw one of them first.",), None)
    trusted = _trusted(label_map, grid, sides)
    other = laterality.other(trusted)
    found = _find_mirrored(sides[trusted], image, grid, trusted)
    messages = []
    volumes = {side: float(mask.sum()) * grid.voxel_volume_mm3 for side, mask in sides.items()}
    if not sides[other].any():
        messages.append(f"There is no cochlea on the {other} side.")
    elif max(volumes.values()) > _UNEQUAL * min(volumes.values()):
        messages.append(
            f"The {other} cochlea has {volumes[other]:.0f} mm³, the {trusted} one {volumes[trusted]:.0f} mm³."
        )
    if found is None:
        messages.append(f"Nothing on the {other} side of the image looks like the {trusted} cochlea.")
        return MirrorCheck(tuple(messages), None)
    if sides[other].any():
        apart = _centre(sides[other], grid) - _centre(found, grid)
        if (distance := float(np.linalg.norm(apart))) > _MISPLACED_MM:
            messages.append(f"The {other} cochlea lies {distance:.1f} mm from where the image is like the other side.")
    if not messages:
        return MirrorCheck((), None)
    suggestion = label_map.copy()
    suggestion[sides[other]] = labels.BACKGROUND
    suggestion[found & (suggestion == labels.BACKGROUND)] = labels.COCHLEA
    return MirrorCheck(tuple(messages), suggestion)


def _mask(region: Where, shape: tuple[int, ...]) -> np.ndarray:
    if region is None:
        return np.ones(shape, bool)
    mask = region.mask(shape) if isinstance(region, Region) else np.asarray(region, bool)
    if mask.shape != shape:
        raise InputError(f"The region has the shape {mask.shape}, the label map {shape}; bring it on the same grid.")
    return mask


def _painted(label_map: np.ndarray, where: np.ndarray, value: int) -> np.ndarray:
    result = label_map.copy()
    result[where] = value
    return result


def _around(mask: np.ndarray, reach: list[int]) -> tuple[slice, ...]:
    """Return the box of a mask with a margin, voxels."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    return tuple(
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(box, reach, mask.shape, strict=True)
    )


def _cochleae_by_side(label_map: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    middle = laterality.find_sides(Volume(label_map, grid)).midplane_mm
    on_left = laterality.lateral_mm(grid) > middle
    cochlea = label_map == labels.COCHLEA
    return {"left": cochlea & on_left, "right": cochlea & ~on_left}


def _trusted(label_map: np.ndarray, grid: Grid, sides: dict[str, np.ndarray]) -> str:
    sizes = {side: int(mask.sum()) for side, mask in sides.items()}
    larger = max(sizes, key=lambda side: sizes[side])
    if sizes[larger] > _UNEQUAL * min(sizes.values()):
        return larger
    tumour = laterality.find_sides(Volume(label_map, grid)).tumour
    return laterality.other(tumour) if tumour else larger


def _centre(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the centre of a mask, mm (LPS)."""
    index = np.argwhere(mask).mean(axis=0)[::-1]
    return (grid.index_to_physical @ [*index, 1.0])[:3]


def _find_mirrored(cochlea: np.ndarray, image: np.ndarray, grid: Grid, side: str) -> np.ndarray | None:
    """Return the mirrored mask of a cochlea where the other side of the image is most like its surroundings."""
    axis, spacing = laterality.lateral_axis(grid), grid.spacing_zyx
    box = _around(cochlea, [int(np.ceil(_AROUND_MM / value)) for value in spacing])
    patch = np.flip(image[box], axis).astype(np.float32)
    towards_left = np.sign(grid.index_to_physical[0, 2 - axis])
    step = -towards_left if side == "left" else towards_left
    near, far = (distance / spacing[axis] for distance in COCHLEAR_DISTANCE_MM)
    search = []
    for index, part in enumerate(box):
        if index == axis:
            ends = sorted((part.start + step * near, part.start + step * far))
            low, high = ends[0], ends[1] + (part.stop - part.start)
        else:
            reach = _TILT_MM / spacing[index]
            low, high = part.start - reach, part.stop + reach
        search.append(slice(max(int(low), 0), min(int(np.ceil(high)), image.shape[index])))
    scene = image[tuple(search)].astype(np.float32)
    if any(size < own for size, own in zip(scene.shape, patch.shape, strict=True)):
        return None
    alike = _correlation(scene, patch)
    best = np.unravel_index(int(np.argmax(alike)), alike.shape)
    if alike[best] < _LEAST_ALIKE:
        return None
    result = np.zeros(image.shape, bool)
    corner = [part.start + int(place) for part, place in zip(search, best, strict=True)]
    target = tuple(slice(first, first + size) for first, size in zip(corner, patch.shape, strict=True))
    result[target] = np.flip(cochlea[box], axis)
    return result


def _correlation(scene: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Return the normalised cross-correlation of a patch with a scene wherever it lies wholly inside."""
    scene = scene - scene.mean()
    pattern = patch - patch.mean()
    ones = np.ones_like(pattern)
    turned = pattern[::-1, ::-1, ::-1]
    shared = signal.fftconvolve(scene, turned, mode="valid")
    total = signal.fftconvolve(scene, ones, mode="valid")
    squares = signal.fftconvolve(scene**2, ones, mode="valid")
    variance = np.maximum(squares - total**2 / pattern.size, 1e-3 * squares.max() + 1e-12)
    return shared / np.sqrt(variance * max(float((pattern**2).sum()), 1e-12))
