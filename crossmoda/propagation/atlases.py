"""Atlases: what they hold, and their registration to a target, found again when done before."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import cache, labels, mind, volume
from crossmoda.errors import InputError
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import laterality
from crossmoda.provenance import checksum
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: ``register(fixed, moving, settings, progress=...) -> Registration`` (see :mod:`crossmoda.deeds`)
Register = Callable[..., Any]
#: Returns the part of an image (with all labels of its label map) that is registered.
Prepare = Callable[[Volume, Volume | None], Volume]

WARPED = "warped_label.nii.gz"
DISSIMILARITY = "dissimilarity.nii.gz"
#: The value of a dissimilarity map outside the atlas's field of view; inside it is 0 to 60 (bits).
OUTSIDE = 255
#: How far around a structure images are compared, mm.
NEIGHBOURHOOD_MM = 3.0
#: Dissimilarity by chance is measured against copies moved this far, mm: farther than any structure's edge is thick.
_CHANCE_SHIFT_MM = 8.0
#: An atlas's field of view on the target is looked up once for every so many voxels along each axis.
_COARSE = 4


class CannotWrite(InputError):
    """The disk is full or the folder cannot be written: no fault of an atlas."""


@dataclasses.dataclass(frozen=True)
class Atlas:
    """A labelled scan, examined."""

    case: "Case"
    sides: laterality.Sides
    side: str | None
    """the tumour's side; None where there is none or it is central"""
    volumes_mm3: dict[str, float]
    """structure key -> volume"""

    @property
    def id(self) -> str:
        """The name of its case."""
        return self.case.id

    def key(self) -> list[str | None]:
        """Return what identifies its content."""
        return [checksum(self.case.image), checksum(self.case.label) if self.case.label else None, self.side]


def examine(case: "Case") -> Atlas:
    """Read and check a case's label map.

    Raises:
        InputError: there is no label map, it cannot be read, is empty, or holds values that are no structure's.

    """
    return _examine(case, checksum(case.label) if case.label is not None and case.label.exists() else "")


@functools.lru_cache(maxsize=1024)
def _examine(case: "Case", _content: str) -> Atlas:
    label_map = case.read_label()
    count = np.bincount(label_map.array[label_map.array != labels.BACKGROUND], minlength=256)
    values = set(np.flatnonzero(count).tolist())
    name = Path(case.label).name if case.label else ""
    if not values:
        raise InputError(f"{case.id}: {name} has no labelled voxel; label it or leave it out.")
    strange = sorted(values - set(labels.VALUES))
    if strange:
        known = ", ".join(f"{structure.value} ({structure.key})" for structure in labels.STRUCTURES)
        raise InputError(f"{case.id}: {name} has the label value {strange[0]}; expected {known}.")
    sides = laterality.find_sides(label_map)
    size = {
        structure.key: float(count[structure.value] * label_map.grid.voxel_volume_mm3)
        for structure in labels.STRUCTURES
    }
    return Atlas(case, sides, case.side or sides.tumour, size)


@dataclasses.dataclass(frozen=True)
class Target:
    """The scan to be labelled: what is registered, and where the labels go."""

    id: str
    key: str
    """the checksum of its file"""
    image: Volume
    """the scan as it is"""
    prepared: Volume
    """what is registered: cropped, resampled, normalised"""
    box: tuple[slice, ...]
    """the part of the scan's array that receives labels"""
    part: Volume
    """that part of the scan"""
    codes: np.ndarray
    """MIND-SSC of that part, packed"""


def load_target(case: "Case", prepare: Prepare) -> Target:
    """Read the target and cut out the part of its own grid that the prepared image covers."""
    return as_target(case.id, checksum(case.image), case.read_image(), prepare)


def as_target(identity: str, key: str, image: Volume, prepare: Prepare) -> Target:
    """Return an image as a target: what is registered, and the part of its grid that this covers."""
    prepared = prepare(image, None)
    box = _covered_box(image.grid, prepared.grid)
    cropped = Volume(np.ascontiguousarray(image.array[box]), part_of(image.grid, box))
    return Target(identity, key, image, prepared, box, cropped, mind.codes(cropped.array))


def _covered_box(grid: Grid, inner: Grid) -> tuple[slice, ...]:
    """Return the slices (z, y, x) of ``grid`` that hold the box of ``inner``."""
    corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners[:, :3] = corners[:, :3] * np.asarray(inner.size) - 0.5
    index = (corners @ inner.index_to_physical.T @ grid.physical_to_index.T)[:, :3]
    low = np.clip(np.ceil(index.min(axis=0) - 1e-3), 0, None).astype(int)
    high = np.clip(np.floor(index.max(axis=0) + 1e-3) + 1, None, grid.size).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))


def part_of(grid: Grid, box: tuple[slice, ...]) -> Grid:
    """Return the grid of a box (slices of z, y, x) of a grid."""
    first = [part.start for part in reversed(box)]
    size = tuple(part.stop - part.start for part in reversed(box))
    origin = grid.index_to_physical @ [*first, 1.0]
    return Grid(size, grid.spacing, tuple(float(value) for value in origin[:3]), grid.direction)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Registered:
    """An atlas on the target."""

    atlas: Atlas
    mirrored: bool
    label_map: np.ndarray
    """(z, y, x) uint8 on the target's part"""
    dissimilarity: np.ndarray
    """(z, y, x) uint8: differing bits of MIND-SSC (of 60) around the structures, 0 elsewhere; :data:`OUTSIDE` where the
    atlas has no voxel"""
    quality: float
    """1 - dissimilarity around the structures / dissimilarity by chance: 0 is chance, 1 the same image"""
    seconds: float
    reused: bool
    """whether it was found finished"""

    @property
    def name(self) -> str:
        """The atlas's id, marked when it is mirrored."""
        return folder_name(self.atlas.id, self.mirrored)

    @property
    def side(self) -> str | None:
        """The tumour's side as registered."""
        return laterality.other(self.atlas.side) if self.mirrored and self.atlas.side else self.atlas.side

    def dissimilarity_at(self, mask: np.ndarray) -> float:
        """Return the mean dissimilarity (0 to 1) over ``mask`` inside the field of view; NaN where that is empty."""
        bits = self.dissimilarity[mask]
        bits = bits[bits != OUTSIDE]
        return float(bits.mean() / mind.BITS) if bits.size else float("nan")


def folder_name(identity: str, mirrored: bool) -> str:
    """Return the name of the folder of a registration."""
    return f"{identity}_mirrored" if mirrored else identity


def register_atlas(
    target: Target,
    atlas: Atlas,
    step: cache.Step,
    *,
    register: Register,
    registration_settings: Any,
    prepare: Prepare,
    mirrored: bool = False,
    align_centres: bool = False,
    keep_transform: bool = False,
    progress: Progress | None = None,
) -> Registered:
    """Register an atlas to the target, bring its label map there, and seal the step.

    That they cannot be registered is sealed as well: the same files and parameters would only fail again.

    Args:
        target: the target.
        atlas: the atlas.
        step: its folder receives the warped label map, the dissimilarity map and the seal.
        register: the registration program.
        registration_settings: its settings.
        prepare: crops and normalises the atlas.
        mirrored: whether left and right of the atlas are exchanged first.
        align_centres: whether the registration starts with the middles of both prepared images together (they are the
            same place of the body) instead of where their headers place them.
        keep_transform: whether the transforms are kept as well, as they map to and from the atlas's own file.
        progress: is told what is done; may cancel.

    Raises:
        InputError: the atlas cannot be read, or cannot be registered to the target.
        CannotWrite: the disk is full or the folder cannot be written.

    """
    start = time.perf_counter()
    image, label_map = _load_atlas(atlas, mirrored)
    moving = prepare(image, label_map)
    initial = between_middles(target.prepared.grid, moving.grid) if align_centres else None
    try:
        registration = register(
            target.prepared, moving, registration_settings, initial=initial, progress=part(progress, 0.02, 0.85)
        )
        report(progress, 0.85, "warping the labels")
        # From its own grid, once; only where there are labels.
        warped = registration.warp_label_map(_around_labels(label_map), target.part.grid).array
        if not warped.any():
            raise InputError(f"{atlas.id} does not overlap the target: none of its labels lies in the scan.")
    except (InputError, np.linalg.LinAlgError) as cause:
        why = str(cause)
        if isinstance(cause, np.linalg.LinAlgError):
            why = f"{atlas.id} has too little in common with the target for a linear registration."
        with _keeping(atlas):
            step.begin()
            step.finish([], {"failed": why})
        raise InputError(why) from cause
    difference, quality = compare(target, image, registration, warped)
    seconds = time.perf_counter() - start
    with _keeping(atlas):
        step.begin()
        files = [WARPED, DISSIMILARITY]
        for name, array in zip(files, (warped, difference), strict=True):
            volume.write(Volume(array, target.part.grid), step.folder / name)
        if keep_transform:
            files += _write_transforms(registration, image.grid if mirrored else None, step.folder)
        step.finish(files, {"quality": quality, "seconds": round(seconds, 3)})
    report(progress, 1.0, "done")
    return Registered(atlas, mirrored, warped, difference, quality, seconds, False)


def found(atlas: Atlas, step: cache.Step, mirrored: bool) -> Registered | None:
    """Return what :func:`register_atlas` left in the folder of a finished step; None where it is not finished.

    Raises:
        InputError: it is known that the atlas cannot be registered to the target.

    """
    done = step.results()
    if done is None:
        return None
    if "failed" in done:
        raise InputError(done["failed"])
    warped, difference = (volume.read_label_map(step.folder / name).array for name in (WARPED, DISSIMILARITY))
    return Registered(atlas, mirrored, warped, difference, done["quality"], done["seconds"], True)


@contextlib.contextmanager
def _keeping(atlas: Atlas) -> Iterator[None]:
    """Tell a full disk from the fault of an atlas."""
    try:
        yield
    except (InputError, OSError) as cause:
        raise CannotWrite(
            f"Cannot keep the registration of {atlas.id}: {cause} Free some space and run again; "
            "what is finished is kept."
        ) from cause


def _write_transforms(registration: Any, mirrored_in: Grid | None, folder: Path) -> list[str]:
    """Write both transforms, for a mirrored atlas with the reflection of its grid; return their names."""
    from crossmoda.deeds.transform import INVERSE, TRANSFORM, parts_of, write_transform

    there, back = registration.transform, registration.inverse_transform
    if mirrored_in is not None:
        reflection = laterality.reflection(mirrored_in)
        # The last transform of a composite is applied first.
        there = sitk.CompositeTransform([reflection, *parts_of(there)])
        back = sitk.CompositeTransform([*parts_of(back), reflection])
    write_transform(there, folder / TRANSFORM)
    write_transform(back, folder / INVERSE)
    return [TRANSFORM, INVERSE]


def between_middles(fixed: Grid, moving: Grid) -> sitk.Transform:
    """Return the translation that maps the middle of one grid to that of another."""
    middles = [grid.index_to_physical @ [*((np.asarray(grid.size) - 1) / 2), 1.0] for grid in (fixed, moving)]
    return sitk.TranslationTransform(3, (middles[1] - middles[0])[:3].tolist())


def _load_atlas(atlas: Atlas, mirrored: bool) -> tuple[Volume, Volume]:
    image = atlas.case.read_image()
    label_map = atlas.case.read_label(image)
    if not image.grid.same_as(label_map.grid):
        label_map = volume.resample(label_map, image.grid, interpolation="label")
        if not label_map.array.any():
            raise InputError(f"{atlas.id}: the label map lies outside the image; check that they belong together.")
    label_map = Volume(label_map.array, image.grid)
    return (laterality.mirrored(image), laterality.mirrored(label_map)) if mirrored else (image, label_map)


def _around_labels(label_map: Volume) -> Volume:
    """Return the part of a label map that holds its labels."""
    box = _box_of(label_map.array > 0)
    return Volume(np.ascontiguousarray(label_map.array[box]), part_of(label_map.grid, box))


def _box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of the smallest box that holds a mask."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def compare(target: Target, image: Volume, registration: Any, label_map: np.ndarray) -> tuple[np.ndarray, float]:
    """Compare the warped atlas with the target around its structures: the dissimilarity map, and the quality.

    Dissimilarity is the number of differing bits of MIND-SSC; quality relates its mean to that of the warped atlas
    moved by some mm along each axis, which is what images of the same texture have in common by chance.

    Args:
        target: the target.
        image: the atlas.
        registration: the atlas's registration to the target.
        label_map: its warped label map, (z, y, x) on the target's part.

    """
    grid = target.part.grid
    inside = _field_of_view(image, grid, registration.transform) | (label_map > 0)
    bits = np.where(inside, np.uint8(0), np.uint8(OUTSIDE))
    near = neighbourhood(label_map > 0, grid) & inside
    shifts = [max(1, round(_CHANCE_SHIFT_MM / spacing)) for spacing in grid.spacing_zyx]
    aligned, chance = [], []
    pieces = ndimage.label(near, np.ones((3, 3, 3)))[0]
    for number, piece in enumerate(ndimage.find_objects(pieces), start=1):
        # With what MIND-SSC looks at around a voxel, and with where the voxels are moved.
        box = tuple(
            slice(max(side.start - shift - 2, 0), min(side.stop + shift + 2, size))
            for side, shift, size in zip(piece, shifts, near.shape, strict=True)
        )
        mask = pieces[box] == number
        expected = target.codes[box][mask]
        codes = mind.codes(registration.warp_image(image, part_of(grid, box)).array)
        aligned.append(mind.hamming(expected, codes[mask]).astype(np.uint8))
        bits[box][mask] = aligned[-1]
        moved = [
            (axis, step) for axis, shift in enumerate(shifts) if shift < mask.shape[axis] for step in (shift, -shift)
        ]
        chance += [mind.hamming(expected, np.roll(codes, step, axis=axis)[mask]) for axis, step in moved]
    if not aligned:
        return bits, 0.0
    by_chance = float(np.concatenate(chance).mean()) if chance else mind.BITS / 3
    return bits, 1.0 - float(np.concatenate(aligned).mean()) / max(by_chance, 1e-6)


def _field_of_view(image: Volume, grid: Grid, transform: sitk.Transform) -> np.ndarray:
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


def neighbourhood(mask: np.ndarray, grid: Grid, distance_mm: float = NEIGHBOURHOOD_MM) -> np.ndarray:
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
