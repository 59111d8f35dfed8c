"""The cochleae of both sides compared through the image."""

import dataclasses
import itertools

import numpy as np
from scipy import ndimage, signal

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.plausibility import COCHLEAR_DISTANCE_MM
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box

#: How far around a cochlea the image is compared with the other side, and how far the other may lie up or down, mm.
_AROUND_MM, _TILT_MM = 6.0, 15.0
#: The least correlation at which the other side is thought to show a cochlea.
_LEAST_ALIKE = 0.5
#: Cochleae of one patient: how many times larger one may be, and how far the label may lie from the image's place, mm.
_UNEQUAL, _MISPLACED_MM = 2.0, 2.0
#: The turns (degrees) in which the mirrored surroundings are looked for: twice the tilt of the head.
#: The first search has about this step, mm.
_TURNS_DEG, _MOST_TURNED_DEG, _STEP_MM = (-16, -8, 0, 8, 16), 20, 1.0


@dataclasses.dataclass(frozen=True)
class MirrorCheck:
    """What the comparison of both cochleae says."""

    messages: tuple[str, ...]
    """what is the matter, in sentences; empty if the cochleae match"""
    suggestion: np.ndarray | None
    """(z, y, x) uint8: the label map with the other cochlea as the image suggests it; None if it suggests nothing"""


def mirror_check(label_map: np.ndarray, image: np.ndarray, grid: Grid) -> MirrorCheck:
    """Compare the cochleae of both sides, and suggest the one that is missing or does not match.

    The surroundings of one cochlea, mirrored, are looked for on the other side (normalized cross-correlation); its
    mirrored label there is the suggestion. The cochlea that is trusted is the one on the side without tumor, unless
    it is much smaller than the other or missing. The tumor is never painted over.

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
    other = laterality.contralateral(trusted)
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
        apart = _center(sides[other], grid) - _center(found, grid)
        if (distance := float(np.linalg.norm(apart))) > _MISPLACED_MM:
            messages.append(f"The {other} cochlea lies {distance:.1f} mm from where the image is like the other side.")
    if not messages:
        return MirrorCheck((), None)
    suggestion = label_map.copy()
    suggestion[sides[other]] = labels.BACKGROUND
    suggestion[found & (suggestion == labels.BACKGROUND)] = labels.COCHLEA
    return MirrorCheck(tuple(messages), suggestion)


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
    tumor = laterality.find_sides(Volume(label_map, grid)).tumor
    return laterality.contralateral(tumor) if tumor else larger


def _center(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the center of a mask, mm (LPS)."""
    center: np.ndarray = grid.points(mask).mean(axis=0)
    return center


def _find_mirrored(cochlea: np.ndarray, image: np.ndarray, grid: Grid, side: str) -> np.ndarray | None:
    """Return the mirrored mask of a cochlea where the other side of the image is most like its surroundings.

    A coarse search over turns and places finds the turn, a fine one about there the place.
    """
    axis, spacing = laterality.lateral_axis(grid), np.asarray(grid.spacing_zyx)
    box = bounding_box(cochlea)
    center = np.array([(part.start + part.stop - 1) / 2 for part in box])
    half = np.array([(part.stop - part.start) / 2 for part in box]) + _AROUND_MM / spacing
    low, high = _opposite(center, half, axis, grid, side)
    stride = np.maximum(1, np.round(_STEP_MM / spacing)).astype(int)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), np.where(stride > 1, stride / 3, 0).tolist())
    best, turn, place = -np.inf, np.eye(3), np.zeros(3)
    scene = _Scene(smooth[tuple(slice(a, b, step) for a, b, step in zip(low, high, stride, strict=True))])
    for matrix in _turns(axis, spacing):
        patch = _patch(smooth, center, matrix, np.ceil(2 * half / stride).astype(int), stride)
        alike = scene.correlation(patch)
        if alike.size and alike.max() > best:
            best, turn = float(alike.max()), matrix
            corner = np.array(np.unravel_index(int(alike.argmax()), alike.shape))
            place = low + (corner + (np.array(patch.shape) - 1) / 2) * stride
    if best < _LEAST_ALIKE:
        return None
    size = np.ceil(2 * half).astype(int)
    first = np.clip(np.round(place - (size - 1) / 2 - stride).astype(int), 0, None)
    last = np.minimum(first + size + 2 * stride, image.shape)
    fine = _Scene(image[tuple(slice(a, b) for a, b in zip(first, last, strict=True))].astype(np.float32))
    alike = fine.correlation(_patch(image, center, turn, size, np.ones(3, int)))
    if not alike.size:
        return None
    corner = first + np.array(np.unravel_index(int(alike.argmax()), alike.shape))
    drawn = _patch(cochlea.astype(np.float32), center, turn, size, np.ones(3, int))
    count = int(np.count_nonzero(cochlea))
    result = np.zeros(image.shape, bool)
    target = tuple(slice(a, a + extent) for a, extent in zip(corner, size, strict=True))
    result[target] = drawn >= max(np.partition(drawn.ravel(), -count)[-count], 0.25)
    return result


def _opposite(center: np.ndarray, half: np.ndarray, axis: int, grid: Grid, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last index (excluded) of where the other cochlea and its surroundings may lie."""
    spacing = np.asarray(grid.spacing_zyx)
    towards_left = np.sign(grid.index_to_physical[0, 2 - axis])
    step = -towards_left if side == "left" else towards_left
    near, far = (center[axis] + step * distance / spacing[axis] for distance in COCHLEAR_DISTANCE_MM)
    low, high = center - _TILT_MM / spacing, center + _TILT_MM / spacing
    low[axis], high[axis] = min(near, far), max(near, far)
    low, high = np.floor(low - half).astype(int), np.ceil(high + half).astype(int) + 1
    return np.clip(low, 0, None), np.minimum(high, grid.shape)


def _turns(axis: int, spacing: np.ndarray) -> list[np.ndarray]:
    """Return matrices (voxels, z y x) that mirror along an axis and turn about both others."""
    flip = np.eye(3)
    flip[axis, axis] = -1
    one, two = (other for other in range(3) if other != axis)
    matrices = []
    for first, second in itertools.product(_TURNS_DEG, repeat=2):
        if abs(first) + abs(second) <= _MOST_TURNED_DEG:
            turn = _rotation(axis, one, first) @ _rotation(axis, two, second)
            matrices.append(np.diag(1 / spacing) @ turn @ flip @ np.diag(spacing))
    return matrices


def _rotation(one: int, two: int, angle_deg: float) -> np.ndarray:
    """Return a rotation in the plane of two axes."""
    matrix = np.eye(3)
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix[one, one] = matrix[two, two] = cos
    matrix[one, two], matrix[two, one] = -sin, sin
    return matrix


def _patch(
    array: np.ndarray, center: np.ndarray, matrix: np.ndarray, shape: np.ndarray, stride: np.ndarray
) -> np.ndarray:
    """Return a box about a voxel of an array, mirrored and turned by ``matrix``, every ``stride``-th voxel."""
    whole = matrix @ np.diag(stride.astype(float))
    offset = center - whole @ ((shape - 1) / 2)
    return ndimage.affine_transform(array, whole, offset, tuple(shape.tolist()), np.float32, order=1, mode="nearest")


class _Scene:
    """A part of an image with which patches are compared."""

    def __init__(self, array: np.ndarray):
        self.array = array - array.mean() if array.size else array
        self.variance: dict[tuple[int, ...], np.ndarray] = {}

    def correlation(self, patch: np.ndarray) -> np.ndarray:
        """Return the normalized cross-correlation with a patch wherever it lies wholly inside; empty if nowhere."""
        if any(size < own for size, own in zip(self.array.shape, patch.shape, strict=True)):
            return np.zeros(0)
        if patch.shape not in self.variance:
            ones = np.ones_like(patch)
            total = signal.fftconvolve(self.array, ones, mode="valid")
            squares = signal.fftconvolve(self.array**2, ones, mode="valid")
            spread = squares - total**2 / patch.size
            self.variance[patch.shape] = np.maximum(spread, 1e-3 * squares.max() + 1e-12)
        pattern = patch - patch.mean()
        shared = signal.fftconvolve(self.array, pattern[::-1, ::-1, ::-1], mode="valid")
        return shared / np.sqrt(self.variance[patch.shape] * max(float((pattern**2).sum()), 1e-12))
