"""One atlas to one target, as files: the registration of a propagation for doors that run it atlas by atlas.

What :func:`crossmoda.propagation.propagate` does with each atlas (mirror it, crop to the ears, register, judge) is done
with one; what it finds out about the atlas is returned, so that the caller can decide about the side of the tumor and
leave failed registrations out.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda import deeds, labels, preprocessing, propagation, volume
from crossmoda.anatomy import laterality
from crossmoda.dataset import Case
from crossmoda.deeds.files import RegistrationInputs, RegistrationOutputs, center_alignment, statistics, write_outputs
from crossmoda.deeds.transform import parts_of
from crossmoda.errors import InputError
from crossmoda.parameters import parameter, parameter_of
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import atlases, missing_cochlea, registrations, similarity
from crossmoda.propagation.target import Target, as_target
from crossmoda.provenance import Record
from crossmoda.volume import Grid, Volume


@dataclasses.dataclass(frozen=True)
class Settings(deeds.Settings):
    """Parameters of the registration of an atlas to a target."""

    mirror: str = parameter(
        "no",
        "Exchange left and right of the moving image first: no, yes, "
        "or if the tumor of its label map is not on the side given (the patient's)",
        choices=("no", "yes", *laterality.SIDES),
    )
    region: str = parameter_of(propagation.Settings, "region")


@dataclasses.dataclass(frozen=True)
class Fit:
    """What is known of an atlas on the target."""

    quality: float
    """0 is chance, 1 the same image, around the structures"""
    tumor_side: str | None
    """the side of its tumor as registered"""
    cochlea_sides: str | None
    """the sides of its cochleae as registered: left, right or both"""
    mirrored: bool


def register_files(
    fixed: Path | str,
    moving: Path | str,
    outputs: RegistrationOutputs | Path | str,
    *,
    moving_label: Path | str | None = None,
    fixed_mask: Path | str | None = None,
    moving_mask: Path | str | None = None,
    initial: Path | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> deeds.Registration:
    """Register the image file ``moving`` (atlas) to the image file ``fixed`` (target) and write the results.

    Either all outputs appear, complete, or none. The transforms belong to the images as they are, also when the moving
    one is mirrored: they contain the reflection. Arguments are those of :func:`crossmoda.deeds.files.register_files`;
    without a label map there is no telling where the ears' labels and the tumor are: the whole image is registered and
    nothing is judged.

    Returns:
        The registration; its provenance holds the statistics and the members of :class:`Fit`.

    Raises:
        InputError: a file cannot be used, no label comes to lie in the target, or an output cannot be written.

    """
    settings = settings or Settings()
    if not isinstance(outputs, RegistrationOutputs):
        outputs = RegistrationOutputs.in_folder(outputs, label=moving_label is not None)
    report(progress, 0.0, "reading the images")
    given = RegistrationInputs.read(fixed, moving, outputs, moving_label, fixed_mask, moving_mask, initial)
    record = Record("register", settings, given.paths)
    sides = None if given.label is None else laterality.find_sides(given.label)
    mirrored = settings.mirror == "yes" or bool(
        sides and sides.tumor and settings.mirror in laterality.SIDES and sides.tumor != settings.mirror
    )
    found = _register(given, settings, mirrored, part(progress, 0.03, 0.85))
    record.content["device"] = found.registration.provenance["device"]
    report(progress, 0.86, "judging the registration")
    judged = {"mirrored": mirrored} if sides is None else dataclasses.asdict(_judge(given, found, sides, mirrored))
    report(progress, 0.92, "writing the results")
    result = dataclasses.replace(
        found.registration, provenance=record.finish(**statistics(found.registration), **judged)
    )
    if mirrored:
        result = _with_reflection(result, given.moving.grid)
    write_outputs(result, outputs, given.moving, given.label)
    report(progress, 1.0, "done")
    return result


@dataclasses.dataclass(frozen=True)
class _Found:
    registration: deeds.Registration
    """between the target and the moving image, mirrored if so wanted, on their whole grids"""
    target: Target | None
    moving: Volume
    label: Volume | None


def _register(given: RegistrationInputs, settings: Settings, mirrored: bool, progress: Progress | None) -> _Found:
    """Register the parts of the images that count."""
    moving, label, moving_mask = (
        laterality.mirrored(item) if mirrored and item is not None else item
        for item in (given.moving, given.label, given.moving_mask)
    )
    assert moving is not None
    if label is None:
        masks = given.fixed_mask, moving_mask
        result = deeds.register(given.fixed, moving, settings, *masks, given.initial, progress)
        return _Found(result, None, moving, None)
    has_cochlea = bool((label.array == labels.COCHLEA).any())
    preparation = preprocessing.preparation_for_registration(settings.region, given.fixed.grid, has_cochlea)

    def prepare(image: Volume, label_map: Volume | None) -> Volume:
        return preprocessing.prepare(image, label_map, preparation).image

    target = as_target("", "", given.fixed, prepare)
    prepared = prepare(moving, label)
    start = given.initial
    if preparation.region == "ears" and start is None:
        start = center_alignment(target.prepared.grid, prepared.grid)
    masks = _on(given.fixed_mask, target.prepared.grid), _on(moving_mask, prepared.grid)
    result = deeds.register(target.prepared, prepared, settings, *masks, start, progress)
    whole = dataclasses.replace(result, fixed_grid=given.fixed.grid, moving_grid=moving.grid)
    return _Found(whole, target, moving, label)


def _on(mask: Volume | None, grid: Grid) -> Volume | None:
    return None if mask is None else volume.resample(mask, grid, interpolation="nearest")


def _judge(given: RegistrationInputs, found: _Found, sides: laterality.Sides, mirrored: bool) -> Fit:
    target, label = found.target, found.label
    assert target is not None and label is not None
    warped = found.registration.warp_label_map(label, target.part.grid).array
    if not warped.any():
        name = Path(given.paths["moving"]).name
        raise InputError(f"{name} does not overlap the target: none of its labels lies in the scan.")
    quality = similarity.compare(target, found.moving, found.registration, warped).quality
    tumor, cochleae = sides.tumor, sides.of[labels.COCHLEA]
    if mirrored:
        tumor, cochleae = tumor and laterality.contralateral(tumor), frozenset(map(laterality.contralateral, cochleae))
    spoken = "both" if len(cochleae) == 2 else next(iter(cochleae), None)
    return Fit(round(quality, 4), tumor, spoken, mirrored)


def _with_reflection(registration: deeds.Registration, grid: Grid) -> deeds.Registration:
    """Return the registration of the image as it is from that of the image mirrored on its grid."""
    reflection = laterality.reflection(grid)
    return dataclasses.replace(
        registration,
        transform=sitk.CompositeTransform([reflection, *parts_of(registration.transform)]),
        inverse_transform=sitk.CompositeTransform([*parts_of(registration.inverse_transform), reflection]),
    )


def to_be_copied(placed: Sequence[tuple[str, float, str | None, str | None, bool]]) -> tuple[str | None, list[int]]:
    """Return the side whose cochlea no atlas has, and whose mirrored copies shall speak about it.

    Args:
        placed: of each registered atlas its id, :attr:`Fit.quality`, :attr:`Fit.tumor_side`,
            :attr:`Fit.cochlea_sides`, and whether it is registered with its tumor on the other side already.

    Returns:
        The side, None where there is none, and the positions in ``placed`` of the atlases to be copied; see
        :mod:`crossmoda.propagation.missing_cochlea`.

    """
    found = [_stand_in(identity, quality, side, cochleae) for identity, quality, side, cochleae, _copied in placed]
    missing = missing_cochlea.side_without_cochlea([(item.atlas, False) for item in found])
    if missing is None:
        return None, []
    known = {(identity, True) for identity, _quality, _side, _cochleae, copied in placed if copied}
    chosen = {id(item) for item in missing_cochlea.to_be_copied(found, known)}
    return missing, [number for number, item in enumerate(found) if id(item) in chosen]


def _stand_in(identity: str, quality: float, side: str | None, cochleae: str | None) -> registrations.RegisteredAtlas:
    """Return what is known of a registered atlas, without its images."""
    drawn = frozenset(side for side in laterality.SIDES if cochleae in (side, "both"))
    sides = laterality.Sides(0.0, {labels.COCHLEA: drawn})
    atlas = atlases.Atlas(Case(identity, "ceT1", Path(identity)), sides, side or None, {})
    nothing = np.zeros((0, 0, 0), np.uint8)
    return registrations.RegisteredAtlas(atlas, False, nothing, nothing, nothing, quality, 0.0, True)
