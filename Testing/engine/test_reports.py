"""Situations of public bug reports: each gives the right result or one sentence, and never a wrong result silently."""

import contextlib
import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import labels, structure_names, volume
from crossmoda.cache import CachedStep
from crossmoda.dataset import Case, corrections, open_dataset
from crossmoda.dataset.case_id import id_of_file
from crossmoda.dataset.label_reading import read_label
from crossmoda.dataset.sequences import kind_of
from crossmoda.deeds.transform import read_transform
from crossmoda.errors import InputError
from crossmoda.evaluation import evaluate_files
from crossmoda.fusion.files import fuse_files
from crossmoda.inference import predict_files
from crossmoda.locks import locked
from crossmoda.output import atomic, check_apart, csv_text, printable
from crossmoda.provenance import checksum
from crossmoda.review import models
from crossmoda.volume import Grid, Volume
from crossmoda.weights import _are_limits, bundled

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((24, 20, 12), (0.5, 0.5, 1.5), (-6.0, 5.0, -40.0), AXES)


@pytest.fixture(autouse=True)
def unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mappings of names are of one test only."""
    monkeypatch.setattr(structure_names, "_mapped", {})


def a_scan(grid: Grid = GRID, seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).integers(1, 900, grid.shape).astype(np.int16), grid)


def a_label(grid: Grid = GRID) -> Volume:
    array = np.zeros(grid.shape, np.uint8)
    array[3:7, 4:9, 4:10] = labels.VS
    array[8:10, 12:15, 14:17] = labels.COCHLEA
    return Volume(array, grid)


def segmentation(path: Path, names: dict[str, int], array: np.ndarray, terminology: str = "") -> Path:
    """Write a ``.seg.nrrd`` as 3D Slicer does, with a segment of each name and value."""
    image = Volume(array, GRID).to_sitk()
    for number, (name, value) in enumerate(names.items()):
        tags = f"Segmentation.Status:inprogress|TerminologyEntry:{terminology}|"
        for key, text in {"ID": f"S_{number}", "Name": name, "LabelValue": value, "Layer": 0, "Tags": tags}.items():
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), True)
    return path


# --- names of structures ---------------------------------------------------------------------------------------------


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


# --- evaluate --------------------------------------------------------------------------------------------------------


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


# --- headers that contradict themselves ------------------------------------------------------------------------------


def nifti(path: Path, qform: int, sform: int, mirrored: bool = False, pixdim: float = 0.0) -> Path:
    """Write a scan as NIfTI with these codes, the sform mirrored or the spacing of pixdim replaced."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.index_to_physical
    image = nibabel.Nifti1Image(a_scan().array.T, affine)
    image.set_qform(affine, qform)
    flipped = affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    image.set_sform(flipped if mirrored else affine, sform)
    nibabel.save(image, path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", content, 252, qform, sform)
    if pixdim:
        struct.pack_into("<3f", content, 80, pixdim, pixdim, pixdim)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def test_a_spacing_stated_twice_and_differently_is_refused_with_both(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii.gz", 0, 1, pixdim=1.0)
    with pytest.raises(InputError, match=r"two voxel spacings.*: 1 x 1 x 1 mm \(pixdim\) and 0\.5 x 0\.5 x 1\.5 mm"):
        volume.read_scan(path)


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1), (1, 4)])
def test_a_mirrored_sform_leaves_left_and_right_in_doubt(tmp_path: Path, codes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="mirrored, so left and right are in doubt"):
        volume.read_scan(nifti(tmp_path / "scan.nii.gz", *codes, mirrored=True))


def test_a_scan_without_orientation_codes_leaves_left_and_right_in_doubt(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="left and right are in doubt"):
        volume.read_scan(nifti(tmp_path / "scan.nii.gz", 0, 0))


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (1, 2), (2, 1)])
def test_a_scan_whose_header_agrees_with_itself_is_where_itk_has_it(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = nifti(tmp_path / "scan.nii.gz", *codes)
    expected = Grid.of(sitk.ReadImage(str(path)))
    assert np.allclose(volume.read_scan(path).grid.index_to_physical, expected.index_to_physical, atol=1e-6)


def test_empty_slices_between_others_are_refused_with_their_number(tmp_path: Path) -> None:
    scan = a_scan()
    scan.array[5:7] = 0
    volume.write(scan, tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match=r"2 empty slices between others \(the first is number 6 along axis z\)"):
        volume.read_scan(tmp_path / "scan.nii.gz")


def test_centimeters_in_an_nrrd_header_are_centimeters(tmp_path: Path) -> None:
    volume.write(a_scan(), tmp_path / "scan.nrrd")
    content = (tmp_path / "scan.nrrd").read_bytes()
    units = b'space units: "cm" "cm" "cm"\nspace directions:'
    (tmp_path / "scan.nrrd").write_bytes(content.replace(b"space directions:", units, 1))
    assert np.allclose(volume.read_scan(tmp_path / "scan.nrrd").grid.spacing, (5.0, 5.0, 15.0))


def test_a_ct_and_a_volume_of_pictures_are_refused_at_every_door(tmp_path: Path) -> None:
    ct = a_scan()
    ct.array[:, :8] = -1000
    volume.write(ct, tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match=r"it looks like a CT \(air has -900 or less\)\. Select an MR scan"):
        volume.read_scan(tmp_path / "ct.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(a_scan().array), str(tmp_path / "pictures.nrrd"))
    with pytest.raises(InputError, match="no geometry"):
        volume.read_scan(tmp_path / "pictures.nrrd")


# --- formats ---------------------------------------------------------------------------------------------------------


def test_nifti_2_and_a_compressed_file_without_the_ending_are_read(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.index_to_physical
    image = nibabel.Nifti2Image(a_scan().array.T, affine)
    image.set_qform(affine, 1)
    nibabel.save(image, tmp_path / "two.nii")
    volume.write(a_scan(), tmp_path / "one.nii.gz")
    (tmp_path / "packed.nii").write_bytes((tmp_path / "one.nii.gz").read_bytes())
    for name in ("two.nii", "packed.nii"):
        assert np.array_equal(volume.read_scan(tmp_path / name).array, a_scan().array)


def test_a_good_qform_beside_a_sheared_sform_is_taken(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.index_to_physical
    sheared = affine.copy()
    sheared[0, 1] += 0.003 * affine[1, 1]
    image = nibabel.Nifti1Image(a_scan().array.T, affine)
    image.set_qform(affine, 1)
    image.set_sform(sheared, 1)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    assert volume.read_scan(tmp_path / "scan.nii.gz").grid.same_as(GRID)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "alone.nii.gz")
    with pytest.raises(InputError, match=r"not perpendicular \(by 0\.17 degrees\)"):
        volume.read_scan(tmp_path / "alone.nii.gz")


@pytest.mark.parametrize(("change", "is_same"), [((1.0000153, 0.0), True), ((1.0, 0.005), True), ((1.0, 0.2), False)])
def test_a_label_within_rounding_of_its_image_belongs_to_it(
    tmp_path: Path, change: tuple[float, float], is_same: bool
) -> None:
    factor, shift = change
    spacing = tuple(value * factor for value in GRID.spacing)
    rounded = Grid(GRID.size, spacing, (GRID.origin[0] + shift, *GRID.origin[1:]), GRID.direction)  # type: ignore[arg-type]
    volume.write(a_label(rounded), tmp_path / "label.nii.gz")
    assert (read_label(tmp_path / "label.nii.gz", GRID).grid == GRID) is is_same


def test_messages_about_grids_name_what_differs() -> None:
    turned = Grid(GRID.size, GRID.spacing, GRID.origin, (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    moved = Grid(GRID.size, GRID.spacing, (-3.0, 5.0, -40.0), AXES)
    assert moved.difference_to(GRID) == "shifted by 3 mm"
    assert turned.difference_to(GRID) == "axes turned by up to 90 degrees"
    assert Grid((24, 20, 13), *_of(GRID)).difference_to(GRID) == "24 x 20 x 13 instead of 24 x 20 x 12 voxels"


def _of(grid: Grid) -> tuple:
    return grid.spacing, grid.origin, grid.direction


def test_a_dicom_segmentation_is_a_label(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    slices = [dicom_slice(tmp_path / f"{number:02}.dcm", number) for number in range(GRID.size[2])]
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm if number == 1 else Code("80169004", "SCT", "Cochlea"),
            algorithm_type="MANUAL",
        )
        for number, name in ((1, "GTV"), (2, "Cochlea links"))
    ]
    written = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=a_label().array,
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    (tmp_path / "seg").mkdir()
    written.save_as(tmp_path / "seg" / "seg.dcm")
    for path in (tmp_path / "seg" / "seg.dcm", tmp_path / "seg"):
        found = read_label(path, GRID)
        assert np.array_equal(found.array, a_label().array)


def dicom_slice(path: Path, number: int, **changes: object):  # type: ignore[no-untyped-def]
    """Write one slice of a scan as DICOM; ``changes`` replace attributes."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    item = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.StudyInstanceUID, item.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    item.PatientID, item.PatientName, item.Modality, item.SeriesDescription = "P1", "Test", "MR", "T2 CISS"
    item.PatientBirthDate = item.PatientSex = item.AccessionNumber = item.StudyID = ""
    item.StudyDate = item.StudyTime = item.ReferringPhysicianName = ""
    item.SeriesNumber, item.InstanceNumber = 1, number + 1
    item.Rows, item.Columns = GRID.size[1], GRID.size[0]
    item.PixelSpacing, item.SliceThickness = [GRID.spacing[1], GRID.spacing[0]], GRID.spacing[2]
    item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    item.ImagePositionPatient = [*GRID.origin[:2], GRID.origin[2] + number * GRID.spacing[2]]
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit = 15
    item.PixelData = a_scan().array[number].astype(np.uint16).tobytes()
    for name, value in changes.items():
        setattr(item, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)
    return item


# --- the numeric locale of a host program -----------------------------------------------------------------------------


_IN_GERMAN = """
import locale, sys
import numpy as np
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
from crossmoda import volume
for path in sys.argv[1:]:
    scan = volume.read_scan(path)
    assert np.allclose(scan.grid.spacing, (1.875, 1.875, 2.4)), (path, scan.grid)
    volume.write(scan, path.replace("scan.", "again."))
"""


def test_a_decimal_comma_of_the_host_program_changes_no_spacing(tmp_path: Path) -> None:
    made = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]
    if shutil.which("localedef") is None or subprocess.run(made, capture_output=True).returncode > 1:
        pytest.skip("no locale with a decimal comma can be made")
    grid = Grid((24, 20, 12), (1.875, 1.875, 2.4), (-91.36, -93.08, -46.82), AXES)
    files = [tmp_path / f"scan.{ending}" for ending in ("nrrd", "mha", "nii.gz")]
    for file in files:
        volume.write(a_scan(grid), file)
    surroundings = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"}
    done = subprocess.run([sys.executable, "-c", _IN_GERMAN, *files], capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stderr
    for file in files:
        again = sitk.ReadImage(str(file).replace("scan.", "again."))
        assert np.allclose(Grid.of(again).index_to_physical, grid.index_to_physical, atol=1e-5)


# --- data sets -------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def cases_of(folder: Path) -> list[tuple[str, str, str | None]]:
    return [(case.id, case.modality, case.label and case.label.name) for case in open_dataset(folder).cases]


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("t2_space_tra_mpr", "hrT2"),
        ("DRIVE_3D_IAC", "hrT2"),
        ("B-FFE XD IAC", "hrT2"),
        ("Ax 3D SPACE IAC", "hrT2"),
        ("FIESTA +GD", "hrT2"),
        ("AX FSPGR +C", "ceT1"),
        ("VIBE KM tra", "ceT1"),
        ("t2_tirm_tra_dark-fluid_FLAIR", None),
        ("T2* GRE", None),
        ("localizer t2_haste", None),
        ("ep2d_diff_b1000_t2", None),
        ("t2_tse_tra_5mm", None),
        ("T1 SE tra nativ", None),
        ("subtraction", None),
    ],
)
def test_the_description_of_a_series_says_what_it_is(description: str, kind: str | None) -> None:
    assert kind_of({}, description) == kind


def test_the_attributes_of_a_series_come_before_its_words() -> None:
    assert kind_of({"EchoTime": 390, "InversionTime": 1800}, "t2 sag 3d") is None
    assert kind_of({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "t2") is None
    assert kind_of({"Modality": "CT"}, "T2 Fenster") is None
    assert kind_of({"SequenceName": "*ci3d1_20"}, "Innenohr") == "hrT2"
    assert kind_of({"EchoTime": 200, "RepetitionTime": 1400, "SliceThickness": 0.6}, "Felsenbein") == "hrT2"
    assert kind_of({"EchoTime": 4, "RepetitionTime": 10, "ContrastBolusAgent": "Gadovist"}, "Felsenbein") == "ceT1"
    assert kind_of({"SliceThickness": 5}, "t2 tra") is None


def test_an_unknown_series_is_named_and_can_be_assigned(tmp_path: Path) -> None:
    for number in range(3):
        dicom_slice(tmp_path / "a" / f"{number}.dcm", number, SeriesDescription="Innenohr")
        dicom_slice(tmp_path / "b" / f"{number}.dcm", number, SeriesInstanceUID="1.2.9")
    data = open_dataset(tmp_path)
    assert len(data.cases) == 1
    assert 'Series neither ceT1 nor hrT2, left out: "Innenohr" in' in data.notes[0]
    (tmp_path / "series_names.json").write_text('{"Innenohr": "hrT2"}')
    assert len(open_dataset(tmp_path).cases) == 2


@pytest.mark.parametrize(
    "label",
    [".seg.nrrd", "-label.nrrd", "_mask.nii.gz", "_segmentation.nii.gz", "_gt.nii.gz", " Segmentation.seg.nrrd"],
)
def test_the_label_endings_of_slicer_and_itk_snap_are_labels(tmp_path: Path, label: str) -> None:
    touch(tmp_path, "anna_ceT1.nii.gz", f"anna_ceT1{label}")
    assert cases_of(tmp_path) == [("anna", "ceT1", f"anna_ceT1{label}")]


def test_bids_and_nnunet_layouts_are_read(tmp_path: Path) -> None:
    touch(
        tmp_path / "bids",
        "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-ciss_T2w.nii.gz",
        "derivatives/sub-01/anat/sub-01_space-T2w_dseg.nii.gz",
        "derivatives/sub-01/anat/sub-01_dseg.nii.gz",
    )
    assert cases_of(tmp_path / "bids") == [
        ("sub-01", "ceT1", "sub-01_dseg.nii.gz"),
        ("sub-01", "hrT2", "sub-01_space-T2w_dseg.nii.gz"),
    ]
    touch(tmp_path / "nn", "imagesTr/vs_001_0000.nii.gz", "labelsTr/vs_001.nii.gz", "imagesTs/vs_002_0000.nii.gz")
    (tmp_path / "nn" / "dataset.json").write_text('{"channel_names": {"0": "ceT1"}}')
    assert cases_of(tmp_path / "nn") == [("vs_001", "ceT1", "vs_001.nii.gz"), ("vs_002", "ceT1", None)]


def test_a_name_that_is_nearly_one_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a_T2.nii.gz", "sub.02_T2_denoised.nii.gz", "sub.03-T2.nii.gz")
    notes = open_dataset(tmp_path).notes
    assert len(notes) == 2 and "sub.02_T2_denoised.nii.gz" in notes[0] and "sub.03-T2.nii.gz" in notes[1]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")
def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a_T2.nii.gz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "lost_T2.nii.gz").symlink_to(tmp_path / "nothing")
    data = open_dataset(tmp_path / "data")
    assert [case.id for case in data.cases] == ["a"]
    assert data.notes == (f"Link to nothing: {tmp_path / 'data' / 'lost_T2.nii.gz'}.",)


def test_an_rtstruct_among_the_slices_is_found_and_two_of_one_series_are_not_guessed(
    tmp_path: Path, write_rtstruct: Callable[..., None]
) -> None:
    for number in range(6):
        dicom_slice(tmp_path / f"MR.{number}.dcm", number)
    write_rtstruct(tmp_path / "RS.1.dcm", {"VS": [np.zeros((3, 3))]}, "1.2.3")
    assert [case.label and case.label.name for case in open_dataset(tmp_path).cases] == ["RS.1.dcm"]
    write_rtstruct(tmp_path / "RS.2.dcm", {"Cochlea": [np.zeros((3, 3))]}, "1.2.3")
    data = open_dataset(tmp_path)
    assert [case.label for case in data.cases] == [None]
    assert "Several labels of one series, none used" in data.notes[0] and len(data.unpaired) == 2


# --- names of patients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "12/345", "a\\b", "A:B*?", "CON", "x\x1b[2J", "", ".."])
def test_no_patient_id_leaves_the_folder_of_the_results(tmp_path: Path, name: str) -> None:
    case = Case(name, "hrT2", tmp_path / "scan.nii.gz")
    assert (tmp_path / case.id).resolve().parent == tmp_path.resolve()
    assert case.id.isprintable() and case.id not in ("", ".", "..")


def test_different_patients_never_share_a_folder(tmp_path: Path) -> None:
    names = ["1.2.840.5.nii.gz", "1.2.840.6.nii.gz", "a/b", "a_b", "a:b", "a" * 300, "a" * 301]
    ids = [Case(id_of_file(Path(name)) if ".nii" in name else name, "hrT2", tmp_path).id for name in names]
    assert len({case_id.casefold() for case_id in ids}) == len(names)
    assert ids[:2] == ["1.2.840.5", "1.2.840.6"]


# --- stale results ---------------------------------------------------------------------------------------------------


def test_a_header_of_its_own_is_identified_with_its_voxels(tmp_path: Path) -> None:
    for name, seed in (("A", 0), ("B", 1)):
        sitk.WriteImage(a_scan(seed=seed).to_sitk(), str(tmp_path / f"{name}.mhd"))
        sitk.WriteImage(a_scan(seed=seed).to_sitk(), str(tmp_path / f"{name}.nhdr"))
    for ending, data in (("mhd", "raw"), ("nhdr", "raw")):
        header = (tmp_path / f"A.{ending}").read_text()
        other = tmp_path / f"other.{ending}"
        other.write_text(header.replace(f"A.{data}", f"B.{data}"))
        again = tmp_path / f"again.{ending}"
        again.write_text(header)
        assert checksum(tmp_path / f"A.{ending}") == checksum(again) != checksum(other)


def test_a_dicom_series_is_identified_by_all_its_slices_at_each_of_them(tmp_path: Path) -> None:
    for number in range(3):
        dicom_slice(tmp_path / f"{number}.dcm", number)
    before = checksum(tmp_path / "0.dcm")
    dicom_slice(tmp_path / "2.dcm", 2, PixelData=b"\1" * (24 * 20 * 2))
    assert checksum(tmp_path / "0.dcm") != before


# --- work of several people and runs ---------------------------------------------------------------------------------

_SAVE = """
import sys, time
import numpy as np
from crossmoda import dataset, volume
from crossmoda.dataset import corrections
data, size = sys.argv[1], int(sys.argv[2])
(case,) = dataset.open_dataset(data).targets
image = case.read_image()
array = np.zeros(image.grid.shape, np.uint8)
array[2:5, 2:8, 2 : 2 + size] = 1
for _ in range(2):
    corrections.save(case, image.with_array(array), data, reviewer=str(size))
"""


def test_nothing_that_somebody_drew_is_lost_when_people_save_at_once(tmp_path: Path) -> None:
    volume.write(a_scan(), tmp_path / "a_hrT2.nii.gz")
    people = [subprocess.Popen([sys.executable, "-c", _SAVE, str(tmp_path), str(size)]) for size in (3, 5, 7)]
    assert [process.wait() for process in people] == [0, 0, 0]
    store = tmp_path / "corrections" / "a"
    saved = [*store.glob("previous/*/a_hrT2_label.nii.gz"), store / "a_hrT2_label.nii.gz"]
    sizes = sorted(int(volume.read_label_map(file).array.sum()) // 18 for file in saved)
    assert sizes == [3, 3, 5, 5, 7, 7]
    records = [
        json.loads(file.read_text()) for file in (*store.glob("previous/*/correction.json"), store / "correction.json")
    ]
    assert sorted(record["number"] for record in records) == [1, 2, 3, 4, 5, 6]


_HOLD = """
import sys, time
from crossmoda.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_folder_is_refused_and_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert first.stdout is not None and first.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=r"Folder in use by another run: .*\. Wait until it ends"), locked(tmp_path):
        pass
    first.kill()
    first.wait()
    with locked(tmp_path), locked(tmp_path):  # a thread may hold it twice
        pass


def test_the_unfinished_files_of_a_killed_run_are_removed_by_the_next_and_no_others(tmp_path: Path) -> None:
    code = "import os, sys; from crossmoda.output import atomic\nwith atomic(sys.argv[1]) as t: t.touch(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.csv")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic(tmp_path / "b.csv") as own:
        own.touch()
        with atomic(tmp_path / "c.csv") as other:
            other.touch()
        assert own.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.csv", "c.csv"]


def test_the_signal_of_a_batch_system_saves_work_as_ctrl_c_does() -> None:
    code = (
        "import os, signal; from crossmoda.output import end_as_interrupted\nend_as_interrupted()\n"
        "try: os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(9)\n"
        "except KeyboardInterrupt: print('saved')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "saved\n"


def test_outputs_are_checked_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.csv")
    for path, reason in (("file/x.csv", "not a directory"), ("pipe.csv", "not a regular file"), ("", "is a directory")):
        with pytest.raises(InputError, match=f"Cannot write .*{reason}"):
            check_apart([tmp_path / path], [])
    scan = tmp_path / "scan.nii.gz"
    volume.write(a_scan(), scan)
    with pytest.raises(InputError, match=r"Unknown file name ending"):
        predict_files(scan, tmp_path / "x.nifti")
    with pytest.raises(InputError, match="Duplicate label map"):
        fuse_files([scan, tmp_path / "." / "scan.nii.gz"])


# --- files that end other programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["kinds", "labels", "space directions", "space origin", "space units", "units"])
def test_a_header_line_of_1500_characters_ends_no_process(tmp_path: Path, field: str) -> None:
    volume.write(a_scan(), tmp_path / "scan.nrrd")
    head, _, data = (tmp_path / "scan.nrrd").read_bytes().partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if not line.startswith(field.encode() + b":")]
    line = field.encode() + b": " + b"x" * 1500
    (tmp_path / "scan.nrrd").write_bytes(b"\n".join([*lines, line]) + b"\n\n" + data)
    try:
        assert volume.read(tmp_path / "scan.nrrd").grid.size == GRID.size
    except InputError as error:
        assert "scan.nrrd" in str(error)


def test_a_damaged_transform_is_read_by_a_process_of_its_own_first(tmp_path: Path) -> None:
    (tmp_path / "t.tfm").write_bytes(b"#Insight Transform File V1.0\nTransform: \xe4\nParameters: 1e999 x\n")
    with pytest.raises(InputError, match=r"t\.tfm cannot be read as a transform"):
        read_transform(tmp_path / "t.tfm", guarded=True)


def test_a_header_that_asks_for_more_memory_than_a_head_needs_is_refused_unread(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 2000 2000 1000\n"
        "space directions: (0.1,0,0) (0,0.1,0) (0,0,0.1)\nspace origin: (0,0,0)\nendian: little\nencoding: gzip\n\n"
    )
    (tmp_path / "bomb.nrrd").write_bytes(header.encode() + gzip.compress(bytes(10**6)))
    with pytest.raises(InputError, match=r"1000 x 2000 x 2000 voxels need 14\.9 GB, more than 3 GB"):
        volume.read(tmp_path / "bomb.nrrd")
    wide = Grid((40, 40, 40), (20.0, 20.0, 20.0), (-400.0, 0.0, 0.0), AXES)
    volume.write(a_scan(wide), tmp_path / "wide.nii.gz")
    with pytest.raises(InputError, match="800 x 800 x 800 mm in size"):
        volume.read(tmp_path / "wide.nii.gz")


def test_pipes_are_no_data_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        volume.read(tmp_path / "scan.nii")


@pytest.mark.parametrize(("text", "is_read"), [("1.0", True), ("x", False), ("9" * 400, False), ("-1", False)])
def test_an_odd_value_of_a_segment_is_read_or_named(tmp_path: Path, text: str, is_read: bool) -> None:
    path = segmentation(tmp_path / "label.seg.nrrd", {"VS": 1, "Cochlea": 2}, a_label().array)
    path.write_bytes(path.read_bytes().replace(b"Segment0_LabelValue:=1", b"Segment0_LabelValue:=" + text.encode()))
    if is_read:
        assert np.array_equal(read_label(path).array, a_label().array)
    else:
        with pytest.raises(InputError, match="impossible value or layer of the segment VS"):
            read_label(path)


@pytest.mark.parametrize("content", ["[" * 10**5, '{"status": ' + "9" * 5000 + "}", "\x00", "[]", "null"])
def test_hostile_records_of_our_own_stores_are_passed_over(tmp_path: Path, content: str) -> None:
    volume.write(a_scan(), tmp_path / "a_hrT2.nii.gz")
    store = tmp_path / "corrections" / "a"
    store.mkdir(parents=True)
    (store / "correction.json").write_text(content)
    assert corrections.all_corrections(tmp_path) == {}
    (store / "finished.json").write_text(content)
    assert CachedStep(store).results() is None


# --- installations without a writable cache --------------------------------------------------------------------------


def test_compiled_code_works_where_nothing_can_be_kept() -> None:
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "from numba.core.caching import FunctionCache\n"
        "def fail(*_): raise RuntimeError('cannot cache function: no locator available')\n"
        "FunctionCache.__init__ = fail\n"
        "from crossmoda.deeds import mind_codes\nimport numpy as np\n"
        "print(mind_codes.codes(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Compiled code is not kept") == 1


# --- security and privacy --------------------------------------------------------------------------------------------


def test_names_are_plain_text_in_a_terminal_and_in_a_spreadsheet() -> None:
    assert printable("a\x1b]0;title\x07b") == "a\\x1b]0;title\\x07b"
    assert csv_text(["name", "number"], [["=cmd|'/C calc'!A0", "-1.5"], ["@x", -2.0]]).splitlines()[1:] == [
        "'=cmd|'/C calc'!A0,-1.5",
        "'@x,-2.0",
    ]


def test_markup_in_the_name_of_a_patient_is_text(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        volume.write(a_label(), tmp_path / folder / "[bold]x[nothing].nii.gz")
    code, _, err = run("evaluate", tmp_path / "a", tmp_path / "b")
    assert code == 0, err


def test_a_limit_that_is_no_number_does_not_switch_a_warning_off() -> None:
    assert not _are_limits({"VS": float("nan")}) and not _are_limits({"VS": float("inf")})


def test_a_client_without_the_certificate_of_a_study_is_refused() -> None:
    distributed = pytest.importorskip("distributed")
    from crossmoda.study import cluster
    from crossmoda.study.settings import ClusterSettings

    with contextlib.closing(cluster.local_cluster(ClusterSettings(workers=1, threads=1))) as local:
        address = local.scheduler_address
        assert address.startswith("tls://127.0.0.1")
        unsecured, foreign = "None", "__import__('crossmoda.study.cluster').study.cluster.security()"
        strangers = [(address, unsecured), (address.replace("tls://", "tcp://"), unsecured), (address, foreign)]
        for where, security in strangers:  # in processes: a refused client that is collected later may block this one
            code = (
                f"import distributed; distributed.Client({where!r}, timeout=2, security={security}); print('entered')"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode and "entered" not in done.stdout, where
            assert not re.search("Import|Syntax|Attribute|Name", done.stderr.splitlines()[-1])
        with distributed.Client(local, security=local.security, set_as_default=False) as own:
            assert own.submit(sum, [1, 2]).result(timeout=30) == 3


def test_models_added_at_once_get_names_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        added = list(pool.map(lambda _: models.add(tmp_path, bundled()).name, range(2)))
    assert sorted(added) == ["model-1", "model-2"]
    assert {file.parent.name for file in tmp_path.glob("*/weights.safetensors")} == set(added)


_STEP = """
import sys
from crossmoda.cache import CachedStep
from crossmoda.errors import InputError
folder, key = sys.argv[1:]
step = CachedStep(folder, key=key)
print("ready", flush=True)
while True:
    try:
        step.begin(["result.bin"])
        with open(folder + "/result.bin", "w") as stream:
            stream.write(key * 1000)
        step.finish(["result.bin"], {"key": key})
    except (InputError, OSError):
        pass
"""


def test_two_runs_killed_in_one_folder_never_seal_the_result_of_the_other(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        runs = [
            subprocess.Popen([sys.executable, "-c", _STEP, str(folder), key], stdout=subprocess.PIPE) for key in "AB"
        ]
        for run in runs:
            assert run.stdout is not None and run.stdout.readline() == b"ready\n"
        time.sleep(0.2 + 0.05 * number)
        for run in runs:
            run.kill()
            run.wait()
        for key in "AB":
            if CachedStep(folder, key=key).results() is not None:
                assert (folder / "result.bin").read_text() == key * 1000
