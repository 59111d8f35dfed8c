"""Two targets in one scene: each has its own results and tumor side, and neither is drawn over the other."""

import numpy as np
import pytest

LABEL = np.zeros((12, 20, 24), np.uint8)
LABEL[4:8, 6:9, 8:12], LABEL[4:8, 10:12, 8:12] = 1, 2


@pytest.fixture(autouse=True)
def view(scene):
    """A slice view's layers."""
    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")


@pytest.fixture
def targets(panel, add_volume):
    """Two targets; the first is chosen and has been fused and segmented."""
    from CrossModaSegLib.processes import cli_runs
    from CrossModaSegLib.scene import nodes

    first, second = add_volume("first"), add_volume("second")
    for volume in (first, second):
        panel.logic.addCase(volume)
    panel.parameters.target = first
    label_map = add_volume("truth", LABEL, kind="vtkMRMLLabelMapVolumeNode")
    made = {role: nodes.make_segmentation(label_map, first, role, role) for role in ("noisy label", "prediction")}
    panel.parameters.noisyLabel = panel.parameters.result = made["noisy label"]
    panel.parameters.uncertainty = add_volume("uncertainty")
    cli_runs.reveal(panel.parameters.uncertainty, "uncertainty", first)
    panel.update()
    return first, second


def choose(panel, target) -> None:
    panel.register.ui.targetSelector.setCurrentNode(target)
    panel.update()


def shown(panel) -> list:
    parameters = panel.parameters
    return [parameters.noisyLabel, parameters.uncertainty, parameters.result]


def visible() -> dict:
    import slicer

    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return {node.GetName(): bool(node.GetDisplayNode().GetVisibility()) for node in segmentations}


def background() -> str:
    import slicer

    (composite,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID()).GetName()


def test_another_target_is_shown_with_its_own_results_and_the_first_ones_come_back(panel, targets):
    first, second = targets
    panel.register.say("The tumor is on the left.")
    choose(panel, second)
    assert panel.parameters.target is second
    assert shown(panel) == [None] * 3
    assert visible() == {"noisy label": False, "prediction": False}, "they would be drawn over the second scan"
    assert background() == "second"
    assert panel.register.ui.messageLabel.text == "", "that message was about the first"
    choose(panel, first)
    assert [node.GetName() for node in shown(panel)] == ["noisy label", "uncertainty", "prediction"]
    assert visible() == {"noisy label": True, "prediction": True}
    assert background() == "first"


def test_what_was_made_last_is_the_result_again_whether_fused_or_predicted(panel, targets):
    import slicer
    from CrossModaSegLib.scene import nodes

    first, second = targets
    record = {"step": "fuse", "crossmoda": "x", "inputs": {}, "seconds": 1}
    for last, before in (("noisy label", "prediction"), ("prediction", "noisy label")):
        for name, hour in ((before, 10), (last, 11)):
            nodes.set_provenance(slicer.util.getNode(name), {**record, "created": f"2026-01-01T{hour}:00:00+00:00"})
        choose(panel, second)
        choose(panel, first)
        assert panel.parameters.result.GetName() == last
        assert panel.parameters.noisyLabel.GetName() == "noisy label"


def test_a_segmentation_that_the_user_has_hidden_stays_hidden(panel, targets):
    import slicer

    first, second = targets
    slicer.util.getNode("prediction").GetDisplayNode().SetVisibility(False)
    choose(panel, second)
    choose(panel, first)
    assert visible() == {"noisy label": True, "prediction": False}


def test_the_tumor_side_is_chosen_for_one_target(panel, targets):
    first, second = targets
    panel.parameters.tumorSide = "left"
    choose(panel, second)
    assert panel.register.ui.tumorSideComboBox.currentText == "auto"
    panel.parameters.tumorSide = "right"
    choose(panel, first)
    assert panel.register.ui.tumorSideComboBox.currentText == "left"
    choose(panel, second)
    assert panel.parameters.tumorSide == "right"


def test_what_is_chosen_before_the_first_target_holds_for_it(panel, add_volume):
    panel.parameters.tumorSide = "left"
    volume = add_volume("T2")
    panel.logic.addCase(volume)
    choose(panel, volume)
    assert panel.parameters.tumorSide == "left"


def test_results_of_a_target_that_was_removed_do_not_stay_with_the_next(application, panel, targets):
    first, second = targets
    application.scene.RemoveNode(first)
    choose(panel, second)
    assert shown(panel) == [None] * 3
    assert visible() == {"noisy label": False, "prediction": False}


def test_after_the_target_was_removed_no_other_node_is_chosen(application, panel, targets):
    first, second = targets
    application.scene.RemoveNode(first)
    panel.update()
    assert panel.register.ui.targetSelector.currentNode() is None
    assert panel.parameters.target is None
    assert panel.register.ui.registerButton.toolTip == "Select a target."
    message = panel.register.ui.messageLabel
    assert message.text == "Scan removed from the scene: first. Select a scan."
    choose(panel, second)
    assert message.text == ""


def test_a_target_removed_in_a_batch_is_not_replaced(application, panel, targets):
    first, _second = targets
    application.scene.StartState(application.scene.BatchProcessState)
    application.scene.RemoveNode(first)
    application.scene.EndState(application.scene.BatchProcessState)
    panel.update()
    assert (panel.register.ui.targetSelector.currentNode(), panel.parameters.target) == (None, None)


def test_after_a_result_was_removed_no_other_one_is_chosen(application, panel, targets):
    for node in (panel.parameters.result, panel.parameters.uncertainty):
        application.scene.RemoveNode(node)
    panel.update()
    assert shown(panel) == [None] * 3
    assert panel.parameters.target.GetName() == "first"


def test_after_the_volume_of_a_new_case_was_removed_no_other_one_is_chosen(application, panel, targets):
    import slicer

    for selector, name in ((panel.cases.ui.volumeSelector, "second"), (panel.cases.ui.labelSelector, "truth")):
        selector.setCurrentNode(slicer.util.getNode(name))
        application.scene.RemoveNode(selector.currentNode())
        panel.update()
        assert selector.currentNode() is None


def test_the_selectors_of_scans_offer_no_label_map_and_no_volume_of_crossmoda(panel, targets):
    for selector in (panel.register.ui.targetSelector, panel.cases.ui.volumeSelector):
        assert [selector.itemText(index) for index in range(1, selector.count)] == ["first", "second"]


def test_a_target_that_gets_the_identity_of_a_removed_one_is_another(application, panel, targets, tmp_path):
    """Slicer gives the ID of a node that was removed to the next one once a scene was loaded."""
    import slicer
    from CrossModaSegLib.scene import nodes

    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()
    first, second = slicer.util.getNode("first"), slicer.util.getNode("second")
    removed = first.GetID()
    panel.parameters.tumorSide = "left"
    application.scene.RemoveNode(first)
    second.SetAttribute(nodes.SIDE_CHOSEN, "right")
    copy = application.scene.CopyNode(second)
    assert copy.GetID() == removed
    panel.parameters.target = copy
    assert panel.parameters.tumorSide == "right"


def test_a_scene_opens_with_the_results_that_were_chosen(application, panel, targets, tmp_path):
    import slicer

    panel.parameters.tumorSide = "left"
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    application.scene.Clear(False)
    panel.update()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()
    assert panel.parameters.tumorSide == "left"
    assert panel.parameters.result.GetName() == "noisy label", "not the newer prediction"
    choose(panel, slicer.util.getNode("second"))
    assert shown(panel) == [None] * 3


def test_a_segmentation_that_ends_after_another_target_was_chosen_waits_for_its_own(
    application, loaded, add_volume, weights
):
    second = add_volume("second")
    loaded.logic.addCase(second)
    first = loaded.parameters.target
    loaded.parameters.weights = str(weights)
    loaded.update()
    loaded.measure.ui.applyButton.click()
    choose(loaded, second)
    application.wait_until(lambda: not loaded.logic.busy)
    assert f"{first.GetName()}: done in" in loaded.measure.ui.messageLabel.text
    assert (loaded.parameters.target, loaded.parameters.result, background()) == (second, None, "second")
    choose(loaded, first)
    assert loaded.parameters.result.GetName() == f"{first.GetName()} segmentation"
    assert visible() == {f"{first.GetName()} segmentation": True}


def test_a_fusion_that_ends_after_another_target_was_chosen_waits_for_its_own(application, quick, add_volume):
    second = add_volume("second")
    quick.logic.addCase(second)
    first = quick.parameters.target
    quick.register.ui.registerButton.click()
    choose(quick, second)
    assert quick.parameters.tumorSide == "auto"
    application.wait_until(lambda: not quick.logic.busy)
    assert f"{first.GetName()}: done in" in quick.register.ui.messageLabel.text
    assert (quick.parameters.noisyLabel, quick.parameters.result, background()) == (None, None, "second")
    choose(quick, first)
    assert quick.parameters.noisyLabel.GetName() == f"{first.GetName()} fused label"


def test_an_uncertain_side_is_in_the_table_and_at_the_result_of_a_reopened_scene(application, panel, targets, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes

    note = "The tumor is probably on the left, but both sides look alike; check."
    record = {"step": "propagate", "crossmoda": "x", "created": "y", "inputs": {}, "seconds": 1}
    measured = {"side": "left", "side_certainty": "0.7", "notes": note}
    nodes.set_provenance(panel.parameters.noisyLabel, {**record, "measurements": measured})
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()
    row = [row.id for row in panel.cases.rows].index("first")
    assert panel.cases.ui.casesTable.item(row, 2).text() == "left, 70 %"
    assert note in panel.result.ui.provenanceLabel.text
