"""The cochlea of the healthy side, where the atlases have it on the tumor's side only.

Annotators often draw the cochlea beside the tumor and leave the other out (VS-SEG does). Once all atlases have their
tumor on the target's side, no one speaks about the other cochlea. Mirrored copies of some do: they say nothing about
the tumor, which they have on the wrong side.
"""

import math
from collections.abc import Collection, Sequence

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.propagation.atlases import Atlas, Registered

#: How many copies there are, of the atlases: this bounds the registrations they cost.
SHARE = 1 / 3


def side_without_cochlea(atlases: Sequence[tuple[Atlas, bool]]) -> str | None:
    """Return the side on which no atlas has a cochlea although some have the other; None where there is no such side.

    Args:
        atlases: each atlas and whether it is mirrored.

    """
    drawn = {
        laterality.other(side) if mirrored else side
        for atlas, mirrored in atlases
        for side in atlas.sides.of.get(labels.COCHLEA, frozenset())
    }
    return laterality.other(next(iter(drawn))) if len(drawn) == 1 else None


def most_copies(atlases: int) -> int:
    """Return how many mirrored copies there are at most of so many atlases."""
    return math.ceil(SHARE * atlases)


def to_be_copied(registered: Sequence[Registered], known: Collection[tuple[str, bool]] = ()) -> list[Registered]:
    """Return the atlases whose mirrored copies shall speak about the other cochlea, at most a third of them.

    Args:
        registered: the atlases as they are fused.
        known: atlases (id, mirrored) that are registered already: they cost nothing. Then the best registrations come.

    """
    able = [item for item in registered if item.atlas.sides.of.get(labels.COCHLEA) and item.side is not None]
    ranked = sorted(
        able, key=lambda item: ((item.atlas.id, not item.mirrored) not in known, -item.quality, item.atlas.id)
    )
    return ranked[: most_copies(len(registered))]
