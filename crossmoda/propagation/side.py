"""On which side the target's tumour is: told by its image, where atlases' tumours of either side come to lie."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from crossmoda import labels
from crossmoda.propagation import laterality
from crossmoda.propagation.atlases import Registered
from crossmoda.volume import Volume

#: The part of an atlas's tumour that tells the side: this near to its cochlea, or its nearest mm.
_NEAR_COCHLEA_MM, _LEAST_DEPTH_MM = 20.0, 3.0
#: The percentile of the target's intensities that stands for its brightest tissue.
_BRIGHTEST = 97
#: Keeps evidence small where hardly anything is bright on either side.
_LEAST_BRIGHT = 0.02
#: Logarithm of the odds that a probe is right whose evidence is 1; less in proportion (docs/validation.md).
_LOG_ODDS = 8.0
#: A side less sure than this is said to be doubtful.
_SURE = 0.95


@dataclasses.dataclass(frozen=True)
class TumourSide:
    """The side of the target's tumour."""

    side: str | None
    """None where it is unknown, or there is none"""
    certainty: float = 1.0
    """the probability that it is right"""
    evidence: tuple[dict[str, Any], ...] = ()
    """for each probe its atlas and, ``for_left``, what :func:`side_evidence` says"""
    elsewhere: np.ndarray | None = None
    """(z, y, x): the share of the probes that have tumour there if it is on the other side; None where that is known
    not to be"""
    note: str = ""
    """what a user should know"""


class Vote(NamedTuple):
    """What probes say about the side of the tumour."""

    side: str
    certainty: float
    """the probability that it is right, 0.5 to 1"""
    agree: int
    """how many of the probes are for this side"""
    of: int

    @property
    def sure(self) -> bool:
        """Whether nothing need be said about it."""
        return self.certainty >= _SURE


def find_side(probes: Sequence[Registered], target: Volume, modality: str) -> TumourSide:
    """Return the side for which atlases speak that are registered with their tumour on the left and on the right.

    Args:
        probes: the atlases; those that are registered on one side only are not asked.
        target: the part of the target on which they lie.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.

    """
    level = bright_level(target)
    by_side = {side: {item.atlas.id: item for item in probes if item.side == side} for side in laterality.SIDES}
    both = [name for name in by_side["left"] if name in by_side["right"]]
    evidence = {
        name: side_evidence(by_side["left"][name], by_side["right"][name], target, modality, level) for name in both
    }
    known = {name: value for name, value in evidence.items() if value is not None}
    if not known:
        note = "The side of the tumour could not be found: no probe could be registered on both sides."
        return TumourSide(None, note=note)
    found = vote(list(known.values()))
    note = ""
    if not found.sure:
        note = (
            f"The tumour is probably on the {found.side}: {found.agree} of {found.of} probes say so; check. "
            f"Where the label has tumour its confidence is multiplied by {found.certainty:.2f}."
        )
    other = by_side[laterality.other(found.side)]
    elsewhere = np.mean([other[name].label_map == labels.VS for name in known], axis=0).astype(np.float32)
    said = tuple({"atlas": name, "for_left": round(value, 3)} for name, value in known.items())
    return TumourSide(found.side, found.certainty, said, elsewhere, note)


def side_evidence(
    as_left: Registered, as_right: Registered, target: Volume, modality: str, level: float | None = None
) -> float | None:
    """Return how much one atlas, registered with its tumour on the left and on the right, speaks for the left.

    The healthy canal and cistern are filled with fluid, which is bright on hrT2; a schwannoma is darker. On ceT1 fluid
    is dark and a schwannoma bright. What else the atlas's tumour covers (brain, bone) is much the same on both sides.

    Args:
        as_left: the atlas with its tumour on the left.
        as_right: the atlas with its tumour on the right.
        target: the part of the target on which they lie.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.
        level: the target's :func:`bright_level`, if it is known already.

    Returns:
        See :func:`asymmetry`; None where nothing can be compared.

    """
    level = bright_level(target) if level is None else level
    left, right = (tumour_brightness(item.label_map, target, level) for item in (as_left, as_right))
    return None if left is None or right is None else asymmetry(left, right, modality)


def asymmetry(left: float, right: float, modality: str) -> float:
    """Return how much the brightness of both places of a tumour speaks for the left, -1 (for the right) to 1.

    It is relative: of a large tumour, most of which covers brain, the few bright voxels tell as much as of a small one.

    Args:
        left: :func:`tumour_brightness` where the tumour comes to lie on the left.
        right: the same on the right.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.

    """
    difference = (right - left) / (right + left + _LEAST_BRIGHT)
    return difference if modality == "hrT2" else -difference


def vote(evidence: Sequence[float]) -> Vote:
    """Return the side for which evidence (see :func:`side_evidence`; at least one) speaks.

    Both sides are as likely beforehand, the odds that a probe is right grow with its evidence, and probes err
    independently: the logarithms of their odds add up.
    """
    total = sum(evidence)
    side = "left" if total > 0 else "right"
    agree = sum((value > 0) == (side == "left") for value in evidence)
    return Vote(side, 1 / (1 + math.exp(-_LOG_ODDS * abs(total))), agree, len(evidence))


def bright_level(target: Volume) -> float:
    """Return the intensity half-way between a target's mean and its brightest tissue (its 97th percentile)."""
    return (float(target.array.mean()) + float(np.percentile(target.array, _BRIGHTEST))) / 2


def tumour_brightness(label_map: np.ndarray, target: Volume, level: float) -> float | None:
    """Return the share of bright voxels of the target where a label map has tumour near the cochlea.

    Near the cochlea is the canal, in which these tumours begin; farther away an atlas's tumour may cover anything.

    Args:
        label_map: (z, y, x) on the target's grid.
        target: the part of the target on which it lies.
        level: above this it is bright, see :func:`bright_level`.

    Returns:
        The share, 0 to 1; None without tumour.

    """
    tumour = label_map == labels.VS
    if not tumour.any():
        return None
    values, cochlea = target.array[tumour], label_map == labels.COCHLEA
    if cochlea.any():
        spacing = target.grid.spacing_zyx
        distance = cKDTree(np.argwhere(cochlea) * spacing).query(np.argwhere(tumour) * spacing)[0]
        values = values[distance <= max(_NEAR_COCHLEA_MM, distance.min() + _LEAST_DEPTH_MM)]
    return float((values > level).mean())
