"""Registration from end to end: known transforms are recovered, results are consistent, bad input is reported."""

import dataclasses
import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import deeds, threads, volume
from crossmoda.deeds.files import RegistrationOutputs, RegistrationSettings, register_files
from crossmoda.errors import Cancelled, InputError
from crossmoda.volume.grid import Grid, Volume
from phantoms import dice

Points = Callable[[np.ndarray], np.ndarray]
AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
CPU = deeds.Settings(device="cpu")
FILES = RegistrationSettings(device="cpu")
CENTER = np.array([10.0, -20.0, 5.0])


def grid(
    spacing: tuple[float, float, float] = (1.5, 1.5, 2.0), tilt: float = 0.0, extent: float = 84.0, shift: float = 0.0
) -> Grid:
    """A grid around the scene, tilted about x by ``tilt`` degrees."""
    angle = np.deg2rad(tilt)
    direction = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    size = np.round(extent / np.array(spacing)).astype(int)
    origin = CENTER + shift - direction @ ((size - 1) / 2 * spacing)
    return Grid(tuple(size.tolist()), spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist()))


def _anatomy() -> np.ndarray:
    """Rounded regions of distinct brightness with edges, as tissue has, on 1 mm voxels of 100 mm."""
    rng = np.random.default_rng(0)
    regions = ndimage.zoom(np.round(2.2 * ndimage.gaussian_filter(rng.normal(size=(50,) * 3), 2.5) * 12), 2, order=1)
    return ndimage.gaussian_filter(regions, 0.7)


ANATOMY = _anatomy()


def positions(where: Grid) -> np.ndarray:
    z, y, x = np.meshgrid(*(np.arange(size) for size in where.shape), indexing="ij")
    matrix = where.index_to_physical
    return np.stack([x, y, z], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]


def scene(points: np.ndarray) -> np.ndarray:
    """Brightness at LPS points: the anatomy inside a head of 38 mm radius, air around it."""
    local = points - CENTER
    inside = 1 / (1 + np.exp((np.linalg.norm(local, axis=-1) - 38) / 0.8))
    value = ndimage.map_coordinates(ANATOMY, np.moveaxis(local + 50, -1, 0), order=1, mode="nearest")
    return inside * (300 + 60 * value)


def scan(where: Grid, mapping: Points | None = None, contrast: str = "same", seed: int = 0) -> Volume:
    """Scan the scene, seen through ``mapping`` from points of this scan to the scene."""
    points = positions(where)
    array = scene(points if mapping is None else mapping(points))
    if contrast == "inverted":
        array = np.where(array > 20, 700 - array, 0)
    noise = np.random.default_rng(seed).normal(0, 5, array.shape)
    return Volume(np.abs(array + noise).astype(np.float32), where)


def linear(matrix: np.ndarray, shift: tuple[float, float, float] = (0, 0, 0)) -> Points:
    return lambda points: (points - CENTER) @ np.asarray(matrix).T + CENTER + shift


def rotation(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


def wave(points: np.ndarray) -> np.ndarray:
    """A smooth deformation of up to 4 mm along each axis."""
    z = (points - CENTER) / 40
    bend = np.stack([np.sin(2 * z[..., 1]), np.sin(2 * z[..., 2] + 1), np.cos(2 * z[..., 0])], axis=-1)
    return points + 4 * bend


def errors(registration: deeds.Registration, mapping: Points, where: Grid) -> np.ndarray:
    """How far (mm) the points of the head land from where they belong; ``mapping`` is moving points to the scene."""
    points = positions(where)[2::4, 2::4, 2::4].reshape(-1, 3)
    points = points[np.linalg.norm(points - CENTER, axis=1) < 34]
    landed = np.array([registration.transform.TransformPoint(point) for point in points.tolist()])
    return np.linalg.norm(mapping(landed) - points, axis=1)


# Known transforms


def test_an_image_registered_to_itself_stays_where_it_is():
    image = scan(grid())
    assert errors(deeds.register(image, image, CPU), lambda points: points, image.grid).max() < 0.2


@pytest.mark.parametrize(
    ("name", "mapping", "tolerance_mm"),
    [
        ("translation", linear(np.eye(3), (6.0, -9.0, 7.0)), 0.5),
        ("rotation", linear(rotation(10), (2.0, 3.0, 0.0)), 0.6),
        ("scale", linear(np.diag([1.08, 0.94, 1.05])), 0.6),
    ],
)
def test_linear_transforms_are_found_under_inverted_contrast(name, mapping, tolerance_mm):
    fixed, moving = scan(grid()), scan(grid(), mapping, "inverted", seed=1)
    found = deeds.register(fixed, moving, dataclasses.replace(CPU, levels=0))
    assert errors(found, mapping, fixed.grid).mean() < tolerance_mm


def test_rigid_registration_neither_scales_nor_shears():
    mapping = linear(np.diag([1.08, 0.94, 1.05]))
    found = deeds.register(scan(grid()), scan(grid(), mapping), dataclasses.replace(CPU, linear="rigid", levels=0))
    assert found.jacobian_statistics()["minimum"] == pytest.approx(1, abs=1e-4)
    assert found.jacobian_statistics()["maximum"] == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def deformed() -> tuple[Volume, Volume, deeds.Registration]:
    """A deformed pair with inverted contrast, other spacings and tilted grids."""
    fixed = scan(grid((1.0, 1.0, 2.0), tilt=8))
    moving = scan(grid((1.3, 1.3, 1.6), tilt=-5, extent=90, shift=2), wave, "inverted", seed=1)
    return fixed, moving, deeds.register(fixed, moving, CPU)


def test_a_smooth_deformation_is_found_between_tilted_anisotropic_grids(deformed):
    fixed, _, found = deformed
    error = errors(found, wave, fixed.grid)
    assert error.mean() < 0.8
    assert np.percentile(error, 95) < 2.0


def test_the_deformation_neither_folds_nor_disagrees_with_its_inverse(deformed):
    fixed, _, found = deformed
    assert found.jacobian_statistics()["folding_percent"] < 0.1
    assert found.inverse_consistency().mean() < 0.5 * min(fixed.grid.spacing)


def test_what_moves_across_the_border_of_the_fixed_image_comes_back():
    mapping = linear(np.eye(3), (0.0, 0.0, -14.0))  # mm: further than the control points' distance
    fixed, moving = scan(grid(extent=66)), scan(grid(extent=100), mapping, seed=1)
    found = deeds.register(fixed, moving, dataclasses.replace(CPU, linear="none"))
    points = positions(fixed.grid)[1::2, 1::8, 1::8].reshape(-1, 3)
    there = np.array([found.transform.TransformPoint(point) for point in points.tolist()])
    place = (there - fixed.grid.origin) / fixed.grid.spacing
    beyond = (place > np.array(fixed.grid.size) + 4).any(axis=1)  # the grid is not tilted
    assert beyond.mean() > 0.05
    back = np.array([found.inverse_transform.TransformPoint(point) for point in there.tolist()])
    assert np.linalg.norm(back - points, axis=1)[beyond].max() < 0.5 * min(fixed.grid.spacing)


def test_voxel_units_find_the_deformation_too():
    where = grid((1.5, 1.5, 1.5))
    moving = scan(where, wave, "inverted", seed=1)
    found = deeds.register(scan(where), moving, dataclasses.replace(CPU, units="voxel"))
    assert errors(found, wave, where).mean() < 1.2


def test_swapping_fixed_and_moving_gives_the_inverse(deformed):
    fixed, moving, found = deformed
    swapped = deeds.register(moving, fixed, CPU)
    points = positions(fixed.grid)[4::8, 8::16, 8::16].reshape(-1, 3)
    points = points[np.linalg.norm(points - CENTER, axis=1) < 30].tolist()
    forward = np.array([found.transform.TransformPoint(point) for point in points])
    backward = np.array([swapped.inverse_transform.TransformPoint(point) for point in points])
    assert np.linalg.norm(forward - backward, axis=1).mean() < 0.8


def test_the_same_pair_gives_the_same_result_to_the_bit(deformed):
    fixed, moving, found = deformed
    again = deeds.register(fixed, moving, CPU)
    first, second = (sitk.GetArrayFromImage(each.displacement_field()) for each in (found, again))
    assert np.array_equal(first, second)


def test_centers_of_mass_bring_distant_images_together():
    mapping = linear(np.eye(3), (150.0, -80.0, 60.0))
    moving = scan(
        dataclasses.replace(grid(), origin=tuple(np.subtract(grid().origin, (150, -80, 60)).tolist())), mapping
    )
    fixed = scan(grid())
    found = deeds.register(
        fixed, moving, dataclasses.replace(CPU, levels=0), initial=deeds.center_alignment(fixed, moving)
    )
    assert errors(found, mapping, grid()).mean() < 0.5


def test_a_given_transform_is_where_the_registration_starts():
    mapping = linear(np.eye(3), (45.0, 0.0, 0.0))
    initial = sitk.TranslationTransform(3, (-43.0, 1.0, 1.0))
    moving = scan(grid(extent=110), mapping)
    found = deeds.register(scan(grid()), moving, dataclasses.replace(CPU, levels=0), initial=initial)
    assert errors(found, mapping, grid()).mean() < 0.5


def test_without_any_stage_the_initial_transform_comes_back():
    settings = dataclasses.replace(CPU, linear="none", levels=0)
    initial = sitk.TranslationTransform(3, (3.0, 1.0, -2.0))
    found = deeds.register(scan(grid()), scan(grid()), settings, initial=initial)
    assert found.transform.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx((4.0, 3.0, 1.0))
    assert found.inverse_transform.TransformPoint((4.0, 3.0, 1.0)) == pytest.approx((1.0, 2.0, 3.0))


def test_what_a_mask_excludes_does_not_disturb():
    where = grid()
    mapping = linear(np.eye(3), (0.0, 8.0, 0.0))
    fixed, moving = scan(where), scan(where, mapping)
    beyond = positions(where)[..., 0] > CENTER[0] + 8
    mask = fixed.with_array((~beyond).astype(np.uint8))
    rng = np.random.default_rng(3)
    spoiled = np.where(beyond, ndimage.gaussian_filter(rng.normal(size=fixed.array.shape), 2) * 4000 + 500, fixed.array)
    found = deeds.register(fixed.with_array(spoiled.astype(np.float32)), moving, CPU, fixed_mask=mask)
    points = np.array(
        [point for point in positions(where)[mask.array > 0][::97] if np.linalg.norm(point - CENTER) < 30]
    )
    points = points[points[:, 0] < CENTER[0] - 4]
    landed = np.array([found.transform.TransformPoint(point) for point in points.tolist()])
    assert np.linalg.norm(mapping(landed) - points, axis=1).mean() < 1.0


@pytest.mark.shared_data
def test_t1_to_t2_of_a_real_spinal_cord_brings_the_mask_along(shared_data):
    folder = shared_data / "sct_cord"
    fixed, moving = volume.read(folder / "t2.nii.gz"), volume.read(folder / "t1w.nii.gz")
    label, truth = (volume.read_label_map(folder / f"{name}_seg-manual.nii.gz") for name in ("t1w", "t2"))
    found = deeds.register(fixed, moving, CPU)

    before = volume.resample(label, fixed.grid, interpolation="label")
    assert dice(before.array > 0, truth.array > 0) == pytest.approx(0.85, abs=0.03)
    assert dice(found.warp_label_map(label).array > 0, truth.array > 0) > 0.93


# The result


def arrow(where: Grid, mapping: Points) -> Volume:
    """A label map without any symmetry: a corner with three legs of different length."""
    local = mapping(positions(where)) - CENTER
    legs = [(local[..., k] > -3) & (local[..., k] < 5 + 6 * k) for k in range(3)]
    thin = [np.abs(local[..., k]) < 3 for k in range(3)]
    shape = (legs[0] & thin[1] & thin[2]) | (thin[0] & legs[1] & thin[2]) | (thin[0] & thin[1] & legs[2])
    return Volume(shape.astype(np.uint8), where)


def test_the_transform_file_moves_an_asymmetric_shape_the_right_way(deformed, tmp_path):
    fixed, moving, found = deformed
    found.save(tmp_path, moving, arrow(moving.grid, wave))
    truth = arrow(fixed.grid, lambda points: points).array > 0
    # read by SimpleITK alone, as Slicer and ANTs do: the transform resamples the moving side on the fixed grid
    transform = sitk.ReadTransform(str(tmp_path / "T.h5"))
    shape = sitk.Cast(arrow(moving.grid, wave).to_sitk(), sitk.sitkFloat32)
    warped = sitk.GetArrayFromImage(sitk.Resample(shape, fixed.to_sitk(), transform, sitk.sitkLinear)) > 0.5
    assert 2 * (warped & truth).sum() / (warped.sum() + truth.sum()) > 0.8
    label = volume.read_label_map(tmp_path / "warped_label.nii.gz")
    assert label.grid.same_as(fixed.grid)
    assert 2 * ((label.array > 0) & truth).sum() / (label.array.sum() + truth.sum()) > 0.8
    assert label.array.sum() == pytest.approx(truth.sum(), rel=0.15)


def test_a_saved_registration_is_read_again(deformed, tmp_path):
    _, _, found = deformed
    again = deeds.load(found.save(tmp_path / "with space é"))
    point = (CENTER + 3).tolist()
    assert again.transform.TransformPoint(point) == pytest.approx(found.transform.TransformPoint(point), abs=1e-6)
    assert again.inverse_transform.TransformPoint(point) == pytest.approx(
        found.inverse_transform.TransformPoint(point), abs=1e-6
    )
    assert again.fixed_grid == found.fixed_grid
    assert again.provenance["parameters"]["alpha"] == CPU.alpha


def test_the_displacement_field_file_is_the_transform(deformed, tmp_path):
    fixed, _, found = deformed
    found.write_displacement_field(tmp_path / "field.nrrd")
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "field.nrrd"), sitk.sitkVectorFloat64))
    point = fixed.to_sitk().TransformIndexToPhysicalPoint((40, 30, 20))
    assert field.TransformPoint(point) == pytest.approx(found.transform.TransformPoint(point), abs=1e-3)


def test_composition_and_inversion_are_those_of_points(deformed):
    _, _, found = deformed
    round_trip = found.compose(found.invert())
    point = np.add(CENTER, (5, -8, 4)).tolist()
    expected = found.inverse_transform.TransformPoint(found.transform.TransformPoint(point))
    assert round_trip.transform.TransformPoint(point) == pytest.approx(expected, abs=1e-9)
    assert found.invert().transform.TransformPoint(point) == found.inverse_transform.TransformPoint(point)
    assert round_trip.fixed_grid == round_trip.moving_grid


def test_the_jacobian_of_a_scaling_is_its_change_of_volume():
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((1.1, 0.1, 0, 0, 0.9, 0, 0, 0, 1.2))
    found = deeds.Registration(transform, transform.GetInverse(), grid(tilt=20), grid())
    statistics = found.jacobian_statistics()
    assert statistics["mean"] == pytest.approx(1.1 * 0.9 * 1.2, rel=1e-4)
    assert statistics["standard_deviation"] == pytest.approx(0, abs=1e-4)
    assert statistics["folding_percent"] == 0


def test_images_and_labels_may_have_another_grid_than_the_registered_moving_image(deformed):
    fixed, moving, found = deformed
    fine = arrow(grid((0.8, 0.8, 0.8), extent=60), wave)
    warped = found.warp_label_map(fine)
    truth = arrow(fixed.grid, lambda points: points).array
    assert warped.grid == fixed.grid
    assert 2 * np.logical_and(warped.array, truth).sum() / (warped.array.sum() + truth.sum()) > 0.8
    assert found.warp_image(moving, grid((3.0, 3.0, 3.0))).array.shape == grid((3.0, 3.0, 3.0)).shape


# Settings, cancelling, bad input


def test_progress_rises_to_one_and_cancelling_leaves_no_file(tmp_path):
    fixed, moving = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    volume.write(scan(grid((3.0, 3.0, 3.0))), fixed)
    volume.write(scan(grid((3.0, 3.0, 3.0)), wave), moving)
    told: list[float] = []
    register_files(fixed, moving, tmp_path / "out", progress=lambda fraction, _: told.append(fraction), settings=FILES)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert json.loads((tmp_path / "out" / "provenance.json").read_text("utf-8"))["folding_percent"] < 0.1

    def cancel(fraction: float, message: str) -> None:
        if fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        register_files(fixed, moving, tmp_path / "cancelled", progress=cancel, settings=FILES)
    assert not (tmp_path / "cancelled").exists()


def test_progress_is_heard_while_one_level_is_computed(monkeypatch):
    monkeypatch.setattr("crossmoda.deeds.registration._SILENCE_SECONDS", 0.0)
    monkeypatch.setattr("crossmoda.threads.thread_count", lambda: 1)
    told: list[tuple[float, str]] = []
    image = scan(grid((3.0, 3.0, 3.0)))
    deeds.register(image, image, CPU, progress=lambda fraction, message: told.append((fraction, message)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert len(told) > 4 * len(set(told))  # progress is reported while a step lasts, so that it can be cancelled


def test_progress_is_told_between_any_two_loops_of_a_registration(monkeypatch):
    events: list[str] = []
    run = threads.run

    def noted(*arguments) -> None:
        events.append("loop")
        run(*arguments)

    monkeypatch.setattr("crossmoda.deeds.registration._SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(threads, "run", noted)
    image = scan(grid((3.0, 3.0, 3.0)))
    deeds.register(image, image, CPU, progress=lambda fraction, message: events.append("told"))
    assert events.count("loop") > 100
    assert all("told" in pair for pair in itertools.pairwise(events))


def test_outputs_appear_together_or_not_at_all(tmp_path):
    fixed = tmp_path / "fixed.nii.gz"
    volume.write(scan(grid((3.0, 3.0, 3.0))), fixed)
    (tmp_path / "file").write_text("in the way")
    outputs = RegistrationOutputs(transform=tmp_path / "T.h5", warped=tmp_path / "file" / "warped.nii.gz")
    with pytest.raises(InputError, match="Cannot write"):
        register_files(fixed, fixed, outputs, settings=dataclasses.replace(FILES, levels=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "fixed.nii.gz"]


def constant() -> Volume:
    return Volume(np.full(grid().shape, 7, np.float32), grid())


def not_finite() -> Volume:
    image = scan(grid())
    image.array[3, 4, 5] = np.nan
    return image


def thin() -> Volume:
    image = scan(grid())
    return Volume(image.array[:4], dataclasses.replace(image.grid, size=(*image.grid.size[:2], 4)))


def far() -> Volume:
    return Volume(scan(grid()).array, dataclasses.replace(grid(), origin=(900.0, 0.0, 0.0)))


def huge() -> Volume:
    return Volume(scan(grid()).array, dataclasses.replace(grid(), spacing=(50.0, 50.0, 50.0)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (huge, "moving image is too large, .* mm; check the spacing"),
        (constant, "moving image is constant"),
        (not_finite, "moving image has values that are not finite"),
        (thin, "moving image is too small"),
        (far, "do not overlap"),
    ],
)
def test_images_that_cannot_be_registered_are_told(image, message):
    with pytest.raises(InputError, match=message):
        deeds.register(scan(grid()), image(), CPU)


def test_too_little_memory_is_told(monkeypatch, tmp_path):
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate 8.60 GiB")

    monkeypatch.setattr("crossmoda.deeds.pyramid.Pyramid", fail)
    volume.write(scan(grid()), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match=r"Not enough memory to register .* Crop the images"):
        register_files(tmp_path / "scan.nii.gz", tmp_path / "scan.nii.gz", tmp_path / "results", settings=FILES)
    assert not (tmp_path / "results").exists()


def test_masks_must_have_content_and_the_grid_of_their_image():
    image = scan(grid())
    with pytest.raises(InputError, match="fixed mask is empty"):
        deeds.register(image, image, CPU, fixed_mask=image.with_array(np.zeros(image.grid.shape, np.uint8)))
    other = Volume(np.ones(grid((3.0, 3.0, 3.0)).shape, np.uint8), grid((3.0, 3.0, 3.0)))
    with pytest.raises(InputError, match="moving mask lies on another grid"):
        deeds.register(image, image, CPU, moving_mask=other)


def test_an_initial_transform_must_be_linear():
    bend = sitk.DisplacementFieldTransform(sitk.Image((4, 4, 4), sitk.sitkVectorFloat64, 3))
    with pytest.raises(InputError, match="not linear"):
        deeds.register(scan(grid()), scan(grid()), CPU, initial=bend)


def test_a_linear_registration_that_collapses_is_refused(monkeypatch):
    where = grid()
    flat = np.diag([1.0, 1.0, 0.001, 1.0])
    monkeypatch.setattr("crossmoda.deeds.affine.least_trimmed_squares", lambda *_, **__: flat)
    with pytest.raises(InputError, match=r"too little in common.*same part of the body"):
        deeds.register(scan(where), scan(where))


def test_a_thin_slab_of_noise_registered_to_itself_stays_where_it_is():
    """Half of the matches agree exactly and lie in one plane: they tell nothing of the direction across it."""
    where = Grid((60, 40, 12), (1.0, 1.0, 1.5), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    noise = Volume(np.random.default_rng(0).normal(size=where.shape).astype(np.float32), where)
    assert deeds.register(noise, noise).displacement_statistics()["percentile_95_mm"] < 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"linear": "similarity"}, "linear must be one of"),
        ({"alpha": 0.0}, "alpha must be"),
        ({"grid_spacing": "8,7,x"}, "not a list of numbers"),
        ({"grid_spacing": "8,7"}, "lists of one length"),
        ({"search_radius": "4,4,3,3,2.5"}, "integers"),
        ({"quantization": "4,3,2,1,0"}, "numbers from 0.01 to 100"),
        ({"quantization": "inf,3,2,1,1"}, "numbers from 0.01 to 100"),
        ({"quantization": "4,3,2,1,nan"}, "numbers from 0.01 to 100"),
        ({"grid_spacing": "1e300,9,7,4,3"}, "numbers from 0.1 to 1000"),
        ({"search_radius": "2000,4,3,3,2"}, "integers from 1 to 50"),
        ({"search_radius": "1" * 9999}, r"out of range: '1{5,30}\.\.\.1{5,30}'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_out_of_range_are_told(values, message):
    with pytest.raises(InputError, match=message):
        deeds.Settings(**values)


def test_a_search_that_would_fill_the_memory_is_refused_before_it_begins():
    large = Grid((200, 200, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    noise = Volume(np.random.default_rng(0).normal(size=large.shape).astype(np.float32), large)
    with pytest.raises(InputError, match="search radius of 50 steps is too much work"):
        deeds.register(noise, noise, deeds.Settings(grid_spacing="9,9,7,4,3", search_radius="4,4,3,3,50"))


def test_voxel_units_have_the_defaults_of_deedsbcv():
    levels = deeds.Settings(units="voxel").deformable_levels()
    assert levels == [(8, 8, 5), (7, 7, 4), (6, 6, 3), (5, 5, 2), (4, 4, 1)]
    assert deeds.Settings(units="voxel").linear_levels() == [(7, 5, 4), (6, 4, 3), (5, 3, 2), (4, 2, 1)]


@pytest.mark.parametrize(
    "content", ["", "null", "1", "[]", "{}", '{"grids": 1}', '{"grids": {"fixed": [], "moving": 1}}']
)
def test_a_folder_with_a_damaged_record_holds_no_registration(tmp_path, content):
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(InputError, match="no complete registration"):
        deeds.load(tmp_path)


@pytest.mark.gpu
def test_cuda_and_cpu_agree(deformed):
    fixed, moving, found = deformed
    other = deeds.register(fixed, moving, deeds.Settings(device="cuda"))
    one, two = (sitk.GetArrayFromImage(each.displacement_field()) for each in (found, other))
    assert np.linalg.norm(one - two, axis=-1).mean() < 0.1
