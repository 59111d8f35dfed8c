"""MIND-SSC against the definition in the paper, and the invariances it was made for."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from crossmoda import mind
from crossmoda.deeds import mind_codes
from crossmoda.errors import InputError


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (ndimage.gaussian_filter(rng.normal(size=(9, 10, 11)), 0.8) * 100).astype(np.float32)


def reference(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """MIND-SSC written from Heinrich et al. (MICCAI 2013), voxel by voxel: slow and obvious.

    Beyond the border the nearest voxel stands in, for the image, for the difference images and for their patch means.
    """
    shape = np.array(image.shape)
    neighbors = [np.array(step) for step in ((0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0))]
    pairs = [(a, b) for a, b in itertools.combinations(neighbors, 2) if np.abs(a + b).sum() > 0]
    pairs = [(a, b) for a, b in pairs if abs(np.linalg.norm(a - b) - np.sqrt(2)) < 1e-9]
    assert len(pairs) == 12

    def inside(position: np.ndarray) -> tuple[int, ...]:
        return tuple(np.clip(position, 0, shape - 1))

    def patch_distance(position: np.ndarray, direction: np.ndarray) -> float:
        """Mean squared difference of the patch at ``position`` and the patch ``direction`` away."""
        total = 0.0
        for offset in itertools.product(range(-radius, radius + 1), repeat=3):
            where = np.array(inside(position + offset))
            total += float(image[tuple(where)] - image[inside(where + direction)]) ** 2
        return total / (2 * radius + 1) ** 3

    features = np.zeros((12, *image.shape))
    for position in np.ndindex(*image.shape):
        distances = []
        for a, b in pairs:
            # the same pair of patches, looked at from the one or from the other; they differ at the border only
            direction = (b - a) * dilation
            start, sign = (a, 1) if tuple(b - a) in mind.DIRECTIONS else (b, -1)
            distances.append(patch_distance(np.array(inside(np.array(position) + start * dilation)), sign * direction))
        distances = np.array(distances) - min(distances)
        features[(slice(None), *position)] = np.exp(-distances / max(distances.mean(), 1e-6))
    return features


@pytest.mark.parametrize(("radius", "dilation"), [(1, 1), (1, 2), (2, 1)])
def test_features_are_those_of_the_paper(image, radius, dilation):
    small = image[:5, :5, :6]
    np.testing.assert_allclose(
        mind.mind_ssc(small, radius, dilation), reference(small, radius, dilation), atol=2e-4, rtol=1e-3
    )


def test_twelve_pairs_of_neighbors_a_diagonal_apart_share_six_directions():
    assert len(mind.DIRECTIONS) == 6
    assert len(mind.PAIRS) == 12
    for direction, start in mind.PAIRS:
        end = np.add(start, mind.DIRECTIONS[direction])
        assert tuple(end) in mind.NEIGHBORS
        assert start in mind.NEIGHBORS
    assert len({frozenset([s, tuple(np.add(s, mind.DIRECTIONS[d]))]) for d, s in mind.PAIRS}) == 12


@pytest.mark.parametrize("step", [1, 2, 3])
def test_compiled_codes_are_the_packed_features(image, step):
    bits = mind.hamming(mind_codes.codes(image, step), mind.pack(mind.mind_ssc(image, step, step)))
    assert bits.mean() < 1e-3  # a distance may fall on the other side of a threshold by rounding


def test_hamming_distance_is_the_sum_of_level_differences(image):
    features = mind.mind_ssc(image)
    codes = mind.pack(features)
    levels = sum((features > threshold).astype(int) for threshold in mind.THRESHOLDS)
    other = np.roll(levels, 3, axis=3)
    expected = np.abs(levels - other).sum(axis=0)
    assert np.array_equal(mind.hamming(codes, np.roll(codes, 3, axis=2)), expected)
    assert levels.min() == 0
    assert levels.max() == 5
    assert int(codes.max()).bit_length() <= mind.BITS


@pytest.mark.parametrize(("scale", "offset"), [(3.0, -50.0), (-1.0, 0.0), (-0.4, 700.0)])
def test_linear_changes_and_inverted_contrast_change_nothing(image, scale, offset):
    np.testing.assert_allclose(mind.mind_ssc(scale * image + offset), mind.mind_ssc(image), atol=2e-3)


def mean_bits(first: np.ndarray, second: np.ndarray) -> float:
    return float(mind.hamming(mind_codes.codes(first), mind_codes.codes(second)).mean())


def test_bias_and_monotone_contrast_change_little_compared_with_another_place():
    rng = np.random.default_rng(2)
    image = 100 + ndimage.gaussian_filter(rng.normal(size=(24, 24, 24)), 1.0).astype(np.float32) * 60
    of_shifted = mean_bits(image, np.roll(image, 5, axis=2))
    bias = 1 + 0.03 * np.linspace(-1, 1, 24, dtype=np.float32)[:, None, None]  # a coil's +-30% over 240 voxels
    assert mean_bits(image, image * bias) < 0.1 * of_shifted
    assert mean_bits(image, (image / 100) ** 1.8) < 0.2 * of_shifted


def test_flat_images_have_full_similarity():
    flat = np.full((6, 6, 6), 7.0)
    assert np.array_equal(mind.mind_ssc(flat), np.ones((12, 6, 6, 6), np.float32))
    assert np.array_equal(mind_codes.codes(flat), mind.pack(np.ones((12, 6, 6, 6))))


def test_tensors_keep_their_leading_dimensions_and_arrays_and_tensors_agree(image):
    import torch

    batch = torch.from_numpy(np.stack([image, image[::-1].copy()]))[:, None]
    features = mind.mind_ssc(batch)
    assert features.shape == (2, 1, 12, *image.shape)
    assert features.dtype == torch.float32
    np.testing.assert_array_equal(features[0, 0].numpy(), mind.mind_ssc(image))


@pytest.mark.gpu
def test_cuda_gives_the_features_of_the_cpu(image):
    import torch

    features = mind.mind_ssc(torch.from_numpy(image).cuda())
    np.testing.assert_allclose(features.cpu().numpy(), mind.mind_ssc(image), atol=1e-4)


@pytest.mark.parametrize(("radius", "dilation"), [(0, 1), (1, 0)])
def test_patches_need_a_size(image, radius, dilation):
    with pytest.raises(InputError, match="at least 1 voxel"):
        mind.mind_ssc(image, radius, dilation)


def test_a_slice_is_not_a_volume():
    with pytest.raises(InputError, match="2 axes"):
        mind.mind_ssc(np.zeros((5, 5)))
