"""The independent sets: their truth, their split by subject, and the scores of label maps on them."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from crossmoda import labels, volume
from crossmoda.anatomy import template
from crossmoda.anatomy.cochlea import LABEL_MM3

TESTING = Path(__file__).resolve().parents[1]


@pytest.fixture
def sets(monkeypatch, shared_data):
    """Return a function that imports a module of the sets."""
    for folder in ("independent_sets", "benchmarks", "experiments/ear_network"):
        monkeypatch.syspath_prepend(str(TESTING / folder))
    return importlib.import_module


@pytest.mark.shared_data
def test_no_expert_contour_is_in_both_sets(sets, shared_data) -> None:
    by_set = sets("expert_tumors").subjects(shared_data / "vs_seg_contours")
    tuning, claim = ({subject for subject, _ in by_set[name]} for name in ("tuning", "claim"))
    assert not tuning & claim
    assert len(tuning) + len(claim) == 79


@pytest.mark.shared_data
def test_no_shape_of_the_claim_set_is_learned(sets, shared_data, tmp_path) -> None:
    contours = shared_data / "vs_seg_contours"
    claim = {subject for subject, _ in sets("expert_tumors").subjects(contours)["claim"]}
    learned = list(sets("heads").shapes_for_training(contours, tmp_path).glob("*.nii.gz"))
    assert len(learned) == 40
    assert not {path.name.split("_")[0] for path in learned} & claim


@pytest.mark.shared_data
def test_a_tumor_in_a_real_background_is_averaged_over_the_slices_of_the_scan(sets) -> None:
    real, box = sets("real"), sets("heads").box_grid()
    z, y, x = np.meshgrid(*(0.6 * np.arange(n) for n in box.shape), indexing="ij", sparse=True)
    distance = np.sqrt((x - 36) ** 2 + (y - 36) ** 2 + (z - 31) ** 2) - 5.0
    to_box = np.diag([0.5 / 0.6, 0.5 / 0.6, 4.0 / 0.6, 1.0])
    background = real.Background(np.zeros((16, 140, 140), np.float32), to_box, 4.0, 2.5, "real T2", np.zeros(1))
    rng = np.random.default_rng(9)
    assert rng.random() > 0.65  # covers what was there
    marked = real._implanted(
        background.scan, background, 2.5, distance.astype(np.float32), 1.0, np.random.default_rng(9)
    )
    sums = marked.sum(axis=(1, 2))
    depth = np.abs(4.0 * np.arange(16) - 31)
    assert np.all(sums[depth > 7.7] == 0)
    assert np.all(sums[depth < 6.5] > 0)
    areas = sums * 0.25 / marked[8].max()
    assert areas.sum() * 4.0 == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.25)


@pytest.mark.shared_data
def test_findings_that_are_no_schwannoma_are_drawn_without_a_label(sets) -> None:
    real, heads = sets("real"), sets("heads")
    box = heads.box_grid()
    center, offset = template.load().landmarks["porus"], np.array([6.0, 0.0, -12.0])
    distance = np.linalg.norm(real._positions() - center, axis=-1) - 4.0
    far = np.full(box.shape, 127, np.int8)
    stored = np.clip(10 * distance, -127, 127).astype(np.int8)
    parts = np.zeros((3, 1, 1, 1), np.uint8), np.zeros((2, 1, 1, 1), np.uint8), np.zeros(0, np.uint8)
    healthy = heads.StoredEar(*parts, far, far, {"tumor": False})
    other = heads.StoredEar(*parts, stored, far, {"tumor": True})
    size = np.array([140, 140, 24])
    to_box = np.diag([0.5 / 0.6, 0.5 / 0.6, 3.0 / 0.6, 1.0])
    background = real.Background(np.ones(size[::-1], np.float32), to_box, 3.0, 2.5, "real T2", far)
    kinds = set()
    for seed in range(12):
        sample = real.draw(background, healthy, np.random.default_rng(seed), other)
        assert not (sample.label == labels.VS).any()
        image = real._with_other(background.scan, background, 2.5, distance, np.random.default_rng(seed))
        kinds.add("fluid" if image.max() > 1.9 else "solid" if image.std() > 0.001 else "none")
    assert {"fluid", "solid"} <= kinds
    moved = real._shifted_by(distance.astype(np.float32), offset)
    inside = box.points(moved < 0).mean(axis=0)
    assert inside == pytest.approx(center + offset, abs=0.4)


@pytest.mark.shared_data
def test_a_mass_lies_off_the_canal(sets, shared_data) -> None:
    experts, backgrounds = sets("expert_tumors"), sets("real_backgrounds")
    contours, rng = shared_data / "vs_seg_contours", np.random.default_rng(4)
    subject = next(name for name, mm3 in experts.subjects(contours)["tuning"] if mm3 > 800)
    tumor = experts.expert_tumor(contours, subject, "left", rng)
    mass = backgrounds.away(tumor, rng)
    marks = template.load().landmarks
    gaps = [np.linalg.norm(mass.points - marks[name], axis=1).min() for name in ("fundus", "porus")]
    assert min(gaps) > 4.0 and len(mass.points) == len(tumor.points)


@pytest.mark.shared_data
def test_every_part_of_a_set_is_in_the_table_of_scores(sets) -> None:
    set_scores = sets("set_scores")
    assert {*sets("make").MAKERS, set_scores.CET1} == set(set_scores.PARTS)


@pytest.mark.shared_data
def test_a_head_has_its_tumor_on_its_side_and_two_cochleae_of_the_defined_size(sets) -> None:
    make, scanner = sets("make"), sets("scanner")
    head, kind = make.head_of("tuning", 1)
    protocol = scanner.Protocol("bssfp", 0.7, 1.5, "axial", (130.0, 90.0, 44.0), 0.02)
    grid = scanner.scan_grid(head, protocol, np.random.default_rng(0))
    truth = scanner.truth(head, grid)
    marked = {value: grid.points(truth.array == value) for value in (labels.VS, labels.COCHLEA)}
    assert kind == "compact"
    tumor_mm3 = len(marked[labels.VS]) * grid.voxel_volume_mm3
    assert tumor_mm3 == pytest.approx(head.tumor.volume_mm3, rel=0.25)
    sides = ("left", "right") if head.tumor.side == "left" else ("right", "left")
    own, contralateral = (head.cochlea_center(side) for side in sides)
    middle = marked[labels.VS].mean(axis=0)
    assert np.linalg.norm(middle - own) < 16 < np.linalg.norm(middle - contralateral)
    for center in (own, contralateral):
        near = marked[labels.COCHLEA][np.linalg.norm(marked[labels.COCHLEA] - center, axis=1) < 12]
        assert np.linalg.norm(near.mean(axis=0) - center) < 1.0
        assert len(near) * grid.voxel_volume_mm3 == pytest.approx(LABEL_MM3, rel=0.6)


@pytest.mark.shared_data
def test_scores_tell_a_right_from_a_wrong_side(sets, tmp_path) -> None:
    set_scores = sets("set_scores")
    grid = volume.Grid((100, 20, 20), (1.0, 1.0, 1.0), (-50.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    truth = np.zeros(grid.shape, np.uint8)
    truth[8:12, 8:12, 78:82] = labels.COCHLEA  # x = 28 to 31
    truth[8:12, 8:12, 18:22] = labels.COCHLEA
    truth[8:12, 8:12, 68:74] = labels.VS
    (tmp_path / "truth").mkdir()
    volume.write(volume.Volume(truth, grid), tmp_path / "truth" / "a_Label.nii.gz")
    row = {"id": "a", "part": "heads", "side": "left", "left_x_mm": "29.5", "left_y_mm": "9.5", "left_z_mm": "9.5",
           "right_x_mm": "-30.5", "right_y_mm": "9.5", "right_z_mm": "9.5"}  # fmt: skip
    case = set_scores.Case(row, tmp_path)
    right = set_scores.score(case, volume.Volume(truth, grid), [])
    assert (right.vs, right.cochlea, right.wrong_side, right.false_mm3) == (1.0, 1.0, False, 0.0)
    assert right.center_mm < 0.1
    mirrored = truth.copy()
    mirrored[mirrored == labels.VS] = 0
    mirrored[8:12, 8:12, 26:32] = labels.VS
    wrong = set_scores.score(case, volume.Volume(mirrored, grid), ["the schwannoma is doubtful"])
    assert (wrong.vs, wrong.wrong_side, wrong.false_mm3, wrong.noted) == (0.0, True, 96.0, True)
    empty = set_scores.score(case, volume.Volume(np.zeros_like(truth), grid), [])
    assert math.isinf(empty.center_mm)
