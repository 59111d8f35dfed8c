"""Settings of a training."""

import dataclasses

from crossmoda import device, network, parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Settings of a training."""

    preset: str = parameter(
        "default",
        "Network and training routine: 'default' learns best, 'paper' is the published recipe",
        choices=("default", "paper"),
    )
    field: str = parameter(
        "auto",
        "Field of the network: 'ear', 'scan', or 'auto': scan for preset 'paper', else ear",
        choices=("auto", "ear", "scan"),
    )
    inputs: str = parameter(
        "auto",
        "Features; all: MIND-SSC, intensity and contrast; 'auto': all for ears, else MIND-SSC",
        choices=("auto", "mind", "intensity", "both", "all"),
        advanced=True,
    )
    from_scratch: bool = parameter(
        False, "Begin with random weights where the bundled ones could be trained further", advanced=True
    )
    unaveraged: bool = parameter(
        False, "Result without the average with the initial weights (ears, preset default)", advanced=True
    )
    epochs: int = parameter(0, "Number of epochs; 0: preset", minimum=0, maximum=1_000_000)
    seconds: float = parameter(
        0.0,
        "Time limit, to which the learning rate schedule adapts; 0: none",
        unit="s",
        minimum=0,
        maximum=1_000_000,
    )
    learning_rate: float = parameter(
        0.0,
        "Peak learning rate; 0: preset, or a third of it with initial weights",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    batch: int = parameter(0, "Batch size in crops; 0: preset", minimum=0, maximum=64, advanced=True)
    width: float = parameter(
        1.0, "Factor on the channels of every layer of the network", minimum=0.125, maximum=4, advanced=True
    )
    patience: int = parameter(
        0,
        "Number of validations without a better Dice before training stops; 0: no early stopping",
        minimum=0,
        maximum=1000,
        advanced=True,
    )
    seed: int = parameter(0, "Random seed", minimum=0, maximum=2**31 - 1, advanced=True)
    device: str = parameter("auto", "Computing device", choices=device.CHOICES)
    restart: bool = parameter(False, "Restart, ignoring checkpoints in the output folder")

    @property
    def network(self) -> network.Settings:
        """Settings of the network that is trained."""
        field = ("scan" if self.preset == "paper" else "ear") if self.field == "auto" else self.field
        of_ears = field == "ear" and self.preset == "default"
        inputs = ("all" if of_ears else "mind") if self.inputs == "auto" else self.inputs
        return network.Settings(preset=self.preset, field=field, inputs=inputs, width=self.width)
