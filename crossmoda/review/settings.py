"""Settings of the review."""

import dataclasses

from crossmoda import device, parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Settings of the regions presented to the reviewer."""

    threshold: float = parameter(
        0.2, "Minimum probability that the label is wrong in a region", minimum=0.01, maximum=0.95
    )
    margin_mm: float = parameter(
        1.0,
        "Margin around a region; regions closer than twice the margin are merged",
        unit="mm",
        minimum=0,
        maximum=20,
    )
    smallest_mm3: float = parameter(5.0, "Minimum volume of a region", unit="mm3", minimum=0, maximum=10000)
    most_regions: int = parameter(20, "Maximum number of regions per case", minimum=1, maximum=1000)


@dataclasses.dataclass(frozen=True)
class ImprovementSettings(parameters.Settings):
    """Settings of the training of a model on corrections."""

    seconds: float = parameter(600.0, "Training time; 0: all epochs", unit="s", minimum=0, maximum=1_000_000)
    epochs: int = parameter(0, "Maximum number of epochs; 0: preset", minimum=0, maximum=1_000_000, advanced=True)
    held_out: float = parameter(
        0.2,
        "Fraction of the corrected cases held out to compare the old and the new model",
        minimum=0.05,
        maximum=0.5,
        advanced=True,
    )
    learning_rate: float = parameter(
        0.0,
        "Peak learning rate; 0: a third of the preset's",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    unaveraged: bool = parameter(
        False, "Result without the average with the initial weights (ears, preset default)", advanced=True
    )
    seed: int = parameter(0, "Random seed", minimum=0, maximum=2**31 - 1, advanced=True)
    device: str = parameter("auto", "Computing device", choices=device.CHOICES)
