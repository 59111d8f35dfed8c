"""The helpers of the correction: what they change, and what they leave alone."""

import numpy as np
import pytest
from scipy import ndimage

from crossmoda import labels, review
from crossmoda.errors import InputError
from crossmoda.review import operations
from crossmoda.volume import Grid, Volume
from phantoms import ball

#: 0.5 x 0.5 x 2 mm: strongly anisotropic voxels of 0.5 mm3.
GRID = Grid((80, 60, 20), (0.5, 0.5, 2.0), (-20.0, -15.0, -20.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
SHAPE = GRID.shape


@pytest.fixture
def drawn() -> np.ndarray:
    """A tumor and a cochlea that touches it."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[ball(GRID, (20, 15, 16), 8)] = labels.VS
    label_map[ball(GRID, (20, 15, 26), 3)] = labels.COCHLEA
    return label_map


def unchanged_elsewhere(before, after, region) -> bool:
    return bool((before == after)[~region].all())


def every_operation(region=None):
    """Return each helper with its arguments but the label map."""
    other = np.zeros(SHAPE, np.uint8)
    return {
        "take": lambda drawn: operations.take(drawn, other, np.zeros(SHAPE, bool) if region is None else region),
        "fill_holes": lambda drawn: operations.fill_holes(drawn, labels.VS, region),
        "remove_islands": lambda drawn: operations.remove_islands(drawn, labels.VS, 50.0, GRID, region),
        "smooth": lambda drawn: operations.smooth(drawn, labels.VS, 2.0, GRID, region),
    }


@pytest.mark.parametrize("name", every_operation())
def test_a_helper_returns_a_new_label_map_and_leaves_the_given_one(drawn, name):
    before = drawn.copy()
    after = every_operation()[name](drawn)
    assert after is not drawn and not np.shares_memory(after, drawn)
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(drawn, before)


@pytest.mark.parametrize("name", [name for name in every_operation() if name != "take"])
def test_no_helper_changes_another_structure(drawn, name):
    drawn[10, 30, 32] = labels.BACKGROUND  # a hole
    drawn[2, 5, 5] = labels.VS  # an island
    after = every_operation()[name](drawn)
    np.testing.assert_array_equal(after == labels.COCHLEA, drawn == labels.COCHLEA)


@pytest.mark.parametrize("name", every_operation())
def test_every_helper_keeps_to_its_region(drawn, name):
    drawn[10, 29, 32] = drawn[10, 31, 32] = labels.BACKGROUND
    drawn[2, 5, 5] = drawn[2, 50, 70] = labels.VS
    region = np.zeros(SHAPE, bool)
    region[:, :30, :] = True
    after = every_operation(region)[name](drawn)
    assert unchanged_elsewhere(drawn, after, region)
    assert not np.array_equal(after, drawn)


def test_take_brings_the_labels_of_the_source_into_the_region_only(drawn):
    source = np.zeros(SHAPE, np.uint8)
    source[ball(GRID, (20, 15, 20), 8)] = labels.VS
    region = ball(GRID, (20, 15, 27), 5)
    after = operations.take(drawn, source, region)
    np.testing.assert_array_equal(after[region], source[region])
    assert unchanged_elsewhere(drawn, after, region)


def test_take_understands_the_regions_of_the_review(drawn):
    doubt = np.where(ball(GRID, (20, 15, 8), 2), 0.8, 0.0).astype(np.float32)
    (region,) = review.find_regions(Volume(doubt, GRID), Volume(drawn, GRID))
    after = operations.take(drawn, np.zeros(SHAPE, np.uint8), region)
    changed = after != drawn
    assert changed.any() and not changed[~region.mask(SHAPE)].any()


def test_a_source_or_region_of_another_shape_is_refused(drawn):
    with pytest.raises(InputError, match="Different shapes"):
        operations.take(drawn, drawn[1:], np.ones(SHAPE, bool))
    with pytest.raises(InputError, match="Different shapes"):
        operations.fill_holes(drawn, labels.VS, np.ones((2, 2, 2), bool))


def test_fill_holes_fills_what_is_enclosed_and_not_what_is_open(drawn):
    drawn[10, 29:32, 31:34] = labels.BACKGROUND  # enclosed
    drawn[10, 30, :32] = labels.BACKGROUND  # a canal to the outside from the other side
    closed = drawn.copy()
    closed[10, 30, 20] = labels.VS  # now it ends before the outline
    assert np.array_equal(operations.fill_holes(drawn, labels.VS), drawn)
    filled = operations.fill_holes(closed, labels.VS)
    assert (filled[10, 29:32, 31:34] == labels.VS).all()
    assert filled[10, 30, 2] == labels.BACKGROUND


def test_a_hole_that_holds_the_other_structure_is_not_painted_over(drawn):
    drawn[10, 30, 32] = labels.COCHLEA
    drawn[10, 30, 33] = labels.BACKGROUND
    filled = operations.fill_holes(drawn, labels.VS)
    assert filled[10, 30, 32] == labels.COCHLEA and filled[10, 30, 33] == labels.VS


def test_islands_are_removed_by_their_volume_in_mm3():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[ball(GRID, (20, 15, 16), 8)] = labels.VS
    label_map[2, 4, 4:13] = labels.VS  # 9 voxels of 0.5 mm3: 4.5 mm3
    label_map[2, 10, 4:15] = labels.VS  # 11 voxels: 5.5 mm3
    after = operations.remove_islands(label_map, labels.VS, 5.0, GRID)
    assert not after[2, 4].any()
    np.testing.assert_array_equal(after[2, 10], label_map[2, 10])


def test_the_largest_piece_stays_however_small():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[5, 5, 5:8] = labels.COCHLEA
    label_map[9, 9, 9] = labels.COCHLEA
    after = operations.remove_islands(label_map, labels.COCHLEA, 1000.0, GRID)
    assert after.sum() == 3 * labels.COCHLEA and (after[5, 5, 5:8] == labels.COCHLEA).all()


def test_an_island_that_reaches_out_of_the_region_stays():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[ball(GRID, (20, 15, 16), 8)] = labels.VS
    label_map[2, 4, 4:8] = labels.VS
    region = np.zeros(SHAPE, bool)
    region[2, 4, 4:7] = True
    np.testing.assert_array_equal(operations.remove_islands(label_map, labels.VS, 50, GRID, region), label_map)


def roughness(mask: np.ndarray) -> int:
    """Return how many voxel faces of a mask are at its outline, those of a plane counted in voxels."""
    return int(sum(np.count_nonzero(np.diff(np.pad(mask, 1).astype(np.int8), axis=axis)) for axis in range(3)))


def test_smoothing_keeps_the_volume_and_evens_the_outline():
    rng = np.random.default_rng(0)
    label_map = np.zeros(SHAPE, np.uint8)
    shell = ball(GRID, (20, 15, 20), 9) & ~ball(GRID, (20, 15, 20), 7)
    label_map[ball(GRID, (20, 15, 20), 7) | (shell & (rng.random(SHAPE) < 0.5))] = labels.VS
    after = operations.smooth(label_map, labels.VS, 2.0, GRID)
    assert np.count_nonzero(after) == np.count_nonzero(label_map)
    assert roughness(after == labels.VS) < 0.5 * roughness(label_map == labels.VS)


def test_the_radius_of_smoothing_is_in_mm_along_every_axis():
    label_map = np.zeros((40, 80, 80), np.uint8)
    fine, coarse = (
        Grid((80, 80, 40), (0.5, 0.5, depth), (0.0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)) for depth in (0.5, 50)
    )
    label_map[10:30, 20:60, 20:60] = labels.VS
    label_map[20, 36:44, 60:64] = labels.VS  # a plate one slice thick: thin in mm, or 50 mm thick
    thin = operations.smooth(label_map, labels.VS, 1.5, fine)
    thick = operations.smooth(label_map, labels.VS, 1.5, coarse)
    assert thin[20, 36:44, 61:64].sum() < 0.5 * thick[20, 36:44, 61:64].sum()


def test_smoothing_stops_at_the_other_structure(drawn):
    after = operations.smooth(drawn, labels.VS, 4.0, GRID)
    np.testing.assert_array_equal(after == labels.COCHLEA, drawn == labels.COCHLEA)
    assert np.count_nonzero(after == labels.VS) == np.count_nonzero(drawn == labels.VS)


def test_a_radius_that_is_not_positive_is_refused(drawn):
    with pytest.raises(InputError, match="positive"):
        operations.smooth(drawn, labels.VS, 0.0, GRID)


def test_smoothing_what_is_absent_changes_nothing():
    empty = np.zeros(SHAPE, np.uint8)
    np.testing.assert_array_equal(operations.smooth(empty, labels.VS, 2.0, GRID), empty)


# Mirror check

HEAD = Grid((120, 60, 24), (1.0, 1.0, 1.5), (-60.0, -30.0, -18.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def head(shift_mm: tuple[float, float, float] = (3.0, -2.0, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map of two ears that mirror each other up to a shift (z, y, x) and noise."""
    rng = np.random.default_rng(1)
    image = rng.normal(100, 4, HEAD.shape)
    label_map = np.zeros(HEAD.shape, np.uint8)
    right, left = np.array([18.0, 30.0, 30.0]), np.array([18.0, 30.0, 89.0]) + shift_mm
    for side, center in ((1, right), (-1, left)):
        for offset, radius, value in (
            ((0, 0, 0), 2.8, 250),
            ((0, 5, -4 * side), 2.2, 220),
            ((2, -3, 4 * side), 1.8, 30),
        ):
            blob = ball(HEAD, tuple(center + offset), radius)
            image[blob] = value
        label_map[ball(HEAD, tuple(center), 2.8)] = labels.COCHLEA
    return ndimage.gaussian_filter(image, 0.6).astype(np.float32), label_map


def on_the_left(label_map: np.ndarray) -> np.ndarray:
    mask = label_map == labels.COCHLEA
    mask[:, :, :60] = False
    return mask


def test_cochleae_that_mirror_each_other_are_left_alone():
    image, label_map = head()
    assert operations.mirror_check(label_map, image, HEAD) == operations.MirrorCheck((), None)


def test_a_missing_cochlea_is_suggested_where_the_image_shows_it():
    image, truth = head()
    label_map = truth.copy()
    label_map[on_the_left(truth)] = labels.BACKGROUND
    found = operations.mirror_check(label_map, image, HEAD)
    assert found.messages[0] == "The left cochlea is missing."
    suggested, expected = on_the_left(found.suggestion), on_the_left(truth)
    assert 2 * (suggested & expected).sum() / (suggested.sum() + expected.sum()) > 0.8


def test_the_other_cochlea_is_found_in_a_head_that_is_turned():
    image, truth = head(shift_mm=(0, 0, 0))
    image = ndimage.rotate(image, 8, axes=(1, 2), reshape=False, order=1, mode="nearest")
    truth = ndimage.rotate(truth, 8, axes=(1, 2), reshape=False, order=0)
    label_map = truth.copy()
    label_map[on_the_left(truth)] = labels.BACKGROUND
    found = operations.mirror_check(label_map, image, HEAD)
    suggested, expected = on_the_left(found.suggestion), on_the_left(truth)
    assert 2 * (suggested & expected).sum() / (suggested.sum() + expected.sum()) > 0.7


def test_a_misplaced_cochlea_is_reported_with_its_offset():
    image, truth = head()
    label_map = truth.copy()
    label_map[on_the_left(truth)] = labels.BACKGROUND
    label_map[np.roll(on_the_left(truth), 6, axis=1)] = labels.COCHLEA
    found = operations.mirror_check(label_map, image, HEAD)
    assert any("mm from the mirror image of the left one" in message for message in found.messages)


def test_the_tumor_is_never_painted_over_by_a_suggestion():
    image, truth = head()
    label_map = truth.copy()
    label_map[on_the_left(truth)] = labels.VS
    found = operations.mirror_check(label_map, image, HEAD)
    np.testing.assert_array_equal(found.suggestion == labels.VS, label_map == labels.VS)


def test_without_a_cochlea_there_is_nothing_to_compare_with():
    image, truth = head()
    found = operations.mirror_check(np.zeros_like(truth), image, HEAD)
    assert found.suggestion is None and "no cochlea" in found.messages[0]


def test_a_side_that_looks_different_gets_no_suggestion():
    image, truth = head()
    image[:, :, 60:] = np.random.default_rng(3).normal(100, 20, image[:, :, 60:].shape)
    label_map = truth.copy()
    label_map[on_the_left(truth)] = labels.BACKGROUND
    found = operations.mirror_check(label_map, image, HEAD)
    assert found.suggestion is None
    assert any("no match of the right cochlea on the left side" in message for message in found.messages)


def test_the_ball_about_a_place_is_the_one_of_its_definition_even_at_a_corner():
    for center in ((20.0, 15.0, 20.0), (0.5, 0.2, 0.1)):
        z, y, x = center
        place = (GRID.origin[0] + x, GRID.origin[1] + y, GRID.origin[2] + z)
        np.testing.assert_array_equal(operations.ball(GRID, place, 4.0), ball(GRID, center, 4.0))


def test_the_ball_about_a_place_outside_the_image_is_empty():
    assert not operations.ball(GRID, (60.0, 0.0, 0.0), 100.0).any()
