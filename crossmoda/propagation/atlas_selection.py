"""Atlas selection: which atlases are worth a registration, by a comparison of the ears before any.

In their canonical frames the ears of two scans lie on each other up to a millimeter or two. That suffices to score the
atlases like registered ones (:mod:`crossmoda.propagation.atlas_ranking`), in milliseconds each.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from crossmoda import cache, mind
from crossmoda.errors import InputError
from crossmoda.progress import Progress
from crossmoda.propagation.atlas_ranking import structure_scores
from crossmoda.propagation.canonical_ears import GRID, ON_LEFT, AtlasEars, TargetEars, target_ears
from crossmoda.propagation.frames import located
from crossmoda.propagation.registrations import (
    PlannedRegistration,
    RegisteredAtlas,
    Registrations,
    default_parallel_registrations,
    run_in_parallel,
)
from crossmoda.propagation.settings import Settings
from crossmoda.propagation.similarity import OUTSIDE
from crossmoda.propagation.storage import storing

#: The folder of the ranking, in the folder of a target.
RANKING = "ranking"
#: Bump to invalidate cached rankings.
_REVISION = 1


def kept_ranking(
    registrations: Registrations,
    planned: Sequence[PlannedRegistration],
    side: str | None,
    progress: Progress | None = None,
) -> list[str]:
    """Return the :func:`ranking` of the atlases by ID, without unreadable ones; it is kept in the target's folder.

    Args:
        registrations: those to the target, whose ears are located.
        planned: one registration of each atlas.
        side: the tumor side; None: unknown.
        progress: callback(fraction, message); raise Cancelled to abort.

    """
    target = registrations.target
    step = cache.CachedStep(
        registrations.folder / RANKING,
        revision=_REVISION,
        target=target.key,
        atlases=[[item.atlas.id, item.mirrored, *item.atlas.key()] for item in planned],
        side=side,
    )
    results = step.results()
    if results is not None:
        return list(results["ranking"])
    if target.frames is None:
        raise InputError("The atlases cannot be ranked: the target has no ear frames.")
    ears: dict[str, AtlasEars] = {}

    def locate(item: PlannedRegistration, _: Progress | None) -> None:
        try:
            ears[item.atlas.id] = located(item.atlas).ears
        except InputError:  # its registration states the reason
            return

    run_in_parallel(locate, planned, default_parallel_registrations(registrations.registration), progress)
    known = [item for item in planned if item.atlas.id in ears]
    names = ranking(known, ears, target_ears(target.image, target.frames), side)
    with storing("the ranking of the atlases"):
        step.begin()
        step.finish([], {"ranking": names})
    return names


def ranking(
    planned: Sequence[PlannedRegistration], ears: Mapping[str, AtlasEars], target: TargetEars, side: str | None
) -> list[str]:
    """Return the IDs of the atlases, the best-matching one first.

    Args:
        planned: one registration of each atlas.
        ears: atlas ID -> its ears.
        target: the ears of the target.
        side: the tumor side; None: unknown.

    """
    aligned = [_aligned(item, ears[item.atlas.id], target) for item in planned]
    names = {item.name: item.atlas.id for item in aligned}
    return [names[name] for name in structure_scores(aligned, target.image, side, ON_LEFT).ranking()]


def left_out(ranking: Sequence[str], sides: Mapping[str, str | None], settings: Settings) -> dict[str, str]:
    """Return the atlases that are not registered: ID -> reason.

    Args:
        ranking: the IDs, the best-matching atlas first.
        sides: ID -> tumor side of the atlas; None: none.
        settings: the maximum numbers of atlases.

    """
    most = {"left": settings.left_atlases, "right": settings.right_atlases}
    chosen: list[str | None] = []  # their tumor sides
    reasons = {}
    for name in ranking:
        side = sides[name]
        if chosen.count(side) >= most.get(side or "", len(ranking)):
            reasons[name] = f"{most[side or '']} atlases with the tumor on the {side} match the target better."
        elif len(chosen) >= settings.most_atlases:
            reasons[name] = f"the ears of {settings.most_atlases} atlases match the target better."
        else:
            chosen.append(side)
    return reasons


def _aligned(planned: PlannedRegistration, ears: AtlasEars, target: TargetEars) -> RegisteredAtlas:
    """Return an atlas on the target as the ear frames align both, on the grid of the ears."""
    places = ears.places(planned.mirrored)
    inside = target.inside[places]
    places = tuple(indices[inside] for indices in places)
    label_map, dissimilarity = np.zeros(GRID.shape, np.uint8), np.full(GRID.shape, OUTSIDE, np.uint8)
    label_map[places] = ears.label[inside]
    dissimilarity[places] = mind.hamming(target.codes[places], ears.codes[inside])
    unknown = np.broadcast_to(np.uint16(0), GRID.shape)
    return RegisteredAtlas(planned.atlas, planned.mirrored, label_map, dissimilarity, unknown, 0.0, 0.0, reused=False)
