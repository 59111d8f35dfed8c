"""Weighted voting: the label maps of atlases averaged at each voxel, weighted by local image similarity.

The quality of a registration varies from place to place, which one weight per atlas cannot express. Where the atlases'
images are known, weights fall with the dissimilarity of the images around each voxel (Artaechevarria, Munoz-Barrutia
and Ortiz-de-Solorzano, IEEE TMI 28:1266, 2009; Sabuncu et al., IEEE TMI 29:1714, 2010): the number of differing bits of
MIND-SSC, which compares scans of different contrast. The votes about a cochlea are then recentered on the target
(:mod:`crossmoda.fusion.recentering`).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.fusion.recentering import Displacement, find_displacement
from crossmoda.volume.grid import Box
from crossmoda.volume.masks import components, widened

#: Standard deviation of the Gaussian window in which images are compared around each voxel, mm.
WINDOW_MM = 1.25
#: Additional differing bits (of 60) that reduce the weight of an atlas by a factor of e.
BITS = 1.0
#: Standard deviation of the smoothing of labels, mm, so that votes can meet between voxels.
SOFTENING_MM = 0.3
#: Distance around labeled voxels within which votes are computed, mm: beyond it all atlases have background.
_REACH_MM = 1.5
#: Minimum fraction of the window on compared voxels.
_MINIMUM_COVERAGE = 0.02
_TRUNCATE = 2.5
#: The structures that are recentered: those that look alike in everybody.
RECENTERED = (labels.COCHLEA,)


@dataclasses.dataclass(frozen=True)
class Recentering:
    """The shift of the votes about one structure."""

    value: int
    """of the label"""
    center: tuple[float, ...]
    """of the structure: (z, y, x), voxels"""
    displacement_mm: tuple[float, ...]
    """of its center, along z, y, x"""


@dataclasses.dataclass(frozen=True)
class WeightedVotes:
    """The weighted votes of all atlases."""

    probability: np.ndarray
    """(label, z, y, x) float32, background first"""
    recentered: tuple[Recentering, ...]


def weighted_votes(
    label_maps: Sequence[np.ndarray],
    dissimilarities: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    missing: Sequence[np.ndarray],
    target: np.ndarray,
    spacing_zyx: Sequence[float],
    values: Sequence[int] = labels.VALUES,
    weights: np.ndarray | None = None,
) -> WeightedVotes:
    """Return the probability of each label by locally weighted votes.

    Args:
        label_maps: one per atlas, (z, y, x).
        dissimilarities: per atlas, the differing bits of the images' MIND-SSC, (z, y, x).
        images: per atlas, its image on the target, (z, y, x), on any scale; 0 where it was not compared. There, far
            from its labels, it weighs as much as the most similar atlas.
        missing: per atlas, the labels it leaves open at each voxel (see :func:`crossmoda.fusion.staple`).
        target: the target's image, (z, y, x).
        spacing_zyx: voxel size, mm.
        values: the label values, background first.
        weights: (atlas, label), factor of each atlas's votes about a label; None: 1.

    """
    recentered = []
    shape = label_maps[0].shape
    votes = np.zeros((len(values), *shape), np.float32)
    votes[0] = 1.0
    labeled = np.logical_or.reduce([label_map != values[0] for label_map in label_maps])
    weights = np.ones((len(label_maps), len(values))) if weights is None else weights
    for box, region in _regions(labeled, spacing_zyx):
        cropped = [item[box] for item in images]
        mean = _local_means([item[box] for item in dissimilarities], [item > 0 for item in cropped], spacing_zyx)
        own = [item[box] for item in label_maps]
        bits = [np.broadcast_to(item, shape)[box] for item in missing]
        local = {index: _local_weights(bits, mean, weights[:, index], index) for index in range(1, len(values))}
        fractions = [_fraction(own, local[index], values[index], spacing_zyx) for index in local]
        for index in local:
            if (value := values[index]) in RECENTERED:
                shift = _recenter(fractions, index, target[box], region, cropped, local[index], spacing_zyx)
                if shift is not None:
                    center = tuple(side.start + position for side, position in zip(box, shift.center, strict=True))
                    recentered.append(Recentering(value, center, tuple(shift.coefficients[0].tolist())))
        probability = np.stack([np.maximum(1.0 - np.sum(fractions, axis=0), 0.0), *fractions])
        probability /= probability.sum(axis=0)
        for index in range(len(values)):
            votes[index][box][region] = probability[index][region]
    return WeightedVotes(votes, tuple(recentered))


def _regions(labeled: np.ndarray, spacing_zyx: Sequence[float]) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield a box with room for the Gaussians, and the mask in it, for each connected labeled region."""
    reach = [int(np.ceil(_REACH_MM / size)) for size in spacing_zyx]
    grown = labeled
    for axis, length in enumerate(reach):
        grown = ndimage.maximum_filter1d(grown.view(np.uint8), 2 * length + 1, axis=axis, mode="constant").view(bool)
    regions, _ = components(grown)
    room = [int(np.ceil(_TRUNCATE * WINDOW_MM / size)) for size in spacing_zyx]
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        wide = widened(box, room, labeled.shape)
        yield wide, regions[wide] == number


def _local_means(
    dissimilarities: Sequence[np.ndarray], compared: Sequence[np.ndarray], spacing_zyx: Sequence[float]
) -> np.ndarray:
    """Return the mean dissimilarity of each atlas around each voxel, (atlas, z, y, x); NaN: not compared."""
    width = [WINDOW_MM / size for size in spacing_zyx]
    mean = np.empty((len(dissimilarities), *compared[0].shape), np.float32)
    for number, (bits, known) in enumerate(zip(dissimilarities, compared, strict=True)):
        coverage = _smooth(known.astype(np.float32), width)
        total = _smooth(np.where(known, bits, 0).astype(np.float32), width)
        mean[number] = np.where(coverage > _MINIMUM_COVERAGE, total / np.maximum(coverage, _MINIMUM_COVERAGE), np.nan)
    return mean


def _local_weights(
    missing: Sequence[np.ndarray], dissimilarity: np.ndarray, factors: np.ndarray, index: int
) -> list[np.ndarray]:
    """Return the weight of each atlas for one label at each voxel, 0 where it leaves the label open."""
    contributes = [np.broadcast_to((bits & (1 | 1 << index)) == 0, dissimilarity.shape[1:]) for bits in missing]
    least = np.full(dissimilarity.shape[1:], np.inf, np.float32)
    for mean, mask in zip(dissimilarity, contributes, strict=True):
        np.fmin(least, mean, out=least, where=mask)  # ignores NaN
    return [
        np.where(mask, np.where(np.isnan(mean), np.float32(1), np.exp((least - mean) / BITS)) * np.float32(factor), 0)
        for mean, mask, factor in zip(dissimilarity, contributes, factors, strict=True)
    ]


def _fraction(
    label_maps: Sequence[np.ndarray], weights: Sequence[np.ndarray], value: int, spacing_zyx: Sequence[float]
) -> np.ndarray:
    """Return the weighted fraction of the contributing atlases with one label at each voxel, (z, y, x)."""
    width = [SOFTENING_MM / size for size in spacing_zyx]
    votes, total = np.zeros(weights[0].shape, np.float32), np.zeros(weights[0].shape, np.float32)
    for label_map, weight in zip(label_maps, weights, strict=True):
        total += weight
        own = label_map == value
        if own.any():
            votes += weight * _smooth(own.astype(np.float32), width)
    return np.divide(votes, total, out=np.zeros_like(votes), where=total > 0)


def _recenter(
    fractions: list[np.ndarray],
    index: int,
    target: np.ndarray,
    region: np.ndarray,
    images: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    spacing_zyx: Sequence[float],
) -> Displacement | None:
    """Move the votes about a label (``fractions`` begin with label 1) to the target's structure; return the shift."""
    known = [np.where(image > 0, weight, 0) for image, weight in zip(images, weights, strict=True)]
    others = [fraction for number, fraction in enumerate(fractions, start=1) if number != index]
    votes = np.where(region, fractions[index - 1], 0)
    displacement = find_displacement(target, votes, others, images, known, spacing_zyx)
    if displacement is not None:
        fractions[index - 1] = displacement.move(fractions[index - 1])
    return displacement


def _smooth(array: np.ndarray, width: Sequence[float]) -> np.ndarray:
    return ndimage.gaussian_filter(array, width, mode="nearest", truncate=_TRUNCATE)
