"""The Slicer CLI module CrossModaTrain, run as Slicer runs it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crossmoda import network, preprocessing, training, volume, weights  # noqa: E402

pytestmark = pytest.mark.slow

_SPEC = importlib.util.spec_from_file_location("predict_checks", Path(__file__).with_name("test_cli_module_predict.py"))
checks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(checks)

MODULE = checks.MODULE.with_name("CrossModaTrain.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two labeled ceT1 scans and one hrT2 scan with a noisy label, named as in crossMoDA."""
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


def test_it_trains_on_sources_and_noisy_targets_and_returns_the_weights(data):
    found = checks.run_module(
        MODULE,
        "--returnparameterfile", data / "return.txt",
        "--noisy", data / "propagated",
        "--output", data / "run",
        "--epochs", 1, "--field", "scan", "--width", 0.125, "--device", "cpu",
        data / "data",
    )  # fmt: skip
    assert found.returncode == 0 and found.stderr == ""
    checks.check_progress(found.stdout, "CrossModaTrain")
    found = dict(line.split(" = ") for line in (data / "return.txt").read_text("utf-8").splitlines())
    assert found["notes"] == ""
    path = Path(found["weights"])
    assert weights.load(path).card["training"]["cases"] == 3


def test_a_folder_without_labeled_scans_is_refused_in_one_sentence(data, tmp_path):
    found = checks.run_module(MODULE, "--output", tmp_path / "run", data / "propagated")
    assert found.returncode == 2
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--noisy", "nothing"), "No noisy label"),
        (("--initial", "other.safetensors"), "preset, width, field and inputs"),
        (("--epochs", "-1"), "epochs must be"),
        (("--validation", "data"), "used for training and validation"),
    ],
)
def test_every_bad_input_is_one_sentence_exit_code_2_and_no_output(data, tmp_path, arguments, message):
    settings = network.Settings(width=0.25)
    card = weights.new_card(settings, preprocessing.Preparation())
    weights.save(data / "other.safetensors", network.build(settings).state_dict(), card)
    values = [arguments[0], arguments[1] if arguments[0] == "--epochs" else data / arguments[1]]
    found = checks.run_module(
        MODULE,
        "--output",
        tmp_path / "run",
        "--field",
        "scan",
        "--width",
        0.125,
        "--device",
        "cpu",
        *values,
        data / "data",
    )
    assert found.returncode == 2 and message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1 and "Traceback" not in found.stdout
    assert not (tmp_path / "run" / training.WEIGHTS).exists()


def test_what_would_not_matter_for_the_improvement_of_a_model_is_refused(data, tmp_path):
    found = checks.run_module(
        MODULE, "--models", tmp_path, "--output", tmp_path / "run", "--patience", 3, "--restart", data / "data"
    )
    assert found.returncode == 2 and "Without effect" in found.stderr
    assert "--output, --patience, --restart. Leave it out." in found.stderr


def test_a_killed_training_leaves_no_weights_and_resumes_to_the_same_ones(data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several threads do not promise an order of their sums
    arguments = ["--epochs", 2, "--field", "scan", "--width", 0.125, "--device", "cpu", data / "data"]
    checks.kill_at("training: epoch 2", MODULE, "--output", tmp_path / "cut", *arguments)
    assert not (tmp_path / "cut" / training.WEIGHTS).exists()
    for name in ("cut", "through"):
        found = checks.run_module(MODULE, "--output", tmp_path / name, *arguments)
        assert found.returncode == 0, found.stderr
    one, two = (weights.read_tensors(tmp_path / name / training.WEIGHTS)[0] for name in ("cut", "through"))
    assert all(torch.equal(one[name], two[name]) for name in one)
