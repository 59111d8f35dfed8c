"""Data sets of digital subjects on disk."""

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda.dataset import open_dataset
from crossmoda.errors import Cancelled, InputError
from crossmoda.simulation import Settings, simulate_dataset, simulate_subject

TINY = Settings(field_of_view=60, slices=8, in_plane_spacing=1.5, slice_thickness=4)


def test_a_data_set_has_the_layout_of_crossmoda_2021_with_truth_apart(tmp_path):
    folder = simulate_dataset(tmp_path / "data set é", sources=2, targets=1, tests=1, seed=3, settings=TINY)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [
        "dataset.json",
        "source_training/crossmoda_1_Label.nii.gz",
        "source_training/crossmoda_1_ceT1.nii.gz",
        "source_training/crossmoda_2_Label.nii.gz",
        "source_training/crossmoda_2_ceT1.nii.gz",
        "target_training/crossmoda_3_hrT2.nii.gz",
        "target_validation/crossmoda_4_hrT2.nii.gz",
        "truth/crossmoda_3_Label.nii.gz",
        "truth/crossmoda_4_Label.nii.gz",
    ]
    cases = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["cases"]
    assert [case["seed"] for case in cases] == [3000, 3001, 3002, 3003]
    assert [case["side"] for case in cases] == ["left", "right", "left", "left"], "sides take turns in each group"
    subject = simulate_subject(3002, side="left", settings=TINY)
    image = sitk.ReadImage(str(folder / "target_training" / "crossmoda_3_hrT2.nii.gz"))
    assert image.GetPixelID() == sitk.sitkInt16
    assert image.GetSpacing() == pytest.approx(subject.hrt2.grid.spacing, abs=1e-5)
    assert image.GetOrigin() == pytest.approx(subject.hrt2.grid.origin, abs=1e-4)
    assert np.abs(sitk.GetArrayFromImage(image) - subject.hrt2.array).max() <= 0.51
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "truth" / "crossmoda_3_Label.nii.gz")))
    assert np.array_equal(label, subject.hrt2_label.array)


def test_cancelling_leaves_nothing_behind(tmp_path):
    def stop_late(fraction, message):
        if fraction > 0.6:
            raise Cancelled

    with pytest.raises(Cancelled):
        simulate_dataset(tmp_path / "data", sources=2, targets=0, tests=0, settings=TINY, progress=stop_late)
    assert list(tmp_path.iterdir()) == []


def test_progress_only_grows_and_ends_at_one(tmp_path):
    seen = []
    simulate_dataset(
        tmp_path / "data", sources=1, targets=1, tests=0, settings=TINY, progress=lambda f, _: seen.append(f)
    )
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_folder_with_files_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        simulate_dataset(tmp_path, sources=1, targets=0, tests=0, settings=TINY)
    assert (tmp_path / "mine.txt").read_text("utf-8") == "precious"


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"sources": -1}, "sources must be 0 to 10000; got -1"),
        ({"tests": 10**12}, "tests must be 0 to 10000; got 1000000000000"),
        ({"sources": 0, "targets": 0, "tests": 0}, "Nothing to simulate"),
        ({"seed": -1}, "seed must be an integer of at least 0; got -1"),
    ],
)
def test_impossible_counts_are_refused(tmp_path, counts, sentence):
    with pytest.raises(InputError, match=sentence):
        simulate_dataset(tmp_path / "data", settings=TINY, **counts)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_healthy_subjects_has_no_tumor_and_no_side(tmp_path):
    folder = simulate_dataset(
        tmp_path / "healthy", sources=0, targets=0, tests=1, settings=dataclasses.replace(TINY, healthy=True)
    )
    (case,) = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["cases"]
    assert case["side"] is None and case["tumor_mm3"] == 0
    assert [found.side for found in open_dataset(folder).targets] == [None]
