"""The Slicer CLI module CrossModaMeasure, run as Slicer runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossmoda import volume
from crossmoda.volume import Grid, Volume

MODULE = Path(__file__).resolve().parents[2] / "CrossModaSeg" / "CrossModaMeasure.py"
GRID = Grid((80, 20, 8), (1.0, 1.0, 2.0), (-40.0, 0.0, 5.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.fixture
def label(tmp_path: Path) -> Path:
    """A left tumor of 8 x 6 x 4 voxels, and both cochleae."""
    array = np.zeros(GRID.shape, np.uint8)
    array[2:6, 6:12, 58:66], array[3:5, 4:6, 2:5], array[3:5, 4:6, 70:72] = 1, 2, 2
    volume.write(Volume(array, GRID), tmp_path / "label.nrrd")
    return tmp_path / "label.nrrd"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MODULE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_table_markups_and_results_state_the_same_measures(label: Path, tmp_path: Path) -> None:
    values_file, table, markups = tmp_path / "values.txt", tmp_path / "m.csv", tmp_path / "m.mrk.json"
    done = run("--returnparameterfile", values_file, "--table", table, "--markups", markups, label)
    assert (done.returncode, done.stderr) == (0, "")
    values = dict(line.split(" = ", 1) for line in values_file.read_text("utf-8").splitlines())
    assert (values["tumors"], float(values["vs_mm3"])) == ("1", 8 * 6 * 4 * 2.0)
    with table.open(encoding="utf-8-sig") as stream:
        tumor, *cochleae = list(csv.DictReader(stream))
    assert (tumor["structure"], tumor["side"], len(cochleae)) == ("VS", "left", 2)
    assert float(tumor["axial diameter [mm]"]) == pytest.approx(float(values["axial_mm"]), abs=0.01)
    assert values["summary"].startswith("VS 0.38 mL, left, ")
    assert len(json.loads(markups.read_text("utf-8"))["markups"]) == 2


def test_unusable_input_is_one_sentence_and_nothing_is_written(label: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nrrd"
    volume.write(Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4), (1, 1, 1), (0, 0, 0), GRID.direction)), scan)
    done = run("--scan", scan, "--table", tmp_path / "m.csv", label)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "m.csv").exists()
