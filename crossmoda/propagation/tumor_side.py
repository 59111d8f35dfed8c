"""The side of the target's tumor: the side on which the atlases' tumors outline a larger contralateral difference."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from crossmoda.anatomy import laterality
from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.propagation.tumor_outline import excess_mm3, outline_tumor

#: Log odds of the side whose tumor exceeds the contralateral side by one mm3 more (docs/validation/propagation.md).
_LOG_ODDS = 0.1
#: A side with a lower certainty is reported as uncertain.
_CERTAIN = 0.95
#: Fractions of the largest vote that stand for tumors of different sizes.
_SIZES = (0.1, 0.3, 0.5, 0.7)
#: The excess that makes a side certain if the contralateral one has none, mm3: beyond it on both sides, both may have a
#: tumor. Labels of heads without a tumor have at most 10 mm3 (docs/validation/propagation.md).
_CONVINCING_MM3 = math.log(_CERTAIN / (1 - _CERTAIN)) / _LOG_ODDS


@dataclasses.dataclass(frozen=True)
class TumorSide:
    """The side of the target's tumor."""

    side: str | None
    """None where it is unknown or there is no tumor"""
    certainty: float = 1.0
    """the probability that it is right"""
    evidence: dict[str, float] = dataclasses.field(default_factory=dict)
    """for ``left`` and ``right``, the contralateral excess of a tumor there, mm3
    (:func:`crossmoda.propagation.tumor_outline.excess_mm3`, at least 0)"""
    contralateral: np.ndarray | None = None
    """(z, y, x): the fraction of the atlases with tumor at each voxel if it is on the contralateral side; None where
    that is impossible"""
    note: str = ""
    """what a user should know"""

    @classmethod
    def unknown(cls, reason: str) -> "TumorSide":
        """Return an unknown side with the reason."""
        return cls(None, note=f"The tumor side is unknown: {reason}")

    @classmethod
    def of_only_ear(cls, side: str) -> "TumorSide":
        """Return the side of the only ear in the scan."""
        return cls(side, note=f"Only the {side} ear is in the scan: a tumor is assumed there.")


def find_tumor_side(
    votes: Mapping[str, np.ndarray], comparison: ContralateralComparison, spacing_zyx: Sequence[float]
) -> TumorSide:
    """Return the side on which a tumor is outlined that differs more from its contralateral side.

    Both sides have the same prior probability; the size of the outlined tumor and its difference tell them apart.

    Args:
        votes: for ``left`` and ``right``, the fraction of the atlases with tumor at each voxel, (z, y, x).
        comparison: the target compared with its contralateral side.
        spacing_zyx: voxel size, mm.

    """
    known = ~np.isnan(comparison.contralateral)
    if not all((vote[known] > 0).any() for vote in votes.values()):
        return TumorSide.unknown("the atlases' tumors lie outside the scan on one side.")
    # A negative excess is the positive one of the contralateral side, which is counted already.
    evidence = {}
    for side, vote in votes.items():
        tumors = [vote > size * vote.max() for size in _SIZES]
        outlined = outline_tumor(vote, tumors, comparison, spacing_zyx).probability
        evidence[side] = max(excess_mm3(outlined, comparison, spacing_zyx), 0.0)
    side = max(laterality.SIDES, key=lambda name: evidence[name])
    certainty = 1 / (1 + math.exp(-_LOG_ODDS * abs(evidence["left"] - evidence["right"])))
    rounded = {name: round(value, 2) for name, value in evidence.items()}
    note = _note(side, certainty, evidence)
    return TumorSide(side, certainty, rounded, votes[laterality.contralateral(side)], note)


def _note(side: str, certainty: float, evidence: Mapping[str, float]) -> str:
    """Return what a user should know: the side is uncertain, or both sides may have a tumor."""
    contralateral = laterality.contralateral(side)
    sentences = []
    if evidence[contralateral] > _CONVINCING_MM3:
        sentences += [
            f"Both sides look like a tumor (contralateral excess {evidence[side]:.0f} mm3 on the {side}, "
            f"{evidence[contralateral]:.0f} mm3 on the {contralateral}): only the tumor on the {side} is labeled.",
            f"Check for a second tumor; tumor side '{contralateral}' labels it in another folder.",
        ]
    elif certainty < _CERTAIN:
        sentences.append(
            f"The tumor is probably on the {side}, but both sides look alike, as with tumors on both sides; check."
        )
    if certainty < _CERTAIN:
        sentences.append(f"The confidence of the tumor is multiplied by {certainty:.2f}.")
    return " ".join(sentences)
