"""The CLI module CrossModaPropagate as Slicer runs it: a process, files, a return parameter file."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossmoda import volume
from crossmoda.dataset import open_dataset
from crossmoda.dataset.results import PROPAGATION_FILES
from crossmoda.simulation import Settings, simulate_dataset
from crossmoda.steps.propagate import COLUMNS

MODULE = Path(__file__).resolve().parents[2] / "CrossModaRegister" / "CrossModaPropagate.py"
QUICK = (
    *("--levels", 1, "--linear", "none", "--outline", "atlases", "--tumor_side", "left", "--device", "cpu"),
    *("--initialization", "image"),  # a field of view too small for ear frames
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two atlases and one target, coarse and small."""
    settings = Settings(field_of_view=90.0, slices=24, in_plane_spacing=1.0, slice_thickness=2.0)
    folder = tmp_path_factory.mktemp("data with spaces") / "sample"
    return simulate_dataset(folder, sources=2, targets=1, tests=0, seed=4, settings=settings)


@pytest.fixture(scope="module")
def target(data) -> Path:
    """The scan to be labeled."""
    return open_dataset(data).targets[0].image


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(MODULE), *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


def outputs(folder: Path) -> dict[str, Path]:
    names = {"label": ".nrrd", "confidence": ".nrrd", "disagreement": ".nrrd", "table": ".csv"}
    return {name: folder / f"{name}{ending}" for name, ending in names.items()}


@pytest.fixture(scope="module")
def finished(data, target, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that keeps its registrations: its folder and its process."""
    folder = tmp_path_factory.mktemp("finished")
    flags = [word for name, path in outputs(folder).items() for word in (f"--{name}", path)]
    done = run(
        "--returnparameterfile", folder / "values.txt", *QUICK, *flags, "--registrations", folder / "kept", target, data
    )
    return folder, done


def values(path: Path) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in path.read_text("utf-8").splitlines() if " = " in line)


def test_outputs_table_and_measurements_agree(finished, target):
    folder, done = finished
    assert (done.returncode, done.stderr) == (0, "")
    label, confidence = volume.read_label_map(folder / "label.nrrd"), volume.read(folder / "confidence.nrrd")
    assert label.grid.same_as(volume.read(target).grid)
    assert confidence.grid.same_as(label.grid) and confidence.array.min() >= 0 and confidence.array.max() <= 1
    reported = values(folder / "values.txt")
    voxel_mm3 = label.grid.voxel_volume_mm3
    assert float(reported["vs_volume_mm3"]) == pytest.approx((label.array == 1).sum() * voxel_mm3, abs=0.01)
    assert (reported["contributed"], reported["excluded"], reported["reused"]) == ("2", "0", "0")
    assert (reported["side"], float(reported["side_certainty"])) == ("left", 1.0)
    assert reported["processor"].startswith("cpu")
    with (folder / "table.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [set(row) for row in rows] == [set(COLUMNS)] * 2
    assert {row["fate"] for row in rows} == {"contributed"} and {row["side"] for row in rows} == {"left"}
    assert min(float(row["quality"]) for row in rows) > 0.05


def test_progress_names_the_atlas_at_work_and_rises(finished):
    _, done = finished
    fractions = [float(text) for text in re.findall(r"<filter-progress>([\d.]+)</filter-progress>", done.stdout)]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    # Both are registered at the same time; the newest message is shown several times a second.
    assert re.search(r"atlas [12] of 2: ", done.stdout)


def test_the_label_is_that_of_the_command(finished):
    folder, _ = finished
    label, own = (volume.read_label_map(folder / name) for name in ("label.nrrd", "kept/noisy_label.nii.gz"))
    np.testing.assert_array_equal(label.array, own.array)


def test_a_second_run_reuses_all_registrations(finished, data, target, tmp_path):
    folder, _ = finished
    again = outputs(tmp_path)
    arguments = ["--returnparameterfile", tmp_path / "values.txt", *QUICK, "--label", again["label"]]
    done = run(*arguments, "--registrations", folder / "kept", target, data)
    assert (done.returncode, values(tmp_path / "values.txt")["reused"]) == (0, "2")
    assert again["label"].read_bytes() == (folder / "label.nrrd").read_bytes()


def test_a_kill_leaves_no_output_and_the_next_run_resumes(data, target, tmp_path):
    flags = [word for name, path in outputs(tmp_path).items() for word in (f"--{name}", path)]
    kept = tmp_path / "kept"
    arguments = [*QUICK, *flags, "--registrations", kept, target, data]
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if (progress := re.search(r"<filter-progress>([\d.]+)", line)) and float(progress[1]) > 0.9:
                process.kill()
                break
    assert process.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert not any((kept / name).is_file() for name in PROPAGATION_FILES)
    done = run("--returnparameterfile", tmp_path / "values.txt", *arguments)
    assert (done.returncode, values(tmp_path / "values.txt")["reused"]) == (0, "2")


def test_temporary_registrations_are_removed(data, target, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    done = run(*QUICK, "--label", tmp_path / "label.nrrd", target, data)
    assert done.returncode == 0 and (tmp_path / "label.nrrd").is_file()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_folder_without_atlases_is_one_sentence_and_no_output(target, tmp_path):
    (tmp_path / "atlases").mkdir()
    (tmp_path / "atlases" / "x_hrT2.nii.gz").write_bytes(target.read_bytes())
    done = run("--label", tmp_path / "label.nrrd", target, tmp_path / "atlases")
    assert done.returncode == 2 and not (tmp_path / "label.nrrd").exists()
    assert done.stderr.strip() == f"No labeled ceT1 scan in {tmp_path / 'atlases'}. Add atlases to the folder."
