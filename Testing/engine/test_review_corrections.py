"""The store of corrections: saved at once, found by training, nothing ever lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import dataset, labels, output, volume
from crossmoda.dataset import corrections
from crossmoda.dataset.corrections import all_corrections, find_draft, load, mark, save, save_draft
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume

GRID = Grid((30, 24, 10), (0.5, 0.5, 1.5), (10.0, -4.0, 7.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def drawing(size: int = 6, grid: Grid = GRID) -> Volume:
    """Return a label map with a tumor whose size tells one drawing from another."""
    label_map = np.zeros(grid.shape, np.uint8)
    label_map[3:6, 5 : 5 + size, 5:12] = labels.VS
    label_map[4, 18:20, 20:23] = labels.COCHLEA
    return Volume(label_map, grid)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        volume.write(
            Volume(rng.normal(100, 9, GRID.shape).astype(np.float32), GRID), tmp_path / "data" / f"{name}_hrT2.nii.gz"
        )
    volume.write(drawing(4), tmp_path / "results" / "a" / "noisy_label.nii.gz")
    output.write_json(tmp_path / "results" / "a" / "provenance.json", {"step": "propagate", "crossmoda": "0.0.9"})
    return tmp_path / "data"


@pytest.fixture
def case(data):
    return case_of(data)


@pytest.fixture
def noisy(data):
    return data.parent / "results" / "a" / "noisy_label.nii.gz"


def case_of(data, name="a") -> dataset.Case:
    return next(case for case in dataset.open_dataset(data).targets if case.id == name)


def files_of(data, name="a") -> list[str]:
    folder = corrections.folder_of(data, name)
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


# Keeping


def test_a_correction_is_the_label_of_its_scan_in_the_data_set(data, case, noisy):
    path = save(case, drawing(), data, based_on=noisy)
    found = case_of(data)
    assert found.label == path
    np.testing.assert_array_equal(found.read_label(found.read_image()).array, drawing().array)
    assert case_of(data, "b").label is None
    assert dataset.validate(dataset.open_dataset(data)) == []


def test_label_map_and_segmentation_lie_on_the_targets_grid(data, case, noisy):
    path = save(case, drawing(), data, based_on=noisy)
    segmentation = path.with_name("a_corrected.seg.nrrd")
    for file in (path, segmentation):
        assert volume.read_label_map(file).grid == GRID
        np.testing.assert_array_equal(volume.read_label_map(file).array, drawing().array)


def test_the_record_says_what_changed_and_from_what(data, case, noisy):
    save(case, drawing(6), data, seconds=40, based_on=noisy)
    record = load(data, "a").record
    assert record["dice_with_noisy_label"] == {"VS": pytest.approx(2 * 4 / (4 + 6)), "cochlea": 1.0}
    voxel = 0.375
    assert record["volumes_before_mm3"]["VS"] == pytest.approx(3 * 4 * 7 * voxel, abs=0.01)
    assert record["volumes_after_mm3"]["VS"] == pytest.approx(3 * 6 * 7 * voxel, abs=0.01)
    assert record["changed_mm3"] == pytest.approx(3 * 2 * 7 * voxel, abs=0.01)
    assert record["based_on"]["name"] == "noisy_label.nii.gz" and record["based_on"]["crossmoda"] == "0.0.9"
    assert record["status"] == "corrected" and record["seconds"] == 40
    assert load(data, "a").intact


@pytest.mark.parametrize("made", ["{", "1", "null", '["step"]'])
def test_a_damaged_provenance_of_the_noisy_label_loses_no_work(data, case, noisy, made):
    (noisy.parent / "provenance.json").write_text(made)
    save(case, drawing(6), data, based_on=noisy)
    record = load(data, case.id).record
    assert record["based_on"]["name"] == "noisy_label.nii.gz" and "crossmoda" not in record["based_on"]


def test_who_and_when_are_recorded_only_when_asked_for(data, case, noisy):
    save(case, drawing(), data, based_on=noisy)
    assert not {"reviewer", "when"} & set(load(data, "a").record)
    save(case, drawing(), data, based_on=noisy, reviewer="R. Viewer", when=True)
    record = load(data, "a").record
    assert record["reviewer"] == "R. Viewer" and record["when"].startswith("20")


def test_an_earlier_correction_is_kept_in_full(data, case, noisy):
    for size in (5, 6, 7):
        save(case, drawing(size), data, seconds=10, based_on=noisy)
    folder = corrections.folder_of(data, "a")
    for number, size in ((1, 5), (2, 6)):
        earlier = folder / "previous" / str(number)
        kept = volume.read_label_map(earlier / "a_hrT2_label.nii.gz")
        np.testing.assert_array_equal(kept.array, drawing(size).array)
        assert json.loads((earlier / "correction.json").read_text("utf-8"))["number"] == number
        assert (earlier / "a_corrected.seg.nrrd").is_file()
    now = load(data, "a")
    assert now.number == 3 and now.seconds == 30
    assert len(dataset.open_dataset(data).targets) == 2 and dataset.open_dataset(data).unpaired == ()


def test_comparing_with_the_noisy_label_although_an_earlier_correction_was_edited(data, case, noisy):
    first = save(case, drawing(5), data, based_on=noisy)
    save(case, drawing(8), data, based_on=first, noisy=noisy)
    record = load(data, "a").record
    assert record["based_on"]["name"] == "a_hrT2_label.nii.gz"
    assert record["dice_with_noisy_label"]["VS"] == pytest.approx(2 * 4 / (4 + 8), abs=1e-3)


def test_work_is_kept_although_the_label_it_began_with_is_gone(data, case, noisy):
    noisy.unlink()
    path = save(case, drawing(), data, based_on=noisy)
    np.testing.assert_array_equal(volume.read_label_map(path).array, drawing().array)
    record = load(data, "a").record
    assert record["based_on"]["name"] == "noisy_label.nii.gz" and "dice_with_noisy_label" not in record


# Other grids


def test_a_segmentation_that_was_cropped_is_filled_up(data, case):
    part = drawing().array[2:8, 2:20, 3:28]
    origin = tuple(
        first + step * spacing for first, step, spacing in zip(GRID.origin, (3, 2, 2), GRID.spacing, strict=True)
    )
    cropped = Volume(part, Grid((25, 18, 6), GRID.spacing, origin, GRID.direction))
    path = save(case, cropped, data)
    expected = drawing().array.copy()
    expected[:, 20:] = 0  # what was cropped away is background
    np.testing.assert_array_equal(volume.read_label_map(path).array, expected)
    assert load(data, "a").record["resampled"] is False


def test_a_drawing_on_another_grid_is_brought_on_the_targets_with_its_volume(data, case):
    other = Grid((40, 30, 20), (0.4, 0.45, 0.8), (9.0, -5.0, 6.5), GRID.direction)
    label_map = np.zeros(other.shape, np.uint8)
    label_map[6:12, 8:18, 10:22] = labels.VS
    path = save(case, Volume(label_map, other), data)
    found = volume.read_label_map(path)
    assert found.grid == GRID
    expected = np.count_nonzero(label_map) * other.voxel_volume_mm3
    assert np.count_nonzero(found.array) * GRID.voxel_volume_mm3 == pytest.approx(expected, rel=0.02)
    assert load(data, "a").record["resampled"] is True


def test_two_targets_with_other_grids_keep_their_own(data):
    other = Grid((20, 20, 8), (0.6, 0.6, 1.0), (0.0, 0.0, 0.0), (0, 1, 0, 1, 0, 0, 0, 0, -1))
    volume.write(Volume(np.ones(other.shape, np.float32), other), data / "c_hrT2.nii.gz")
    one, two = save(case_of(data), drawing(), data), save(case_of(data, "c"), drawing(3, other), data)
    assert volume.read_label_map(one).grid == GRID and volume.read_label_map(two).grid.same_as(other)


def test_unknown_label_values_are_refused_and_nothing_is_written(data, case):
    with pytest.raises(InputError, match="Unknown label value in label map: 3"):
        save(case, Volume(np.full(GRID.shape, 3, np.uint8), GRID), data)
    assert load(data, "a") is None


# Decisions


def test_accepting_keeps_the_label_as_it_is_now(data, noisy):
    mark(data, "a", "accepted", 7, results=noisy.parents[1])
    volume.write(drawing(9), noisy)  # a later run
    found = load(data, "a")
    assert found.status == "accepted" and found.seconds == 7 and found.is_settled
    np.testing.assert_array_equal(volume.read_label_map(found.label).array, drawing(4).array)
    assert case_of(data).label == found.label


def test_what_needs_an_expert_is_no_label_to_learn_from(data, case, noisy):
    save(case, drawing(), data, "needs expert", 5, noisy)
    assert load(data, "a").label is not None and not load(data, "a").is_settled
    assert case_of(data).label is None
    mark(data, "a", "corrected", 3)
    assert case_of(data).label is not None and load(data, "a").seconds == 8


def test_a_decision_can_be_taken_back(data, case, noisy):
    save(case, drawing(), data, based_on=noisy)
    mark(data, "a", "open")
    assert load(data, "a").status == "open" and case_of(data).label is None
    assert load(data, "a").label.is_file()


def test_a_decision_that_does_not_fit_is_refused(data):
    with pytest.raises(InputError, match="no corrected label: "):
        mark(data, "a", "corrected")
    with pytest.raises(InputError, match="Unknown status: "):
        mark(data, "a", "done")
    with pytest.raises(InputError, match="No hrT2 scan of x in the data set"):
        volume.write(drawing(), data.parent / "results" / "x" / "noisy_label.nii.gz")
        mark(data, "x", "accepted", results=data.parent / "results")


def test_all_decisions_are_found(data, case, noisy):
    save(case, drawing(), data, based_on=noisy)
    mark(data, "b", "needs expert", 2)
    assert {name: one.status for name, one in all_corrections(data).items()} == {"a": "corrected", "b": "needs expert"}
    assert all_corrections(data.parent) == {}


def test_a_label_put_there_by_hand_counts_as_a_correction(data):
    file = dataset.correction_file(data, "a")
    volume.write(drawing(), file)
    assert load(data, "a").status == "corrected" and not load(data, "a").intact
    assert case_of(data).label == file


# Nothing is lost


#: Saves a new label in copies of a data set; the n-th copy's process is killed before it puts the n-th file in place.
KILLED = """
import os, sys
from pathlib import Path
from crossmoda import dataset, volume
from crossmoda.dataset import corrections

replace = Path.replace
for steps, data in enumerate(sys.argv[2:]):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    left = [steps]

    def counted(self, target):
        if left[0] == 0:
            os._exit(9)  # as if killed: nothing is cleaned up
        left[0] -= 1
        return replace(self, target)

    Path.replace = counted
    case = next(case for case in dataset.open_dataset(data).targets if case.id == "a")
    corrections.save(case, volume.read_label_map(sys.argv[1]), data)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_while_saving_leaves_the_old_label_or_the_new_one(data, case, noisy):
    save(case, drawing(5), data, based_on=noisy)
    new = data.parent / "new.nii.gz"
    volume.write(drawing(8), new)
    copies = [data.parent / f"copy {steps}" for steps in range(3)]
    for copy in copies:
        shutil.copytree(data, copy)
    subprocess.run([sys.executable, "-c", KILLED, str(new), *map(str, copies)], check=True)
    for copy, size in zip(copies, (5, 8, 8), strict=True):
        found = load(copy, "a")
        np.testing.assert_array_equal(volume.read_label_map(found.label).array, drawing(size).array)
        assert case_of(copy).label == found.label
        assert found.intact == (size == 5)
        previous = corrections.folder_of(copy, "a") / "previous" / "1" / "a_hrT2_label.nii.gz"
        np.testing.assert_array_equal(volume.read_label_map(previous).array, drawing(5).array)
        save(case_of(copy), drawing(9), copy, based_on=noisy)
        assert load(copy, "a").intact
        assert not [name for name in files_of(copy) if output.PARTIAL in name]


@pytest.fixture
def read_only(monkeypatch):
    """Return a function after which nothing under a folder can be written, for root neither."""

    def protect(folder):
        allowed, make = os.access, Path.mkdir

        def is_inside(path):
            return Path(path) == folder or folder in Path(path).parents

        def mkdir(path, *how, **more):
            if is_inside(path) and not path.exists():
                raise PermissionError(13, "Permission denied", str(path))
            make(path, *how, **more)

        monkeypatch.setattr(
            os, "access", lambda path, mode, **more: not (mode & os.W_OK and is_inside(path)) and allowed(path, mode)
        )
        monkeypatch.setattr(Path, "mkdir", mkdir)

    return protect


@pytest.mark.parametrize("protected", ["the correction", "the data set"])
def test_a_folder_that_may_only_be_read_is_told_with_what_to_do_and_nothing_changes(
    data, case, noisy, read_only, protected
):
    save(case, drawing(5), data, based_on=noisy)
    folder = corrections.folder_of(data, "a")
    before = {name: (folder / name).read_bytes() for name in files_of(data)}
    read_only(folder if protected == "the correction" else data)
    for action in (
        lambda: save(case, drawing(8), data, based_on=noisy),
        lambda: mark(data, "a", "needs expert"),
        lambda: save_draft(data, "a", drawing(8)),
    ):
        with pytest.raises(InputError, match=r"Cannot write .*still in the scene: make the data set folder writable"):
            action()
    assert {name: (folder / name).read_bytes() for name in files_of(data)} == before


def test_the_first_correction_in_a_data_set_that_may_only_be_read(data, case, read_only):
    read_only(data)
    with pytest.raises(InputError, match=r"Cannot write .*permission denied\. Your edits are still in the scene"):
        save(case, drawing(), data)
    assert load(data, "a") is None


# Drafts


def test_unfinished_work_is_found_again_and_gone_once_it_is_kept(data, case, noisy):
    assert find_draft(data, "a") is None
    save_draft(data, "a", drawing(7), noisy, seconds=33)
    draft = find_draft(data, "a")
    assert draft.based_on == "noisy_label.nii.gz" and draft.seconds == 33
    np.testing.assert_array_equal(draft.read(GRID).array, drawing(7).array)
    assert load(data, "a") is None and case_of(data).label is None
    save(case, draft.read(GRID), data, based_on=noisy)
    assert find_draft(data, "a") is None


def test_a_draft_does_not_touch_the_correction_it_continues(data, case, noisy):
    path = save(case, drawing(5), data, based_on=noisy)
    save_draft(data, "a", drawing(9), path)
    assert load(data, "a").intact
    np.testing.assert_array_equal(volume.read_label_map(path).array, drawing(5).array)
    corrections.discard_draft(data, "a")
    assert find_draft(data, "a") is None and load(data, "a").intact


def test_a_draft_opens_in_slicer_as_a_segmentation(data):
    path = save_draft(data, "a", drawing())
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    assert reader.GetMetaData("Segment0_Name") == "Vestibular schwannoma"


def test_a_draft_without_its_notes_is_found_all_the_same(data):
    path = save_draft(data, "a", drawing())
    volume.write_segmentation(drawing(), path)
    assert find_draft(data, "a").read().array.any()


# The data set


def test_a_correction_wins_over_a_label_beside_the_scan(data, case):
    volume.write(drawing(3), data / "a_T2_label.nii.gz")
    assert case_of(data).label.name == "a_T2_label.nii.gz"
    path = save(case, drawing(8), data)
    assert case_of(data).label == path


def test_models_and_results_in_the_data_set_folder_are_no_cases(data, case):
    save(case, drawing(), data)
    output.write_json(data / "models" / "model-1" / "weights.json", {"format": "x"})
    assert [one.id for one in dataset.open_dataset(data).cases] == ["a", "b"]
