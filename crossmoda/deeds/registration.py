"""The registration of two images from end to end."""

import dataclasses
import functools
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from crossmoda import device, provenance
from crossmoda.deeds.settings import Settings
from crossmoda.deeds.transform import Registration, field_transforms
from crossmoda.errors import InputError
from crossmoda.progress import Progress, part, report
from crossmoda.volume.grid import Grid, Volume
from crossmoda.volume.transforms import affine_transform, matrix_of

if TYPE_CHECKING:
    from crossmoda.deeds.pyramid import Pyramid

#: Images overlap where at least this fraction of the fixed image's foreground lies inside the moving image.
_LEAST_OVERLAP = 0.02
#: About so many points of the foreground tell whether they do.
_OVERLAP_SAMPLES = 5000
#: Images of more cubic millimeters than this (a meter cubed) have a wrong spacing or would fill the memory.
_LARGEST_MM3 = 1e9
#: A level with more displacements than this, over all control points, would fill the memory.
_MOST_DISPLACEMENTS = 8e9
#: The longest time between two reports of progress, seconds.
_SILENCE_SECONDS = 0.15


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    initial: sitk.Transform | None = None,
    progress: Progress | None = None,
) -> Registration:
    """Register ``moving`` to ``fixed``: return the transforms between their points.

    The images may differ in contrast, size, spacing, origin and direction; each is sampled from its own grid.

    Args:
        fixed: the target image, whose space the result lies in.
        moving: the atlas image.
        settings: the parameters.
        fixed_mask: the region compared in the fixed image, on its grid; None for all but the air around the patient.
        moving_mask: the same for the moving image.
        initial: a linear transform from fixed to moving points (LPS mm), used instead of the headers as the start.
        progress: callback(fraction, message); raise :class:`crossmoda.errors.Cancelled` to abort.

    Returns:
        The transforms in both directions, each the inverse of the other.

    Raises:
        InputError: an image is constant, not finite or too small, the images do not overlap or have nothing in common,
            a mask is empty or lies on a different grid, or ``initial`` is not linear.

    """
    from crossmoda import threads

    repeating = _RepeatingProgress(progress)
    with threads.attended(repeating.repeat):
        try:
            return _register(fixed, moving, settings, fixed_mask, moving_mask, initial, repeating)
        except RuntimeError as error:
            if settings.device == "cpu" or not device.ran_out_of_memory(error):
                raise
        device.free_unused_memory()
        repeating(0.0, "GPU memory ran out: on the CPU")
        on_cpu = dataclasses.replace(settings, device="cpu")
        return _register(fixed, moving, on_cpu, fixed_mask, moving_mask, initial, repeating)


class _RepeatingProgress:
    """Progress that repeats its last report during long steps, so that they can be cancelled."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._last = (0.0, "")
        self._reported_at = time.monotonic()

    def __call__(self, fraction: float, message: str) -> None:
        self._last = fraction, message
        self._reported_at = time.monotonic()
        report(self._progress, fraction, message)

    def repeat(self) -> None:
        """Repeat the last report, unless it was made just now."""
        if time.monotonic() - self._reported_at > _SILENCE_SECONDS:
            self(*self._last)


def _register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    fixed_mask: Volume | None,
    moving_mask: Volume | None,
    initial: sitk.Transform | None,
    progress: Progress,
) -> Registration:
    from crossmoda import threads
    from crossmoda.deeds import affine, backend, deformable
    from crossmoda.deeds.pyramid import Level, Pyramid

    _check(fixed, fixed_mask, "fixed", settings)
    _check(moving, moving_mask, "moving", settings)
    matrix = np.eye(4) if initial is None else matrix_of(initial)
    processor, operations = backend.choose(settings.device)
    record = provenance.Record("register", settings, device=device.describe(processor))
    warm_up(progress)
    report(progress, 0.02, "preparing the images")
    fixed_pyramid, moving_pyramid = threads.both(
        functools.partial(Pyramid, fixed, operations, fixed_mask),
        functools.partial(Pyramid, moving, operations, moving_mask),
        at_once=operations.at_once,
    )
    _check_overlap(fixed_pyramid, moving.grid, matrix)
    if settings.linear != "none":
        levels = [Level(*values, settings.units) for values in settings.linear_levels()]
        for number, level in enumerate(levels):
            message = f"linear registration, level {number + 1} of {len(levels)}"
            report(progress, 0.05 + 0.25 * number / len(levels), message)
            moving_pyramid.forget_codes(but=level)
            matrix = affine.refine(fixed_pyramid, moving_pyramid, matrix, level, settings.linear == "rigid")
        _check_overlap(fixed_pyramid, moving.grid, matrix)
    moving_pyramid.forget_codes()  # the deformable stage compares codes of the linearly aligned moving image
    transforms: list[sitk.Transform] = [affine_transform(matrix)]
    inverses: list[sitk.Transform] = [affine_transform(np.linalg.inv(matrix))]
    if settings.levels:
        levels = [Level(*values, settings.units) for values in settings.deformable_levels()]
        forward, backward = deformable.register(
            fixed_pyramid, moving_pyramid, matrix, levels, settings.alpha, part(progress, 0.3, 0.98)
        )
        bend, unbend = field_transforms(forward.array, backward.array, forward.grid)
        transforms.append(bend)
        inverses.insert(0, unbend)
    report(progress, 1.0, "registered")
    return Registration(
        sitk.CompositeTransform(transforms),
        sitk.CompositeTransform(inverses),
        fixed.grid,
        moving.grid,
        record.finish(),
    )


def _check(volume: Volume, mask: Volume | None, role: str, settings: Settings) -> None:
    from crossmoda.deeds.pyramid import Level

    array, grid = volume.array, volume.grid
    if array.ndim != 3:
        raise InputError(f"The {role} image has {array.ndim} dimensions; give a 3D image.")
    if not np.isfinite(array).all():
        raise InputError(f"The {role} image has values that are not finite (NaN or infinite); replace them first.")
    if array.min() == array.max():
        raise InputError(
            f"The {role} image is constant (every voxel is {array.flat[0]:g}); choose an image with content."
        )
    levels = [Level(*values, settings.units) for values in settings.linear_levels() + settings.deformable_levels()]
    coarsest = max(level.spacing for level in levels)
    unit = (1.0, 1.0, 1.0) if settings.units == "voxel" else grid.spacing
    extent = [count * size for count, size in zip(grid.size, unit, strict=True)]
    if min(extent) < coarsest:
        raise InputError(
            f"The {role} image is too small, {' x '.join(f'{length:g}' for length in extent)} {settings.units}: less "
            f"than the coarsest grid spacing of {coarsest:g} {settings.units}; choose a larger image."
        )
    if settings.units == "mm" and np.prod(extent) > _LARGEST_MM3:
        raise InputError(
            f"The {role} image is too large, {' x '.join(f'{length:g}' for length in extent)} mm; check the spacing in "
            "its header, or crop it."
        )
    for level in levels:
        working = level.working_grid(grid)
        controls = np.ceil(np.array(working.shape) / level.block(working)).prod()
        if controls * (2 * level.steps + 1) ** 3 > _MOST_DISPLACEMENTS:
            raise InputError(
                f"A grid spacing of {level.spacing:g} {settings.units} with a search radius of {level.steps} steps is "
                f"too much work for the {role} image; choose a wider spacing or a smaller radius."
            )
    if mask is None:
        return
    if not mask.grid.same_as(grid):
        raise InputError(
            f"The {role} mask lies on another grid than the {role} image; resample it onto the image's grid."
        )
    if not (mask.array > 0).any():
        raise InputError(f"The {role} mask is empty; leave it out or mark what should count.")


def center_alignment(fixed: Volume, moving: Volume) -> sitk.Transform:
    """Return the translation (LPS mm) that maps the center of the fixed image's foreground to the moving image's."""
    return sitk.TranslationTransform(3, (_center_of_mass(moving) - _center_of_mass(fixed)).tolist())


def _center_of_mass(image: Volume) -> np.ndarray:
    """Return the center of the foreground, LPS mm: independent of contrast."""
    from crossmoda.deeds.pyramid import foreground

    mask = foreground(image)
    return mask.grid.to_lps(np.argwhere(mask.array > 0.5).mean(axis=0)[::-1])


def _check_overlap(fixed: "Pyramid", moving: Grid, matrix: np.ndarray) -> None:
    index = np.argwhere(fixed.foreground.array > 0.5)[:, ::-1]
    index = index[:: max(len(index) // _OVERLAP_SAMPLES, 1)].astype(np.float64)
    to_moving = moving.physical_to_index @ matrix @ fixed.foreground.grid.index_to_physical
    landed = index @ to_moving[:3, :3].T + to_moving[:3, 3]
    inside = ((landed > -0.5) & (landed < np.array(moving.size) - 0.5)).all(axis=1).mean()
    if inside < _LEAST_OVERLAP:
        raise InputError(
            "The fixed and the moving image do not overlap in space; start with initialization 'center' or give an "
            "initial transform."
        )


_WARM = threading.Event()


def warm_up(progress: Progress | None = None) -> None:
    """Load the compiled parts of the program, or compile them if this is the first use on this machine.

    Every compiled function runs once on a tiny pair.
    """
    from crossmoda.deeds import affine, backend, deformable
    from crossmoda.deeds.pyramid import Level, Pyramid

    if _WARM.is_set():
        return
    message = "loading the compiled program (compiled once, at the first use)"
    report(progress, 0.0, message)
    rng = np.random.default_rng(0)
    grid = Grid((20, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    _, operations = backend.choose("cpu")
    noise = Volume(rng.normal(size=grid.shape).astype(np.float32), grid)
    fixed, moving = Pyramid(noise, operations), Pyramid(noise, operations)
    level = Level(4.0, 1, 2.0, "mm")
    report(progress, 0.005, message)
    affine.refine(fixed, moving, np.eye(4), level, rigid=True)
    report(progress, 0.015, message)
    deformable.register(fixed, moving, np.eye(4), [level], 1.0)
    _WARM.set()
