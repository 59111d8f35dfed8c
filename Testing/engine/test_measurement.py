"""Volume, diameter and distance of shapes whose measures are known from geometry."""

import math

import numpy as np
import pytest

from crossmoda.measurement import measure
from crossmoda.volume.grid import Grid, Volume

GRID = Grid((40, 30, 20), (0.5, 0.5, 1.5), (3.0, -7.0, 11.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def label_map(**boxes) -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    for name, box in boxes.items():
        array[box] = {"vs": 1, "cochlea": 2}[name]
    return Volume(array, GRID)


def test_a_box_has_its_volume_and_its_length():
    vs, _ = measure(label_map(vs=np.s_[5:6, 10:11, 4:24]))
    assert vs.volume_mm3 == pytest.approx(20 * 0.5 * 0.5 * 1.5)
    assert vs.largest_diameter_mm == pytest.approx(20 * 0.5)


def test_a_ball_has_its_diameter_to_within_a_slice():
    z, y, x = np.indices(GRID.shape)
    radius = 6.0
    inside = (0.5 * (x - 20)) ** 2 + (0.5 * (y - 15)) ** 2 + (1.5 * (z - 10)) ** 2 <= radius**2
    vs, _ = measure(Volume(inside.astype(np.uint8), GRID))
    assert vs.volume_mm3 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.03)
    assert vs.largest_diameter_mm == pytest.approx(2 * radius, abs=1.5)


def test_an_empty_label_map_has_no_volume_and_no_lengths():
    for item in measure(label_map()):
        assert (item.volume_mm3, item.largest_diameter_mm, item.distance_to_cochlea_mm) == (0.0, None, None)


def test_the_distance_is_the_gap_in_mm():
    vs, cochlea = measure(label_map(vs=np.s_[5, 10, 4:10], cochlea=np.s_[5, 10, 16:18]))
    assert vs.distance_to_cochlea_mm == pytest.approx(6 * 0.5)
    assert cochlea.distance_to_cochlea_mm is None


def test_the_diameter_of_two_cochleae_is_that_of_the_larger_one():
    _, cochlea = measure(label_map(cochlea=np.s_[5, 10, [2, 3, 4, 5, 6, 7, 30, 31]]))
    assert cochlea.largest_diameter_mm == pytest.approx(6 * 0.5)


def test_touching_structures_are_0_mm_apart():
    vs, _ = measure(label_map(vs=np.s_[5:8, 10, 4:10], cochlea=np.s_[8:9, 10, 4:6]))
    assert vs.distance_to_cochlea_mm == pytest.approx(0.0)


def test_a_missing_structure_has_no_volume_and_no_lengths():
    vs, cochlea = measure(label_map(cochlea=np.s_[5:7, 5:7, 5:7]))
    assert vs.volume_mm3 == 0
    assert vs.largest_diameter_mm is None
    assert vs.distance_to_cochlea_mm is None
    assert cochlea.volume_mm3 == pytest.approx(8 * 0.375)
