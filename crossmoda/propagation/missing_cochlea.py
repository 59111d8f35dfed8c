"""The cochlea of the healthy side, where atlases are labeled on the tumor side only (as in VS-SEG).

Once all atlases have their tumor on the target's side, none contributes the contralateral cochlea. Mirrored copies of
some atlases do; they contribute nothing to the tumor, which they have on the wrong side.
"""

import math
from collections.abc import Sequence

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.registrations import RegisteredAtlas

#: Maximum fraction of the atlases that are copied: it bounds the cost in registrations.
FRACTION = 1 / 3


def cochlea_sides(atlas: Atlas, mirrored: bool = False) -> frozenset[str]:
    """Return the sides on which an atlas, mirrored or not, has its cochlea labeled."""
    sides = atlas.sides.of.get(labels.COCHLEA, frozenset())
    return frozenset(map(laterality.contralateral, sides)) if mirrored else sides


def has_cochlea(atlas: Atlas) -> bool:
    """Whether an atlas has a cochlea labeled on the left or on the right."""
    return bool(cochlea_sides(atlas))


def side_without_cochlea(atlases: Sequence[tuple[Atlas, bool]]) -> str | None:
    """Return the side on which no atlas has a cochlea although some have the contralateral one; else None.

    Args:
        atlases: each atlas and whether it is mirrored.

    """
    labeled = frozenset[str]().union(*(cochlea_sides(*atlas) for atlas in atlases))
    return laterality.contralateral(next(iter(labeled))) if len(labeled) == 1 else None


def may_be_missing(groups: Sequence[tuple[list[Atlas], int]], side: str) -> bool:
    """Whether the atlases selected for a tumor on ``side`` may all lack the same side's cochlea.

    Args:
        groups: the atlases with the same tumor side, and how many of them are selected at most.
        side: the target's tumor side.

    """
    labeled: set[str] = set()
    for atlases, count in groups:
        for cochlea in laterality.SIDES:
            having = sum(
                cochlea in cochlea_sides(atlas, mirrored=atlas.side == laterality.contralateral(side))
                for atlas in atlases
            )
            if having > max(0, len(atlases) - count):  # more than can be left out
                labeled.add(cochlea)
    return len(labeled) < len(laterality.SIDES) and any(
        map(has_cochlea, (atlas for each, _ in groups for atlas in each))
    )


def most_copies(atlases: int) -> int:
    """Return the maximum number of mirrored copies for a number of atlases."""
    return math.ceil(FRACTION * atlases)


def to_be_copied(registered: Sequence[RegisteredAtlas]) -> list[RegisteredAtlas]:
    """Return the atlases whose mirrored copies contribute the missing cochlea: at most a third, best registered first.

    Args:
        registered: the atlases to be fused.

    """
    lateral = [item for item in registered if has_cochlea(item.atlas) and item.side is not None]
    ranked = sorted(lateral, key=lambda item: (-item.quality, item.atlas.id))
    return ranked[: most_copies(len(registered))]
