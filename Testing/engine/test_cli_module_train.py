"""The Slicer CLI module CrossModaTrain, run as Slicer runs it, and its XML."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crossmoda import training, volume, weights  # noqa: E402

_SPEC = importlib.util.spec_from_file_location("predict_checks", Path(__file__).with_name("test_cli_module_predict.py"))
checks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(checks)

MODULE = checks.MODULE.with_name("CrossModaTrain.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two labelled ceT1 scans and one hrT2 scan with a noisy label, named as in crossMoDA."""
    folder = tmp_path_factory.mktemp("train")
    grid = volume.Grid((48, 40, 12), (0.5, 0.5, 1.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    noisy = folder / "propagated" / "crossmoda_3"
    for number in (1, 2, 3):
        rng = np.random.default_rng(number)
        label = np.zeros(grid.shape, np.uint8)
        label[4:8, 15:25, 10:20], label[5:7, 20:24, 30:34] = 1, 2
        image = volume.Volume((label * 50 + rng.normal(100, 10, grid.shape)).astype(np.float32), grid)
        if number < 3:
            volume.write(image, folder / "data" / f"crossmoda_{number}_ceT1.nii.gz")
            volume.write(image.with_array(label), folder / "data" / f"crossmoda_{number}_Label.nii.gz")
        else:
            volume.write(image, folder / "data" / f"crossmoda_{number}_hrT2.nii.gz")
            volume.write(image.with_array(label), noisy / "noisy_label.nii.gz")
            sure = np.full(grid.shape, 0.7, np.float32)
            volume.write(image.with_array(sure), noisy / "confidence.nii.gz")
    return folder


def test_the_xml_describes_the_parameters_of_the_engine():
    described = checks.check_settings(MODULE, training.Settings)
    assert described["data"].findtext("index") == "0"


def test_it_trains_on_sources_and_noisy_targets_and_returns_the_weights(data):
    found = checks.run_module(
        MODULE,
        "--returnparameterfile", data / "return.txt",
        "--noisy", data / "propagated",
        "--output", data / "run",
        "--epochs", 1, "--width", 0.125, "--device", "cpu",
        data / "data",
    )  # fmt: skip
    assert found.returncode == 0 and found.stderr == ""
    path = Path((data / "return.txt").read_text("utf-8").removeprefix("weights = ").strip())
    assert weights.load(path).card["training"]["cases"] == 3


def test_a_folder_without_labelled_scans_is_refused_in_one_sentence(data, tmp_path):
    found = checks.run_module(MODULE, "--output", tmp_path / "run", data / "propagated")
    assert found.returncode == 2
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
