"""Registrations of atlases to a target: performed several at a time, sealed on disk, loaded again when finished."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda import cache, mind, volume
from crossmoda.anatomy import laterality
from crossmoda.errors import Cancelled, InputError
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.similarity import OUTSIDE, compare
from crossmoda.propagation.target import Prepare, Target
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box

#: ``register(fixed, moving, settings, initial=, progress=) -> Registration`` (see :mod:`crossmoda.deeds`)
Register = Callable[..., Any]

WARPED = "warped_label.nii.gz"
DISSIMILARITY = "dissimilarity.nii.gz"
INTENSITY = "intensity.nii.gz"

#: Maximum number of parallel registrations on the CPU, each with its images in memory, and on a GPU, where reading,
#: preparing and warping take most of the time.
_MAX_ON_CPU, _MAX_ON_GPU = 4, 8
#: GPU memory of a registration, GiB.
_GPU_GIB = 2.0


@dataclasses.dataclass(frozen=True)
class RegisteredAtlas:
    """An atlas on the target's grid."""

    atlas: Atlas
    mirrored: bool
    label_map: np.ndarray
    """(z, y, x) uint8 on the registered part of the target"""
    dissimilarity: np.ndarray
    """see :class:`crossmoda.propagation.similarity.Similarity`, as the next two"""
    intensity: np.ndarray
    quality: float
    seconds: float
    reused: bool

    @property
    def name(self) -> str:
        """The atlas's ID, marked when it is mirrored."""
        return folder_name(self.atlas.id, self.mirrored)

    @property
    def side(self) -> str | None:
        """The tumor side on the target."""
        return laterality.contralateral(self.atlas.side) if self.mirrored and self.atlas.side else self.atlas.side

    def dissimilarity_at(self, mask: np.ndarray) -> float:
        """Return the mean dissimilarity (0 to 1) over ``mask`` inside the field of view; NaN where that is empty."""
        bits = self.dissimilarity[mask]
        bits = bits[bits != OUTSIDE]
        return float(bits.mean() / mind.BITS) if bits.size else float("nan")


def folder_name(atlas: str, mirrored: bool) -> str:
    """Return the folder name of a registration."""
    return f"{atlas}_mirrored" if mirrored else atlas


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
) -> RegisteredAtlas:
    """Register an atlas to the target, warp its label map, and seal the step.

    A failure is sealed as well: the same files and parameters would only fail again.

    Args:
        target: the target.
        atlas: the atlas.
        step: its folder receives the warped label map, the image comparison and the seal.
        register: the registration program.
        registration_settings: its settings.
        prepare: crops and normalizes the atlas.
        mirrored: whether left and right of the atlas are exchanged first.
        align_centers: whether the initial transform aligns the centers of both prepared images (the same anatomy)
            instead of relying on their headers.
        keep_transform: whether the transforms are written as well; they map to and from the atlas's own file.
        progress: callback(fraction, message); raise Cancelled to abort.

    Raises:
        InputError: the atlas cannot be read, or cannot be registered to the target.
        CannotWrite: the disk is full or the folder is write-protected.

    """
    from crossmoda.deeds.files import center_alignment

    start = time.perf_counter()
    image, label_map = atlas.load(mirrored)
    moving = prepare(image, label_map)
    initial = center_alignment(target.prepared.grid, moving.grid) if align_centers else None
    try:
        registration = register(
            target.prepared, moving, registration_settings, initial=initial, progress=part(progress, 0.02, 0.85)
        )
        report(progress, 0.85, "warping the labels")
        # From its own grid, once; only where there are labels.
        warped = registration.warp_label_map(_crop_to_labels(label_map), target.part.grid).array
        if not warped.any():
            raise InputError(f"{atlas.id} does not overlap the target: none of its labels lies in the scan.")
    except InputError as cause:
        with storing(f"the registration of {atlas.id}"):
            step.begin()
            step.finish([], {"failed": str(cause)})
        raise
    similarity = compare(target, image, registration, warped)
    seconds = time.perf_counter() - start
    with storing(f"the registration of {atlas.id}"):
        step.begin()
        files = {WARPED: warped, DISSIMILARITY: similarity.dissimilarity, INTENSITY: similarity.intensity}
        for name, array in files.items():
            volume.write(Volume(array, target.part.grid), step.folder / name)
        transforms = _write_transforms(registration, image.grid if mirrored else None, step) if keep_transform else []
        step.finish([*files, *transforms], {"quality": similarity.quality, "seconds": round(seconds, 3)})
    report(progress, 1.0, "done")
    return RegisteredAtlas(atlas, mirrored, warped, *similarity, seconds, False)


def load_registration(atlas: Atlas, step: cache.Step, mirrored: bool) -> RegisteredAtlas | None:
    """Return the result of a finished :func:`register_atlas` from its folder; None where it is not finished.

    Raises:
        InputError: the registration is known to fail.

    """
    results = step.results()
    if results is None:
        return None
    if "failed" in results:
        raise InputError(results["failed"])
    warped, dissimilarity = (volume.read_label_map(step.folder / name).array for name in (WARPED, DISSIMILARITY))
    intensity = volume.read(step.folder / INTENSITY).array.astype(np.uint16)
    quality, seconds = results["quality"], results["seconds"]
    return RegisteredAtlas(atlas, mirrored, warped, dissimilarity, intensity, quality, seconds, True)


@contextlib.contextmanager
def storing(name: str) -> Iterator[None]:
    """Raise :class:`CannotWrite` where writing fails: a full disk is not the fault of an image."""
    try:
        yield
    except (InputError, OSError) as cause:
        raise CannotWrite(
            f"Cannot write {name}: {cause} Free some disk space and run again; finished registrations are reused."
        ) from cause


def _write_transforms(registration: Any, mirrored_grid: Grid | None, step: cache.Step) -> list[str]:
    """Write both transforms, for a mirrored atlas with the reflection of its grid; return their names."""
    from crossmoda.deeds.transform import INVERSE, TRANSFORM, parts_of, write_transform

    forward, inverse = registration.transform, registration.inverse_transform
    if mirrored_grid is not None:
        reflection = laterality.reflection(mirrored_grid)
        # The last transform of a composite is applied first.
        forward = sitk.CompositeTransform([reflection, *parts_of(forward)])
        inverse = sitk.CompositeTransform([*parts_of(inverse), reflection])
    write_transform(forward, step.folder / TRANSFORM)
    write_transform(inverse, step.folder / INVERSE)
    return [TRANSFORM, INVERSE]


def _crop_to_labels(label_map: Volume) -> Volume:
    """Return the smallest part of a label map with all its labels."""
    return label_map.crop(bounding_box(label_map.array > 0))


def default_parallel_registrations(registration: Any) -> int:
    """Return the number of registrations to perform at the same time on this machine."""
    from crossmoda import device
    from crossmoda.deeds.backend_cpu.threads import thread_count

    if device.choose(getattr(registration, "device", "cpu")) == "cpu":
        return min(thread_count(), _MAX_ON_CPU)
    return max(min(thread_count(), _MAX_ON_GPU, int(device.memory_gib("cuda") / _GPU_GIB)), 1)


def run_in_parallel(work: Any, items: Sequence[Any], parallel: int, progress: Progress | None) -> None:
    """Call ``work(item, progress)`` for each item, ``parallel`` at a time; report, and cancel, in this thread."""
    names = [f"atlas {number} of {len(items)}: " for number in range(1, len(items) + 1)]
    if parallel == 1 or len(items) == 1:
        for number, (name, item) in enumerate(zip(names, items, strict=True)):
            work(item, part(progress, number / len(items), (number + 1) / len(items), name))
        return
    fractions, messages, stop = [0.0] * len(items), ["waiting"], Event()

    def run_item(number: int) -> None:
        def report_item(fraction: float, message: str) -> None:
            if stop.is_set():
                raise Cancelled
            fractions[number], messages[0] = fraction, names[number] + message

        report_item(0.0, "reading")
        work(items[number], report_item)
        fractions[number] = 1.0

    with ThreadPoolExecutor(parallel, thread_name_prefix="registration") as pool:
        tasks = [pool.submit(run_item, number) for number in range(len(items))]
        try:
            waiting = set(tasks)
            while waiting:
                finished, waiting = wait(waiting, 0.2, FIRST_EXCEPTION)
                for task in finished:
                    task.result()
                report(progress, sum(fractions) / len(items), messages[0])
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
