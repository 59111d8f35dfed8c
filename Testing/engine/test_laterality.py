"""Sides: the midplane, the side of a tumor, mirror images."""

from pathlib import Path

import numpy as np
import pytest

from crossmoda import volume
from crossmoda.anatomy import laterality
from crossmoda.volume import Grid, Volume

UPRIGHT = Grid((80, 40, 10), (1.0, 1.0, 2.0), (-40.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
#: the same places, x stored backwards and y and z exchanged
TURNED = Grid((80, 10, 40), (1.0, 2.0, 1.0), (39.0, 0.0, 0.0), (-1, 0, 0, 0, 0, 1, 0, 1, 0))


def label_map(tumor_x: float | None, cochlea_x: tuple[float, ...], grid: Grid = UPRIGHT) -> Volume:
    """Structures of 6 mm at LPS x."""
    x = np.broadcast_to(laterality.lateral_mm(grid), grid.shape)
    array = np.zeros(grid.shape, np.uint8)
    for value, positions in ((1, [] if tumor_x is None else [tumor_x]), (2, cochlea_x)):
        for position in positions:
            array[np.abs(x - position) <= 3] = value
    return Volume(array, grid)


@pytest.mark.parametrize("grid", [UPRIGHT, TURNED], ids=["upright", "turned"])
class TestSides:
    def test_larger_lps_x_is_the_patients_left_whatever_the_axes(self, grid):
        assert laterality.find_sides(label_map(15, (-25, 25), grid)).tumor == "left"
        assert laterality.find_sides(label_map(-15, (-25, 25), grid)).tumor == "right"

    def test_mirroring_exchanges_the_sides(self, grid):
        mirrored = laterality.mirrored(label_map(15, (25,), grid))
        sides = laterality.find_sides(mirrored)
        assert sides.tumor == "right" and sides.of[2] == {"right"}
        assert mirrored.grid == grid

    def test_mirroring_twice_changes_nothing(self, grid):
        original = label_map(10, (-25, 25), grid)
        np.testing.assert_array_equal(laterality.mirrored(laterality.mirrored(original)).array, original.array)


def test_the_midplane_lies_between_the_cochleae_not_in_the_middle_of_the_grid():
    sides = laterality.find_sides(label_map(2, (-30, 16)))
    assert sides.midplane_mm == pytest.approx(-7, abs=0.6)
    assert sides.tumor == "left"


def test_with_one_cochlea_the_tumor_lies_on_its_medial_side():
    # A scan that is off center: all of it is left of its middle in x, yet the tumor is medial of a right cochlea.
    sides = laterality.find_sides(label_map(20, (10,)))
    assert sides.tumor == "right" and sides.of[2] == {"right"}


def test_a_tumor_near_the_midplane_has_a_side_only_beside_a_cochlea():
    assert laterality.tumor_side(label_map(6, ())) is None
    assert laterality.tumor_side(label_map(6, (-25, 25))) == "left"
    assert laterality.tumor_side(label_map(6, (25,))) == "left"


def test_no_tumor_has_no_side():
    assert laterality.find_sides(label_map(None, (-25, 25))).tumor is None


@pytest.mark.shared_data
def test_the_side_of_real_tumors_is_that_of_the_scanner_coordinates(shared_data: Path) -> None:
    """The heads lay near the isocenter, so the sign of x of the tumor is the independent answer."""
    agree = total = 0
    for path in sorted((shared_data / "vs_seg_contours" / "labels").glob("*T2wspace_label.nii.gz"))[:40]:
        label = volume.read_label_map(path)
        if (label.array == 2).any():
            index = np.argwhere(label.array == 1).mean(axis=0)[::-1]
            x = (label.grid.index_to_physical @ [*index, 1.0])[0]
            agree += laterality.tumor_side(label) == ("left" if x > 0 else "right")
            total += 1
    assert total > 20
    assert agree / total > 0.95
