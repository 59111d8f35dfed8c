"""Comparison of both cochleae through the mirrored image."""

import dataclasses
import itertools

import numpy as np
from scipy import ndimage, signal

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.plausibility import COCHLEAR_DISTANCE_MM
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box

#: Margin of the compared patch around a cochlea, and maximum vertical or AP offset of the contralateral cochlea.
_MARGIN_MM, _MAX_OFFSET_MM = 6.0, 15.0
#: Minimum correlation of the patch with a contralateral cochlea.
_MIN_CORRELATION = 0.5
#: Two cochleae of a patient: maximum volume ratio, and maximum distance of the label from the position in the image.
_MAX_VOLUME_RATIO, _MAX_DISTANCE_MM = 2.0, 2.0
#: Rotations of the mirrored patch about two axes (twice the tilt of the head), their maximum sum, and the step of the
#: coarse search.
_ROTATIONS_DEG, _MAX_ROTATION_DEG, _STEP_MM = (-16, -8, 0, 8, 16), 20, 1.0


@dataclasses.dataclass(frozen=True)
class MirrorCheck:
    """The result of the comparison of both cochleae."""

    messages: tuple[str, ...]
    """differences, in sentences; empty if the cochleae match"""
    suggestion: np.ndarray | None
    """(z, y, x) uint8: label map with the suggested contralateral cochlea; None: no suggestion"""


def mirror_check(label_map: np.ndarray, image: np.ndarray, grid: Grid) -> MirrorCheck:
    """Compare both cochleae, and suggest a missing or mismatching one.

    The mirrored patch around the reference cochlea is located on the contralateral side (normalized
    cross-correlation); the mirrored label at this position is the suggestion. The reference is the cochlea
    contralateral to the tumor, unless it is missing or much smaller. The tumor is never overwritten.

    Args:
        label_map: (z, y, x) uint8.
        image: scan, (z, y, x).
        grid: their grid.

    """
    sides = _cochleae_by_side(label_map, grid)
    present = [side for side, mask in sides.items() if mask.any()]
    if not present:
        return MirrorCheck(("The label contains no cochlea. Segment one of them first.",), None)
    reference = _reference_side(label_map, grid, sides)
    contralateral = laterality.contralateral(reference)
    mirrored = _find_mirrored(sides[reference], image, grid, reference)
    messages = []
    volumes = {side: float(mask.sum()) * grid.voxel_volume_mm3 for side, mask in sides.items()}
    if not sides[contralateral].any():
        messages.append(f"The {contralateral} cochlea is missing.")
    elif max(volumes.values()) > _MAX_VOLUME_RATIO * min(volumes.values()):
        sizes = [f"{side} {volumes[side]:.0f} mm³" for side in (contralateral, reference)]
        messages.append(f"The volumes of the cochleae differ: {', '.join(sizes)}.")
    if mirrored is None:
        messages.append(f"The image shows no match of the {reference} cochlea on the {contralateral} side.")
        return MirrorCheck(tuple(messages), None)
    if sides[contralateral].any():
        offset = _center(sides[contralateral], grid) - _center(mirrored, grid)
        if (distance_mm := float(np.linalg.norm(offset))) > _MAX_DISTANCE_MM:
            messages.append(
                f"The {contralateral} cochlea is {distance_mm:.1f} mm from the mirror image of the {reference} one."
            )
    if not messages:
        return MirrorCheck((), None)
    suggestion = label_map.copy()
    suggestion[sides[contralateral]] = labels.BACKGROUND
    suggestion[mirrored & (suggestion == labels.BACKGROUND)] = labels.COCHLEA
    return MirrorCheck(tuple(messages), suggestion)


def _cochleae_by_side(label_map: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    on_left = laterality.lateral_mm(grid) > laterality.find_sides(Volume(label_map, grid)).midplane_mm
    cochlea = label_map == labels.COCHLEA
    return {"left": cochlea & on_left, "right": cochlea & ~on_left}


def _reference_side(label_map: np.ndarray, grid: Grid, sides: dict[str, np.ndarray]) -> str:
    """Return the side of the reference cochlea."""
    sizes = {side: int(mask.sum()) for side, mask in sides.items()}
    larger = max(sizes, key=lambda side: sizes[side])
    if sizes[larger] > _MAX_VOLUME_RATIO * min(sizes.values()):
        return larger
    tumor = laterality.find_sides(Volume(label_map, grid)).tumor
    return laterality.contralateral(tumor) if tumor else larger


def _center(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the center of a mask, mm (LPS)."""
    center: np.ndarray = grid.points(mask).mean(axis=0)
    return center


def _find_mirrored(cochlea: np.ndarray, image: np.ndarray, grid: Grid, side: str) -> np.ndarray | None:
    """Return the mirrored mask of a cochlea at the best match of its patch on the contralateral side.

    A coarse search determines rotation and position, and a fine search the final position.
    """
    axis, spacing = laterality.lateral_axis(grid), np.asarray(grid.spacing_zyx)
    box = bounding_box(cochlea)
    center = np.array([(part.start + part.stop - 1) / 2 for part in box])
    half = np.array([(part.stop - part.start) / 2 for part in box]) + _MARGIN_MM / spacing
    low, high = _contralateral_box(center, half, axis, grid, side)
    stride = np.maximum(1, np.round(_STEP_MM / spacing)).astype(int)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), np.where(stride > 1, stride / 3, 0).tolist())
    best, rotation, position = -np.inf, np.eye(3), np.zeros(3)
    search = _SearchArea(smooth[tuple(slice(a, b, step) for a, b, step in zip(low, high, stride, strict=True))])
    for matrix in _mirrored_rotations(axis, spacing):
        patch = _patch(smooth, center, matrix, np.ceil(2 * half / stride).astype(int), stride)
        correlation = search.correlation(patch)
        if correlation.size and correlation.max() > best:
            best, rotation = float(correlation.max()), matrix
            corner = np.array(np.unravel_index(int(correlation.argmax()), correlation.shape))
            position = low + (corner + (np.array(patch.shape) - 1) / 2) * stride
    if best < _MIN_CORRELATION:
        return None
    size = np.ceil(2 * half).astype(int)
    first = np.clip(np.round(position - (size - 1) / 2 - stride).astype(int), 0, None)
    last = np.minimum(first + size + 2 * stride, image.shape)
    fine_search = _SearchArea(image[tuple(slice(a, b) for a, b in zip(first, last, strict=True))].astype(np.float32))
    correlation = fine_search.correlation(_patch(image, center, rotation, size, np.ones(3, int)))
    if not correlation.size:
        return None
    corner = first + np.array(np.unravel_index(int(correlation.argmax()), correlation.shape))
    mirrored = _patch(cochlea.astype(np.float32), center, rotation, size, np.ones(3, int))
    count = int(np.count_nonzero(cochlea))
    result = np.zeros(image.shape, bool)
    target = tuple(slice(a, a + extent) for a, extent in zip(corner, size, strict=True))
    result[target] = mirrored >= max(np.partition(mirrored.ravel(), -count)[-count], 0.25)
    return result


def _contralateral_box(
    center: np.ndarray, half: np.ndarray, axis: int, grid: Grid, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return first and stop index of the search area of the contralateral cochlea and its margin."""
    spacing = np.asarray(grid.spacing_zyx)
    left_direction = np.sign(grid.index_to_physical[0, 2 - axis])
    step = -left_direction if side == "left" else left_direction
    near, far = (center[axis] + step * distance / spacing[axis] for distance in COCHLEAR_DISTANCE_MM)
    low, high = center - _MAX_OFFSET_MM / spacing, center + _MAX_OFFSET_MM / spacing
    low[axis], high[axis] = min(near, far), max(near, far)
    low, high = np.floor(low - half).astype(int), np.ceil(high + half).astype(int) + 1
    return np.clip(low, 0, None), np.minimum(high, grid.shape)


def _mirrored_rotations(axis: int, spacing: np.ndarray) -> list[np.ndarray]:
    """Return matrices (voxels, z y x) that mirror along an axis and rotate about the other two."""
    flip = np.eye(3)
    flip[axis, axis] = -1
    first_axis, second_axis = (index for index in range(3) if index != axis)
    matrices = []
    for first_deg, second_deg in itertools.product(_ROTATIONS_DEG, repeat=2):
        if abs(first_deg) + abs(second_deg) <= _MAX_ROTATION_DEG:
            rotation = _rotation(axis, first_axis, first_deg) @ _rotation(axis, second_axis, second_deg)
            matrices.append(np.diag(1 / spacing) @ rotation @ flip @ np.diag(spacing))
    return matrices


def _rotation(first_axis: int, second_axis: int, angle_deg: float) -> np.ndarray:
    """Return the matrix of a rotation in the plane of two axes."""
    matrix = np.eye(3)
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix[first_axis, first_axis] = matrix[second_axis, second_axis] = cos
    matrix[first_axis, second_axis], matrix[second_axis, first_axis] = -sin, sin
    return matrix


def _patch(
    array: np.ndarray, center: np.ndarray, matrix: np.ndarray, shape: np.ndarray, stride: np.ndarray
) -> np.ndarray:
    """Return the patch around ``center``, transformed by ``matrix``, at every ``stride``-th voxel."""
    transform = matrix @ np.diag(stride.astype(float))
    offset = center - transform @ ((shape - 1) / 2)
    return ndimage.affine_transform(
        array, transform, offset, tuple(shape.tolist()), np.float32, order=1, mode="nearest"
    )


class _SearchArea:
    """A part of an image in which patches are located."""

    def __init__(self, array: np.ndarray):
        self.array = array - array.mean() if array.size else array
        self.variance: dict[tuple[int, ...], np.ndarray] = {}

    def correlation(self, patch: np.ndarray) -> np.ndarray:
        """Return the normalized cross-correlation at all positions with full overlap; empty if the patch is larger."""
        if any(size < extent for size, extent in zip(self.array.shape, patch.shape, strict=True)):
            return np.zeros(0)
        if patch.shape not in self.variance:
            ones = np.ones_like(patch)
            total = signal.fftconvolve(self.array, ones, mode="valid")
            squares = signal.fftconvolve(self.array**2, ones, mode="valid")
            variance = squares - total**2 / patch.size
            self.variance[patch.shape] = np.maximum(variance, 1e-3 * squares.max() + 1e-12)
        pattern = patch - patch.mean()
        covariance = signal.fftconvolve(self.array, pattern[::-1, ::-1, ::-1], mode="valid")
        return covariance / np.sqrt(self.variance[patch.shape] * max(float((pattern**2).sum()), 1e-12))
