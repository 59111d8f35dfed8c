"""The Slicer CLI module CrossModaRegister, run as Slicer runs it: a process, progress tags, files."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import volume
from crossmoda.volume.grid import Grid, Volume

PROJECT = Path(__file__).resolve().parents[2]
MODULE = PROJECT / "CrossModaRegister" / "CrossModaRegister.py"
STATISTICS = ["mean_displacement_mm", "percentile_95_displacement_mm", "folding_percent"]


def run(*arguments: object, module: Path = MODULE) -> subprocess.CompletedProcess[str]:
    """Run the module from another folder, without the engine on the path other than where the module finds it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(module), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> dict[str, Path]:
    """A small pair: blobs, and the same blobs 4 mm further along x with inverted contrast."""
    folder = tmp_path_factory.mktemp("pair with spaces")
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray((rng.random((30, 30, 30)) * 100).astype(np.float32))
    image = sitk.SmoothingRecursiveGaussian(image, 2.0) * 10
    array = sitk.GetArrayFromImage(image)
    grid = Grid((30, 30, 30), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    label = np.zeros(array.shape, np.uint8)
    label[10:18, 11:16, 12:19] = 1
    volumes = {
        "fixed": array,
        "moving": 1200 - np.roll(array, 2, axis=2),
        "label": np.roll(label, 2, axis=2),
        "truth": label,
    }
    for name, content in volumes.items():
        volume.write(Volume(content, grid), folder / f"{name}.nrrd")
    return {name: folder / f"{name}.nrrd" for name in volumes}


def test_a_pair_is_registered_with_progress_and_measurements(pair, tmp_path):
    result = run(
        *("--returnparameterfile", tmp_path / "values.txt"),
        *("--moving_label", pair["label"], "--device", "cpu", "--levels", 3, "--alpha", 1.2),
        *("--transform", tmp_path / "T.h5", "--inverse_transform", tmp_path / "I.h5"),
        *("--warped", tmp_path / "warped.nrrd", "--warped_label", tmp_path / "label.nrrd"),
        *(pair["fixed"], pair["moving"]),
    )
    assert (result.returncode, result.stderr) == (0, "")
    fractions = [float(text) for text in re.findall(r"<filter-progress>([\d.]+)</filter-progress>", result.stdout)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert result.stdout.startswith("<filter-start><filter-name>CrossModaRegister</filter-name>")
    assert "<filter-end>" in result.stdout
    values = dict(line.split(" = ") for line in (tmp_path / "values.txt").read_text("utf-8").splitlines())
    assert list(values) == [*STATISTICS, "processor"]
    assert float(values["mean_displacement_mm"]) == pytest.approx(4, abs=0.6)
    assert float(values["folding_percent"]) < 0.1
    label, truth = (volume.read_label_map(path).array for path in (tmp_path / "label.nrrd", pair["truth"]))
    assert 2 * np.logical_and(label, truth).sum() / (label.sum() + truth.sum()) > 0.9
    middle = (28.0, 28.0, 28.0)
    moved = sitk.ReadTransform(str(tmp_path / "T.h5")).TransformPoint(middle)
    assert moved == pytest.approx((32, 28, 28), abs=0.8)
    assert sitk.ReadTransform(str(tmp_path / "I.h5")).TransformPoint(moved) == pytest.approx(middle, abs=0.5)
    assert volume.read(tmp_path / "warped.nrrd").grid == volume.read(pair["fixed"]).grid


def test_the_installed_layout_finds_the_engine_in_qt_scripted_modules(pair, tmp_path):
    installed = tmp_path / "lib" / "Slicer-5.12"
    (installed / "cli-modules").mkdir(parents=True)
    shutil.copy(MODULE, installed / "cli-modules")
    (installed / "qt-scripted-modules").mkdir()
    (installed / "qt-scripted-modules" / "crossmoda").symlink_to(PROJECT / "crossmoda")
    # -S: third-party packages are given by PYTHONPATH, without the editable installation of the engine
    command = [sys.executable, "-S", str(installed / "cli-modules" / MODULE.name), "--help"]
    environment = {"PYTHONPATH": str(Path(np.__file__).parents[1]), "PATH": os.environ["PATH"]}
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "--moving-label" in result.stdout


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (lambda pair, tmp: (tmp / "missing.nrrd", pair["moving"]), "missing.nrrd"),
        (lambda pair, tmp: (pair["fixed"], pair["moving"], "--alpha", "-1"), "alpha must be"),
        (lambda pair, tmp: (pair["fixed"], pair["moving"], "--initial-transform", pair["fixed"]), "cannot be read"),
        (lambda pair, tmp: (pair["fixed"], pair["moving"], "--warped-label", tmp / "l.nrrd"), "no moving label map"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_no_file(pair, tmp_path, extra, message):
    result = run("--transform", tmp_path / "T.h5", *extra(pair, tmp_path))
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_label_on_another_grid_is_told(pair, tmp_path):
    label = volume.read_label_map(pair["label"])
    origin = tuple(value + 0.3 for value in label.grid.origin)
    shifted = Grid(label.grid.size, label.grid.spacing, origin, label.grid.direction)
    volume.write(Volume(label.array, shifted), tmp_path / "label.nrrd")
    result = run("--moving-label", tmp_path / "label.nrrd", pair["fixed"], pair["moving"])
    assert result.returncode == 2
    assert "lies on another grid" in result.stderr


def test_a_process_killed_half_way_leaves_no_result(pair, tmp_path):
    outputs = [
        *("--transform", tmp_path / "T.h5", "--warped", tmp_path / "warped.nrrd"),
        *("--returnparameterfile", tmp_path / "values.txt"),
    ]
    command = [sys.executable, str(MODULE), *map(str, outputs), str(pair["fixed"]), str(pair["moving"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "deformable registration" in line:
                process.kill()
                break
        process.stdout.read()
    assert process.returncode != 0
    time.sleep(0.2)
    assert list(tmp_path.iterdir()) == []
