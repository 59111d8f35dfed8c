"""Atlases: what they hold, and their registration to a target, found again when done before."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from crossmoda import cache, labels, mind, volume
from crossmoda.anatomy import laterality
from crossmoda.errors import InputError
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.similarity import OUTSIDE, compare
from crossmoda.propagation.target import Prepare, Target, part_of
from crossmoda.provenance import checksum
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: ``register(fixed, moving, settings, progress=...) -> Registration`` (see :mod:`crossmoda.deeds`)
Register = Callable[..., Any]

WARPED = "warped_label.nii.gz"
DISSIMILARITY = "dissimilarity.nii.gz"
INTENSITY = "intensity.nii.gz"


@dataclasses.dataclass(frozen=True)
class Atlas:
    """A labeled scan, examined."""

    case: "Case"
    sides: laterality.Sides
    side: str | None
    """the tumor's side; None where there is none or it is central"""
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
        raise InputError(f"{case.id}: {name} has no labeled voxel; label it or leave it out.")
    strange = sorted(values - set(labels.VALUES))
    if strange:
        known = ", ".join(f"{structure.value} ({structure.key})" for structure in labels.STRUCTURES)
        raise InputError(f"{case.id}: {name} has the label value {strange[0]}; expected {known}.")
    sides = laterality.find_sides(label_map)
    size = {
        structure.key: float(count[structure.value] * label_map.grid.voxel_volume_mm3)
        for structure in labels.STRUCTURES
    }
    return Atlas(case, sides, case.side or sides.tumor, size)


def examined(cases: "Sequence[Case | Atlas]") -> "list[Case | Atlas]":
    """Examine cases on all cores; those that cannot be used stay what they are."""
    from crossmoda.deeds.backend_cpu.threads import thread_count

    def attempt(case: "Case | Atlas") -> "Case | Atlas":
        try:
            return case if isinstance(case, Atlas) else examine(case)
        except InputError:
            return case

    with ThreadPoolExecutor(thread_count(), thread_name_prefix="examination") as pool:
        return list(pool.map(attempt, cases))


@dataclasses.dataclass(frozen=True)
class Registered:
    """An atlas on the target."""

    atlas: Atlas
    mirrored: bool
    label_map: np.ndarray
    """(z, y, x) uint8 on the target's part"""
    dissimilarity: np.ndarray
    """see :class:`crossmoda.propagation.similarity.Comparison`, as the next two"""
    intensity: np.ndarray
    quality: float
    seconds: float
    reused: bool
    """whether it was found finished"""

    @property
    def name(self) -> str:
        """The atlas's id, marked when it is mirrored."""
        return folder_name(self.atlas.id, self.mirrored)

    @property
    def side(self) -> str | None:
        """The tumor's side as registered."""
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
    align_centers: bool = False,
    keep_transform: bool = False,
    progress: Progress | None = None,
) -> Registered:
    """Register an atlas to the target, bring its label map there, and seal the step.

    That they cannot be registered is sealed as well: the same files and parameters would only fail again.

    Args:
        target: the target.
        atlas: the atlas.
        step: its folder receives the warped label map, the comparison of the images and the seal.
        register: the registration program.
        registration_settings: its settings.
        prepare: crops and normalizes the atlas.
        mirrored: whether left and right of the atlas are exchanged first.
        align_centers: whether the registration starts with the middles of both prepared images together (they are the
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
    initial = between_middles(target.prepared.grid, moving.grid) if align_centers else None
    try:
        registration = register(
            target.prepared, moving, registration_settings, initial=initial, progress=part(progress, 0.02, 0.85)
        )
        report(progress, 0.85, "warping the labels")
        # From its own grid, once; only where there are labels.
        warped = registration.warp_label_map(_around_labels(label_map), target.part.grid).array
        if not warped.any():
            raise InputError(f"{atlas.id} does not overlap the target: none of its labels lies in the scan.")
    except InputError as cause:
        with keeping(f"the registration of {atlas.id}"):
            step.begin()
            step.finish([], {"failed": str(cause)})
        raise
    difference, intensity, quality = compare(target, image, registration, warped)
    seconds = time.perf_counter() - start
    with keeping(f"the registration of {atlas.id}"):
        step.begin()
        files = [WARPED, DISSIMILARITY, INTENSITY]
        for name, array in zip(files, (warped, difference, intensity), strict=True):
            volume.write(Volume(array, target.part.grid), step.folder / name)
        if keep_transform:
            files += _write_transforms(registration, image.grid if mirrored else None, step.folder)
        step.finish(files, {"quality": quality, "seconds": round(seconds, 3)})
    report(progress, 1.0, "done")
    return Registered(atlas, mirrored, warped, difference, intensity, quality, seconds, False)


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
    intensity = volume.read(step.folder / INTENSITY).array.astype(np.uint16)
    return Registered(atlas, mirrored, warped, difference, intensity, done["quality"], done["seconds"], True)


@contextlib.contextmanager
def keeping(what: str) -> Iterator[None]:
    """Tell a full disk from the fault of an image."""
    try:
        yield
    except (InputError, OSError) as cause:
        raise CannotWrite(
            f"Cannot keep {what}: {cause} Free some space and run again; what is finished is kept."
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
    box = box_of(label_map.array > 0)
    return Volume(np.ascontiguousarray(label_map.array[box]), part_of(label_map.grid, box))


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of the smallest box that holds a mask."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)
