"""The search for the skull base over every pitch: which starts are refined."""

import numpy as np
import pytest

from crossmoda.anatomy import skull_base, template
from crossmoda.anatomy.skull_base import CERTAIN_SIMILARITY, SkullBase, locate_thoroughly
from crossmoda.anatomy.template_search import Start
from crossmoda.volume import Grid, Volume

GRID = Grid((10, 10, 10), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.mark.parametrize(
    ("at_start", "refined", "pitches"),
    [
        ((0.3, 0.5, 0.4), (0.2, CERTAIN_SIMILARITY, 0.6), [20.0]),  # the second start is certain at once
        ((0.3, 0.5, 0.4), (0.4, 0.2, 0.3), [20.0, 40.0, 0.0]),
        ((0.1, 0.05, 0.3), (0.4, 0.2, 0.3), [40.0]),  # others resemble the template too little
        ((0.1, 0.05, 0.0), (0.4, 0.2, 0.3), [0.0]),  # one is always refined
    ],
)
def test_starts_are_refined_best_first_until_one_is_certain(monkeypatch, at_start, refined, pitches):
    starts = [Start(np.diag([1.0, 1, 1, 1 + n]), 0.9, 20.0 * n, np.full(3, 50.0 * n)) for n in range(3)]
    tried = []

    def refine(_scan, _template, matrix):
        number = int(matrix[3, 3]) - 1
        tried.append(starts[number].pitch_deg)
        return SkullBase(matrix, refined[number], "T2")

    monkeypatch.setattr(skull_base, "candidates", lambda _scan, slab, _pitches: starts if slab == "T2" else [])
    monkeypatch.setattr(skull_base, "_similarities", lambda _s, _t, matrix: {"T2": at_start[int(matrix[3, 3]) - 1]})
    monkeypatch.setattr(skull_base, "_refined", refine)
    scan = Volume(np.zeros(GRID.shape, np.float32), GRID)
    ears = template.Template({"T2": "T2", "T1": "T1"}, {}, {})
    found = locate_thoroughly(scan, ears)
    assert tried == pitches
    assert found.similarity == max(refined[int(pitch / 20)] for pitch in pitches)
