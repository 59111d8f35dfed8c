"""On which side the target's tumor is: where atlases' tumors come to lie, what is outlined as one on either side?"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.propagation.atlases import Registered
from crossmoda.propagation.tumor_outline import difference_mm3, outlined

#: Logarithm of the odds of the side on which a tumor differs by one mm3 more (docs/validation/propagation.md).
_LOG_ODDS = 0.1
#: A side less sure than this is said to be doubtful.
_SURE = 0.95


@dataclasses.dataclass(frozen=True)
class TumorSide:
    """The side of the target's tumor."""

    side: str | None
    """None where it is unknown, or there is none"""
    certainty: float = 1.0
    """the probability that it is right"""
    evidence: dict[str, float] = dataclasses.field(default_factory=dict)
    """for ``left`` and ``right``, by how much a tumor there would differ from its opposite side, mm3
    (:func:`crossmoda.propagation.tumor_outline.difference_mm3`; 0 where it does not)"""
    elsewhere: np.ndarray | None = None
    """(z, y, x): the share of the probes that have tumor there if it is on the other side; None where that is known
    not to be"""
    note: str = ""
    """what a user should know"""

    @classmethod
    def unknown(cls, why: str) -> "TumorSide":
        """Return that it could not be found, and why."""
        return cls(None, note=f"The side of the tumor could not be found: {why}")


def find_side(
    probes: Sequence[Registered], compared: ContralateralComparison, spacing_zyx: Sequence[float]
) -> TumorSide:
    """Return the side on which a tumor is outlined that differs more from its opposite side.

    Both sides are as likely beforehand; how large a tumor is where the atlases have theirs, and how much it differs,
    tells them apart.

    Args:
        probes: atlases that are registered with their tumor on the left and on the right; those that are registered on
            one side only are not asked.
        compared: the target and its opposite side.
        spacing_zyx: voxel size, mm.

    """
    by_side = {side: {item.atlas.id: item for item in probes if item.side == side} for side in laterality.SIDES}
    both = [name for name in by_side["left"] if name in by_side["right"]]
    votes = {side: _share([items[name] for name in both]) for side, items in by_side.items() if both}
    known = ~np.isnan(compared.opposite)
    if not both or not all((each[known] > 0).any() for each in votes.values()):
        return TumorSide.unknown("no probe could be compared on both sides.")
    # That a side looks less like a tumor than its opposite is known from the opposite already.
    evidence = {
        side: max(difference_mm3(outlined(each, compared, spacing_zyx), compared, spacing_zyx), 0.0)
        for side, each in votes.items()
    }
    side = max(laterality.SIDES, key=lambda name: evidence[name])
    certainty = 1 / (1 + math.exp(-_LOG_ODDS * abs(evidence["left"] - evidence["right"])))
    note = ""
    if certainty < _SURE:
        note = (
            f"The tumor is probably on the {side}, but both sides look much alike; check. "
            f"Where the label has tumor its confidence is multiplied by {certainty:.2f}."
        )
    said = {name: round(value, 2) for name, value in evidence.items()}
    return TumorSide(side, certainty, said, votes[laterality.other(side)], note)


def _share(probes: Sequence[Registered]) -> np.ndarray:
    """Return the share of the probes that have tumor at each voxel, (z, y, x) float32."""
    return np.stack([item.label_map == labels.VS for item in probes]).mean(axis=0, dtype=np.float32)
