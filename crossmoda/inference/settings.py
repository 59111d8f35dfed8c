"""Settings of a prediction."""

import dataclasses

from crossmoda import device, parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Settings of a prediction."""

    flips: bool = parameter(False, "Average with the prediction of the mirrored or moved scan (twice the time)")
    keep_all: bool = parameter(
        False, "Keep all components, not only one schwannoma and a cochlea on each side", advanced=True
    )
    any_ear: bool = parameter(
        False, "Segment ears that are not recognized, too (networks that see ears)", advanced=True
    )
    tiles: bool = parameter(False, "Predict in tiles to save memory, not only when memory runs out", advanced=True)
    device: str = parameter("auto", "Computing device", choices=device.CHOICES)
