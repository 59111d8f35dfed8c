"""Label propagation in the panel: one run of CrossModaPropagate, what it keeps, and what the panel shows of it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from crossmoda import deeds, fusion, labels
from crossmoda.dataset import open_dataset
from crossmoda.propagation import Settings, propagate

pytestmark = pytest.mark.slow


def press(application, panel) -> dict:
    """Register and fuse; return the provenance of the fused label."""
    from CrossModaSegLib.scene import nodes

    panel.update()
    panel.register.ui.registerButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    assert panel.logic.queue.failures == [], panel.register.ui.messageLabel.text
    return nodes.provenance(panel.parameters.noisyLabel)


def paint(segmentation, volume) -> None:
    import slicer

    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "VS", volume)
    array[:2] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, "VS", volume)


def label_map(segmentation) -> np.ndarray:
    import slicer
    from CrossModaSegLib.scene import nodes

    target = segmentation.GetNodeReference(nodes.TARGET)
    array = np.zeros(slicer.util.arrayFromVolume(target).shape, np.uint8)
    for structure in labels.STRUCTURES:
        array[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, structure.key, target) > 0] = structure.value
    return array


def test_the_label_is_that_of_the_engine(fused, quick_settings, sample_folder, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes

    data = open_dataset(sample_folder)
    settings, registration, fusion_settings = (
        kind(**{name: value for name, value in quick_settings.items() if name in kind.__dataclass_fields__})
        for kind in (Settings, deeds.Settings, fusion.Settings)
    )
    expected = propagate(
        data.targets[0],
        data.sources[:1],
        tmp_path,
        dataclasses.replace(settings, tumor_side="left"),
        registration=registration,
        fusion_settings=fusion_settings,
    )
    label = fused.parameters.noisyLabel
    np.testing.assert_array_equal(label_map(label), expected.label_map.array)
    measured = nodes.provenance(label)["measurements"]
    assert (measured["contributed"], measured["side"]) == ("1", "left")
    assert (
        slicer.util.arrayFromVolume(label.GetNodeReference(nodes.DISAGREEMENT)).shape == expected.label_map.array.shape
    )


def test_the_table_of_cases_shows_the_use_and_the_quality_of_each_atlas(fused):
    target = fused.parameters.target
    states = [row.state(target) for row in fused.cases.rows]
    assert states[0].startswith("used, quality 0.") and states[1:] == ["loaded", "loaded", "fused label"]


def test_a_reopened_scene_reuses_its_registrations(application, fused):
    assert press(application, fused)["measurements"]["reused"] == "1"


def test_a_failed_run_is_one_sentence_and_leaves_no_node(application, fused, quick_settings):
    import slicer

    before = application.scene.GetNumberOfNodes()
    slicer.util.updateVolumeFromArray(fused.parameters.target, np.random.default_rng(0).normal(size=(24, 90, 90)))
    fused.parameters.registerSettings = json.dumps({**quick_settings, "initialization": "frames"})
    fused.update()
    fused.register.ui.registerButton.click()
    application.wait_until(lambda: not fused.logic.busy)
    message = fused.register.ui.messageLabel.text
    assert fused.register.is_error and message and "Traceback" not in message and "vtkMRML" not in message
    application.wait_until(lambda: application.scene.GetNumberOfNodes() == before)


@pytest.mark.parametrize("change", ["target moved", "label edited"])
def test_a_changed_scan_or_label_is_registered_again(application, fused, change):
    import slicer
    from CrossModaSegLib.scene import nodes

    if change == "target moved":
        x, y, z = fused.parameters.target.GetOrigin()
        fused.parameters.target.SetOrigin(x + 0.5, y, z)
    else:
        label = fused.cases.rows[0].volume.GetNodeReference(nodes.LABEL)
        array = slicer.util.arrayFromVolume(label)
        slicer.util.updateVolumeFromArray(label, np.where(array == 2, 0, array))
    assert press(application, fused)["measurements"]["reused"] == "0"


def test_an_unchanged_atlas_is_written_once_and_a_cleared_one_removed(panel, loaded):
    from CrossModaSegLib.processes.propagation import AtlasFolder

    folder, rows = AtlasFolder(), loaded.cases.atlases()
    assert len(rows) == 3
    for step in folder.steps(rows):
        step()
    assert [case.id for case in open_dataset(folder.path).sources] == [row.id for row in rows]
    assert folder.steps(rows) == []
    assert folder.steps(rows[1:]) == []
    assert [case.id for case in open_dataset(folder.path).sources] == [row.id for row in rows[1:]]
    rows[1].volume.SetOrigin(1.0, 2.0, 3.0)
    assert len(folder.steps(rows)) == 2


def test_an_atlas_is_written_again_when_its_segmentation_is_edited(panel, loaded):
    from CrossModaSegLib.processes.propagation import AtlasFolder
    from CrossModaSegLib.scene import nodes

    row, folder = loaded.cases.atlases()[0], AtlasFolder()
    segmentation = nodes.make_segmentation(row.label, row.volume, "by hand", "")
    loaded.logic.addCase(row.volume, segmentation, "ceT1")
    loaded.update()
    content = segmentation.GetSegmentation()
    for edit in (None, lambda: paint(segmentation, row.volume), lambda: content.RemoveSegment("VS")):
        if edit:
            edit()
        steps = folder.steps(loaded.cases.atlases()[:1])
        assert len(steps) == 1
        steps[0]()
        assert folder.steps(loaded.cases.atlases()[:1]) == []


@pytest.mark.bed
def test_cancel_keeps_the_finished_registrations_for_the_next_run(application, loaded, quick_settings, measured):
    import time

    from CrossModaSegLib.processes.tasks import CANCELLED, DONE
    from CrossModaSegLib.scene import nodes
    from testbed.heartbeat import Heartbeat
    from testbed.processes import child_processes

    from crossmoda import cache

    def finished() -> list[Path]:
        folder = loaded.parameters.target.GetAttribute(nodes.REGISTRATIONS)
        return [each for each in Path(folder).glob("registrations/*") if cache.is_finished(each)] if folder else []

    loaded.parameters.tumorSide = "left"
    loaded.parameters.registerSettings = json.dumps(quick_settings)
    loaded.update()
    heartbeat, register = Heartbeat(), loaded.register
    register.ui.registerButton.click()
    tasks = loaded.logic.queue.tasks
    application.wait_until(finished)
    assert 0 < register.ui.progressBar.value < 100
    assert not register.ui.registerButton.enabled
    begun = time.monotonic()
    register.ui.cancelButton.click()
    application.wait_until(lambda: not child_processes())
    measured("cancelling a registration, until no process is left", time.monotonic() - begun, 1.0)
    assert [task.state for task in tasks] == [DONE, CANCELLED]
    assert heartbeat.beats > 20, "the panel's thread looked at events all the time"
    measured("panel's thread without looking at events while registering (processor)", heartbeat.longest_s, 0.1)
    assert "reuses the finished registrations" in register.ui.messageLabel.text
    assert loaded.parameters.noisyLabel is None
    reused = int(press(application, loaded)["measurements"]["reused"])
    assert len(finished()) == 3 and 1 <= reused <= 3


def test_a_failed_registration_is_excluded_and_listed(application, loaded, quick_settings):
    """An atlas far away in the same space overlaps nowhere: its label must not count."""
    from CrossModaSegLib.scene import nodes

    atlas = loaded.cases.rows[0].volume
    for node in (atlas, atlas.GetNodeReference(nodes.LABEL)):
        node.SetOrigin(*np.add(node.GetOrigin(), (1000.0, 0.0, 0.0)))
    loaded.parameters.tumorSide = "left"
    loaded.parameters.registerSettings = json.dumps(quick_settings)
    record = press(application, loaded)
    assert record["measurements"]["excluded"] == "1"
    state = loaded.cases.rows[0].state(loaded.parameters.target)
    assert state.startswith("excluded") and ":" in state, "with the reason"
    assert loaded.cases.ui.casesTable.item(0, 3).toolTip() == state
    assert "Atlases used: 2, excluded: 1." in loaded.register.ui.messageLabel.text


def test_the_check_shows_the_atlas_under_its_transform_and_saves_none_of_it(application, fused, tmp_path):
    import slicer
    from CrossModaSegLib.scene import warped_atlas

    application.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    register = fused.register
    assert register.ui.atlasComboBox.itemText(0).startswith(f"{fused.cases.rows[0].id}, quality 0.")
    for mode in ("fade", "checkerboard", "fade"):
        fused.parameters.check = mode
        register.ui.checkButton.click()
        assert not register.is_error, register.ui.messageLabel.text
    shown = [
        node
        for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLTransformNode")
        for node in slicer.util.getNodesByClass(kind)
        if node.GetAttribute("CrossModa.Role") == warped_atlas.ROLE
    ]
    assert [node.GetSaveWithScene() for node in shown] == [0, 0]
    volume, transform = shown
    assert volume.GetParentTransformNode() is transform
    point = [0.0, 0.0, 0.0]
    transform.GetTransformFromParent().TransformPoint([5.0, 5.0, 5.0], point)
    assert 0.01 < np.linalg.norm(np.subtract(point, 5.0)) < 100
    assert fused.cases.rows[0].problem() == "", "the atlas itself is under no transform"


def test_without_its_registrations_the_scene_says_where_they_were(application, fused):
    from CrossModaSegLib.scene import nodes

    fused.parameters.target.SetAttribute(nodes.REGISTRATIONS, "/gone")
    fused.update()
    fused.register.ui.checkButton.click()
    expected = "Registrations not found: /gone. Run “Register and fuse” again."
    assert fused.register.ui.messageLabel.text.replace("\u200b", "") == expected
    assert press(application, fused)["measurements"]["reused"] == "0"
