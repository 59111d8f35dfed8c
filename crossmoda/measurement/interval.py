"""The interval of a tumor's volume, from the network's probabilities.

The relative uncertain volume is u = sum p (1 - p) / sum p around the tumor. Errors of neighboring voxels go together,
so that the error of the logarithm of the volume is taken as proportional to u, not to its root. The factor is the
quantile of |log(true / measured)| / (u + offset) on heads with truth: split conformal prediction (Lei et al. 2018, J Am
Stat Assoc 113:1094), whose nominal coverage holds for scans like those heads. The model card stores it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossmoda.errors import InputError
from crossmoda.volume.grid import Volume
from crossmoda.volume.masks import bounding_box, grown

#: Key of the model card.
KEY = "volume_interval"
#: The probabilities around the tumor that count, mm.
AROUND_MM = 3.0
#: Added to u, so that a certain network has an interval as well.
_OFFSET = 0.02


@dataclasses.dataclass(frozen=True)
class VolumeInterval:
    """The calibrated model of a network."""

    factor: float
    """error of log volume per relative uncertain volume"""
    nominal: float
    """fraction of scans whose true volume lies inside"""
    scans: int
    """number of scans on which it was calibrated"""

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "VolumeInterval | None":
        """Return the model of a model card; None where the network was not calibrated.

        Raises:
            InputError: the entry of the card is damaged.

        """
        entry = calibration_of(card, KEY, [field.name for field in dataclasses.fields(cls)])
        return None if entry is None else cls(entry["factor"], entry["nominal"], int(entry["scans"]))

    @classmethod
    def calibrated(
        cls, uncertain: Sequence[float], measured: Sequence[float], true: Sequence[float], nominal: float = 0.9
    ) -> "VolumeInterval":
        """Return the model that holds for scans with these uncertain volumes and measured and true volumes, mm3."""
        scores = np.abs(np.log(np.divide(true, measured))) / (np.asarray(uncertain) + _OFFSET)
        rank = min(math.ceil((len(scores) + 1) * nominal), len(scores))
        return cls(round(float(np.sort(scores)[rank - 1]), 4), nominal, len(scores))

    def around(self, volume_mm3: float, uncertain: float) -> tuple[float, float]:
        """Return the interval, mm3."""
        spread = math.exp(self.factor * (uncertain + _OFFSET))
        return volume_mm3 / spread, volume_mm3 * spread


def calibration_of(card: Mapping[str, Any], key: str, names: Sequence[str]) -> dict[str, float] | None:
    """Return the numbers of a calibration in a model card by their names; None where the network was not calibrated.

    Raises:
        InputError: a number is missing, or an entry is none, negative or not finite.

    """
    if key not in card:
        return None
    entry = card[key]
    is_complete = isinstance(entry, dict) and set(entry) == set(names)
    if not is_complete or not all(type(value) in (int, float) and 0 <= value < math.inf for value in entry.values()):
        raise InputError(f"Invalid model card ({key}: numbers for {', '.join(names)}). Download the weights again.")
    return dict(entry)


def uncertain_volume(tumor: Volume, probability: np.ndarray) -> float:
    """Return the uncertain volume of a tumor (bool) relative to its volume.

    Args:
        tumor: the tumor, not empty.
        probability: of the tumor, (z, y, x), 0 to 1, on its grid.

    """
    box = bounding_box(tumor.array, tumor.grid.voxels(AROUND_MM))
    part = tumor.crop(box)
    values = probability[box][grown(part.array, AROUND_MM, part.grid)].astype(float)
    return float((values * (1 - values)).sum() / max(values.sum(), 1e-6))
