"""Public reports: names and values of structures, and what evaluate scores."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from report_inputs import AXES, GRID, a_label, segmentation

from crossmoda import structure_names, volume
from crossmoda.dataset.label_reading import read_label
from crossmoda.errors import InputError
from crossmoda.evaluation import evaluate_files
from crossmoda.volume import Grid, Volume


@pytest.fixture(autouse=True)
def unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mappings of names are of one test only."""
    monkeypatch.setattr(structure_names, "_mapped", {})


# --- names of structures ---


@pytest.mark.parametrize(
    "names",
    [
        {"GTV": 1, "Cochlea_L": 2},
        {"Neoplasm, Primary": 1, "Cochlea": 2},
        {"Akustikusneurinom": 1, "Cochlea links": 2},
        {"Tumor": 1, "Schnecke": 2},
        {"Schwannome vestibulaire": 1, "Cochlée": 2},
        {"Neurinoma acustico": 1, "Coclea destra": 2},
        {"schwannoma vestibular izquierdo": 1, "Cóclea": 2},
    ],
    ids=lambda names: next(iter(names)),
)
def test_a_segmentation_with_the_names_of_a_clinic_keeps_its_tumor(tmp_path: Path, names: dict[str, int]) -> None:
    path = segmentation(tmp_path / "label.seg.nrrd", names, a_label().array)
    assert np.array_equal(read_label(path).array, a_label().array)


@pytest.mark.parametrize("parts", [("VS 1", "VS 2"), ("intrameatal", "extrameatal"), ("VS_intra", "VS_extra")])
def test_the_parts_of_a_tumor_are_one_tumor(tmp_path: Path, parts: tuple[str, str]) -> None:
    array = a_label().array
    array[array == 2] = 3
    array[3:5][array[3:5] == 1] = 2
    path = segmentation(tmp_path / "label.seg.nrrd", {parts[0]: 1, parts[1]: 2, "Cochlea": 3}, array)
    assert np.array_equal(read_label(path).array, a_label().array)


def test_an_unknown_name_is_refused_with_the_list_and_the_way_to_map_it(tmp_path: Path) -> None:
    path = segmentation(tmp_path / "label.seg.nrrd", {"Befund": 1, "Cochlea": 2}, a_label().array)
    with pytest.raises(
        InputError, match=r'unknown structure names: "Befund"\. Map each to VS, cochlea, ignore: --struct'
    ):
        read_label(path)
    structure_names.map_names(["Befund=VS"])
    assert np.array_equal(read_label(path).array, a_label().array)


def test_segments_without_names_are_never_trusted_by_their_values(tmp_path: Path) -> None:
    path = segmentation(tmp_path / "label.seg.nrrd", {"Segment_1": 2, "Segment_2": 1}, a_label().array)
    with pytest.raises(InputError, match="unknown structure names"):
        read_label(path)


def test_a_mapping_in_the_folder_of_the_data_set_holds_for_every_label_below_it(tmp_path: Path) -> None:
    (tmp_path / "patients" / "p1").mkdir(parents=True)
    path = segmentation(tmp_path / "patients" / "p1" / "label.seg.nrrd", {"A": 2, "B": 1}, a_label().array)
    (tmp_path / "structure_names.json").write_text(json.dumps({"A": "cochlea", "b": "VS"}))
    assert np.array_equal(read_label(path).array, a_label().array)
    (tmp_path / "structure_names.json").write_text(json.dumps({"A": "brain"}))
    with pytest.raises(InputError, match=r"Unknown structure for A in .*: brain\. Use one of VS, cochlea, ignore"):
        read_label(path)


def test_the_codes_of_slicers_terminology_come_before_the_name(tmp_path: Path) -> None:
    entry = "Segmentation category and type~SCT^49755003^Morph~SCT^86049000^Neoplasm, Primary~^^~Anatomic~^^~^^"
    path = segmentation(tmp_path / "a.seg.nrrd", {"Segment_1": 1}, (a_label().array == 1).astype(np.uint8), entry)
    assert set(np.unique(read_label(path).array)) == {0, 1}
    path = segmentation(tmp_path / "b.seg.nrrd", {"Trigeminus-Schwannom": 1}, a_label().array, entry)
    with pytest.raises(InputError, match="unknown structure names"):
        read_label(path)


# --- evaluate ---


def test_a_crossmoda_2023_label_is_scored_like_any_other(tmp_path: Path) -> None:
    volume.write(a_label(), tmp_path / "prediction.nii.gz")
    parts = np.array([0, 1, 3], np.uint8)[a_label().array]
    parts[3:5][parts[3:5] == 1] = 2
    volume.write(a_label().with_array(parts), tmp_path / "reference.nii.gz")
    scores = evaluate_files(tmp_path / "prediction.nii.gz", tmp_path / "reference.nii.gz")
    assert scores["VS"]["dice"] == scores["cochlea"]["dice"] == 1.0


def test_a_crossmoda_2023_label_without_a_cochlea_has_none(tmp_path: Path) -> None:
    array = (a_label().array == 1).astype(np.uint8)
    array[3:5] *= 2
    path = tmp_path / "crossmoda2023_etz_5_Label.nii.gz"
    volume.write(a_label().with_array(array), path)
    assert set(np.unique(read_label(path).array)) == {0, 1}


def test_a_second_value_too_large_for_a_cochlea_beside_the_tumor_is_refused(tmp_path: Path) -> None:
    array = np.zeros((24, 40, 48), np.uint8)
    array[4:20, 4:36, 4:20], array[4:20, 4:36, 20:40] = 1, 2
    path = tmp_path / "label.nii.gz"
    volume.write(Volume(array, Grid((48, 40, 24), (0.5, 0.5, 1.0), (-6.0, 0.0, 0.0), AXES)), path)
    with pytest.raises(InputError, match=r"mm3 at the value 2, which adjoin the tumor: too large for a cochlea"):
        read_label(path)


@pytest.mark.parametrize(("values", "listed"), [((0, 255, 2), "255"), ((0, 5, 6), "5, 6")])
def test_a_value_of_another_program_is_refused_with_its_number(
    tmp_path: Path, values: tuple[int, ...], listed: str
) -> None:
    volume.write(a_label().with_array(np.array(values, np.uint8)[a_label().array]), tmp_path / "label.nii.gz")
    with pytest.raises(InputError, match=rf"Unknown label value in label\.nii\.gz: {listed}\."):
        read_label(tmp_path / "label.nii.gz")
    structure_names.map_names([f"{values[1]}=VS", f"{values[2]}=cochlea"])
    assert np.array_equal(read_label(tmp_path / "label.nii.gz").array, a_label().array)


def test_a_case_without_a_prediction_counts_as_empty_and_is_named(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    for folder, cases in (("predictions", (1,)), ("references", (1, 2))):
        (tmp_path / folder).mkdir()
        for case in cases:
            volume.write(a_label(), tmp_path / folder / f"crossmoda_{case}_Label.nii.gz")
    code, out, _ = run("evaluate", tmp_path / "predictions", tmp_path / "references", "--csv", tmp_path / "s.csv")
    assert code == 0
    assert "No prediction, counted as empty: crossmoda_2." in out
    assert "0.500 ± 0.707" in out
    assert "crossmoda_2,VS,0," in (tmp_path / "s.csv").read_text("utf-8")


def test_a_segmentation_that_slicer_cropped_is_scored_on_the_whole_grid(tmp_path: Path) -> None:
    volume.write(a_label(), tmp_path / "reference.nii.gz")
    box = (slice(2, 11), slice(3, 17), slice(3, 19))
    volume.write_segmentation(a_label().crop(box), tmp_path / "cropped.seg.nrrd")
    for pair in (("cropped.seg.nrrd", "reference.nii.gz"), ("reference.nii.gz", "cropped.seg.nrrd")):
        scores = evaluate_files(*(tmp_path / name for name in pair))
        assert scores["VS"]["dice"] == 1.0
    empty = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    for key, text in {"ID": "S", "Name": "Cochlea", "LabelValue": "1", "Layer": "0"}.items():
        empty.SetMetaData(f"Segment0_{key}", text)
    sitk.WriteImage(empty, str(tmp_path / "empty.seg.nrrd"))
    assert evaluate_files(tmp_path / "empty.seg.nrrd", tmp_path / "reference.nii.gz")["VS"]["dice"] == 0.0


@pytest.mark.parametrize("kind", ["json", "dcm"])
def test_a_reference_of_contours_is_scored_on_the_grid_of_the_prediction(
    tmp_path: Path, kind: str, write_rtstruct: Callable[..., None], run: Callable[..., tuple[int, str, str]]
) -> None:
    corners = np.array([[3.5, 3.5], [9.5, 3.5], [9.5, 8.5], [3.5, 8.5]])
    polygons = [GRID.to_lps(np.column_stack([corners, np.full(4, number)])) for number in range(3, 7)]
    reference = tmp_path / f"reference.{kind}"
    if kind == "dcm":
        write_rtstruct(reference, {"VS": polygons})
    else:
        entry = {"structure_name": "TV", "LPS_contour_points": [polygon.tolist() for polygon in polygons]}
        reference.write_text(json.dumps([entry]))
    volume.write(a_label(), tmp_path / "prediction.nii.gz")
    code, out, _ = run("evaluate", tmp_path / "prediction.nii.gz", reference, "--json", "-")
    assert code == 0 and '"dice": 1.0' in out
    for folder, file in (("predictions", tmp_path / "prediction.nii.gz"), ("references", reference)):
        (tmp_path / folder).mkdir()
        shutil.copy(file, tmp_path / folder / f"case_1{''.join(file.suffixes)}")
    (tmp_path / "references" / "summary.json").write_text('{"cases": []}')
    code, out, _ = run("evaluate", tmp_path / "predictions", tmp_path / "references", "--json", "-")
    assert code == 0 and list(json.loads(out)["cases"]) == ["case_1"]
    # Half of the tumor, cropped as by Slicer: the other half of the reference counts all the same.
    volume.write_segmentation(a_label().crop((slice(3, 5), slice(4, 9), slice(4, 10))), tmp_path / "half.seg.nrrd")
    scores = evaluate_files(tmp_path / "half.seg.nrrd", reference)["VS"]
    assert scores["dice"] == pytest.approx(2 / 3)
    assert scores["reference_volume_mm3"] == pytest.approx(4 * 5 * 6 * GRID.voxel_volume_mm3)


def test_a_label_with_its_axes_in_another_order_is_turned_to_its_image(tmp_path: Path) -> None:
    volume.write(a_label(), tmp_path / "reference.nii.gz")
    turned = nibabel.as_closest_canonical(nibabel.load(tmp_path / "reference.nii.gz"))
    nibabel.save(turned, tmp_path / "ras.nii.gz")
    swapped = nibabel.Nifti1Image(turned.get_fdata().transpose(2, 0, 1), turned.affine[:, [2, 0, 1, 3]])
    nibabel.save(swapped, tmp_path / "swapped.nii.gz")
    for name in ("ras", "swapped"):
        assert np.array_equal(read_label(tmp_path / f"{name}.nii.gz", GRID).array, a_label().array)


def test_the_scores_never_replace_what_they_are_made_of(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "label.nii.gz"
    volume.write(a_label(), path)
    content = path.read_bytes()
    (tmp_path / "linked.csv").symlink_to(path)
    for table in (path, tmp_path / "linked.csv"):
        code, _, err = run("--quiet", "evaluate", path, path, "--csv", table)
        assert code == 2 and ("Unknown file name ending" in err or "The output would replace an input" in err)
    assert path.read_bytes() == content
