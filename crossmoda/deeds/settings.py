"""The parameters of a registration."""

import dataclasses
import math

from crossmoda.device import CHOICES
from crossmoda.errors import InputError
from crossmoda.parameters import Settings as _Settings
from crossmoda.parameters import parameter, shown

#: Grid spacing, search radius (steps) and quantization of the linear and the deformable levels, by unit.
#: ``voxel`` holds the defaults of linearBCV and deedsBCV.
_LEVELS = {
    ("linear", "voxel"): ("7,6,5,4", "5,4,3,2", "4,3,2,1"),
    ("deformable", "voxel"): ("8,7,6,5,4", "8,7,6,5,4", "5,4,3,2,1"),
    ("linear", "mm"): ("14,12,10,8", "5,4,3,2", "4,3,2,1"),
    ("deformable", "mm"): ("12,9,7,4,3", "4,4,3,3,2", "4,3,2,1,1"),
}
#: The range of values of each list; values beyond are typing errors.
_RANGES = {"grid_spacing": (0.1, 1000.0), "search_radius": (1.0, 50.0), "quantization": (0.01, 100.0)}


@dataclasses.dataclass(frozen=True)
class Settings(_Settings):
    """Parameters of the registration."""

    linear: str = parameter(
        "affine", "Linear registration before the deformable one", choices=("affine", "rigid", "none")
    )
    alpha: float = parameter(1.6, "Smoothness of the deformation (larger is smoother)", minimum=0.01, maximum=100)
    levels: int = parameter(
        5,
        "Number of deformable levels, coarse to fine; 0 for a linear registration only",
        minimum=0,
        maximum=5,
    )
    device: str = parameter("auto", "Computing device", choices=CHOICES)
    units: str = parameter(
        "mm",
        "Unit of grid spacing and quantization; voxel with empty lists as in deedsBCV",
        choices=("mm", "voxel"),
        advanced=True,
    )
    grid_spacing: str = parameter(
        "", "Spacing of the control points per level, such as 8,7,6,5,4; empty for the default", advanced=True
    )
    search_radius: str = parameter(
        "", "Displacements searched on each side per level (steps); empty for the default", advanced=True
    )
    quantization: str = parameter("", "Displacement step per level; empty for the default", advanced=True)

    def __post_init__(self) -> None:
        """Check the lists as well."""
        super().__post_init__()
        self.deformable_levels()

    def linear_levels(self) -> list[tuple[float, int, float]]:
        """Return (grid spacing, search radius, quantization) of each linear level."""
        return _combine(*(_numbers("", text) for text in _LEVELS["linear", self.units]))

    def deformable_levels(self) -> list[tuple[float, int, float]]:
        """Return (grid spacing, search radius, quantization) of each deformable level."""
        names = ("grid_spacing", "search_radius", "quantization")
        defaults = _LEVELS["deformable", self.units]
        columns = [
            _numbers(name, getattr(self, name) or default) for name, default in zip(names, defaults, strict=True)
        ]
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in zip(names, columns, strict=True))
            raise InputError(
                f"grid_spacing, search_radius and quantization differ in length: {lengths}. Use lists of one length."
            )
        return _combine(*columns)[: self.levels]


def _combine(spacing: list[float], radius: list[float], step: list[float]) -> list[tuple[float, int, float]]:
    return [(g, int(r), q) for g, r, q in zip(spacing, radius, step, strict=True)]


def _numbers(name: str, text: str) -> list[float]:
    try:
        numbers = [float(item) for item in text.replace("x", ",").split(",")]
    except ValueError:
        raise InputError(f"{name} is not a list of numbers: {shown(text)}. Use numbers such as 8,7,6,5,4.") from None
    least, most = _RANGES.get(name, (0.0, math.inf))
    whole = name == "search_radius"
    if not all(least <= number <= most for number in numbers) or (whole and any(number % 1 for number in numbers)):
        kind = "integers" if whole else "numbers"
        raise InputError(f"{name} is out of range: {shown(text)}. Use {kind} from {least:g} to {most:g}.")
    return numbers
