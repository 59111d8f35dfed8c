"""What the network sees of a scan, and the way back onto the scan's own grid.

The recipe of the paper: resample in plane to 0.5 x 0.5 mm, normalize to zero mean and unit deviation, crop to
192 x 192 x 64 voxels with every annotation inside. In-plane and slice mean the patient's axes here: a scan in any
orientation is first reordered so that its axes point nearly to the left, to the back and up (LPS) by permuting and
flipping them, which moves no voxel; :meth:`Prepared.restore` undoes all of it.
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
from crossmoda.volume.geometry import Grid, Volume
from crossmoda.volume.resampling import resample, sub_grid

#: No scan has a finer spacing than this, mm.
_FINEST_MM = 0.05
#: The extent of a head scan in axial planes, mm.
_HEAD_MM = (140.0, 340.0)
#: The features of more voxels than this would take 24 GiB.
_MOST_VOXELS = 2**29


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """How a scan is prepared for the network."""

    in_plane_spacing: float = parameter(
        0.5,
        "Pixel spacing in axial planes; 0 keeps the scan's own.",
        unit="mm",
        minimum=0.0,
        maximum=5.0,
        advanced=True,
    )
    slice_spacing: float = parameter(
        0.0, "Spacing of axial slices; 0 keeps the scan's own.", unit="mm", minimum=0.0, maximum=10.0, advanced=True
    )
    region: str = parameter(
        "ears",
        "Part of the scan that is used: around both inner ears, or the whole scan (other anatomy).",
        choices=("ears", "whole"),
    )
    crop_x: int = parameter(
        192, "Size of the part from right to left.", unit="voxels", minimum=8, maximum=1024, advanced=True
    )
    crop_y: int = parameter(
        192, "Size of the part from front to back.", unit="voxels", minimum=8, maximum=1024, advanced=True
    )
    crop_z: int = parameter(64, "Size of the part in slices.", unit="voxels", minimum=8, maximum=1024, advanced=True)

    def __post_init__(self) -> None:
        """Check that spacings are 0 or what a scan can have as well."""
        super().__post_init__()
        for name in ("in_plane_spacing", "slice_spacing"):
            if 0 < getattr(self, name) < _FINEST_MM:
                raise InputError(f"{name} must be 0 or at least {_FINEST_MM:g} mm; got {shown(getattr(self, name))}.")


def settings_for_registration(region: str, grid: Grid, has_cochlea: bool) -> Settings:
    """Return the preparation for registration: ``"auto"`` crops to the ears in a head scan with cochlea labels."""
    whole = region == "whole" or (region == "auto" and not (has_cochlea and _is_head(grid)))
    return Settings(region="whole" if whole else "ears", in_plane_spacing=0.0 if whole else 0.5)


def _is_head(grid: Grid) -> bool:
    """Whether a scan's axial extent is that of a head rather than a detail of it or a trunk."""
    extent_mm = np.abs(np.reshape(grid.direction, (3, 3))) @ (np.asarray(grid.size) * grid.spacing)
    return bool(np.all((extent_mm[:2] >= _HEAD_MM[0]) & (extent_mm[:2] <= _HEAD_MM[1])))


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Permutation and flips of axes that bring a volume nearest to LPS order, and back, without touching a voxel."""

    order: tuple[int, int, int]
    """which axis of the file becomes the patient's x, y, z"""
    flips: tuple[bool, bool, bool]
    """whether x, y, z run backwards in the file"""

    @classmethod
    def of(cls, grid: Grid) -> "Orientation":
        """Return the orientation of a grid: the permutation whose axes point most along the patient's."""
        direction = np.reshape(grid.direction, (3, 3))
        order = max(
            itertools.permutations(range(3)),
            key=lambda axes: round(sum(abs(direction[row, column]) for row, column in enumerate(axes)), 9),
        )
        flips = tuple(bool(direction[row, column] < 0) for row, column in enumerate(order))
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
        """Return the grid of the array that :meth:`to_lps` gives."""
        direction = np.reshape(grid.direction, (3, 3))[:, list(self.order)]
        size = tuple(grid.size[axis] for axis in self.order)
        spacing = tuple(grid.spacing[axis] for axis in self.order)
        signs = np.where(self.flips, -1.0, 1.0)
        first = np.where(self.flips, np.asarray(size) - 1, 0) * np.asarray(spacing)
        origin = tuple((np.asarray(grid.origin) + direction @ first).tolist()) if any(self.flips) else grid.origin
        return Grid(size, spacing, origin, tuple((direction * signs).ravel().tolist()))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A scan as the network sees it."""

    image: Volume
    """float32, zero mean and unit deviation, cropped, axes in LPS order"""
    label: Volume | None
    """the label map on the same grid"""
    original: Grid
    """the grid of the scan as it was given"""
    _orientation: Orientation
    _start: tuple[int, int, int]
    """the first voxel of the crop (x, y, z) on the scan in LPS order; it may lie outside"""
    _resampled: bool

    def restore(self, array: np.ndarray) -> np.ndarray:
        """Put a result on the grid of :attr:`image` back on the scan's own grid.

        Without resampling every voxel comes back to the bit. With it, label maps keep the volume of each structure
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
        if not self._resampled:
            part = _cut(array, tuple(-first for first in self._start), grid.shape, outside)
        else:
            kind = "linear" if np.issubdtype(array.dtype, np.floating) else "label"
            numbers = array.astype(np.uint8) if array.dtype == bool else array
            part = resample(Volume(numbers, self.image.grid), grid, None, kind, outside).array.astype(array.dtype)
        return np.ascontiguousarray(self._orientation.from_lps(part))


def prepare(
    image: Volume,
    label: Volume | None = None,
    settings: Settings = Settings(),
    progress: Progress | None = None,
) -> Prepared:
    """Resample, normalize and crop a scan.

    The crop lies around the middle between both inner ears, which is found from the outline of the head
    (:func:`crossmoda.anatomy.head_region.temporal_bones`); with a label map it is moved as little as is needed to
    hold every annotation. Where the scan is smaller than the crop it is padded with its lowest value. With
    ``region="whole"`` nothing is cropped or padded.

    Raises:
        InputError: the label map lies on another grid, its annotations do not fit into the crop, the crop is beyond
            any memory, or the image has the same value everywhere.

    """
    if label is not None and not label.grid.same_as(image.grid):
        raise InputError(
            f"The label map ({label.grid}) does not lie on the grid of its image ({image.grid}); "
            "resample it on the image first."
        )
    report(progress, 0.0, "finding the inner ears" if settings.region == "ears" else "resampling")
    orientation = Orientation.of(image.grid)
    lps = orientation.grid_in_lps(image.grid)
    array = orientation.to_lps(image.array)
    annotation = None if label is None else orientation.to_lps(label.array)

    whole, resampled = _resampled_grid(lps, settings)
    if settings.region == "whole":
        start, size = (0, 0, 0), whole.size
    else:
        size = (settings.crop_x, settings.crop_y, settings.crop_z)
        start = _crop_start(Volume(array, lps), annotation, whole, size)
    if math.prod(size) > _MOST_VOXELS:
        raise InputError(
            f"{' x '.join(map(str, size))} voxels are too many for the network: take a smaller crop or a wider spacing."
        )
    mean, deviation = float(array.mean(dtype=np.float64)), float(array.std(dtype=np.float64))
    if not deviation > 0:
        raise InputError("The image has the same value everywhere; give a scan.")

    report(progress, 0.5, "cropping and normalizing")
    crop = sub_grid(whole, start, size)
    lowest = float(array.min())
    if resampled:
        cropped = resample(Volume(np.ascontiguousarray(array, np.float32), lps), crop, None, "linear", lowest).array
    else:
        cropped = _cut(array.astype(np.float32, copy=False), start, crop.shape, lowest)
    prepared_label = None
    if annotation is not None:
        source = Volume(np.ascontiguousarray(annotation), lps)
        cut = resample(source, crop, None, "label").array if resampled else _cut(annotation, start, crop.shape, 0)
        prepared_label = Volume(cut, crop)
    normalized = ((cropped - mean) / deviation).astype(np.float32)
    report(progress, 1.0, "prepared")
    return Prepared(Volume(normalized, crop), prepared_label, image.grid, orientation, start, resampled)


def _resampled_grid(grid: Grid, settings: Settings) -> tuple[Grid, bool]:
    """Return the scan's whole grid at the wanted spacing (same corner, same extent) and whether it is another one."""
    wanted = np.array([settings.in_plane_spacing] * 2 + [settings.slice_spacing])
    spacing = np.where(wanted > 0, wanted, grid.spacing)
    # A header in single precision says 0.50000001: no reason to interpolate.
    spacing = np.where(np.isclose(spacing, grid.spacing, rtol=1e-4), grid.spacing, spacing)
    if np.array_equal(spacing, grid.spacing):
        return grid, False
    size = np.maximum(1, np.round(np.asarray(grid.size) * grid.spacing / spacing)).astype(int)
    corner_shift = (spacing - np.asarray(grid.spacing)) / 2
    origin = np.asarray(grid.origin) + np.reshape(grid.direction, (3, 3)) @ corner_shift
    size_xyz, spacing_xyz = tuple(size.tolist()), tuple(spacing.tolist())
    return Grid(size_xyz, spacing_xyz, tuple(origin.tolist()), grid.direction), True


def _crop_start(
    image: Volume, annotation: np.ndarray | None, whole: Grid, size: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return the first voxel (x, y, z) of the crop on the grid ``whole``."""
    ratio = np.asarray(image.grid.spacing) / np.asarray(whole.spacing)
    center = (np.asarray(temporal_bones(image)) + 0.5) * ratio
    extent, available = np.asarray(size), np.asarray(whole.size)
    start = np.round(center - extent / 2).astype(int)
    # As much of the scan as possible; a scan that is smaller than the crop lies in the middle of it.
    start = np.where(
        available >= extent, np.clip(start, 0, np.maximum(available - extent, 0)), (available - extent) // 2
    )
    if annotation is not None and annotation.any():
        for axis in range(3):
            profile = np.flatnonzero(annotation.any(axis=tuple(other for other in range(3) if other != 2 - axis)))
            first = int(np.floor(profile[0] * ratio[axis]))
            last = int(np.ceil((profile[-1] + 1) * ratio[axis]))
            if last - first > size[axis]:
                raise InputError(
                    f"The annotations span {last - first} voxels along the patient's {'xyz'[axis]} axis, more than the "
                    f"crop of {size[axis]}; use a larger crop_{'xyz'[axis]} or region 'whole'."
                )
            margin = min(8, (size[axis] - (last - first)) // 2)
            start[axis] = np.clip(start[axis], last + margin - size[axis], first - margin)
    return int(start[0]), int(start[1]), int(start[2])


def _cut(array: np.ndarray, start: tuple[int, ...], shape: tuple[int, int, int], outside: float) -> np.ndarray:
    """Return the part of an array (z, y, x) from index ``start`` (x, y, z) on, with ``outside`` beyond its edge."""
    part = np.full(shape, outside, array.dtype)
    source, target = [], []
    for first, wanted, available in zip(reversed(start), shape, array.shape, strict=True):
        low, high = max(first, 0), min(first + wanted, available)
        if low >= high:
            return part
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    part[tuple(target)] = array[tuple(source)]
    return part
