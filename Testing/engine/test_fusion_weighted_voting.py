"""Locally weighted votes, and raters compared with a truth that is known."""

import numpy as np
import pytest

from crossmoda import fusion, labels
from crossmoda.fusion.weighted_voting import BITS, weighted_votes

SHAPE, SPACING = (12, 40, 90), (1.5, 0.5, 0.5)
#: an image without features, compared everywhere
EVERYWHERE = np.ones(SHAPE, np.uint16)
NOTHING_MISSING = np.zeros((1, 1, 1), np.uint8)
#: bit of "says nothing about" the tumor
NO_TUMOR = np.full((1, 1, 1), 1 << labels.VS, np.uint8)


def block(value: int, x: int, wide: int = 16) -> np.ndarray:
    """A label map with one structure of 7.5 x 8 x 8 mm."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[3:8, 10:26, x : x + wide] = value
    return label_map


def bits(number: int | np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(number, np.uint8), SHAPE)


def votes(maps, differences, images=None, missing=None, target=None) -> np.ndarray:
    count = len(maps)
    images, missing = images or [EVERYWHERE] * count, missing or [NOTHING_MISSING] * count
    target = np.zeros(SHAPE, np.float32) if target is None else target
    return weighted_votes(maps, differences, images, missing, target, SPACING).probability


def test_atlases_that_are_equally_alike_have_equal_votes():
    maps = [block(labels.VS, 20), block(labels.VS, 20), block(labels.VS, 26)]
    found = votes(maps, [bits(9)] * 3)
    inside = np.s_[5, 18, 30]
    only_two, only_one = np.s_[5, 18, 23], np.s_[5, 18, 39]
    shares = [found[labels.VS][place] for place in (inside, only_two, only_one)]
    np.testing.assert_allclose(shares, [1, 2 / 3, 1 / 3], atol=0.03)  # edges one voxel away are softened


def test_the_weight_falls_by_e_for_every_differing_bit_more():
    found = votes([block(labels.VS, 20), block(labels.VS, 50)], [bits(7), bits(8)])
    share = 1 / (1 + np.exp(-1 / BITS))
    assert found[labels.VS][5, 18, 28] == pytest.approx(share, abs=1e-4)
    assert found[labels.VS][5, 18, 58] == pytest.approx(1 - share, abs=1e-4)


def test_each_atlas_weighs_most_where_its_image_is_similar():
    """One atlas is right on the left, the other on the right: no weight of a whole atlas can bring out both."""
    right_here, right_there = block(labels.COCHLEA, 10) | block(labels.COCHLEA, 64), block(labels.COCHLEA, 10)
    right_there = np.where(np.arange(90) < 45, np.roll(right_there, 8, axis=2), block(labels.COCHLEA, 56))
    right_here = right_here.astype(np.uint8)
    near = np.where(np.arange(90) < 45, 2, 12)
    found = votes([right_here, right_there.astype(np.uint8)], [bits(near), bits(14 - near)]).argmax(axis=0)
    truth = block(labels.COCHLEA, 10) | block(labels.COCHLEA, 56)
    np.testing.assert_array_equal(found, truth)


def test_an_atlas_that_leaves_a_structure_open_has_no_vote_about_it():
    maps = [block(labels.VS, 20), np.zeros(SHAPE, np.uint8)]
    found = votes(maps, [bits(20), bits(0)], missing=[NOTHING_MISSING, NO_TUMOR])
    assert found[labels.VS][5, 18, 28] == pytest.approx(1)


def test_an_image_that_was_not_compared_counts_like_the_most_similar_one():
    maps = [block(labels.VS, 20), np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)]
    images = [EVERYWHERE, EVERYWHERE, 0 * EVERYWHERE]
    found = votes(maps, [bits(3), bits(5), bits(0)], images)
    assert found[labels.VS][5, 18, 28] == pytest.approx(1 / (2 + np.exp(-2 / BITS)), abs=1e-4)


def test_weights_multiply_the_votes_about_one_label():
    maps = [block(labels.VS, 20) | block(labels.COCHLEA, 60), np.zeros(SHAPE, np.uint8)]
    trust = np.array([[1, 3, 1], [1, 1, 1]])
    nothing = np.zeros(SHAPE, np.float32)
    found = weighted_votes(
        maps, [bits(4)] * 2, [EVERYWHERE] * 2, [NOTHING_MISSING] * 2, nothing, SPACING, weights=trust
    )
    assert found.probability[labels.VS][5, 18, 28] == pytest.approx(3 / 4, abs=1e-4)
    assert found.probability[labels.COCHLEA][5, 18, 68] == pytest.approx(1 / 2, abs=1e-4)


def test_without_any_comparison_all_weigh_the_same():
    maps = [block(labels.VS, 20), block(labels.VS, 20), np.zeros(SHAPE, np.uint8)]
    found = votes(maps, [bits(0)] * 3, [0 * EVERYWHERE] * 3)
    assert found[labels.VS][5, 18, 28] == pytest.approx(2 / 3)


def test_votes_are_probabilities_and_certain_far_from_every_label():
    rng = np.random.default_rng(1)
    maps = [block(labels.VS, 20 + step) | block(labels.COCHLEA, 60 - step) for step in range(4)]
    found = votes(maps, [rng.integers(0, 30, SHAPE).astype(np.uint8) for _ in maps])
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert found.min() >= 0
    assert (found[0][:, :5] == 1).all() and (found[0][11] == 1).all()


def test_nothing_labeled_is_background_for_certain():
    found = votes([np.zeros(SHAPE, np.uint8)] * 2, [bits(1), bits(2)])
    assert (found[0] == 1).all() and not found[1:].any()


class TestRate:
    def test_sensitivity_and_specificity_are_fractions_of_the_known_truth(self):
        truth, wide = block(labels.VS, 20), block(labels.VS, 20, wide=24)
        settings = fusion.Settings(regularization=0, margin=10000, tolerance=1e-9)
        posterior = np.stack([truth == value for value in labels.VALUES]).astype(np.float32)
        found = fusion.rate([truth, wide, block(labels.VS, 28)], posterior, settings)
        assert [each.sensitivity[labels.VS] for each in found.performance] == pytest.approx([1, 1, 0.5], abs=0.01)
        false = (wide & ~truth).sum() / (truth == 0).sum()
        assert found.performance[1].specificity[labels.VS] == pytest.approx(1 - false, abs=1e-4)
        np.testing.assert_array_equal(found.label_map, truth)

    def test_a_single_rater_is_the_result(self):
        truth = block(labels.VS, 20)
        nowhere = np.stack([np.ones(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)])
        found = fusion.rate([truth], nowhere)
        np.testing.assert_array_equal(found.label_map, truth)
        assert any("Only one label map" in note for note in found.notes)

    def test_the_posterior_is_the_given_one_where_raters_disagree(self):
        maps = [block(labels.VS, 20), block(labels.VS, 24)]
        given = votes(maps, [bits(4), bits(5)])
        found = fusion.rate(maps, given)
        place = np.s_[:, 5, 18, 20:24]
        np.testing.assert_allclose(found.posterior[place], given[place], atol=1e-6)
