"""The steps of deeds against direct sums, brute force, SciPy and known transforms."""

import itertools
import time

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.transform import Rotation

from crossmoda import mind, threads
from crossmoda.deeds import affine, cost, mind_codes, tree
from crossmoda.deeds.backend_cpu import sampling
from crossmoda.deeds.backend_cpu.operations import CpuBackend
from crossmoda.deeds.backend_cpu.scratch import Scratch
from crossmoda.deeds.deformable import Field, control_grid, make_consistent
from crossmoda.deeds.pyramid import Level
from crossmoda.deeds.transform import field_transforms
from crossmoda.errors import Cancelled
from crossmoda.volume.grid import Grid

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def textured(shape: tuple[int, int, int], seed: int = 0, sigma: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (ndimage.gaussian_filter(rng.normal(size=shape), sigma) * 100).astype(np.float32)


# Data cost


@pytest.mark.parametrize(
    ("block", "radius", "quantization", "skip"),
    [
        ((4, 4, 4), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ((5, 3, 4), (1, 2, 1), (2, 1, 3), (2, 2, 1)),
        ((5, 5, 5), (4, 3, 5), (4, 5, 1), (2, 2, 1)),  # displacements far beyond the border; 11 of them along x
    ],
)
def test_data_cost_is_the_direct_sum_of_hamming_distances(block, radius, quantization, skip):
    fixed, moving = mind_codes.codes(textured((9, 10, 13))), mind_codes.codes(textured((9, 10, 13), seed=1))
    mask = textured((9, 10, 13), seed=2) > 0
    costs = cost.data_cost(
        fixed, moving, block=block, radius=radius, quantization=quantization, skip=skip, scale=0.7, mask=mask
    )
    shifts = cost.displacements(radius, quantization).astype(int)
    last = np.array(fixed.shape) - 1
    samples = -(-block[0] // skip[0]) * -(-block[1] // skip[1]) * block[2]
    for node in np.ndindex(*costs.shape[:3]):
        for label, shift in enumerate(shifts):
            total = 0
            steps = (range(0, block[0], skip[0]), range(0, block[1], skip[1]), range(block[2]))
            for offset in itertools.product(*steps):
                here = np.array(node) * block + offset
                if (here <= last).all() and mask[tuple(here)]:
                    there = np.clip(here + shift, 0, last)
                    total += bin(int(fixed[tuple(here)]) ^ int(moving[tuple(there)])).count("1")
            assert costs[(*node, label)] == pytest.approx(0.7 * total / samples, abs=1e-4)


@pytest.mark.parametrize("width", [13, 75])  # the last of 4 and of 19 blocks along x reaches beyond the image
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_data_cost_sums_the_distances_to_the_shifted_image(width, steps):
    fixed, moving = mind_codes.codes(textured((6, 7, width))), mind_codes.codes(textured((6, 7, width), seed=1))
    block, radius, quantization = (3, 4, 4), (0, 1, steps), (1, 2, 3)
    mask = textured((6, 7, width), seed=2) > 0
    mask[:3, :4] = False  # a row of blocks outside the mask
    costs = cost.data_cost(fixed, moving, block=block, radius=radius, quantization=quantization, mask=mask)
    index = [np.arange(size) for size in fixed.shape]
    rest = [(0, -size % step) for size, step in zip(fixed.shape, block, strict=True)]
    for label, shift in enumerate(cost.displacements(radius, quantization).astype(int)):
        places = [np.clip(at + move, 0, at[-1]) for at, move in zip(index, shift, strict=True)]
        distances = np.pad(mind.hamming(fixed, moving[np.ix_(*places)]) * mask, rest)
        blocks = distances.reshape(2, 3, 2, 4, -1, 4).mean(axis=(1, 3, 5))
        np.testing.assert_allclose(costs[..., label], blocks, rtol=1e-6)


def test_data_cost_is_least_at_the_true_shift():
    image = textured((24, 24, 24))
    moved = np.roll(image, (1, -2, 3), axis=(0, 1, 2))
    costs = cost.data_cost(
        mind_codes.codes(image), mind_codes.codes(moved), block=(6, 6, 6), radius=(3, 3, 3), quantization=(1, 1, 1)
    )
    inner = costs[1:-1, 1:-1, 1:-1].reshape(-1, 343)
    found = cost.displacements((3, 3, 3), (1, 1, 1))[inner.argmin(axis=1)]
    assert (found == (1, -2, 3)).all()


@pytest.mark.parametrize("displacements", [1, 16, 27, 45])
def test_smoothed_minima_are_those_of_the_costs_filtered_along_the_control_grid(displacements):
    costs = np.random.default_rng(0).random((4, 5, 6, displacements)).astype(np.float32)
    smooth = costs
    for axis in range(3):
        smooth = ndimage.convolve1d(smooth, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    best, lowest = cost.smoothed_minima(costs)
    np.testing.assert_allclose(lowest, smooth.min(axis=-1), rtol=1e-5)
    assert np.array_equal(best, smooth.argmin(axis=-1))


# Tree


def edge_graph(differences: np.ndarray) -> coo_array:
    shape = differences.shape[1:]
    index = np.arange(np.prod(shape)).reshape(shape)
    rows, columns, weights = [], [], []
    for axis in range(3):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        rows.append(index[tuple(low)].ravel())
        columns.append(index[tuple(high)].ravel())
        weights.append(differences[axis][tuple(low)].ravel())
    size = index.size
    return coo_array((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size))


@pytest.mark.parametrize("digits", [6, 0])  # 0: edges cost 0.1 or 1.1, many the same
def test_the_spanning_tree_weighs_as_little_as_scipys(digits):
    differences = np.random.default_rng(3).random((3, 5, 6, 7)).round(digits).astype(np.float32) + np.float32(0.1)
    grown = tree.spanning_tree(differences, deviation=1.0)
    assert sorted(grown.order) == list(range(5 * 6 * 7))
    weight = -2 * np.log(grown.weights[grown.parents >= 0]).sum()
    assert weight == pytest.approx(minimum_spanning_tree(edge_graph(differences)).sum(), rel=1e-4)


def test_every_point_comes_after_its_parent_which_is_a_neighbor():
    grown = tree.spanning_tree(np.random.default_rng(4).random((3, 4, 5, 3)).astype(np.float32), deviation=1.0)
    place = np.empty(len(grown.order), int)
    place[grown.order] = np.arange(len(place))
    positions = np.stack(np.unravel_index(np.arange(60), (4, 5, 3)), axis=1)
    for node, parent in enumerate(grown.parents):
        if parent >= 0:
            assert place[parent] < place[node]
            assert np.abs(positions[node] - positions[parent]).sum() == 1
    assert (grown.parents < 0).sum() == 1


def test_block_differences_are_mean_absolute_differences():
    image = textured((8, 6, 10))
    differences = tree.block_differences(image, (4, 3, 5))
    blocks = image.reshape(2, 4, 2, 3, 2, 5)
    np.testing.assert_allclose(differences[0, 0], np.abs(blocks[0] - blocks[1]).mean(axis=(0, 2, 4)), rtol=1e-4)
    sideways = np.abs(blocks[..., 0, :] - blocks[..., 1, :]).mean(axis=(1, 3, 4))
    np.testing.assert_allclose(differences[2, :, :, 0], sideways, rtol=1e-4)


def energy(labels, costs, grown, offsets, shape) -> float:
    """Energy of the tree from the leaves to the root, as the docstring of ``best_displacements`` states it."""
    steps = np.stack(np.unravel_index(np.asarray(labels), shape), axis=1)
    total = costs[np.arange(len(labels)), labels].astype(float)
    for node in grown.order[:0:-1]:
        parent = grown.parents[node]
        bend = np.square(steps[parent] - steps[node] + offsets[node]).sum()
        total[parent] += grown.weights[node] * total[node] + bend
    return float(total[grown.order[0]])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_message_passing_finds_the_best_of_all_labelings_of_a_tiny_tree(seed):
    rng = np.random.default_rng(seed)
    shape = (2, 1, 3)
    grown = tree.spanning_tree(rng.random((3, 1, 2, 3)).astype(np.float32), deviation=0.7)
    costs = (4 * rng.random((6, 6))).astype(np.float32)
    offsets = rng.normal(size=(6, 3)).astype(np.float32) * 0.4
    chosen = tree.best_displacements(costs.copy(), grown, offsets, shape)
    best = min(energy(labels, costs, grown, offsets, shape) for labels in itertools.product(range(6), repeat=6))
    assert energy(chosen, costs, grown, offsets, shape) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 19), (17, 1, 2), (3, 5, 33)])
def test_min_convolution_is_the_least_over_all_displacements(shape):
    rng = np.random.default_rng(5)
    size = int(np.prod(shape))
    costs, offset = rng.random(size).astype(np.float32) * 5, np.array([0.3, -1.2, 0.8], np.float32)
    message, weighted = np.empty(size, np.float32), np.empty(size, np.float32)
    own, least = tree._message(costs, np.float32(0.6), offset, shape, weighted, message)
    steps = np.stack(np.unravel_index(np.arange(size), shape), axis=1)
    bends = np.square(steps[:, None] - steps[None] + offset).sum(axis=-1)
    expected = (0.6 * costs[None] + bends).min(axis=1)
    np.testing.assert_allclose(message, expected, atol=1e-4)
    assert (own, least) == pytest.approx((0.6 * costs.min(), expected.min()), rel=1e-5)


def test_large_trees_are_the_same_whatever_the_number_of_threads(monkeypatch):
    rng = np.random.default_rng(6)
    grown = tree.spanning_tree(rng.random((3, 6, 8, 9)).astype(np.float32), deviation=0.3)
    costs = rng.random((6 * 8 * 9, 27)).astype(np.float32) * 5
    offsets = np.zeros((len(costs), 3), np.float32)
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(tree.threads, "thread_count", lambda count=count: count)
        results.append(tree.best_displacements(costs.copy(), grown, offsets, (3, 3, 3)))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


# Threads and memory


@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_loop_is_cancelled_between_its_parts(monkeypatch, workers):
    monkeypatch.setattr(threads, "thread_count", lambda: workers)
    done: list[int] = []

    def kernel(start: int, stop: int) -> None:
        time.sleep(0.1)
        done.extend(range(start, stop))

    def cancel() -> None:
        if done:
            raise Cancelled

    with threads.attended(cancel), pytest.raises(Cancelled):
        threads.run(kernel, 800)
    assert 0 < len(done) < 800
    done.clear()
    threads.run(kernel, 8)  # outside, nobody cancels
    assert sorted(done) == list(range(8))


@pytest.mark.parametrize("workers", [1, 2])
def test_short_loops_are_cancelled_before_each_of_them(monkeypatch, workers):
    monkeypatch.setattr(threads, "thread_count", lambda: workers)
    done: list[int] = []
    heard: list[int] = []
    with threads.attended(lambda: heard.append(len(done))):
        for _ in range(4):
            threads.run(lambda start, stop: done.extend(range(start, stop)), 3)
    assert {0, 3, 6, 9} <= set(heard)


def test_a_loop_covers_each_item_once_and_tells_its_errors(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    counts = np.zeros(1001, int)

    def kernel(start: int, stop: int) -> None:
        counts[start:stop] += 1

    threads.run(kernel, 1001)
    assert (counts == 1).all()
    threads.run(kernel, 0)
    with pytest.raises(ZeroDivisionError):
        threads.run(lambda start, stop: 1 // 0, 5)


def test_scratch_memory_is_used_again():
    scratch = Scratch()
    first = scratch.array("costs", (4, 5), np.float32)
    smaller = scratch.array("costs", (2, 3), np.float64)
    assert np.shares_memory(first, smaller)
    assert scratch.array("costs", (40, 5), np.float32).shape == (40, 5)
    assert not np.shares_memory(smaller, scratch.array("other", (2, 3), np.float64))


def test_fresh_arrays_share_no_memory_until_they_are_gone():
    scratch = Scratch()
    arrays = [scratch.fresh((4, 5), np.float32) for _ in range(3)]
    kept, places = arrays[0][1:], [array.ctypes.data for array in arrays]  # a view keeps its memory as well
    kept[:] = 7
    assert len(set(places)) == 3
    arrays.clear()
    again = [scratch.fresh((3, 2), np.float64) for _ in range(3)]
    again[2][:] = again[1][:] = again[0][:] = 1
    assert {array.ctypes.data for array in again} >= set(places[1:])
    assert (kept == 7).all()
    assert scratch.fresh((9, 9), np.float64).nbytes == 648  # more than any buffer holds


def test_blocks_are_thinned_as_in_deedsbcv():
    # dataCostD.h of deedsBCV: every second voxel along two axes where the grid spacing is above 4, else all
    grid = Grid((64, 64, 64), (0.5, 0.5, 1.5), (0.0, 0.0, 0.0), AXES)
    skips = {spacing: Level(spacing, 4, 1, "voxel").skip(grid) for spacing in (8, 7, 6, 5, 4)}
    assert skips == {8: (2, 2, 1), 7: (2, 2, 1), 6: (2, 2, 1), 5: (2, 2, 1), 4: (1, 1, 1)}


# Linear fit


def rotation_and_scale() -> np.ndarray:
    angle = np.deg2rad(12)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = (5.0, -3.0, 8.0)
    return matrix


@pytest.mark.parametrize("rigid", [False, True])
def test_least_trimmed_squares_withstands_40_percent_outliers(rigid):
    rng = np.random.default_rng(7)
    truth = rotation_and_scale()
    if not rigid:
        truth[:3, :3] = truth[:3, :3] @ np.diag([1.1, 0.95, 1.05])
    source = rng.uniform(-50, 50, (1500, 3))
    target = source @ truth[:3, :3].T + truth[:3, 3] + rng.normal(0, 0.2, source.shape)
    wrong = rng.choice(1500, 600, replace=False)
    target[wrong] = (
        source[wrong] + np.array([20.0, 20.0, -15.0]) + rng.normal(0, 2, (600, 3))
    )  # they agree: the hard case
    found = affine.least_trimmed_squares(source, target, rigid=rigid)
    corners = np.array(list(itertools.product((-50, 50), repeat=3)), float)
    error = corners @ (found - truth)[:3, :3].T + (found - truth)[:3, 3]
    assert np.linalg.norm(error, axis=1).max() < 0.15
    if rigid:
        np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(found[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("rigid", [False, True])
def test_the_fit_to_all_pairs_is_that_of_numpy_and_scipy(rigid):
    rng = np.random.default_rng(11)
    source = rng.normal((120.0, -340.0, 80.0), 30, (200, 3))  # mm, as far from the origin as a scanner's
    truth = rotation_and_scale()
    target = source @ truth[:3, :3].T + truth[:3, 3] + rng.normal(0, 2, source.shape)
    found = affine.least_trimmed_squares(source, target, rigid=rigid, keep=1.0)
    if rigid:
        middles = source.mean(axis=0), target.mean(axis=0)
        expected = Rotation.align_vectors(target - middles[1], source - middles[0])[0].as_matrix()
    else:
        expected = np.linalg.lstsq(np.column_stack([source, np.ones(200)]), target)[0][:3].T
    np.testing.assert_allclose(found[:3, :3], expected, atol=1e-6)
    np.testing.assert_allclose(source.mean(axis=0) @ found[:3, :3].T + found[:3, 3], target.mean(axis=0), atol=1e-6)


# Sampling and fields


def test_resizing_keeps_a_linear_image_linear_and_its_place():
    grid = Grid((20, 18, 16), (0.5, 0.8, 1.5), (3.0, -2.0, 7.0), AXES)
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    ramp = (2 * x * 0.5 - y * 0.8 + 3 * z * 1.5).astype(np.float32)  # in mm from the first voxel
    new = sampling.isotropic_grid(grid, 2.0)
    coarse = sampling.resize(ramp, grid, new)
    first = np.array(new.origin) - grid.origin
    z, y, x = np.meshgrid(*(np.arange(n) * 2.0 for n in new.shape), indexing="ij")
    expected = 2 * (x + first[0]) - (y + first[1]) + 3 * (z + first[2])
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(coarse[inner], expected[inner], atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_places_that_are_no_numbers_are_read_within_the_image(value):
    image = textured((6, 7, 8))
    field = np.full((3, *image.shape), value, np.float32)
    ends = (image[0, 0, 0], image[-1, -1, -1])
    assert np.isin(sampling.warp(image, np.eye(4), image.shape, field), ends).all()
    assert np.isin(sampling.compose(np.stack([image] * 3), field), ends).all()


def test_warping_is_scipys_linear_interpolation():
    image = textured((10, 11, 12))
    matrix = np.eye(4)
    matrix[:3] += np.random.default_rng(8).normal(size=(3, 4)) * 0.1
    field = np.random.default_rng(9).normal(size=(3, 9, 9, 9)).astype(np.float32)
    warped = sampling.warp(image, matrix, (9, 9, 9), field)
    index = np.stack(np.meshgrid(*(np.arange(9),) * 3, indexing="ij")) + field
    xyz = np.tensordot(matrix[:3, :3], index[::-1], axes=1) + matrix[:3, 3, None, None, None]
    expected = ndimage.map_coordinates(image, xyz[::-1], order=1, mode="nearest")
    np.testing.assert_allclose(warped, expected, atol=2e-3)


def test_a_result_of_one_voxel_is_moved_as_well():
    image = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    field = np.array([1, 2, 3], np.float32).reshape(3, 1, 1, 1)
    assert sampling.warp(image, np.eye(4), (1, 1, 1), field).item() == image[1, 2, 3]
    with pytest.raises(ValueError, match="the field has the shape"):
        sampling.warp(image, np.eye(4), (1, 1, 2), field)


def test_consistent_fields_undo_each_other():
    grid = Grid((12, 12, 12), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0), AXES)
    rng = np.random.default_rng(10)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(3, 12, 12, 12)), (0, 2, 2, 2)) for _ in range(2)]
    one, other = (Field((field / field.std() * 2).astype(np.float32), grid) for field in smooth)
    forward, backward = make_consistent(one, other)
    there_and_back = forward.array + sampling.compose(backward.array / 4, forward.array / 4) * 4
    before = one.array + sampling.compose(other.array / 4, one.array / 4) * 4
    inner = (slice(None), slice(2, -2), slice(2, -2), slice(2, -2))
    assert np.abs(there_and_back[inner]).mean() < 0.05 * np.abs(before[inner]).mean()


def test_transforms_of_opposite_fields_undo_each_other_beyond_the_border_as_well():
    grid = Grid((5, 6, 7), (3.0, 4.0, 5.0), (1.0, 2.0, 3.0), (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0))
    shift = np.array([-21.0, 8.0, 33.0], np.float32)[:, None, None, None]  # mm along the axes z, y, x of the grid
    field = np.broadcast_to(shift, (3, *grid.shape))
    forward, backward = field_transforms(field, -field, grid)
    corners = np.array(list(itertools.product((-0.5, 4.5), (-0.5, 5.5), (-0.5, 6.5))))
    points = corners @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
    moved = shift.ravel()[::-1] @ np.reshape(grid.direction, (3, 3)).T
    for point in points.tolist():
        there = forward.TransformPoint(point)
        assert there == pytest.approx(point + moved)
        assert backward.TransformPoint(there) == pytest.approx(point)


def test_control_points_are_the_centers_of_the_blocks():
    grid = Grid((10, 9, 8), (1.0, 1.0, 2.0), (5.0, 6.0, 7.0), AXES)
    controls = control_grid(grid, (4, 3, 5))
    assert controls.size == (2, 3, 2)
    assert controls.origin == pytest.approx((5 + 2.0, 6 + 1.0, 7 + 3.0))
    assert controls.spacing == pytest.approx((5.0, 3.0, 8.0))


# The tensor operations (CUDA) on the CPU, against the compiled ones


def test_tensor_operations_agree_with_the_compiled_ones():
    torch = pytest.importorskip("torch")
    from crossmoda.deeds.backend_cuda import CudaBackend

    compiled, tensors = CpuBackend(), CudaBackend("cpu")
    image, other = textured((11, 12, 14)), textured((11, 12, 14), seed=1)
    codes, other_codes = compiled.codes(image, 1), compiled.codes(other, 1)
    packed = tensors.receive(tensors.codes(tensors.send(image), 1)).view(np.uint64)
    assert mind.hamming(codes, packed).mean() < 1e-3
    options = {"block": (4, 5, 6), "radius": (1, 2, 1), "quantization": (1, 2, 2), "skip": (2, 2, 1), "scale": 0.7}
    options["mask"] = image > -20
    costs = compiled.data_cost(codes, other_codes, **options)
    as_tensors = (torch.from_numpy(array.view(np.int64)) for array in (codes, other_codes))
    np.testing.assert_allclose(tensors.receive(tensors.data_cost(*as_tensors, **options)), costs, rtol=1e-6)
    _, lowest = tensors.smoothed_minima(torch.from_numpy(costs))
    np.testing.assert_allclose(lowest, compiled.smoothed_minima(costs)[1], rtol=1e-5)
    differences = tensors.block_differences(tensors.send(image), (4, 5, 6))
    np.testing.assert_allclose(
        differences[:, :-1, :-1, :-1], tree.block_differences(image, (4, 5, 6))[:, :-1, :-1, :-1], rtol=1e-4
    )
    field = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    place = (np.array([-0.5, 0.2, -1.0]), np.array([0.3, 0.4, 0.5]), image.shape)
    np.testing.assert_allclose(
        tensors.receive(tensors.upsample(field, *place)), compiled.upsample(field, *place), atol=1e-5
    )
    matrix = np.eye(4) + np.random.default_rng(1).normal(size=(4, 4)) * 0.05
    dense = compiled.upsample(field, *place)
    np.testing.assert_allclose(
        tensors.receive(tensors.warp(tensors.send(image), matrix, image.shape, torch.from_numpy(dense))),
        compiled.warp(image, matrix, image.shape, dense),
        atol=2e-3,
    )
    grid = Grid(image.shape[::-1], (0.5, 0.5, 1.5), (1.0, 2.0, 3.0), AXES)
    new = sampling.isotropic_grid(grid, 1.2)
    resized = tensors.receive(tensors.resize(tensors.send(image), grid, new))
    np.testing.assert_allclose(resized, compiled.resize(image, grid, new), atol=1e-3)
