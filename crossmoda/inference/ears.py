"""Prediction of the ears of a scan, each in its canonical frame: any spacing, orientation and part of a head."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening

from crossmoda import labels, weights
from crossmoda.anatomy.ear_frame import PATCH_SPACING_MM, EarFrames, ear_frames
from crossmoda.errors import InputError
from crossmoda.inference.ear_patches import EarPrediction, extend, predict_patches
from crossmoda.inference.settings import Settings
from crossmoda.progress import Progress, part, report
from crossmoda.volume import Grid, Volume
from crossmoda.volume.grid import Box
from crossmoda.volume.masks import NEIGHBORHOOD, components, largest_component, solid
from crossmoda.volume.resampling import block_means

#: Fraction of a candidate inside that of the contralateral ear from which on both are one tumor.
_SAME_TUMOR = 0.5


@dataclasses.dataclass(frozen=True)
class Calling:
    """What is called a tumor. The values are of the tuning set and stored in the model card."""

    smallest_mm3: float = 12.0
    """volume of the smallest tumor"""
    least_probability: float = 0.6
    """mean probability within a tumor"""
    second_mm3: float = 40.0
    """the same for a tumor of the ear with less evidence, if the other ear has one, too"""
    second_probability: float = 0.8
    second_share: float = 0.1
    """its least volume relative to the other ear's tumor"""
    smallest_cochlea_mm3: float = 10.0
    cochlea_up_mm: float = 0.0
    """how much too high the network places cochleae; it is taken off"""

    @classmethod
    def of(cls, card: Mapping[str, object]) -> "Calling":
        """Return the rule of a model card.

        Raises:
            InputError: it has an unknown entry, or one that is not numeric.

        """
        stored = card.get(weights.CALLING, {})
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(stored, dict) or not all(
            name in known and isinstance(value, int | float) for name, value in stored.items()
        ):
            names = ", ".join(sorted(known))
            raise InputError(
                f"Invalid model card ({weights.CALLING}: numbers for {names}). Download the weights again."
            )
        return cls(**stored)


@dataclasses.dataclass(frozen=True)
class EarsPrediction:
    """The ears of a scan, on the scan's grid."""

    region: Box
    """the box that holds the patches; outside of it is background"""
    probabilities: np.ndarray
    """(label, z, y, x) of the region, background first"""
    label_map: np.ndarray
    """(z, y, x) uint8 of the region, only what is called"""
    frames: EarFrames
    fallbacks: list[str]
    notes: list[str]


def predict_ears(
    model: weights.TrainedNetwork, image: Volume, settings: Settings, device: str, progress: Progress | None = None
) -> EarsPrediction:
    """Predict both ears of a scan.

    Raises:
        InputError: the scan shows no ear that is recognized.

    """
    report(progress, 0.0, "locating the ears")
    frames = ear_frames(image, progress=part(progress, 0.0, 0.6))
    chosen = list(frames) if settings.any_ear and np.isfinite([f.matrix for f in frames]).all() else frames.accepted
    if not chosen:
        raise InputError(frames.refusal)
    report(progress, 0.6, "segmenting")
    rule = Calling.of(model.card)
    ears, fallbacks = predict_patches(model, image, chosen, frames.contrast, settings, device)
    report(progress, 0.8, "resampling to the scan's grid")
    for number, ear in enumerate(ears):
        faces = ear.touched(Candidate.of(ear).mask)
        if faces:  # the tumor ends where the patch does, and the scan goes on there
            ears[number], more = extend(ear, faces, model, image, settings, device)
            fallbacks = list(dict.fromkeys([*fallbacks, *more]))
    raw = [ear.probabilities for ear in ears]
    called = raw if settings.keep_all else call(ears, rule)
    region, probabilities = _restored(ears, raw, image.grid, rule.cochlea_up_mm)
    inside = probabilities if settings.keep_all else _restored(ears, called, image.grid, rule.cochlea_up_mm)[1]
    label_map = _most_probable(inside)
    notes = [] if settings.keep_all else [*_fluid_notes(ears, called, rule), *_cut_notes(ears, called)]
    return EarsPrediction(region, probabilities, label_map, frames, fallbacks, [*fallbacks, *frames.notes, *notes])


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What may be the schwannoma of an ear: the component with the largest sum of probabilities that is no fluid."""

    mask: np.ndarray
    """bool, in the patch"""
    volume_mm3: float
    probability: float
    """mean within it"""

    @property
    def evidence(self) -> float:
        """Sum of the probabilities, mm3."""
        return self.volume_mm3 * self.probability

    @classmethod
    def of(cls, ear: EarPrediction) -> "Candidate":
        """Return the candidate of an ear, empty if nothing is marked."""
        mask = _largest(ear, labels.VS)
        inside = ear.probabilities[labels.VS][mask]
        return cls(mask, len(inside) * ear.voxel_mm3, float(inside.mean()) if len(inside) else 0.0)


def decide(candidates: Sequence[Candidate], rule: Calling) -> list[bool]:
    """Return which candidates of a scan's ears are called.

    If both ears have one, the one with less evidence has to be convincing by itself: a bright vestibule is no second
    tumor, and two tumors stay two.
    """
    evidence = [candidate.evidence for candidate in candidates]
    strongest = int(np.argmax(evidence))
    decisions = []
    for number, candidate in enumerate(candidates):
        called = candidate.volume_mm3 >= rule.smallest_mm3 and candidate.probability >= rule.least_probability
        if number != strongest and evidence[strongest] > 0:
            called &= candidate.volume_mm3 >= rule.second_mm3 and candidate.probability >= rule.second_probability
            called &= evidence[number] >= rule.second_share * evidence[strongest]
        decisions.append(called)
    return decisions


def call(ears: Sequence[EarPrediction], rule: Calling) -> list[np.ndarray]:
    """Return the probabilities (label, z, y, x) of each ear with what is not called given to the background.

    An ear has at most one schwannoma, without holes, and one cochlea. A tumor that both patches show is one tumor.
    """
    candidates = _apart(ears, [Candidate.of(ear) for ear in ears])
    decisions = decide(candidates, rule)
    return [
        restrict(ear, solid(candidate.mask) if called else np.zeros_like(candidate.mask), rule)
        for ear, candidate, called in zip(ears, candidates, decisions, strict=True)
    ]


def _apart(ears: Sequence[EarPrediction], candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates with one that both ears' patches show given to the ear whose canal it is nearer."""
    if len(ears) < 2 or not all(candidate.volume_mm3 for candidate in candidates):
        return candidates
    smaller, larger = np.argsort([candidate.volume_mm3 for candidate in candidates])
    shared = ears[larger].holds(candidates[larger].mask, ears[smaller].points(candidates[smaller].mask))
    if shared.mean() < _SAME_TUMOR:
        return candidates
    gaps = [ear.gap_to_porus_mm(candidate.mask) for ear, candidate in zip(ears, candidates, strict=True)]
    farther = int(np.argmax(gaps))
    nothing = Candidate(np.zeros_like(candidates[farther].mask), 0.0, 0.0)
    return [nothing if number == farther else candidate for number, candidate in enumerate(candidates)]


def restrict(ear: EarPrediction, tumor: np.ndarray, rule: Calling) -> np.ndarray:
    """Return the probabilities (label, z, y, x) of an ear of which only this tumor and its cochlea are left."""
    cochlea = _largest(ear, labels.COCHLEA)
    if cochlea.sum() * ear.voxel_mm3 < rule.smallest_cochlea_mm3:
        cochlea = np.zeros_like(cochlea)
    return _only(ear.probabilities, tumor, cochlea)


def _largest(ear: EarPrediction, value: int) -> np.ndarray:
    """Return the component of a structure with the largest sum of probabilities; no fluid or bone of a tumor."""
    mask = marked_tumor(ear) if value == labels.VS else ear.marked(value)
    numbers, count = components(mask)
    masses = np.bincount(numbers.ravel(), weights=ear.probabilities[value].ravel(), minlength=count + 1)
    return mask if count < 2 else numbers == 1 + int(masses[1:].argmax())


def marked_tumor(ear: EarPrediction) -> np.ndarray:
    """Return where the network marks a tumor that is no fluid or bone, bool (z, y, x)."""
    mask = ear.marked(labels.VS)
    fluid = ear.fluid(mask)
    return _without(mask, fluid | ear.bone(mask & ~fluid))


def _without(mask: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return a mask without other tissue and without the rim that others share; unchanged if it has none.

    A tumor may lie beside bright fluid that the network marks, too: what is darker is kept.
    """
    if not (mask & others).any():
        return mask
    tissue = mask & ~others
    return binary_dilation(binary_opening(tissue, NEIGHBORHOOD), iterations=2, mask=tissue)


def _only(probabilities: np.ndarray, tumor: np.ndarray, cochlea: np.ndarray) -> np.ndarray:
    """Return probabilities of which only one component of each structure is left, with the slope at its surface."""
    result = np.zeros_like(probabilities)
    for value, mask in ((labels.VS, tumor), (labels.COCHLEA, cochlea)):
        if mask.any():
            surroundings = binary_dilation(mask, iterations=2)
            others = (probabilities.argmax(axis=0) == value) & ~mask
            result[value] = probabilities[value] * (surroundings & ~others)
            result[value][mask] = np.maximum(result[value][mask], 0.501)  # holes are filled
    background = 1 - result[1:].sum(axis=0)
    result[1:] /= np.maximum(1 - np.minimum(background, 0), 1)
    result[0] = np.maximum(background, 0)
    return result


def label_map_of(
    ears: Sequence[EarPrediction], maps: Sequence[np.ndarray], grid: Grid, cochlea_up_mm: float = 0.0
) -> np.ndarray:
    """Return the label map (z, y, x) uint8 of the patches' probabilities on the scan's grid."""
    region, inside = _restored(ears, maps, grid, cochlea_up_mm)
    label_map = np.zeros(grid.shape, np.uint8)
    label_map[region] = _most_probable(inside)
    return label_map


def _restored(
    ears: Sequence[EarPrediction], maps: Sequence[np.ndarray], grid: Grid, cochlea_up_mm: float = 0.0
) -> tuple[Box, np.ndarray]:
    """Return the box of the scan's grid that holds all patches, and the probabilities (label, z, y, x) in it."""
    boxes = [grid.box_around(ear.frame.to_scan(ear.grid.corners)) for ear in ears]
    used = [box for box in boxes if all(side.stop > side.start for side in box)]
    sides = list(zip(*used, strict=True)) if used else [(slice(0, 0),)] * 3
    region = tuple(slice(min(one.start for one in axis), max(one.stop for one in axis)) for axis in sides)
    result = np.zeros((len(labels.VALUES), *(side.stop - side.start for side in region)), np.float32)
    for ear, probabilities, box in zip(ears, maps, boxes, strict=True):
        if box not in used:
            continue
        x, y, z = ear.grid.origin
        lowered = dataclasses.replace(ear.grid, origin=(x, y, z - cochlea_up_mm))
        inner = tuple(
            slice(one.start - whole.start, one.stop - whole.start) for one, whole in zip(box, region, strict=True)
        )
        # Voxels are divided into parts about as large as the patch's.
        factors = [max(1, round(spacing / PATCH_SPACING_MM)) for spacing in grid.spacing]
        fine = grid.crop(box).refined(factors)
        for structure in labels.STRUCTURES:
            if not probabilities[structure.value].any():
                continue
            place = lowered if structure.value == labels.COCHLEA else ear.grid
            patch = Volume(np.ascontiguousarray(probabilities[structure.value]), place)
            values = block_means(ear.frame.restore(patch, fine).array, factors)
            covering = result[structure.value][inner]
            np.maximum(covering, values, out=covering)
    for section in np.moveaxis(result, 1, 0):
        total = section[1:].sum(axis=0)
        section[1:] /= np.maximum(total, 1)
        section[0] = 1 - np.minimum(total, 1)
    return region, result


def _most_probable(probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable label of each voxel, uint8: the argmax over few labels, in less time."""
    best, label_map = probabilities[0].copy(), np.zeros(probabilities.shape[1:], np.uint8)
    for value, values in enumerate(probabilities[1:], start=1):
        label_map[values > best] = value
        np.maximum(best, values, out=best)
    return label_map


def _fluid_notes(ears: Sequence[EarPrediction], called: Sequence[np.ndarray], rule: Calling) -> list[str]:
    """Return a sentence for each ear where the network marks a region as bright as fluid."""
    notes = []
    for ear, probabilities in zip(ears, called, strict=True):
        tumor, marked = probabilities.argmax(axis=0) == labels.VS, ear.marked(labels.VS)
        bright = largest_component(binary_opening(marked & ear.fluid(marked) & ~tumor, NEIGHBORHOOD))
        volume_mm3 = bright.sum() * ear.voxel_mm3
        if volume_mm3 >= rule.smallest_mm3:
            place = "schwannoma" if tumor.any() else "canal"
            notes.append(
                f"{volume_mm3:.0f} mm³ beside the {ear.frame.side} {place} resemble a tumor but are as bright as "
                "fluid: left out, look for a cyst"
            )
    return notes


def _cut_notes(ears: list[EarPrediction], called: list[np.ndarray]) -> list[str]:
    """Return a sentence for each tumor that ends where the scan or the patch does."""
    notes = []
    for ear, probabilities in zip(ears, called, strict=True):
        tumor = probabilities.argmax(axis=0) == labels.VS
        if (binary_dilation(tumor) & ~ear.covered).any():
            notes.append(f"the {ear.frame.side} schwannoma reaches the edge of the scan: volume incomplete")
        elif ear.touched(tumor):
            notes.append(f"the {ear.frame.side} schwannoma reaches the edge of the segmented region: volume incomplete")
    return notes
