"""The registrations of atlases to one target: performed several at a time, sealed on disk, loaded when finished."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from crossmoda import cache, mind, volume
from crossmoda.anatomy import contralateral, laterality
from crossmoda.errors import Cancelled, InputError
from crossmoda.output import CannotWrite
from crossmoda.preprocessing import in_lps_order
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.frames import atlas_frames
from crossmoda.propagation.initial_alignment import InitialAlignment
from crossmoda.propagation.settings import Settings
from crossmoda.propagation.similarity import OUTSIDE, compare
from crossmoda.propagation.storage import storing
from crossmoda.propagation.target import Target, load_target
from crossmoda.provenance import checksum
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box
from crossmoda.volume.transforms import parts_of

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: See :func:`crossmoda.propagation.target.load_target`.
Load = Callable[["Case", str, str, str, Path], Target]
#: ``register(fixed, moving, settings, initial=, progress=) -> Registration`` (see :mod:`crossmoda.deeds`)
Register = Callable[..., Any]

#: In the folder of a target: its registrations, the linear ones, and its comparison with the contralateral side.
REGISTRATIONS, LINEAR, CONTRALATERAL = "registrations", "linear", "contralateral"
#: The files of a registration.
WARPED = "warped_label.nii.gz"
DISSIMILARITY = "dissimilarity.nii.gz"
INTENSITY = "intensity.nii.gz"
#: Bump to invalidate cached registrations.
REVISION = 10

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
        return PlannedRegistration(self.atlas, self.mirrored).side

    def dissimilarity_at(self, mask: np.ndarray) -> float:
        """Return the mean dissimilarity (0 to 1) over ``mask`` inside the field of view; NaN where that is empty."""
        bits = self.dissimilarity[mask]
        bits = bits[bits != OUTSIDE]
        return float(bits.mean() / mind.BITS) if bits.size else float("nan")


def folder_name(atlas: str, mirrored: bool) -> str:
    """Return the folder name of a registration."""
    return f"{atlas}_mirrored" if mirrored else atlas


def _write_transforms(registration: Any, mirrored_grid: Grid | None, step: cache.CachedStep) -> list[str]:
    """Write both transforms, for a mirrored atlas with the reflection of its grid; return their names."""
    from crossmoda.deeds.transform import INVERSE, TRANSFORM, write_transform

    forward, inverse = registration.transform, registration.inverse_transform
    if mirrored_grid is not None:
        reflection = laterality.reflection(mirrored_grid)
        # The last transform of a composite is applied first.
        forward = sitk.CompositeTransform([reflection, *parts_of(forward)])
        inverse = sitk.CompositeTransform([*parts_of(inverse), reflection])
    write_transform(forward, step.folder / TRANSFORM)
    write_transform(inverse, step.folder / INVERSE)
    return [TRANSFORM, INVERSE]


class PlannedRegistration(NamedTuple):
    """A registration to the target."""

    atlas: Atlas
    mirrored: bool = False
    linear: bool = False
    """without the deformable part, for the selection of atlases"""

    @property
    def key(self) -> tuple[str, bool, bool]:
        """The identity among the registrations of one target."""
        return self.atlas.id, self.mirrored, self.linear

    @property
    def side(self) -> str | None:
        """The tumor side on the target."""
        return laterality.contralateral(self.atlas.side) if self.mirrored and self.atlas.side else self.atlas.side


class Registrations:
    """The registrations of atlases to one target, and of the target to its mirror image, in the target's folder."""

    def __init__(
        self,
        case: "Case",
        folder: Path,
        settings: Settings,
        registration: Any,
        register: Register,
        *,
        load: "Load" = load_target,
    ):
        """Start with the arguments of :class:`crossmoda.propagation.run.Run`; nothing is read."""
        self.case, self.folder, self.settings = case, folder, settings
        self.registration, self._register_program = registration, register
        self._load = load
        self._target: Target | None = None
        self._results: dict[tuple[str, bool, bool], RegisteredAtlas | str] = {}

    @property
    def target(self) -> Target:
        """The target, read once."""
        if self._target is None:
            key, settings = checksum(self.case.image), self.settings
            self._target = self._load(self.case, key, settings.initialization, settings.region, self.folder)
        return self._target

    @property
    def alignment(self) -> InitialAlignment:
        """Where the registrations to the target start."""
        return InitialAlignment(self.target, self.folder, self.settings.initialization)

    def _step(self, planned: PlannedRegistration) -> cache.CachedStep:
        """Return the step of a registration; it is independent of the other atlases."""
        folder = self.folder / REGISTRATIONS / (LINEAR if planned.linear else "")
        return cache.CachedStep(
            folder / folder_name(planned.atlas.id, planned.mirrored),
            revision=REVISION,
            target=checksum(self.case.image),
            atlas=planned.atlas.key(),
            mirrored=planned.mirrored,
            registration=self._settings_of(planned),
            initialization=self.settings.initialization,
            region=self.settings.region,
            keep_transform=self._keeps_transform(planned),
        )

    def _settings_of(self, planned: PlannedRegistration) -> Any:
        return dataclasses.replace(self.registration, levels=0) if planned.linear else self.registration

    def _keeps_transform(self, planned: PlannedRegistration) -> bool:
        return self.settings.keep_transforms and not planned.linear

    def is_finished(self, planned: PlannedRegistration) -> bool:
        """Whether a registration is done, in this run or on disk."""
        return planned.key in self._results or self._step(planned).results() is not None

    def locate(self, atlases: Sequence[Atlas], progress: Progress | None = None) -> None:
        """Locate the ears of atlases, several at a time, where registrations start from them."""
        if self.target.frames is None:
            return

        def work(atlas: Atlas, _: Progress | None) -> None:
            with contextlib.suppress(InputError):  # its registration states the reason
                atlas_frames(atlas, self.folder)

        run_in_parallel(work, atlases, default_parallel_registrations(self.registration), progress)

    def register(
        self, pending: Sequence[PlannedRegistration], progress: Progress | None = None, parallel: int | None = None
    ) -> None:
        """Perform registrations, ``parallel`` at a time; failures are remembered.

        Raises:
            CannotWrite: the disk is full or the folder is write-protected.

        """
        _ = self.target  # read once, before the threads need it

        def work(planned: PlannedRegistration, progress: Progress | None) -> None:
            try:
                self._results[planned.key] = self._register(planned, progress)
            except CannotWrite:
                raise
            except InputError as cause:
                self._results[planned.key] = str(cause)

        run_in_parallel(work, pending, parallel or default_parallel_registrations(self.registration), progress)

    def _register(self, planned: PlannedRegistration, progress: Progress | None) -> RegisteredAtlas:
        """Register an atlas to the target, warp its label map, and seal the step.

        A failure is sealed as well: the same files and parameters would only fail again.
        """
        start, step = time.perf_counter(), self._step(planned)
        atlas, mirrored, _ = planned
        image, label_map = atlas.load(mirrored)
        try:
            frames = self.alignment.frames_of(atlas, image.grid if mirrored else None)
            moving = self.alignment.registered_part(image, label_map, frames)
            registration = self._register_program(
                in_lps_order(self.target.part),
                in_lps_order(moving),
                self._settings_of(planned),
                initial=self.alignment.transform(frames, moving),
                progress=part(progress, 0.02, 0.85),
            )
            report(progress, 0.85, "warping the labels")
            labeled = label_map.crop(bounding_box(label_map.array > 0))
            warped = registration.warp_label_map(labeled, self.target.part.grid).array
            if not warped.any():
                raise InputError(f"{atlas.id} does not overlap the target: none of its labels lies in the scan.")
        except InputError as cause:
            with storing(f"the registration of {atlas.id}"):
                step.begin()
                step.finish([], {"failed": str(cause)})
            raise
        similarity = compare(self.target, image, registration, warped)
        seconds = time.perf_counter() - start
        with storing(f"the registration of {atlas.id}"):
            step.begin()
            files = {WARPED: warped, DISSIMILARITY: similarity.dissimilarity, INTENSITY: similarity.intensity}
            for name, array in files.items():
                volume.write(Volume(array, self.target.part.grid), step.folder / name)
            names = [*files]
            if self._keeps_transform(planned):
                names += _write_transforms(registration, image.grid if mirrored else None, step)
            step.finish(names, {"quality": similarity.quality, "seconds": round(seconds, 3)})
        report(progress, 1.0, "done")
        return RegisteredAtlas(atlas, mirrored, warped, *similarity, seconds, False)

    def result(self, planned: PlannedRegistration) -> RegisteredAtlas | str:
        """Return a finished registration, or the reason of its failure."""
        if planned.key not in self._results:
            self._results[planned.key] = self._load_result(planned)
        return self._results[planned.key]

    def _load_result(self, planned: PlannedRegistration) -> RegisteredAtlas | str:
        step = self._step(planned)
        try:
            results = step.results()
            if results is None or "failed" in results:
                return "was not registered." if results is None else str(results["failed"])
            warped, dissimilarity = (
                volume.read_label_map(step.folder / name).array for name in (WARPED, DISSIMILARITY)
            )
            intensity = volume.read(step.folder / INTENSITY).array.astype(np.uint16)
        except InputError as cause:
            return str(cause)
        quality, seconds = results["quality"], results["seconds"]
        return RegisteredAtlas(
            planned.atlas, planned.mirrored, warped, dissimilarity, intensity, quality, seconds, True
        )

    def contralateral_comparison(self, progress: Progress | None = None) -> contralateral.ContralateralComparison:
        """Return the target compared with its contralateral side; it is registered to its mirror image once.

        Raises:
            InputError: the target cannot be registered to its mirror image.
            CannotWrite: the disk is full or the folder is write-protected.

        """
        target, settings = self.target.part, self.registration
        step = cache.CachedStep(
            self.folder / CONTRALATERAL,
            revision=REVISION,
            target=checksum(self.case.image),
            registration=settings,
            initialization=self.settings.initialization,
            region=self.settings.region,
        )
        file = step.folder / contralateral.FILE
        if step.results() is None:
            initial = self.alignment.mirror_image()
            brightness = contralateral.contralateral_brightness(
                target, self._register_program, settings, initial, progress
            )
            with storing("the contralateral comparison"):
                step.begin()
                volume.write(contralateral.quantized(brightness, target), file)
                step.finish([contralateral.FILE], {})
        stored = contralateral.dequantized(volume.read(file))
        ipsilateral, mean = contralateral.brightness(target)
        return contralateral.ContralateralComparison(ipsilateral, stored, self.case.modality, mean)


def default_parallel_registrations(registration: Any) -> int:
    """Return the number of registrations to perform at the same time on this machine."""
    from crossmoda import device
    from crossmoda.threads import thread_count

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
