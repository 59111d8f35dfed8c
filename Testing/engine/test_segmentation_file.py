"""Segmentation files carry structures, colors and terminology as Slicer does, and come back on the image's grid."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from crossmoda import labels
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume, read_label_map, write, write_segmentation

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
OBLIQUE = tuple(Rotation.from_euler("xyz", (0.2, -0.1, 0.3)).as_matrix().ravel())


def a_label_map(direction: tuple[float, ...] = AXIAL) -> Volume:
    grid = Grid((24, 20, 12), (0.5, 0.5, 1.5), (-10.0, 5.0, -40.0), direction)
    array = np.zeros(grid.shape, np.uint8)
    array[3:9, 4:14, 5:15] = labels.VS
    array[4:6, 14:18, 16:20] = labels.COCHLEA
    return Volume(array, grid)


def test_a_segmentation_comes_back_with_its_structures_and_grid(tmp_path: Path) -> None:
    label_map = a_label_map(OBLIQUE)
    write_segmentation(label_map, tmp_path / "seg mit ü.seg.nrrd", {"step": "test"})
    back = read_label_map(tmp_path / "seg mit ü.seg.nrrd")
    assert np.array_equal(back.array, label_map.array)
    assert back.grid.same_as(label_map.grid, tolerance=1e-9)


def header_of(path: Path) -> dict[str, str]:
    image = sitk.ReadImage(str(path))
    return {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def test_a_segmentation_names_colors_and_tags_its_segments_as_slicer_does(tmp_path: Path) -> None:
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


def test_segments_of_unknown_structures_are_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "s.seg.nrrd"
    write_segmentation(a_label_map(), path)
    edited_segmentation(path, Segment0_Tags="|", Segment0_Name="Befund", Segment1_Tags="|", Segment1_Name="Canal")
    with pytest.raises(
        InputError, match=r'unknown structure names: "Befund", "Canal"\. Map each to VS, cochlea, ignore'
    ):
        read_label_map(path)


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
    label_map = a_label_map(OBLIQUE)
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
    with pytest.raises(InputError, match=r"Not a file name of a segmentation: .*ends in \.seg\.nrrd"):
        write_segmentation(label_map, tmp_path / "s.nrrd")
    with pytest.raises(InputError, match=r"Unknown label value in label map: 7\. Use 0 background"):
        write_segmentation(label_map.with_array(np.full(label_map.grid.shape, 7, np.uint8)), tmp_path / "s.seg.nrrd")
    assert not list(tmp_path.iterdir())


def test_slicer_itself_reads_the_segmentation(tmp_path: Path) -> None:
    """The storage node of the real Slicer (PyPI slicer-core) is the independent reader."""
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    import vtk

    label_map = a_label_map(OBLIQUE)
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
