"""Votes about a small structure are moved to where the target shows it, and only there."""

import numpy as np
import pytest
from scipy import ndimage

from crossmoda import deeds, labels, volume
from crossmoda.dataset import Case
from crossmoda.fusion.recentering import DISPLACEMENT_MM, find_displacement
from crossmoda.fusion.weighted_voting import weighted_votes
from crossmoda.propagation import Settings, propagate

SHAPE, SPACING = (40, 44, 44), np.array([0.5, 0.5, 0.5])


def organ(displacement_mm=(0.0, 0.0, 0.0), stretch: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A ball of 2.5 mm beside two others, all with soft edges: its share of each voxel, and that of the others."""
    place = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING - (np.array(SHAPE) - 1) * SPACING / 2 - displacement_mm
    place = place / stretch

    def ball(middle, radius: float) -> np.ndarray:
        distance = np.sqrt(((place - middle) ** 2).sum(axis=-1))
        return np.asarray(1 / (1 + np.exp((distance - radius) / 0.3)))

    return ball((0, 0, 0), 2.5), ball((3.5, 2, 0), 2.0) + ball((0, -4.2, 2), 1.5)


def images(displacement_mm=(0.0, 0.0, 0.0), stretch: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The organ as ceT1 and as hrT2 shows it: dark and bright, in tissue that both show as gray."""
    fluid, bone = organ(displacement_mm, stretch)
    return 100 - 60 * fluid - 80 * bone, 100 + 400 * fluid - 70 * bone


def found(target: np.ndarray, count: int = 3, noise: float = 2.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    atlases = [images()[0] + rng.normal(0, noise, SHAPE) for _ in range(count)]
    votes, zero = organ()[0], np.zeros(SHAPE)
    return find_displacement(target, votes, [zero], atlases, [np.ones(SHAPE)] * count, SPACING), votes


@pytest.mark.parametrize("displacement", [(0.2, 0.0, 0.0), (0.0, -0.15, 0.2), (-0.25, 0.2, 0.1)])
@pytest.mark.parametrize("contrast", [0, 1])
def test_a_displacement_is_found_whatever_the_contrast(displacement, contrast):
    move, votes = found(images(displacement)[contrast])
    np.testing.assert_allclose(move.coefficients[0], displacement, atol=0.04)
    truth = organ(displacement)[0] > 0.5
    assert ((move.move(votes) > 0.5) ^ truth).sum() < 0.25 * ((votes > 0.5) ^ truth).sum()


def test_an_organ_that_is_a_little_larger_is_stretched():
    move, votes = found(images(stretch=1.06)[1])
    # the edge of a ball of radius r moves by 0.06 r along each axis; the coefficient is for the root mean square radius
    expected = 0.06 * move.radius_mm
    np.testing.assert_allclose(np.diag(move.coefficients[1:]), expected, rtol=0.4)
    larger, truth = move.move(votes).sum() / votes.sum(), organ(stretch=1.06)[0].sum() / votes.sum()
    assert larger == pytest.approx(truth, abs=0.04)


def test_what_is_in_place_stays():
    move, votes = found(images()[1] + np.random.default_rng(7).normal(0, 20, SHAPE))
    assert np.abs(move.coefficients).max() < 0.05
    np.testing.assert_array_equal(move.move(votes) > 0.5, votes > 0.5)


def test_noise_displaces_by_less_than_the_prior():
    moves = [found(np.random.default_rng(seed).normal(100, 20, SHAPE), seed=seed)[0] for seed in range(5)]
    assert all(np.abs(move.coefficients).max() < DISPLACEMENT_MM for move in moves if move is not None)


@pytest.mark.parametrize("case", ["no votes", "flat target", "flat atlases", "no image", "image outside", "few voxels"])
def test_without_contrast_nothing_moves(case):
    votes, target, atlas, weight = organ()[0], images((0.2, 0, 0))[1], images()[0], np.ones(SHAPE)
    if case == "no votes":
        votes = 0 * votes
    elif case == "flat target":
        target = np.full(SHAPE, 7.0)
    elif case == "flat atlases":
        atlas, votes = 0 * atlas, np.where(np.ones(SHAPE), 0.4, 0.4)
    elif case == "no image":
        weight = 0 * weight
    elif case == "image outside":
        weight = (votes < 0.2).astype(float)
    else:
        votes = np.zeros(SHAPE)
        votes[20, 22, 22] = 1.0
        weight = ndimage.binary_dilation(votes > 0).astype(float)
    assert find_displacement(target, votes, [], [atlas], [weight], SPACING) is None


def test_atlases_whose_scale_differs_count_alike():
    target, votes = images((0.0, 0.2, 0.0))[1], organ()[0]
    one, other = images((0.0, 0.1, 0.0))[0], images((0.0, -0.1, 0.0))[0]
    weights = [np.ones(SHAPE)] * 2
    plain = find_displacement(target, votes, [], [one, other], weights, SPACING)
    scaled = find_displacement(target, votes, [], [one, 1000 * other + 5], weights, SPACING)
    np.testing.assert_allclose(scaled.coefficients, plain.coefficients, atol=1e-6)


class TestVotes:
    """Four atlases, all beside the truth by the same displacement."""

    def fused(self, value: int, displacement):
        label_map = np.where(organ()[0] > 0.5, value, 0).astype(np.uint8)
        rng = np.random.default_rng(3)
        seen = [np.round(1000 + 10 * (images()[0] + rng.normal(0, 2, SHAPE))).astype(np.uint16) for _ in range(4)]
        same = np.zeros(SHAPE, np.uint8)
        missing = [np.zeros((1, 1, 1), np.uint8)] * 4
        return weighted_votes([label_map] * 4, [same] * 4, seen, missing, images(displacement)[1], SPACING), label_map

    def test_a_cochlea_is_recentered_by_the_displacement_of_the_target(self):
        displacement = (0.0, 0.2, -0.2)
        votes, before = self.fused(labels.COCHLEA, displacement)
        truth = organ(displacement)[0] > 0.5
        after = votes.probability.argmax(axis=0) == labels.COCHLEA
        assert (after ^ truth).sum() < 0.5 * ((before > 0) ^ truth).sum()
        (shift,) = votes.recentered
        assert shift.value == labels.COCHLEA
        np.testing.assert_allclose(shift.displacement_mm, displacement, atol=0.05)
        np.testing.assert_allclose(shift.center, (np.array(SHAPE) - 1) / 2, atol=0.2)
        np.testing.assert_allclose(votes.probability.sum(axis=0), 1, atol=1e-5)

    def test_a_tumor_stays(self):
        votes, before = self.fused(labels.VS, (0.0, 0.2, -0.2))
        assert not votes.recentered
        np.testing.assert_array_equal(votes.probability.argmax(axis=0), before)


@pytest.mark.shared_data
def test_recentered_pieces_of_a_real_cord_agree_better_with_the_manual_segmentation(shared_data, tmp_path):
    """T1 and T2 of one real cord, registered; each 8 mm of it is taken for a small organ of its own."""
    folder = shared_data / "sct_cord"
    atlas = Case("t1w", "ceT1", folder / "t1w.nii.gz", folder / "t1w_seg-manual.nii.gz")
    propagate(
        Case("t2", "hrT2", folder / "t2.nii.gz"),
        [atlas],
        tmp_path,
        Settings(initialization="image"),
        registration=deeds.Settings(device="cpu"),
    )
    registered = tmp_path / "registrations" / "t1w"
    label_map = volume.read_label_map(registered / "warped_label.nii.gz")
    grid, seen = label_map.grid, volume.read(registered / "intensity.nii.gz").array
    target = volume.resample(volume.read(folder / "t2.nii.gz"), grid).array
    truth = volume.read_label_map(folder / "t2_seg-manual.nii.gz", grid).array > 0
    votes = ndimage.gaussian_filter((label_map.array > 0).astype(np.float32), 0.3 / np.array(grid.spacing_zyx))
    along = int(np.argmax([np.ptp(axis) for axis in np.nonzero(label_map.array)]))
    first = int(np.nonzero(label_map.array)[along].min())
    before, after = [], []
    for start in range(first, first + 48, 8):
        piece = np.zeros(grid.shape, bool)
        piece[tuple(slice(start, start + 8) if axis == along else slice(None) for axis in range(3))] = True
        move = find_displacement(target, votes, [], [seen], [(seen > 0) & piece], grid.spacing_zyx)
        for scores, found in ((before, votes), (after, move.move(votes))):
            drawn, true = piece & (found > 0.5), piece & truth
            scores.append(2 * (drawn & true).sum() / (drawn.sum() + true.sum()))
    gain = np.subtract(after, before)
    assert gain.min() > -0.002 and gain.mean() > 0.001
