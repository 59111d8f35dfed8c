"""The segmentation network: its layout and (imported with torch only) its layers."""

from crossmoda.network.architecture import DEFAULT, INPUTS, PAPER, Architecture, architecture, build
from crossmoda.network.settings import Settings

__all__ = ["DEFAULT", "INPUTS", "PAPER", "Architecture", "Settings", "architecture", "build"]
