"""The outline of a target's tumor: the part of the atlas votes that differs from the contralateral side.

Atlas tumors belong to other people. They tell where the target's tumor is, hardly how large: a small one in the canal
comes out as large as the canal. The target shows it, though: compared with the contralateral side, a schwannoma
replaces fluid. So the votes are the prior and the brightness of a voxel, given the contralateral brightness, is the
evidence (Bayes; a Markov random field keeps neighbors together, by mean field as in Zhang, Brady and Smith, IEEE TMI
20:45, 2001).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.volume.masks import bounding_box

#: Limit of the prior: the tumors that vote are other people's.
_MAXIMUM_PRIOR = 0.9
#: With fewer votes there is no tumor.
_MINIMUM_VOTES = 0.005
#: The contralateral brightness of tissue is learned within this distance (mm) of the votes, where they are fewer than
#: this.
_NEAR_MM, _NO_VOTES = 10.0, 0.02
#: Bins of brightness, and the probability that all bins share: in the tumor, and in other tissue.
_BINS, _TUMOR_FLOOR, _TISSUE_FLOOR = 12, 0.05, 0.1
#: Standard deviation of the smoothing of both distributions, bins.
_TUMOR_SMOOTHING, _TISSUE_SMOOTHING = 0.7, 0.3
#: Prior that both sides are alike: its standard deviation in bins, and its strength in voxels for each brightness.
_ALIKE_BINS, _ALIKE_VOXELS = 1.0, 50.0
#: Where the contralateral side limits the excess to less than this, evidence against a tumor counts by this factor: the
#: dark parts of a tumor look like the brain that it displaced.
_LITTLE_EXCESS, _AGAINST = 0.2, 0.5
#: The random field: log odds added by neighbors that are all tumor, standard deviation of their Gaussian weights (mm),
#: and iterations.
_NEIGHBORS, _NEIGHBORHOOD_MM, _ITERATIONS = 5.0, 0.8, 3


def outline_tumor(votes: np.ndarray, comparison: ContralateralComparison, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Return the probability of tumor at each voxel given the atlas votes and the contralateral comparison.

    Args:
        votes: the probability of tumor by the atlases, (z, y, x).
        comparison: the target compared with its contralateral side; where that is not in the scan the votes decide.
        spacing_zyx: voxel size, mm.

    Returns:
        (z, y, x) float32; the votes themselves where none of their voxels differs from the contralateral side as a
        tumor does.

    """
    region = (votes > _MINIMUM_VOTES) & ~np.isnan(comparison.contralateral)
    if not (comparison.excess[region] > 0).any():
        return votes
    box = bounding_box(region, [round(_NEAR_MM / size) for size in spacing_zyx])
    cropped = ContralateralComparison(comparison.ipsilateral[box], comparison.contralateral[box], comparison.modality)
    probability = votes.astype(np.float32)
    log_odds = _log_odds(votes[box], cropped, region[box], spacing_zyx)
    probability[box][region[box]] = _mean_field(log_odds, region[box], spacing_zyx)
    return probability


def excess_mm3(tumor: np.ndarray, comparison: ContralateralComparison, spacing_zyx: Sequence[float]) -> float:
    """Return the volume of a tumor weighted with its contralateral excess, mm3; negative for the wrong side.

    Args:
        tumor: the probability of tumor at each voxel, (z, y, x).
        comparison: the target compared with its contralateral side; voxels beyond the scan do not count.
        spacing_zyx: voxel size, mm.

    """
    return float(np.nansum(tumor * comparison.excess, dtype=np.float64) * np.prod(spacing_zyx))


def _log_odds(
    votes: np.ndarray, comparison: ContralateralComparison, region: np.ndarray, spacing_zyx: Sequence[float]
) -> np.ndarray:
    """Return the log odds of tumor of each voxel of the region without its neighbors, (n,)."""
    ipsilateral, contralateral = _bins(comparison.ipsilateral), _bins(np.nan_to_num(comparison.contralateral))
    prior = np.clip(votes[region], 1 - _MAXIMUM_PRIOR, _MAXIMUM_PRIOR)
    excess = comparison.excess[region]
    tumor = _tumor_brightness(votes[region], excess, ipsilateral[region], contralateral[region])
    surroundings = _surroundings(votes, comparison.contralateral, spacing_zyx)
    tissue = _tissue_brightness(ipsilateral[surroundings], contralateral[surroundings])
    positions = _BINS * np.stack([comparison.contralateral[region], comparison.ipsilateral[region]]) - 0.5
    # Interpolated between bin centers: rounding, which may change a voxel's bin, hardly changes its evidence.
    evidence = ndimage.map_coordinates(np.log(tumor / tissue), positions, order=1, mode="nearest")
    unlike = excess < -1 / _BINS
    evidence[unlike] = np.minimum(evidence[unlike], 0)
    evidence[(evidence < 0) & (comparison.maximum_excess[region] < _LITTLE_EXCESS)] *= _AGAINST
    return np.log(prior / (1 - prior)) + evidence


def _tumor_brightness(
    votes: np.ndarray, excess: np.ndarray, ipsilateral: np.ndarray, contralateral: np.ndarray
) -> np.ndarray:
    """Return the probability of each brightness in a tumor, learned from voxels with a positive excess.

    A negative excess is as frequent by chance as a positive one and is subtracted; the fraction of the tumor that is
    lost by that counts as unknown.
    """
    by_tumor = np.bincount(ipsilateral, votes * np.maximum(excess, 0) ** 2, _BINS)
    by_chance = np.bincount(contralateral, votes * np.maximum(-excess, 0) ** 2, _BINS)
    learned = ndimage.gaussian_filter1d(np.maximum(by_tumor - by_chance, 0), _TUMOR_SMOOTHING, mode="nearest")
    learned *= (1 - _TUMOR_FLOOR) / by_tumor.sum()
    return learned + (1 - learned.sum()) / _BINS


def _bins(brightness: np.ndarray) -> np.ndarray:
    return np.minimum((brightness * _BINS).astype(int), _BINS - 1)


def _surroundings(votes: np.ndarray, contralateral: np.ndarray, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Return the mask of the tissue around the votes whose contralateral side is in the scan."""
    free = votes < _NO_VOTES
    return free & (ndimage.distance_transform_edt(free, spacing_zyx) <= _NEAR_MM) & ~np.isnan(contralateral)


def _tissue_brightness(ipsilateral: np.ndarray, contralateral: np.ndarray) -> np.ndarray:
    """Return (contralateral, ipsilateral): the probability of each ipsilateral brightness without a tumor.

    Learned from both sides' bins, (n,) each, so that it includes how well the sides are registered; where there are few
    voxels to learn from the sides are alike.
    """
    pairs = np.bincount(contralateral * _BINS + ipsilateral, minlength=_BINS * _BINS).reshape(_BINS, _BINS)
    pairs = ndimage.gaussian_filter(pairs.astype(float), _TISSUE_SMOOTHING, mode="nearest")
    pairs += _ALIKE_VOXELS * ndimage.gaussian_filter1d(np.eye(_BINS), _ALIKE_BINS, mode="nearest")
    return (1 - _TISSUE_FLOOR) * pairs / pairs.sum(axis=1, keepdims=True) + _TISSUE_FLOOR / _BINS


def _mean_field(log_odds: np.ndarray, region: np.ndarray, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Return the probability of tumor in the region with its neighbors taken into account, (n,)."""
    width = [_NEIGHBORHOOD_MM / size for size in spacing_zyx]
    probability = np.zeros(region.shape, np.float32)
    probability[region] = _logistic(log_odds)
    for _ in range(_ITERATIONS):
        neighbors = ndimage.gaussian_filter(probability, width)[region]
        probability[region] = _logistic(log_odds + _NEIGHBORS * (2 * neighbors - 1))
    return probability[region]


def _logistic(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))
