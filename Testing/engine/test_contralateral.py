"""What a scan shows at the opposite place of the head."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import deeds, volume
from crossmoda.anatomy import contralateral, laterality
from crossmoda.simulation import Settings, simulate_subject
from crossmoda.volume import Grid, Volume

GRID = Grid((60, 40, 12), (1.0, 1.0, 1.5), (-29.5, -20.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
LEFT, RIGHT = np.s_[2:10, 10:30, 42:50], np.s_[2:10, 10:30, 10:18]


def shifted_by(mm: float):
    """Return a registration program that costs nothing and finds a shift along x."""
    transform = sitk.TranslationTransform(3, (mm, 0.0, 0.0))

    def register(fixed, moving, settings, *, initial=None, progress=None):
        return SimpleNamespace(
            transform=transform, warp_image=lambda image, grid: volume.resample(image, grid, transform, "linear")
        )

    return register


def head(sensitivity=1.0) -> Volume:
    """Two bright ears in gray brain, seen by a coil."""
    array = np.random.default_rng(0).normal(100, 2, GRID.shape).astype(np.float32)
    array = (array + array[..., ::-1]) / 2
    array[LEFT] = array[RIGHT] = 500
    return Volume((array * sensitivity).astype(np.float32), GRID)


def test_brightness_runs_from_the_darkest_to_the_brightest_tissue():
    found, mean = contralateral.brightness(head())
    assert found[LEFT].min() == 1 and found.min() == 0 and found[0].max() < 0.05 and found.dtype == np.float32
    assert found[0].max() < mean < 0.1


def test_the_contralateral_brightness_is_that_of_the_registered_mirror_image():
    image = head()
    image.array[np.s_[4:8, 15:25, 12:16]] = 100  # dark on the right
    found = contralateral.contralateral_brightness(image, shifted_by(0.0))
    np.testing.assert_allclose(found[np.s_[4:8, 15:25, 44:48]], 0, atol=0.05)
    assert found[np.s_[4:8, 15:25, 12:16]].min() > 0.9  # bright on the left
    assert not np.isnan(found).any()


def test_beyond_the_field_of_view_of_the_mirror_image_it_is_unknown():
    found = contralateral.contralateral_brightness(head(), shifted_by(12.0))
    assert np.isnan(found[..., -8:]).all() and not np.isnan(found[..., :44]).any()


def test_a_side_that_lies_nearer_to_the_coil_is_not_brighter():
    x = np.arange(GRID.size[0]) / GRID.size[0]
    seen = contralateral.contralateral_brightness(head(1.3 - 0.6 * x), shifted_by(0.0))
    here, _ = contralateral.brightness(head(1.3 - 0.6 * x))
    assert here[RIGHT].mean() - here[LEFT].mean() > 0.2  # as it is scanned
    assert abs(seen[LEFT].mean() - here[LEFT].mean()) < 0.05 and abs(seen[RIGHT].mean() - here[RIGHT].mean()) < 0.05


def test_it_is_stored_exactly_in_a_small_file(tmp_path):
    found = contralateral.contralateral_brightness(head(), shifted_by(12.0))
    volume.write(contralateral.quantized(found, head()), tmp_path / contralateral.FILE)
    kept = volume.read(tmp_path / contralateral.FILE)
    np.testing.assert_array_equal(contralateral.dequantized(kept), found)
    assert (tmp_path / contralateral.FILE).stat().st_size < found.nbytes / 10


@pytest.mark.parametrize(("modality", "sign"), [("hrT2", 1), ("ceT1", -1)])
def test_a_tumor_is_darker_than_the_contralateral_side_on_t2_and_brighter_on_t1(modality, sign):
    here, there = np.array([0.25, 0.5]), np.array([0.75, np.nan])
    np.testing.assert_array_equal(
        contralateral.ContralateralComparison(here, there, modality).excess, [sign * 0.5, np.nan]
    )


def test_ears_that_are_not_mirror_images_are_registered():
    """In a subject bent and turned at random the cochleae's fluid lies on that of the other side, a tumor does not."""
    how = Settings(in_plane_spacing=0.8, slice_thickness=1.5, slices=32, field_of_view=110, tumor_volume=400.0)
    subject = simulate_subject(3, side="left", settings=how)
    scan = Volume(subject.hrt2.array.astype(np.float32), subject.hrt2.grid)
    here, there = (
        contralateral.brightness(scan)[0],
        contralateral.contralateral_brightness(scan, deeds.register, deeds.Settings()),
    )
    flipped = laterality.mirrored(scan.with_array(here)).array
    cochlea, tumor = subject.hrt2_label.array == 2, subject.hrt2_label.array == 1
    alike = [np.corrcoef(here[cochlea], other[cochlea])[0, 1] for other in (there, flipped)]
    assert alike[0] > 0.4 and alike[1] < 0.2
    assert there[tumor].mean() > 1.5 * here[tumor].mean()  # fluid in the other canal


def test_a_constant_scan_cannot_be_compared():
    from crossmoda.errors import InputError

    with pytest.raises(InputError):
        contralateral.contralateral_brightness(
            Volume(np.ones(GRID.shape, np.float32), GRID), deeds.register, deeds.Settings()
        )
