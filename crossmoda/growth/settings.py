"""Settings of a growth measurement."""

import dataclasses

from crossmoda import device, parameters
from crossmoda.measurement.growth import CRITERIA, Criterion
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Settings of a growth measurement."""

    criterion: str = parameter("volume", "Growth criterion: volume, or linear (diameter)", choices=tuple(CRITERIA))
    least_percent: float = parameter(
        CRITERIA["volume"].least, "Smallest change of the volume that counts", unit="%", minimum=1.0, maximum=200.0
    )
    least_mm: float = parameter(
        CRITERIA["linear"].least, "Diameter change beyond which it counts", unit="mm", minimum=0.5, maximum=20.0
    )
    any_patient: bool = parameter(
        False, "Compare scans whose patient IDs differ, as after pseudonymization", advanced=True
    )
    device: str = parameter("auto", "Computing device", choices=device.CHOICES)

    def chosen(self) -> Criterion:
        """Return the criterion."""
        criterion = CRITERIA[self.criterion]
        return dataclasses.replace(criterion, least=self.least_mm if criterion.is_linear else self.least_percent)
