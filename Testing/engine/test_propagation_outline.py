"""The tumor's outline: what the target shows where atlases have tumors, and beyond."""

import numpy as np
import pytest
from scipy import ndimage

from crossmoda import fusion, labels
from crossmoda.anatomy.contralateral import ContralateralComparison
from crossmoda.propagation.label_fusion import NoisyLabel, Rater, fuse_raters
from crossmoda.propagation.tumor_outline import excess_mm3, outline_tumor
from crossmoda.volume import Grid, Volume
from phantoms import dice

SHAPE = (20, 40, 60)
GRID = Grid((60, 40, 20), (0.5, 0.5, 0.8), (-14.75, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
CANAL, TUMOR = np.s_[6:14, 14:26, 34:50], np.s_[7:13, 15:25, 40:48]
CISTERN, BONE = np.s_[3:17, 12:28, 14:26], np.s_[:, :, 32:]
COCHLEA = np.s_[8:12, 28:32, 42:48]


def mask(place) -> np.ndarray:
    found = np.zeros(SHAPE, bool)
    found[place] = True
    return found


#: Brightness of tissues on both contrasts.
TISSUES = {
    "hrT2": {"bone": 0.03, "brain": 0.25, "fluid": 0.9, "tumor": 0.35},
    "ceT1": {"bone": 0.03, "brain": 0.5, "fluid": 0.12, "tumor": 0.95},
}


def scan(tumor=None, modality: str = "hrT2") -> ContralateralComparison:
    """Brain, fluid in a cistern and in the canals in bone, perhaps a tumor in one; both sides fit but for noise."""
    rng, tissue = np.random.default_rng(0), TISSUES[modality]
    opposite = np.full(SHAPE, tissue["brain"])
    opposite[mask(BONE)] = tissue["bone"]
    opposite[mask(CANAL) | mask(CISTERN) | mask(COCHLEA)] = tissue["fluid"]
    here = np.where(mask(tumor), tissue["tumor"], opposite) if tumor else opposite
    noisy = [
        np.clip(ndimage.gaussian_filter(side, 0.5) + rng.normal(0, 0.04, SHAPE), 0, 1) for side in (here, opposite)
    ]
    return ContralateralComparison(noisy[0].astype(np.float32), noisy[1].astype(np.float32), modality)


def votes() -> np.ndarray:
    """The atlases' tumors fill the canal, and a little more."""
    return ndimage.gaussian_filter(mask(CANAL).astype(np.float32), 1.5) * np.float32(0.95)


def outlined(given: np.ndarray, sides: ContralateralComparison) -> np.ndarray:
    """One atlas tumor: where it is more likely than not."""
    return outline_tumor(given, [given > 0.5], sides, GRID.spacing_zyx).probability


@pytest.mark.parametrize("modality", ["hrT2", "ceT1"])
def test_the_tumor_is_the_part_that_differs_from_the_contralateral_side(modality):
    found = outlined(votes(), scan(TUMOR, modality))
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    assert dice(votes() > 0.5, mask(TUMOR)) < 0.6
    assert dice(found > 0.5, mask(TUMOR)) > 0.9


def test_of_a_healthy_canal_little_remains():
    found = outlined(votes(), scan())
    assert np.count_nonzero(found > 0.5) < 0.25 * np.count_nonzero(votes() > 0.5)


def test_a_tumor_that_fills_the_canal_stays():
    found = outlined(votes(), scan(CANAL))
    assert dice(found > 0.5, mask(CANAL)) > 0.9


def test_a_tumor_larger_than_the_atlases_grows_to_the_border_that_the_target_shows():
    """It displaced brain, as bright as itself, and a cleft of fluid surrounds it."""
    sides, whole = scan(TUMOR), mask(TUMOR)
    index = np.indices(SHAPE)
    bulge = np.linalg.norm((index - np.array([10, 20, 33])[:, None, None, None]) * GRID.spacing_zyx[0] / 0.8, axis=0)
    whole |= bulge < 9
    cleft = (bulge >= 9) & (bulge < 11) & ~whole & ~mask(CANAL)
    sides.ipsilateral[whole], sides.ipsilateral[cleft] = 0.35, 0.9
    given = ndimage.gaussian_filter(mask(np.s_[6:14, 14:26, 30:50]).astype(np.float32), 1.0)
    assert dice(given > 0.5, whole) < 0.6
    assert dice(outlined(given, sides) > 0.5, whole) > 0.85


def test_brighter_tissue_is_tumor_where_the_contralateral_side_is_bone():
    """It widened the canal; beside it the canal is narrower than the contralateral one."""
    sides, eroded = scan(TUMOR), np.s_[7:13, 25:28, 40:48]
    narrower = np.s_[7:13, 14:15, 34:50]
    sides.ipsilateral[eroded], sides.ipsilateral[narrower] = 0.3, 0.02
    found = outlined(votes(), sides)
    assert found[eroded].mean() > 0.6 and found[narrower].mean() < 0.4


def test_where_no_atlas_has_a_tumor_there_is_none():
    far = np.s_[6:14, 2:10, 4:14]
    sides = scan(TUMOR)
    sides.contralateral[far] = 0.9
    found = outlined(votes(), sides)
    assert found[far].max() < 1e-3


def test_beyond_the_contralateral_field_of_view_the_brightness_decides():
    sides, given = scan(TUMOR), votes()
    sides.contralateral[:10] = np.nan
    found = outlined(given, sides)
    assert dice(given > 0.5, mask(TUMOR)) < 0.6 < 0.85 < dice(found > 0.5, mask(TUMOR))


@pytest.mark.parametrize("case", ["unknown", "the same on both sides", "no votes"])
def test_without_anything_to_compare_the_votes_stay(case):
    sides, given = scan(TUMOR), votes()
    if case == "unknown":
        sides.contralateral[:] = np.nan
    elif case == "no votes":
        given[:] = 0
    else:
        sides.contralateral[:] = sides.ipsilateral
    np.testing.assert_array_equal(outlined(given, sides), given)


def raters(cochlea: bool = True) -> list[Rater]:
    """Atlases whose tumors fill the canal, registered without an error."""
    label_map = np.where(mask(CANAL), labels.VS, 0).astype(np.uint8)
    if cochlea:
        label_map[COCHLEA] = labels.COCHLEA
    same = {"dissimilarity": np.zeros(SHAPE, np.uint8), "intensity": np.ones(SHAPE, np.uint16)}
    return [Rater(label_map, **same) for _ in range(3)]


def fused(sides: ContralateralComparison, weighting: str = "local", cochlea: bool = True) -> NoisyLabel:
    target = Volume(sides.ipsilateral * 500, GRID)
    settings = fusion.Settings()
    return fuse_raters(raters(cochlea), 0.0, target, settings, weighting=weighting, clean=True, comparison=sides)


def test_what_the_tumor_encloses_is_tumor():
    """A cyst looks like the fluid opposite."""
    sides, cyst = scan(TUMOR), np.s_[9:11, 18:22, 42:46]
    sides.ipsilateral[cyst] = sides.contralateral[cyst]
    assert (fused(sides).label_map[cyst] == labels.VS).all()


def test_the_fused_label_has_the_outline_also_where_all_atlases_agree():
    result = fused(scan(TUMOR))
    assert dice(result.label_map == labels.VS, mask(TUMOR)) > 0.85
    np.testing.assert_array_equal(result.label_map == labels.COCHLEA, mask(COCHLEA))
    np.testing.assert_allclose(result.posterior.sum(axis=0), 1, atol=1e-5)
    fluid = mask(CANAL) & (result.label_map == 0)
    assert fluid.any() and result.fusion.agreement[fluid].max() == 0, "no atlas says what the target shows there"
    specificity = [each.specificity[labels.VS] for each in result.fusion.performance]
    assert max(specificity) < 0.9 and [each.sensitivity[labels.VS] > 0.9 for each in result.fusion.performance]


@pytest.mark.parametrize("case", ["STAPLE", "no cochlea"])
def test_the_votes_are_taken_as_they_are(case):
    """Where reliable atlases are asked for, and where the label maps show that this is no ear."""
    result = fused(scan(TUMOR), "global") if case == "STAPLE" else fused(scan(TUMOR), cochlea=False)
    assert dice(result.label_map == labels.VS, mask(CANAL)) > 0.99


def test_a_tumor_on_the_wrong_side_is_noted_as_possibly_missing():
    said, sides = "there is no tumor, it is on the contralateral side, or both sides have one; check.", scan(TUMOR)
    result = fused(ContralateralComparison(sides.contralateral, sides.ipsilateral, "hrT2"))
    assert any(note.endswith(said) for note in result.fusion.notes)
    assert not any(note.endswith(said) for note in fused(sides).fusion.notes)


def test_a_tumor_brighter_than_the_brain_that_it_displaced_is_no_evidence_against_it():
    here, there = np.full((1, 1, 70), 0.35, np.float32), np.full((1, 1, 70), 0.25, np.float32)
    there[..., :10] = 0.9  # a seventh of the tumor replaced fluid
    sides = ContralateralComparison(here, there, "hrT2")
    assert sides.excess.sum() < 0 < excess_mm3(np.ones(here.shape), sides, (1, 1, 1))
    swapped = ContralateralComparison(there, here, "hrT2")
    assert excess_mm3(np.ones(here.shape), swapped, (1, 1, 1)) < 0
