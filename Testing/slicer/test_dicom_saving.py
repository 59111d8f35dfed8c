"""Save to DICOM: a segmentation joins the study of its scan, where it lies, without a temporary file left."""

import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from mr_series import write_dicom_series

pytestmark = pytest.mark.bed


@pytest.fixture
def database(monkeypatch, tmp_path):
    """Slicer's DICOM database, with the instances of a series; what is imported is copied to a folder."""
    import slicer

    scan = sitk.GetImageFromArray(np.arange(12 * 20 * 24, dtype=np.int16).reshape(12, 20, 24))
    scan.SetSpacing((0.5, 0.5, 1.5))
    scan.SetOrigin((10.0, -20.0, 30.0))
    write_dicom_series(tmp_path / "series", scan, "T2")
    files = {f"1.2.3.3.{number + 1}": str(tmp_path / "series" / f"{number:03d}.dcm") for number in range(12)}
    base = types.SimpleNamespace(fileForInstance=lambda instance: files.get(instance, ""))

    def import_dicom(folder, copyFiles=False):
        assert copyFiles, "the folder is temporary"
        shutil.copytree(folder, tmp_path / "imported")

    monkeypatch.setattr(slicer, "dicomDatabase", base, raising=False)
    utils = types.SimpleNamespace(importDicom=import_dicom)
    monkeypatch.setitem(sys.modules, "DICOMLib", types.SimpleNamespace(DICOMUtils=utils))
    return " ".join(files)


@pytest.fixture
def segmented(panel, add_volume):
    """A segmented scan as Slicer may load it: its slices from top to bottom."""
    import slicer
    import vtk
    from CrossModaSegLib.scene import nodes

    volume = add_volume("T2", np.zeros((12, 20, 24), np.float32), (0.5, 0.5, 1.5), (-10.0, 20.0, 30.0 + 11 * 1.5))
    directions = vtk.vtkMatrix4x4()
    for axis in range(3):
        directions.SetElement(axis, axis, -1)
    volume.SetIJKToRASDirectionMatrix(directions)
    label = np.zeros((12, 20, 24), np.uint8)
    label[1:4, 6:12, 8:14] = 1
    panel.parameters.result = nodes.make_segmentation(label, volume, "result", "prediction")
    panel.update()
    return slicer.util.getNode("T2"), label


def test_a_segmentation_is_saved_where_it_lies_in_the_series(application, panel, segmented, database, tmp_path):
    volume, label = segmented
    button = panel.result.ui.dicomButton
    assert not button.enabled and "not loaded with the DICOM module" in button.toolTip
    volume.SetAttribute("DICOM.instanceUIDs", database)
    panel.update()
    temporary = set(Path(application.temporaryPath).glob("CrossModa-*"))
    button.click()
    application.wait_until(lambda: not panel.logic.busy)
    assert panel.result.ui.messageLabel.text == "Saved to the DICOM database: result."
    (file,) = (tmp_path / "imported").iterdir()
    saved = pydicom.dcmread(file)
    frames = saved.PerFrameFunctionalGroupsSequence
    heights = [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in frames]
    masks = saved.pixel_array.astype(bool)
    assert masks.sum() == label.sum()
    inside = sorted(height for height, mask in zip(heights, masks, strict=True) if mask.any())
    assert inside == pytest.approx([30.0 + slice_number * 1.5 for slice_number in (8, 9, 10)])
    assert set(Path(application.temporaryPath).glob("CrossModa-*")) == temporary


def algorithm_types(segmentation) -> set[str]:
    """Return the types in the DICOM tags of the segments."""
    import vtk

    content, types = segmentation.GetSegmentation(), set()
    for number in range(content.GetNumberOfSegments()):
        value = vtk.mutable("")
        assert content.GetNthSegment(number).GetTag("DICOM.SegmentAlgorithmType", value)
        types.add(str(value))
    return types


def test_the_segments_state_how_they_were_made_and_that_they_were_corrected(panel, segmented):
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import nodes

    result = panel.parameters.result
    nodes.watch_corrections(result)
    assert algorithm_types(result) == {"AUTOMATIC"}
    selftest.paint_ball(result, "VS")
    assert algorithm_types(result) == {"SEMIAUTOMATIC"}


def test_a_lost_slice_is_a_reason_not_to_save(panel, segmented, database):
    volume, _label = segmented
    volume.SetAttribute("DICOM.instanceUIDs", database + " 9.9.9")
    panel.update()
    assert not panel.result.ui.dicomButton.enabled
