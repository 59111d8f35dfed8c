"""Data sets are read as downloaded, and all their problems are reported at once."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda.dataset import Case, open_dataset, validate
from crossmoda.errors import Cancelled, InputError
from crossmoda.provenance import checksums_of_outputs
from crossmoda.volume import Grid, Volume, write, write_segmentation
from dicom_series import write_mixed_study

AXES = tuple(np.eye(3).ravel().tolist())
GRID = Grid((40, 36, 10), (1.0, 1.0, 2.0), (-20.0, -18.0, -10.0), AXES)
RNG = np.random.default_rng(0)


def an_image() -> Volume:
    return Volume(RNG.normal(100, 20, GRID.shape).astype(np.float32), GRID)


def a_label(value_tumor: int = 1, value_cochlea: int = 2) -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    array[4:7, 15:20, 25:30] = value_tumor
    array[4:6, 15:18, 33:36] = value_cochlea
    return Volume(array, GRID)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path) -> list[tuple[str, str, str | None]]:
    return [(case.id, case.modality, case.label.name if case.label else None) for case in open_dataset(folder).cases]


# --- names -----------------------------------------------------------------------------------------------------------


def test_crossmoda_2021_is_recognized(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "source_training/crossmoda_2_ceT1.nii.gz",
        "source_training/crossmoda_2_Label.nii.gz",
        "source_training/crossmoda_10_ceT1.nii.gz",
        "source_training/crossmoda_10_Label.nii.gz",
        "target_training/crossmoda_106_hrT2.nii.gz",
        "target_validation/crossmoda_211_hrT2.nii.gz",
    )
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset.sources] == ["crossmoda_2", "crossmoda_10"]
    assert [case.label.name for case in dataset.sources if case.label] == [
        "crossmoda_2_Label.nii.gz",
        "crossmoda_10_Label.nii.gz",
    ]
    assert [case.id for case in dataset.targets] == ["crossmoda_106", "crossmoda_211"]
    assert len(dataset.cases) == 4
    assert dataset.unpaired == ()


def test_crossmoda_2022_is_recognized(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "crossmoda2022_training/training_source/crossmoda2022_ldn_1_ceT1.nii.gz",
        "crossmoda2022_training/training_source/crossmoda2022_ldn_1_Label.nii.gz",
        "crossmoda2022_training/training_target/crossmoda2022_etz_120_hrT2.nii.gz",
        "crossmoda2022_validation/validation/crossmoda2022_ldn_200_hrT2.nii.gz",
    )
    assert found(tmp_path) == [
        ("crossmoda2022_etz_120", "hrT2", None),
        ("crossmoda2022_ldn_1", "ceT1", "crossmoda2022_ldn_1_Label.nii.gz"),
        ("crossmoda2022_ldn_200", "hrT2", None),
    ]


def test_crossmoda_2023_is_recognized_and_its_tumor_parts_are_joined(tmp_path: Path) -> None:
    """1 intra-meatal and 2 extra-meatal tumor, 3 cochlea."""
    folder = tmp_path / "crossmoda23_training"
    touch(folder, "TrainingTarget/crossmoda2023_ukm_44_T2.nii.gz")
    write(an_image(), folder / "TrainingSource/crossmoda2023_etz_1_ceT1.nii.gz")
    parts = a_label(1, 3)
    parts.array[4, 15:20, 25:30] = 2
    write(parts, folder / "TrainingSource/crossmoda2023_etz_1_Label.nii.gz")
    dataset = open_dataset(tmp_path)
    assert [case.modality for case in dataset.cases] == ["ceT1", "hrT2"]
    assert np.array_equal(dataset.sources[0].read_label().array, a_label().array)


def test_a_flat_folder_with_simple_names_is_recognized(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Anna Ö_T1.nrrd",
        "Anna Ö_T2.nrrd",
        "Anna Ö_label.seg.nrrd",
        "b_ceT1.nii",
        "b_hrT2.nii",
        "b_T2_seg.nii",
        "c_hrT2.mha",
        "c_label.mha",
        "notes.txt",
    )
    assert found(tmp_path) == [
        ("Anna Ö", "ceT1", "Anna Ö_label.seg.nrrd"),
        ("Anna Ö", "hrT2", None),
        ("b", "ceT1", None),
        ("b", "hrT2", "b_T2_seg.nii"),
        ("c", "hrT2", "c_label.mha"),
    ]


def test_labels_of_the_same_name_stay_with_the_image_of_their_folder(tmp_path: Path) -> None:
    touch(tmp_path, "one/a_ceT1.nii.gz", "two/a_ceT1.nii.gz", "two/a_label.nii.gz", "one/a_label.nii.gz")
    for case in open_dataset(tmp_path).cases:
        assert case.label is not None
        assert case.label.parent == case.image.parent


def test_a_segmentation_of_crossmoda_is_a_label_only_once_it_was_corrected(tmp_path: Path) -> None:
    touch(tmp_path, "anna_hrT2.nii.gz")
    label, record = tmp_path / "anna_hrT2.seg.nrrd", tmp_path / "anna_hrT2.provenance.json"
    label.write_bytes(b"predicted")
    record.write_text(json.dumps({"crossmoda": "1"} | checksums_of_outputs({"segmentation": label}, record)), "utf-8")
    dataset = open_dataset(tmp_path)
    assert dataset.cases[0].label is None and "Correct it, or delete anna_hrT2.provenance.json" in dataset.notes[0]
    label.write_bytes(b"corrected")
    assert found(tmp_path) == [("anna", "hrT2", label.name)] and not open_dataset(tmp_path).notes
    label.write_bytes(b"predicted")
    record.unlink()
    assert found(tmp_path) == [("anna", "hrT2", label.name)]


def test_a_file_that_is_still_being_written_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a_hrT2.nii.gz", ".partial-b_hrT2-12345678.nii.gz")
    assert found(tmp_path) == [("a", "hrT2", None)]


def test_a_folder_without_scans_or_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Not a folder"):
        open_dataset(tmp_path / "missing")
    touch(tmp_path, "readme.txt")
    with pytest.raises(InputError, match="No scan with a known name"):
        open_dataset(tmp_path)


# --- TCIA Vestibular-Schwannoma-SEG ----------------------------------------------------------------------------------


def write_dicom(folder: Path, image: Volume, uid: str, description: str, patient: str = "VS-SEG-001") -> None:
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    folder.mkdir(parents=True)
    volume = sitk.Cast(image.to_sitk(), sitk.sitkUInt16)
    for number in range(volume.GetSize()[2]):
        piece = volume[:, :, number]
        position = "\\".join(f"{value:.6f}" for value in (image.grid.index_to_physical @ [0, 0, number, 1])[:3])
        tags = {
            "0008|0060": "MR",
            "0008|103e": description,
            "0010|0020": patient,
            "0020|000e": uid,
            "0020|000d": "1.2.3",
        }
        tags |= {"0020|0032": position, "0020|0037": "1\\0\\0\\0\\1\\0", "0008|0018": f"{uid}.{number + 1}"}
        for key, value in tags.items():
            piece.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"1-{number + 1:03d}.dcm"))
        writer.Execute(piece)


def outline(number: int) -> np.ndarray:
    """A 5 x 5 mm square on a slice: the voxels 25..29, 15..19."""
    z = GRID.origin[2] + number * GRID.spacing[2]
    return np.array([[4.5, -3.5, z], [9.5, -3.5, z], [9.5, 1.5, z], [4.5, 1.5, z]])


def test_the_tcia_collection_is_recognized_with_its_contour_json(tmp_path: Path) -> None:
    study = tmp_path / "Vestibular-Schwannoma-SEG" / "VS-SEG-001" / "07-19-1996-NA"
    write_dicom(study / "5.000000-t1_mpr_tra_gk-1", an_image(), "1.2.3.4.1", "t1_mpr_tra_gk")
    write_dicom(study / "6.000000-t2_ci3d_tra-2", an_image(), "1.2.3.4.2", "t2_ci3d_tra_1.5mm_gk")
    for uid, name in (("1.2.3.4.1", "vs_gk_1_t1"), ("1.2.3.4.2", "vs_gk_1_t2")):
        entries = [
            {
                "MR_SeriesInstanceUID": uid,
                "structure_name": "TV",
                "LPS_contour_points": [outline(n).tolist() for n in (4, 5, 6)],
            }
        ]
        (tmp_path / "contours" / name).mkdir(parents=True)
        (tmp_path / "contours" / name / "contours.json").write_text(json.dumps(entries))
    dataset = open_dataset(tmp_path)
    assert [(case.id, case.modality) for case in dataset.cases] == [("VS-SEG-001", "ceT1"), ("VS-SEG-001", "hrT2")]
    assert dataset.cases[1].label == tmp_path / "contours" / "vs_gk_1_t2" / "contours.json"
    expected = np.where(a_label().array == 1, 1, 0)
    assert np.array_equal(dataset.sources[0].read_label().array, expected)
    assert validate(dataset) == []


def test_an_rtstruct_belongs_to_the_series_it_refers_to(tmp_path: Path, write_rtstruct: Callable[..., None]) -> None:
    study = tmp_path / "VS-SEG-002"
    write_dicom(study / "t1", an_image(), "1.2.3.5.1", "t1_mpr", "VS-SEG-002")
    write_dicom(study / "t2", an_image(), "1.2.3.5.2", "t2_space", "VS-SEG-002")
    write_rtstruct(study / "rt2" / "1-1.dcm", {"AN": [outline(4)], "Vol 2y": [outline(2)]}, "1.2.3.5.2")
    write_rtstruct(study / "rt1" / "1-1.dcm", {"AN": [outline(5)]}, "1.2.3.5.1")
    dataset = open_dataset(tmp_path)
    for case, number in zip(dataset.cases, (5, 4), strict=True):
        array = case.read_label().array
        assert list(np.flatnonzero(array.any(axis=(1, 2)))) == [number]


def test_series_mixed_in_one_folder_are_cases_of_their_own(tmp_path: Path) -> None:
    scans = write_mixed_study(tmp_path / "study")
    dataset = open_dataset(tmp_path)
    assert [(case.id, case.modality) for case in dataset.cases] == [("VS-SEG-001", "ceT1"), ("VS-SEG-001", "hrT2")]
    for case, name in zip(dataset.cases, ("t1_mpr gd", "t2_space"), strict=True):
        assert np.array_equal(case.read_image().array, scans[name].array)


# --- problems --------------------------------------------------------------------------------------------------------


def test_a_sound_data_set_has_no_problems(tmp_path: Path) -> None:
    write(an_image(), tmp_path / "a_ceT1.nii.gz")
    write(a_label(), tmp_path / "a_Label.nii.gz")
    write(an_image(), tmp_path / "b_hrT2.nii.gz")
    assert validate(open_dataset(tmp_path)) == []


def test_every_problem_is_messages_at_once_with_file_and_remedy(tmp_path: Path) -> None:
    image, label = an_image(), a_label()
    for name in ("empty", "values", "grid", "good", "lonely"):
        write(an_image(), tmp_path / f"{name}_ceT1.nii.gz")
    write(label.with_array(np.zeros_like(label.array)), tmp_path / "empty_label.nii.gz")
    write(label.with_array(label.array * 5), tmp_path / "values_label.nii.gz")
    write(Volume(label.array, Grid(GRID.size, GRID.spacing, (0.0, 0.0, 0.0), AXES)), tmp_path / "grid_label.nii.gz")
    write(label, tmp_path / "good_label.nii.gz")
    write(label, tmp_path / "nobody_label.nii.gz")
    sitk.WriteImage(sitk.Image([5, 6, 7, 3], sitk.sitkFloat32), str(tmp_path / "four_hrT2.nii.gz"))
    bad = image.with_array(image.array.copy())
    bad.array[0, 0, :3] = np.nan
    write(bad, tmp_path / "nan_hrT2.nii.gz")
    (tmp_path / "cut_hrT2.nii.gz").write_bytes((tmp_path / "good_ceT1.nii.gz").read_bytes()[:2000])
    (tmp_path / "z_copy_hrT2.nii.gz").write_bytes((tmp_path / "values_ceT1.nii.gz").read_bytes())
    write(an_image(), tmp_path / "again" / "good_ceT1.nii.gz")
    write(label, tmp_path / "again" / "good_label.nii.gz")
    messages = {}
    problems = validate(open_dataset(tmp_path))
    for problem in problems:
        messages.setdefault(problem.file.relative_to(tmp_path).as_posix(), []).append(problem.message)
        assert re.fullmatch(r".+\. .+\.", problem.message)
        assert str(problem).startswith(str(problem.file))
    expected = {
        "empty_label.nii.gz": "Empty label",
        "values_label.nii.gz": ": 5, 10. Use 0 background",
        "grid_label.nii.gz": "another grid",
        "lonely_ceT1.nii.gz": "without a label",
        "nobody_label.nii.gz": "Label without an image",
        "four_hrT2.nii.gz": "4 dimensions",
        "nan_hrT2.nii.gz": "3 voxels that are not a finite number",
        "cut_hrT2.nii.gz": "truncated or damaged",
        "good_ceT1.nii.gz": "Duplicate ceT1 image of good",
        "z_copy_hrT2.nii.gz": "Same content",
    }
    assert set(messages) == set(expected)
    for name, words in expected.items():
        assert words in " ".join(messages[name])


def test_validation_reports_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    write(an_image(), tmp_path / "a_hrT2.nii.gz")
    write(an_image(), tmp_path / "b_hrT2.nii.gz")
    seen: list[float] = []
    validate(open_dataset(tmp_path), lambda fraction, _: seen.append(fraction))
    assert seen == [0.0, 0.5, 1.0]

    def stop(fraction: float, _: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        validate(open_dataset(tmp_path), stop)


def test_a_case_without_label_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The case has no label"):
        Case("a", "hrT2", tmp_path / "a_hrT2.nii.gz").read_label()


def test_a_segmentation_that_slicer_cropped_is_a_label_on_the_grid_of_the_image(tmp_path: Path) -> None:
    write(an_image(), tmp_path / "a_ceT1.nii.gz")
    write_segmentation(Volume.from_sitk(a_label().to_sitk()[20:38, 10:25, 2:9]), tmp_path / "a_label.seg.nrrd")
    dataset = open_dataset(tmp_path)
    assert validate(dataset) == []
    label = dataset.sources[0].read_label(dataset.sources[0].read_image())
    assert np.array_equal(label.array, a_label().array)


# --- the tumor's side -----------------------------------------------------------------------------------------------


def test_the_sides_of_a_data_set_are_found_for_its_labeled_cases(tmp_path: Path) -> None:
    write(an_image(), tmp_path / "a_ceT1.nii.gz")
    write(a_label(), tmp_path / "a_label.nii.gz")
    write(an_image(), tmp_path / "b_hrT2.nii.gz")
    assert [case.side for case in open_dataset(tmp_path).with_sides().cases] == ["left", None]
