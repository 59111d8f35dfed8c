import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from crossmoda.errors import Cancelled, InputError
from crossmoda.fusion import Settings, majority_vote, staple
from crossmoda.volume import Grid
from phantoms import AXIAL, ball, dice

#: STAPLE as it was published: nothing but EM with a global prior.
PLAIN = Settings(
    prior="global", margin=10000, regularization=0, free_volumes=True, smoothness=0, tolerance=1e-8, max_iterations=1000
)
#: bit of "says nothing about" for the labels of a label map: VS, cochlea; and for saying nothing at all
VS_MISSING, COCHLEA_MISSING, SILENT = 0b010, 0b100, 0b111


def grid_of(shape: tuple[int, ...]) -> Grid:
    return Grid((shape[2], shape[1], shape[0]), (0.5, 0.5, 1.5), (0.0, 0.0, 0.0), AXIAL)


def ears(tumor: str | None = "left", shape: tuple[int, int, int] = (24, 72, 128)) -> np.ndarray:
    """Two cochleae of 150 voxels and a tumor; x runs to the patient's left."""
    grid, label_map = grid_of(shape), np.zeros(shape, np.uint8)
    for x in (28, 100):
        label_map[ball(grid, (18, 15, x / 2), 2.4)] = 2
    if tumor:
        label_map[ball(grid, (18, 21, 43 if tumor == "left" else 21), 5.5)] = 1
    return label_map


def misplaced(truth: np.ndarray, count: int, pixels: float, seed: int) -> list[np.ndarray]:
    """Copies of the truth as registrations leave them: each structure moved on its own and of another size."""
    rng = np.random.default_rng(seed)
    copies = [np.zeros_like(truth) for _ in range(count)]
    for value in np.unique(truth[truth > 0]):
        pieces, _ = ndimage.label(truth == value)
        for piece, found in enumerate(ndimage.find_objects(pieces), start=1):
            box = tuple(slice(max(side.start - 14, 0), side.stop + 14) for side in found)
            mask = (pieces[box] == piece).astype(np.float32)
            middle = np.array(ndimage.center_of_mass(mask))
            for copy in copies:
                scale = 1 + rng.normal(0, 0.08)
                offset = middle * (1 - scale) - rng.normal(0, pixels, 3) * (0.3, 1, 1)
                copy[box][ndimage.affine_transform(mask, np.eye(3) * scale, offset, order=1) > 0.5] = value
    return copies


def noisy(truth: np.ndarray, confusion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a rater with the confusion matrix (said, true) says."""
    steps = confusion.cumsum(axis=0)[:, truth]
    return (rng.random(truth.shape) > steps).sum(axis=0).astype(np.uint8)


class TestAgainstIndependentPrograms:
    def test_binary_staple_equals_simpleitk(self):
        rng = np.random.default_rng(1)
        truth = np.zeros((10, 40, 40), np.uint8)
        truth[3:7, 10:30, 12:28] = 1
        rates = [(rng.uniform(0.7, 0.95), rng.uniform(0.9, 0.99)) for _ in range(7)]
        maps = [noisy(truth, np.array([[q, 1 - p], [1 - q, p]]), rng) for p, q in rates]
        program = sitk.STAPLEImageFilter()
        program.SetForegroundValue(1)
        program.SetMaximumIterations(1000)
        expected = sitk.GetArrayFromImage(program.Execute([sitk.GetImageFromArray(item) for item in maps]))
        fused = staple(maps, PLAIN, values=(0, 1))
        assert fused.converged
        np.testing.assert_allclose(fused.posterior[1], expected, atol=1e-5)
        sensitivity = [item.sensitivity[1] for item in fused.performance]
        specificity = [item.specificity[1] for item in fused.performance]
        np.testing.assert_allclose(sensitivity, program.GetSensitivity(), atol=1e-5)
        np.testing.assert_allclose(specificity, program.GetSpecificity(), atol=1e-5)

    def test_a_structure_is_kept_where_simpleitk_multilabel_staple_loses_most_of_it(self):
        truth = np.zeros((24, 72, 72), np.uint8)
        truth[ball(grid_of(truth.shape), (18, 12, 12), 7)] = 1
        truth[ball(grid_of(truth.shape), (18, 24, 24), 3.25)] = 2
        maps = misplaced(truth, 30, 4, seed=0)
        itk = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE([sitk.GetImageFromArray(item) for item in maps], 255))
        size = np.count_nonzero(truth == 2)
        fused = staple(maps).label_map
        assert np.count_nonzero(itk == 2) < 0.5 * size
        assert abs(np.count_nonzero(fused == 2) - size) < 0.25 * size
        assert dice(fused == 2, truth == 2) > dice(itk == 2, truth == 2) + 0.1

    def test_majority_vote_equals_simpleitk_label_voting(self):
        rng = np.random.default_rng(3)
        maps = [rng.integers(0, 3, (4, 9, 11), np.uint8) for _ in range(5)]
        voted = sitk.GetArrayFromImage(sitk.LabelVoting([sitk.GetImageFromArray(item) for item in maps], 255))
        decided = voted != 255  # SimpleITK marks ties
        np.testing.assert_array_equal(majority_vote(maps)[decided], voted[decided])

    def test_majority_vote_gives_ties_to_the_earlier_label(self):
        assert majority_vote([np.full((1, 1, 1), 2, np.uint8), np.full((1, 1, 1), 1, np.uint8)]) == 1


class TestKnownPerformance:
    def test_confusion_matrices_of_simulated_raters_are_recovered(self):
        rng = np.random.default_rng(5)
        truth = np.zeros((16, 60, 60), np.uint8)
        truth[4:12, 5:30, 5:40] = 1
        truth[4:12, 35:55, 10:50] = 2
        matrices = []
        for _ in range(9):
            matrix = rng.dirichlet((1, 1, 1), 3).T * 0.3 + 0.7 * np.eye(3)
            matrices.append(matrix / matrix.sum(axis=0))
        fused = staple([noisy(truth, matrix, rng) for matrix in matrices], PLAIN)
        for matrix, found in zip(matrices, fused.performance, strict=True):
            # The standard error of a probability over 7000 voxels is at most 0.006.
            np.testing.assert_allclose(found.confusion, matrix, atol=0.025)
        assert dice(fused.label_map == 1, truth == 1) > 0.99

    def test_one_careful_rater_outweighs_several_careless_ones(self):
        rng = np.random.default_rng(6)
        truth = np.zeros((8, 60, 60), np.uint8)
        truth[:, 15:45, 15:45] = 1
        careful = np.array([[0.99, 0.02], [0.01, 0.98]])
        careless = np.array([[0.75, 0.28], [0.25, 0.72]])
        maps = [noisy(truth, matrix, rng) for matrix in (careful, careless, careless, careless)]
        fused = staple(maps, PLAIN, values=(0, 1)).label_map
        assert dice(fused == 1, truth == 1) > 0.95 > dice(majority_vote(maps) == 1, truth == 1)

    def test_the_order_of_the_raters_does_not_matter(self):
        maps = misplaced(ears(), 7, 2, seed=2)
        first, second = staple(maps), staple(maps[::-1])
        np.testing.assert_allclose(first.posterior, second.posterior, atol=1e-4)
        assert first.performance[0].sensitivity[1] == pytest.approx(second.performance[-1].sensitivity[1], abs=1e-4)


class TestMissingStatements:
    def test_a_tumor_missing_in_half_of_the_raters_survives_without_ghost(self):
        truth = ears("left")
        maps = misplaced(truth, 15, 2, seed=1) + misplaced(ears("right"), 15, 2, seed=2)
        ghosts = [np.where(item == 1, 0, item).astype(np.uint8) for item in maps[15:]]
        silent = [np.where(item == 1, SILENT, VS_MISSING).astype(np.uint8) for item in maps[15:]]
        assert dice(majority_vote(maps) == 1, truth == 1) < 0.1
        fused = staple(maps[:15] + ghosts, missing=[0] * 15 + silent).label_map
        alone = staple(maps[:15]).label_map
        assert dice(fused == 1, truth == 1) >= dice(alone == 1, truth == 1) - 0.01
        assert not (fused[..., :60] == 1).any()

    def test_a_rater_without_a_structure_is_no_evidence_against_it(self):
        truth = ears("left")
        without = [np.where(item == 1, 0, item).astype(np.uint8) for item in misplaced(truth, 20, 1.5, seed=4)]
        maps = misplaced(truth, 10, 1.5, seed=3) + without
        fused = staple(maps)
        assert np.count_nonzero(majority_vote(maps) == 1) == 0
        assert dice(fused.label_map == 1, truth == 1) > 0.9
        assert np.isnan(fused.performance[-1].sensitivity[1])
        assert fused.performance[0].sensitivity[1] > 0.5
        counted_as_background = staple(maps, missing=[0] * 30)
        assert dice(counted_as_background.label_map == 1, truth == 1) < dice(fused.label_map == 1, truth == 1)

    def test_cochleae_labeled_on_one_side_are_no_evidence_against_the_contralateral(self):
        truth = ears(None)
        maps = misplaced(truth, 30, 1.5, seed=5)
        missing: list[np.ndarray | int] = [0] * 30
        half = np.arange(truth.shape[2]) < 64
        for rater in range(8, 30):
            maps[rater][..., half] = 0
            missing[rater] = np.where(half, COCHLEA_MISSING, 0).astype(np.uint8)[None, None]
        fused = staple(maps, missing=missing).label_map
        for side in (half, ~half):
            drawn, true = (fused == 2) & side, (truth == 2) & side
            assert dice(drawn, true) > 0.8
            assert abs(np.count_nonzero(drawn) - np.count_nonzero(true)) < 0.25 * np.count_nonzero(true)
        assert np.count_nonzero((majority_vote(maps) == 2) & half) == 0

    def test_a_rater_that_leaves_all_labels_open_changes_nothing(self):
        maps = misplaced(ears(), 6, 2, seed=6)
        fused = staple(maps)
        with_silent = staple([*maps, np.zeros_like(maps[0])], missing=[0] * 6 + [SILENT])
        np.testing.assert_allclose(with_silent.posterior, fused.posterior, atol=1e-3)
        np.testing.assert_array_equal(with_silent.label_map, fused.label_map)


class TestSmallStructures:
    @pytest.mark.parametrize("pixels", [1.5, 3.0])
    def test_the_cochlea_keeps_its_volume_and_beats_raters_and_majority(self, pixels):
        truth = ears()
        maps = misplaced(truth, 30, pixels, seed=8)
        fused = staple(maps).label_map
        size = np.count_nonzero(truth == 2)
        assert abs(np.count_nonzero(fused == 2) - size) < 0.25 * size
        single = np.mean([dice(item == 2, truth == 2) for item in maps])
        assert dice(fused == 2, truth == 2) > single + 0.1
        assert dice(fused == 2, truth == 2) > dice(majority_vote(maps) == 2, truth == 2)

    def test_plain_em_grows_what_the_volume_balance_keeps(self):
        truth = ears()
        maps = misplaced(truth, 30, 3, seed=8)
        free = staple(maps, Settings(free_volumes=True)).label_map
        assert np.count_nonzero(free == 2) > 1.5 * np.count_nonzero(truth == 2)


class TestMaps:
    def test_where_all_agree_the_consensus_is_exact(self):
        maps = misplaced(ears(), 5, 1, seed=9)
        fused = staple(maps, Settings(margin=1))
        stack = np.stack(maps)
        agree = ndimage.binary_erosion((stack == stack[0]).all(axis=0), np.ones((3, 3, 3)), border_value=1)
        assert agree.any() and (maps[0][agree] > 0).any()
        np.testing.assert_array_equal(fused.label_map[agree], maps[0][agree])
        for value in (0, 1, 2):
            np.testing.assert_array_equal(fused.posterior[value][agree], (maps[0][agree] == value).astype(np.float32))
        assert (fused.agreement[agree] == 1).all() and (fused.disagreement[agree] == 0).all()

    def test_the_posterior_is_a_probability_and_the_label_its_maximum(self):
        fused = staple(misplaced(ears(), 6, 2, seed=10))
        assert fused.posterior.dtype == np.float32 and fused.posterior.shape == (3, *fused.label_map.shape)
        np.testing.assert_allclose(fused.posterior.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(fused.posterior.argmax(axis=0), fused.label_map)

    def test_agreement_and_entropy_are_those_of_the_statements(self):
        maps = [np.zeros((3, 5, 5), np.uint8) for _ in range(4)]
        maps[0][1, 2, 2] = maps[1][1, 2, 2] = 1
        fused = staple(maps, missing=[0] * 4)
        assert fused.agreement[1, 2, 2] == pytest.approx(0.5)
        # Two of three labels equally often: log 2 of log 3.
        assert fused.disagreement[1, 2, 2] == pytest.approx(np.log(2) / np.log(3), abs=1e-5)

    def test_raters_that_all_agree_are_returned_as_they_are(self):
        truth = ears()
        fused = staple([truth] * 4)
        np.testing.assert_array_equal(fused.label_map, truth)
        assert fused.converged and fused.iterations == 0

    def test_a_single_rater_is_the_result_and_noted(self):
        truth = ears()
        fused = staple([truth])
        np.testing.assert_array_equal(fused.label_map, truth)
        assert "Only one label map" in fused.notes[0]

    def test_not_converging_is_noted(self):
        fused = staple(misplaced(ears(), 6, 2, seed=11), Settings(max_iterations=1))
        assert not fused.converged and fused.iterations == 1
        assert "did not converge within 1 iterations" in fused.notes[0]

    def test_changes_fall_below_the_tolerance(self):
        fused = staple(misplaced(ears(), 6, 2, seed=11))
        assert fused.converged and fused.changes[-1] <= Settings().tolerance < fused.changes[0]

    def test_the_random_field_removes_isolated_voxels(self):
        rng = np.random.default_rng(12)
        truth = np.zeros((8, 40, 40), np.uint8)
        truth[:, 10:30, 10:30] = 1
        matrix = np.array([[0.75, 0.25], [0.25, 0.75]])
        maps = [noisy(truth, matrix, rng) for _ in range(3)]
        plain, smooth = (
            staple(maps, dataclasses.replace(PLAIN, smoothness=weight), values=(0, 1)).label_map
            for weight in (0.0, 1.0)
        )
        assert np.count_nonzero(smooth != truth) < 0.5 * np.count_nonzero(plain != truth)

    def test_weight_0_removes_a_rater(self):
        truth = ears()
        maps = misplaced(truth, 5, 2, seed=13)
        wrong = np.roll(truth, 20, axis=1)
        fused = staple([*maps, wrong], weights=[1, 1, 1, 1, 1, 0])
        np.testing.assert_allclose(fused.posterior, staple(maps, missing=[0] * 5).posterior, atol=1e-4)

    def test_other_label_values_can_be_fused(self):
        maps = [np.where(item > 0, item + 3, 0).astype(np.int16) for item in misplaced(ears(), 5, 1, seed=14)]
        fused = staple(maps, values=(0, 4, 5))
        assert set(np.unique(fused.label_map)) == {0, 4, 5}
        assert dice(fused.label_map == 4, ears() == 1) > 0.9


class TestBadInput:
    def test_no_label_maps(self):
        with pytest.raises(InputError, match="no label maps"):
            staple([])

    def test_different_shapes(self):
        with pytest.raises(InputError, match=r"Label map 2 has the shape \(2, 3, 4\)"):
            staple([np.zeros((2, 3, 5), np.uint8), np.zeros((2, 3, 4), np.uint8)])

    @pytest.mark.parametrize("value", [3, 7])
    def test_other_labels(self, value):
        with pytest.raises(InputError, match=f"Label map 2 has the label value {value}. Use 0, 1, 2"):
            staple([np.zeros((2, 3, 4), np.uint8), np.full((2, 3, 4), value, np.uint8)])

    @pytest.mark.parametrize("weights", [[1.0], [0, 0], [1, 2], [1, -1]])
    def test_unusable_weights(self, weights):
        with pytest.raises(InputError, match="Use 2 numbers between 0 and 1"):
            staple([ears(), ears("right")], weights=weights)

    def test_unusable_settings(self):
        with pytest.raises(InputError, match="prior must be one of local, global"):
            dataclasses.replace(Settings(), prior="flat")

    def test_cancelling_ends_the_iteration(self):
        def cancel(fraction: float, message: str) -> None:
            raise Cancelled

        with pytest.raises(Cancelled):
            staple(misplaced(ears(), 4, 2, seed=15), progress=cancel)
