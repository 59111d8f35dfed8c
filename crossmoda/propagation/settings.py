"""Parameters of label propagation."""

import dataclasses

from crossmoda import parameters
from crossmoda.errors import InputError
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of label propagation."""

    left_atlases: int = parameter(15, "Maximum number of atlases with the tumor on the left", minimum=0, maximum=1000)
    right_atlases: int = parameter(15, "Maximum number of atlases with the tumor on the right", minimum=0, maximum=1000)
    most_atlases: int = parameter(
        12,
        "Maximum number of registered atlases, best-matching ears first; 0: all",
        minimum=0,
        maximum=1000,
    )
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
    initialization: str = parameter(
        "auto",
        "Initial alignment: ear frames (auto: if both scans have them), headers (image), or centers",
        choices=("auto", "frames", "image", "center"),
    )
    region: str = parameter(
        "auto", "Registered region: around the ears, or the whole scan", choices=("auto", "ears", "whole")
    )
    keep_transforms: bool = parameter(
        False, "Transforms between target and each atlas as files (T.h5, T_inverse.h5)", advanced=True
    )

    def __post_init__(self) -> None:
        """Check the values; only ear frames know where the ears are."""
        super().__post_init__()
        if self.region == "ears" and self.initialization in ("image", "center"):
            raise InputError(
                f"Region 'ears' needs ear frames: initialization is '{self.initialization}'. Use initialization "
                "'auto' or 'frames', or region 'whole'."
            )
