"""Parameters of STAPLE."""

import dataclasses

from crossmoda import parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of STAPLE."""

    prior: str = parameter(
        "local",
        "Prior of each label: its frequency around each voxel, or in the whole region",
        choices=("local", "global"),
    )
    prior_smoothing: float = parameter(
        1.0,
        "Standard deviation of the smoothing of the local prior",
        unit="voxels",
        minimum=0,
        maximum=20,
        advanced=True,
    )
    margin: int = parameter(
        1,
        "Width of the estimated rim around the disagreement of the raters",
        unit="voxels",
        minimum=0,
        maximum=10000,
        advanced=True,
    )
    smoothness: float = parameter(
        0.0, "Weight of the Markov random field that favors equal neighbors (0: off)", minimum=0, maximum=5
    )
    regularization: float = parameter(
        2.0, "Prior strength on rater performance", unit="pseudo-voxels", minimum=0, maximum=1e6, advanced=True
    )
    max_iterations: int = parameter(100, "Maximum number of iterations", minimum=1, maximum=10000, advanced=True)
    free_volumes: bool = parameter(False, "Structure volumes without the limits of the raters' interquartile range")
    tolerance: float = parameter(
        1e-4, "Change of the confusion matrices that ends the iterations", minimum=0, maximum=0.1, advanced=True
    )
