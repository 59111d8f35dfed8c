"""The side of the tumour, by comparing both sides; how sure it is; what follows for a noisy label's confidence."""

from types import SimpleNamespace

import numpy as np
import pytest

from crossmoda import fusion, labels
from crossmoda.propagation.consensus import Consensus, with_doubt_about_side
from crossmoda.propagation.opposite import brightness
from crossmoda.propagation.side import find_side, near_cochlea, side_evidence, vote
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


def opposite(image: Volume) -> np.ndarray:
    """The two sides of this head are exact mirror images."""
    return brightness(image)[..., ::-1]


def find(probes: list[SimpleNamespace], dark, modality: str = "hrT2"):
    image = target(dark)
    return find_side(probes, image, opposite(image), modality)


def probes(count: int, far: int = 0) -> list[SimpleNamespace]:
    """Atlases whose tumours come to lie in the canals, and some whose tumours come to lie in brain."""
    found = []
    for number in range(count + far):
        name = str(number)
        left, right = (LEFT, RIGHT) if number < count else (np.s_[2:4, 14:18, 40:46], np.s_[2:4, 14:18, 14:20])
        found += [probe(name, "left", left), probe(name, "right", right)]
    return found


class TestEvidence:
    def evidence(self, here: float, there: float, modality: str = "hrT2", outside=None) -> float | None:
        """Of a target that has these two brightnesses on the left and on the right."""
        bright, other = (np.full(SHAPE, value, np.float32) for value in (here, there))
        bright[..., :30], other[..., :30] = there, here
        if outside is not None:
            other[outside] = np.nan
        return side_evidence(tumour(LEFT), tumour(RIGHT), bright, other, GRID, modality)

    def test_what_is_darker_than_the_opposite_place_on_t2_and_brighter_on_contrast_enhanced_t1_is_the_tumour(self):
        assert self.evidence(0.2, 0.8) == pytest.approx(0.6 / 1.02) == -self.evidence(0.8, 0.2)
        assert self.evidence(0.8, 0.2, "ceT1") == pytest.approx(0.6 / 1.02)
        assert self.evidence(0.5, 0.5) == 0

    def test_it_is_relative_to_what_is_bright_on_both_sides(self):
        """A large tumour covers brain, of which little is bright: the few bright voxels tell as much."""
        assert self.evidence(0.1, 0.4) == pytest.approx(self.evidence(0.2, 0.8), abs=0.02)
        assert self.evidence(0.0, 0.001) < 0.05  # a voxel or two tell nothing

    def test_places_whose_opposite_is_not_in_the_scan_do_not_count(self):
        half = np.s_[2:3]
        assert self.evidence(0.2, 0.8, outside=half) == pytest.approx(self.evidence(0.2, 0.8))
        assert self.evidence(0.2, 0.8, outside=RIGHT) is None

    def test_without_tumour_on_a_side_there_is_none(self):
        flat = np.ones(SHAPE, np.float32)
        assert side_evidence(tumour(LEFT), np.zeros(SHAPE, np.uint8), flat, flat, GRID, "hrT2") is None

    def test_the_tumour_far_from_the_cochlea_tells_nothing(self):
        label_map = tumour(np.s_[2:4, 8:12, 10:46])
        label_map[2:4, 8:12, 46:49] = labels.COCHLEA
        near = near_cochlea(label_map, GRID)
        assert near[2, 8].nonzero()[0].tolist() == list(range(26, 46))
        label_map[label_map == labels.COCHLEA] = 0
        assert (near_cochlea(label_map, GRID) == (label_map == labels.VS)).all()


class TestVote:
    def test_the_odds_grow_with_the_mean_evidence_and_not_with_the_number_of_probes(self):
        """All probes look at the same target, so ten that say the same are no surer than one."""
        one, ten = vote([0.02]), vote([0.02] * 10)
        assert one.certainty == pytest.approx(ten.certainty) == pytest.approx(1 / (1 + np.exp(-2.0)))
        assert vote([0.03, 0.03, -0.06]).certainty == pytest.approx(0.5)

    def test_strong_evidence_outweighs_weak_one(self):
        assert vote([0.6, -0.1, -0.1])[:3:2] == ("left", 1)
        assert vote([-0.3, 0.05, 0.1]).side == "right"

    def test_without_evidence_for_either_side_it_is_a_guess(self):
        assert vote([0.0, 0.0]).certainty == 0.5 and not vote([0.0, 0.0]).sure


class TestFindSide:
    @pytest.mark.parametrize(("dark", "side"), [(LEFT, "left"), (RIGHT, "right")])
    def test_probes_that_agree_make_it_certain(self, dark, side):
        found = find(probes(3), dark)
        assert found.side == side and found.certainty > 0.999 and not found.note
        sign = 1 if side == "left" else -1
        assert [sign * item["for_left"] for item in found.evidence] == [pytest.approx(1 / 1.02, abs=0.001)] * 3

    def test_weak_evidence_makes_it_doubtful_and_this_is_said(self):
        found = find(probes(1, far=2), np.s_[2:3, 8:10, 40:41])  # two voxels of 48
        evidence = [item["for_left"] for item in found.evidence]
        assert found.side == "left" and evidence == [pytest.approx((2 / 48) / (2 - 2 / 48 + 0.02), abs=1e-3), 0, 0]
        assert 0.6 < found.certainty < 0.95
        assert "1 of 3 probes" in found.note and f"multiplied by {found.certainty:.2f}" in found.note

    def test_it_is_known_where_the_tumour_would_be_otherwise(self):
        np.testing.assert_array_equal(find(probes(3), LEFT).elsewhere, tumour(RIGHT) == labels.VS)

    def test_without_a_probe_on_both_sides_it_is_unknown(self):
        found = find(probes(3)[::2], LEFT)
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
