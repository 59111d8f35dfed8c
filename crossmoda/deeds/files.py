"""Registration of image files: what ``crossmoda register`` and the CLI module do."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda import labels, provenance, threads, volume
from crossmoda.anatomy.ear_alignment import alignment, ears_box, labeled_ear_frames
from crossmoda.anatomy.ear_frame import EarFrames, ear_frames
from crossmoda.dataset import label_reading
from crossmoda.deeds import center_alignment, register
from crossmoda.deeds.registration import warm_up
from crossmoda.deeds.settings import Settings
from crossmoda.deeds.transform import (
    INVERSE,
    PROVENANCE,
    TRANSFORM,
    WARPED,
    WARPED_LABEL,
    Registration,
    read_transform,
    write_transform,
)
from crossmoda.errors import InputError
from crossmoda.output import atomic, check_apart
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform

#: Files written at the same time: one is compressed while the next one is computed.
_WRITERS = 2


@dataclasses.dataclass(frozen=True)
class RegistrationSettings(Settings):
    """Parameters of the registration of image files."""

    region: str = parameter(
        "auto",
        "Region: ears (auto: if a cochlea is labeled), or whole scan (keeps label values)",
        choices=("auto", "ears", "whole"),
    )
    initialization: str = parameter(
        "header",
        "Initial alignment of whole scans: image headers, or centers of mass",
        choices=("header", "center"),
    )


@dataclasses.dataclass(frozen=True)
class RegistrationOutputs:
    """The files to write; None leaves one out."""

    transform: Path | str | None = None
    """fixed points to moving points, ITK composite (.h5)"""
    inverse: Path | str | None = None
    """moving points to fixed points (.h5)"""
    warped: Path | str | None = None
    """the moving image on the fixed grid"""
    warped_label: Path | str | None = None
    """the moving label map on the fixed grid"""
    displacement_field: Path | str | None = None
    """the transform as a displacement field on the fixed grid (.nrrd, .nii.gz)"""
    provenance: Path | str | None = None
    """version, parameters, inputs, seconds, statistics (.json)"""

    @classmethod
    def in_folder(cls, folder: Path | str, label: bool) -> "RegistrationOutputs":
        """Return the standard names in ``folder``, which :func:`crossmoda.deeds.load` reads."""
        folder = Path(folder)
        return cls(
            transform=folder / TRANSFORM,
            inverse=folder / INVERSE,
            warped=folder / WARPED,
            warped_label=folder / WARPED_LABEL if label else None,
            provenance=folder / PROVENANCE,
        )


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """The files of a registration, read and checked."""

    fixed: Volume
    moving: Volume
    moving_type: np.dtype
    """of the voxels in the file of the moving image"""
    label: Volume | None
    fixed_mask: Volume | None
    moving_mask: Volume | None
    initial: sitk.Transform | None
    paths: dict[str, Path | str]
    """file by role"""

    @classmethod
    def read(
        cls,
        fixed: Path | str,
        moving: Path | str,
        outputs: RegistrationOutputs,
        moving_label: Path | str | None = None,
        fixed_mask: Path | str | None = None,
        moving_mask: Path | str | None = None,
        initial: Path | str | None = None,
        region: str = "auto",
    ) -> "_Inputs":
        """Read the files that :func:`register_files` names.

        Raises:
            InputError: a file cannot be used, or an output cannot be made of these inputs.

        """
        if outputs.warped_label is not None and moving_label is None:
            raise InputError("There is no moving label map to warp. Add one, or leave out the warped label map.")
        roles = {"fixed": fixed, "moving": moving, "moving_label": moving_label, "fixed_mask": fixed_mask}
        roles |= {"moving_mask": moving_mask, "initial": initial}
        paths = {role: path for role, path in roles.items() if path is not None}
        check_apart(vars(outputs).values(), paths.values())
        fixed_image, (moving_image, moving_type) = volume.read_scan(fixed), volume.read_typed_scan(moving)
        label = None if moving_label is None else _read_label(Path(moving_label), moving_image.grid, region)
        if label is not None and not label.grid.same_as(moving_image.grid):
            raise InputError(
                f"The moving label map lies on another grid than the moving image {moving}: {moving_label} "
                f"({label.grid.difference_to(moving_image.grid)}). Resample it to the grid of the image."
            )
        fixed_area, moving_area = (
            None if path is None else volume.read_mask(path) for path in (fixed_mask, moving_mask)
        )
        transform = None if initial is None else read_transform(initial, guarded=True)
        return cls(fixed_image, moving_image, moving_type, label, fixed_area, moving_area, transform, paths)


def _read_label(path: Path, grid: Grid, region: str) -> Volume:
    """Read the moving label: VS and cochlea, or the values of other organs as :func:`register_files` says."""
    if label_reading.has_contours(path):
        return label_reading.read_label(path, grid)
    label = label_reading.read_values(path, grid)
    if region == "whole" or (region == "auto" and not label_reading.may_have_structures(label.array)):
        return label
    try:
        return label_reading.read_label(path, grid)
    except InputError as cause:
        raise InputError(f"{cause} To keep the values of other organs, set region 'whole'.") from cause


#: The statistics in the provenance of a registration of files.
STATISTICS = ("mean_displacement_mm", "percentile_95_displacement_mm", "folding_percent")


def _statistics(registration: Registration) -> dict[str, float]:
    displacement = registration.displacement_statistics()
    folding = registration.jacobian_statistics()["folding_percent"]
    values = (round(displacement["mean_mm"], 3), round(displacement["percentile_95_mm"], 3), round(folding, 4))
    return dict(zip(STATISTICS, values, strict=True))


def register_files(
    fixed: Path | str,
    moving: Path | str,
    outputs: RegistrationOutputs | Path | str,
    *,
    moving_label: Path | str | None = None,
    fixed_mask: Path | str | None = None,
    moving_mask: Path | str | None = None,
    initial: Path | str | None = None,
    settings: RegistrationSettings = RegistrationSettings(),
    progress: Progress | None = None,
) -> Registration:
    """Register the image file ``moving`` to the image file ``fixed`` and write the results.

    Either all outputs appear, complete, or none.

    Args:
        fixed: the target image.
        moving: the atlas image.
        outputs: the files to write; a folder for all of them under their standard names.
        moving_label: a label of the moving image, read by :mod:`crossmoda.dataset.label_reading`: label maps,
            segmentations and contours of VS and cochlea. With a cochlea in it, the scans of heads are cropped to the
            ears for the registration (see ``settings.region``). A label map of other organs keeps its values: with the
            region ``whole``, and with ``auto`` if one is above 3.
        fixed_mask: the voxels of the fixed image to compare, on its grid.
        moving_mask: the voxels of the moving image to compare, on its grid.
        initial: a linear transform from fixed to moving points, an ITK transform file.
        settings: parameters.
        progress: callback(fraction, message); raise Cancelled to abort.

    Returns:
        The registration on the whole grids; its provenance has :data:`STATISTICS`.

    Raises:
        InputError: a file cannot be used, or an output cannot be written.

    """
    if not isinstance(outputs, RegistrationOutputs):
        outputs = RegistrationOutputs.in_folder(outputs, label=moving_label is not None)
    report(progress, 0.0, "reading the images")
    inputs = _Inputs.read(fixed, moving, outputs, moving_label, fixed_mask, moving_mask, initial, settings.region)
    record = provenance.Record("register", settings, inputs.paths)
    try:
        result = _register(inputs, settings, part(progress, 0.05, 0.85))
    except MemoryError as cause:  # only here: a propagation would remember it as the fault of an atlas
        raise InputError(
            f"Not enough memory to register {inputs.fixed.grid} to {inputs.moving.grid}. Crop the images, or set a "
            "larger grid_spacing or a smaller search_radius."
        ) from cause
    record.content["device"] = result.provenance["device"]
    report(progress, 0.86, "writing the results")
    finished = dataclasses.replace(result, provenance=record.finish(**_statistics(result)))
    _write(finished, outputs, inputs)
    report(progress, 1.0, "done")
    return finished


def _register(inputs: _Inputs, settings: RegistrationSettings, progress: Progress | None) -> Registration:
    """Register the images, or the parts around their ears, as the settings and the label map say."""
    fixed, moving, initial = inputs.fixed, inputs.moving, inputs.initial
    frames = _ears(inputs, settings, part(progress, 0.0, 0.4))
    if frames is not None:
        fixed, moving = (
            image.crop(ears_box(each, image.grid)) for image, each in zip((fixed, moving), frames, strict=True)
        )
        matrix = alignment(*frames)
        initial = affine_transform(matrix) if initial is None and matrix is not None else initial
    elif initial is None and settings.initialization == "center":
        initial = center_alignment(fixed, moving)
    fixed_mask, moving_mask = (
        None if mask is None else volume.resample(mask, image.grid, interpolation="nearest")
        for mask, image in ((inputs.fixed_mask, fixed), (inputs.moving_mask, moving))
    )
    result = register(fixed, moving, settings, fixed_mask, moving_mask, initial, part(progress, 0.4, 1.0))
    return result.extended(inputs.fixed.grid, inputs.moving.grid)


def _ears(
    inputs: _Inputs, settings: RegistrationSettings, progress: Progress | None
) -> tuple[EarFrames, EarFrames] | None:
    """Return the ear frames of both images; None where they are registered as a whole."""
    label = inputs.label
    has_cochlea = label is not None and bool((label.array == labels.COCHLEA).any())
    if settings.region == "whole" or (settings.region == "auto" and not has_cochlea):
        return None
    warm_up(part(progress, 0.0, 0.1))
    fixed, moving = threads.both(
        functools.partial(ear_frames, inputs.fixed),
        functools.partial(labeled_ear_frames, inputs.moving, label, part(progress, 0.1, 1.0)),
        at_once=threads.thread_count() > 1,
    )
    if alignment(fixed, moving) is not None:
        return fixed, moving
    if settings.region == "ears":
        notes = " ".join(dict.fromkeys([*fixed.notes, *moving.notes]))
        raise InputError(f"The images have no ear in common. {notes} Or set region 'whole'.")
    return None


def _write(registration: Registration, outputs: RegistrationOutputs, inputs: _Inputs) -> None:
    """Write all outputs under temporary names, several at a time, then rename them."""
    label = inputs.label
    writers: list[tuple[Path | str | None, Callable[[Path], Any]]] = [
        (outputs.provenance, lambda path: path.write_text(_json(registration), encoding="utf-8")),
        (outputs.warped, lambda path: volume.write(_warped(registration, inputs), path)),
        (outputs.transform, lambda path: write_transform(registration.transform, path)),
        (outputs.inverse, lambda path: write_transform(registration.inverse_transform, path)),
        (outputs.displacement_field, registration.write_displacement_field),
    ]
    if label is not None:
        writers.append((outputs.warped_label, lambda path: volume.write(registration.warp_label_map(label), path)))
    with contextlib.ExitStack() as stack:  # the stack unwinds backwards: the provenance comes last
        wanted = [(Path(path), stack.enter_context(atomic(path)), write) for path, write in writers if path is not None]
        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="writer") as pool:
            tasks = [pool.submit(_write_one, *each) for each in wanted]
        for task in tasks:
            task.result()


def _write_one(path: Path, temporary: Path, write: Callable[[Path], Any]) -> None:
    try:
        write(temporary)
    except RuntimeError as cause:
        raise InputError(f"Cannot write {path}: choose another folder or file type.") from cause
    except InputError as cause:  # which names the temporary file
        raise type(cause)(str(cause).replace(str(temporary), str(path))) from cause


def _warped(registration: Registration, inputs: _Inputs) -> Volume:
    """Return the moving image on the fixed grid, with the type of voxels that it has in its file."""
    warped, kind = registration.warp_image(inputs.moving), inputs.moving_type
    if kind.kind in "iu":
        return warped.with_array(np.rint(warped.array).astype(kind))
    return warped.with_array(warped.array.astype(kind, copy=False))


def _json(registration: Registration) -> str:
    return json.dumps(registration.content(), indent=2, ensure_ascii=False) + "\n"
