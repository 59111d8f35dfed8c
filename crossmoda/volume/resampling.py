"""Resampling: interpolation of images, and of label maps with unbiased volumes."""

import itertools
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda.volume.grid import Box, Grid, Volume
from crossmoda.volume.masks import used_along, widened
from crossmoda.volume.transforms import is_deformation

_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline}

#: Points of the output grid per coarse point when a structure's place under a transform is looked for.
_COARSE_STEP = 4
#: The most sample points per output voxel and axis.
_MOST_SAMPLES = 8
#: A larger fraction of a volume is not cut out of it before it is resampled.
_LARGEST_SHARE = 0.5
#: A field of view is sampled once for every so many voxels along each axis.
_FIELD_OF_VIEW_STEP = 4


def resample(
    volume: Volume,
    grid: Grid,
    transform: sitk.Transform | None = None,
    interpolation: str = "linear",
    outside: float = 0.0,
) -> Volume:
    """Return the volume on another grid.

    Interpolation ``"label"`` is for label maps: each structure keeps its volume (the volume of the warped shape, if the
    transform changes volumes), however small it is and however coarse the grid; see :func:`_resample_labels`.
    A volume that already lies on ``grid`` comes back unchanged, to the bit, when there is no transform.

    Args:
        volume: image or label map.
        grid: where the result lies.
        transform: maps points of ``grid`` to points of ``volume`` (LPS, mm); None is the identity.
        interpolation: ``"linear"``, ``"nearest"``, ``"bspline"`` (cubic) or ``"label"``.
        outside: the value of voxels outside ``volume`` (``"label"``: always 0).

    """
    if transform is None and volume.grid == grid:
        return volume.with_array(volume.array.copy())
    transform = sitk.Transform(3, sitk.sitkIdentity) if transform is None else transform
    if interpolation == "label":
        return Volume(_resample_labels(volume, grid, transform), grid)
    if interpolation not in _INTERPOLATORS:
        raise ValueError(f"interpolation must be linear, nearest, bspline or label; got {interpolation!r}")
    return Volume(_on_grid(volume, grid, transform, interpolation, outside), grid)


def _on_grid(volume: Volume, grid: Grid, transform: sitk.Transform, interpolation: str, outside: float) -> np.ndarray:
    if interpolation == "linear" and volume.array.dtype != np.float64 and is_deformation(transform):
        from crossmoda.volume.warping import warp  # numba

        return warp(volume, grid, transform, outside)
    if interpolation == "linear" and transform.IsLinear():
        volume = _part_for(volume, grid, transform)
    image = volume.to_sitk()
    if interpolation != "nearest" and not np.issubdtype(volume.array.dtype, np.floating):
        image = sitk.Cast(image, sitk.sitkFloat32)
    resampled = sitk.Resample(
        image,
        grid.size,
        transform,
        _INTERPOLATORS[interpolation],
        grid.origin,
        grid.spacing,
        grid.direction,
        outside,
        image.GetPixelID(),
    )
    return sitk.GetArrayFromImage(resampled)


def _part_for(volume: Volume, grid: Grid, transform: sitk.Transform) -> Volume:
    """Return the part of a volume between whose voxels a linear transform places those of ``grid``.

    ITK works on a copy of all that it is given. A volume of which most is needed, or nothing, comes back whole.
    """
    corners = np.array([transform.TransformPoint(corner) for corner in grid.corners.tolist()])
    box = widened(volume.grid.box_around(corners), 1, volume.array.shape)
    share = np.prod([(side.stop - side.start) / count for side, count in zip(box, volume.array.shape, strict=True)])
    return volume.crop(box) if 0 < share < _LARGEST_SHARE else volume


def _resample_labels(volume: Volume, grid: Grid, transform: sitk.Transform) -> np.ndarray:
    """Resample a label map structure by structure so that volumes are unbiased.

    The coverage of an output voxel by a structure is the mean of its linearly interpolated occupancy over sample
    points in the voxel, as many as make the samples no farther apart than the voxels of the label map. Linear
    interpolation spreads each voxel without loss, so the sum of the coverage is the structure's volume on the output
    grid. A threshold of one half would lose volume wherever a surface is curved on the scale of a voxel (a cochlea of
    55 mm3: 5% at 0.5 x 0.5 x 1.5 mm); instead the structure gets as many voxels as its coverage adds up to, those with
    the highest coverage.
    A structure of less than half an output voxel disappears.
    """
    result = np.zeros(grid.shape, volume.array.dtype)
    best = np.zeros(grid.shape, np.float32)
    wanted: list[tuple[int, Box, np.ndarray, int]] = []
    positions = _coarse_positions(grid, transform, volume.grid)
    boxes = ndimage.find_objects(volume.array.astype(np.int32, copy=False))
    for value, box in enumerate(boxes, start=1):
        if box is None:
            continue
        region = _region(positions, box, grid)
        if region is None:
            continue
        where, samples = region
        coverage = _coverage(volume, value, box, grid, where, samples, transform)
        count = round(float(coverage.sum(dtype=np.float64)))
        if count:
            wanted.append((value, where, coverage, count))
    # Where two structures claim a voxel the larger coverage has it ...
    for value, where, coverage, count in wanted:
        chosen = _highest(coverage, count) & (coverage > best[where])
        result[where][chosen] = value
        best[where][chosen] = coverage[chosen]
    # ... and the one that lost it takes its next best free voxel instead.
    for value, where, coverage, count in wanted:
        missing = count - int(np.count_nonzero(result[where] == value))
        if missing > 0:
            result[where][_highest(np.where(result[where] == 0, coverage, 0), missing)] = value
    return result


def _highest(coverage: np.ndarray, count: int) -> np.ndarray:
    """Return the mask of the ``count`` voxels with the highest coverage, those within the structure first."""
    # Equal coverage is frequent (a shift by half a voxel): the neighborhood decides then, so that shapes stay compact.
    rank = coverage + 1e-3 * ndimage.uniform_filter(coverage, 3, mode="constant")
    candidates = np.flatnonzero(coverage > 1e-6)
    order = np.argsort(-rank.ravel()[candidates], kind="stable")
    mask = np.zeros(coverage.size, bool)
    mask[candidates[order[:count]]] = True
    return mask.reshape(coverage.shape)


def _coarse_positions(grid: Grid, transform: sitk.Transform, source: Grid) -> np.ndarray:
    """Return where every :data:`_COARSE_STEP`-th point of ``grid`` (and one beyond its end) lies in ``source``.

    Shape (z, y, x, 3): continuous index (x, y, z).
    """
    size = [-(-count // _COARSE_STEP) + 1 for count in grid.size]
    spacing = [value * _COARSE_STEP for value in grid.spacing]
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, size, grid.origin, spacing, grid.direction
    )
    index = np.stack(np.meshgrid(*(np.arange(count) for count in reversed(size)), indexing="ij")[::-1], axis=-1)
    return source.to_index(grid.to_lps(index * float(_COARSE_STEP)) + sitk.GetArrayFromImage(field))


def _region(positions: np.ndarray, box: Box, grid: Grid) -> tuple[Box, tuple[int, int, int]] | None:
    """Return the part of ``grid`` into which a box of the source may fall, and the samples per voxel (x, y, z).

    None if the box falls nowhere.
    """
    low = np.array([part.start for part in reversed(box)]) - 1.0
    high = np.array([part.stop for part in reversed(box)]) + 0.0
    steps = [np.diff(positions, axis=axis) for axis in (2, 1, 0)]
    # A coarse cell reaches no farther than its corners: half a step along each axis around each coarse point.
    reach = sum(0.5 * np.abs(step).reshape(-1, 3).max(axis=0) for step in steps) + 1.0
    near = np.all((positions >= low - reach) & (positions <= high + reach), axis=-1)
    if not near.any():
        return None
    where = []
    for axis, count in enumerate(grid.shape):
        hits = used_along(near, axis)
        start = max(0, (hits[0] - 1) * _COARSE_STEP)
        stop = min(count, (hits[-1] + 1) * _COARSE_STEP + 1)
        if start >= stop:
            return None
        where.append(slice(int(start), int(stop)))
    # How far apart neighboring output voxels lie in the label map, in its voxels, near the structure.
    samples = []
    for step, axis in zip(steps, (2, 1, 0), strict=True):
        inside = np.take(near, range(near.shape[axis] - 1), axis=axis)
        chosen = step[inside] if inside.any() else step.reshape(-1, 3)
        stride = float(np.median(np.linalg.norm(chosen, axis=-1))) / _COARSE_STEP
        samples.append(int(np.clip(np.ceil(stride - 0.1), 1, _MOST_SAMPLES)))
    return tuple(where), (samples[0], samples[1], samples[2])


def _coverage(
    volume: Volume,
    value: int,
    box: Box,
    grid: Grid,
    where: Box,
    samples: tuple[int, int, int],
    transform: sitk.Transform,
) -> np.ndarray:
    """Return how much of each voxel of ``grid[where]`` the structure ``value`` covers (0 to 1)."""
    # One voxel of background around the structure, also at the edge of the volume: the occupancy ends there.
    occupancy = np.pad((volume.array[box] == value).astype(np.float32), 1)
    source = volume.grid.crop(tuple(slice(part.start - 1, part.stop + 1) for part in box))
    coarse = grid.crop(where)
    fine = coarse.refined(samples)
    return block_means(_on_grid(Volume(occupancy, source), fine, transform, "linear", 0.0), samples)


def block_means(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the means over blocks of ``factors`` (x, y, z) voxels, which divide the size of the array (z, y, x)."""
    if tuple(factors) == (1, 1, 1):
        return array
    counts = [count // factor for count, factor in zip(array.shape, reversed(factors), strict=True)]
    parts = itertools.chain.from_iterable(zip(counts, reversed(factors), strict=True))
    return array.reshape(tuple(parts)).mean(axis=(1, 3, 5))


def field_of_view(image: Volume, grid: Grid, transform: sitk.Transform) -> np.ndarray:
    """Return the mask of the voxels of ``grid`` that lie in the image, (z, y, x), to an accuracy of some voxels."""
    ones = image.with_array(np.ones(image.array.shape, np.uint8))
    coarse = grid.coarsened((_FIELD_OF_VIEW_STEP,) * 3)
    inside = resample(ones, coarse, transform, "nearest").array > 0
    for axis, count in enumerate(grid.shape):
        inside = inside.repeat(_FIELD_OF_VIEW_STEP, axis).take(range(count), axis)
    return inside
