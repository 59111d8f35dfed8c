"""The result of a registration: transforms in physical space, their statistics, and images warped by them."""

import dataclasses
import functools
import math
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda import output, volume
from crossmoda.errors import InputError
from crossmoda.output import atomic, refuse_undecodable, write_json
from crossmoda.volume import nifti
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.transforms import parts_of

#: HDF5, the format of .h5 transforms, is not safe with threads: whoever reads or writes a transform holds it.
_HDF5 = threading.Lock()
#: The names of the files of a registration.
TRANSFORM = "T.h5"
INVERSE = "T_inverse.h5"
WARPED = "warped.nii.gz"
WARPED_LABEL = "warped_label.nii.gz"
PROVENANCE = "provenance.json"

#: Time within which a transform is read, s.
_READING_S = 60.0
#: The most bytes of a transform file beside the numbers of its fields.
_HEADER_BYTES = 1 << 17


def read_transform(path: Path | str, guarded: bool = False) -> sitk.Transform:
    """Read an ITK transform file (.h5, .tfm, .mat, .txt, ...).

    Args:
        path: the file.
        guarded: whether a process of its own reads it first, for files of unknown origin.

    Raises:
        InputError: the file is missing or holds no 3D transform.

    """
    refuse_undecodable(Path(path))
    try:
        if guarded and not _can_be_read(Path(path)):
            raise RuntimeError("it ends the process that reads it")
        with _HDF5:
            transform = sitk.ReadTransform(str(path))
    except RuntimeError as cause:
        reason = "does not exist" if not Path(path).exists() else "cannot be read as a transform"
        raise InputError(f"The transform {path} {reason}; give an ITK transform file such as .h5 or .tfm.") from cause
    if transform.GetDimension() != 3:
        raise InputError(f"The transform {path} is {transform.GetDimension()}D; give a 3D transform.")
    return transform


_READING = "import sys, SimpleITK; SimpleITK.ReadTransform(sys.argv[1])"


def _can_be_read(path: Path) -> bool:
    """Return whether a process of its own survives reading a transform: ITK ends on some damaged files."""
    if not path.is_file() or "python" not in Path(sys.executable).name.lower():
        return path.is_file()
    arguments = [sys.executable, "-c", _READING, str(path)]
    try:
        return subprocess.run(arguments, capture_output=True, timeout=_READING_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def write_transform(transform: sitk.Transform, path: Path | str) -> None:
    """Write an ITK transform file in one step.

    Raises:
        InputError: the disk has no room for it, or the file cannot be written.

    """
    fields = [part for part in parts_of(transform) if part.GetTransformEnum() == sitk.sitkDisplacementField]
    numbers = sum(sitk.DisplacementFieldTransform(field).GetDisplacementField().GetNumberOfPixels() for field in fields)
    with atomic(path) as temporary:
        # checked first: HDF5 ends the whole process when it closes after a failed write
        if shutil.disk_usage(temporary.parent).free < 3 * 8 * numbers + _HEADER_BYTES:
            raise InputError(f"Cannot write {path}: the disk is full; make room or choose another folder.")
        try:
            with _HDF5:
                sitk.WriteTransform(transform, str(temporary))
        except RuntimeError as cause:
            raise InputError(f"Cannot write {path}: choose another folder or file type.") from cause


def field_transforms(forward: np.ndarray, backward: np.ndarray, grid: Grid) -> tuple[sitk.Transform, sitk.Transform]:
    """Return the SimpleITK transforms of two fields of displacements (3, z, y, x) along the axes of ``grid``, mm.

    The fields are stored at the control points, between which ITK interpolates linearly: exact and small. ITK moves
    nothing beyond the last point, but each field is evaluated wherever its inverse leads: the border is repeated
    around the image as far as the largest displacement reaches, and one point more.
    """
    reach = [max(float(np.abs(field[axis]).max()) for field in (forward, backward)) for axis in range(3)]
    layers = [math.ceil(length / size) + 1 for length, size in zip(reach, grid.spacing_zyx, strict=True)]
    return _field_transform(forward, grid, layers), _field_transform(backward, grid, layers)


def _field_transform(array: np.ndarray, grid: Grid, layers: list[int]) -> sitk.DisplacementFieldTransform:
    lps = np.moveaxis(array[::-1].astype(np.float64), 0, -1) @ np.reshape(grid.direction, (3, 3)).T
    return _transform_of(_padded(lps, layers), grid, layers)


def _padded(field: np.ndarray, layers: list[int]) -> np.ndarray:
    """Return a field (z, y, x, 3) whose border is repeated around it, in as many layers along z, y, x."""
    return np.pad(field, [*((count, count) for count in layers), (0, 0)], mode="edge")


def _transform_of(padded: np.ndarray, grid: Grid, layers: list[int]) -> sitk.DisplacementFieldTransform:
    """Return the transform of displacements (z, y, x, 3), LPS mm, on a grid with layers around it."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(padded), isVector=True)
    image.SetSpacing(grid.spacing)
    image.SetOrigin((grid.index_to_physical @ [*(-count for count in layers[::-1]), 1])[:3].tolist())
    image.SetDirection(grid.direction)
    return sitk.DisplacementFieldTransform(image)


def _faded(transform: sitk.Transform) -> sitk.Transform:
    """Return a transform whose displacement fades out beyond its field instead of ending there.

    It fades linearly over twice the largest displacement: no tear, and no fold, which would need a slope of -1.
    """
    if transform.GetTransformEnum() != sitk.sitkDisplacementField:
        return transform
    field = sitk.DisplacementFieldTransform(transform).GetDisplacementField()
    array = sitk.GetArrayFromImage(field)
    reach = float(np.linalg.norm(array, axis=-1).max())
    layers = [math.ceil(2 * reach / size) + 1 for size in field.GetSpacing()[::-1]]
    padded = _padded(array, layers)
    for axis, count in enumerate(layers):
        ramp = np.minimum(1, np.arange(padded.shape[axis]) / count)
        weight = ramp * ramp[::-1]
        padded *= weight.reshape([-1 if axis == other else 1 for other in range(4)])
    return _transform_of(padded, Grid.of(field), layers)


def _reference(grid: Grid) -> dict[str, Any]:
    return {
        "size": grid.size,
        "outputOrigin": grid.origin,
        "outputSpacing": grid.spacing,
        "outputDirection": grid.direction,
    }


@dataclasses.dataclass(frozen=True)
class Registration:
    """The correspondence of the points of a fixed and a moving image, in both directions."""

    transform: sitk.Transform
    """maps fixed points to moving points (LPS mm): resamples the moving image on the fixed grid"""
    inverse_transform: sitk.Transform
    """maps moving points to fixed points"""
    fixed_grid: Grid
    """the grid of the fixed image"""
    moving_grid: Grid
    """the grid of the moving image"""
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    """version, parameters, inputs, device, seconds"""

    def warp_image(self, image: Volume, grid: Grid | None = None, interpolation: str = "linear") -> Volume:
        """Return an image of the moving side on the fixed grid, or on another grid in the fixed image's space.

        Args:
            image: an image in the moving image's space; it may have its own grid.
            grid: the grid of the result; None for the fixed image's. Voxels outside the image get its least value.
            interpolation: ``"linear"`` or ``"bspline"`` (cubic).

        """
        return volume.resample(
            image,
            grid or self.fixed_grid,
            self.transform,
            interpolation=interpolation,
            outside=float(image.array.min()),
        )

    def warp_label_map(self, label_map: Volume, grid: Grid | None = None) -> Volume:
        """Return a label map of the moving side on the fixed grid (or ``grid``); small structures keep their volume."""
        return volume.resample(label_map, grid or self.fixed_grid, self.transform, interpolation="label")

    def displacement_field(self, grid: Grid | None = None) -> sitk.Image:
        """Return the displacement of each voxel of the fixed grid (or ``grid``), LPS mm, as an ITK vector image."""
        return sitk.TransformToDisplacementField(
            self.transform, sitk.sitkVectorFloat32, **_reference(grid or self.fixed_grid)
        )

    def write_displacement_field(self, path: Path | str) -> None:
        """Write :meth:`displacement_field` as NRRD or NIfTI, which Slicer, SimpleITK and ANTs read as a transform."""
        with atomic(path) as temporary:
            try:
                sitk.WriteImage(self.displacement_field(), str(temporary), useCompression=True)
                if nifti.is_nifti(temporary):  # ITK says nothing where the disk is full
                    nifti.check_complete(temporary)
            except (RuntimeError, InputError) as cause:
                raise InputError(f"Cannot write {path}: choose another folder or file type.") from cause

    def jacobian_determinant(self, grid: Grid | None = None) -> np.ndarray:
        """Return the local change of volume between the points of a grid, (z - 1, y - 1, x - 1) float32: moving over
        fixed.

        A value is that of the center of eight neighboring points. Between control points the transform is linear
        along each axis, so it is exact for points of one cell.

        Args:
            grid: at least two points along each axis, in the fixed image's space; None for the voxels of the fixed
                image.

        """
        return _determinant(self.displacement_field(grid))

    def jacobian_statistics(self) -> dict[str, float]:
        """Return percent of the volume that is folded, and minimum, maximum, mean and deviation of the determinant.

        They are taken at eight places in each cell of the control points.
        """
        determinant = _determinant(self._sampled)
        return {
            "folding_percent": 100 * float((determinant <= 0).mean()),
            "minimum": float(determinant.min()),
            "maximum": float(determinant.max()),
            "mean": float(determinant.mean(dtype=np.float64)),
            "standard_deviation": float(determinant.std(dtype=np.float64)),
        }

    def displacement_statistics(self) -> dict[str, float]:
        """Return mean and 95th percentile of the displacement of the points of the fixed image, mm."""
        length = np.linalg.norm(sitk.GetArrayFromImage(self._sampled), axis=-1)
        return {"mean_mm": float(length.mean()), "percentile_95_mm": float(np.percentile(length, 95))}

    @functools.cached_property
    def _sampled(self) -> sitk.Image:
        """The displacement at the points of the statistics."""
        return self.displacement_field(self._half_cells())

    def _half_cells(self) -> Grid:
        """Return points from the first to the last voxel, as far apart as half the control points and no closer than
        voxels.
        """
        grid = self.fixed_grid
        fields = [
            sitk.DisplacementFieldTransform(each).GetDisplacementField().GetSpacing()
            for each in parts_of(self.transform)
            if each.GetTransformEnum() == sitk.sitkDisplacementField
        ]
        step = min((min(spacing) for spacing in fields), default=math.inf) / 2
        extent = [(count - 1) * spacing for count, spacing in zip(grid.size, grid.spacing, strict=True)]
        cells = [
            max(1, math.ceil(length / max(step, spacing) - 1e-6))
            for length, spacing in zip(extent, grid.spacing, strict=True)
        ]
        spacing = [(length or 1.0) / count for length, count in zip(extent, cells, strict=True)]
        return Grid(tuple(count + 1 for count in cells), tuple(spacing), grid.origin, grid.direction)  # type: ignore[arg-type]

    def inverse_consistency(self, every: int = 4) -> np.ndarray:
        """Return the distance (mm) of every n-th voxel of the fixed image from itself after transform and inverse."""
        round_trip = sitk.CompositeTransform([self.inverse_transform, self.transform])
        grid = self.fixed_grid
        coarse = Grid(
            tuple(-(-size // every) for size in grid.size),  # type: ignore[arg-type]
            tuple(size * every for size in grid.spacing),  # type: ignore[arg-type]
            grid.origin,
            grid.direction,
        )
        shift = sitk.TransformToDisplacementField(round_trip, sitk.sitkVectorFloat32, **_reference(coarse))
        return np.linalg.norm(sitk.GetArrayFromImage(shift), axis=-1)

    def invert(self) -> "Registration":
        """Return the registration with fixed and moving exchanged."""
        return Registration(
            self.inverse_transform,
            self.transform,
            self.moving_grid,
            self.fixed_grid,
            {**self.provenance, "inverted": True},
        )

    def extended(self, fixed_grid: Grid, moving_grid: Grid) -> "Registration":
        """Return the registration of parts of images as that of the whole images; beyond the parts it becomes linear.

        Args:
            fixed_grid: of the whole fixed image; the registration itself if it is that of the fixed part.
            moving_grid: of the whole moving image.

        """
        if (fixed_grid, moving_grid) == (self.fixed_grid, self.moving_grid):
            return self
        forward, backward = (
            sitk.CompositeTransform([_faded(part) for part in parts_of(each)])
            for each in (self.transform, self.inverse_transform)
        )
        return dataclasses.replace(
            self, transform=forward, inverse_transform=backward, fixed_grid=fixed_grid, moving_grid=moving_grid
        )

    def compose(self, next: "Registration") -> "Registration":
        """Return the registration from this one's fixed image to the moving image of ``next``.

        ``next`` has this registration's moving image as its fixed image.
        """
        return Registration(
            sitk.CompositeTransform([*parts_of(next.transform), *parts_of(self.transform)]),
            sitk.CompositeTransform([*parts_of(self.inverse_transform), *parts_of(next.inverse_transform)]),
            self.fixed_grid,
            next.moving_grid,
            {"step": "compose", "registrations": [self.provenance, next.provenance]},
        )

    def save(self, folder: Path | str, moving: Volume | None = None, moving_label: Volume | None = None) -> Path:
        """Write transform, inverse and provenance into ``folder``, and the warped moving image and label map if given.

        Each file appears when it is complete; ``provenance.json`` is the last.
        """
        folder = Path(folder)
        write_transform(self.transform, folder / TRANSFORM)
        write_transform(self.inverse_transform, folder / INVERSE)
        if moving is not None:
            volume.write(self.warp_image(moving), folder / WARPED)
        if moving_label is not None:
            volume.write(self.warp_label_map(moving_label), folder / WARPED_LABEL)
        write_json(folder / PROVENANCE, self.content())
        return folder

    def content(self) -> dict[str, Any]:
        """Return what ``provenance.json`` holds: the provenance and both grids."""
        grids = {"fixed": dataclasses.asdict(self.fixed_grid), "moving": dataclasses.asdict(self.moving_grid)}
        return {**self.provenance, "grids": grids}


def _determinant(field: sitk.Image) -> np.ndarray:
    """Return :meth:`Registration.jacobian_determinant` of displacements at the points of a grid."""
    from crossmoda.deeds.jacobian import determinants

    return determinants(sitk.GetArrayFromImage(field), field.GetSpacing(), field.GetDirection())


def load(folder: Path | str) -> Registration:
    """Read a registration written by :meth:`Registration.save`.

    Raises:
        InputError: the folder holds no complete registration.

    """
    folder = Path(folder)
    try:
        content = output.read_json(folder / PROVENANCE)
        grids = content.pop("grids")
        fixed, moving = (
            Grid(**{name: tuple(value) for name, value in grids[side].items()}) for side in ("fixed", "moving")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise InputError(
            f"{folder} holds no complete registration ({PROVENANCE}); run the registration again."
        ) from cause
    return Registration(read_transform(folder / TRANSFORM), read_transform(folder / INVERSE), fixed, moving, content)
