"""What can be set in a registration."""

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
#: The values that each list may hold: what is beyond is no registration but a slip of the pen.
_RANGES = {"grid_spacing": (0.1, 1000.0), "search_radius": (1.0, 50.0), "quantization": (0.01, 100.0)}


@dataclasses.dataclass(frozen=True)
class Settings(_Settings):
    """Parameters of the registration."""

    linear: str = parameter(
        "affine", "Linear registration before the deformable one", choices=("affine", "rigid", "none")
    )
    initialization: str = parameter(
        "header", "Initial alignment: image headers, or centers of mass", choices=("header", "center")
    )
    alpha: float = parameter(1.6, "Smoothness weight of the deformation", minimum=0.01, maximum=100)
    levels: int = parameter(5, "Number of levels of the deformable registration (0: linear only)", minimum=0, maximum=5)
    device: str = parameter("auto", "Processor of the computation", choices=CHOICES)
    units: str = parameter(
        "mm",
        "Unit of grid spacing and quantization; voxel has the defaults of deedsBCV",
        choices=("mm", "voxel"),
        advanced=True,
    )
    grid_spacing: str = parameter(
        "", "Distance of the control points per level, such as 8,7,6,5,4; empty: default", advanced=True
    )
    search_radius: str = parameter("", "Search radius per level, in displacement steps; empty: default", advanced=True)
    quantization: str = parameter("", "Size of a displacement step per level; empty: default", advanced=True)

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
                f"grid_spacing, search_radius and quantization need as many values as each other; got {lengths}."
            )
        return _combine(*columns)[: self.levels]


def _combine(spacing: list[float], radius: list[float], step: list[float]) -> list[tuple[float, int, float]]:
    return [(g, int(r), q) for g, r, q in zip(spacing, radius, step, strict=True)]


def _numbers(name: str, text: str) -> list[float]:
    try:
        numbers = [float(item) for item in text.replace("x", ",").split(",")]
    except ValueError:
        raise InputError(f"{name} must be numbers separated by commas, such as 8,7,6,5,4; got {shown(text)}.") from None
    least, most = _RANGES.get(name, (0.0, math.inf))
    whole = name == "search_radius"
    if not all(least <= number <= most for number in numbers) or (whole and any(number % 1 for number in numbers)):
        kind = "whole numbers" if whole else "numbers"
        raise InputError(f"{name} must be {kind} from {least:g} to {most:g}; got {shown(text)}.")
    return numbers
