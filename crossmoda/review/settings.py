"""Parameters of the review."""

import dataclasses

from crossmoda import parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """What is shown to the reviewer."""

    threshold: float = parameter(
        0.2,
        "Places are shown where the label is wrong with at least this probability",
        minimum=0.01,
        maximum=0.95,
    )
    margin_mm: float = parameter(
        1.0,
        "What is shown around such a place; places nearer than twice that are one",
        unit="mm",
        minimum=0,
        maximum=20,
    )
    smallest_mm3: float = parameter(5.0, "Smaller places are not shown", unit="mm3", minimum=0, maximum=10000)
    most_regions: int = parameter(20, "Largest number of places shown per case", minimum=1, maximum=1000)
