"""The growth of the tumors of one patient: scans aligned, segmented in common frames, measured and compared."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from crossmoda import device as devices
from crossmoda import labels, weights
from crossmoda.anatomy import ear_alignment, laterality
from crossmoda.anatomy import template as templates
from crossmoda.anatomy.ear_frame import LEAST_INSIDE, SIDES, EarFrame, EarFrames
from crossmoda.anatomy.sampling import positions
from crossmoda.errors import InputError
from crossmoda.growth import joint_estimate
from crossmoda.growth.rigid_alignment import CHANGED_MM, RigidAlignment, align, frame_alignment
from crossmoda.growth.settings import Settings
from crossmoda.growth.time_points import TimePoint
from crossmoda.inference import Settings as InferenceSettings
from crossmoda.inference.ear_patches import EarPrediction, extend, predict_patches
from crossmoda.inference.ears import Calling, Candidate, call, label_map_of, marked_tumor, restrict
from crossmoda.measurement import Measures, measure
from crossmoda.measurement.growth import MANUAL, Criterion, Growth, Repeatability, TumorSize
from crossmoda.measurement.interval import uncertain_volume
from crossmoda.measurement.measures import TumorMeasures
from crossmoda.progress import Progress, part, report
from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import grown

#: Scans of one head are at least so similar after their alignment; from the second value on, left and right are surely
#: in order: of one contrast, and of two (docs/validation/growth.md).
LEAST_SIMILARITY, _IN_ORDER = (0.47, 0.36), (0.6, 0.5)
#: Radius around the cochlea that a scan has to show, mm.
_SURROUNDINGS_MM = 15.0
#: The note on weights whose model card has no repeatability.
UNCALIBRATED = (
    "Repeatability not calibrated for these weights: intervals and verdicts are computed with that of the bundled "
    "weights. Verify the verdicts by the outlines."
)
#: A scan whose mirror image is more similar by this has left and right exchanged.
_MIRRORED = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredTimePoint:
    """A time point with its segmentation."""

    point: TimePoint
    label_map: Volume
    """uint8, on the grid of the scan; the corrected label where there is one"""
    alignment: RigidAlignment | None
    """from the first scan; None for the first"""
    error_mm: float
    """standard error of the alignment at the tumor, else at the cochleae; 0 for the first"""
    measures: Measures
    """in the space and the frames of the first scan"""
    sizes: dict[str, TumorSize]
    """by side of the tumor"""
    unseen: frozenset[str]
    """the sides whose ear is not in the scan: of a tumor there nothing is known"""

    @property
    def matrix(self) -> np.ndarray:
        """4 x 4, from points of the first scan to points of this one, LPS mm."""
        return np.eye(4) if self.alignment is None else self.alignment.matrix


@dataclasses.dataclass(frozen=True)
class Interval:
    """The change of a tumor between two time points."""

    side: str
    first: int
    """number of the earlier time point, from 0"""
    later: int
    growth: Growth


@dataclasses.dataclass(frozen=True, eq=False)
class PatientGrowth:
    """The growth of the tumors of one patient."""

    points: tuple[MeasuredTimePoint, ...]
    """earliest first"""
    intervals: tuple[Interval, ...]
    """left before right; consecutive time points, then first to last"""
    criterion: Criterion
    notes: tuple[str, ...]

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which there was a tumor at any time."""
        return tuple(dict.fromkeys(interval.side for interval in self.intervals))

    def title(self, number: int) -> str:
        """Return how a time point (numbered from 0) is called: its date, or its number where there is none."""
        date = self.points[number].point.date
        return date.isoformat() if date else f"scan {number + 1}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result over the whole time in one sentence per tumor."""
        whole = {interval.side: interval for interval in self.intervals}  # the last of each side
        compared = [
            f"{side.capitalize()}, {self.title(interval.first)} to {self.title(interval.later)}: "
            f"{interval.growth.sentence}"
            for side, interval in whole.items()
        ]
        single = [
            f"{side.capitalize()}, {self.title(number)}: tumor of {size.volume_mm3 / 1000:.2f} mL, not compared: no "
            "scan next to it shows the ear."
            for number, each in enumerate(self.points)
            for side, size in each.sizes.items()
            if side not in whole
        ]
        return (*compared, *single) or ("No tumor at any time point.",)


def measure_growth(
    points: Sequence[TimePoint],
    model: weights.TrainedNetwork,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> PatientGrowth:
    """Measure the growth of the tumors of one patient.

    Args:
        points: at least two, earliest first.
        model: a network that sees ears.
        settings: of the criterion.
        progress: callback(fraction, message); raise Cancelled to abort.

    Raises:
        InputError: no ear is recognized, or the scans do not show the same head.

    """
    if model.settings.field != "ear":
        raise InputError("Growth needs weights of a network that sees ears. Use the bundled weights.")
    rule, repeatability = Calling.of(model.card), Repeatability.of(model.card)  # refused before any work
    frames = []
    for number, point in enumerate(points):
        step = part(progress, 0.4 * number / len(points), 0.4 * (number + 1) / len(points), f"{point.title}: ")
        frames.append(ear_alignment.labeled_ear_frames(point.scan, point.label, step))
    device = devices.choose(settings.device)
    report(progress, 0.4, f"{points[0].title}: segmenting")
    first = (
        _Patches.of(points[0], frames[0].accepted, frames[0].contrast, model, device) if frames[0].accepted else None
    )
    changed = None if first is None else _around(first.tumor_in(), points[0].scan.grid)
    alignments: list[RigidAlignment | None] = [None]
    for number, point in enumerate(points[1:], start=1):
        report(progress, 0.5 + 0.2 * number / len(points), f"{point.title}: aligning")
        alignments.append(_aligned(points[0], point, frames[0], frames[number], changed))
    matrices = [np.eye(4) if each is None else each.matrix for each in alignments]
    common = _common_frames(frames, matrices)
    patches = []
    for number, point in enumerate(points):
        report(progress, 0.7 + 0.2 * number / len(points), f"{point.title}: segmenting")
        if number == 0 and first is not None and len(first.ears) == len(common):
            patches.append(first)
        else:
            own = [frame.moved(matrices[number]) for frame in common]
            patches.append(_Patches.of(point, own, frames[number].contrast, model, device))
    _extend_together(patches, model, device)
    report(progress, 0.9, "measuring")
    measured, notes = _measured(points, patches, alignments, common, rule, repeatability or Repeatability())
    if repeatability is None and any(point.label is None for point in points):
        notes.append(UNCALIBRATED)
    report(progress, 1.0, "measured")
    criterion = settings.chosen()
    return PatientGrowth(tuple(measured), tuple(_intervals(measured, criterion)), criterion, tuple(notes))


@dataclasses.dataclass(eq=False)
class _Patches:
    """The ears of a time point, as the network sees them."""

    point: TimePoint
    ears: list[EarPrediction]

    @classmethod
    def of(
        cls,
        point: TimePoint,
        frames: Sequence[EarFrame],
        contrast: str,
        model: weights.TrainedNetwork,
        device: str,
    ) -> "_Patches":
        ears, _ = predict_patches(model, point.scan, list(frames), contrast, InferenceSettings(), device)
        return cls(point, ears)

    def label_share(self, number: int) -> np.ndarray:
        """Return the part of each voxel of an ear's patch that the tumor of the corrected label fills, 0 to 1."""
        assert self.point.label is not None
        ear, label = self.ears[number], self.point.label
        tumor = label.with_array((label.array == labels.VS).astype(np.float32))
        return np.clip(ear.frame.sample(tumor, ear.grid).array, 0, 1)

    def tumor_in(self) -> np.ndarray:
        """Return the positions of what may be a tumor in the scan, (n, 3) LPS mm."""
        if self.point.label is not None:
            return self.point.label.grid.points(self.point.label.array == labels.VS)
        return np.concatenate([ear.points(Candidate.of(ear).mask) for ear in self.ears])


def _aligned(
    first: TimePoint, later: TimePoint, one: EarFrames, other: EarFrames, changed: Volume | None
) -> RigidAlignment:
    """Return the alignment of a later scan; what ``changed`` holds may have changed and is not compared.

    Raises:
        InputError: it shows another head, or left and right are exchanged.

    """
    try:
        start = frame_alignment(one, other)
        ears = [ear for ear, match in zip(one, other, strict=True) if ear.accepted and match.accepted]
        alignment = align(first.scan, later.scan, ears, start, changed)
    except InputError as error:
        raise InputError(f"{first.name} and {later.name}: {error}") from error
    contrasts = int(one.contrast != other.contrast)
    least = LEAST_SIMILARITY[contrasts]
    if alignment.similarity >= _IN_ORDER[contrasts]:
        return alignment
    mirrored = laterality.mirrored(later.scan)
    frames = ear_alignment.mirrored(other, later.scan.grid)
    ears = [ear for ear, match in zip(one, frames, strict=True) if ear.accepted and match.accepted]
    reflected = align(first.scan, mirrored, ears, frame_alignment(one, frames)) if ears else alignment
    if reflected.similarity >= max(least, alignment.similarity + _MIRRORED):
        raise InputError(
            f"Left and right are exchanged between {first.name} and {later.name}: the mirror image matches. Correct "
            "the orientation in the header of one of them."
        )
    if alignment.similarity >= least:
        return alignment
    raise InputError(
        f"{first.name} and {later.name} do not show the same head: similarity {alignment.similarity:.2f} after the "
        f"alignment, at least {least:g} needed. Give scans of one patient with the same ear in both."
    )


def _around(points: np.ndarray, grid: Grid) -> Volume | None:
    """Return the mask, on a coarse grid, of what lies near points (n, 3), LPS mm."""
    if not len(points):
        return None
    coarse = grid.coarsened([max(1, round(1.5 / step)) for step in grid.spacing])
    mask = np.zeros(coarse.shape, bool)
    index = np.rint(coarse.to_index(points)).astype(int)[:, ::-1]
    index = index[np.all((index >= 0) & (index < mask.shape), axis=1)]
    mask[tuple(index.T)] = True
    return Volume(grown(mask, CHANGED_MM, coarse), coarse)


def _common_frames(frames: Sequence[EarFrames], matrices: Sequence[np.ndarray]) -> list[EarFrame]:
    """Return the frame of each ear in the first scan: of the first time point that shows it."""
    common = []
    for side in SIDES:
        for each, matrix in zip(frames, matrices, strict=True):
            frame: EarFrame = getattr(each, side)
            if frame.accepted:
                common.append(frame.moved(np.linalg.inv(matrix)))
                break
    return common


def _extend_together(patches: Sequence[_Patches], model: weights.TrainedNetwork, device: str) -> None:
    """Enlarge the patches of an ear at all time points where its tumor is cut at one of them."""
    for number in range(len(patches[0].ears)):
        ears = [each.ears[number] for each in patches]
        faces = sorted({face for ear in ears for face in ear.touched(Candidate.of(ear).mask)})
        if faces:
            for each in patches:
                each.ears[number], _ = extend(
                    each.ears[number], faces, model, each.point.scan, InferenceSettings(), device
                )


def _measured(
    points: Sequence[TimePoint],
    patches: Sequence[_Patches],
    alignments: Sequence[RigidAlignment | None],
    common: Sequence[EarFrame],
    rule: Calling,
    repeatability: Repeatability,
) -> tuple[list[MeasuredTimePoint], list[str]]:
    """Return the measured time points, and notes."""
    spreads = _follow_labels(patches, repeatability)
    over_time = [
        joint_estimate.smoothed_over_time([each.ears[number].probabilities for each in patches])
        for number in range(len(common))
    ]
    frames = _as_pair(common)
    maps_at: list[list[np.ndarray]] = []
    volumes_at: list[dict[str, tuple[float, float]]] = []
    outlined_at: list[dict[str, float]] = []
    for time, each in enumerate(patches):
        called = call(
            [dataclasses.replace(ear, probabilities=over_time[number][time]) for number, ear in enumerate(each.ears)],
            rule,
        )
        maps, volumes, outlined = [], {}, {}
        for number, ear in enumerate(each.ears):
            tumor = called[number].argmax(axis=0) == labels.VS
            if tumor.any():
                tumor = joint_estimate.extent(marked_tumor(ear), tumor)
                probability = ear.probabilities[labels.VS]
                volumes[ear.frame.side] = (
                    joint_estimate.volume_mm3(probability, tumor, ear.voxel_mm3),
                    spreads[time][number]
                    or repeatability.share(uncertain_volume(Volume(tumor, ear.grid), probability)),
                )
                outlined[ear.frame.side] = float(np.count_nonzero(tumor)) * ear.voxel_mm3
            maps.append(restrict(ear, tumor, rule))
        maps_at.append(maps)
        volumes_at.append(volumes)
        outlined_at.append(outlined)
    if all(point.label is None for point in points):
        volumes_at = joint_estimate.as_outlined(volumes_at, outlined_at)
    measured = []
    for point, each, alignment, maps, volumes in zip(points, patches, alignments, maps_at, volumes_at, strict=True):
        label_map = point.label or Volume(
            label_map_of(each.ears, maps, point.scan.grid, rule.cochlea_up_mm), point.scan.grid
        )
        matrix = np.eye(4) if alignment is None else alignment.matrix
        in_first = Volume(label_map.array, label_map.grid.moved(np.linalg.inv(matrix)))
        measures = measure(in_first, frames)
        sizes = {}
        for row in measures.tumors:
            by_label = row.volume_mm3, MANUAL / np.sqrt(2)
            sizes[row.side] = _size(row, *(by_label if point.label else volumes.get(row.side, by_label)))
        marked = in_first.grid.points(in_first.array == labels.VS)
        at = marked if len(marked) else np.array([frame.cochlea for frame in common])
        error_mm = 0.0 if alignment is None else alignment.error_mm(at)
        unseen = frozenset(ear.frame.side for ear in each.ears if _covered_share(ear) < LEAST_INSIDE)
        measured.append(MeasuredTimePoint(point, label_map, alignment, error_mm, measures, sizes, unseen))
    notes = dict.fromkeys(note for item in measured for note in item.measures.notes)
    for item in measured:
        notes |= dict.fromkeys(f"{side.capitalize()} ear outside of {item.point.name}." for side in sorted(item.unseen))
        if item.point.label is not None and not (item.point.label.array == labels.VS).any():
            notes[f"The corrected label of {item.point.name} has no tumor, and scans without a label follow it."] = None
    return measured, list(notes)


def _covered_share(ear: EarPrediction) -> float:
    """Return the fraction of the surroundings of an ear that lies in the scan."""
    distance = np.linalg.norm(positions(ear.grid) - templates.load().modiolus, axis=-1)
    return float(ear.covered[distance < _SURROUNDINGS_MM].mean())


def _follow_labels(patches: Sequence[_Patches], repeatability: Repeatability) -> list[list[float]]:
    """Let the tumors of other time points follow the nearest corrected label; return spreads by time and ear.

    A spread of 0 is not decided here. The network has to see the labeled tumor: where it does not, the spread says so.
    """
    labeled = [time for time, each in enumerate(patches) if each.point.label is not None]
    spreads = [[0.0] * len(each.ears) for each in patches]
    if not labeled:
        return spreads
    for number in range(len(patches[0].ears)):
        shares = {time: patches[time].label_share(number) for time in labeled}
        seen = {time: patches[time].ears[number].probabilities[labels.VS].copy() for time in labeled}
        for time, each in enumerate(patches):
            nearest = min(labeled, key=lambda other: (abs(other - time), other))
            share, at_label = shares[nearest], seen[nearest]
            ear = each.ears[number]
            values = (
                share if time in labeled else joint_estimate.corrected(ear.probabilities[labels.VS], at_label, share)
            )
            if time not in labeled and (share > 0.5).any():
                missed = 1 - joint_estimate.agreement(share > 0.5, at_label > 0.5)
                mask = Volume(share > 0.5, ear.grid)
                own = repeatability.share(uncertain_volume(mask, ear.probabilities[labels.VS]))
                spreads[time][number] = float(np.hypot(own, missed))
            each.ears[number] = dataclasses.replace(ear, probabilities=_with_tumor(ear.probabilities, values))
    return spreads


def _with_tumor(probabilities: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Return probabilities (label, z, y, x) with another one of the tumor; the rest is scaled."""
    rest = np.delete(probabilities, labels.VS, axis=0)
    rest = rest * ((1 - tumor) / np.maximum(rest.sum(axis=0), 1e-6))
    return np.insert(rest, labels.VS, tumor, axis=0).astype(np.float32)


def _as_pair(common: Sequence[EarFrame]) -> EarFrames | None:
    """Return the common frames as those of a scan; an ear without one is refused there."""
    by_side = {frame.side: frame for frame in common}
    some = common[0]
    left, right = (
        by_side.get(side) or dataclasses.replace(some, side=side, reason=f"{side.capitalize()} ear in no scan.")
        for side in SIDES
    )
    return EarFrames(left, right, "T2", 1.0)


def _size(row: TumorMeasures, volume_mm3: float, spread: float) -> TumorSize:
    return TumorSize(volume_mm3, float(spread), row.axial.largest.length_mm, row.extrameatal_mm)


def _intervals(measured: Sequence[MeasuredTimePoint], criterion: Criterion) -> list[Interval]:
    """Return the intervals of each side with a tumor at any time."""
    last = len(measured) - 1
    pairs: list[Any] = list(itertools.pairwise(range(len(measured)))) + ([(0, last)] if last > 1 else [])
    sides = [side for side in (*SIDES, laterality.UNKNOWN_SIDE) if any(side in each.sizes for each in measured)]
    intervals = []
    for side, (first, later) in itertools.product(sides, pairs):
        one, other = measured[first], measured[later]
        if side in one.unseen | other.unseen:
            continue
        days = (other.point.date - one.point.date).days if one.point.date and other.point.date else None
        growth = Growth(one.sizes.get(side), other.sizes.get(side), days, criterion)
        intervals.append(Interval(side, first, later, growth))
    return intervals
