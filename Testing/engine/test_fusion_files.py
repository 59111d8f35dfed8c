"""Fusion of label map files on one grid."""

import csv
from pathlib import Path

import numpy as np
import pytest

from crossmoda import fusion, labels, volume
from crossmoda.errors import Cancelled, InputError
from crossmoda.fusion.files import FileFusionSettings, FusionOutputs, find_label_maps, fuse_files
from crossmoda.volume import Grid, Volume

GRID = Grid((64, 40, 12), (1.0, 1.0, 2.0), (-32.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def label_map(shift: int, cochlea: bool = True) -> np.ndarray:
    """A tumor and a cochlea, shifted along y."""
    array = np.zeros(GRID.shape, np.uint8)
    array[4:9, 18 + shift : 26 + shift, 42:50] = labels.VS
    if cochlea:
        array[5:8, 10 + shift : 14 + shift, 54:58] = labels.COCHLEA
    return array


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three label maps; the last one lacks the cochlea."""
    arrays = {"a": label_map(0), "b": label_map(1), "c": label_map(0, cochlea=False)}
    for name, array in arrays.items():
        volume.write(Volume(array, GRID), tmp_path / "maps" / f"{name}.nii.gz")
    return find_label_maps(tmp_path / "maps")


def test_staple_of_files_is_that_of_the_arrays(files):
    result = fuse_files(files)
    expected = fusion.staple([volume.read_label_map(file).array for file in files])
    np.testing.assert_array_equal(result.label_map.array, expected.label_map)
    assert result.label_map.grid == GRID and result.measurements()["fused"] == 3


def test_a_label_map_without_a_structure_is_no_evidence_against_it(files):
    cochlea = fuse_files(files[1:]).label_map.array == labels.COCHLEA
    np.testing.assert_array_equal(cochlea, label_map(1) == labels.COCHLEA)


def test_majority_takes_the_most_frequent_label_and_counts_every_file(files):
    result = fuse_files(files, settings=FileFusionSettings(method="majority"))
    arrays = [volume.read_label_map(file).array for file in files]
    np.testing.assert_array_equal(result.label_map.array, fusion.majority_vote(arrays))
    disputed = label_map(0) == labels.COCHLEA
    disputed &= label_map(1) == 0  # one of three has the cochlea there
    assert disputed.any() and not result.label_map.array[disputed].any()
    np.testing.assert_allclose(result.fusion.posterior[labels.COCHLEA][disputed], 1 / 3)


def test_all_outputs_are_written(files, tmp_path):
    names = {name: f"{name}.nii.gz" for name in FusionOutputs.__dataclass_fields__}
    names |= {"label": "label.seg.nrrd", "performance": "raters.csv"}
    outputs = {name: tmp_path / file for name, file in names.items()}
    result = fuse_files(files, FusionOutputs(**outputs))
    assert all(path.exists() for path in outputs.values())
    confidence = volume.read(outputs["confidence"]).array
    np.testing.assert_allclose(confidence, result.fusion.posterior.max(axis=0), atol=1e-6)
    with outputs["performance"].open() as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"a.nii.gz", "b.nii.gz", "c.nii.gz"} and rows["c.nii.gz"]["sensitivity_cochlea"] == ""


def test_another_grid_is_one_sentence_with_the_name_of_the_file(files, tmp_path):
    shifted = Grid(GRID.size, GRID.spacing, (0.0, 0.0, 0.0), GRID.direction)
    volume.write(Volume(label_map(0), shifted), tmp_path / "maps" / "d.nii.gz")
    with pytest.raises(InputError, match=r"d\.nii\.gz has another grid than a\.nii\.gz \(shifted by 32 mm\)"):
        fuse_files(find_label_maps(tmp_path / "maps"))


def test_an_unknown_label_value_is_one_sentence_with_the_name_of_the_file(files):
    volume.write(Volume(label_map(0) * np.uint8(4), GRID), files[1])
    with pytest.raises(InputError, match=r"Unknown label value in b\.nii\.gz: 4"):
        fuse_files(files)


def test_a_cancelled_fusion_writes_nothing(files, tmp_path):
    def cancel(fraction: float, message: str) -> None:
        if "STAPLE" in message:
            raise Cancelled

    with pytest.raises(Cancelled):
        fuse_files(files, FusionOutputs(label=tmp_path / "label.nrrd"), progress=cancel)
    assert not (tmp_path / "label.nrrd").exists()


def test_a_folder_without_label_maps_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No label map"):
        find_label_maps(tmp_path)
    with pytest.raises(InputError, match="Not a folder"):
        find_label_maps(tmp_path / "missing")
