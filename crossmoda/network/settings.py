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
