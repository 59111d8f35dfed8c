"""Resampling keeps positions, and label maps keep the volume of their structures."""

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda.volume import Grid, Volume, resample, resampling

AXES = tuple(np.eye(3).ravel().tolist())
FINE = Grid((56, 56, 24), (0.5, 0.5, 1.5), (-14.0, -14.0, -18.0), AXES)


def ellipsoids(volume_mm3: float, seed: int) -> Volume:
    """A randomly placed and turned ellipsoid on the fine grid."""
    rng = np.random.default_rng(seed)
    axes = rng.uniform(0.6, 1.0, 3)
    axes *= (volume_mm3 / (4 / 3 * np.pi * axes.prod())) ** (1 / 3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    index = np.stack(np.meshgrid(*map(np.arange, FINE.shape), indexing="ij")[::-1], axis=-1)
    points = index * FINE.spacing + FINE.origin - rng.uniform(-1, 1, 3)
    return Volume((((points @ turn / axes) ** 2).sum(axis=-1) <= 1).astype(np.uint8), FINE)


def turned(spacing: tuple[float, float, float], degrees: float, seed: int) -> Grid:
    """A grid around the origin with another spacing, turned, and shifted by part of a voxel."""
    rng = np.random.default_rng(seed)
    euler = sitk.Euler3DTransform()
    euler.SetRotation(*(np.radians(degrees) * rng.uniform(-1, 1, 3)))
    direction = np.reshape(euler.GetMatrix(), (3, 3))
    size = np.ceil(40.0 / np.asarray(spacing)).astype(int)
    origin = -direction @ ((size - 1) / 2 * spacing) + rng.uniform(-0.5, 0.5, 3) * spacing
    return Grid(tuple(size.tolist()), spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist()))


def volume_of(label_map: Volume, value: int = 1) -> float:
    return np.count_nonzero(label_map.array == value) * label_map.grid.voxel_volume_mm3


SPACINGS = [(0.5, 0.5, 1.5), (0.41, 0.41, 1.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.5), (1.0, 1.0, 3.0), (0.7, 0.6, 2.0)]


@pytest.mark.parametrize("volume_mm3", [55.0, 1400.0])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_a_structure_keeps_its_volume_on_every_grid(volume_mm3: float, spacing: tuple[float, float, float]) -> None:
    """55 mm3 is a cochlea. The bound is the rounding to whole voxels of the output and nothing else."""
    for seed in range(4):
        shape = ellipsoids(volume_mm3, seed)
        found = resample(shape, turned(spacing, 15.0, seed), None, "label")
        assert abs(volume_of(found) - volume_of(shape)) <= 0.5 * found.grid.voxel_volume_mm3 + 0.01 * volume_of(shape)


def test_a_threshold_of_one_half_loses_volume_where_this_does_not() -> None:
    """The reason for the method, measured on cochlea-sized ellipsoids that are shifted by part of a voxel."""
    lost, kept = [], []
    for seed in range(12):
        shape, grid = ellipsoids(55.0, seed), turned((0.5, 0.5, 1.5), 10.0, seed)
        occupancy = resample(shape.with_array(shape.array.astype(np.float32)), grid, None, "linear")
        lost.append(np.count_nonzero(occupancy.array >= 0.5) * grid.voxel_volume_mm3 / volume_of(shape) - 1)
        kept.append(volume_of(resample(shape, grid, None, "label")) / volume_of(shape) - 1)
    assert np.mean(lost) < -0.03
    assert abs(np.mean(kept)) < 0.003


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
def test_a_transform_that_changes_volumes_changes_the_structure_by_its_determinant(scale: float) -> None:
    shape = ellipsoids(200.0, 3)
    transform = sitk.AffineTransform(3)
    transform.Scale(scale)  # output points to label map points: the shape becomes smaller by scale^3
    found = resample(shape, turned((0.5, 0.5, 1.5), 5.0, 1), transform, "label")
    assert volume_of(found) == pytest.approx(volume_of(shape) / scale**3, rel=0.015)


def deformation(grid: Grid) -> sitk.Transform:
    """A smooth displacement of up to 3 mm with known Jacobian: x' = x + 3 sin(x / 6), alone along x."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")[::-1], axis=-1)
    points = index @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]
    field = np.zeros(points.shape)
    field[..., 0] = 3 * np.sin(points[..., 0] / 6)
    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return sitk.DisplacementFieldTransform(image)


def test_under_a_deformation_the_volume_is_that_of_the_warped_shape() -> None:
    """Truth: the implicit box |x'| <= 4, |y| <= 5, |z| <= 6 with x' = x + 3 sin(x / 6): its edge solves x' = 4."""
    index = np.stack(np.meshgrid(*map(np.arange, FINE.shape), indexing="ij")[::-1], axis=-1)
    points = index * FINE.spacing + FINE.origin
    inside = np.all(np.abs(points - (0.25, 0.25, 0.75)) <= (4.0, 5.0, 6.0), axis=-1)
    box = Volume(inside.astype(np.uint8), FINE)
    edges = []
    for target in (-3.75, 4.25):
        low, high = -10.0, 10.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if middle + 3 * np.sin(middle / 6) < target else (low, middle)
        edges.append(low)
    expected = (edges[1] - edges[0]) / 8.0 * volume_of(box)
    found = resample(box, FINE, deformation(FINE), "label")
    assert volume_of(found) == pytest.approx(expected, rel=0.02)


def test_a_label_map_on_its_own_grid_stays_as_it_is() -> None:
    shape = ellipsoids(55.0, 5)
    again = resample(shape, FINE, sitk.Transform(3, sitk.sitkIdentity), "label")
    assert np.array_equal(again.array, shape.array)
    assert again.array.dtype == np.uint8


def test_a_shift_by_whole_voxels_moves_every_voxel_exactly() -> None:
    array = np.random.default_rng(0).integers(0, 3, FINE.shape).astype(np.uint8)
    array[:, :, -4:] = 0
    moved = resample(Volume(array, FINE), FINE, sitk.TranslationTransform(3, (-2.0, 0.0, 0.0)), "label")
    assert np.array_equal(moved.array[:, :, 4:], array[:, :, :-4])


def test_a_flipped_and_permuted_grid_gives_the_same_voxels() -> None:
    shape = ellipsoids(300.0, 2)
    image = sitk.PermuteAxes(sitk.Flip(shape.to_sitk(), (True, False, True)), (2, 0, 1))
    reordered = Volume.from_sitk(image)
    assert np.array_equal(resample(shape, reordered.grid, None, "label").array, reordered.array)


def test_touching_structures_both_keep_their_volume() -> None:
    array = np.zeros(FINE.shape, np.uint8)
    array[6:16, 15:40, 15:28] = 1
    array[9:12, 20:30, 28:34] = 2
    both = Volume(array, FINE)
    for seed in range(5):
        found = resample(both, turned((0.8, 0.8, 2.0), 20.0, seed), None, "label")
        for value in (1, 2):
            assert volume_of(found, value) == pytest.approx(volume_of(both, value), abs=2 * found.grid.voxel_volume_mm3)


def test_a_structure_at_the_edge_of_the_label_map_keeps_its_volume() -> None:
    array = np.zeros(FINE.shape, np.uint8)
    array[:4, 10:20, -6:] = 1
    edge = Volume(array, FINE)
    wide = Grid((120, 120, 50), (0.5, 0.5, 1.5), (-30.1, -30.2, -36.4), AXES)
    assert volume_of(resample(edge, wide, None, "label")) == pytest.approx(volume_of(edge), rel=0.01)


def test_a_structure_outside_the_grid_is_not_there() -> None:
    shape = ellipsoids(55.0, 1)
    away = Grid((20, 20, 20), (1.0, 1.0, 1.0), (100.0, 0.0, 0.0), AXES)
    assert not resample(shape, away, None, "label").array.any()


def test_a_single_voxel_survives_a_shift_by_half_a_voxel() -> None:
    array = np.zeros(FINE.shape, np.uint8)
    array[10, 20, 20] = 2
    moved = resample(Volume(array, FINE), FINE, sitk.TranslationTransform(3, (0.25, 0.25, 0.75)), "label")
    assert np.count_nonzero(moved.array == 2) == 1


@pytest.mark.parametrize("interpolation", ["linear", "bspline", "nearest"])
def test_an_image_is_sampled_where_the_transform_points(interpolation: str) -> None:
    """A ramp 2 x + 3 y - z is reproduced by linear and cubic interpolation; nearest stays within half a voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, FINE.shape), indexing="ij")[::-1], axis=-1)
    ramp = Volume(((index * FINE.spacing + FINE.origin) @ (2.0, 3.0, -1.0)).astype(np.float32), FINE)
    inner = Grid((20, 20, 9), (0.45, 0.55, 1.1), (-5.0, -5.0, -5.0), AXES)
    found = resample(ramp, inner, sitk.TranslationTransform(3, (1.0, -2.0, 0.5)), interpolation)
    index = np.stack(np.meshgrid(*map(np.arange, inner.shape), indexing="ij")[::-1], axis=-1)
    expected = (index * inner.spacing + inner.origin + (1.0, -2.0, 0.5)) @ (2.0, 3.0, -1.0)
    tolerance = 0.5 * (2 * 0.5 + 3 * 0.5 + 1.5) + 1e-3 if interpolation == "nearest" else 1e-3
    assert np.abs(found.array - expected).max() < tolerance


@pytest.mark.parametrize("spacing", [(0.9, 0.7, 1.6), (3.0, 3.0, 3.0)], ids=str)
def test_deformed_images_have_the_values_that_itk_gives_them(spacing: tuple[float, float, float]) -> None:
    """Linear parts before, between and behind two fields, oblique grids, and points beyond image and fields."""
    rng = np.random.default_rng(5)
    image = Volume(rng.normal(100.0, 30.0, FINE.shape).astype(np.float32), FINE)
    affine, field_grid = sitk.AffineTransform(3), turned((4.0, 5.0, 3.5), 12.0, 2)
    affine.Rotate(0, 2, 0.15)
    affine.Translate((1.5, -1.0, 2.0))
    parts = [affine, deformation(field_grid), sitk.Euler3DTransform((1, 2, 3), 0.1, 0.0, 0.2), deformation(FINE)]
    transform, grid = (
        sitk.CompositeTransform([*parts, sitk.TranslationTransform(3, (1.0, 0.5, -2.0))]),
        turned(spacing, 8, 1),
    )
    result = resample(image, grid, transform, outside=-9.0).array
    geometry = (grid.origin, grid.spacing, grid.direction)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image.to_sitk(), grid.size, transform, sitk.sitkLinear, *geometry, -9.0)
    )
    assert 0.1 < np.mean(expected == -9.0) < 0.9
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_outside_an_image_its_given_value_stands() -> None:
    ones = Volume(np.ones(FINE.shape, np.float32), FINE)
    away = Grid((4, 4, 4), (1.0, 1.0, 1.0), (100.0, 0.0, 0.0), AXES)
    assert np.all(resample(ones, away, None, "linear", outside=-7.0).array == -7.0)


def test_an_unknown_interpolation_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="got 'cubic'"):
        resample(ellipsoids(55.0, 0), turned((1, 1, 1), 0, 0), None, "cubic")


def test_only_the_part_that_a_grid_needs_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(size=FINE.shape).astype(np.float32), FINE)
    given: list[int] = []
    whole = Volume.to_sitk
    monkeypatch.setattr(Volume, "to_sitk", lambda self: given.append(self.array.size) or whole(self))
    for seed in range(8):
        shift = rng.uniform(-16, 16, 3)
        small = turned((0.8, 0.8, 0.8), 20.0, seed).crop((slice(20, 30),) * 3)
        move = sitk.TranslationTransform(3, shift.tolist())
        part = resample(image, small, move, outside=-9.0)
        monkeypatch.setattr(resampling, "_LARGEST_SHARE", 0.0)
        np.testing.assert_allclose(part.array, resample(image, small, move, outside=-9.0).array, atol=1e-5)
        monkeypatch.undo()
        monkeypatch.setattr(Volume, "to_sitk", lambda self: given.append(self.array.size) or whole(self))
    assert min(given) < image.array.size == max(given)
