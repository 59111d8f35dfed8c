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


def test_starts_that_cannot_reach_the_labeled_cochleae_are_not_refined(monkeypatch):
    ears = template.load()
    cochleae = ears.modiolus * np.array([[1, 1, 1], [-1, 1, 1]])
    shifts = {70.0: 0.0, 30.0: 20.0, -70.0: 40.0}
    starts = []
    for shift, pitch in shifts.items():
        matrix = np.eye(4)
        matrix[0, 3] = shift  # by 70 mm to the side, one cochlea lies where the contralateral one was
        starts.append(Start(matrix, 0.9 - pitch / 100, pitch, matrix[:3, 3]))
    tried = []

    def refine(_scan, _template, matrix):
        tried.append(shifts[matrix[0, 3]])
        return SkullBase(matrix, 0.4, "T2")

    monkeypatch.setattr(skull_base, "candidates", lambda *_: starts)
    monkeypatch.setattr(skull_base, "_similarities", lambda *_: {"T2": 0.3})
    monkeypatch.setattr(skull_base, "_refined", refine)
    monkeypatch.setattr(skull_base, "_REACH_MM", 32.0)
    scan = Volume(np.zeros(GRID.shape, np.float32), GRID)
    skull_base.locate(scan, ears, cochleae)
    locate_thoroughly(scan, ears, None, cochleae)
    assert tried == [20.0, 20.0]
    far = cochleae + np.array([0, 500.0, 0])
    assert skull_base.locate(scan, ears, far).similarity == locate_thoroughly(scan, ears, None, far).similarity == 0
    assert len(tried) == 2
    skull_base.locate(scan, ears, np.empty((0, 3)))  # without a label every start may be right
    assert tried[2:] == [0.0]
