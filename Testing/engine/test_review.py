"""The review queue: how wrong a label is thought to be, which comes first and why, where to look."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest

from crossmoda import evaluation, labels, review, volume
from crossmoda.dataset import corrections
from crossmoda.errors import Cancelled, InputError
from crossmoda.review import evidence_sources, queue, triage
from crossmoda.review.evidence import FILE, Evidence, evidence_of
from crossmoda.volume import Grid, Volume
from phantoms import ball

#: 100 x 60 x 20 voxels of 1 x 1 x 1.5 mm; LPS x from -50 to 49 mm: the first half is the patient's right.
GRID = Grid((100, 60, 20), (1.0, 1.0, 1.5), (-50.0, -30.0, -15.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
SHAPE = GRID.shape


def ears(tumor_mm: float = 6.0, shift: int = 0, cochlea_mm: float = 2.6) -> np.ndarray:
    """Return a label map with a tumor on the right and a cochlea on either side."""
    label_map = np.zeros(SHAPE, np.uint8)
    if tumor_mm:
        label_map[ball(GRID, (15, 30, 32 + shift), tumor_mm)] = labels.VS
    for x in (20, 80):
        label_map[ball(GRID, (15, 26, x), cochlea_mm)] = labels.COCHLEA
    return label_map


def write(array: np.ndarray, path, grid: Grid = GRID) -> None:
    volume.write(Volume(array, grid), path)


def write_results(folder, noisy, network=None, votes=None, sure=1.0) -> None:
    """Write results of one target: a noisy label, perhaps votes (share of atlases per structure) and a prediction."""
    write(noisy, folder / "noisy_label.nii.gz")
    for structure in labels.STRUCTURES:
        write((noisy == structure.value).astype(np.float32), folder / f"probability_{structure.key}.nii.gz")
    share = np.zeros(SHAPE) if votes is None else votes
    entropy = -(share * np.log(np.maximum(share, 1e-12)) + (1 - share) * np.log(np.maximum(1 - share, 1e-12)))
    write((entropy / np.log(3)).astype(np.float32), folder / "disagreement.nii.gz")
    if network is not None:
        place = folder / "prediction"
        write(network, place / "label_map.nii.gz")
        for structure in labels.STRUCTURES:
            write(sure * (network == structure.value).astype(np.float32), place / f"probability_{structure.key}.nii.gz")


@pytest.fixture
def data(tmp_path):
    """A data set of four targets."""
    for number in range(1, 5):
        write(
            np.random.default_rng(number).normal(100, 9, SHAPE).astype(np.float32),
            tmp_path / "data" / f"p{number}_hrT2.nii.gz",
        )
    return tmp_path / "data"


# How wrong: expected Dice


def test_expected_dice_is_the_mean_over_random_truths():
    rng = np.random.default_rng(0)
    for size in (12, 60, 400):
        mask = rng.random(size) < 0.5
        probability = np.where(mask, rng.uniform(0.4, 1, size), rng.uniform(0, 0.3, size))
        truths = rng.random((40_000, size)) < probability
        found = 2 * (truths & mask).sum(axis=1) / (mask.sum() + truths.sum(axis=1))
        assert review.expected_dice(mask, probability) == pytest.approx(found.mean(), abs=0.004)


def test_expected_dice_of_an_empty_label_is_the_probability_that_there_is_nothing():
    nothing = np.zeros(3, bool)
    assert review.expected_dice(nothing, np.array([0.1, 0.2, 0.0])) == pytest.approx(0.9 * 0.8)
    assert review.expected_dice(nothing, np.zeros(3)) == 1.0


def test_expected_dice_of_a_certain_truth_is_the_dice_with_it():
    label_map, truth = ears(), ears(shift=2)
    exact = evaluation.dice_per_structure(label_map, truth)["VS"]
    assert review.expected_dice(label_map == 1, (truth == 1).astype(float)) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_the_share_of_the_minority_is_read_off_the_entropy(share):
    entropy = -sum(p * np.log(p) for p in (share, 1 - share) if p > 0) / np.log(3)
    assert evidence_sources.minority_fraction(np.array(entropy)) == pytest.approx(share, abs=2e-3)


def test_doubt_is_a_probability_and_largest_where_the_network_contradicts(tmp_path):
    noisy = ears()
    votes = np.where(ball(GRID, (15, 30, 38), 2.0), 0.4, 0.0)
    write_results(tmp_path, noisy, network=ears(shift=3), votes=votes)
    found = review.doubt(tmp_path)
    assert found.grid.same_as(GRID)
    assert found.array.min() >= 0 and found.array.max() <= 1
    contradicted = (noisy == 1) != (ears(shift=3) == 1)
    assert found.array[contradicted].min() > 0.4
    divided = (votes > 0) & ~contradicted
    assert 0.02 < found.array[divided].mean() < found.array[contradicted].mean()


def test_a_predicted_schwannoma_at_an_impossible_place_gives_no_region(tmp_path):
    """Its label map leaves it out; beside a cochlea it is worth a look."""
    write_results(tmp_path, ears(), network=ears())
    far, near = ball(GRID, (15, 30, 50), 5.0), ball(GRID, (15, 30, 72), 5.0)
    seen = (ears() == labels.VS) | far | near
    write(seen.astype(np.float32), tmp_path / "prediction" / "probability_VS.nii.gz")
    found = review.doubt(tmp_path).array
    assert found[far].max() == 0
    assert found[near & (ears() == 0)].min() >= 0.5


def test_without_evidence_sources_there_is_no_doubt_but_a_remedy(data, tmp_path):
    write(ears(), tmp_path / "results" / "p1" / "noisy_label.nii.gz")
    assert review.doubt(tmp_path / "results" / "p1").array.max() == 0
    items = {item.id: item for item in review.review_list(data, tmp_path / "results")}
    assert any("crossmoda predict" in reason for reason in items["p1"].reasons)
    assert "Run crossmoda propagate or crossmoda predict" in items["p2"].reasons[0]


def test_a_prediction_alone_is_reviewed_too(tmp_path):
    write_results(tmp_path / "x", ears(), network=ears(), sure=0.7)
    (tmp_path / "x" / "noisy_label.nii.gz").unlink()
    assert review.label_to_review(tmp_path / "x").parent.name == "prediction"
    assert any("no noisy label" in note for note in evidence_of(tmp_path / "x").notes)


def test_uncertainty_stands_for_missing_probabilities_of_the_network(tmp_path):
    noisy = ears()
    write_results(tmp_path, noisy, network=noisy)
    for structure in labels.STRUCTURES:
        (tmp_path / "prediction" / f"probability_{structure.key}.nii.gz").unlink()
    assert review.doubt(tmp_path).array.max() < 0.01
    write(
        np.where(ball(GRID, (15, 30, 38), 3.0), 0.6, 0).astype(np.float32),
        tmp_path / "prediction" / "uncertainty.nii.gz",
    )
    assert review.doubt(tmp_path).array[10, 30, 38] > 0.1


@pytest.mark.parametrize("damage", ["cut short", "another grid"])
def test_a_file_that_cannot_be_used_is_noted_and_the_rest_is_used(tmp_path, damage):
    write_results(tmp_path, ears(), network=ears(shift=3))
    file = tmp_path / "disagreement.nii.gz"
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:200])
    else:
        write(np.zeros((20, 60, 50), np.float32), file, dataclasses.replace(GRID, size=(50, 60, 20)))
    found = evidence_of(tmp_path)
    assert any("disagreement.nii.gz" in note and "recompute" in note for note in found.notes)
    assert found.numbers["dice_network_VS"] < 1


# Which first


def test_the_worst_label_comes_first(data, tmp_path):
    for name, shift in (("p1", 1), ("p2", 6), ("p3", 0), ("p4", 3)):
        write_results(tmp_path / "results" / name, ears(), network=ears(shift=shift))
    items = review.review_list(data, tmp_path / "results")
    assert [item.id for item in items] == ["p2", "p4", "p1", "p3"]
    assert all(0 <= item.priority <= 1 for item in items)
    assert "disagree on the tumor: Dice" in items[0].reasons[0]


def test_labels_with_divided_atlases_come_before_labels_with_agreeing_ones(data, tmp_path):
    outline = ball(GRID, (15, 30, 32), 7.5) & ~ball(GRID, (15, 30, 32), 4.5)
    write_results(tmp_path / "results" / "p1", ears(), network=ears())
    write_results(tmp_path / "results" / "p2", ears(), network=ears(), votes=np.where(outline, 0.45, 0.0))
    items = review.review_list(data, tmp_path / "results")
    assert items[0].id == "p2"


def test_what_is_settled_comes_last_and_what_needs_an_expert_before_it(data, tmp_path):
    for number, shift in enumerate((8, 6, 4, 2), start=1):
        write_results(tmp_path / "results" / f"p{number}", ears(), network=ears(shift=shift))
    corrections.mark(data, "p1", "accepted", 30, results=tmp_path / "results")
    corrections.mark(data, "p2", "needs expert", 12)
    items = review.review_list(data, tmp_path / "results")
    assert [(item.id, item.status) for item in items] == [
        ("p3", "open"),
        ("p4", "open"),
        ("p2", "needs expert"),
        ("p1", "accepted"),
    ]
    assert [item.seconds for item in items] == [0, 0, 12, 30]


def test_every_target_is_listed_even_without_results(data, tmp_path):
    items = review.review_list(data, tmp_path / "nothing")
    assert sorted(item.id for item in items) == ["p1", "p2", "p3", "p4"]
    assert {item.priority for item in items} == {0.0}


def test_the_list_can_be_cancelled(data, tmp_path):
    def stop(fraction, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        review.review_list(data, tmp_path, progress=stop)


def test_a_data_set_without_targets_is_refused(tmp_path):
    write(np.ones(SHAPE, np.float32), tmp_path / "p1_ceT1.nii.gz")
    with pytest.raises(InputError, match="hrT2"):
        review.review_list(tmp_path, tmp_path)


def test_numbers_are_kept_until_a_result_changes(tmp_path, monkeypatch):
    write_results(tmp_path, ears(), network=ears(shift=3))
    first = evidence_of(tmp_path)
    assert (tmp_path / FILE).is_file()
    monkeypatch.setattr("crossmoda.review.evidence.read_evidence_sources", lambda folder: pytest.fail("read again"))
    assert evidence_of(tmp_path) == first
    monkeypatch.undo()
    write(ears(), tmp_path / "prediction" / "label_map.nii.gz")
    assert evidence_of(tmp_path).numbers["dice_network_VS"] == 1


# Why


USUAL = Evidence(
    {"VS": 900.0, "cochlea": 160.0},
    {
        **{
            "expected_dice_VS": 0.95,
            "expected_dice_cochlea": 0.95,
            "dice_network_VS": 0.9,
            "dice_network_cochlea": 0.9,
        },
        **{"network_mm3_VS": 880.0, "network_mm3_cochlea": 150.0, "pieces_VS": 1, "pieces_cochlea": 2},
        **{"elongation_VS": 1.6, "gap_mm": 2.0, "left_mm3": 80.0, "right_mm3": 80.0, "height_mm": 2, "depth_mm": 3},
    },
    (),
)


def changed(volumes=None, **numbers) -> Evidence:
    return Evidence({**USUAL.volumes_mm3, **(volumes or {})}, {**USUAL.numbers, **numbers}, ())


def judge(case: Evidence, others: int = 8) -> triage.Assessment:
    cohort = [changed({"VS": 900.0 + 40 * number}) for number in range(others)]
    return triage.CohortStatistics([case, *cohort]).assess(case)


def test_an_ordinary_label_has_no_reason():
    found = judge(USUAL)
    assert found.reasons == ("No sign of an error.",)
    assert found.loss == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (changed(dice_network_VS=0.41), "The atlases and the network disagree on the tumor: Dice 0.41"),
        (changed(dice_network_VS=0.83, network_mm3_VS=1100.0), "on the tumor: Dice 0.83 (900 and 1100 mm³)"),
        (changed(dice_network_VS=0.0, apart_mm=52.0), "network are 52 mm apart"),
        (changed(dice_network_cochlea=0.5), "disagree on the cochlea"),
        (changed(dice_network_VS=0.0, network_mm3_VS=0.0), "The network does not find the tumor"),
        (changed({"VS": 0.0}, dice_network_VS=0.0), "The network finds the tumor"),
        (changed({"VS": 0.0}, dice_network_VS=0.0), "The label contains no tumor"),
        (changed(expected_dice_VS=0.6), "uncertain about the tumor: expected Dice 0.60"),
        (changed({"VS": 12.0}), "The tumor (12 mm³) is smaller than"),
        (changed({"VS": 19000.0}), "The tumor (19000 mm³) is larger than"),
        (changed({"VS": 5000.0}), "unusually large in this cohort: 5000 mm³"),
        (changed({"VS": 200.0}), "unusually small in this cohort: 200 mm³"),
        (changed(pieces_VS=3), "The tumor has 3 components"),
        (changed(pieces_cochlea=4), "The cochleae have 4 components"),
        (changed(elongation_VS=5.2), "implausibly elongated (axis ratio 5.2)"),
        (changed(gap_mm=31.0), "31 mm from the nearest cochlea"),
        (changed(left_mm3=0.0), "The left cochlea is missing"),
        (changed(left_mm3=0.0, right_mm3=0.0), "The label contains no cochlea"),
        (changed(right_mm3=400.0), "The right cochlea is too large: 400 mm³"),
        (changed(left_mm3=30.0), "differ by a factor of 2.7"),
        (changed(height_mm=40.0), "offset by 40 mm"),
    ],
)
def test_each_finding_is_a_reason_and_raises_the_priority(case, words):
    found = judge(case)
    assert any(words in sentence for sentence in found.reasons), found.reasons
    agreeing = "dice_network" in str(sorted(case.numbers.items() - USUAL.numbers.items()))
    assert found.loss > judge(USUAL).loss or agreeing  # agreement with the network counts in the expected Dice


def test_reasons_are_sorted_by_importance():
    found = judge(changed(dice_network_VS=0.1, elongation_VS=5.0))
    assert "disagree" in found.reasons[0] and "elongated" in found.reasons[1]


def test_volumes_are_not_compared_within_a_small_cohort():
    case = changed({"VS": 5000.0}, network_mm3_VS=4900.0)
    assert judge(case, others=3).reasons == ("No sign of an error.",)


def test_shape_and_position_are_measured(tmp_path):
    label_map = ears()
    label_map[label_map == labels.VS] = 0
    label_map[10, 30, 20:60] = labels.VS  # a rod
    label_map[2:4, 50:53, 90:93] = labels.VS  # and a stray piece
    write_results(tmp_path, label_map)
    numbers = evidence_of(tmp_path).numbers
    assert numbers["pieces_VS"] == 2 and numbers["pieces_cochlea"] == 2
    assert numbers["elongation_VS"] > 4
    assert numbers["left_mm3"] == numbers["right_mm3"] > 0
    assert numbers["width_mm"] == pytest.approx(60)


def test_a_contralateral_tumor_of_the_network_is_a_reason(data, tmp_path):
    write_results(tmp_path / "results" / "p1", ears(), network=ears(shift=36))
    item = review.review_list(data, tmp_path / "results")[0]
    assert item.evidence["apart_mm"] == pytest.approx(36, abs=0.1)
    assert "The tumors of the label and of the network are 36 mm apart." in item.reasons


# Where to look


def test_regions_are_the_connected_places_in_doubt_with_size_and_place():
    label_map = ears()
    doubtful = np.zeros(SHAPE, np.float32)
    outline = ball(GRID, (15, 30, 32), 7.0) & ~ball(GRID, (15, 30, 32), 5.0)
    doubtful[outline] = 0.3
    doubtful[10, 30, 38] = 0.6
    cochlea = ball(GRID, (15, 26, 80), 2.0)
    doubtful[cochlea] = 0.5
    regions = review.find_regions(Volume(doubtful, GRID), Volume(label_map, GRID))
    by_structure = {region.structure: region for region in regions}
    assert set(by_structure) == {"VS", "cochlea"} and len(regions) == 2
    tumor = by_structure["VS"]
    assert tumor.volume_mm3 == pytest.approx(outline.sum() * 1.5)
    assert tumor.peak == pytest.approx(0.6)
    assert "tumor" in tumor.reason
    index = GRID.physical_to_index @ [*by_structure["cochlea"].center_lps, 1.0]
    assert cochlea[tuple(np.round(index[2::-1]).astype(int))]
    assert [region.number for region in regions] == [1, 2]


def test_the_region_whose_correction_gains_most_comes_first():
    label_map = ears(tumor_mm=9.0)
    doubtful = np.zeros(SHAPE, np.float32)
    doubtful[ball(GRID, (15, 26, 80), 2.6)] = 0.9  # the whole of a small structure
    doubtful[ball(GRID, (15, 30, 41), 3.0)] = 0.9  # more of a large one
    first, second = review.find_regions(Volume(doubtful, GRID), Volume(label_map, GRID))
    assert first.structure == "cochlea" and second.structure == "VS"
    assert second.volume_mm3 > first.volume_mm3


def test_a_region_shows_its_margin_and_nothing_else():
    doubtful = np.zeros(SHAPE, np.float32)
    doubtful[10, 30, 40] = 0.9
    settings = review.Settings(margin_mm=2.0, smallest_mm3=0)
    (region,) = review.find_regions(Volume(doubtful, GRID), Volume(ears(), GRID), settings)
    mask = region.mask(SHAPE)
    assert mask[10, 30, 42] and mask[11, 30, 40] and not mask[10, 30, 43] and not mask[12, 30, 40]
    assert mask[region.slices].sum() == mask.sum()
    assert region.box == ((9, 12), (28, 33), (38, 43))


def test_threshold_smallest_volume_and_number_limit_the_regions():
    doubtful = np.zeros(SHAPE, np.float32)
    for number, x in enumerate((10, 30, 50, 70, 90)):
        doubtful[10, 10, x : x + 2 + number] = 0.2 + 0.1 * number
    maps = Volume(doubtful, GRID), Volume(ears(), GRID)
    plain = review.Settings(smallest_mm3=0)
    assert len(review.find_regions(*maps, plain)) == 5
    assert len(review.find_regions(*maps, dataclasses.replace(plain, threshold=0.45))) == 2
    assert len(review.find_regions(*maps, dataclasses.replace(plain, smallest_mm3=6.1))) == 2
    assert len(review.find_regions(*maps, dataclasses.replace(plain, most_regions=3))) == 3
    assert review.find_regions(Volume(np.zeros(SHAPE, np.float32), GRID), maps[1]) == []


@pytest.mark.parametrize(
    ("noisy", "network", "words"),
    [
        (
            ears(0),
            ears(),
            "Only the network finds the tumor here .[0-9]+ mm³",
        ),
        (ears(), ears(0), "does not find the tumor here"),
        (ears(), ears(shift=3), "outlines the tumor differently: [0-9]+ mm³ more, [0-9]+ mm³ less"),
    ],
)
def test_a_region_says_what_the_network_sees_there(tmp_path, noisy, network, words):
    write_results(tmp_path, noisy, network=network)
    regions = review.find_regions(review.doubt(tmp_path), Volume(noisy, GRID), network=Volume(network, GRID))
    assert regions[0].structure == "VS"
    assert re.search(words, regions[0].reason), regions[0].reason


def test_sorting_again_after_a_decision_needs_no_files():
    items = [
        queue.Item(name, priority, (), status, 0.0, {}, {})
        for name, priority, status in (("a", 0.1, "open"), ("b", 0.9, "corrected"), ("c", 0.5, "open"))
    ]
    assert [item.id for item in queue.sort(items)] == ["c", "a", "b"]


def test_the_review_is_imported_without_torch_numba_and_matplotlib():
    modules = "operations, models, improvement, cohort_report"
    statements = f"from crossmoda.dataset import corrections; from crossmoda.review import {modules}"
    code = f"import sys; {statements}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numba", "matplotlib", "jinja2"} & set(run.stdout.split())
