"""Verbs of grids and masks: positions, crops, boxes, components."""

import numpy as np
import pytest

from crossmoda.volume import Grid, Volume
from crossmoda.volume.masks import bounding_box, components, grown, largest_component, solid, widened

#: An oblique grid: x and y are turned by 30 degrees about z.
COSINE, SINE = np.cos(np.pi / 6), np.sin(np.pi / 6)
GRID = Grid((9, 7, 5), (0.5, 1.0, 2.0), (-3.0, 4.0, 10.0), (COSINE, -SINE, 0, SINE, COSINE, 0, 0, 0, 1))
MASK = np.zeros(GRID.shape, bool)
MASK[1:3, 2:4, 5:8] = True


def test_positions_agree_with_itk() -> None:
    image = Volume(np.zeros(GRID.shape, np.uint8), GRID).to_sitk()
    for index in ((0, 0, 0), (8, 6, 4), (3, 2, 1)):
        point = image.TransformIndexToPhysicalPoint(index)
        assert GRID.to_lps(index) == pytest.approx(point)
        assert GRID.to_index(point) == pytest.approx(index)
    assert GRID.center == pytest.approx(image.TransformContinuousIndexToPhysicalPoint((4.0, 3.0, 2.0)))


def test_the_points_of_a_mask_are_its_voxel_centers() -> None:
    points = GRID.points(MASK)
    assert points.shape == (MASK.sum(), 3)
    assert points.mean(axis=0) == pytest.approx(GRID.to_lps((6.0, 2.5, 1.5)))


def test_a_crop_keeps_the_position_of_every_voxel() -> None:
    volume = Volume(np.arange(MASK.size, dtype=np.int32).reshape(MASK.shape), GRID)
    box = (slice(1, 4), slice(-2, 3), slice(5, 12))
    part = volume.crop(box, outside=-1)
    assert part.array.shape == part.grid.shape == (3, 5, 7)
    assert part.grid.to_lps((0, 2, 0)) == pytest.approx(GRID.to_lps((5, 0, 1)))
    assert np.array_equal(part.array[:, 2:, :4], volume.array[1:4, :3, 5:9])
    assert (part.array[:, :2] == -1).all() and (part.array[:, :, 4:] == -1).all()


def test_a_crop_beyond_the_volume_is_empty() -> None:
    assert not Volume(np.ones(GRID.shape), GRID).crop((slice(0, 2), slice(0, 2), slice(20, 22))).array.any()


def test_a_crop_is_pasted_back_where_it_was() -> None:
    volume = Volume(MASK.astype(np.uint8), GRID)
    part = volume.crop(bounding_box(MASK))
    assert np.array_equal(part.pasted_on(GRID).array, volume.array)
    shifted = Volume(part.array, Grid(part.grid.size, GRID.spacing, (0.3, 0.0, 0.0), GRID.direction))
    assert shifted.pasted_on(GRID) is shifted


def test_refined_and_coarsened_grids_cover_the_same_space() -> None:
    fine = GRID.refined((2, 1, 4))
    assert fine.size == (18, 7, 20) and fine.center == pytest.approx(GRID.center)
    assert fine.coarsened((2, 1, 4)).same_as(GRID)
    assert GRID.coarsened((4, 4, 4)).size == (3, 2, 2)  # the last blocks are incomplete


def test_a_bounding_box_is_the_smallest_and_its_margin_stays_inside() -> None:
    assert bounding_box(MASK) == (slice(1, 3), slice(2, 4), slice(5, 8))
    assert bounding_box(MASK, 2) == (slice(0, 5), slice(0, 6), slice(3, 9))
    assert bounding_box(MASK, GRID.voxels(1.0)) == (slice(0, 4), slice(1, 5), slice(3, 9))
    assert widened((slice(0, 1),), 3, (2,)) == (slice(0, 2),)
    assert MASK[bounding_box(np.zeros_like(MASK))].size == 0


def test_voxels_that_share_a_corner_are_one_component() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    numbers, count = components(mask)
    assert count == 2 and numbers[0, 0, 0] == numbers[1, 1, 1] != numbers[3, 3, 3]
    assert largest_component(mask).sum() == 2
    assert not largest_component(np.zeros_like(mask)).any()


def test_a_grown_mask_holds_every_voxel_within_the_distance() -> None:
    expected = [
        any(np.linalg.norm(point - GRID.points(MASK), axis=1) <= 1.0 + 1e-9)
        for point in GRID.points(np.ones_like(MASK))
    ]
    assert np.array_equal(grown(MASK, 1.0, GRID).ravel(), expected)
    assert not grown(np.zeros_like(MASK), 1.0, GRID).any()


def test_a_solid_mask_has_no_holes() -> None:
    hollow = np.ones((5, 5, 5), bool)
    hollow[2, 2, 2] = False
    assert solid(hollow).all()
    assert not solid(np.zeros((3, 3, 3), bool)).any()
