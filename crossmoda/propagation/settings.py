"""Parameters of label propagation."""

import dataclasses

from crossmoda import parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of label propagation."""

    left_atlases: int = parameter(15, "Maximum number of atlases with the tumor on the left", minimum=0, maximum=1000)
    right_atlases: int = parameter(15, "Maximum number of atlases with the tumor on the right", minimum=0, maximum=1000)
    tumor_side: str = parameter(
        "auto", "Side of the target's tumor (patient's left or right)", choices=("auto", "left", "right", "unknown")
    )
    mirror: bool = parameter(True, "Mirroring of atlases whose tumor is on the contralateral side")
    contributing_fraction: float = parameter(
        0.33, "Fraction of atlases used per structure, best-matching first", minimum=0.05, maximum=1
    )
    outline: str = parameter(
        "contralateral",
        "Tumor outline: by comparison with the contralateral side, or by atlas votes only",
        choices=("contralateral", "atlases"),
    )
    weighting: str = parameter(
        "local",
        "Atlas weighting: local (image similarity) or global (STAPLE)",
        choices=("local", "global"),
        advanced=True,
    )
    region: str = parameter(
        "auto", "Registered region: around the ears, or the whole scan", choices=("auto", "ears", "whole")
    )
    probe_atlases: int = parameter(
        3, "Number of atlases registered on both sides to find the tumor side", minimum=1, maximum=100, advanced=True
    )
    keep_transforms: bool = parameter(
        False, "Transforms between target and each atlas as files (T.h5, T_inverse.h5)", advanced=True
    )
    minimum_quality: float = parameter(
        0.05,
        "Minimum quality of a registration (0: chance, 1: identical images)",
        minimum=-1,
        maximum=1,
        advanced=True,
    )
