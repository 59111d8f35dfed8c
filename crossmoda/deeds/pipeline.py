"""The registration from end to end."""

import dataclasses
import functools
import threading
import time

import numpy as np
import SimpleITK as sitk

from crossmoda import device, provenance
from crossmoda.deeds import affine, deformable, kernels, threads
from crossmoda.deeds.levels import Level, Pyramid
from crossmoda.deeds.settings import Settings
from crossmoda.deeds.transform import Registration, affine_transform, field_transforms, matrix_of
from crossmoda.errors import InputError
from crossmoda.progress import Progress, part, report
from crossmoda.volume.grid import Grid, Volume

#: Less of the fixed image's foreground than this inside the moving image is no overlap.
_LEAST_OVERLAP = 0.02
#: Images of more cubic millimeters than this (a meter cubed) have a wrong spacing or would fill the memory.
_LARGEST_MM3 = 1e9
#: A level that weighs more displacements than this, of all control points together, would fill the memory.
_MOST_DISPLACEMENTS = 8e9
#: The progress hears something at least this often, seconds.
_SILENCE_SECONDS = 0.15


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    initial: sitk.Transform | None = None,
    progress: Progress | None = None,
) -> Registration:
    """See :func:`crossmoda.deeds.register`."""
    attentive = _Attentive(progress)
    with threads.attended(attentive.repeat):
        try:
            return _register(fixed, moving, settings, fixed_mask, moving_mask, initial, attentive)
        except RuntimeError as error:
            if settings.device == "cpu" or not device.ran_out_of_memory(error):
                raise
        device.free_unused_memory()
        attentive(0.0, "GPU memory ran out: on the CPU")
        on_cpu = dataclasses.replace(settings, device="cpu")
        return _register(fixed, moving, on_cpu, fixed_mask, moving_mask, initial, attentive)


class _Attentive:
    """A progress that can repeat what it told last, which gives the listener a chance to cancel."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._last = (0.0, "")
        self._when = time.monotonic()

    def __call__(self, fraction: float, message: str) -> None:
        self._last = fraction, message
        self._when = time.monotonic()
        report(self._progress, fraction, message)

    def repeat(self) -> None:
        """Tell the same again, unless it was told just now."""
        if time.monotonic() - self._when > _SILENCE_SECONDS:
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
    _check(fixed, fixed_mask, "fixed", settings)
    _check(moving, moving_mask, "moving", settings)
    matrix = np.eye(4) if initial is None else matrix_of(initial)
    processor, operations = kernels.choose(settings.device)
    record = provenance.Record("register", settings, device=device.describe(processor))
    warm_up(progress)
    report(progress, 0.02, "preparing the images")
    here, there = threads.both(
        functools.partial(Pyramid, fixed, operations, fixed_mask),
        functools.partial(Pyramid, moving, operations, moving_mask),
        at_once=operations.at_once,
    )
    if initial is None and settings.initialization == "center":
        matrix[:3, 3] = _center_of_mass(there) - _center_of_mass(here)
    _check_overlap(here, moving.grid, matrix)
    if settings.linear != "none":
        levels = [Level(*values, settings.units) for values in settings.linear_levels()]
        for number, level in enumerate(levels):
            message = f"linear registration, level {number + 1} of {len(levels)}"
            report(progress, 0.05 + 0.25 * number / len(levels), message)
            there.forget_codes(but=level)
            matrix = affine.refine(here, there, matrix, level, settings.linear == "rigid")
        _check_overlap(here, moving.grid, matrix)
    there.forget_codes()  # from here on only those of the moving image as the linear stage aligned it are compared
    transforms: list[sitk.Transform] = [affine_transform(matrix)]
    inverses: list[sitk.Transform] = [affine_transform(np.linalg.inv(matrix))]
    if settings.levels:
        levels = [Level(*values, settings.units) for values in settings.deformable_levels()]
        forward, backward = deformable.register(here, there, matrix, levels, settings.alpha, part(progress, 0.3, 0.98))
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
    array, grid = volume.array, volume.grid
    if array.ndim != 3:
        raise InputError(f"The {role} image has {array.ndim} dimensions; give a 3D image.")
    if not np.isfinite(array).all():
        raise InputError(f"The {role} image has values that are not finite (NaN or infinite); replace them first.")
    if array.min() == array.max():
        raise InputError(
            f"The {role} image is constant (every voxel is {array.flat[0]:g}); choose an image with content."
        )
    coarsest = max(spacing for spacing, _, _ in settings.linear_levels() + settings.deformable_levels())
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
    for spacing, radius, step in settings.linear_levels() + settings.deformable_levels():
        level = Level(spacing, radius, step, settings.units)
        working = level.working_grid(grid)
        controls = np.ceil(np.array(working.shape) / level.block(working)).prod()
        if controls * (2 * radius + 1) ** 3 > _MOST_DISPLACEMENTS:
            raise InputError(
                f"A grid spacing of {spacing:g} {settings.units} with a search radius of {radius} steps is too much "
                f"work for the {role} image; choose a wider spacing or a smaller radius."
            )
    if mask is None:
        return
    if not mask.grid.same_as(grid):
        raise InputError(
            f"The {role} mask lies on another grid than the {role} image; resample it onto the image's grid."
        )
    if not (mask.array > 0).any():
        raise InputError(f"The {role} mask is empty; leave it out or mark what should count.")


def _center_of_mass(pyramid: Pyramid) -> np.ndarray:
    """Return the center of the foreground, LPS mm: contrast has no say in it."""
    mask = pyramid.foreground
    index = np.argwhere(mask.array > 0.5).mean(axis=0)[::-1]
    return (mask.grid.index_to_physical @ [*index, 1])[:3]


def _check_overlap(fixed: Pyramid, moving: Grid, matrix: np.ndarray) -> None:
    index = np.argwhere(fixed.foreground.array > 0.5)[:, ::-1]
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
    if _WARM.is_set():
        return
    message = "loading the compiled program (compiled once, at the first use)"
    report(progress, 0.0, message)
    rng = np.random.default_rng(0)
    grid = Grid((20, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    operations = kernels.choose("cpu")[1]
    noise = Volume(rng.normal(size=grid.shape).astype(np.float32), grid)
    here, there = Pyramid(noise, operations), Pyramid(noise, operations)
    level = Level(4.0, 1, 2.0, "mm")
    report(progress, 0.005, message)
    affine.refine(here, there, np.eye(4), level, rigid=True)
    report(progress, 0.015, message)
    deformable.register(here, there, np.eye(4), [level], 1.0)
    _WARM.set()
