"""Checks of the whole panel: run by CrossModaSegTest in the real application, and by the test bed without it."""

import tempfile
import time
from pathlib import Path

import numpy as np
import slicer
import vtk

from CrossModaSegLib.scene import measures, nodes

#: A small sample: coarse and of a small region, so that the whole walk takes a minute.
SMALL_SAMPLE = {
    "sources": 3,
    "targets": 1,
    "seed": 4,
    "settings": {"field_of_view": 90.0, "slices": 24, "in_plane_spacing": 1.0, "slice_thickness": 2.0},
}


def open_panel():
    """Open the module; return its panel."""
    slicer.util.selectModule("CrossModaSeg")
    panel = slicer.util.getModuleWidget("CrossModaSeg").panel
    panel.update()
    return panel


def wait(condition, seconds: float = 300.0) -> None:
    """Process events until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it took too long")
        slicer.app.processEvents()
        time.sleep(0.005)


def press(panel, button) -> None:
    """Click a button and wait for the work that it starts."""
    if not button.enabled:
        raise AssertionError(f"{button.text} is disabled: {button.toolTip}")
    button.click()
    wait(lambda: not panel.logic.busy)
    panel.update()


def paint_ball(segmentation, key: str, radius_voxels: int = 2) -> None:
    """Add a ball to a segment, as a clinician's brush does."""
    volume = segmentation.GetNodeReference(nodes.TARGET)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, key, volume)
    center = np.array(array.shape) // 2
    distance = np.linalg.norm(np.stack(np.indices(array.shape), -1) - center, axis=-1)
    array[distance <= radius_voxels] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, key, volume)


def check_log(case) -> None:
    """Nothing was logged as an error since the application was started; a module that raises at start is loaded all
    the same.
    """
    log = slicer.app.errorLogModel()
    level_column = 2
    levels = [str(log.logEntryData(row, level_column)).upper() for row in range(log.logEntryCount())]
    failures = [
        log.logEntryDescription(row) for row, level in enumerate(levels) if level in ("ERROR", "CRITICAL", "FATAL")
    ]
    case.assertEqual(failures, [])


def check_opens_empty(case) -> None:
    """The panel opens on an empty scene, and every disabled button says why."""
    panel = open_panel()
    for section in panel.sections:
        for name, widget in vars(section.ui).items():
            if name.endswith("Button") and widget.className() == "QPushButton" and not widget.enabled:
                case.assertTrue(widget.toolTip, f"{section.name} {name} does not say why it is disabled")
    case.assertFalse(panel.register.ui.registerButton.enabled)
    case.assertFalse(panel.measure.ui.applyButton.enabled)


def check_refuses_a_volume_without_geometry(case) -> None:
    """A volume without geometry is refused next to the control, and the panel stays usable."""
    panel = open_panel()
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "picture")
    slicer.util.updateVolumeFromArray(volume, np.ones((8, 8, 8), np.float32))
    panel.cases.ui.volumeSelector.setCurrentNode(volume)
    panel.update()
    panel.cases.ui.addTargetButton.click()
    case.assertIn("no geometry", panel.cases.ui.messageLabel.text)
    volume.SetSpacing(0.5, 0.5, 1.5)
    panel.cases.ui.addTargetButton.click()
    case.assertEqual(panel.cases.ui.messageLabel.text, "")
    case.assertEqual(panel.cases.rows[0].volume.GetID(), volume.GetID())


def check_click_through(case) -> None:
    """Load the sample, register three atlases, fuse, segment, correct, measure, export."""
    panel = open_panel()
    panel.sample = SMALL_SAMPLE
    press(panel, panel.cases.ui.sampleButton)
    case.assertEqual([row.modality for row in panel.cases.rows], ["ceT1", "ceT1", "ceT1", "hrT2"])
    case.assertEqual([row.problem() for row in panel.cases.rows], [""] * 4)
    target = panel.parameters.target

    press(panel, panel.register.ui.registerButton)
    case.assertEqual([task.error for task in panel.logic.queue.tasks if task.error], [])
    case.assertIn("Tumor side: left. Atlases used: 3, excluded: 0.", panel.register.ui.messageLabel.text)
    case.assertEqual(panel.cases.rows[-1].tumor_side()[0], "left")
    case.assertRegex(panel.cases.rows[0].state(target), r"used, quality 0\.[1-9]")
    check_result(case, panel.parameters.noisyLabel, target)
    disagreement = panel.parameters.noisyLabel.GetNodeReference(nodes.DISAGREEMENT)
    case.assertGreater(disagreement.GetImageData().GetScalarRange()[1], 0)
    case.assertEqual(panel.cases.rows[-1].state(target), "fused label")
    for mode in ("fade", "checkerboard", "contour"):
        panel.parameters.check = mode
        panel.register.ui.checkButton.click()
        case.assertEqual(panel.register.ui.messageLabel.text.count("Unexpected"), 0)

    panel.parameters.weights = getattr(case, "weights", "")
    panel.update()
    panel.show_tab(panel.measure)
    press(panel, panel.measure.ui.applyButton)
    case.assertEqual([task.error for task in panel.logic.queue.tasks if task.error], [])
    result = panel.parameters.result
    check_result(case, result, target)
    case.assertNotEqual(result.GetID(), panel.parameters.noisyLabel.GetID())

    case.assertIsNone(result.GetAttribute(nodes.CORRECTED))
    paint_ball(result, "VS")
    case.assertIsNotNone(result.GetAttribute(nodes.CORRECTED))
    press(panel, panel.result.ui.measureButton)
    volume = measures.table_of(result).GetTable().GetColumnByName("volume [mm3]").GetValue(0)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(result, "VS", target)
    case.assertAlmostEqual(volume, array.sum() * np.prod(target.GetSpacing()), delta=0.06)

    with tempfile.TemporaryDirectory() as folder:
        panel.parameters.exportFolder = folder
        panel.parameters.exportSurfaces = True
        panel.update()
        press(panel, panel.result.ui.exportButton)
        endings = sorted("".join(path.suffixes[-2:]) for path in Path(folder).iterdir())
        for ending in (".json", ".nii.gz", ".seg.nrrd", ".stl"):
            case.assertIn(ending, endings, panel.result.ui.messageLabel.text)


def check_result(case, segmentation, target) -> None:
    """A result is named, terminology-tagged, on the target's grid, and knows how it was made."""
    from crossmoda import labels

    case.assertIsNotNone(segmentation)
    content = segmentation.GetSegmentation()
    for structure in labels.STRUCTURES:
        segment = content.GetSegment(structure.key)
        case.assertEqual(segment.GetName(), structure.name)
        entry = vtk.mutable("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
        case.assertEqual(str(entry), structure.terminology)
    case.assertEqual(
        segmentation.GetNodeReferenceID(segmentation.GetReferenceImageGeometryReferenceRole()), target.GetID()
    )
    case.assertIn("crossmoda", nodes.provenance(segmentation))


CHECKS = (check_opens_empty, check_refuses_a_volume_without_geometry, check_click_through)
