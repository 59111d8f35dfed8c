"""Volumes keep their voxels and their place in space; unusable files are refused in one sentence."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume, read, read_label_map, write, write_segmentation

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def oblique(rx: float = 0.2, ry: float = -0.1, rz: float = 0.3) -> tuple[float, ...]:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(rx, ry, rz)
    return transform.GetMatrix()


#: Axial LPS and RAS, a sagittal acquisition, and an oblique one.
DIRECTIONS = {
    "LPS": IDENTITY,
    "RAS": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    "sagittal": (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": oblique(),
}


def a_volume(direction: tuple[float, ...] = IDENTITY, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).normal(size=(7, 9, 11)).astype(np.float32)
    return Volume(array, Grid((11, 9, 7), (0.4101, 0.4101, 1.5), (-80.1234567, -99.1, 33.3), direction))


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_an_image_comes_back_as_it_was_written(tmp_path: Path, ending: str, direction: tuple[float, ...]) -> None:
    volume = a_volume(direction)
    path = tmp_path / "Bild mit Ümlaut 图像" / f"scan 1.{ending}"
    write(volume, path)
    back = read(path)
    assert np.array_equal(back.array, volume.array)
    # NIfTI stores positions in single precision: 1e-5 mm at 100 mm.
    assert np.allclose(back.grid.index_to_physical, volume.grid.index_to_physical, atol=2e-5)


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_the_grid_of_a_file_is_kept_to_the_bit_when_a_result_is_written_beside_it(
    tmp_path: Path, direction: tuple[float, ...]
) -> None:
    write(a_volume(direction), tmp_path / "target.nii.gz")
    target = read(tmp_path / "target.nii.gz")
    write(target.with_array(np.zeros(target.grid.shape, np.uint8)), tmp_path / "result.nii.gz")
    assert read_label_map(tmp_path / "result.nii.gz").grid == target.grid


def test_the_grid_is_kept_to_the_bit_whichever_of_its_two_transforms_the_header_uses(tmp_path: Path) -> None:
    path, rng = tmp_path / "scan.nii", np.random.default_rng(0)
    for number in range(20):
        grid = Grid(
            (11, 9, 7), tuple(rng.uniform(0.3, 3, 3)), tuple(rng.normal(0, 80, 3)), oblique(*rng.normal(size=3))
        )
        sitk.WriteImage(Volume(np.zeros(grid.shape, np.uint8), grid).to_sitk(), str(path))
        content = bytearray(path.read_bytes())
        struct.pack_into("<hh", content, 252, number % 2, 1 - number % 2)  # qform_code, sform_code
        path.write_bytes(content)
        target = read_label_map(path)
        write(target, tmp_path / "result.nii.gz")
        assert read_label_map(tmp_path / "result.nii.gz").grid == target.grid


def test_writing_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    write(a_volume(), tmp_path / "scan.nii.gz")
    assert [file.name for file in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.png does not end in \.nii\.gz"):
        write(a_volume(), tmp_path / "scan.png")


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        write(a_volume(), tmp_path / "file" / "scan.nii.gz")


# --- bad files -------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.nii\.gz does not exist"):
        read(tmp_path / "nothing.nii.gz")


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha", "scan.txt"])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are not the voxels you are looking for")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path / name)


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"scan.{ending}"
    write(a_volume(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"truncated"):
        read(path)
    assert "WARNING" not in capfd.readouterr().err


def test_a_damaged_compressed_file_is_refused(tmp_path: Path) -> None:
    write(a_volume(), tmp_path / "scan.nii.gz")
    content = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("size", "words"), [((5, 6), "2 dimensions"), ((5, 6, 1), "5 x 6 x 1"), ((5, 6, 7, 3), "4 dimensions")]
)
def test_an_image_that_is_not_3d_is_refused(tmp_path: Path, size: tuple[int, ...], words: str) -> None:
    sitk.WriteImage(sitk.Image(list(size), sitk.sitkFloat32), str(tmp_path / "scan.nii.gz"))
    with pytest.raises(InputError, match=words):
        read(tmp_path / "scan.nii.gz")


def test_a_colour_image_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([5, 6, 7], sitk.sitkVectorUInt8, 3), str(tmp_path / "scan.nrrd"))
    with pytest.raises(InputError, match="3 components per voxel"):
        read(tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match="3 components per voxel"):
        read_label_map(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_values_that_are_not_finite_are_counted(tmp_path: Path, ending: str) -> None:
    volume = a_volume()
    volume.array[1, 2, 3:5] = np.nan
    volume.array[0, 0, 0] = np.inf
    volume.array[-1, -1, -1] = -np.inf
    write(volume, tmp_path / f"scan.{ending}")
    with pytest.raises(InputError, match="holds 4 voxels that are not a finite number"):
        read(tmp_path / f"scan.{ending}")


def edited_nifti(tmp_path: Path, offset: int, form: str, *values: float) -> Path:
    """A NIfTI file whose header is overwritten from ``offset`` on."""
    path = tmp_path / "scan.nii"
    write(a_volume(), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("spacing", [0.0, -1.5, float("nan")])
def test_a_spacing_that_is_not_positive_is_refused(tmp_path: Path, spacing: float) -> None:
    path = edited_nifti(tmp_path, 88, "f", spacing)  # pixdim[3]
    with pytest.raises(InputError, match="every spacing must be positive"):
        read(path)
    compressed = tmp_path / "scan.nii.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="every spacing must be positive"):
        read(compressed)


def test_axes_that_are_not_perpendicular_are_refused_with_their_angle(tmp_path: Path) -> None:
    # The first axis of a slab that is sheared by 5 degrees: (cos 5, sin 5, 0); then sform alone decides.
    angle = np.radians(5.0)
    rows = [0.41 * np.cos(angle), 0, 0, 0, 0.41 * np.sin(angle), 0.41, 0, 0, 0, 0, 1.5, 0]
    path = edited_nifti(tmp_path, 280, "12f", *rows)
    content = bytearray(path.read_bytes())
    struct.pack_into("<hh", content, 252, 0, 1)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not perpendicular \(by 5\.00 degrees\); resample"):
        read(path)


@pytest.mark.parametrize(
    ("ending", "old", "new", "words"),
    [
        ("mha", b"ElementSpacing = 0.5 0.5", b"ElementSpacing = 0.5 0", "every spacing must be positive"),
        ("nrrd", b"(0,0.5,0)", b"(0,0,0)", "every spacing must be positive"),
        ("mha", b"TransformMatrix = 1 0 0 0 1 0", b"TransformMatrix = 1 0 0 1 0 0", "do not span space"),
        ("nrrd", b"(0,0.5,0)", b"(0.5,0,0)", "do not span space"),
        ("nrrd", b"(0,0.5,0)", b"(0.2,0.5,0)", "not perpendicular"),
    ],
)
def test_bad_geometry_in_other_formats_is_refused(
    tmp_path: Path, ending: str, old: bytes, new: bytes, words: str
) -> None:
    path = tmp_path / f"scan.{ending}"
    write(Volume(np.zeros((4, 5, 6), np.float32), Grid((6, 5, 4), (0.5, 0.5, 1.5), (0.0, 0.0, 0.0), IDENTITY)), path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_label_map_with_fractions_or_large_values_is_refused(tmp_path: Path) -> None:
    volume = a_volume()
    write(volume, tmp_path / "image.nii.gz")
    with pytest.raises(InputError, match=r"is not a label map: \d+ voxels are no whole number"):
        read_label_map(tmp_path / "image.nii.gz")
    write(volume.with_array(np.full(volume.grid.shape, 300, np.int16)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="values go from 300 to 300"):
        read_label_map(tmp_path / "ct.nii.gz")


def test_whole_numbers_stored_as_floats_are_a_label_map(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 3, (7, 9, 11))
    write(a_volume().with_array(array.astype(np.float32)), tmp_path / "label.nii.gz")
    back = read_label_map(tmp_path / "label.nii.gz")
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, array)


# --- DICOM -----------------------------------------------------------------------------------------------------------


def write_series(
    folder: Path, volume: Volume, uid: str = "1.2.826.0.1.3680043.8.498.1", skip: tuple[int, ...] = ()
) -> None:
    """Write a volume as a DICOM series whose file names run against the order of the slices."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    folder.mkdir(parents=True, exist_ok=True)
    direction = np.reshape(volume.grid.direction, (3, 3))
    for number in range(volume.grid.size[2]):
        if number in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{uid}.{number + 1}"
        header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        header.SeriesInstanceUID, header.StudyInstanceUID, header.PatientID = uid, "1.2.3", "VS-SEG-001"
        header.Modality, header.SeriesDescription, header.InstanceNumber = "MR", "t1_mpr_tra", number + 1
        header.Rows, header.Columns = volume.grid.size[1], volume.grid.size[0]
        header.PixelSpacing = [f"{volume.grid.spacing[1]:.8g}", f"{volume.grid.spacing[0]:.8g}"]
        header.SliceThickness = "1.0"
        position = volume.grid.index_to_physical @ [0, 0, number, 1]
        header.ImagePositionPatient = [f"{value:.10g}" for value in position[:3]]
        header.ImageOrientationPatient = [f"{value:.12g}" for value in (*direction[:, 0], *direction[:, 1])]
        header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit = 15
        header.PixelData = volume.array[number].astype(np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{volume.grid.size[2] - number:03d}.dcm", header, enforce_file_format=True)


def a_scan(direction: tuple[float, ...] = IDENTITY, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).integers(0, 1000, (6, 8, 10)).astype(np.float32)
    return Volume(array, Grid((10, 8, 6), (0.4, 0.5, 1.5), (-20.0, -30.0, 40.0), direction))


@pytest.mark.parametrize("name", ["LPS", "sagittal", "oblique"])
def test_a_dicom_series_is_read_in_the_order_of_its_positions(tmp_path: Path, name: str) -> None:
    scan = a_scan(DIRECTIONS[name])
    # DICOM knows no left-handed stacks: row x column gives the slice axis.
    assert np.linalg.det(np.reshape(scan.grid.direction, (3, 3))) > 0
    write_series(tmp_path / "Serie ä", scan)
    back = read(tmp_path / "Serie ä")
    assert np.array_equal(back.array, scan.array)
    assert np.allclose(back.grid.index_to_physical, scan.grid.index_to_physical, atol=1e-6)


def test_a_folder_with_several_series_lists_them_and_a_file_chooses_one(tmp_path: Path) -> None:
    first, second = a_scan(seed=1), a_scan(seed=2)
    write_series(tmp_path / "study", first, "1.2.3.4")
    write_series(tmp_path / "other", second, "1.2.3.5")
    for file in (tmp_path / "other").iterdir():
        shutil.move(file, tmp_path / "study" / f"b{file.name}")
    with pytest.raises(InputError, match=r"2 DICOM series: 1\.2\.3\.4 .*; 1\.2\.3\.5 "):
        read(tmp_path / "study")
    assert np.array_equal(read(tmp_path / "study" / "b002.dcm").array, second.array)


def test_a_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "series", a_scan(), skip=(3,))
    with pytest.raises(InputError, match=r"not evenly spaced: 3\.00 mm after slice 3, 1\.50 mm elsewhere"):
        read(tmp_path / "series")


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="no DICOM image series"):
        read(tmp_path)


# --- segmentation files ----------------------------------------------------------------------------------------------


def a_label_map(direction: tuple[float, ...] = IDENTITY) -> Volume:
    grid = Grid((24, 20, 12), (0.5, 0.5, 1.5), (-10.0, 5.0, -40.0), direction)
    array = np.zeros(grid.shape, np.uint8)
    array[3:9, 4:14, 5:15] = labels.VS
    array[4:6, 14:18, 16:20] = labels.COCHLEA
    return Volume(array, grid)


def test_a_segmentation_comes_back_with_its_structures_and_grid(tmp_path: Path) -> None:
    label_map = a_label_map(oblique())
    write_segmentation(label_map, tmp_path / "seg mit ü.seg.nrrd", {"step": "test"})
    back = read_label_map(tmp_path / "seg mit ü.seg.nrrd")
    assert np.array_equal(back.array, label_map.array)
    assert back.grid.same_as(label_map.grid, tolerance=1e-9)


def header_of(path: Path) -> dict[str, str]:
    image = sitk.ReadImage(str(path))
    return {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def test_a_segmentation_names_colours_and_tags_its_segments_as_slicer_does(tmp_path: Path) -> None:
    write_segmentation(a_label_map(), tmp_path / "s.seg.nrrd", {"step": "test"})
    header = header_of(tmp_path / "s.seg.nrrd")
    assert header["Segment0_Name"] == "Vestibular schwannoma"
    assert header["Segment1_Name"] == "Cochlea"
    assert header["Segment1_LabelValue"] == "2"
    assert header["Segment0_Extent"] == "0 23 0 19 0 11"
    assert np.allclose([float(value) * 255 for value in header["Segment0_Color"].split()], labels.STRUCTURES[0].color)
    assert f"TerminologyEntry:{labels.STRUCTURES[1].terminology}|" in header["Segment1_Tags"]
    assert "Segmentation.Status:inprogress|" in header["Segment1_Tags"]
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert header["CrossModa_Provenance"] == '{"step": "test"}'


def test_an_empty_structure_stays_a_segment_that_can_be_painted(tmp_path: Path) -> None:
    label_map = a_label_map()
    label_map.array[label_map.array == labels.COCHLEA] = 0
    write_segmentation(label_map, tmp_path / "s.seg.nrrd")
    assert "Segmentation.Status:notstarted|" in header_of(tmp_path / "s.seg.nrrd")["Segment1_Tags"]


def edited_segmentation(path: Path, **fields: str) -> None:
    image = sitk.ReadImage(str(path))
    for key, value in fields.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=True)


def test_segments_are_known_by_terminology_whatever_their_name_and_value(tmp_path: Path) -> None:
    label_map = a_label_map()
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(label_map, path)
    swapped = np.array([0, 2, 1], np.uint8)[label_map.array]
    image = sitk.ReadImage(str(path))
    edited = label_map.with_array(swapped).to_sitk()
    for key in image.GetMetaDataKeys():
        edited.SetMetaData(key, image.GetMetaData(key))
    edited.SetMetaData("Segment0_LabelValue", "2")
    edited.SetMetaData("Segment1_LabelValue", "1")
    edited.SetMetaData("Segment0_Name", "Befund 1")
    sitk.WriteImage(edited, str(path), useCompression=True)
    assert np.array_equal(read_label_map(path).array, label_map.array)


def test_segments_without_terminology_are_known_by_name_and_others_are_left_out(tmp_path: Path) -> None:
    label_map = a_label_map()
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(label_map, path)
    edited_segmentation(
        path, Segment0_Tags="|", Segment0_Name="Brainstem", Segment1_Tags="|", Segment1_Name="Left cochlea"
    )
    assert np.array_equal(read_label_map(path).array, np.where(label_map.array == 2, 2, 0))


def test_unknown_segments_keep_their_values(tmp_path: Path) -> None:
    label_map = a_label_map()
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(label_map, path)
    edited_segmentation(path, Segment0_Tags="|", Segment0_Name="Cord", Segment1_Tags="|", Segment1_Name="Canal")
    assert np.array_equal(read_label_map(path).array, label_map.array)


def test_overlapping_segments_in_layers_are_merged_with_the_cochlea_on_top(tmp_path: Path) -> None:
    label_map = a_label_map()
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(label_map, path)
    vs = (label_map.array > 0).astype(np.uint8)
    layers = sitk.Compose(
        label_map.with_array(vs).to_sitk(), label_map.with_array((label_map.array == 2).astype(np.uint8)).to_sitk()
    )
    single = sitk.ReadImage(str(path))
    for key in single.GetMetaDataKeys():
        layers.SetMetaData(key, single.GetMetaData(key))
    layers.SetMetaData("Segment1_Layer", "1")
    layers.SetMetaData("Segment1_LabelValue", "1")
    sitk.WriteImage(layers, str(path))
    assert np.array_equal(read_label_map(path).array, label_map.array)


def test_a_cropped_segmentation_is_filled_up_to_the_grid_of_its_image(tmp_path: Path) -> None:
    label_map = a_label_map(oblique())
    cropped = Volume.from_sitk(label_map.to_sitk()[4:21, 3:19, 2:10])
    write_segmentation(cropped, tmp_path / "s.seg.nrrd")
    back = read_label_map(tmp_path / "s.seg.nrrd", label_map.grid)
    assert back.grid == label_map.grid
    assert np.array_equal(back.array, label_map.array)


def test_a_label_map_off_the_lattice_of_the_image_is_not_moved(tmp_path: Path) -> None:
    label_map = a_label_map()
    write(label_map, tmp_path / "l.nii.gz")
    shifted = Grid(label_map.grid.size, label_map.grid.spacing, (-10.25, 5.0, -40.0), label_map.grid.direction)
    assert read_label_map(tmp_path / "l.nii.gz", shifted).grid.origin[0] == -10.0


def test_a_segmentation_of_unknown_values_or_with_another_ending_is_refused(tmp_path: Path) -> None:
    label_map = a_label_map()
    with pytest.raises(InputError, match=r"does not end in \.seg\.nrrd"):
        write_segmentation(label_map, tmp_path / "s.nrrd")
    with pytest.raises(InputError, match="has the value 7"):
        write_segmentation(label_map.with_array(np.full(label_map.grid.shape, 7, np.uint8)), tmp_path / "s.seg.nrrd")
    assert not list(tmp_path.iterdir())


def test_slicer_itself_reads_the_segmentation(tmp_path: Path) -> None:
    """The storage node of the real Slicer (PyPI slicer-core) is the independent reader."""
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    import vtk

    label_map = a_label_map(oblique())
    write_segmentation(label_map, tmp_path / "s.seg.nrrd")
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    node.SetAndObserveStorageNodeID(storage.GetID())
    storage.SetFileName(str(tmp_path / "s.seg.nrrd"))
    assert storage.ReadData(node)
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == len(labels.STRUCTURES)
    for number, structure in enumerate(labels.STRUCTURES):
        segment = segmentation.GetNthSegment(number)
        tag = vtk.reference("")
        segment.GetTag("TerminologyEntry", tag)
        assert (segment.GetName(), segment.GetLabelValue(), str(tag)) == (
            structure.name,
            structure.value,
            structure.terminology,
        )
        assert np.allclose(np.array(segment.GetColor()) * 255, structure.color, atol=1e-3)
        to_ras = vtk.vtkMatrix4x4()
        segment.GetRepresentation("Binary labelmap").GetImageToWorldMatrix(to_ras)
        matrix = np.array([[to_ras.GetElement(row, column) for column in range(4)] for row in range(4)])
        assert np.allclose(np.diag([-1, -1, 1, 1]) @ matrix, label_map.grid.index_to_physical)
    # Saved again, it lies on the same grid, not cropped to its segments.
    storage.SetFileName(str(tmp_path / "again.seg.nrrd"))
    assert storage.WriteData(node)
    again = read_label_map(tmp_path / "again.seg.nrrd")
    assert again.grid.same_as(label_map.grid, 1e-9)
    assert np.array_equal(again.array, label_map.array)
