"""The side of the tumor, by comparing both sides; how sure it is; what follows for a noisy label's confidence."""

import numpy as np
import pytest

from crossmoda import fusion, labels
from crossmoda.anatomy.contralateral import ContralateralComparison, brightness
from crossmoda.anatomy.laterality import contralateral
from crossmoda.propagation.label_fusion import NoisyLabel, with_side_uncertainty
from crossmoda.propagation.tumor_side import find_tumor_side
from crossmoda.volume import Grid, Volume

SHAPE = (6, 20, 60)
GRID = Grid((60, 20, 6), (1.0, 1.0, 1.0), (-29.5, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
LEFT, RIGHT = np.s_[2:4, 8:12, 40:46], np.s_[2:4, 8:12, 14:20]


def tumor(place) -> np.ndarray:
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[place] = labels.VS
    return label_map


def target(dark) -> Volume:
    """Fluid on both sides, and what makes its place dark."""
    image = np.full(SHAPE, 100, np.float32)
    image[LEFT] = image[RIGHT] = 500
    image[:, :2] = 500  # more fluid
    image[dark] = 100
    return Volume(image, GRID)


def opposite(image: Volume) -> np.ndarray:
    """The two sides of this head are exact mirror images."""
    return brightness(image)[0][..., ::-1]


def find(votes: dict[str, np.ndarray], dark, modality: str = "hrT2"):
    image = target(dark)
    here, there = brightness(image)[0], opposite(image)
    if modality == "ceT1":
        here, there = 1 - here, 1 - there
    return find_tumor_side(votes, ContralateralComparison(here, there, modality), GRID.spacing_zyx)


def votes(count: int, far: int = 0) -> dict[str, np.ndarray]:
    """Votes of atlases whose tumors come to lie in the canals, and of some whose tumors come to lie in brain."""
    brain = {"left": np.s_[2:4, 14:18, 40:46], "right": np.s_[2:4, 14:18, 14:20]}
    return {
        side: (count * tumor(place) + far * tumor(brain[side])).astype(np.float32) / (count + far)
        for side, place in (("left", LEFT), ("right", RIGHT))
    }


class TestFindSide:
    @pytest.mark.parametrize(("dark", "side"), [(LEFT, "left"), (RIGHT, "right")])
    @pytest.mark.parametrize("modality", ["hrT2", "ceT1"])
    def test_it_is_where_the_target_differs_as_a_tumor_would(self, dark, side, modality):
        found = find(votes(3), dark, modality)
        assert found.side == side and found.certainty > 0.98 and not found.note
        assert found.evidence[side] > 40 and found.evidence[contralateral(side)] < 5

    def test_a_small_difference_makes_the_side_uncertain_with_a_note(self):
        found = find(votes(3), np.s_[2:4, 8:11, 42:44])
        assert found.side == "left" and 0.6 < found.certainty < 0.95
        assert "probably on the left" in found.note and f"multiplied by {found.certainty:.2f}" in found.note

    def test_without_any_difference_it_is_a_guess(self):
        assert find(votes(3), np.s_[:0]).certainty == pytest.approx(0.5, abs=0.01)

    def test_the_odds_grow_with_the_difference_and_not_with_the_number_of_atlases(self):
        """All atlases are compared with the same target, so ten are no surer than one."""
        dark = np.s_[2:4, 8:11, 42:44]
        assert find(votes(1), dark).certainty == pytest.approx(find(votes(10), dark).certainty)

    def test_two_tumors_that_differ_in_place_are_both_reported(self):
        """Tumors of both sides (NF2), each where the other side has fluid."""
        places = {"left": LEFT, "right": np.s_[2:4, 14:18, 14:20]}
        image = target(np.s_[:0])
        image.array[2:4, 14:18, 14:20] = image.array[2:4, 14:18, 40:46] = 500
        for place in places.values():
            image.array[place] = 100
        both = {side: (tumor(place) == labels.VS).astype(np.float32) for side, place in places.items()}
        found = find_tumor_side(
            both, ContralateralComparison(brightness(image)[0], opposite(image), "hrT2"), GRID.spacing_zyx
        )
        other = contralateral(found.side)
        assert f"only the tumor on the {found.side} is labeled" in found.note
        assert f"tumor side '{other}' labels it in another folder" in found.note
        assert found.certainty == pytest.approx(0.5, abs=0.01) and "multiplied by 0.5" in found.note

    def test_tumors_of_equal_size_on_both_sides_are_not_called_certain(self):
        found = find(votes(3), np.s_[2:4, 8:12, [*range(14, 20), *range(40, 46)]])
        assert found.certainty == pytest.approx(0.5, abs=0.01) and "as with tumors on both sides" in found.note

    def test_atlases_with_the_tumor_in_brain_do_not_mislead(self):
        assert find(votes(1, far=2), LEFT).side == "left"

    def test_the_contralateral_votes_are_returned(self):
        np.testing.assert_array_equal(find(votes(3), LEFT).contralateral, tumor(RIGHT) == labels.VS)

    def test_without_a_contralateral_side_in_the_scan_it_is_unknown(self):
        image = target(LEFT)
        there = opposite(image)
        there[RIGHT] = np.nan
        found = find_tumor_side(
            votes(3), ContralateralComparison(brightness(image)[0], there, "hrT2"), GRID.spacing_zyx
        )
        assert found.side is None and "unknown" in found.note


class TestDoubt:
    def label(self) -> NoisyLabel:
        label_map = tumor(LEFT)
        label_map[2:4, 14:17, 40:46] = labels.COCHLEA
        posterior = np.stack([label_map == value for value in labels.VALUES]).astype(np.float32) * 0.9 + 0.1 / 3
        raters = fusion.majority_vote([label_map])
        return NoisyLabel(raters, posterior, fusion.rate([label_map], posterior))

    def test_the_confidence_falls_on_both_sides(self):
        before = self.label()
        after = with_side_uncertainty(before, 0.8, (tumor(RIGHT) == labels.VS).astype(np.float32))
        np.testing.assert_allclose(after.confidence[LEFT], 0.8 * before.confidence[LEFT], rtol=1e-5)
        np.testing.assert_allclose(after.confidence[RIGHT], 0.8 * before.confidence[RIGHT], rtol=1e-5)
        np.testing.assert_array_equal(after.label_map, before.label_map)

    def test_the_cochleae_stay_as_they_are(self):
        before = self.label()
        after = with_side_uncertainty(before, 0.8, np.zeros(SHAPE, np.float32))
        cochlea = before.label_map == labels.COCHLEA
        np.testing.assert_allclose(after.confidence[cochlea], before.confidence[cochlea], rtol=1e-5)

    def test_probabilities_stay_probabilities(self):
        after = with_side_uncertainty(self.label(), 0.6, np.full(SHAPE, 0.7, np.float32))
        np.testing.assert_allclose(after.posterior.sum(axis=0), 1, rtol=1e-5)
        assert after.posterior.min() >= 0

    def test_the_confidence_is_that_of_the_label_even_if_another_is_more_probable(self):
        after = with_side_uncertainty(self.label(), 0.5, np.zeros(SHAPE, np.float32))
        np.testing.assert_allclose(after.confidence[LEFT], after.posterior[1][LEFT])
        assert (after.posterior[0][LEFT] > after.confidence[LEFT]).all()
