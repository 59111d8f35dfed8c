"""The CLI module CrossModaFuse as Slicer runs it: a process, files, a return parameter file."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossmoda import volume
from crossmoda.errors import Cancelled, InputError
from crossmoda.fusion.files import FusionOutputs, find_label_maps, fuse_files
from crossmoda.volume import Grid, Volume

MODULE = Path(__file__).resolve().parents[2] / "CrossModaRegister" / "CrossModaFuse.py"
GRID = Grid((64, 40, 12), (1.0, 1.0, 2.0), (-32.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def label_map(shift: int = 0) -> np.ndarray:
    """Two cochleae and a tumor."""
    array = np.zeros(GRID.shape, np.uint8)
    array[5:8, 10 + shift : 14 + shift, 6:10] = array[5:8, 10 + shift : 14 + shift, 54:58] = 2
    array[4:9, 18 + shift : 26 + shift, 42:50] = 1
    return array


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five label maps on one grid."""
    for name, shift in zip("abcde", (0, 1, 0, -1, 0), strict=True):
        volume.write(Volume(label_map(shift), GRID), tmp_path / "maps" / f"{name}_label.nii.gz")
    return tmp_path / "maps"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MODULE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("method", ["staple", "majority"])
def test_outputs_and_measurements_agree(folder, tmp_path, method):
    outputs = {name: tmp_path / f"{name}.nrrd" for name in ("label", "confidence", "probability_vs", "disagreement")}
    flags = [word for name, path in outputs.items() for word in (f"--{name}", path)]
    values_file, table = tmp_path / "values.txt", tmp_path / "table.csv"
    done = run("--returnparameterfile", values_file, "--method", method, *flags, "--performance", table, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "<filter-start>" in done.stdout and "<filter-end>" in done.stdout
    fused = volume.read_label_map(outputs["label"])
    assert fused.grid.same_as(GRID)
    np.testing.assert_array_equal(fused.array, label_map())
    assert volume.read(outputs["probability_vs"]).array[fused.array == 1].min() > 0.5
    values = dict(line.split(" = ", 1) for line in values_file.read_text("utf-8").splitlines())
    assert (values["fused"], float(values["vs_volume_mm3"])) == ("5", (fused.array == 1).sum() * 2.0)
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [f"{name}_label.nii.gz" for name in "abcde"]
    assert float(rows[0]["sensitivity_cochlea"]) >= 0.9


def test_listed_files_replace_the_pattern(folder, tmp_path):
    for selection in (("--pattern", "[ac]_*"), ("--files", "a_label.nii.gz, c_label.nii.gz")):
        done = run("--returnparameterfile", tmp_path / "values.txt", *selection, folder)
        assert done.returncode == 0
        assert "fused = 2\n" in (tmp_path / "values.txt").read_text("utf-8")


def test_a_missing_folder_is_one_sentence_and_no_output(tmp_path):
    done = run("--label", tmp_path / "fused.nrrd", tmp_path / "missing")
    assert done.returncode == 2 and not (tmp_path / "fused.nrrd").exists()
    assert done.stderr.strip() == f"Not a folder: {tmp_path / 'missing'}. Use the folder of the label maps."


def test_a_label_map_on_another_grid_is_refused(folder):
    coarser = Grid(GRID.size, (2.0, 2.0, 2.0), GRID.origin, GRID.direction)
    volume.write(Volume(label_map(), coarser), folder / "f_label.nii.gz")
    with pytest.raises(InputError, match=r"f_label\.nii\.gz has another grid than a_label\.nii\.gz"):
        fuse_files(find_label_maps(folder))


def test_a_label_map_with_an_unknown_value_is_refused(folder):
    volume.write(Volume(label_map() * np.uint8(4), GRID), folder / "g_label.nii.gz")
    with pytest.raises(InputError, match=r"g_label\.nii\.gz"):
        fuse_files(find_label_maps(folder))


def test_cancelling_writes_nothing(folder, tmp_path):
    def cancel(fraction: float, message: str) -> None:
        if "STAPLE" in message:
            raise Cancelled

    with pytest.raises(Cancelled):
        fuse_files(find_label_maps(folder), FusionOutputs(label=tmp_path / "fused.nrrd"), progress=cancel)
    assert not (tmp_path / "fused.nrrd").exists()
