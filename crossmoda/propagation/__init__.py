"""From many labeled atlases to the noisy label of one target: select, register, warp, rank, fuse.

Three causes of wrong votes, and their remedies:

- Half of the atlases have their tumor on the contralateral side: the target's tumor side is found first and those
  atlases are mirrored, so that all contribute to the same tumor and none to the healthy side.
- Registration cannot make a small tumor large, and its quality varies from place to place: only the atlases that match
  the target best at a structure contribute to it.
- A failed registration spoils the vote: the images themselves, around the cochleae, show its quality.
"""

from crossmoda.propagation.noisy_label import AtlasOutcome
from crossmoda.propagation.propagate import PropagationResult, propagate, propagate_all
from crossmoda.propagation.settings import Settings

__all__ = ["AtlasOutcome", "PropagationResult", "Settings", "propagate", "propagate_all"]
