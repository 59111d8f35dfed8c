"""Signal equations, noise, coil sensitivity and slice profile of the digital subjects, against theory."""

import numpy as np
import pytest

from crossmoda.simulation import acquisition, lesion
from crossmoda.simulation.tissues import (
    PROPERTIES,
    Tissue,
    balanced_ssfp,
    draw_contrast,
    enhanced,
    spoiled_gradient_echo,
)
from crossmoda.volume import Grid

GRID = Grid((48, 48, 24), (4.0, 4.0, 4.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def _bloch_steady_state(t1, t2, tr, flip_deg, spoiled):
    """The transverse magnetization just after the pulse, by stepping the Bloch equations until nothing changes."""
    flip = np.deg2rad(flip_deg)
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    m = np.array([0.0, 1.0])  # transverse (along the pulse's phase), longitudinal
    for n in range(6000):
        sign = 1 if spoiled or n % 2 == 0 else -1
        turn = np.array([[np.cos(flip), sign * np.sin(flip)], [-sign * np.sin(flip), np.cos(flip)]])
        m = turn @ m
        signal = abs(m[0])
        m = np.array([0.0 if spoiled else m[0] * e2, 1 + (m[1] - 1) * e1])
    return signal


@pytest.mark.parametrize(("t1", "t2"), [(640.0, 76.0), (4000.0, 2000.0), (250.0, 60.0)])
def test_the_signal_equations_agree_with_stepping_the_bloch_equations(t1, t2):
    one = np.array([1.0])
    ideal = balanced_ssfp(one, one * t1, one * t2, tr_ms=9.0, te_ms=0.0, flip_deg=65.0)
    assert ideal[0] == pytest.approx(_bloch_steady_state(t1, t2, 9.0, 65.0, spoiled=False), rel=1e-3)
    ideal = spoiled_gradient_echo(one, one * t1, one * t2, tr_ms=18.0, te_ms=0.0, flip_deg=25.0)
    assert ideal[0] == pytest.approx(_bloch_steady_state(t1, t2, 18.0, 25.0, spoiled=True), rel=1e-3)


def test_balanced_ssfp_at_its_best_angle_gives_half_the_root_of_t2_over_t1():
    # Freeman and Hill 1971: M0 / 2 sqrt(T2 / T1) for a short repetition time.
    t1, t2 = 1000.0, 100.0
    best = np.rad2deg(np.arccos((t1 / t2 - 1) / (t1 / t2 + 1)))
    one = np.array([1.0])
    signal = balanced_ssfp(one, one * t1, one * t2, tr_ms=0.1, te_ms=0.0, flip_deg=best)
    assert signal[0] == pytest.approx(0.5 * np.sqrt(t2 / t1), rel=1e-3)


def test_gadolinium_adds_relaxivity_times_concentration_to_the_rates():
    t1, t2 = enhanced(np.array([1000.0]), np.array([100.0]), np.array([0.5]))
    assert 1000 / t1[0] == pytest.approx(1.0 + 0.5 * 4.1)
    assert 1000 / t2[0] == pytest.approx(10.0 + 0.5 * 4.6)


def test_the_contrasts_are_those_that_a_radiologist_expects_in_every_subject():
    for seed in range(30):
        contrast = draw_contrast(np.random.default_rng(seed))
        t1, t2 = contrast.cet1, contrast.hrt2
        assert t1[Tissue.CSF] < t1[Tissue.GRAY] < t1[Tissue.WHITE] < t1[Tissue.TUMOR]
        assert t1[Tissue.VENOUS_SINUS] > 1.5 and t1[Tissue.FAT] > 1.3
        assert t2[Tissue.CSF] > 2 * t2[Tissue.TUMOR] > 2 * t2[Tissue.NERVE] > 0
        assert t2[Tissue.LABYRINTH] > 2 * t2[Tissue.TUMOR]
        assert t2[Tissue.WHITE] < t2[Tissue.GRAY]
        assert max(t1[Tissue.AIR], t2[Tissue.AIR], t2[Tissue.CORTICAL_BONE]) < 0.1
    assert set(PROPERTIES) == set(Tissue)


def test_noise_is_rayleigh_in_air_and_gaussian_in_tissue():
    rng = np.random.default_rng(0)
    air = acquisition.add_rician_noise(rng, np.zeros((60, 60, 60), np.float32), 2.0)
    assert air.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(2.0 * np.sqrt(2 - np.pi / 2), rel=0.01)
    tissue = acquisition.add_rician_noise(rng, np.full((60, 60, 60), 100, np.float32), 2.0)
    assert tissue.std() == pytest.approx(2.0, rel=0.01)
    assert np.mean(tissue**2) == pytest.approx(100**2 + 2 * 2.0**2, rel=1e-3)


def test_the_coil_is_smooth_with_mean_one_and_the_deviation_asked_for():
    field = acquisition.bias_field(np.random.default_rng(3), GRID, 0.2)
    assert field.shape == GRID.shape
    assert field.mean() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(field - 1).max() == pytest.approx(0.2, abs=0.01)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.05  # over 4 mm


def test_the_slice_profile_is_symmetric_and_sums_to_one():
    weights = acquisition.slice_profile(5)
    assert weights.sum() == pytest.approx(1.0)
    assert weights == pytest.approx(weights[::-1])


def test_a_grid_is_centered_where_the_protocol_says():
    rotation = acquisition.draw_rotation(np.random.default_rng(1), 1.0, 6.0)
    grid = acquisition.scan_grid((0.5, 0.5, 1.5), 21, 40.0, np.array([3.0, -4.0, 5.0]), rotation)
    middle = grid.index_to_physical @ [*((np.array(grid.size) - 1) / 2), 1]
    assert middle[:3] == pytest.approx([3.0, -4.0, 5.0])
    assert np.reshape(grid.direction, (3, 3)) @ np.reshape(grid.direction, (3, 3)).T == pytest.approx(
        np.eye(3), abs=1e-12
    )
    assert not np.allclose(np.reshape(grid.direction, (3, 3)), np.eye(3))


def test_tumor_volumes_follow_the_real_ones():
    # 119 real tumors: median 1407, quartiles 622 and 3094 mm3 (VS-SEG contours).
    volumes = [lesion.draw_volume(rng) for rng in [np.random.default_rng(5)] for _ in range(4000)]
    low, middle, high = np.percentile(volumes, [25, 50, 75])
    assert min(volumes) >= 43 and max(volumes) <= 10784
    assert middle == pytest.approx(1400, rel=0.12)
    assert low == pytest.approx(622, rel=0.2) and high == pytest.approx(3094, rel=0.2)
