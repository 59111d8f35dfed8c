"""How sure the side of the tumour is, and what follows for the confidence of a noisy label."""

from types import SimpleNamespace

import numpy as np
import pytest

from crossmoda import fusion, labels
from crossmoda.propagation.consensus import Consensus, with_doubt_about_side
from crossmoda.propagation.side import asymmetry, find_side, vote
from crossmoda.volume import Grid, Volume

SHAPE = (6, 20, 60)
GRID = Grid((60, 20, 6), (1.0, 1.0, 1.0), (-29.5, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
LEFT, RIGHT = np.s_[2:4, 8:12, 40:46], np.s_[2:4, 8:12, 14:20]


def tumour(place) -> np.ndarray:
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[place] = labels.VS
    return label_map


def probe(name: str, side: str, place) -> SimpleNamespace:
    return SimpleNamespace(atlas=SimpleNamespace(id=name), side=side, label_map=tumour(place))


def target(dark) -> Volume:
    """Fluid on both sides, and what makes its place dark."""
    image = np.full(SHAPE, 100, np.float32)
    image[LEFT] = image[RIGHT] = 500
    image[:, :2] = 500  # fluid elsewhere
    image[dark] = 100
    return Volume(image, GRID)


def probes(right: int, wrong: int) -> list[SimpleNamespace]:
    """Atlases of which some find the tumour on the left, and others, which come to lie elsewhere, on the right."""
    found = []
    for number in range(right + wrong):
        name = str(number)
        found += [probe(name, "left", LEFT), probe(name, "right", RIGHT)]
        if number >= right:
            half = np.s_[2:4, 8:12, 14:17]  # of the right place, where it is dark
            found[-2:] = [probe(name, "left", np.s_[2:4, 1:3, 40:46]), probe(name, "right", half)]
    return found


class TestVote:
    def test_the_logarithms_of_the_odds_add_up(self):
        """Bayes: independent probes multiply the odds; those against a side divide them."""
        odds = [vote([value]).certainty / (1 - vote([value]).certainty) for value in (0.1, 0.25, 0.2)]
        together = vote([0.1, 0.25, -0.2])
        assert together.side == "left" and (together.agree, together.of) == (2, 3)
        assert together.certainty / (1 - together.certainty) == pytest.approx(odds[0] * odds[1] / odds[2])

    def test_strong_evidence_outweighs_weak_one(self):
        assert vote([0.6, -0.1, -0.1])[:3:2] == ("left", 1)
        assert vote([-0.3, 0.05, 0.1]).side == "right"

    def test_without_evidence_for_either_side_it_is_a_guess(self):
        assert vote([0.0, 0.0]).certainty == 0.5 and not vote([0.0, 0.0]).sure

    def test_evidence_is_relative_to_what_is_bright_on_both_sides(self):
        """A large tumour covers brain, of which little is bright: the few bright voxels tell as much."""
        assert asymmetry(0.02, 0.10, "hrT2") == pytest.approx(asymmetry(0.2, 0.76, "hrT2"), abs=0.01)
        assert asymmetry(0.02, 0.10, "hrT2") == -asymmetry(0.02, 0.10, "ceT1") > 0
        assert asymmetry(0.0, 0.001, "hrT2") < 0.05  # a voxel or two tell nothing


class TestFindSide:
    def test_probes_that_agree_make_it_certain(self):
        found = find_side(probes(3, 0), target(LEFT), "hrT2")
        assert found.side == "left" and found.certainty > 0.999 and not found.note
        assert [item["for_left"] for item in found.evidence] == [pytest.approx(0.98, abs=0.001)] * 3

    def test_weak_evidence_makes_it_doubtful_and_this_is_said(self):
        found = find_side(probes(3, 0), target(np.s_[2:4, 8:12, 40:41]), "hrT2")  # a sixth of the place is dark
        evidence = [item["for_left"] for item in found.evidence]
        assert found.side == "left" and evidence == [pytest.approx((1 - 5 / 6) / (1 + 5 / 6), abs=0.002)] * 3
        assert 0.8 < found.certainty < 0.95
        assert "3 of 3 probes" in found.note and f"multiplied by {found.certainty:.2f}" in found.note

    def test_a_strong_probe_outweighs_weak_ones_that_disagree(self):
        image = target(LEFT).array.copy()
        image[2:4, 8:12, 14:17] = 100  # half of the place on the right, where one probe comes to lie
        found = find_side(probes(2, 1), Volume(image, GRID), "hrT2")
        assert found.side == "left" and [item["for_left"] > 0 for item in found.evidence] == [True, True, False]

    def test_it_is_known_where_the_tumour_would_be_otherwise(self):
        found = find_side(probes(3, 0), target(LEFT), "hrT2")
        np.testing.assert_array_equal(found.elsewhere, tumour(RIGHT) == labels.VS)

    def test_without_a_probe_on_both_sides_it_is_unknown(self):
        found = find_side(probes(3, 0)[::2], target(LEFT), "hrT2")
        assert found.side is None and "could not be found" in found.note


class TestDoubt:
    def consensus(self) -> Consensus:
        label_map = tumour(LEFT)
        label_map[2:4, 14:17, 40:46] = labels.COCHLEA
        posterior = np.stack([label_map == value for value in labels.VALUES]).astype(np.float32) * 0.9 + 0.1 / 3
        raters = fusion.majority_vote([label_map])
        return Consensus(raters, posterior, fusion.rate([label_map], posterior))

    def test_the_confidence_falls_where_the_tumour_may_not_be_and_where_it_may_be_instead(self):
        before = self.consensus()
        after = with_doubt_about_side(before, 0.8, (tumour(RIGHT) == labels.VS).astype(np.float32))
        np.testing.assert_allclose(after.confidence[LEFT], 0.8 * before.confidence[LEFT], rtol=1e-5)
        np.testing.assert_allclose(after.confidence[RIGHT], 0.8 * before.confidence[RIGHT], rtol=1e-5)
        np.testing.assert_array_equal(after.label_map, before.label_map)

    def test_the_cochleae_stay_as_they_are(self):
        before = self.consensus()
        after = with_doubt_about_side(before, 0.8, np.zeros(SHAPE, np.float32))
        cochlea = before.label_map == labels.COCHLEA
        np.testing.assert_allclose(after.confidence[cochlea], before.confidence[cochlea], rtol=1e-5)

    def test_probabilities_stay_probabilities(self):
        after = with_doubt_about_side(self.consensus(), 0.6, np.full(SHAPE, 0.7, np.float32))
        np.testing.assert_allclose(after.posterior.sum(axis=0), 1, rtol=1e-5)
        assert after.posterior.min() >= 0

    def test_the_confidence_is_that_of_the_label_even_where_another_one_is_more_probable(self):
        after = with_doubt_about_side(self.consensus(), 0.5, np.zeros(SHAPE, np.float32))
        np.testing.assert_allclose(after.confidence[LEFT], after.posterior[1][LEFT])
        assert (after.posterior[0][LEFT] > after.confidence[LEFT]).all()
