"""Settings of the network."""

import dataclasses

from crossmoda import parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Settings of the network."""

    preset: str = parameter(
        "default",
        "Network: 'default' segments best, 'paper' is the published network",
        choices=("default", "paper"),
    )
    width: float = parameter(1.0, "Factor on the channels of every layer", minimum=0.125, maximum=4, advanced=True)
    field: str = parameter(
        "scan",
        "Field of the network: 'ear', each ear in its canonical frame, or 'scan', the whole scan",
        choices=("ear", "scan"),
    )
    inputs: str = parameter(
        "mind",
        "Features: MIND-SSC, normalized intensity, or both",
        choices=("mind", "intensity", "both"),
        advanced=True,
    )
