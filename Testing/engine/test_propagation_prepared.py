"""Prepared atlases that are kept between targets."""

import numpy as np

from crossmoda.propagation.atlases import PreparedAtlases
from crossmoda.volume import Grid, Volume

GRID = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
BYTES = 4 * 4**3


class Make:
    def __init__(self):
        self.made = 0

    def __call__(self) -> Volume:
        self.made += 1
        return Volume(np.zeros(GRID.shape, np.float32), GRID)


def test_the_same_is_made_once_and_something_else_anew():
    make, prepared = Make(), PreparedAtlases()
    first = prepared.get(("atlas", False), make)
    assert prepared.get(("atlas", False), make) is first and make.made == 1
    assert prepared.get(("atlas", True), make) is not first and make.made == 2


def test_when_there_is_no_more_room_the_first_stay():
    make, prepared = Make(), PreparedAtlases(2 * BYTES)
    for _ in range(3):
        for name in ("one", "two", "three"):
            prepared.get(name, make)
    assert make.made == 2 + 3  # the third each time
