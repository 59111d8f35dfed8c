"""On which side the target's tumour is: where atlases' tumours come to lie, is it darker than on the opposite side?"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from crossmoda import labels
from crossmoda.propagation import laterality
from crossmoda.propagation.atlases import Registered
from crossmoda.propagation.opposite import brightness
from crossmoda.volume import Grid, Volume

#: The part of an atlas's tumour that tells the side: this near to its cochlea, or its nearest mm.
_NEAR_COCHLEA_MM, _LEAST_DEPTH_MM = 20.0, 3.0
#: Keeps evidence small where hardly anything is bright on either side.
_LEAST_BRIGHT = 0.02
#: Logarithm of the odds that probes are right whose mean evidence is 1; less in proportion
#: (docs/validation/propagation.md).
_LOG_ODDS = 100.0
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

    @classmethod
    def unknown(cls, why: str) -> "TumourSide":
        """Return that it could not be found, and why."""
        return cls(None, note=f"The side of the tumour could not be found: {why}")


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


def find_side(probes: Sequence[Registered], target: Volume, opposite: np.ndarray, modality: str) -> TumourSide:
    """Return the side for which atlases speak that are registered with their tumour on the left and on the right.

    Args:
        probes: the atlases; those that are registered on one side only are not asked.
        target: the part of the target on which they lie.
        opposite: its :func:`crossmoda.propagation.opposite.opposite_brightness`.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.

    """
    by_side = {side: {item.atlas.id: item for item in probes if item.side == side} for side in laterality.SIDES}
    both = [name for name in by_side["left"] if name in by_side["right"]]
    here = brightness(target)
    evidence = {
        name: side_evidence(
            by_side["left"][name].label_map, by_side["right"][name].label_map, here, opposite, target.grid, modality
        )
        for name in both
    }
    known = {name: value for name, value in evidence.items() if value is not None}
    if not known:
        return TumourSide.unknown("no probe could be compared on both sides.")
    found = vote(list(known.values()))
    note = ""
    if not found.sure:
        note = (
            f"The tumour is probably on the {found.side}: {found.agree} of {found.of} probes say so; check. "
            f"Where the label has tumour its confidence is multiplied by {found.certainty:.2f}."
        )
    other = by_side[laterality.other(found.side)]
    elsewhere = np.mean([other[name].label_map == labels.VS for name in known], axis=0).astype(np.float32)
    said = tuple({"atlas": name, "for_left": round(value, 4)} for name, value in known.items())
    return TumourSide(found.side, found.certainty, said, elsewhere, note)


def side_evidence(
    as_left: np.ndarray, as_right: np.ndarray, here: np.ndarray, opposite: np.ndarray, grid: Grid, modality: str
) -> float | None:
    """Return how much one atlas, registered with its tumour on the left and on the right, speaks for the left.

    The healthy canal and cistern are filled with fluid, which is bright on hrT2; a schwannoma is darker. On ceT1 fluid
    is dark and a schwannoma bright. What else the atlas's tumour covers (brain, bone) looks alike on both sides.

    Args:
        as_left: its label map, (z, y, x), with the tumour on the left.
        as_right: the same with the tumour on the right.
        here: how bright the target is at each place, 0 to 1.
        opposite: how bright it is at the opposite place; NaN where that is not in the scan.
        grid: where all of them lie.
        modality: the target's, ``"hrT2"`` or ``"ceT1"``.

    Returns:
        The mean difference between both sides relative to their mean brightness, -1 (for the right) to 1; None where
        nothing can be compared.

    """
    difference = total = 0.0
    for label_map, sign in ((as_left, 1), (as_right, -1)):
        place = near_cochlea(label_map, grid)
        place &= ~np.isnan(opposite)
        if not place.any():
            return None
        one, other = float(here[place].mean()), float(opposite[place].mean())
        difference += sign * (other - one)
        total += one + other + _LEAST_BRIGHT
    return difference / total if modality == "hrT2" else -difference / total


def vote(evidence: Sequence[float]) -> Vote:
    """Return the side for which evidence (see :func:`side_evidence`; at least one) speaks.

    Both sides are as likely beforehand, and the odds grow with the mean of the evidence, not with how many probes there
    are: all of them look at the same target.
    """
    mean = sum(evidence) / len(evidence)
    side = "left" if mean > 0 else "right"
    agree = sum((value > 0) == (side == "left") for value in evidence)
    return Vote(side, 1 / (1 + math.exp(-_LOG_ODDS * abs(mean))), agree, len(evidence))


def near_cochlea(label_map: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the mask of the tumour near the cochlea, (z, y, x); all of it where no cochlea is drawn.

    Near the cochlea is the canal, in which these tumours begin; farther away an atlas's tumour may cover anything.
    """
    tumour, cochlea = label_map == labels.VS, label_map == labels.COCHLEA
    if tumour.any() and cochlea.any():
        spacing = grid.spacing_zyx
        distance = cKDTree(np.argwhere(cochlea) * spacing).query(np.argwhere(tumour) * spacing)[0]
        tumour[tumour] = distance <= max(_NEAR_COCHLEA_MM, distance.min() + _LEAST_DEPTH_MM)
    return tumour
