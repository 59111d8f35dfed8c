"""Growth of a tumor between two scans: change, rate, doubling time, and the verdict by a published criterion.

The interval of a change is that of the repeatability of the measurement: 95 % of the changes measured in a tumor that
does not change lie within it (J. M. Bland, D. G. Altman 1999, Stat Methods Med Res 8:135, for the logarithm of the
volume). The doubling time is that of exponential growth (M. Schwartz 1961, Cancer 14:1272).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from crossmoda.measurement.interval import calibration_of

#: Key of the model card.
KEY = "growth_repeatability"
DAYS_PER_YEAR = 365.25
#: A shorter time has no rate per year.
_SHORTEST_DAYS = 30
STABLE, GROWN, SHRUNK, UNCERTAIN = "stable", "grown", "shrunk", "uncertain"
APPEARED, REMOVED, ABSENT = "appeared", "removed", "no tumor"
VERDICTS = (STABLE, GROWN, SHRUNK, UNCERTAIN, APPEARED, REMOVED, ABSENT)


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A published definition of growth."""

    name: str
    least: float
    """smallest change that counts"""
    is_linear: bool
    """whether the change is of the diameter (mm); else of the volume (%)"""
    source: str

    def __str__(self) -> str:
        """Return the criterion in words."""
        size = f"more than {self.least:g} mm in diameter" if self.is_linear else f"at least {self.least:g} % in volume"
        return f"{size} ({self.source})"


CRITERIA = {
    "volume": Criterion("volume", 20.0, False, "Lees et al. 2018, Otolaryngol Head Neck Surg 159:535"),
    "linear": Criterion("linear", 2.0, True, "Kanzaki et al. 2003, Otol Neurotol 24:642"),
}
#: Half width of the 95 % interval of the logarithm of a ratio of two manual volumes: smallest detectable difference
#: 19.7 % between readers (R. van de Langenberg et al. 2009, Neuroradiology 51:517).
MANUAL = math.log(1.197)
#: Half width of the 95 % interval of a difference of two diameters, mm.
LINEAR_MM = 1.4


@dataclasses.dataclass(frozen=True)
class Repeatability:
    """The half width of the 95 % interval of the logarithm of a ratio of two volumes of a network.

    The defaults are those of the bundled weights.
    """

    factor: float = 1.25
    """half width per relative uncertain volume (:func:`crossmoda.measurement.interval.uncertain_volume`)"""
    offset: float = 0.02
    """added to the relative uncertain volume"""

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Repeatability | None":
        """Return the values of a model card; None where the network was not calibrated.

        Raises:
            InputError: the entry of the card is damaged.

        """
        entry = calibration_of(card, KEY, [field.name for field in dataclasses.fields(cls)])
        return None if entry is None else cls(**entry)

    def share(self, uncertain: float) -> float:
        """Return the part of one volume in the half width of a ratio; those of both add up as squares."""
        return self.factor * (uncertain + self.offset) / math.sqrt(2)


@dataclasses.dataclass(frozen=True)
class TumorSize:
    """The size of a tumor in one scan."""

    volume_mm3: float
    spread: float
    """half width of the 95 % interval of the logarithm of the volume, as far as it differs from scan to scan"""
    axial_mm: float
    """largest axial diameter"""
    extrameatal_mm: float | None
    """largest extrameatal axial diameter: 0 within the canal, None unknown"""

    @property
    def interval_mm3(self) -> tuple[float, float]:
        """95 % interval of the volume."""
        return self.volume_mm3 * math.exp(-self.spread), self.volume_mm3 * math.exp(self.spread)


@dataclasses.dataclass(frozen=True)
class Growth:
    """The change of the tumor of one ear between two scans."""

    before: TumorSize | None
    after: TumorSize | None
    days: int | None
    """time between the scans; None: unknown"""
    criterion: Criterion

    @property
    def _logarithm(self) -> tuple[float, float, float] | None:
        """The logarithm of the ratio of the volumes: low, measured, high; None unless both have a tumor."""
        if self.before is None or self.after is None:
            return None
        middle = math.log(self.after.volume_mm3 / self.before.volume_mm3)
        half = math.hypot(self.before.spread, self.after.spread)
        return middle - half, middle, middle + half

    @property
    def years(self) -> float | None:
        """Time between the scans; None where it is unknown or too short for a rate."""
        return None if self.days is None or self.days < _SHORTEST_DAYS else self.days / DAYS_PER_YEAR

    @property
    def change_mm3(self) -> float | None:
        """Change of the volume."""
        return None if self.before is None or self.after is None else self.after.volume_mm3 - self.before.volume_mm3

    @property
    def change_percent(self) -> tuple[float, float, float] | None:
        """Change of the volume relative to the first one: low, measured, high."""
        values = self._logarithm
        return None if values is None else _each(values, lambda value: 100 * math.expm1(value))

    @property
    def percent_per_year(self) -> tuple[float, float, float] | None:
        """Change of the volume in a year of exponential growth: low, measured, high."""
        values, years = self._logarithm, self.years
        if values is None or years is None:
            return None
        return _each(values, lambda value: 100 * math.expm1(min(value / years, 20.0)))

    @property
    def doubling_years(self) -> tuple[float, float, float | None] | None:
        """Volume doubling time: shortest, measured, longest (None: no growth is possible, too).

        None where the volume does not grow, or the time is not known.
        """
        values, years = self._logarithm, self.years
        if values is None or years is None or values[1] <= 0:
            return None
        low, middle, high = (years * math.log(2) / value if value > 0 else None for value in values[::-1])
        assert low is not None and middle is not None
        return low, middle, high

    @property
    def linear_mm(self) -> tuple[float, float, float] | None:
        """Change of the consensus diameter: low, measured, high.

        Extrameatal where both are known and the tumor leaves the canal, else the largest axial diameter.
        """
        if self.before is None or self.after is None:
            return None
        middle = self.after.axial_mm - self.before.axial_mm
        if self.before.extrameatal_mm and self.after.extrameatal_mm:
            middle = self.after.extrameatal_mm - self.before.extrameatal_mm
        return middle - LINEAR_MM, middle, middle + LINEAR_MM

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`.

        Uncertain where the interval holds both no change and one that fulfills the criterion.
        """
        if self.before is None or self.after is None:
            return ABSENT if self.before is self.after else APPEARED if self.before is None else REMOVED
        values = self.linear_mm if self.criterion.is_linear else self.change_percent
        assert values is not None
        low, measured, high = values
        least = self.criterion.least
        if low <= 0 <= high and (low <= -least or high >= least):
            return UNCERTAIN
        size = round(abs(measured), 6)
        if size < least or (self.criterion.is_linear and size == least):
            return STABLE
        return GROWN if measured > 0 else SHRUNK

    @property
    def sentence(self) -> str:
        """The result in words."""
        verdict, change = self.verdict, self.change_percent
        if change is None or self.before is None or self.after is None:
            size = self.after or self.before
            volume = f", {size.volume_mm3 / 1000:.2f} mL" if size else ""
            return verdict.capitalize() + volume + "."
        before, after = (size.volume_mm3 / 1000 for size in (self.before, self.after))
        rate = self.percent_per_year
        yearly = f", {rate[1]:+.0f} % a year" if rate else ""
        return (
            f"{verdict.capitalize()}: {before:.2f} to {after:.2f} mL, {change[1]:+.0f} % "
            f"({change[0]:+.0f} to {change[2]:+.0f}){yearly}."
        )


def _each(values: tuple[float, float, float], function: Any) -> tuple[float, float, float]:
    low, middle, high = (float(function(value)) for value in values)
    return low, middle, high
