"""The outline of a target's tumor: what differs from the opposite side of the head.

Atlases' tumors are other people's. They tell where the target's is, hardly how large it is: a small one in the canal
comes out as large as the canal. The target shows it, though: compared with the opposite side, a schwannoma stands where
there is fluid over there. So the votes are a prior here, and what a voxel shows, given what lies opposite, is the
evidence (Bayes; a Markov random field keeps neighbors together, by mean field as in Zhang, Brady and Smith, IEEE TMI
20:45, 2001).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda.anatomy.contralateral import ContralateralComparison

#: Votes are never surer than this: the tumors that vote are other people's.
_SUREST = 0.9
#: Where there are fewer votes there is no tumor.
_LEAST_VOTES = 0.005
#: What lies opposite of tissue of some brightness is learned so near to the votes (mm) where these are less.
_NEAR_MM, _NO_VOTES = 10.0, 0.02
#: Steps of brightness, and the probability that is shared by all of them: of the tumor, and of what is no tumor.
_STEPS, _TUMOR_FLOOR, _OTHER_FLOOR = 12, 0.05, 0.1
#: Standard deviation of the smoothing of both distributions, steps.
_TUMOR_SMOOTHING, _OTHER_SMOOTHING = 0.7, 0.3
#: Both sides look alike, but for a standard deviation in steps, by the belief of so many voxels for each brightness.
_ALIKE_STEPS, _ALIKE_VOXELS = 1.0, 50.0
#: Where the opposite leaves less room than this for a tumor to differ, what speaks against one counts by this factor:
#: the dark parts of a tumor look like the brain that it pushed away.
_LITTLE_ROOM, _AGAINST = 0.2, 0.5
#: The random field: the log odds that neighbors add which are all tumor, their Gaussian weights' standard deviation
#: (mm), and how often all are asked.
_NEIGHBORS, _NEIGHBORHOOD_MM, _ROUNDS = 5.0, 0.8, 3


def outlined(votes: np.ndarray, sides: ContralateralComparison, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Return the probability of tumor at each voxel given the votes of the atlases and what the target shows.

    Args:
        votes: the probability of tumor as the atlases see it, (z, y, x).
        sides: the target, and its opposite side; where that is not in the scan the votes decide.
        spacing_zyx: voxel size, mm.

    Returns:
        (z, y, x) float32; the votes as they are where nothing in their place differs from the other side as a tumor
        would.

    """
    place = (votes > _LEAST_VOTES) & ~np.isnan(sides.opposite)
    if not (sides.excess[place] > 0).any():
        return votes
    box = _box_around(place, spacing_zyx)
    near = ContralateralComparison(sides.here[box], sides.opposite[box], sides.modality)
    found = votes.astype(np.float32)
    odds = _log_odds(votes[box], near, place[box], spacing_zyx)
    found[box][place[box]] = _field(odds, place[box], spacing_zyx)
    return found


def difference_mm3(tumor: np.ndarray, sides: ContralateralComparison, spacing_zyx: Sequence[float]) -> float:
    """Return how much of a tumor differs from the opposite side as a tumor does, mm3.

    It is the volume of the tumor, each voxel counted with its excess (:attr:`ContralateralComparison.excess`): as a
    whole where the brightest is opposite to the darkest. Negative where the opposite side looks more like one.

    Args:
        tumor: the probability of tumor at each voxel, (z, y, x).
        sides: the target and its opposite side; what is not in the scan does not count.
        spacing_zyx: voxel size, mm.

    """
    return float(np.nansum(tumor * sides.excess, dtype=np.float64) * np.prod(spacing_zyx))


def _box_around(place: np.ndarray, spacing_zyx: Sequence[float]) -> tuple[slice, ...]:
    """Return the box with everything so near to the votes that it is looked at."""
    return tuple(
        slice(max(side.start - round(_NEAR_MM / size), 0), side.stop + round(_NEAR_MM / size))
        for side, size in zip(ndimage.find_objects(place.view(np.uint8))[0], spacing_zyx, strict=True)
    )


def _log_odds(
    votes: np.ndarray, sides: ContralateralComparison, place: np.ndarray, spacing_zyx: Sequence[float]
) -> np.ndarray:
    """Return the log odds of tumor of each voxel of the place by itself, (n,)."""
    ours, theirs = _steps(sides.here), _steps(np.nan_to_num(sides.opposite))
    sure = np.clip(votes[place], 1 - _SUREST, _SUREST)
    tumor = _seen_in_tumor(votes[place], sides.excess[place], ours[place], theirs[place])
    other = _seen_opposite(ours, theirs, _surroundings(votes, sides.opposite, spacing_zyx))
    middles = _STEPS * np.stack([sides.opposite[place], sides.here[place]]) - 0.5
    # between the middles of the steps: rounding, which may change a voxel's step, hardly changes its evidence
    evidence = ndimage.map_coordinates(np.log(tumor / other), middles, order=1, mode="nearest")
    unlike = sides.excess[place] < -1 / _STEPS
    evidence[unlike] = np.minimum(evidence[unlike], 0)
    evidence[(evidence < 0) & (sides.room[place] < _LITTLE_ROOM)] *= _AGAINST
    return np.log(sure / (1 - sure)) + evidence


def _seen_in_tumor(votes: np.ndarray, excess: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the probability of each brightness in a tumor, learned where this side differs as a tumor would.

    What differs as much the other way round is no tumor but how the sides differ anyway; by its share nothing is known
    of the tumor.
    """
    as_tumor = np.bincount(ours, votes * np.maximum(excess, 0) ** 2, _STEPS)
    anyway = np.bincount(theirs, votes * np.maximum(-excess, 0) ** 2, _STEPS)
    learned = ndimage.gaussian_filter1d(np.maximum(as_tumor - anyway, 0), _TUMOR_SMOOTHING, mode="nearest")
    learned *= (1 - _TUMOR_FLOOR) / as_tumor.sum()
    return learned + (1 - learned.sum()) / _STEPS


def _steps(brightness: np.ndarray) -> np.ndarray:
    return np.minimum((brightness * _STEPS).astype(int), _STEPS - 1)


def _surroundings(votes: np.ndarray, opposite: np.ndarray, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Return the mask of what lies around the votes and is compared with its other side."""
    free = votes < _NO_VOTES
    return free & (ndimage.distance_transform_edt(free, spacing_zyx) <= _NEAR_MM) & ~np.isnan(opposite)


def _seen_opposite(ours: np.ndarray, theirs: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return (opposite, here): the probability of each brightness here, without a tumor, given that opposite.

    Learned from both sides' brightness in ``place``, so it knows how well the sides fit onto each other; where there is
    little to be learned from they look alike.
    """
    pairs = np.bincount(theirs[place] * _STEPS + ours[place], minlength=_STEPS * _STEPS).reshape(_STEPS, _STEPS)
    pairs = ndimage.gaussian_filter(pairs.astype(float), _OTHER_SMOOTHING, mode="nearest")
    pairs += _ALIKE_VOXELS * ndimage.gaussian_filter1d(np.eye(_STEPS), _ALIKE_STEPS, mode="nearest")
    return (1 - _OTHER_FLOOR) * pairs / pairs.sum(axis=1, keepdims=True) + _OTHER_FLOOR / _STEPS


def _field(odds: np.ndarray, place: np.ndarray, spacing_zyx: Sequence[float]) -> np.ndarray:
    """Return the probability of tumor in the place when its voxels heed their neighbors."""
    width = [_NEIGHBORHOOD_MM / size for size in spacing_zyx]
    probability = np.zeros(place.shape, np.float32)
    probability[place] = _logistic(odds)
    for _ in range(_ROUNDS):
        around = ndimage.gaussian_filter(probability, width)[place]
        probability[place] = _logistic(odds + _NEIGHBORS * (2 * around - 1))
    return probability[place]


def _logistic(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))
