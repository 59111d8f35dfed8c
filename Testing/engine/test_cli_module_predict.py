"""The Slicer CLI module CrossModaPredict, run as Slicer runs it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crossmoda import network, preprocessing, volume, weights  # noqa: E402

MODULE = Path(__file__).resolve().parents[2] / "CrossModaSeg" / "CrossModaPredict.py"


def run_module(module, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, str(module), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def check_progress(printed, name):
    """Check that progress begins and ends as Slicer wants it and never goes back."""
    fractions = [float(text) for text in re.findall(r"<filter-progress>([\d.]+)</filter-progress>", printed)]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(fractions) > 3
    assert printed.startswith(f"<filter-start><filter-name>{name}</filter-name>")
    assert printed.rstrip().endswith("</filter-end>")


def kill_at(message, module, *arguments):
    """Run the module and kill it without notice, as Slicer does, as soon as it says ``message``."""
    command = [sys.executable, str(module), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if message in line:
                process.kill()
                break
        process.stdout.read()
    assert process.returncode != 0
    time.sleep(0.2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    settings = network.Settings(width=0.125)
    card = weights.new_card(settings, preprocessing.Preparation(crop_x=32, crop_y=32, crop_z=8, in_plane_spacing=0))
    weights.save(folder / "net.safetensors", network.build(settings).state_dict(), card)
    grid = volume.Grid((40, 36, 10), (0.5, 0.5, 1.5), (1, 2, 3), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    image = np.random.default_rng(0).normal(100, 20, grid.shape).astype(np.float32)
    volume.write(volume.Volume(image, grid), folder / "scan.nrrd")
    return folder


def test_it_segments_reports_progress_and_returns_measurements(files):
    found = run_module(
        MODULE,
        "--returnparameterfile", files / "return.txt",
        "--weights", files / "net.safetensors",
        "--vs_probability", files / "vs.nrrd",
        "--uncertainty", files / "unsure.nrrd",
        "--device", "cpu",
        files / "scan.nrrd", files / "out.nrrd",
    )  # fmt: skip
    assert found.returncode == 0 and found.stderr == ""
    check_progress(found.stdout, "CrossModaPredict")
    scan = volume.read(files / "scan.nrrd")
    for name in ("out.nrrd", "vs.nrrd", "unsure.nrrd"):
        assert volume.read(files / name).grid.same_as(scan.grid)
    values = dict(line.split(" = ") for line in (files / "return.txt").read_text("utf-8").splitlines())
    count = (volume.read_label_map(files / "out.nrrd").array == 1).sum()
    assert float(values["vs_mm3"]) == pytest.approx(count * 0.375, abs=0.01)
    assert set(values) == {"vs_mm3", "cochlea_mm3", "processor", "notes"}


def test_bad_input_is_one_sentence_on_standard_error_and_nothing_is_written(files, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    found = run_module(MODULE, "--weights", tmp_path / "broken.safetensors", files / "scan.nrrd", tmp_path / "out.nrrd")
    assert found.returncode == 2
    assert found.stderr.strip().splitlines() == ["Not a valid safetensors file: broken.safetensors. Download it again."]
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.nrrd",), "missing.nrrd"),
        (("--weights", "scan.nrrd", "scan.nrrd"), "Not a valid safetensors file"),
        (("--weights", "none.safetensors", "scan.nrrd"), "Weights not found"),
        (("--weights", "pickle.safetensors", "scan.nrrd"), "Pickled checkpoint"),
        (("flat.nrrd",), "same value everywhere"),
    ],
)
def test_every_bad_input_is_one_sentence_exit_code_2_and_no_file(files, tmp_path, arguments, message):
    torch.save({"weight": torch.zeros(2)}, files / "pickle.safetensors")
    scan = volume.read(files / "scan.nrrd")
    volume.write(scan.with_array(np.full_like(scan.array, 7)), files / "flat.nrrd")
    named = [files / word if "." in word else word for word in arguments]
    given = [] if "--weights" in arguments else ["--weights", files / "net.safetensors"]
    outputs = ["--uncertainty", tmp_path / "unsure.nrrd", "--returnparameterfile", tmp_path / "return.txt"]
    found = run_module(MODULE, *outputs, *given, *named, tmp_path / "out.nrrd")
    assert found.returncode == 2 and message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1 and "Traceback" not in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_half_way_leaves_no_result_and_an_earlier_one_as_it_was(files, tmp_path):
    shutil.copy(files / "scan.nrrd", tmp_path / "out.nrrd")
    before = (tmp_path / "out.nrrd").read_bytes()
    arguments = ["--weights", files / "net.safetensors", files / "scan.nrrd", tmp_path / "out.nrrd"]
    kill_at("segmenting", MODULE, "--uncertainty", tmp_path / "unsure.nrrd", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["out.nrrd"]
    assert (tmp_path / "out.nrrd").read_bytes() == before
