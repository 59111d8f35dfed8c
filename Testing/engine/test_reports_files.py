"""Public reports: headers that contradict themselves, formats, a decimal comma."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from report_inputs import AXES, GRID, a_label, a_scan, dicom_slice, nifti

from crossmoda import volume
from crossmoda.dataset import open_dataset
from crossmoda.dataset.label_reading import read_label
from crossmoda.errors import InputError
from crossmoda.volume import Grid

# --- headers that contradict themselves ---


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


def test_an_empty_row_at_the_border_of_a_background_of_zeros_is_no_lost_slice(tmp_path: Path) -> None:
    scan = a_scan()
    scan.array[:, :3] = 0
    scan.array[0, 0, 0] = 1  # beyond empty rows
    volume.write(scan, tmp_path / "scan.nii.gz")
    assert np.array_equal(volume.read_scan(tmp_path / "scan.nii.gz").array, scan.array)


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


# --- formats ---


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


@pytest.mark.parametrize("has_information", [True, False])
def test_dicom_files_without_a_preamble_are_read(tmp_path: Path, has_information: bool) -> None:
    for number in range(GRID.size[2]):
        item = dicom_slice(tmp_path / f"{number}.dcm", number)
        item.preamble = None
        options = {} if has_information else {"implicit_vr": True, "little_endian": True}
        if not has_information:
            del item.file_meta
        pydicom.dcmwrite(tmp_path / f"{number}.dcm", item, enforce_file_format=False, **options)
        assert (tmp_path / f"{number}.dcm").read_bytes()[128:132] != b"DICM"
    assert [case.id for case in open_dataset(tmp_path).cases] == ["P1"]
    scan = volume.read_scan(tmp_path)
    assert np.array_equal(scan.array, a_scan().array) and scan.grid.same_as(GRID)


@pytest.mark.parametrize(("jitter_mm", "is_read"), [(1e-3, True), (0.01, True), (0.6, False)])
def test_slices_within_rounding_of_equal_distances_are_a_stack(tmp_path: Path, jitter_mm: float, is_read: bool) -> None:
    for number in range(GRID.size[2]):
        z = GRID.origin[2] + number * GRID.spacing[2] + jitter_mm * (-1) ** number
        dicom_slice(tmp_path / f"{number}.dcm", number, ImagePositionPatient=[*GRID.origin[:2], z])
    if is_read:
        grid = volume.read_scan(tmp_path).grid
        assert np.allclose(grid.index_to_physical, GRID.index_to_physical, atol=2 * jitter_mm)
    else:
        with pytest.raises(InputError, match="slices"):
            volume.read_scan(tmp_path)


# --- the numeric locale of a host program ---


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
