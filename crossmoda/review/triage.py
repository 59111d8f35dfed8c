"""From numbers to reasons: how much Dice a correction is expected to gain, and why, in a clinician's words."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossmoda import labels
from crossmoda.review.evidence import FARTHEST_MM, Evidence
from crossmoda.review.regions import SPOKEN

# What real outlines look like: the expert contours of Vestibular-Schwannoma-SEG (TCIA; 119 tumors, 79 cochleae, one
# per patient): tumors of 43 to 10784 mm3 in one piece, at most 3.4 times as long as thick, at most 8.6 mm from the
# cochlea; cochleae of 20 to 113 mm3 (crossMoDA draws them somewhat larger). The limits leave room around these.
TUMOR_MM3 = (25.0, 15000.0)
COCHLEA_MM3 = (12.0, 250.0)
LONGEST = 4.0
#: Two cochleae of one patient: how many times larger one may be, and how far above or behind the other, mm.
_UNEQUAL = 2.0
_TILT_MM = 25.0
#: Robust deviations of the logarithm of a volume from the cohort's median.
_UNUSUAL = 3.0
_LEAST_COHORT = 5
#: The deviation (of the logarithm) is at least this: cohorts may be very alike.
_LEAST_SPREAD = 0.15
#: Dice below which a structure is a reason, between label and network and as expected.
_DISAGREE, _DOUBTFUL = 0.7, 0.8
#: How many times larger a tumor may be drawn by the one than by the other: from here on a tumor has grown, in
#: follow-up (van de Langenberg et al., Neuroradiology 51:517, 2009).
_GROWN = 1.2
#: Tumors whose centers lie farther apart are two different ones, perhaps on either side.
_ELSEWHERE_MM = 25.0


@dataclasses.dataclass(frozen=True)
class Judgment:
    """What the evidence of one target comes to."""

    loss: float
    """the Dice (mean of the structures) that the label is expected to lack, 0 to 1"""
    sentences: tuple[str, ...]
    numbers: dict[str, float]


@dataclasses.dataclass(frozen=True)
class _Flag:
    """Something implausible about a structure."""

    structure: str
    risk: float
    """how probable it makes it that the structure is thoroughly wrong"""
    sentence: str


class CohortStatistics:
    """What is usual among the targets."""

    def __init__(self, cases: Sequence[Evidence]):
        """Take the volumes of all targets."""
        self.middle: dict[str, float] = {}
        self.spread: dict[str, float] = {}
        for structure in labels.STRUCTURES:
            volumes = [case.volumes_mm3[structure.key] for case in cases if case.volumes_mm3[structure.key] > 0]
            if len(volumes) >= _LEAST_COHORT:
                logarithms = np.log(volumes)
                middle = float(np.median(logarithms))
                self.middle[structure.key] = middle
                spread = 1.4826 * float(np.median(np.abs(logarithms - middle)))
                self.spread[structure.key] = max(spread, _LEAST_SPREAD)

    def deviation(self, key: str, volume_mm3: float) -> float | None:
        """Return how many robust deviations a volume lies from the cohort's median (of logarithms), or None."""
        if key not in self.middle or volume_mm3 <= 0:
            return None
        return (float(np.log(volume_mm3)) - self.middle[key]) / self.spread[key]

    def judge(self, case: Evidence) -> Judgment:
        """Return how much a correction is expected to gain, and why."""
        flags = [*self._volumes(case), *_shapes(case), *_positions(case)]
        numbers: dict[str, float] = {}
        reasons: list[tuple[float, str]] = []
        losses = []
        for structure in labels.STRUCTURES:
            key = structure.key
            expected = case.numbers.get(f"expected_dice_{key}", 1.0)
            own = [flag for flag in flags if flag.structure == key]
            kept = expected * float(np.prod([1 - flag.risk for flag in own]))
            losses.append(1 - kept)
            reasons += [(flag.risk, flag.sentence) for flag in own]
            reasons += _opinions(case, key, expected)
            if (deviation := self.deviation(key, case.volumes_mm3[key])) is not None:
                numbers[f"deviation_{key}"] = round(deviation, 3)
        reasons.sort(key=lambda pair: -pair[0])
        sentences = tuple(sentence for _, sentence in reasons)
        return Judgment(float(np.mean(losses)), sentences or ("Nothing speaks against this label.",), numbers)

    def _volumes(self, case: Evidence) -> list[_Flag]:
        flags = []
        tumor = case.volumes_mm3["VS"]
        if tumor == 0:
            flags.append(_Flag("VS", 0.6, "The label has no tumor."))
        elif tumor < TUMOR_MM3[0]:
            flags.append(
                _Flag("VS", 0.4, f"The tumor of {tumor:.0f} mm³ is smaller than those that are drawn in practice.")
            )
        elif tumor > TUMOR_MM3[1]:
            flags.append(_Flag("VS", 0.4, f"The tumor of {tumor:.0f} mm³ is larger than any of 119 patients'."))
        for structure in labels.STRUCTURES:
            key, volume = structure.key, case.volumes_mm3[structure.key]
            deviation = self.deviation(key, volume)
            if deviation is not None and abs(deviation) > _UNUSUAL:
                usual = float(np.exp(self.middle[key]))
                how = "large" if deviation > 0 else "small"
                text = f"{SPOKEN[key].capitalize()} is unusually {how} among these cases: {volume:.0f} mm³, "
                flags.append(_Flag(key, 0.15, f"{text}the median is {usual:.0f} mm³."))
        return flags


def _opinions(case: Evidence, key: str, expected: float) -> list[tuple[float, str]]:
    """Return the reasons that atlases and network give, each with its weight."""
    name, numbers = SPOKEN[key], case.numbers
    agreement = numbers.get(f"dice_network_{key}")
    drawn, seen = case.volumes_mm3[key], numbers.get(f"network_mm3_{key}", 0.0)
    unequal = key == "VS" and max(drawn, seen) > _GROWN * min(drawn, seen)
    if agreement is not None and (agreement < _DISAGREE or unequal):
        if seen == 0 < drawn:
            return [(1.0, f"The network finds nothing of {name} ({drawn:.0f} mm³ in the label).")]
        if drawn == 0 < seen:
            return [(1.0, f"The network finds {name} ({seen:.0f} mm³), the label has none.")]
        if key == "VS" and agreement == 0 and numbers.get("apart_mm", 0) > _ELSEWHERE_MM:
            return [(1.0, f"The label and the network see the tumor in places {numbers['apart_mm']:.0f} mm apart.")]
        text = f"The atlases and the network disagree about {name}: Dice {agreement:.2f} "
        return [(1 - agreement, f"{text}({drawn:.0f} and {seen:.0f} mm³).")]
    if expected < _DOUBTFUL:
        who = "The atlases and the network are" if agreement is not None else "The atlases are"
        return [(1 - expected, f"{who} unsure about {name}: expected Dice {expected:.2f}.")]
    return []


def _shapes(case: Evidence) -> list[_Flag]:
    flags = []
    pieces = case.numbers.get("pieces_VS", 0)
    if pieces > 1:
        flags.append(_Flag("VS", 0.2, f"The tumor is in {pieces:.0f} pieces."))
    longer = case.numbers.get("elongation_VS", 1.0)
    if longer > LONGEST:
        flags.append(_Flag("VS", 0.15, f"The tumor is {longer:.1f} times as long as thick, more than tumors are."))
    cochleae = case.numbers.get("pieces_cochlea", 0)
    if cochleae > 2:
        flags.append(_Flag("cochlea", 0.2, f"There are {cochleae:.0f} pieces of cochlea."))
    return flags


def _positions(case: Evidence) -> list[_Flag]:
    numbers, flags = case.numbers, []
    gap = numbers.get("gap_mm")
    if gap is not None and gap > FARTHEST_MM:
        flags.append(_Flag("VS", 0.5, f"The tumor lies {gap:.0f} mm from the nearest cochlea."))
    sides = {side: numbers.get(f"{side}_mm3", 0.0) for side in ("left", "right")}
    missing = [side for side, volume in sides.items() if volume == 0]
    if len(missing) == 2:
        return [*flags, _Flag("cochlea", 0.6, "The label has no cochlea.")]
    if missing:
        return [*flags, _Flag("cochlea", 0.4, f"There is no cochlea on the {missing[0]} side.")]
    for side, volume in sides.items():
        low, high = COCHLEA_MM3
        if not low <= volume <= high:
            how = "small" if volume < low else "large"
            flags.append(_Flag("cochlea", 0.3, f"The {side} cochlea is too {how}: {volume:.0f} mm³."))
    large, small = max(sides.values()), min(sides.values())
    if large > _UNEQUAL * small:
        flags.append(_Flag("cochlea", 0.15, f"One cochlea is {large / small:.1f} times as large as the other."))
    apart = max(numbers.get("height_mm", 0.0), numbers.get("depth_mm", 0.0))
    if apart > _TILT_MM:
        flags.append(_Flag("cochlea", 0.2, f"One cochlea lies {apart:.0f} mm above or behind the other."))
    return flags
