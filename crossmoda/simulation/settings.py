"""Settings of a simulation."""

import dataclasses

from crossmoda import parameters
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Settings of the variation between digital subjects and of their scans."""

    field_of_view: float = parameter(192.0, "Width of the square slices", unit="mm", minimum=20, maximum=260)
    slices: int = parameter(64, "Number of slices of each scan", minimum=4, maximum=200)
    in_plane_spacing: float = parameter(
        0.5,
        "Pixel size of the T2 scan (T1: 0.8 to 1 times this size)",
        unit="mm",
        minimum=0.3,
        maximum=2,
    )
    slice_thickness: float = parameter(
        0.0,
        "Slice thickness of both scans; 0: T1 1.5 mm, T2 random 1 to 1.5 mm",
        unit="mm",
        minimum=0,
        maximum=5,
    )
    deformation: float = parameter(
        4.0,
        "Typical magnitude of the smooth deformation (0.75 to 1.25 times this per subject)",
        unit="mm",
        minimum=0,
        maximum=8,
    )
    rotation: float = parameter(
        3.0, "Standard deviation of the head rotation about each axis", unit="degrees", minimum=0, maximum=30
    )
    translation: float = parameter(
        3.0, "Standard deviation of the head position along each axis", unit="mm", minimum=0, maximum=40
    )
    size: float = parameter(0.04, "Relative standard deviation of the head size", minimum=0, maximum=0.15)
    oblique: float = parameter(0.5, "Fraction of oblique scans", minimum=0, maximum=1)
    noise: float = parameter(0.035, "Standard deviation of the noise, relative to white matter", minimum=0, maximum=0.5)
    bias: float = parameter(0.2, "Maximum relative deviation of the coil sensitivity", minimum=0, maximum=0.8)
    contrast: float = parameter(
        0.07, "Relative standard deviation of relaxation times between subjects", minimum=0, maximum=0.2
    )
    misalignment: float = parameter(
        1.0, "Movement between the scans, relative to the real median (0.2 degrees, 0.24 mm)", minimum=0, maximum=20
    )
    tumor_volume: float = parameter(
        0.0, "Tumor volume; 0: random, from the real distribution", unit="mm3", minimum=0, maximum=15000
    )
    healthy: bool = parameter(False, "No tumor, cochleae only")
