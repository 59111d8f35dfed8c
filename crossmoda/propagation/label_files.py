"""Fusion of label map files that already lie on one target."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import fusion, labels, volume
from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import ContralateralComparison, brightness, dequantized
from crossmoda.errors import InputError
from crossmoda.output import check_apart, together, write_text
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import warped
from crossmoda.propagation.label_fusion import (
    NoisyLabel,
    Rater,
    failures,
    fuse_raters,
    midplane,
    with_side_uncertainty,
)
from crossmoda.propagation.registrations import RegisteredAtlas
from crossmoda.propagation.target import Target
from crossmoda.provenance import Record
from crossmoda.volume import Grid, Volume

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


@dataclasses.dataclass(frozen=True)
class Settings(fusion.Settings):
    """Parameters of the fusion of label map files."""

    tumor_side: str = parameter(
        "auto",
        "Side of the tumor (the patient's); auto takes the side on which most atlases have it",
        choices=("auto", "left", "right", "both"),
    )
    side_certainty: float = parameter(
        1.0,
        "Probability that the tumor is on that side; where it is less, the result's probabilities and confidence "
        "heed that the tumor may be on the other side",
        minimum=0.5,
        maximum=1.0,
    )
    outline: str = parameter(
        "compared",
        "Outline of the tumor: where the target differs from the opposite side of the head (compared), or as the "
        "atlases have it (votes)",
        choices=("compared", "votes"),
    )
    weighting: str = parameter(
        "local", "Atlas weighting: local (image similarity) or global (STAPLE)", choices=("local", "global")
    )
    modality: str = parameter(
        "hrT2", "Kind of the target's scan, which tells how a tumor looks on it", choices=("hrT2", "ceT1")
    )
    share: float = parameter(0.33, "Fraction of atlases used per structure", minimum=0.05, maximum=1, advanced=True)
    least_quality: float = parameter(0.05, "Minimum quality of a registration", minimum=-1, maximum=1)


@dataclasses.dataclass(frozen=True)
class LabelFileOutputs:
    """The files to be written; None leaves one out."""

    label: Path | str | None = None
    """fused label map; .seg.nrrd too"""
    confidence: Path | str | None = None
    """probability of the fused label"""
    probability_vs: Path | str | None = None
    probability_cochlea: Path | str | None = None
    agreement: Path | str | None = None
    """share of the label maps that say the fused label"""
    disagreement: Path | str | None = None
    """entropy of what the label maps say, 0 to 1"""
    performance: Path | str | None = None
    """CSV: sensitivity and specificity of each label map"""


@dataclasses.dataclass(frozen=True)
class LabelFileFusion:
    """The fusion of some files."""

    label_map: Volume
    consensus: NoisyLabel
    names: tuple[str, ...]
    """the label maps that were fused"""
    side: str | None
    """the side of the tumor; None where both or neither"""
    dropped: tuple[str, ...]
    """a sentence for each label map that could not be used"""
    notes: tuple[str, ...]
    """what a user should know"""
    provenance: dict[str, Any]

    def measurements(self) -> dict[str, float]:
        """Return what the CLI module reports as simple output parameters."""
        voxel_mm3 = self.label_map.grid.voxel_volume_mm3
        size = {item.value: np.count_nonzero(self.label_map.array == item.value) for item in labels.STRUCTURES}
        return {
            "fused": len(self.names),
            "dropped": len(self.dropped),
            "vs_volume_mm3": round(size[labels.VS] * voxel_mm3, 2),
            "cochlea_volume_mm3": round(size[labels.COCHLEA] * voxel_mm3, 2),
            "iterations": self.consensus.fusion.iterations,
        }


def find_label_maps(folder: Path | str, pattern: str = "*") -> list[Path]:
    """Return the label map files of a folder whose names match ``pattern``, sorted.

    Raises:
        InputError: the folder is missing, or holds none.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of the label maps.")
    found = sorted(
        path for path in folder.glob(pattern) if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".")
    )
    if not found:
        raise InputError(
            f"{folder} holds no label map named {pattern} ({', '.join(_ENDINGS)}); check folder and pattern."
        )
    return found


def fuse_files(
    files: Sequence[Path | str],
    outputs: LabelFileOutputs = LabelFileOutputs(),
    settings: Settings = Settings(),
    *,
    reference: Path | str | None = None,
    images: Path | str | None = None,
    elsewhere: Path | str | None = None,
    opposite: Path | str | None = None,
    progress: Progress | None = None,
) -> LabelFileFusion:
    """Fuse label map files: with STAPLE or, with the atlases' images, by locally weighted votes.

    A label map without a cochlea on one side says nothing about it there; a tumor on another side than the fused one
    says nothing (see :mod:`crossmoda.fusion`). Label maps on another grid are resampled. With the warped images, failed
    registrations are left out and about each structure those atlases speak that fit the target best there.

    Args:
        files: one label map per atlas, all of the same target.
        outputs: what to write.
        settings: parameters.
        reference: an image or label map whose grid the result has; None: the first label map's.
        images: a folder with the atlases' images on the target, named as their label maps; ``reference`` is then the
            target's image.
        elsewhere: an image of the probability of tumor at each voxel if it is on the other side (see
            :func:`crossmoda.propagation.side_files.compare_files`), for a ``side_certainty`` below 1; None: it could be
            anywhere there.
        opposite: an image of how bright ``reference`` is at the opposite places, from the same function: with warped
            images it tells the tumor's outline. None: the outline is as the atlases have it.
        progress: is told what is done; may cancel, and then nothing is written.

    Raises:
        InputError: no label map can be used, or an output cannot be written.

    """
    paths = [Path(file) for file in files]
    if not paths:
        raise InputError("There are no label maps to fuse; give at least one.")
    beside = [] if images is None else Path(images).glob("*")
    check_apart(vars(outputs).values(), [*paths, reference, elsewhere, opposite, *beside])
    maps, kept, dropped, grid = _read(paths, reference, part(progress, 0.0, 0.4))
    record = Record("fuse", settings, {str(number): path for number, path in enumerate(kept, 1)})
    notes = list(dropped)
    if images is not None:
        judged = _Judged.of(reference, images, kept, maps, settings, part(progress, 0.4, 0.7))
        kept, dropped, side = judged.kept, [*dropped, *judged.dropped], judged.side
        notes += [*judged.dropped, *judged.notes]
        part_grid = judged.target.part.grid
        compared = _compared(opposite, reference, part_grid, settings) if side is not None else None
        step = part(progress, 0.7, 0.8)
        consensus = warped.fuse_judged(
            judged.atlases, judged.target, grid.shape, side, settings.share, settings, step, compared=compared
        )
    else:
        raters, middle_mm, side = _raters(maps, grid, settings.tumor_side, notes)
        consensus = fuse_raters(
            raters,
            middle_mm,
            Volume(np.zeros(grid.shape, np.float32), grid),
            settings,
            clean=side is not None,
            progress=part(progress, 0.4, 0.8),
        )
    if side is not None and settings.side_certainty < 1:
        consensus = with_side_uncertainty(consensus, settings.side_certainty, _elsewhere(elsewhere, grid))
    names = [path.name for path in kept]
    notes += consensus.fusion.notes
    label_map = Volume(consensus.label_map, grid)
    moved = [dataclasses.asdict(shift) for shift in consensus.recentered]
    content = record.finish(tumor_side=side, notes=notes, iterations=consensus.fusion.iterations, aligned=moved)
    result = LabelFileFusion(label_map, consensus, tuple(names), side, tuple(dropped), tuple(notes), content)
    report(progress, 0.85, "writing")
    _write(result, outputs)
    report(progress, 1.0, "fused")
    return result


def _compared(
    path: Path | str | None, reference: Path | str | None, grid: Grid, settings: Settings
) -> ContralateralComparison | None:
    """Return the target and its opposite side on ``grid``; None if the tumor's outline is not to heed that."""
    if path is None or reference is None or settings.outline == "votes":
        return None
    kept = volume.read(path)
    # Brightness is relative to the part of the target that was compared with its mirror image.
    here = brightness(volume.resample(volume.read(reference), kept.grid, interpolation="nearest"))
    here = volume.resample(Volume(here, kept.grid), grid, interpolation="nearest").array
    there = dequantized(volume.resample(kept, grid, interpolation="nearest", outside=255))
    return ContralateralComparison(here, there, settings.modality)


def _elsewhere(path: Path | str | None, grid: Grid) -> np.ndarray:
    """Return the probability of tumor if it is on the other side, (z, y, x); 0 where nothing is known of it."""
    if path is None:
        return np.zeros(grid.shape, np.float32)
    # Where it lies on the grid's voxels, as it mostly does, their values are kept to the bit.
    image = volume.resample(volume.read(path), grid, interpolation="nearest")
    return image.array.astype(np.float32).clip(0, 1)


def _read(
    files: Sequence[Path], reference: Path | str | None, progress: Progress | None
) -> tuple[list[np.ndarray], list[Path], list[str], Grid]:
    """Read the label maps on one grid; those that cannot be used are dropped with a sentence."""
    grid = volume.read(reference).grid if reference is not None else None
    maps, kept, dropped = [], [], []
    for number, file in enumerate(files):
        report(progress, number / len(files), f"reading {file.name}")
        try:
            label_map = volume.read_label_map(file, grid)
            strange = sorted(set(np.unique(label_map.array).tolist()) - set(labels.VALUES))
            if strange:
                known = ", ".join(map(str, labels.VALUES))
                raise InputError(f"{file.name} has the label value {strange[0]}; expected {known}.")
            if not label_map.array.any():
                raise InputError(f"{file.name} has no labeled voxel.")
            grid = grid or label_map.grid
            if not label_map.grid.same_as(grid):
                label_map = volume.resample(label_map, grid, interpolation="label")
                if not label_map.array.any():
                    raise InputError(f"{file.name} does not overlap the others.")
            maps.append(label_map.array)
            kept.append(file)
        except InputError as cause:
            dropped.append(f"{cause} It was left out.")
    if grid is None or not maps:
        raise InputError(f"No label map can be used. {dropped[0]}")
    return maps, kept, dropped, grid


def _raters(maps: list[np.ndarray], grid: Grid, wanted: str, notes: list[str]) -> tuple[list[Rater], float, str | None]:
    """Find out what each label map speaks about; the midplane; and the side of the tumor."""
    middle_mm = midplane(maps, grid)
    sides = [laterality.find_sides(Volume(label_map, grid), middle_mm).of for label_map in maps]
    side = _side(sides, maps, wanted, notes)
    both = frozenset(laterality.SIDES)
    anyone = frozenset().union(*(own[labels.COCHLEA] for own in sides))
    raters = []
    for label_map, own in zip(maps, sides, strict=True):
        has_tumor = bool((label_map == labels.VS).any())
        about_tumor = has_tumor and (side is None or not own[labels.VS] or side in own[labels.VS])
        cochleae = own[labels.COCHLEA] | (both - anyone)
        raters.append(Rater(label_map, about_tumor, cochleae))
    return raters, middle_mm, side


def _side(
    sides: Sequence[Mapping[int, frozenset[str]]], maps: Sequence[np.ndarray], wanted: str, notes: list[str]
) -> str | None:
    """Return the side of the tumor that is wanted or that most label maps have; None for both."""
    side = _tumor_side([own[labels.VS] for own in sides], maps, notes) if wanted == "auto" else wanted
    return side if side in laterality.SIDES else None


@dataclasses.dataclass(frozen=True)
class _Judged:
    """Label maps whose images were compared with the target's; failed registrations are left out."""

    atlases: list[RegisteredAtlas]
    target: Target
    kept: list[Path]
    dropped: list[str]
    side: str | None
    """the side of the tumor; None where both or neither"""
    notes: list[str]
    """what is to be said of the side"""

    @classmethod
    def of(
        cls,
        reference: Path | str | None,
        folder: Path | str,
        paths: Sequence[Path],
        maps: Sequence[np.ndarray],
        settings: Settings,
        progress: Progress | None,
    ) -> "_Judged":
        if reference is None:
            raise InputError("Warped images need the target to be compared with; give it as the reference.")
        images = warped.find_images(folder, paths)
        judged, target = warped.judge(volume.read(reference), paths, images, maps, progress)
        failed = failures(judged, settings.least_quality)
        notes: list[str] = []
        side = _side_of([item for item in judged if item.name not in failed], settings.tumor_side, notes)
        if side is not None:
            failed = _failures_by_side(judged, side, settings.least_quality)
        dropped = [f"{name} was left out: {why}" for name, why in failed.items()]
        kept = [path for path, item in zip(paths, judged, strict=True) if item.name not in failed]
        if not kept:
            raise InputError(f"No label map can be used. {dropped[0]}")
        return cls([item for item in judged if item.name not in failed], target, kept, dropped, side, notes)


def _side_of(judged: Sequence[RegisteredAtlas], wanted: str, notes: list[str]) -> str | None:
    return _side([item.atlas.sides.of for item in judged], [item.label_map for item in judged], wanted, notes)


def _failures_by_side(judged: Sequence[RegisteredAtlas], side: str, least_quality: float) -> dict[str, str]:
    """Judge label maps with the tumor on the other side (mirrored copies) by themselves: theirs fits nowhere."""
    copies = [item for item in judged if item.side == laterality.contralateral(side)]
    others = [item for item in judged if item.side != laterality.contralateral(side)]
    return {name: why for group in (others, copies) if group for name, why in failures(group, least_quality).items()}


def _tumor_side(sides: list[frozenset[str]], maps: Sequence[np.ndarray], notes: list[str]) -> str | None:
    """Return the side that most label maps have the tumor on; at a tie that where they agree more."""
    count = Counter(next(iter(own)) for own in sides if len(own) == 1)
    if not count:
        return None
    if len(count) == 1:
        return next(iter(count))
    agreement = {}
    for side in laterality.SIDES:
        members = [label_map == labels.VS for label_map, own in zip(maps, sides, strict=True) if own == {side}]
        votes = np.sum(members, axis=0, dtype=np.int32)
        agreement[side] = float((votes**2).sum() / max(votes.sum(), 1) / len(members))
    side = max(laterality.SIDES, key=lambda name: (count[name], agreement[name]))
    notes.append(
        f"The label maps have the tumor on both sides ({count['left']} left, {count['right']} right); "
        f"the result has it on the {side}. Choose tumor_side if that is wrong."
    )
    return side


@together()
def _write(result: LabelFileFusion, outputs: LabelFileOutputs) -> None:
    fused, posterior, grid = result.consensus.fusion, result.consensus.posterior, result.label_map.grid
    if outputs.label is not None:
        if str(outputs.label).lower().endswith(".seg.nrrd"):
            volume.write_segmentation(result.label_map, outputs.label, result.provenance)
        else:
            volume.write(result.label_map, outputs.label)
    maps = {
        outputs.confidence: result.consensus.confidence,
        outputs.probability_vs: posterior[labels.VALUES.index(labels.VS)],
        outputs.probability_cochlea: posterior[labels.VALUES.index(labels.COCHLEA)],
        outputs.agreement: fused.agreement,
        outputs.disagreement: fused.disagreement,
    }
    for path, array in maps.items():
        if path is not None:
            volume.write(Volume(np.ascontiguousarray(array), grid), path)
    if outputs.performance is not None:
        write_text(outputs.performance, performance_table(result.names, fused.performance))


def performance_table(names: Sequence[str], performance: Sequence[fusion.Performance]) -> str:
    """Return sensitivity and specificity of each rater for each structure as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measures = [(kind, item) for item in labels.STRUCTURES for kind in ("sensitivity", "specificity")]
    writer.writerow(["name", *(f"{kind}_{structure.key}" for kind, structure in measures)])
    for name, each in zip(names, performance, strict=True):
        numbers = [getattr(each, kind)[structure.value] for kind, structure in measures]
        writer.writerow([name, *("" if np.isnan(number) else f"{number:.4f}" for number in numbers)])
    return stream.getvalue()
