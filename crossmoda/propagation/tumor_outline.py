"""The outline of a target's tumor: what the target shows, where the atlases have tumors and beyond.

Atlas tumors belong to other people. They tell where the target's tumor begins, hardly how large it is. So each atlas
tumor, shrunk and enlarged, is one hypothesis; how well the target agrees with them is their weight, and their weighted
mean is the prior. The evidence is the brightness of a voxel given the contralateral brightness (Bayes), both learned
from the target itself; a Markov random field keeps neighbors of equal brightness together (mean field as in Zhang,
Brady and Smith, IEEE TMI 20:45, 2001; weights of neighbors as in Boykov and Funka-Lea, IJCV 70:109, 2006). All is
repeated with the outline found, whose surroundings are then likely too: it grows to the border that the target shows.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.volume.masks import bounding_box, largest_component

#: Shifts of the surface of an atlas tumor, mm; each is a hypothesis.
_ENLARGED_MM = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
#: A tumor lies within this distance of an atlas tumor, mm.
_REACH_MM = 8.0
#: Uncertainty of a hypothesis's surface, mm.
_SURFACE_MM = 1.0
#: Errors of neighboring voxels are correlated: this volume counts as one observation of a hypothesis, mm3.
_SAMPLE_MM3 = 30.0
#: Rounds of learning; how far the outline of a round grows in the next, mm (not in the last one, which would shift its
#: border), and how much that counts in the prior.
_ROUNDS, _GROWTH_MM, _OWN = 5, 1.5, 0.6
#: Standard deviation of the enlargement of an atlas tumor, mm.
_ENLARGEMENT_MM = 2.0
#: Limits of the prior.
_MINIMUM_PRIOR, _MAXIMUM_PRIOR = 0.002, 0.95
#: Bins of brightness, and the probability that all bins share: in the tumor, and in other tissue.
_BINS, _TUMOR_FLOOR, _TISSUE_FLOOR = 16, 0.05, 0.1
#: Where the difference of both sides is hardly distinct, the brightness of the tumor is unknown: (1 - distinctness) to
#: this power.
_DOUBT = 4
#: If less of the difference is distinct there may be no tumor (docs/validation/propagation.md).
LEAST_DISTINCT = 0.33
#: Standard deviation of the smoothing of both distributions, bins.
_TUMOR_SMOOTHING, _TISSUE_SMOOTHING = 0.7, 0.5
#: Prior that both sides are alike: its standard deviation in bins, and its strength in voxels for each brightness.
_ALIKE_BINS, _ALIKE_VOXELS = 1.0, 50.0
#: Bone is darker than this fraction of the next brighter tissue.
_BONE = 0.5
#: The random field: log odds added by neighbors that are all tumor, standard deviation of their Gaussian weights (mm),
#: and iterations in each round and in the last one.
_NEIGHBORS, _NEIGHBORHOOD_MM, _ITERATIONS, _LAST_ITERATIONS = 8.0, 0.6, 3, 8
#: Difference of brightness that separates neighbors; noise is smoothed before (standard deviation, mm).
_EDGE, _DENOISING_MM = 0.15, 0.35


class Outline(NamedTuple):
    """A tumor as the target shows it."""

    probability: np.ndarray
    """of tumor at each voxel, (z, y, x) float32"""
    distinctness: float
    """fraction of the difference from the contralateral side that is not as large in the other direction, 0 to 1: what
    chance and the registration of both sides do not explain"""


def outline_tumor(
    votes: np.ndarray,
    tumors: Sequence[np.ndarray],
    comparison: ContralateralComparison,
    spacing_zyx: Sequence[float],
) -> Outline:
    """Return the outline of the tumor given atlas tumors and the contralateral comparison.

    Args:
        votes: the probability of tumor by the atlases, (z, y, x).
        tumors: the tumor of each atlas on the target, bool (z, y, x).
        comparison: the target compared with its contralateral side; beyond that the target's brightness decides.
        spacing_zyx: voxel size, mm.

    Returns:
        The outline; the votes themselves where none of their voxels differs from the contralateral side as a tumor
        does, and where a distinct difference has no outline.

    """
    if not (comparison.excess[votes > 0] > 0).any():
        return Outline(votes, 0.0)
    masks = [mask for mask in (votes > 0.5, *tumors) if mask.any()]
    box = bounding_box(np.any([*masks, votes > 0], axis=0), [round(_REACH_MM / size) for size in spacing_zyx])
    search = _OutlineSearch(
        [mask[box] for mask in masks] or [votes[box] > 0],
        ContralateralComparison(
            comparison.ipsilateral[box], comparison.contralateral[box], comparison.modality, comparison.mean
        ),
        np.asarray(spacing_zyx, float),
    )
    probability = np.zeros(votes.shape, np.float32)
    probability[box] = search.find()
    if search.distinctness >= LEAST_DISTINCT and not (probability > 0.5).any():
        return Outline(votes, search.distinctness)
    return Outline(probability, search.distinctness)


def excess_mm3(tumor: np.ndarray, comparison: ContralateralComparison, spacing_zyx: Sequence[float]) -> float:
    """Return the volume of a tumor weighted with its significant contralateral excess, mm3.

    It is negative for the wrong side.

    Args:
        tumor: the probability of tumor at each voxel, (z, y, x).
        comparison: the target compared with its contralateral side; voxels beyond the scan do not count.
        spacing_zyx: voxel size, mm.

    """
    excess = comparison.excess * comparison.significance
    return float(np.nansum(tumor * excess, dtype=np.float64) * np.prod(spacing_zyx))


class _OutlineSearch:
    """The search for one outline in a box around the atlas tumors; ``(n,)`` are the voxels within their reach."""

    def __init__(self, masks: Sequence[np.ndarray], comparison: ContralateralComparison, spacing: np.ndarray):
        """Start with the masks and the comparison in the box, (z, y, x)."""
        distances = np.stack([_signed_distance(mask, spacing) for mask in masks])
        self.spacing = spacing
        self.region = distances.min(axis=0) < _REACH_MM
        inside = distances[:, self.region]
        self.hypotheses = np.concatenate([_surface(inside - enlarged) for enlarged in _ENLARGED_MM])
        self.log_prior = -0.5 * np.repeat((np.array(_ENLARGED_MM) / _ENLARGEMENT_MM) ** 2, len(inside))
        self.known = ~np.isnan(comparison.contralateral[self.region])
        self.ipsilateral = comparison.ipsilateral[self.region]
        self.contralateral = np.nan_to_num(comparison.contralateral)[self.region]
        self.excess = np.nan_to_num(comparison.excess)[self.region]
        self.field = _Neighbors(comparison.ipsilateral, spacing)
        self.is_bone = _bone(self.ipsilateral)
        self.distinctness = 0.0

    def find(self) -> np.ndarray:
        """Return the probability of tumor, (z, y, x)."""
        prior = self.hypotheses.mean(axis=0)
        tumor, self.distinctness = self._difference(prior)
        evidence = self._evidence(tumor, self.distinctness, (1 - prior) ** 2, is_first=True)
        prior = self._prior(evidence)
        probability = self._mean_field(prior, evidence, _ITERATIONS)
        for number in range(1, _ROUNDS):
            is_last = number == _ROUNDS - 1
            inside = probability[self.region]
            example = np.where(inside > 0.5, inside, 0)
            tumor = np.bincount(_bins(self.ipsilateral), example, _BINS)
            _, distinctness = self._difference(example)
            evidence = self._evidence(tumor, distinctness, np.where(inside > 0.5, 0, 1 - inside))
            outlined = self._outlined(probability > 0.5, enlarged_mm=0.0 if is_last else _GROWTH_MM)
            prior = (1 - _OWN) * self._prior(evidence) + _OWN * outlined
            probability = self._mean_field(prior, evidence, _LAST_ITERATIONS if is_last else _ITERATIONS)
        return probability

    def _difference(self, weight: np.ndarray) -> tuple[np.ndarray, float]:
        """Return how often each brightness differs from the contralateral side as a tumor does, and the distinctness.

        The contrary difference is as frequent by chance and is subtracted. ``weight`` is that of each voxel, (n,).
        """
        by_tumor = np.bincount(_bins(self.ipsilateral), weight * np.maximum(self.excess, 0) ** 2, _BINS)
        by_chance = np.bincount(_bins(self.contralateral), weight * np.maximum(-self.excess, 0) ** 2, _BINS)
        tumor = np.where(self.is_bone, 0, np.maximum(by_tumor - by_chance, 0))
        return tumor, float(tumor.sum() / max(by_tumor.sum(), 1e-9))

    def _evidence(
        self, tumor: np.ndarray, distinctness: float, weight: np.ndarray, is_first: bool = False
    ) -> np.ndarray:
        """Return the log likelihood ratio of tumor of each voxel, (n,).

        Args:
            tumor: frequency of each brightness in the tumor, (bin,).
            distinctness: of the tumor's difference from the contralateral side, 0 to 1.
            weight: of each voxel as an example of other tissue, (n,).

        """
        frequency = ndimage.gaussian_filter1d(np.where(self.is_bone, 0, tumor), _TUMOR_SMOOTHING, mode="nearest")
        unknown = max((1 - distinctness) ** _DOUBT, _TUMOR_FLOOR)
        by_brightness = (1 - unknown) * frequency / max(frequency.sum(), 1e-9) + unknown / _BINS
        pair = _bins(self.contralateral) * _BINS + _bins(self.ipsilateral)
        pairs = np.bincount(pair, np.where(self.known, weight, 0), _BINS * _BINS).reshape(_BINS, _BINS)
        pairs = ndimage.gaussian_filter(pairs, _TISSUE_SMOOTHING, mode="nearest")
        if is_first:  # a difference in one direction only is no chance, but tumor beyond the atlases'
            pairs = np.minimum(pairs, pairs.T)
        # Where there are few voxels to learn from the sides are alike.
        pairs += _ALIKE_VOXELS * ndimage.gaussian_filter1d(np.eye(_BINS), _ALIKE_BINS, mode="nearest")
        tissue, alone = (
            (1 - _TISSUE_FLOOR) * counts / counts.sum(axis=-1, keepdims=True) + _TISSUE_FLOOR / _BINS
            for counts in (pairs, pairs.sum(axis=0))
        )
        # Interpolated between bin centers: rounding, which may change a voxel's bin, hardly changes its evidence.
        position = _BINS * self.ipsilateral - 0.5
        positions = np.stack([_BINS * self.contralateral - 0.5, position])
        compared = ndimage.map_coordinates(np.log(by_brightness / tissue), positions, order=1, mode="nearest")
        return np.where(self.known, compared, np.interp(position, np.arange(_BINS), np.log(by_brightness / alone)))

    def _prior(self, evidence: np.ndarray) -> np.ndarray:
        """Return the mean of the hypotheses, weighted by their likelihood, (n,)."""
        likelihood = np.log1p(self.hypotheses * np.expm1(evidence)).sum(axis=1)
        weights = self.log_prior + likelihood * float(np.prod(self.spacing)) / _SAMPLE_MM3
        weights = np.exp(weights - weights.max())
        return weights @ self.hypotheses / weights.sum()

    def _outlined(self, outline: np.ndarray, enlarged_mm: float) -> np.ndarray:
        """Return the prior by the outline (z, y, x) of the round before, (n,)."""
        distance = _signed_distance(largest_component(outline), self.spacing)
        return _surface(distance[self.region] - enlarged_mm)

    def _mean_field(self, prior: np.ndarray, evidence: np.ndarray, iterations: int) -> np.ndarray:
        """Return the probability of tumor with neighbors taken into account, (z, y, x); 0 outside of the region."""
        limited = np.clip(prior, _MINIMUM_PRIOR, _MAXIMUM_PRIOR)
        log_odds = np.log(limited / (1 - limited)) + evidence
        probability = np.zeros(self.region.shape, np.float32)
        probability[self.region] = _logistic(log_odds)
        for _ in range(iterations):
            agreement = 2 * self.field.sum(probability) - self.field.total
            probability[self.region] = _logistic(log_odds + _NEIGHBORS * agreement[self.region])
        return probability


class _Neighbors:
    """Sums over the neighbors of each voxel, which count less beyond an edge of the image."""

    def __init__(self, image: np.ndarray, spacing: np.ndarray):
        """Start with an image (z, y, x) and its voxel size along z, y, x, mm."""
        smooth = ndimage.gaussian_filter(image, [_DENOISING_MM / size if size < 1 else 0 for size in spacing])
        offsets = _half_of_neighbors(spacing)
        largest = 2 * sum(weight for _, weight in offsets)
        self._pairs = []
        for offset, weight in offsets:
            first, second = _overlap(image.shape, offset)
            edge = np.exp(-((smooth[first] - smooth[second]) ** 2) / (2 * _EDGE**2))
            self._pairs.append((first, second, np.float32(weight / largest) * edge))
        self.total = self.sum(np.ones(image.shape, np.float32))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted sum of the neighbors' values, (z, y, x); at most their largest one."""
        total = np.zeros_like(values)
        for first, second, weight in self._pairs:
            total[first] += weight * values[second]
            total[second] += weight * values[first]
        return total


def _half_of_neighbors(spacing: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Return one of each two opposite neighbors as an offset (z, y, x) in voxels, and its weight."""
    reach = 2 * _NEIGHBORHOOD_MM
    ranges = [range(-max(int(reach / size), 1), max(int(reach / size), 1) + 1) for size in spacing]
    offsets = []
    for offset in itertools.product(*ranges):
        distance = float(np.linalg.norm(np.array(offset) * spacing))
        if offset > (0, 0, 0) and (distance <= reach or np.abs(offset).sum() == 1):
            offsets.append((offset, float(np.exp(-((distance / _NEIGHBORHOOD_MM) ** 2) / 2))))
    return offsets


def _overlap(shape: tuple[int, ...], offset: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels that have a neighbor at an offset, and those neighbors."""
    sides = list(zip(offset, shape, strict=True))
    return (
        tuple(slice(max(-step, 0), size - max(step, 0)) for step, size in sides),
        tuple(slice(max(step, 0), size - max(-step, 0)) for step, size in sides),
    )


def _bone(brightness: np.ndarray) -> np.ndarray:
    """Return the bins that are as dark as bone, (bin,): no tumor is. Three classes of tissue, by k-means."""
    centers = np.quantile(brightness, (0.05, 0.5, 0.95))
    for _ in range(10):
        nearest = np.abs(brightness[:, None] - centers).argmin(axis=1)
        counts = np.bincount(nearest, minlength=3)
        sums = np.bincount(nearest, brightness, 3)
        centers = np.where(counts > 0, sums / np.maximum(counts, 1), centers)
    limit = (centers[0] + centers[1]) / 2 if centers[0] < _BONE * centers[1] else 0.0
    return (np.arange(_BINS) + 0.5) / _BINS < limit


def _signed_distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the distance to the surface of a mask, mm, negative inside; infinite for an empty one."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    outside, inside = (ndimage.distance_transform_edt(part, spacing) for part in (~mask, mask))
    return (outside - inside).astype(np.float32)


def _surface(distance: np.ndarray) -> np.ndarray:
    """Return the probability of the inside at a signed distance from an uncertain surface."""
    return _logistic(-distance / np.float32(_SURFACE_MM))


def _bins(brightness: np.ndarray) -> np.ndarray:
    return np.minimum((brightness * _BINS).astype(int), _BINS - 1)


def _logistic(log_odds: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))).astype(np.float32)
