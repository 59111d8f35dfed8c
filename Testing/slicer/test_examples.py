"""The examples of the page for researchers run as they are printed there."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"


@pytest.fixture
def named(scene, sample_folder):
    """The sample's scans under the names of the examples."""
    import slicer

    for number, name in ((1, "atlas 1"), (2, "atlas 2")):
        folder = sample_folder / "source_training"
        slicer.util.loadVolume(str(folder / f"crossmoda_{number}_ceT1.nii.gz"), {"name": name})
        slicer.util.loadLabelVolume(str(folder / f"crossmoda_{number}_Label.nii.gz"), {"name": name + " label"})
    slicer.util.loadVolume(str(sample_folder / "target_training/crossmoda_4_hrT2.nii.gz"), {"name": "T2"})


def test_the_batch_script_segments_a_data_set(
    application, panel, sample_folder, weights, tmp_path, monkeypatch, capsys
):
    import slicer

    status = []
    monkeypatch.setattr(slicer.util, "exit", status.append)
    monkeypatch.setattr(sys, "argv", ["batch_segment.py", str(sample_folder), str(tmp_path), str(weights)])
    runpy.run_path(str(EXAMPLES / "batch_segment.py"), run_name="__main__")
    assert status == [0], capsys.readouterr().out
    assert {"".join(path.suffixes) for path in tmp_path.iterdir()} == {".seg.nrrd", ".nii.gz", ".json"}


def test_the_console_example_propagates_two_atlases(application, panel, named, capsys):
    runpy.run_path(str(EXAMPLES / "console_propagate.py"))
    assert "mm³" in capsys.readouterr().out


def test_the_cli_example_registers_without_waiting(application, panel, named):
    import slicer

    run = runpy.run_path(str(EXAMPLES / "cli_register.py"))["run"]
    application.wait_until(lambda: not run.IsBusy())
    assert run.GetStatusString() == "Completed", run.GetErrorText()
    application.wait_until(lambda: slicer.util.getNode("atlas 1 on T2 label").GetImageData() is not None)
    assert slicer.util.arrayFromVolume(slicer.util.getNode("atlas 1 on T2 label")).max() == 2


def test_every_example_is_on_the_page_for_researchers():
    guide = (EXAMPLES.parent / "researcher.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"examples/{path.name}" in guide


@pytest.mark.bed
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_outside_slicer_an_example_says_where_it_runs(path):
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode and done.stderr.startswith("Not in 3D Slicer. Run this example")
    assert len(done.stderr.splitlines()) == 1
