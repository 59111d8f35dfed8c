"""Triage of labels: the expected benefit of a correction and its reasons, in clinical terms."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from crossmoda import labels
from crossmoda.anatomy.plausibility import BESIDE_MM
from crossmoda.review.evidence import Evidence
from crossmoda.review.regions import STRUCTURE_PHRASES

# Plausible ranges, from the expert contours of Vestibular-Schwannoma-SEG (TCIA; 119 tumors, 79 cochleae, one per
# patient) with a margin: tumors of 43 to 10784 mm3 in one component, axis ratio up to 3.4, up to 8.6 mm from the
# cochlea; cochleae of 20 to 113 mm3 (crossMoDA's are somewhat larger).
TUMOR_MM3 = (25.0, 15000.0)
COCHLEA_MM3 = (12.0, 250.0)
MAX_ELONGATION = 4.0
#: Two cochleae of a patient: maximum volume ratio, and maximum vertical or anteroposterior offset.
_MAX_VOLUME_RATIO = 2.0
_MAX_OFFSET_MM = 25.0
#: Robust deviations of log volumes from the median of the cohort: outlier threshold, minimum cohort, minimum deviation.
_OUTLIER = 3.0
_MIN_COHORT = 5
_MIN_DEVIATION = 0.15
#: Dice below which atlases and network disagree, and expected Dice below which they are uncertain.
_DISAGREEMENT, _UNCERTAINTY = 0.7, 0.8
#: Volume ratio above which two tumor outlines disagree: that of growth in follow-up (van de Langenberg et al.,
#: Neuroradiology 51:517, 2009).
_GROWTH_RATIO = 1.2
#: Distance between tumor centers above which two outlines are different tumors.
_DIFFERENT_TUMORS_MM = 25.0


@dataclasses.dataclass(frozen=True)
class Assessment:
    """The assessment of a label."""

    loss: float
    """expected Dice loss (mean over the structures), 0 to 1"""
    reasons: tuple[str, ...]
    """sentences, the most important first"""
    numbers: dict[str, float]
    """deviation of the volumes from the cohort"""


@dataclasses.dataclass(frozen=True)
class _Finding:
    """An implausible property of a structure."""

    structure: str
    risk: float
    """probability that the structure is mostly wrong"""
    sentence: str


class CohortStatistics:
    """Statistics of the volumes in a cohort."""

    def __init__(self, cases: Sequence[Evidence]):
        """Compute median and deviation of the log volumes of all cases."""
        self.median: dict[str, float] = {}
        self.mad: dict[str, float] = {}
        for structure in labels.STRUCTURES:
            volumes = [case.volumes_mm3[structure.key] for case in cases if case.volumes_mm3[structure.key] > 0]
            if len(volumes) >= _MIN_COHORT:
                logarithms = np.log(volumes)
                median = float(np.median(logarithms))
                self.median[structure.key] = median
                deviation = 1.4826 * float(np.median(np.abs(logarithms - median)))
                self.mad[structure.key] = max(deviation, _MIN_DEVIATION)

    def deviation(self, key: str, volume_mm3: float) -> float | None:
        """Return the deviation of a volume from the cohort's median (log volumes, robust deviations); None: unknown."""
        if key not in self.median or volume_mm3 <= 0:
            return None
        return (float(np.log(volume_mm3)) - self.median[key]) / self.mad[key]

    def assess(self, case: Evidence) -> Assessment:
        """Return the expected benefit of a correction and its reasons."""
        findings = [*self._volumes(case), *_shapes(case), *_positions(case)]
        numbers: dict[str, float] = {}
        reasons = [(finding.risk, finding.sentence) for finding in findings]
        losses = []
        for structure in labels.STRUCTURES:
            key = structure.key
            expected = case.numbers.get(f"expected_dice_{key}", 1.0)
            risks = [finding.risk for finding in findings if finding.structure == key]
            losses.append(1 - expected * float(np.prod(np.subtract(1, risks))))
            reasons += _disagreements(case, key, expected)
            if (deviation := self.deviation(key, case.volumes_mm3[key])) is not None:
                numbers[f"deviation_{key}"] = round(deviation, 3)
        sentences = tuple(sentence for _, sentence in sorted(reasons, key=lambda pair: -pair[0]))
        return Assessment(float(np.mean(losses)), sentences or ("No sign of an error.",), numbers)

    def _volumes(self, case: Evidence) -> Iterator[_Finding]:
        tumor_mm3 = case.volumes_mm3["VS"]
        if tumor_mm3 == 0:
            yield _Finding("VS", 0.6, "The label contains no tumor.")
        elif tumor_mm3 < TUMOR_MM3[0]:
            yield _Finding("VS", 0.4, f"The tumor ({tumor_mm3:.0f} mm³) is smaller than tumors segmented in practice.")
        elif tumor_mm3 > TUMOR_MM3[1]:
            yield _Finding("VS", 0.4, f"The tumor ({tumor_mm3:.0f} mm³) is larger than those of 119 patients.")
        for key, volume_mm3 in case.volumes_mm3.items():
            deviation = self.deviation(key, volume_mm3)
            if deviation is not None and abs(deviation) > _OUTLIER:
                size, median = "large" if deviation > 0 else "small", float(np.exp(self.median[key]))
                text = (
                    f"{STRUCTURE_PHRASES[key].capitalize()} is unusually {size} in this cohort: {volume_mm3:.0f} mm³,"
                )
                yield _Finding(key, 0.15, f"{text} median {median:.0f} mm³.")


def _disagreements(case: Evidence, key: str, expected: float) -> list[tuple[float, str]]:
    """Return the reasons from the evidence sources, each with its weight."""
    name, numbers = STRUCTURE_PHRASES[key], case.numbers
    agreement = numbers.get(f"dice_network_{key}")
    label_mm3, network_mm3 = case.volumes_mm3[key], numbers.get(f"network_mm3_{key}", 0.0)
    unequal = key == "VS" and max(label_mm3, network_mm3) > _GROWTH_RATIO * min(label_mm3, network_mm3)
    if agreement is not None and (agreement < _DISAGREEMENT or unequal):
        if network_mm3 == 0 < label_mm3:
            return [(1.0, f"The network does not find {name} ({label_mm3:.0f} mm³ in the label).")]
        if label_mm3 == 0 < network_mm3:
            return [(1.0, f"The network finds {name} ({network_mm3:.0f} mm³); the label does not contain it.")]
        if key == "VS" and agreement == 0 and numbers.get("apart_mm", 0) > _DIFFERENT_TUMORS_MM:
            return [(1.0, f"The tumors of the label and of the network are {numbers['apart_mm']:.0f} mm apart.")]
        text = f"The atlases and the network disagree on {name}: Dice {agreement:.2f} "
        return [(1 - agreement, f"{text}({label_mm3:.0f} and {network_mm3:.0f} mm³).")]
    if expected < _UNCERTAINTY:
        sources = "The atlases and the network are" if agreement is not None else "The atlases are"
        return [(1 - expected, f"{sources} uncertain about {name}: expected Dice {expected:.2f}.")]
    return []


def _shapes(case: Evidence) -> Iterator[_Finding]:
    if (count := case.numbers.get("pieces_VS", 0)) > 1:
        yield _Finding("VS", 0.2, f"The tumor has {count:.0f} components.")
    if (elongation := case.numbers.get("elongation_VS", 1.0)) > MAX_ELONGATION:
        yield _Finding("VS", 0.15, f"The tumor is implausibly elongated (axis ratio {elongation:.1f}).")
    if (count := case.numbers.get("pieces_cochlea", 0)) > 2:
        yield _Finding("cochlea", 0.2, f"The cochleae have {count:.0f} components.")


def _positions(case: Evidence) -> Iterator[_Finding]:
    numbers = case.numbers
    if (gap_mm := numbers.get("gap_mm", 0.0)) > BESIDE_MM:
        yield _Finding("VS", 0.5, f"The tumor is {gap_mm:.0f} mm from the nearest cochlea.")
    sides = {side: numbers.get(f"{side}_mm3", 0.0) for side in ("left", "right")}
    missing = [side for side, volume_mm3 in sides.items() if volume_mm3 == 0]
    if len(missing) == 2:
        yield _Finding("cochlea", 0.6, "The label contains no cochlea.")
    elif missing:
        yield _Finding("cochlea", 0.4, f"The {missing[0]} cochlea is missing.")
    else:
        yield from _cochleae(sides, max(numbers.get("height_mm", 0.0), numbers.get("depth_mm", 0.0)))


def _cochleae(sides: dict[str, float], offset_mm: float) -> Iterator[_Finding]:
    low, high = COCHLEA_MM3
    for side, volume_mm3 in sides.items():
        if not low <= volume_mm3 <= high:
            size = "small" if volume_mm3 < low else "large"
            yield _Finding("cochlea", 0.3, f"The {side} cochlea is too {size}: {volume_mm3:.0f} mm³.")
    large, small = max(sides.values()), min(sides.values())
    if large > _MAX_VOLUME_RATIO * small:
        yield _Finding("cochlea", 0.15, f"The cochlear volumes differ by a factor of {large / small:.1f}.")
    if offset_mm > _MAX_OFFSET_MM:
        yield _Finding("cochlea", 0.2, f"The cochleae are offset by {offset_mm:.0f} mm (vertical or AP).")
