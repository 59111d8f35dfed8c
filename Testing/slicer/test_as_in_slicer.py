"""Faults that only a complete Slicer showed, tested with parts of the test bed that behave as Slicer's own do."""

import sys

import numpy as np
import pytest


@pytest.fixture
def added(scene):
    """The classes of the nodes added to the scene since then."""
    import vtk

    classes = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(_caller, _event, node):
        classes.append(node.GetClassName())

    tag = scene.AddObserver(scene.NodeAddedEvent, note)
    yield classes
    scene.RemoveObserver(tag)


def open_case(application, panel, number):
    """Open a case of the queue; return it."""
    panel.review.open(panel.review.items[number]["id"])
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    return panel.review.case


@pytest.mark.bed
def test_changing_the_case_logs_no_error_and_numbers_no_name(application, opened, add_volume):
    from testbed import pythonqt

    add_volume("a scan that the selector of the Segment Editor could move on to")
    first = opened.review.case.id
    second = open_case(application, opened, 1)
    assert opened.correct.editor.widget.sourceVolumeNode() is second.volume
    assert open_case(application, opened, 0).volume.GetName() == first
    assert pythonqt.warnings == []


def test_a_correction_is_read_and_written_without_a_node_in_the_scene(opened, added):
    case = opened.review.case
    array = case.array()
    added.clear()
    array[array == 1] = 2
    case.write(array)
    np.testing.assert_array_equal(case.array(), array)
    assert added == []


def test_opening_a_case_adds_one_label_map_to_the_scene_the_regions(application, opened, added):
    open_case(application, opened, 1)
    assert added.count("vtkMRMLLabelMapVolumeNode") == 1


@pytest.mark.bed
def test_a_correction_that_is_undone_is_no_correction(application, opened):
    from testbed.segment_editor import paint

    from crossmoda.dataset import corrections

    case, editor = opened.review.case, opened.correct.editor.widget
    editor.setCurrentSegmentID("VS")
    paint(editor, case.correction.GetSegmentCenterRAS("cochlea"), 3.0)
    assert case.unsaved
    application.wait_until(lambda: opened.correct.autosave.drafted_at, 20)
    editor.undo()
    application.wait_until(lambda: not case.unsaved, 20)
    assert corrections.find_draft(case.data, case.id) is None
    editor.redo()
    application.wait_until(lambda: case.unsaved, 20)


@pytest.mark.bed
def test_a_result_is_corrected_until_everything_is_undone(opened):
    from CrossModaSegLib.scene import cases, nodes
    from testbed.segment_editor import paint

    volume, editor = opened.review.case.volume, opened.correct.editor.widget
    array = opened.review.case.array()
    result = nodes.make_segmentation(array, volume, "result", "prediction")
    nodes.watch_corrections(result)
    row = cases.Row("case", cases.TARGET, "", volume)
    editor.setSegmentationNode(result)
    editor.setCurrentSegmentID("VS")
    assert row.state(volume) == "segmented"
    result.GetSegmentation().GetSegment("VS").SetName("renamed")
    assert row.state(volume) == "segmented"
    for radius_mm in (3.0, 6.0):
        paint(editor, result.GetSegmentCenterRAS("cochlea"), radius_mm)
    assert row.state(volume) == "corrected"
    editor.undo()
    assert row.state(volume) == "corrected"
    editor.undo()
    assert row.state(volume) == "segmented"
    editor.redo()
    assert row.state(volume) == "corrected"


@pytest.mark.bed
def test_the_self_test_fails_if_an_error_was_logged_at_start(application):
    def register():
        raise TypeError("uris must be a string or a list")

    test = sys.modules["CrossModaSeg"].CrossModaSegTest()
    startup, application._startup = application._startup, [register]
    try:
        application.startup_completed()
        with pytest.raises(AssertionError, match="uris must be a string"):
            test.runTest()
    finally:
        application._startup = startup
        application.errorLogModel().entries.clear()
