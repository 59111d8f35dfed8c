"""The CLI module CrossModaFuse as Slicer runs it: a process, files, a return parameter file."""

import csv
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from crossmoda import parameters, volume
from crossmoda.errors import InputError
from crossmoda.propagation import label_files
from crossmoda.propagation.label_files import LabelFileOutputs, Settings, find_label_maps, fuse_files
from crossmoda.volume import Grid, Volume

FOLDER = Path(__file__).resolve().parents[2] / "CrossModaRegister"
GRID = Grid((64, 40, 12), (1.0, 1.0, 2.0), (-32.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def label_map(side: str, shift: int = 0) -> np.ndarray:
    """Two cochleae and a tumor; x runs to the patient's left."""
    array = np.zeros(GRID.shape, np.uint8)
    array[5:8, 10 + shift : 14 + shift, 6:10] = array[5:8, 10 + shift : 14 + shift, 54:58] = 2
    x = 42 if side == "left" else 14
    array[4:9, 18 + shift : 26 + shift, x : x + 8] = 1
    return array


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five label maps, two of them with the tumor on the other side."""
    maps = [("a", "left", 0), ("b", "left", 1), ("c", "right", 0), ("d", "left", -1), ("e", "right", 1)]
    for name, side, shift in maps:
        volume.write(Volume(label_map(side, shift), GRID), tmp_path / "maps" / f"{name}_label.nii.gz")
    return tmp_path / "maps"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "CrossModaFuse.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_writes_what_slicer_asks_for(folder, tmp_path):
    out = {name: tmp_path / f"{name}.nrrd" for name in ("label", "confidence", "probability_vs", "disagreement")}
    flags = [word for name, path in out.items() for word in (f"--{name}", path)]
    done = run(
        "--returnparameterfile", tmp_path / "values.txt", *flags, "--performance", tmp_path / "table.csv", folder
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "<filter-start>" in done.stdout and "<filter-end>" in done.stdout
    fused = volume.read_label_map(out["label"])
    assert fused.grid.same_as(GRID)
    np.testing.assert_array_equal(fused.array, label_map("left"))
    assert volume.read(out["probability_vs"]).array[fused.array == 1].min() > 0.5
    values = dict(line.split(" = ") for line in (tmp_path / "values.txt").read_text("utf-8").splitlines())
    assert (values["fused"], values["dropped"], values["vs_volume_mm3"]) == (
        "5",
        "0",
        f"{(fused.array == 1).sum() * 2.0}",
    )
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [f"{name}_label.nii.gz" for name in "abcde"]
    assert rows[2]["sensitivity_VS"] == "" and float(rows[0]["sensitivity_cochlea"]) > 0.9


def test_a_doubtful_side_lowers_the_confidence_of_the_tumor_and_of_where_it_may_be(folder, tmp_path):
    other = label_map("right") == 1
    volume.write(Volume(0.5 * other.astype(np.float32), GRID), tmp_path / "elsewhere.nrrd")
    out, given = tmp_path / "confidence.nrrd", ("--tumor_side", "left", "--side_certainty", 0.6)
    done = run(*given, "--elsewhere", tmp_path / "elsewhere.nrrd", "--confidence", out, folder)
    assert done.returncode == 0, done.stderr
    found = volume.read(out).array
    assert found[label_map("left") == 1].max() == pytest.approx(0.6, abs=1e-3)
    np.testing.assert_allclose(found[other], 0.6 + 0.4 * 0.5, atol=1e-3)
    assert found[label_map("left") + label_map("right") == 0].min() > 0.99


def test_a_bad_folder_is_one_sentence_and_no_output(tmp_path):
    done = run("--label", tmp_path / "fused.nrrd", tmp_path / "nothing")
    assert done.returncode == 2 and not (tmp_path / "fused.nrrd").exists()
    assert done.stderr.strip() == f"{tmp_path / 'nothing'} is not a folder; give the folder of the label maps."


def test_the_description_has_the_parameters_of_the_engine():
    root = ElementTree.parse(FOLDER / "CrossModaFuse.xml").getroot()
    described = {item.findtext("name"): item for item in root.iter() if item.find("name") is not None}
    for item in parameters.parameters(Settings):
        found = described[item.name]
        default = found.findtext("default")
        assert item.type(default if item.type is not bool else default == "true") == item.default
        assert tuple(each.text for each in found.findall("element")) == (item.choices or ())
        for name, limit in (("minimum", item.minimum), ("maximum", item.maximum)):
            assert limit is None or float(found.findtext(f"constraints/{name}")) == limit
        assert not (item.type is bool and item.default), "Slicer cannot switch a flag off"
    for name in label_files.LabelFileOutputs.__dataclass_fields__:
        assert described[name].findtext("channel") == "output"


class TestFiles:
    def test_the_side_of_most_label_maps_is_taken_and_said(self, folder):
        result = fuse_files(find_label_maps(folder))
        assert result.side == "left" and "3 left, 2 right" in result.notes[0]
        np.testing.assert_array_equal(result.label_map.array, label_map("left"))

    def test_the_side_can_be_given(self, folder):
        result = fuse_files(find_label_maps(folder), settings=Settings(tumor_side="right"))
        assert (result.label_map.array[..., :32] == 1).any() and not (result.label_map.array[..., 32:] == 1).any()

    def test_a_pattern_chooses_files(self, folder):
        assert [path.name for path in find_label_maps(folder, "[ac]_*")] == ["a_label.nii.gz", "c_label.nii.gz"]
        with pytest.raises(InputError, match=r"holds no label map named z\*"):
            find_label_maps(folder, "z*")

    def test_label_maps_on_other_grids_come_to_the_reference(self, folder, tmp_path):
        fine = Grid((128, 80, 24), (0.5, 0.5, 1.0), (-32.25, -0.25, -0.5), GRID.direction)
        volume.write(Volume(np.zeros(fine.shape, np.float32), fine), tmp_path / "target.nii.gz")
        result = fuse_files(find_label_maps(folder), reference=tmp_path / "target.nii.gz")
        assert result.label_map.grid.same_as(fine)
        voxels = np.count_nonzero(label_map("left") == 1)
        assert np.count_nonzero(result.label_map.array == 1) == pytest.approx(8 * voxels, rel=0.1)

    def test_unusable_label_maps_are_left_out_with_a_sentence(self, folder):
        volume.write(Volume(np.zeros(GRID.shape, np.uint8), GRID), folder / "f_label.nii.gz")
        volume.write(Volume(label_map("left") * np.uint8(4), GRID), folder / "g_label.nii.gz")
        (folder / "h_label.nii.gz").write_bytes(b"")
        result = fuse_files(find_label_maps(folder))
        assert len(result.names) == 5 and result.measurements()["dropped"] == 3
        assert "f_label.nii.gz has no labeled voxel" in result.dropped[0]
        assert "g_label.nii.gz has the label value 4" in result.dropped[1]
        assert "h_label.nii.gz" in result.dropped[2] and "empty" in result.dropped[2]

    def test_cancelling_writes_nothing(self, folder, tmp_path):
        from crossmoda.errors import Cancelled

        def cancel(fraction: float, message: str) -> None:
            if "STAPLE" in message:
                raise Cancelled

        with pytest.raises(Cancelled):
            fuse_files(find_label_maps(folder), LabelFileOutputs(label=tmp_path / "fused.nrrd"), progress=cancel)
        assert not (tmp_path / "fused.nrrd").exists()
