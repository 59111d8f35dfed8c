"""The correction: helpers that can be undone, work that is never lost, results that overwrite nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
VS, COCHLEA = 1, 2


@pytest.fixture
def case(opened):
    """The case that is open."""
    return opened.review.case


@pytest.fixture
def editor(opened):
    """The Segment Editor's widget."""
    return opened.correct.editor.widget


def overlap(case):
    """Return how many voxels have two labels."""
    import slicer

    masks = [
        slicer.util.arrayFromSegmentBinaryLabelmap(case.correction, key, case.volume) > 0 for key in ("VS", "cochlea")
    ]
    return int((masks[0] & masks[1]).sum())


def center_ras(case, value):
    """Return the center of a structure."""
    from CrossModaSegLib.scene import nodes

    index = np.argwhere(case.array() == value).mean(axis=0)[::-1]
    x, y, z = (nodes.grid_of(case.volume).index_to_physical @ [*index, 1.0])[:3]
    return -x, -y, z


def spoil(case):
    """Give the tumor a hole, an island and a rough outline."""
    array = case.array()
    tumor = np.argwhere(array == VS)
    middle = tumor[np.argmin(np.abs(tumor - tumor.mean(axis=0)).sum(axis=1))]
    array[tuple(middle)] = 0
    array[1:2, 3:5, 3:5] = VS
    edge = tumor[tumor[:, 2].argmax()]
    array[edge[0], edge[1], edge[2] + 1 : edge[2] + 4] = VS
    case.write(array)


@pytest.mark.parametrize(
    ("button", "where"),
    [
        ("takeFused", "whole scan"),
        ("takeNetwork", "region"),
        ("takeMajority", "whole scan"),
        ("fill", "whole scan"),
        ("islands", "whole scan"),
        ("smooth", "whole scan"),
        ("takeNetwork", "pointer"),
    ],
)
def test_every_helper_is_one_step_that_can_be_undone(opened, case, editor, button, where):
    import slicer

    spoil(case)
    opened.parameters.where = where
    opened.parameters.islandVolume, opened.parameters.smoothRadius = 20, 4
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCrosshairRAS(center_ras(case, VS))
    opened.update()
    before = case.array()
    getattr(opened.correct.ui, button + "Button").click()
    after = case.array()
    assert not np.array_equal(before, after), opened.correct.ui.messageLabel.text
    assert "Undo: Z" in opened.correct.ui.messageLabel.text
    assert overlap(case) == 0
    editor.undo()
    np.testing.assert_array_equal(case.array(), before)
    editor.redo()
    np.testing.assert_array_equal(case.array(), after)


def test_what_a_helper_takes_is_the_other_label_inside_and_the_own_one_outside(opened, case):
    opened.parameters.where = "region"
    opened.update()
    before, network, mask = case.array(), case.array(case.source("network")), case.mask(1)
    opened.correct.ui.takeNetworkButton.click()
    np.testing.assert_array_equal(case.array(), np.where(mask, network, before))


def test_here_is_the_ball_around_the_mouse_pointer_before_the_crosshair(opened, case):
    import slicer
    from CrossModaSegLib.scene import nodes

    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCrosshairRAS((500.0, 0.0, 0.0))
    opened.parameters.where, opened.parameters.pointerRadius = "pointer", 5.0
    opened.update()
    before = case.array()
    opened.correct.ui.takeNetworkButton.click()
    assert "Point at a place" in opened.correct.ui.messageLabel.text
    np.testing.assert_array_equal(case.array(), before)
    place = center_ras(case, VS)
    crosshair.SetCursorPositionRAS(place)
    opened.correct.ui.takeNetworkButton.click()
    crosshair.SetCursorPositionInvalid()
    changed = np.argwhere(case.array() != before)
    assert len(changed)
    grid = nodes.grid_of(case.volume)
    points = np.array([(grid.index_to_physical @ [*index[::-1], 1.0])[:3] for index in changed]) * (-1, -1, 1)
    assert np.linalg.norm(points - place, axis=1).max() <= 5.0


@pytest.mark.bed
def test_painting_one_structure_takes_the_voxels_from_the_other(opened, case, editor):
    from testbed.segment_editor import paint

    before = case.array()
    editor.setCurrentSegmentID("VS")
    paint(editor, center_ras(case, COCHLEA), 40.0)
    assert overlap(case) == 0
    assert (case.array() == COCHLEA).sum() < (before == COCHLEA).sum()
    editor.undo()
    np.testing.assert_array_equal(case.array(), before)


def test_a_result_on_another_grid_is_compared_and_taken_where_it_lies(opened, case, add_volume):
    """The other segmentation has voxels of another size on a turned grid; taking it all leaves what it says."""
    import slicer
    import vtk
    from CrossModaSegLib.review import reviewed_case
    from CrossModaSegLib.scene import nodes

    from crossmoda.volume import Grid, resample

    label = case.label_map()
    origin = (55.0, 40.0, -22.0)
    other_grid = Grid((150, 120, 44), (0.75, 0.7, 1.0), origin, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    finer = resample(label, other_grid, interpolation="nearest")
    node = add_volume("other", finer.array, other_grid.spacing, (-55.0, -40.0, -22.0), "vtkMRMLLabelMapVolumeNode")
    directions = vtk.vtkMatrix4x4()
    node.SetIJKToRASDirectionMatrix(directions)
    scan = add_volume("other scan", finer.array, other_grid.spacing, (-55.0, -40.0, -22.0))
    other = nodes.make_segmentation(node, scan, "other result", "prediction")
    array = case.array(other)
    assert (array != label.array).sum() < 0.15 * (label.array > 0).sum(), "half a voxel at the outline"
    opened.correct.ui.takeNetworkButton.click()
    case.correction.SetNodeReferenceID(reviewed_case.SOURCES["network"][0], other.GetID())
    opened.parameters.where = "whole scan"
    opened.correct.ui.takeNetworkButton.click()
    np.testing.assert_array_equal(case.array(), array)
    assert slicer.util.arrayFromVolume(case.volume).shape == label.array.shape


def test_a_cochlea_that_is_suggested_is_added_and_nothing_else_changes(opened, case, editor, tmp_path):
    from crossmoda.volume import write

    before, label = case.array(), case.label_map()
    suggestion = before.copy()
    suggestion[before == VS] = 0
    suggestion[12:14, 10:13, 80:84] = COCHLEA
    write(label.with_array(suggestion), tmp_path / "suggestion.nrrd")
    answer = {"messages": ["There is no cochlea there."], "suggestion": str(tmp_path / "suggestion.nrrd")}
    opened.correct.edit_tools._show_comparison(case.id, answer)
    assert opened.correct.ui.messageLabel.text == "There is no cochlea there."
    opened.correct.ui.contralateralApplyButton.click()
    expected = before.copy()
    expected[12:14, 10:13, 80:84] = COCHLEA
    np.testing.assert_array_equal(case.array(), expected)
    editor.undo()
    np.testing.assert_array_equal(case.array(), before)


def test_the_other_side_is_looked_at_in_a_process_of_its_own(application, opened, case):
    opened.correct.ui.contralateralButton.click()
    assert opened.logic.busy
    application.wait_until(lambda: not opened.logic.busy)
    assert "cochlea" in opened.correct.ui.messageLabel.text


# ---------------------------------------------------------------- keep


def wait_for_draft(application, panel):
    application.wait_until(lambda: panel.correct.autosave.drafted_at or panel.correct.autosave.problem, 20)


@pytest.mark.bed
def test_an_edit_is_saved_as_a_draft_without_being_asked(application, opened, case, editor):
    from CrossModaSegLib.scene import nodes
    from testbed.segment_editor import paint

    from crossmoda.dataset import corrections

    editor.setCurrentSegmentID("VS")
    place = center_ras(case, COCHLEA)
    paint(editor, place, 3.0)
    paint(editor, place, 6.0)
    assert case.unsaved
    wait_for_draft(application, opened)
    draft = corrections.find_draft(case.data, case.id)
    np.testing.assert_array_equal(draft.read(case.label_map().grid).array, case.array())
    opened.update()
    assert "Draft saved at" in opened.correct.ui.caseLabel.text
    editor.undo()  # an edit, too
    undone = case.array()
    assert not np.array_equal(draft.read(case.label_map().grid).array, undone)

    def drafted():
        return corrections.find_draft(case.data, case.id).read(nodes.grid_of(case.volume)).array

    application.wait_until(lambda: np.array_equal(drafted(), undone), 20)


def test_leaving_a_case_keeps_its_draft_and_coming_back_offers_it(application, opened, case):
    review, correct = opened.review, opened.correct
    first, data = case.id, case.data
    correct.ui.takeNetworkButton.click()
    drawn = case.array()
    review.open(review.items[1]["id"])
    application.wait_until(lambda: not opened.logic.busy)
    assert (Path(data) / "corrections" / first / "draft.seg.nrrd").is_file()
    review.open(first)
    application.wait_until(lambda: not opened.logic.busy)
    opened.update()
    assert "Unsaved correction of " in correct.ui.recoveryLabel.text
    assert not review.ui.acceptButton.enabled
    assert "Restore or discard" in review.ui.acceptButton.toolTip
    begun = review.case.array()
    assert not np.array_equal(begun, drawn)
    correct.ui.restoreButton.click()
    np.testing.assert_array_equal(review.case.array(), drawn)
    correct.editor.widget.undo()
    np.testing.assert_array_equal(review.case.array(), begun)
    opened.update()
    assert review.ui.acceptButton.enabled


def test_a_draft_that_is_discarded_is_gone(application, opened, case):
    from crossmoda.dataset import corrections

    opened.correct.ui.takeNetworkButton.click()
    opened.review.open(opened.review.items[1]["id"])
    application.wait_until(lambda: not opened.logic.busy)
    opened.review.open("case_2")
    application.wait_until(lambda: not opened.logic.busy)
    opened.update()
    opened.correct.ui.discardButton.click()
    opened.update()
    assert corrections.find_draft(opened.parameters.datasetFolder, "case_2") is None
    assert opened.review.ui.acceptButton.enabled


CHILD = """
import sys, time
sys.path.insert(0, {here!r})
from testbed import application as bed
app = bed.start()
import slicer
app.load_scripted_module({module!r})
slicer.util.selectModule("CrossModaSeg")
panel = slicer.util.getModuleWidget("CrossModaSeg").panel
panel.parameters.datasetFolder, panel.parameters.resultsFolder = {data!r}, {results!r}
panel.review.open("case_2")
app.wait_until(lambda: not panel.logic.busy)
panel.update()
panel.correct.ui.takeNetworkButton.click()
app.wait_until(lambda: panel.correct.autosave.drafted_at)
print(panel.review.case.array().sum(), "drafted", flush=True)
panel.correct.ui.takeFusedButton.click()
while True:
    app.processEvents()
    time.sleep(0.01)
"""


@pytest.mark.bed
def test_work_survives_the_death_of_the_application(application, reviewed):
    parameters, review, correct = reviewed.parameters, reviewed.review, reviewed.correct
    code = CHILD.format(
        here=str(HERE),
        module=str(HERE.parents[1] / "CrossModaSeg/CrossModaSeg.py"),
        data=parameters.datasetFolder,
        results=parameters.resultsFolder,
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        output = child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
    assert output.endswith("drafted\n")
    review.open("case_2")
    application.wait_until(lambda: not reviewed.logic.busy)
    reviewed.update()
    assert time.strftime("%H:") in correct.ui.recoveryLabel.text
    correct.ui.restoreButton.click()
    assert review.case.array().sum() == int(output.split()[0])
    np.testing.assert_array_equal(
        np.where(review.case.mask(1), review.case.array(review.case.source("network")), 0),
        np.where(review.case.mask(1), review.case.array(), 0),
    )


def test_a_data_set_that_cannot_be_written_says_so_and_the_work_stays_in_the_scene(
    application, opened, case, monkeypatch
):
    """(os.access is asked instead of changing modes: root may write everywhere.)"""
    import slicer

    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: mode != os.W_OK and real(path, mode, **how))
    opened.correct.ui.takeNetworkButton.click()
    drawn = case.array()
    wait_for_draft(application, opened)
    opened.update()
    assert "Not saved" in opened.correct.ui.caseLabel.text
    opened.correct.ui.saveButton.click()
    message = opened.correct.ui.messageLabel.text
    assert message.startswith("Cannot write") and "still in the scene" in message
    opened.review.ui.acceptButton.click()
    assert "Cannot write" in opened.review.ui.messageLabel.text
    assert opened.review.item(case.id)["status"] == "open"
    opened.review.open(opened.review.items[1]["id"])
    application.wait_until(lambda: not opened.logic.busy)
    assert "is still in the scene" in opened.review.ui.messageLabel.text
    assert slicer.mrmlScene.IsNodePresent(case.correction)
    monkeypatch.undo()
    opened.review.open(case.id)
    application.wait_until(lambda: not opened.logic.busy)
    np.testing.assert_array_equal(opened.review.case.array(), drawn)
    opened.update()
    opened.correct.ui.saveButton.click()
    assert "is saved" in opened.correct.ui.messageLabel.text


def test_who_and_when_are_written_only_if_asked_for(application, opened, case):
    parameters, correct = opened.parameters, opened.correct
    record = Path(case.data) / "corrections" / case.id / "correction.json"
    correct.ui.reviewerEdit.setText("AB")
    correct.ui.saveButton.click()
    assert {"reviewer", "when"}.isdisjoint(json.loads(record.read_text("utf-8")))
    parameters.keepWho = parameters.keepWhen = True
    correct.ui.saveButton.click()
    written = json.loads(record.read_text("utf-8"))
    assert written["reviewer"] == "AB" and written["when"][:2] == "20"
    assert written["based_on"]["name"] == "noisy_label.nii.gz"
    assert (record.parent / "previous" / "1").is_dir()


# ---------------------------------------------------------------- nothing is overwritten


def test_a_new_result_arrives_beside_the_correction_with_a_comparison(application, opened, case):
    from crossmoda.volume import read_label_map, write

    opened.correct.ui.takeNetworkButton.click()
    drawn, old = case.array(), case.source("network")
    file = Path(case.results) / case.id / "prediction" / "label_map.nii.gz"
    present = read_label_map(file)
    write(present.with_array(np.roll(present.array, 1, axis=1)), file)
    opened.review.open(case.id)
    application.wait_until(lambda: not opened.logic.busy)
    opened.update()
    new = case.source("network")
    assert new is not old and old.GetScene() is not None
    np.testing.assert_array_equal(case.array(), drawn)
    text = opened.correct.ui.comparisonLabel.text
    assert new.GetName() in text
    assert "vestibular schwannoma Dice 0." in text and "mm³" in text


def test_a_saved_correction_is_what_is_opened_next_time_not_the_new_noisy_label(application, opened, case):
    opened.correct.ui.takeNetworkButton.click()
    drawn = case.array()
    opened.correct.ui.saveButton.click()
    for target in (opened.review.items[1]["id"], "case_2"):
        opened.review.open(target)
        application.wait_until(lambda: not opened.logic.busy)
    np.testing.assert_array_equal(opened.review.case.array(), drawn)
    opened.update()
    assert "based on the saved correction" in opened.correct.ui.caseLabel.text


def test_a_scene_that_is_saved_in_the_middle_goes_on_where_it_was(application, opened, case, tmp_path):
    import slicer

    opened.correct.ui.takeNetworkButton.click()
    drawn, regions = case.array(), case.regions
    assert slicer.util.saveScene(str(tmp_path / "middle.mrb"))
    application.scene.Clear(False)
    opened.update()
    assert opened.review.case is None
    slicer.util.loadScene(str(tmp_path / "middle.mrb"))
    opened.update()
    again = opened.review.case
    assert again.regions == regions and again.unsaved
    np.testing.assert_array_equal(again.array(), drawn)
    opened.parameters.where = "whole scan"
    opened.update()
    opened.correct.ui.takeFusedButton.click()
    opened.correct.editor.widget.undo()
    np.testing.assert_array_equal(again.array(), drawn)
    opened.correct.ui.saveButton.click()
    assert "is saved" in opened.correct.ui.messageLabel.text


def test_a_panel_that_is_closed_and_opened_again_goes_on_where_it_was(application, opened, case):
    import slicer
    from CrossModaSegLib.Widget import Panel

    opened.correct.ui.takeNetworkButton.click()
    drawn = case.array()
    opened.exit()
    opened.correct.closing()
    opened.close()
    opened.removeObservers()
    widget = slicer.qMRMLWidget()
    import qt

    layout = qt.QVBoxLayout()
    widget.setLayout(layout)
    second = Panel(layout, opened.logic)
    second.open()
    second.enter()
    assert second.review.case.id == case.id
    np.testing.assert_array_equal(second.review.case.array(), drawn)
    second.parameters.where = "whole scan"
    second.update()
    second.correct.ui.takeFusedButton.click()
    second.correct.editor.widget.undo()
    np.testing.assert_array_equal(second.review.case.array(), drawn)
    second.correct.ui.saveButton.click()
    assert "is saved" in second.correct.ui.messageLabel.text
    second.exit()
    second.correct.closing()
    second.close()
    second.removeObservers()
    opened.observe()
    opened.open()


def test_saving_the_scene_is_no_edit_of_the_correction(application, opened, tmp_path):
    """Slicer writes tags into the segments it saves; an untouched case must not count as corrected after that."""
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    assert not opened.review.case.unsaved
    application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    opened.update()
    case = opened.review.case.id
    assert not opened.review.case.unsaved
    opened.review.ui.acceptButton.click()
    assert opened.review.item(case)["status"] == "accepted"


def correct_undo_and_save(panel):
    """Change the open correction with an edit tool, undo, redo, and save it in the data set."""
    case, editor = panel.review.case, panel.correct.editor.widget
    assert editor.segmentationNode() is case.correction
    assert editor.sourceVolumeNode() is case.volume
    before = case.array()
    panel.parameters.where = "whole scan"
    panel.update()
    panel.correct.ui.takeNetworkButton.click()
    changed = case.array()
    assert not np.array_equal(changed, before)
    editor.undo()
    np.testing.assert_array_equal(case.array(), before)
    editor.redo()
    np.testing.assert_array_equal(case.array(), changed)
    panel.correct.ui.saveButton.click()
    assert "is saved" in panel.correct.ui.messageLabel.text
    return changed


def settle(application):
    """Process the events after a scene was loaded: the panel updates on its own, soon after the import."""
    end = time.monotonic() + 0.3
    application.wait_until(lambda: time.monotonic() > end)


def test_a_reopened_scene_can_be_corrected_undone_and_saved_again(application, opened, tmp_path):
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "first.mrb"))
    application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "first.mrb"))
    settle(application)
    changed = correct_undo_and_save(opened)
    assert slicer.util.saveScene(str(tmp_path / "second.mrb"))
    application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "second.mrb"))
    settle(application)
    np.testing.assert_array_equal(opened.review.case.array(), changed)


@pytest.mark.parametrize("how", ["replaced", "added"])
def test_a_scene_reopened_while_another_case_is_shown_can_be_corrected(application, opened, tmp_path, how):
    import slicer

    first, second = opened.review.case.id, opened.review.items[1]["id"]
    assert slicer.util.saveScene(str(tmp_path / "first.mrb"))
    opened.review.open(second)
    application.wait_until(lambda: not opened.logic.busy)
    assert opened.review.case.id == second
    if how == "replaced":
        application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "first.mrb"))
    settle(application)
    assert opened.review.case.id == first
    correct_undo_and_save(opened)
