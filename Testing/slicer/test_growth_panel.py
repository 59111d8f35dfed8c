"""The comparison with a previous scan: what the scene holds and shows afterwards, cancelled, saved, repeated.

The answer of the engine is made here.
"""

import numpy as np
import pytest

pytestmark = [pytest.mark.bed, pytest.mark.usefixtures("folded")]

#: The previous scan lies 2 mm to the left (LPS x) and 1 mm higher than the scan.
SHIFT_LPS_MM = (2.0, 0.0, 1.0)
COLUMNS = [
    "side",
    "from",
    "to",
    "verdict",
    "volume before [mm3]",
    "volume after [mm3]",
    "change [%]",
    "change, low [%]",
    "change, high [%]",
]


def cube(z: slice, y: slice, x: slice) -> np.ndarray:
    """Return a label map (12, 20, 24) with a tumor."""
    array = np.zeros((12, 20, 24), np.uint8)
    array[z, y, x] = 1
    return array


@pytest.fixture
def answer(tmp_path):
    """What the worker answers: a tumor that has grown by one voxel on every side."""
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT_LPS_MM
    maps = {
        "previous": cube(slice(4, 7), slice(6, 12), slice(8, 14)),
        "scan": cube(slice(3, 8), slice(5, 13), slice(7, 15)),
    }
    for name, array in maps.items():
        np.save(tmp_path / f"{name}.npy", array)
    ear = {"volume": [0.04, 0.12], "low": [0.03, 0.1], "high": [0.05, 0.14], "criterion": [0.048, 0.048]}
    return {
        "columns": COLUMNS,
        "rows": [["left", "2023-01-02", "2024-01-02", "grown", 40.5, 120.0, 196.0, 150.0, 250.0]],
        "sentences": ["Left, 2023-01-02 to 2024-01-02: Grown: 0.04 to 0.12 mL, +196 % (+150 to +250)."],
        "notes": ["A note."],
        "matrix": matrix.tolist(),
        "label_maps": {name: str(tmp_path / f"{name}.npy") for name in maps},
        "plot": {"title": "time since the first scan [years]", "times": [0.0, 1.0], "ears": {"left": ear}},
    }


@pytest.fixture
def engine(answer, monkeypatch):
    """Put an engine in the place of the worker that answers after some steps; it keeps what it was asked."""
    from CrossModaSegLib.processes import tasks
    from CrossModaSegLib.scene import growth

    asked = []

    def task(verb, arguments, title, finish, abandon):
        steps = [lambda: asked.append((verb, arguments())), *(lambda: None for _ in range(5))]
        return tasks.StepsTask(title, lambda: steps, lambda _: finish(answer), abandon)

    monkeypatch.setattr(growth, "PythonTask", task)
    return asked


@pytest.fixture
def compared(application, panel, add_volume, engine):
    """The panel after a comparison."""
    import slicer

    scan, previous = add_volume("T2 2024-01-02"), add_volume("T2 2023-01-02")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.parameters.target, panel.parameters.previous = scan, previous
    panel.update()
    assert panel.growth.ui.compareButton.enabled, panel.growth.ui.compareButton.toolTip
    panel.growth.ui.compareButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    assert panel.logic.queue.succeeded, panel.growth.ui.messageLabel.text
    return panel


def test_the_section_is_folded_and_says_what_is_missing(panel, add_volume):
    ui = panel.growth.ui
    assert ui.sectionButton.collapsed and ui.compareButton.toolTip == "Select a scan."
    panel.parameters.target = add_volume("T2")
    panel.update()
    assert ui.compareButton.toolTip == "Select the previous scan."
    panel.parameters.previous = panel.parameters.target
    panel.update()
    assert "same" in ui.compareButton.toolTip and "same" in panel.measure.ui.applyButton.toolTip


def test_dates_come_from_the_names_or_the_user(application, panel, add_volume, engine):
    panel.parameters.target, panel.parameters.previous = add_volume("T2 2024-01-02"), add_volume("earlier")
    panel.update()
    ui = panel.growth.ui
    assert (ui.dateEdit.text, ui.previousDateEdit.text) == ("2024-01-02", "")
    ui.previousDateEdit.text = "2022-05-06"
    ui.previousDateEdit.editingFinished.emit()
    ui.compareButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    ((verb, arguments),) = engine
    assert verb == "growth" and arguments["dates"] == {"previous": "2022-05-06", "scan": "2024-01-02"}
    assert arguments["criterion"] == "volume" and arguments["labels"] == {}


def test_the_result_is_in_words_and_in_the_table(compared):
    ui = compared.growth.ui
    assert ui.sentenceLabel.text.startswith("Left, 2023-01-02 to 2024-01-02: Grown: 0.04 to 0.12 mL")
    assert ui.sectionButton.collapsed and not ui.sentenceLabel.isHidden(), "the verdict needs no unfolding"
    rows = {
        ui.growthTable.item(row, 0).text(): ui.growthTable.item(row, 1).text() for row in range(ui.growthTable.rowCount)
    }
    assert rows == {"verdict": "grown", "change [%]": "196.0", "    interval": "150…250"}


def test_the_previous_scan_lies_on_the_scan(compared):
    import slicer
    from CrossModaSegLib.scene import growth

    scan, previous = compared.parameters.target, compared.parameters.previous
    table = growth.table_of(scan)
    before, after = growth.outlines(table)
    center = np.array(after.GetSegmentCenterRAS("VS"))
    shift = np.array(SHIFT_LPS_MM) * [-1, -1, 1]
    assert np.array(before.GetSegmentCenterRAS("VS")) == pytest.approx(center + shift, abs=1e-3)
    assert previous.GetParentTransformNode() is table.GetNodeReference(growth.ALIGNMENT)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()) == (scan.GetID(), previous.GetID())
        assert view.GetLinkedControl() and view.GetHotLinkedControl()
        assert view.GetForegroundOpacity() == 0
    compared.growth.ui.fadeSlider.value = 40
    assert view.GetForegroundOpacity() == pytest.approx(0.4)
    for outline in (before, after):
        look = outline.GetDisplayNode()
        assert look.GetVisibility() and look.GetVisibility2DOutline() and not look.GetVisibility2DFill()
    colors = [outline.GetSegmentation().GetSegment("VS").GetColor() for outline in (before, after)]
    assert colors[0] != colors[1]


def test_the_change_of_the_surface_is_the_distance_of_the_surfaces(compared):
    import slicer
    from CrossModaSegLib.scene import growth
    from vtk.util.numpy_support import vtk_to_numpy

    table = growth.table_of(compared.parameters.target)
    model = table.GetNodeReference(growth.CHANGE)
    distances = vtk_to_numpy(model.GetPolyData().GetPointData().GetArray("Distance"))
    # One voxel of 0.5 x 0.5 x 1.5 mm on every side, moved by 2 and 1 mm: 2.5 mm at two faces, 3.6 mm at a corner.
    assert 2.5 < distances.max() < 4.0 and distances.min() < 0
    look, box = model.GetDisplayNode(), compared.growth.ui.changeCheckBox
    assert look.GetVisibility() and look.GetScalarVisibility() and box.checked
    box.click()
    assert not look.GetVisibility()
    box.click()
    assert look.GetVisibility()
    assert slicer.mrmlScene.GetNodeByID(look.GetColorNodeID()).GetName() == "CrossModa change"


def test_the_plot_has_volume_interval_and_criterion_of_the_ear(compared):
    from CrossModaSegLib.scene import growth

    chart = growth.table_of(compared.parameters.target).GetNodeReference(growth.CHART)
    series = [chart.GetNthPlotSeriesNode(number) for number in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [each.GetYColumnName() for each in series] == [
        f"left {line} [mL]" for line in ("volume", "low", "high", "criterion")
    ]
    values = series[0].GetTableNode().GetTable()
    times = values.GetColumnByName("time since the first scan [years]")
    assert [times.GetValue(row) for row in range(2)] == [0, 1]
    limit = values.GetColumnByName("left criterion [mL]")
    assert [limit.GetValue(row) for row in range(2)] == [0.048, 0.048]


def test_a_second_comparison_takes_a_corrected_label_and_replaces_the_first(application, compared, engine):
    import slicer
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import growth

    count = len(slicer.util.getNodesByClass("vtkMRMLNode"))
    before, after = growth.outlines(growth.table_of(compared.parameters.target))
    selftest.paint_ball(after, "VS")
    compared.update()
    compared.growth.ui.compareButton.click()
    application.wait_until(lambda: not compared.logic.busy)
    assert compared.logic.queue.succeeded, compared.growth.ui.messageLabel.text
    labels = engine[-1][1]["labels"]
    assert list(labels) == ["scan"]
    scene = slicer.mrmlScene
    assert scene.IsNodePresent(after), "a correction is kept"
    assert not scene.IsNodePresent(before)
    kept = 3  # the corrected segmentation with display and storage
    assert len(slicer.util.getNodesByClass("vtkMRMLNode")) <= count + kept


def test_a_cancelled_comparison_leaves_nothing(application, panel, add_volume, engine):
    import slicer

    panel.parameters.target, panel.parameters.previous = add_volume("T2 2024-01-02"), add_volume("T2 2023-01-02")
    panel.update()
    count = len(slicer.util.getNodesByClass("vtkMRMLNode"))
    panel.growth.ui.compareButton.click()
    application.wait_until(lambda: panel.logic.queue.tasks[1].state == "running")
    panel.update()
    assert not panel.growth.ui.cancelButton.isHidden()
    panel.growth.ui.cancelButton.click()
    assert panel.growth.ui.messageLabel.text == "Cancelled."
    assert len(slicer.util.getNodesByClass("vtkMRMLNode")) == count
    assert panel.parameters.previous.GetParentTransformNode() is None


def test_a_saved_scene_has_the_comparison(application, compared, tmp_path):
    import slicer
    from CrossModaSegLib.scene import growth

    text = compared.growth.ui.sentenceLabel.text
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    compared.update()
    assert compared.growth.ui.sentenceLabel.isHidden()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    compared.update()
    parameters = compared.parameters
    assert compared.growth.ui.sentenceLabel.text == text
    assert parameters.previous.GetName() == "T2 2023-01-02"
    table = growth.table_of(parameters.target)
    assert parameters.previous.GetParentTransformNode() is table.GetNodeReference(growth.ALIGNMENT)
    assert len(growth.outlines(table)) == 2 and growth.has_change(table)
    compared.growth.ui.showButton.click()
    assert not compared.growth.is_error, compared.growth.ui.messageLabel.text
    assert compared.growth.ui.compareButton.enabled, compared.growth.ui.compareButton.toolTip


def test_the_aligned_previous_scan_can_be_segmented_in_its_own_space(compared):
    from CrossModaSegLib.scene import nodes

    previous = compared.parameters.previous
    assert nodes.volume_problem(previous) == ""
    made = nodes.make_segmentation(cube(slice(4, 7), slice(6, 12), slice(8, 14)), previous, "made", "prediction")
    assert made.GetParentTransformNode() is previous.GetParentTransformNode()
    import slicer

    assert slicer.util.arrayFromVolume(nodes.label_map_of(made, previous)).sum() == 3 * 6 * 6
