"""Preparation of a scan for the network, and the way back onto the scan's own grid.

The recipe of the paper: resample in plane to 0.5 x 0.5 mm, normalize to zero mean and unit deviation, crop to
192 x 192 x 64 voxels with every annotation inside. In-plane and slice refer to the patient's axes: the axes of a scan
are first permuted and flipped to the nearest LPS order, which moves no voxel; :meth:`PreparedScan.restore` undoes all
of it.
"""

import dataclasses
import itertools
import math

import numpy as np

from crossmoda import parameters
from crossmoda.anatomy.head_region import temporal_bones
from crossmoda.errors import InputError
from crossmoda.parameters import parameter, shown
from crossmoda.progress import Progress, report
from crossmoda.volume.grid import Box, Grid, Volume, box_from, cut
from crossmoda.volume.masks import bounding_box
from crossmoda.volume.resampling import resample

#: Finest spacing of a scan, mm.
_FINEST_MM = 0.05
#: Voxels whose features take 24 GiB.
_MOST_VOXELS = 2**29
#: Margin around the annotations in a crop where it has room, voxels.
_MARGIN = 8


@dataclasses.dataclass(frozen=True)
class Preparation(parameters.Settings):
    """Parameters of the preparation of a scan for the network."""

    in_plane_spacing: float = parameter(
        0.5,
        "Pixel spacing in axial planes (0: spacing of the scan).",
        unit="mm",
        minimum=0.0,
        maximum=5.0,
        advanced=True,
    )
    slice_spacing: float = parameter(
        0.0,
        "Spacing of axial slices (0: spacing of the scan).",
        unit="mm",
        minimum=0.0,
        maximum=10.0,
        advanced=True,
    )
    region: str = parameter(
        "ears",
        "Region of the scan: around both inner ears, or the whole scan (other anatomy).",
        choices=("ears", "whole"),
    )
    crop_x: int = parameter(
        192, "Size of the region from right to left.", unit="voxels", minimum=8, maximum=1024, advanced=True
    )
    crop_y: int = parameter(
        192, "Size of the region from front to back.", unit="voxels", minimum=8, maximum=1024, advanced=True
    )
    crop_z: int = parameter(64, "Size of the region in slices.", unit="voxels", minimum=8, maximum=1024, advanced=True)

    def __post_init__(self) -> None:
        """Check the values; a spacing is 0 or that of a possible scan."""
        super().__post_init__()
        for name in ("in_plane_spacing", "slice_spacing"):
            value = getattr(self, name)
            if 0 < value < _FINEST_MM:
                raise InputError(f"{name} is too fine: {shown(value)}. Use 0 or at least {_FINEST_MM:g} mm.")


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Permutation and flips of axes between a volume and the nearest LPS order; they change no voxel."""

    order: tuple[int, int, int]
    """axis of the file for the patient's x, y, z"""
    flips: tuple[bool, bool, bool]
    """whether x, y, z run backwards in the file"""

    @classmethod
    def of(cls, grid: Grid) -> "Orientation":
        """Return the orientation of a grid: the permutation whose axes point most along the patient's."""
        order = max(
            itertools.permutations(range(3)),
            key=lambda axes: round(sum(abs(grid.axes[row, column]) for row, column in enumerate(axes)), 9),
        )
        flips = tuple(bool(grid.axes[row, column] < 0) for row, column in enumerate(order))
        return cls(order, flips)  # type: ignore[arg-type]

    def to_lps(self, array: np.ndarray) -> np.ndarray:
        """Return an array (..., z, y, x) of the file's axes in the patient's axes."""
        leading = array.ndim - 3
        # Axis k of the file is array axis 2 - k.
        axes = [leading + 2 - axis for axis in reversed(self.order)]
        return np.flip(array.transpose(*range(leading), *axes), self._flipped(leading))

    def from_lps(self, array: np.ndarray) -> np.ndarray:
        """Undo :meth:`to_lps`."""
        leading = array.ndim - 3
        axes = np.argsort([2 - axis for axis in reversed(self.order)]) + leading
        return np.flip(array, self._flipped(leading)).transpose(*range(leading), *axes)

    def _flipped(self, leading: int) -> tuple[int, ...]:
        return tuple(leading + 2 - axis for axis, flip in enumerate(self.flips) if flip)

    def grid_in_lps(self, grid: Grid) -> Grid:
        """Return the grid of the array that :meth:`to_lps` returns."""
        direction = grid.axes[:, list(self.order)]
        size = tuple(grid.size[axis] for axis in self.order)
        spacing = tuple(grid.spacing[axis] for axis in self.order)
        signs = np.where(self.flips, -1.0, 1.0)
        first = np.where(self.flips, np.asarray(size) - 1, 0) * np.asarray(spacing)
        origin = tuple((np.asarray(grid.origin) + direction @ first).tolist()) if any(self.flips) else grid.origin
        return Grid(size, spacing, origin, tuple((direction * signs).ravel().tolist()))  # type: ignore[arg-type]


def in_lps_order(scan: Volume) -> Volume:
    """Return a scan whose axes point nearly to the left, to the back and up; no voxel moves."""
    orientation = Orientation.of(scan.grid)
    return Volume(np.ascontiguousarray(orientation.to_lps(scan.array)), orientation.grid_in_lps(scan.grid))


@dataclasses.dataclass(frozen=True)
class PreparedScan:
    """A scan as input of the network."""

    image: Volume
    """float32, zero mean and unit deviation, cropped, axes in LPS order"""
    label: Volume | None
    """the label map on the same grid"""
    original: Grid
    """the grid of the scan"""
    _orientation: Orientation
    _box: Box
    """the crop on the scan in LPS order; it may extend beyond the scan"""
    _is_resampled: bool

    def restore(self, array: np.ndarray) -> np.ndarray:
        """Return a result on the grid of :attr:`image` on the scan's own grid.

        Without resampling, every voxel is restored to the bit. With it, label maps keep the volume of each structure,
        and other values are interpolated linearly.

        Args:
            array: label map (z, y, x, integer or bool), map of a quantity (z, y, x, floating point), or probabilities
                (channel, z, y, x) with the background first.

        Returns:
            The array on the scan's own grid, same type. Outside the crop label maps and maps are 0 and probabilities
            are those of the background: 1 in the first channel, 0 in the others.

        """
        if array.shape[-3:] != self.image.grid.shape or array.ndim not in (3, 4):
            raise ValueError(
                f"restore needs an array of shape ([channels,] {self.image.grid.shape}); got {array.shape}"
            )
        if array.ndim == 3:
            return self._restore(array, 0)
        return np.stack([self._restore(channel, 1 if number == 0 else 0) for number, channel in enumerate(array)])

    def _restore(self, array: np.ndarray, outside: float) -> np.ndarray:
        grid = self._orientation.grid_in_lps(self.original)
        if not self._is_resampled:
            part = cut(array, box_from([-side.start for side in self._box], grid.shape), outside)
        else:
            kind = "linear" if np.issubdtype(array.dtype, np.floating) else "label"
            numbers = array.astype(np.uint8) if array.dtype == bool else array
            part = resample(Volume(numbers, self.image.grid), grid, None, kind, outside).array.astype(array.dtype)
        return np.ascontiguousarray(self._orientation.from_lps(part))


def prepare(
    image: Volume,
    label: Volume | None = None,
    settings: Preparation = Preparation(),
    progress: Progress | None = None,
) -> PreparedScan:
    """Resample, normalize and crop a scan.

    The crop is centered between both inner ears, which are located from the outline of the head
    (:func:`crossmoda.anatomy.head_region.temporal_bones`), and moved as little as necessary to hold every annotation.
    A scan smaller than the crop is padded with its lowest value. With ``region="whole"`` nothing is cropped or padded.

    Raises:
        InputError: the label map lies on another grid, its annotations do not fit into the crop, the crop exceeds the
            memory, or the image has the same value everywhere.

    """
    if label is not None and not label.grid.same_as(image.grid):
        raise InputError(
            f"The label map does not lie on the grid of its image: {label.grid.difference_to(image.grid)}. "
            "Resample it on the image."
        )
    report(progress, 0.0, "locating the inner ears" if settings.region == "ears" else "resampling")
    orientation = Orientation.of(image.grid)
    lps = orientation.grid_in_lps(image.grid)
    array = orientation.to_lps(image.array)
    annotation = None if label is None else orientation.to_lps(label.array)

    whole, is_resampled = _resampled_grid(lps, settings)
    box = box_from((0, 0, 0), whole.shape)
    if settings.region == "ears":
        box = _crop(Volume(array, lps), annotation, whole, (settings.crop_x, settings.crop_y, settings.crop_z))
    crop = whole.crop(box)
    if math.prod(crop.size) > _MOST_VOXELS:
        size = " x ".join(map(str, crop.size))
        raise InputError(f"Too many voxels for the network: {size}. Use a smaller crop or a wider spacing.")
    mean, deviation = float(array.mean(dtype=np.float64)), float(array.std(dtype=np.float64))
    if not deviation > 0:
        raise InputError(f"The image has the same value everywhere: {mean:g}. Select a scan.")

    report(progress, 0.5, "cropping and normalizing")
    lowest = float(array.min())
    if is_resampled:
        cropped = resample(Volume(np.ascontiguousarray(array, np.float32), lps), crop, None, "linear", lowest).array
    else:
        cropped = cut(array.astype(np.float32, copy=False), box, lowest)
    prepared_label = None
    if annotation is not None:
        source = Volume(np.ascontiguousarray(annotation), lps)
        prepared_label = resample(source, crop, None, "label") if is_resampled else Volume(cut(annotation, box), crop)
    normalized = ((cropped - mean) / deviation).astype(np.float32)
    report(progress, 1.0, "prepared")
    return PreparedScan(Volume(normalized, crop), prepared_label, image.grid, orientation, box, is_resampled)


def _resampled_grid(grid: Grid, settings: Preparation) -> tuple[Grid, bool]:
    """Return the scan's whole grid at the requested spacing (same corner and extent), and whether it differs."""
    requested = np.array([settings.in_plane_spacing] * 2 + [settings.slice_spacing])
    spacing = np.where(requested > 0, requested, grid.spacing)
    # A header in single precision says 0.50000001: no reason to interpolate.
    spacing = np.where(np.isclose(spacing, grid.spacing, rtol=1e-4), grid.spacing, spacing)
    if np.array_equal(spacing, grid.spacing):
        return grid, False
    size = np.maximum(1, np.round(np.asarray(grid.size) * grid.spacing / spacing)).astype(int)
    origin = np.asarray(grid.origin) + grid.axes @ ((spacing - np.asarray(grid.spacing)) / 2)
    return Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin.tolist()), grid.direction), True


def _crop(image: Volume, annotation: np.ndarray | None, whole: Grid, size: tuple[int, int, int]) -> Box:
    """Return the crop of ``size`` voxels (x, y, z) on the grid ``whole``."""
    ratio = np.asarray(image.grid.spacing) / np.asarray(whole.spacing)
    center = (np.asarray(temporal_bones(image)) + 0.5) * ratio
    extent, available = np.asarray(size), np.asarray(whole.size)
    start = np.round(center - extent / 2).astype(int)
    # As much of the scan as possible; a scan that is smaller than the crop lies in the middle of it.
    start = np.where(
        available >= extent, np.clip(start, 0, np.maximum(available - extent, 0)), (available - extent) // 2
    )
    if annotation is not None and annotation.any():
        for axis, side in enumerate(reversed(bounding_box(annotation != 0))):
            first, last = int(np.floor(side.start * ratio[axis])), int(np.ceil(side.stop * ratio[axis]))
            if last - first > size[axis]:
                name = "xyz"[axis]
                raise InputError(
                    f"The annotations span {last - first} voxels along the patient's {name} axis, more than the crop: "
                    f"{size[axis]}. Use a larger crop_{name} or region 'whole'."
                )
            margin = min(_MARGIN, (size[axis] - (last - first)) // 2)
            start[axis] = np.clip(start[axis], last + margin - size[axis], first - margin)
    return box_from(start[::-1], size[::-1])
