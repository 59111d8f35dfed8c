"""The crop holds the inner ears, and every result returns to the scan's own grid."""

import itertools

import numpy as np
import pytest

from crossmoda.anatomy import head_region
from crossmoda.errors import InputError
from crossmoda.preprocessing import Orientation, Preparation, prepare
from crossmoda.volume import Grid, Volume, read, resample

AXES = np.eye(3)
#: All 48 ways in which axes can be permuted and flipped.
ORIENTATIONS = [
    np.diag(signs)[:, list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
SMALL = Preparation(crop_x=16, crop_y=12, crop_z=10)


def a_scan(
    size: tuple[int, int, int], spacing: tuple[float, float, float], direction: np.ndarray = AXES, seed: int = 0
) -> Volume:
    """Noise, darker in the outer quarter: something like a head in air."""
    rng = np.random.default_rng(seed)
    zyx = np.stack(np.meshgrid(*(np.linspace(-1, 1, count) for count in size[::-1]), indexing="ij"))
    array = 100.0 * (np.sqrt((zyx**2).sum(axis=0)) < 0.9) + rng.normal(0, 5, size[::-1])
    grid = Grid(size, spacing, (-3.0, 7.0, 11.0), tuple(direction.ravel().tolist()))
    return Volume(array.astype(np.float32), grid)


def labels_like(volume: Volume, seed: int = 1) -> Volume:
    return volume.with_array(np.random.default_rng(seed).integers(0, 3, volume.array.shape).astype(np.uint8))


def position(grid: Grid, index: tuple[float, float, float]) -> np.ndarray:
    return (grid.index_to_physical @ [*index, 1.0])[:3]


@pytest.mark.parametrize("direction", ORIENTATIONS, ids=lambda matrix: "".join(map(str, matrix.astype(int).ravel())))
def test_every_orientation_is_brought_to_lps_and_back_without_moving_a_voxel(direction: np.ndarray) -> None:
    grid = Grid((5, 6, 7), (0.5, 0.75, 2.0), (-3.0, 7.0, 11.0), tuple(direction.ravel().tolist()))
    array = np.arange(5 * 6 * 7).reshape(7, 6, 5)
    orientation = Orientation.of(grid)
    lps, lps_grid = orientation.to_lps(array), orientation.grid_in_lps(grid)
    assert np.array_equal(np.reshape(lps_grid.direction, (3, 3)), AXES)
    assert lps.shape == lps_grid.shape
    for index in ((0, 0, 0), (4, 0, 0), (1, 2, 3), (4, 5, 6)):
        there = np.round(lps_grid.physical_to_index @ [*position(grid, index), 1.0]).astype(int)[:3]
        assert lps[tuple(there[::-1])] == array[tuple(reversed(index))]
    assert np.array_equal(orientation.from_lps(lps), array)


@pytest.mark.parametrize("size", [(40, 36, 24), (12, 36, 6), (8, 8, 8)], ids=str)
@pytest.mark.parametrize("direction", [AXES, ORIENTATIONS[11], ORIENTATIONS[30]], ids=["LPS", "other", "another"])
def test_without_resampling_a_result_comes_back_to_the_bit(size: tuple[int, int, int], direction: np.ndarray) -> None:
    """Also where the scan is smaller than the crop, which is padded then."""
    scan = a_scan(size, (0.5, 0.5, 0.5), direction)
    label = labels_like(scan)
    prepared = prepare(scan, None, SMALL)
    cut = prepare(scan, label.with_array(np.zeros_like(label.array)), SMALL)
    assert prepared.image.grid.size == (16, 12, 10)
    assert cut.image.grid == prepared.image.grid
    values = np.random.default_rng(2).integers(1, 200, prepared.image.array.shape).astype(np.uint8)
    restored = prepared.restore(values)
    assert restored.shape == scan.array.shape
    assert restored.dtype == np.uint8
    # Every voxel of the scan lies at its place in the crop or is background.
    to_crop = prepared.image.grid.physical_to_index @ scan.grid.index_to_physical
    index = np.stack(np.meshgrid(*map(np.arange, scan.array.shape), indexing="ij")[::-1], axis=-1)
    there = np.round(index @ to_crop[:3, :3].T + to_crop[:3, 3]).astype(int)
    inside = np.all((there >= 0) & (there < prepared.image.grid.size), axis=-1)
    expected = np.zeros(scan.array.shape, np.uint8)
    expected[inside] = values[tuple(there[inside][:, axis] for axis in (2, 1, 0))]
    assert np.array_equal(restored, expected)


def test_the_label_of_the_crop_restored_is_the_label_of_the_scan() -> None:
    scan = a_scan((60, 50, 30), (0.5, 0.5, 1.5), ORIENTATIONS[21])
    array = np.zeros(scan.array.shape, np.uint8)
    array[3:9, 40:46, 5:12] = 1
    array[5:7, 38:40, 12:15] = 2
    prepared = prepare(scan, scan.with_array(array), SMALL)
    assert prepared.label is not None
    assert np.array_equal(prepared.restore(prepared.label.array), array)


def test_probabilities_come_back_with_certain_background_around() -> None:
    scan = a_scan((40, 36, 24), (0.5, 0.5, 1.5))
    prepared = prepare(scan, None, SMALL)
    raw = np.random.default_rng(0).random((3, *prepared.image.array.shape)).astype(np.float32)
    restored = prepared.restore(raw / raw.sum(axis=0))
    assert restored.shape == (3, *scan.array.shape)
    assert np.allclose(restored.sum(axis=0), 1.0, atol=1e-6)
    assert np.array_equal(restored[:, 0, 0, 0], [1.0, 0.0, 0.0])
    assert np.count_nonzero(restored[0] < 1) == raw[0].size


def test_probabilities_that_are_resampled_still_add_up_to_one() -> None:
    scan = a_scan((70, 66, 24), (0.41, 0.41, 1.5), ORIENTATIONS[30])
    prepared = prepare(scan, None, Preparation(crop_x=40, crop_y=40, crop_z=16))
    raw = np.random.default_rng(0).random((2, *prepared.image.array.shape)).astype(np.float32)
    restored = prepared.restore(raw / raw.sum(axis=0))
    assert restored.shape == (2, *scan.array.shape)
    assert np.allclose(restored.sum(axis=0), 1.0, atol=1e-5)


def test_a_structure_keeps_its_volume_there_and_back_through_resampling() -> None:
    scan = a_scan((120, 120, 20), (0.41, 0.41, 1.5))
    array = np.zeros(scan.array.shape, np.uint8)
    array[8:11, 50:58, 60:69] = 2  # 216 voxels of 0.25 mm3: 54 mm3, a cochlea
    prepared = prepare(scan, scan.with_array(array), Preparation(crop_x=64, crop_y=64, crop_z=16))
    assert prepared.label is not None
    before = np.count_nonzero(array) * scan.grid.voxel_volume_mm3
    inside = np.count_nonzero(prepared.label.array == 2) * prepared.label.grid.voxel_volume_mm3
    after = np.count_nonzero(prepared.restore(prepared.label.array) == 2) * scan.grid.voxel_volume_mm3
    assert inside == pytest.approx(before, rel=0.01)
    assert after == pytest.approx(before, rel=0.01)


def test_the_image_has_the_published_resolution_size_mean_and_deviation() -> None:
    scan = a_scan((100, 110, 40), (0.8, 0.8, 1.5))
    prepared = prepare(scan)
    assert prepared.image.grid.size == (192, 192, 64)
    assert prepared.image.grid.spacing == (0.5, 0.5, 1.5)
    assert prepared.image.array.dtype == np.float32
    whole = prepare(scan, None, Preparation(region="whole", in_plane_spacing=0.0))
    assert whole.image.grid == scan.grid
    assert float(whole.image.array.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(whole.image.array.std()) == pytest.approx(1.0, abs=1e-5)
    # The crop is normalized by the whole scan and padded by its darkest value.
    assert prepared.image.array[0, 0, 0] == whole.image.array.min()


def test_a_spacing_that_differs_by_rounding_is_not_resampled() -> None:
    scan = a_scan((40, 36, 24), (0.50000002, 0.49999998, 1.5))
    assert prepare(scan, None, SMALL).image.grid.spacing == scan.grid.spacing


def test_the_crop_moves_until_every_annotation_is_inside() -> None:
    scan = a_scan((60, 50, 40), (0.5, 0.5, 1.5))
    for corner in itertools.product((0, 38), (0, 48), (0, 58)):
        array = np.zeros(scan.array.shape, np.uint8)
        array[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2, corner[2] : corner[2] + 2] = 1
        prepared = prepare(scan, scan.with_array(array), SMALL)
        assert prepared.label is not None
        assert np.count_nonzero(prepared.label.array) == 8


def test_annotations_larger_than_the_crop_are_refused() -> None:
    scan = a_scan((60, 50, 40), (0.5, 0.5, 1.5))
    array = np.zeros(scan.array.shape, np.uint8)
    array[5, 5, 3] = array[5, 5, 50] = 1
    with pytest.raises(InputError, match="span 48 voxels along the patient's x axis, more than the crop: 16"):
        prepare(scan, scan.with_array(array), SMALL)


def test_a_label_on_another_grid_or_an_empty_image_is_refused() -> None:
    scan = a_scan((40, 36, 24), (0.5, 0.5, 1.5))
    with pytest.raises(InputError, match="does not lie on the grid of its image"):
        prepare(scan, labels_like(a_scan((40, 36, 23), (0.5, 0.5, 1.5))), SMALL)
    with pytest.raises(InputError, match="same value everywhere"):
        prepare(scan.with_array(np.zeros_like(scan.array)), None, SMALL)


def test_a_part_that_would_fill_the_memory_is_refused_before_it_is_made() -> None:
    scan = a_scan((30, 30, 20), (1.0, 1.0, 1.5))
    with pytest.raises(InputError, match="Too many voxels for the network: 1024 x 1024 x 1024"):
        prepare(scan, None, Preparation(crop_x=1024, crop_y=1024, crop_z=1024))
    large = Volume(scan.array, Grid(scan.grid.size, (40.0, 40.0, 40.0), scan.grid.origin, scan.grid.direction))
    with pytest.raises(InputError, match="Too many voxels for the network: 12000 x 12000 x 20"):
        prepare(large, None, Preparation(region="whole", in_plane_spacing=0.1))
    for name in ("in_plane_spacing", "slice_spacing"):
        with pytest.raises(InputError, match=rf"{name} is too fine: 1e-300\. Use 0 or at least 0\.05 mm"):
            Preparation(**{name: 1e-300})


def test_restore_refuses_an_array_of_another_shape() -> None:
    prepared = prepare(a_scan((40, 36, 24), (0.5, 0.5, 1.5)), None, SMALL)
    with pytest.raises(ValueError, match="restore needs an array"):
        prepared.restore(np.zeros((3, 3, 3), np.uint8))


# --- the position of the inner ears ----------------------------------------------------------------------------------


def test_both_cochleae_of_a_simulated_subject_lie_in_the_crop() -> None:
    """In the whole scan of either modality and in a slab of it."""
    from crossmoda.simulation import Settings, simulate_subject

    subject = simulate_subject(1, settings=Settings(in_plane_spacing=1.0))
    for image, label in ((subject.cet1, subject.cet1_label), (subject.hrt2, subject.hrt2_label)):
        for scan, truth in ((image, label), cut_to_slab(image, label)):
            grid = prepare(scan).image.grid
            index = grid.to_index(truth.grid.points(truth.array > 0))
            assert np.all(index >= 0)
            assert np.all(index <= np.asarray(grid.size) - 1)


def cut_to_slab(image: Volume, label: Volume) -> tuple[Volume, Volume]:
    """The slab that is planned on the inner ears: 40 slices around the annotations, or all there are."""
    slices = np.flatnonzero(label.array.any(axis=(1, 2)))
    first = max(0, (slices[0] + slices[-1]) // 2 - 20)
    part = (slice(None), slice(None), slice(int(first), int(first) + 40))
    return tuple(Volume.from_sitk(volume.to_sitk()[part]) for volume in (image, label))  # type: ignore[return-value]


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["T1", "T2"])
@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (12.0, 8.0, -10.0)], ids=["straight", "tilted"])
def test_the_labyrinths_of_a_real_average_head_lie_in_the_crop(shared_data, name: str, tilt: tuple[float, ...]) -> None:
    """ICBM152: the labyrinths are seen at x = +-25, y = 27, z = -40 mm (LPS) in slices 36 to 46."""
    import SimpleITK as sitk

    image = read(shared_data / "icbm152_2009c_sym" / f"icbm152_09c_{name}.nii.gz")
    pose = sitk.Euler3DTransform()
    pose.SetRotation(*np.radians(tilt))
    scan = resample(image, Grid((150, 180, 120), (1.3, 1.3, 1.5), (-97.0, -131.0, -78.0), tuple(AXES.ravel())), pose)
    grid = prepare(scan).image.grid
    for x in (-25.0, 25.0):
        point = pose.GetInverse().TransformPoint((x, 27.0, -40.0))
        index = grid.to_index(point)
        # 10 mm around it, for the cochlea, the vestibule and a tumor in the canal.
        assert np.all(index > 10.0 / np.asarray(grid.spacing))
        assert np.all(index < np.asarray(grid.size) - 10.0 / np.asarray(grid.spacing))


@pytest.mark.parametrize("scale", [1.0, 1e-42])
@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 40, 40), (40, 2, 40)])
def test_the_middle_of_an_image_thinner_than_the_search_is_found(shape: tuple[int, ...], scale: float) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.float32(scale)
    scan = Volume(array, Grid(shape[::-1], (0.5, 0.5, 0.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    place = head_region.temporal_bones(scan)
    assert all(-0.5 <= index <= size for index, size in zip(place, scan.grid.size, strict=True))


def test_the_head_is_found_in_noise_and_with_a_bright_rim() -> None:
    scan = a_scan((64, 64, 40), (3.0, 3.0, 4.0))
    scan.array[0, 0, :] = 5000.0
    mask = head_region.foreground(scan.array, scan.grid.spacing_zyx)
    zyx = np.stack(np.meshgrid(*(np.linspace(-1, 1, count) for count in scan.array.shape), indexing="ij"))
    truth = np.sqrt((zyx**2).sum(axis=0)) < 0.9
    assert 2 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum()) > 0.95
