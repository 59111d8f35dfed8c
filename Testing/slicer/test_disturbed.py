"""What happens to a panel in a clinic: scenes closed half-way, scans deleted, twins, odd names, a CT."""

import numpy as np
import pytest
from testbed.processes import child_processes

pytestmark = pytest.mark.slow

LABEL = np.zeros((12, 20, 24), np.uint8)
LABEL[4:8, 6:9, 8:12], LABEL[4:8, 10:12, 8:12] = 1, 2


@pytest.fixture
def result(panel, add_volume):
    """The panel with a scan and a segmentation of it."""
    from CrossModaSegLib.scene import nodes

    volume = add_volume("T2")
    panel.logic.addCase(volume)
    made = nodes.make_segmentation(
        add_volume("truth", LABEL, kind="vtkMRMLLabelMapVolumeNode"), volume, "T2 segmentation", "prediction"
    )
    panel.parameters.target, panel.parameters.result = volume, made
    panel.update()
    return panel


def press(application, panel, button) -> None:
    button.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()


@pytest.mark.bed
@pytest.mark.parametrize("job", ["sample", "register", "segment", "measure", "export"])
def test_closing_the_scene_at_work_leaves_an_empty_panel(application, loaded, job, weights, tmp_path):
    from CrossModaSegLib.scene import nodes

    parameters, label = loaded.parameters, loaded.cases.rows[0].label
    parameters.result = nodes.make_segmentation(label, loaded.cases.rows[0].volume, "result", "prediction")
    parameters.weights, parameters.exportFolder = str(weights), str(tmp_path)
    loaded.update()
    section = {"sample": loaded.cases, "register": loaded.register, "segment": loaded.measure}.get(job, loaded.result)
    getattr(section.ui, {"segment": "apply"}.get(job, job) + "Button").click()
    assert loaded.logic.busy
    application.wait_until(lambda: child_processes())
    application.scene.Clear(False)
    application.wait_until(lambda: not child_processes())
    loaded.update()
    assert not loaded.logic.busy
    assert [each.ui.messageLabel.text for each in loaded.sections] == [""] * len(loaded.sections)
    assert loaded.register.ui.progressBar.value == loaded.measure.ui.progressBar.value == 0
    assert loaded.cases.rows == []
    assert {path.name for path in tmp_path.iterdir()} <= {"result.seg.nrrd"}, "only what is complete"


def test_the_messages_about_a_scene_are_cleared_with_it(application, result):
    result.result.say("Written: T2.seg.nrrd")
    application.scene.Clear(False)
    result.update()
    assert result.result.ui.messageLabel.text == ""
    assert not result.result.ui.messageLabel.visible


def test_scans_with_the_same_name_are_selected_one_by_one(panel, add_volume):
    first, second, third = (add_volume(name) for name in ("t1_mpr", "t1_mpr", " "))
    for volume in (first, second, third):
        label = add_volume("label", LABEL, kind="vtkMRMLLabelMapVolumeNode")
        panel.logic.addCase(volume, label, "ceT1")
    panel.logic.addCase(second, second.GetNodeReference("CrossModa.label"), "ceT1")  # again: keeps its name
    panel.update()
    assert [row.id for row in panel.cases.rows] == ["t1_mpr", "t1_mpr (2)", "scan"]
    item = panel.cases.ui.casesTable.item(1, 0)
    item.setCheckState(item.checkState().Unchecked)
    panel.update()
    assert [row.volume.GetID() for row in panel.cases.selected()] == [first.GetID(), third.GetID()]


def test_exporting_a_name_with_a_dot_again_and_again_overwrites_nothing(application, result, tmp_path):
    result.parameters.result.SetName("Müller/T2 1.5 mm")
    result.parameters.exportFolder = str(tmp_path)
    result.parameters.exportLabelMap = False
    result.update()
    for _time in range(4):
        press(application, result, result.result.ui.exportButton)
    names = sorted(path.name for path in tmp_path.glob("*.seg.nrrd"))
    assert names == ["Müller_T2 1_5 mm.seg.nrrd", *(f"Müller_T2 1_5 mm_{n}.seg.nrrd" for n in (2, 3, 4))]


def test_a_ct_is_refused_where_it_is_chosen(panel, add_volume):
    air = np.where(np.indices((12, 20, 24)).sum(0) % 2, -1024, 60).astype(np.int16)
    panel.cases.ui.volumeSelector.setCurrentNode(add_volume("3: Head 1.0 H31s", air))
    panel.update()
    panel.cases.ui.addTargetButton.click()
    assert "looks like a CT" in panel.cases.ui.messageLabel.text
    assert "choose an MR scan" in panel.cases.ui.messageLabel.text
    assert panel.cases.rows == []


def test_a_normalized_mr_scan_is_no_ct(panel, add_volume):
    from CrossModaSegLib.scene import nodes

    scan = np.random.default_rng(0).normal(size=(12, 20, 24)).astype(np.float32)
    scan[0, 0, 0] = -2000.0  # one voxel, as filters leave them
    assert nodes.volume_problem(add_volume("z", scan)) == ""


@pytest.mark.bed
def test_an_error_is_read_after_the_style_was_switched(panel):
    import qt
    from CrossModaSegLib.sections.section import ERROR
    from PySide6 import QtGui

    section = panel.register
    section.say("Choose another scan.", ERROR)
    light, before = section.ui.messageLabel.styleSheet, section.widget.palette
    dark = QtGui.QPalette()
    dark.setColor(qt.QPalette.Window, QtGui.QColor("#353535"))
    section.widget.setPalette(dark)
    panel.update()
    assert section.ui.messageLabel.styleSheet != light
    section.widget.setPalette(before)
    panel.enter()
    assert section.ui.messageLabel.styleSheet == light


def test_the_panel_fits_into_a_narrow_column(panel):
    """Slicer's panel can be made narrower than the 470 pixels of the pictures; nothing may be cut off then."""
    for section in panel.sections:
        for widget in vars(section.ui).values():
            if hasattr(type(widget), "collapsed"):
                widget.collapsed = False
        assert section.widget.property("minimumSizeHint").width() <= 330, section.name


@pytest.fixture
def label(result, add_volume):
    """The fused label of the scan, with its disagreement."""
    from CrossModaSegLib.processes import cli_runs
    from CrossModaSegLib.scene import nodes

    target = result.parameters.target
    label_map = add_volume("fused", LABEL, kind="vtkMRMLLabelMapVolumeNode")
    made, disagreement = nodes.make_segmentation(label_map, target, "label", "noisy label"), add_volume("doubt")
    cli_runs.reveal(disagreement, "disagreement", target)
    made.SetNodeReferenceID(nodes.DISAGREEMENT, disagreement.GetID())
    result.parameters.noisyLabel = made
    return made


def test_a_missing_scan_of_a_result_is_reported_at_the_buttons_that_need_it(application, result, label, add_volume):
    from CrossModaSegLib.processes import cli_runs

    parameters, volume = result.parameters, result.parameters.target
    parameters.uncertainty = add_volume("uncertainty")
    cli_runs.reveal(parameters.uncertainty, "uncertainty", volume)
    result.update()
    buttons = [
        result.register.ui.disagreementButton,
        result.result.ui.uncertaintyButton,
        result.result.ui.measureButton,
    ]
    assert all(button.enabled for button in buttons)
    application.scene.RemoveNode(volume)
    result.update()
    for button in [*buttons, result.register.ui.checkButton]:
        assert not button.enabled
        assert "no longer in the scene" in button.toolTip
    for node in (parameters.uncertainty, parameters.noisyLabel, parameters.result):
        application.scene.RemoveNode(node)
    result.update()
    assert not any(button.enabled for button in buttons)
    assert not any("no longer" in button.toolTip for button in buttons)


def test_a_message_stays_while_its_result_is_looked_at(result, label):
    from CrossModaSegLib.scene import nodes
    from CrossModaSegLib.sections.section import ERROR

    section = result.register
    label.GetNodeReference(nodes.DISAGREEMENT).SetAndObserveDisplayNodeID(None)
    result.update()
    section.say("Done in 34 s. Tumor side: left.")
    section.ui.disagreementButton.click()
    assert section.ui.messageLabel.text.startswith("Done in 34 s.")
    section.say("It failed.", ERROR)
    section.ui.disagreementButton.click()
    assert section.ui.messageLabel.text == ""


@pytest.mark.parametrize(
    ("part", "job", "reason"), [("register", "register", "Select a target"), ("measure", "apply", "Select a scan")]
)
def test_a_button_clicked_before_it_is_disabled_reports_the_reason(application, loaded, weights, part, job, reason):
    section = getattr(loaded, part)
    loaded.parameters.weights = str(weights)
    loaded.update()
    assert getattr(section.ui, job + "Button").enabled
    application.scene.RemoveNode(loaded.parameters.target)
    getattr(section.ui, job + "Button").click()
    assert section.ui.messageLabel.text.startswith(reason)
    assert not loaded.logic.busy


def test_the_newest_fused_label_is_the_result_and_drawn_alone(application, fused):
    first, parameters = fused.parameters.result, fused.parameters
    press(application, fused, fused.register.ui.registerButton)
    assert parameters.result is parameters.noisyLabel is not first
    assert not first.GetDisplayNode().GetVisibility()
    assert parameters.result.GetDisplayNode().GetVisibility()


def test_an_edited_segmentation_stays_visible_and_unchanged_by_the_next_run(application, fused):
    import slicer
    from CrossModaSegLib import selftest

    edited, target = fused.parameters.result, fused.parameters.target
    editor = application.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(edited)
    fused.register.ui.registerButton.click()
    selftest.paint_ball(edited, "VS", 3)
    drawn = slicer.util.arrayFromSegmentBinaryLabelmap(edited, "VS", target).copy()
    application.wait_until(lambda: not fused.logic.busy)
    assert fused.parameters.result is not edited
    assert edited.GetDisplayNode().GetVisibility()
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(edited, "VS", target), drawn)


def test_a_chosen_side_is_listed_instead_of_the_measured_one(fused):
    from CrossModaSegLib.scene import nodes

    record = nodes.provenance(fused.parameters.noisyLabel)
    record["measurements"] |= {"side": "left", "side_certainty": "0.7"}
    nodes.set_provenance(fused.parameters.noisyLabel, record)
    item = fused.cases.ui.casesTable.item(3, 2)
    for side, listed in {"right": "right", "left": "left", "unknown": "left, 70 %", "auto": "left, 70 %"}.items():
        fused.parameters.tumorSide = side
        fused.update()
        assert item.text() == listed
