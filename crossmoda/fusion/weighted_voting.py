"""Locally weighted votes: each atlas is believed where its image looks like the target's.

A registration is good here and bad there, which one number per atlas cannot say. Where the atlases' images are known,
their labels are averaged at each voxel with weights that fall with the difference of the images around it
(Artaechevarria, Munoz-Barrutia and Ortiz-de-Solorzano, IEEE TMI 28:1266, 2009; Sabuncu et al., IEEE TMI 29:1714, 2010),
here the number of differing bits of MIND-SSC, which compares scans of different contrast. The votes about a cochlea are
then moved to where the target shows it (:mod:`crossmoda.fusion.recentering`).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from crossmoda import labels
from crossmoda.fusion.recentering import Displacement, find_displacement

#: Images are compared around each voxel: the standard deviation of the Gaussian, mm.
AROUND_MM = 1.25
#: An atlas with so many more differing bits (of 60) than the best one has 1 / e of its weight.
BITS = 1.0
#: The labels' edges are softened by this standard deviation, mm, so that votes can meet between voxels.
SOFTENING_MM = 0.3
#: What is computed around labeled voxels, mm: farther away nobody says anything but background.
_REACH_MM = 1.5
#: Less of the Gaussian than this on compared voxels is no comparison.
_LEAST = 0.02
_TRUNCATE = 2.5
#: The structures whose votes are moved: those that look alike in everybody.
ALIGNED = (labels.COCHLEA,)


@dataclasses.dataclass(frozen=True)
class Move:
    """How far the votes about a structure were moved."""

    value: int
    """of the label"""
    middle: tuple[float, ...]
    """of the structure: (z, y, x), voxels"""
    displacement_mm: tuple[float, ...]
    """of its middle, along z, y, x"""


@dataclasses.dataclass(frozen=True)
class Votes:
    """What the atlases say together."""

    probability: np.ndarray
    """(label, z, y, x) float32, background first"""
    moved: tuple[Move, ...]


def local_votes(
    label_maps: Sequence[np.ndarray],
    differences: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    missing: Sequence[np.ndarray],
    target: np.ndarray,
    spacing_zyx: Sequence[float],
    values: Sequence[int] = labels.VALUES,
    trust: np.ndarray | None = None,
) -> Votes:
    """Return the probability of each label by locally weighted votes.

    Args:
        label_maps: one per atlas, (z, y, x).
        differences: per atlas, the differing bits of the images' MIND-SSC, (z, y, x).
        images: per atlas, its image on the target, (z, y, x), of any scale; 0 where it was not compared. There, away
            from its labels, nothing speaks against it: it counts like the most similar one.
        missing: per atlas, about which structures it says nothing where (see :func:`crossmoda.fusion.staple`).
        target: the target's image, (z, y, x).
        spacing_zyx: voxel size, mm.
        values: the label values, background first.
        trust: (atlas, label), what each atlas's votes about a label are multiplied with; None: 1.

    """
    moves = []
    shape = label_maps[0].shape
    votes = np.zeros((len(values), *shape), np.float32)
    votes[0] = 1.0
    labeled = np.logical_or.reduce([label_map != values[0] for label_map in label_maps])
    trust = np.ones((len(label_maps), len(values))) if trust is None else trust
    for box, place in _places(labeled, spacing_zyx):
        seen = [item[box] for item in images]
        unlike = _around([item[box] for item in differences], [item > 0 for item in seen], spacing_zyx, place.shape)
        own = [item[box] for item in label_maps]
        silent = [np.broadcast_to(bits, shape)[box] for bits in missing]
        counts = {index: _weights(silent, unlike, trust[:, index], index) for index in range(1, len(values))}
        shares = [_share(own, counts[index], values[index], spacing_zyx) for index in counts]
        for index in counts:
            if (value := values[index]) in ALIGNED:
                move = _align(shares, index, target[box], place, seen, counts[index], spacing_zyx)
                if move is not None:
                    middle = tuple(side.start + at for side, at in zip(box, move.middle, strict=True))
                    moves.append(Move(value, middle, tuple(move.coefficients[0].tolist())))
        found = np.stack([np.maximum(1.0 - np.sum(shares, axis=0), 0.0), *shares])
        found /= found.sum(axis=0)
        for index in range(len(values)):
            votes[index][box][place] = found[index][place]
    return Votes(votes, tuple(moves))


def _places(labeled: np.ndarray, spacing_zyx: Sequence[float]) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Yield a box with room for the Gaussians, and the mask in it, for each connected part of what is labeled."""
    reach = [int(np.ceil(_REACH_MM / size)) for size in spacing_zyx]
    grown = labeled
    for axis, length in enumerate(reach):
        grown = ndimage.maximum_filter1d(grown.view(np.uint8), 2 * length + 1, axis=axis, mode="constant").view(bool)
    parts, _ = ndimage.label(grown, np.ones((3, 3, 3)))
    room = [int(np.ceil(_TRUNCATE * AROUND_MM / size)) for size in spacing_zyx]
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        wide = tuple(
            slice(max(side.start - more, 0), min(side.stop + more, size))
            for side, more, size in zip(box, room, labeled.shape, strict=True)
        )
        yield wide, parts[wide] == number


def _around(
    differences: Sequence[np.ndarray],
    compared: Sequence[np.ndarray],
    spacing_zyx: Sequence[float],
    shape: tuple[int, ...],
) -> np.ndarray:
    """Return the mean difference of each atlas around each voxel, (atlas, z, y, x); NaN where it was not compared."""
    width = [AROUND_MM / size for size in spacing_zyx]
    mean = np.empty((len(differences), *shape), np.float32)
    for number, (bits, known) in enumerate(zip(differences, compared, strict=True)):
        share = _smooth(known.astype(np.float32), width)
        total = _smooth(np.where(known, bits, 0).astype(np.float32), width)
        mean[number] = np.where(share > _LEAST, total / np.maximum(share, _LEAST), np.nan)
    return mean


def _weights(missing: Sequence[np.ndarray], unlike: np.ndarray, trust: np.ndarray, index: int) -> list[np.ndarray]:
    """Return the weight of each atlas about a label at each voxel: 0 where it has no say."""
    asked = [np.broadcast_to((bits & (1 | 1 << index)) == 0, unlike.shape[1:]) for bits in missing]
    least = np.full(unlike.shape[1:], np.inf, np.float32)
    for mean, mask in zip(unlike, asked, strict=True):
        np.fmin(least, mean, out=least, where=mask)  # the lesser of both, or that which is no NaN
    return [
        np.where(mask, np.where(np.isnan(mean), np.float32(1), np.exp((least - mean) / BITS)) * np.float32(factor), 0)
        for mean, mask, factor in zip(unlike, asked, trust, strict=True)
    ]


def _share(
    label_maps: Sequence[np.ndarray], counts: Sequence[np.ndarray], value: int, spacing_zyx: Sequence[float]
) -> np.ndarray:
    """Return the weighted share of the atlases with a say about a label that name it, (z, y, x)."""
    width = [SOFTENING_MM / size for size in spacing_zyx]
    named, asked = np.zeros(counts[0].shape, np.float32), np.zeros(counts[0].shape, np.float32)
    for label_map, weight in zip(label_maps, counts, strict=True):
        asked += weight
        own = label_map == value
        if own.any():
            named += weight * _smooth(own.astype(np.float32), width)
    return np.divide(named, asked, out=np.zeros_like(named), where=asked > 0)


def _align(
    shares: list[np.ndarray],
    index: int,
    target: np.ndarray,
    place: np.ndarray,
    images: Sequence[np.ndarray],
    counts: Sequence[np.ndarray],
    spacing_zyx: Sequence[float],
) -> Displacement | None:
    """Move the share of a label (``shares`` begin with label 1) to where the target shows it; return how, if at all."""
    known = [np.where(image > 0, weight, 0) for image, weight in zip(images, counts, strict=True)]
    others = [share for number, share in enumerate(shares, start=1) if number != index]
    votes = np.where(place, shares[index - 1], 0)
    found = find_displacement(target, votes, others, images, known, spacing_zyx)
    if found is not None:
        shares[index - 1] = found.move(shares[index - 1])
    return found


def _smooth(array: np.ndarray, width: Sequence[float]) -> np.ndarray:
    return ndimage.gaussian_filter(array, width, mode="nearest", truncate=_TRUNCATE)
