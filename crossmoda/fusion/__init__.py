"""Fusion of label maps: STAPLE, majority vote, and locally weighted votes."""

from crossmoda.fusion.majority import majority_vote
from crossmoda.fusion.raters import absent_structures
from crossmoda.fusion.settings import Settings
from crossmoda.fusion.staple import Fusion, Performance, rate, staple

__all__ = ["Fusion", "Performance", "Settings", "absent_structures", "majority_vote", "rate", "staple"]
