"""Full disks and files that cannot be read end the work with one sentence and leave nothing incomplete."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import inference, output, volume
from crossmoda.deeds import transform
from crossmoda.errors import InputError
from crossmoda.fusion.files import FusionOutputs, fuse_files
from crossmoda.provenance import checksum
from crossmoda.volume import Grid, Volume

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((40, 40, 40), (1.0, 1.0, 1.0), (-20.0, 0.0, 0.0), AXES)
CONTROLS = Grid((10, 10, 10), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0), AXES)


@pytest.fixture
def full() -> Iterator[None]:
    """No file grows beyond 8 kB, as on a disk that fills up while it is written."""
    resource = pytest.importorskip("resource", reason="limits the size of files as POSIX does")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def a_registration() -> transform.Registration:
    field = np.random.default_rng(0).normal(size=(3, 10, 10, 10)).astype(np.float32)
    forward, backward = transform.field_transforms(field, -field, CONTROLS)
    return transform.Registration(forward, backward, GRID, GRID)


def write_image(path: Path) -> None:
    volume.write(Volume(np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32), GRID), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("image.nii", write_image),
        ("image.nii.gz", write_image),
        ("image.nrrd", write_image),
        ("image.mha", write_image),
        ("field.nii.gz", lambda path: a_registration().write_displacement_field(path)),
        ("field.nrrd", lambda path: a_registration().write_displacement_field(path)),
        ("numbers.json", lambda path: output.write_json(path, list(range(9000)))),
    ],
)
@pytest.mark.usefixtures("full")
def test_a_file_that_the_disk_cannot_hold_is_one_sentence_and_no_file(
    tmp_path: Path, name: str, write: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=f"Cannot write .*{name}"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a path of POSIX")
def test_a_transform_is_not_begun_where_it_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 ends the process when a file could not be completed: seen on a disk of 64 kB."""
    free = 3 * 8 * 10**3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))  # type: ignore[attr-defined]
    monkeypatch.setattr(sitk, "WriteTransform", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(InputError, match=r"Cannot write .*T\.h5: the disk is full"):
        a_registration().save(tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_nifti_file_is_not_begun_where_it_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    free = 400
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=rf"Cannot write .*{name}: the disk is full"):
        write_image(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_names_the_result_not_its_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossmoda.deeds import files

    def fail(_: Volume, path: Path) -> None:
        raise InputError(f"Cannot write {path}; is the disk full or the folder write-protected?")

    monkeypatch.setattr(files.volume, "write", fail)
    image = Volume(np.zeros(GRID.shape, np.float32), GRID)
    inputs = files._Inputs(image, image, image.array.dtype, None, None, None, None, {})
    with pytest.raises(InputError) as caught:
        files._write(a_registration(), files.RegistrationOutputs(warped=tmp_path / "warped.nii.gz"), inputs)
    assert str(tmp_path / "warped.nii.gz") in str(caught.value)
    assert output.PARTIAL not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and long names of POSIX")
@pytest.mark.parametrize("kind", ["missing", "dangling", "loop", "pipe", "long"])
def test_a_file_that_cannot_be_read_is_one_sentence_before_any_work(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("n" * 300 if kind == "long" else "scan.nii")
    if kind in ("dangling", "loop"):
        path.symlink_to("nowhere.nii" if kind == "dangling" else path.name)
    if kind == "pipe":
        os.mkfifo(path)  # to read it would be to wait for ever
    with pytest.raises(InputError, match=r"Cannot read|Neither a file nor a folder"):
        checksum(path)


def a_folder_of_label_maps(folder: Path) -> list[Path]:
    """Label maps that compress well, whose fusion's probabilities do not."""
    rng = np.random.default_rng(0)
    centers = rng.uniform(18, 22, (5, 3))
    index = np.indices(GRID.shape)
    for number, (z, y, x) in enumerate(centers):
        ball = (index[0] - z) ** 2 + (index[1] - y) ** 2 + (index[2] - x) ** 2 < 150
        volume.write(Volume(ball.astype(np.uint8), GRID), folder / f"{number}.nii.gz")
    return sorted(folder.iterdir())


def test_a_fusion_whose_second_file_does_not_fit_leaves_all_former_files(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files = a_folder_of_label_maps(tmp_path / "maps")
    results = tmp_path / "results"
    outputs = FusionOutputs(results / "label.nrrd", results / "confidence.nii", performance=results / "a.csv")
    fuse_files(files[:2], outputs)
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    assert sorted(before) == ["a.csv", "confidence.nii", "label.nrrd"]
    assert len(before["label.nrrd"]) < 8192 < len(before["confidence.nii"])
    request.getfixturevalue("full")
    with pytest.raises(InputError, match=r"Cannot write .*confidence\.nii"):
        fuse_files(files, outputs)
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_a_prediction_whose_last_file_cannot_be_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Volume(np.zeros(GRID.shape, np.float32), GRID)
    found = inference.Prediction(image.with_array(image.array.astype(np.uint8)), np.zeros((3, *GRID.shape)), {})
    monkeypatch.setattr("crossmoda.inference.prediction_files.predict", lambda *_, **__: found)
    volume.write(image, tmp_path / "scan.nii")
    (tmp_path / "uncertainty.nii").mkdir()
    with pytest.raises(InputError, match=r"Cannot write .*uncertainty\.nii: is a directory"):
        inference.predict_files(
            tmp_path / "scan.nii",
            tmp_path / "label.nrrd",
            probabilities=tmp_path / "p",
            uncertainty=tmp_path / "uncertainty.nii",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii", "uncertainty.nii"]
