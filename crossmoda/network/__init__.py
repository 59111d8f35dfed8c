"""The segmentation network: its layout, its size and (imported with torch only) its layers."""

from crossmoda.network.architecture import DEFAULT, INPUTS, PAPER, Architecture, architecture, build
from crossmoda.network.settings import Settings
from crossmoda.network.size import Memory, memory, parameter_count, receptive_field_mm

__all__ = [
    "DEFAULT",
    "INPUTS",
    "PAPER",
    "Architecture",
    "Memory",
    "Settings",
    "architecture",
    "build",
    "memory",
    "parameter_count",
    "receptive_field_mm",
]
