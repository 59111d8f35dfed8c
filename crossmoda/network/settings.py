"""Settings of the network."""

import dataclasses

from crossmoda import parameters
from crossmoda.errors import InputError
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
        "Features: MIND-SSC, intensity, both, or all: both and the contrast, T1 or T2 (ears only)",
        choices=("mind", "intensity", "both", "all"),
        advanced=True,
    )

    def __post_init__(self) -> None:
        """Check the values, and that the contrast is known where it is an input."""
        super().__post_init__()
        if self.inputs == "all" and self.field == "scan":
            raise InputError("inputs 'all' needs field 'ear': the contrast of a whole scan is not known.")
