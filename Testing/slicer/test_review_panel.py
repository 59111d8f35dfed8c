"""The review: which case first, where to look, what was decided, how long it took."""

import warnings

import numpy as np
import pytest


@pytest.fixture
def window(application, reviewed):
    """The panel's window, shown and active, so that it receives keys."""
    import slicer
    from PySide6 import QtWidgets

    window = QtWidgets.QWidget.window(slicer.modules.crossmodaseg.widgetRepresentation())
    reviewed.show_tab(reviewed.review)
    window.resize(500, 1600)
    window.show()
    with warnings.catch_warnings():  # a window that is shown again offscreen is not activated by activateWindow()
        warnings.simplefilter("ignore", DeprecationWarning)
        QtWidgets.QApplication.setActiveWindow(window)
    application.wait_until(lambda: QtWidgets.QWidget.isActiveWindow(window), 10)
    yield window
    window.hide()


class Hands:
    """Presses keys and clicks with the mouse, and waits for what that starts."""

    def __init__(self, application, panel, window):
        self.application, self.panel, self.window = application, panel, window

    def _settle(self):
        self.application.processEvents()
        self.application.wait_until(lambda: not self.panel.logic.busy)
        self.panel.update()

    def key(self, name):
        """Press a key (with modifiers)."""
        from PySide6 import QtGui, QtTest

        combination = QtGui.QKeySequence(name)[0]
        QtTest.QTest.keyClick(self.window, combination.key(), combination.keyboardModifiers())
        self._settle()

    def click(self, button):
        """Click a button."""
        from PySide6 import QtCore, QtTest

        assert button.enabled, button.toolTip
        QtTest.QTest.mouseClick(button, QtCore.Qt.LeftButton)
        self._settle()

    def click_row(self, table, row, double=False):
        """Click a row of a table, or double-click it."""
        from PySide6 import QtCore, QtTest, QtWidgets

        place = QtWidgets.QTableWidget.visualItemRect(table, table.item(row, 0)).center()
        viewport = QtWidgets.QTableWidget.viewport(table)
        QtTest.QTest.mouseClick(viewport, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, place)
        if double:
            QtTest.QTest.mouseDClick(viewport, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, place)
        self._settle()


@pytest.fixture
def hands(application, reviewed, window):
    return Hands(application, reviewed, window)


def statuses(panel):
    return {item["id"]: item["status"] for item in panel.review.items}


@pytest.mark.bed
def test_a_whole_review_by_keys_and_mouse(application, reviewed, hands, slices):
    from crossmoda.dataset import corrections

    review, correct, data = reviewed.review, reviewed.correct, reviewed.parameters.datasetFolder
    review.items = []
    reviewed.update()
    hands.click(review.ui.listButton)
    order = [item["id"] for item in review.items]
    assert order[0] == "case_2", "its noisy label lies farthest aside"
    assert "disagree" in review.ui.queueTable.item(0, 4).text()

    hands.click_row(review.ui.queueTable, 0, double=True)
    assert review.case.id == order[0]
    before = review.case.array()
    places = {tuple(slices[0].GetSliceToRAS().GetElement(row, 3) for row in range(3))}
    hands.key("N")
    places.add(tuple(slices[0].GetSliceToRAS().GetElement(row, 3) for row in range(3)))
    assert len(places) == 2 and reviewed.review.regions.number == 2
    hands.key("P")
    hands.key("D")
    taken = review.case.array()
    assert not np.array_equal(taken, before)
    hands.key("Z")
    np.testing.assert_array_equal(review.case.array(), before)
    hands.key("Y")
    np.testing.assert_array_equal(review.case.array(), taken)
    hands.key("Ctrl+Return")
    assert statuses(reviewed)[order[0]] == "corrected"
    kept = corrections.load(data, order[0])
    assert kept.record["dice_with_noisy_label"]["VS"] < 1

    assert review.case.id == order[1]
    hands.key("Ctrl+Shift+Return")
    assert corrections.load(data, order[1]).status == "needs expert"

    assert review.case.id == order[2]
    hands.click(review.ui.acceptButton)
    assert corrections.load(data, order[2]).status == "accepted"
    assert "No open case is left" in review.ui.messageLabel.text
    assert "2 of 3 done (1 corrected, 1 accepted), 1 for an expert" in review.ui.progressLabel.text
    assert review.ui.progressBar.value == 67

    hands.key("Ctrl+Left")
    assert review.case.id == order[1]
    hands.click(review.ui.listButton)
    assert statuses(reviewed) == {order[0]: "corrected", order[1]: "needs expert", order[2]: "accepted"}
    assert correct.draft is None


def test_training_finds_what_was_corrected_in_the_panel(application, opened):
    from crossmoda.dataset import open_dataset

    opened.correct.ui.takeNetworkButton.click()
    opened.correct.ui.saveButton.click()
    case_id, data = opened.review.case.id, opened.parameters.datasetFolder
    case = next(case for case in open_dataset(data).targets if case.id == case_id)
    np.testing.assert_array_equal(case.read_label().array, opened.review.case.array())


@pytest.mark.bed
def test_keys_work_only_while_the_panel_is_open(application, opened, hands):
    import slicer

    number = opened.review.regions.number
    slicer.util.selectModule("SegmentEditor")
    hands.key("N")
    assert opened.review.regions.number == number
    slicer.util.selectModule("CrossModaSeg")
    hands.key("N")
    assert opened.review.regions.number != number


def test_the_time_runs_only_while_the_panel_is_open(application, reviewed, monkeypatch):
    import slicer
    from CrossModaSegLib.review import stopwatch

    from crossmoda.dataset import corrections

    clock = [1000.0]
    monkeypatch.setattr(stopwatch, "_now", lambda: clock[0])
    review = reviewed.review
    case_id = review.items[0]["id"]
    review.open(case_id)
    application.wait_until(lambda: not reviewed.logic.busy)
    clock[0] += 60
    slicer.util.selectModule("SegmentEditor")
    clock[0] += 5000
    slicer.util.selectModule("CrossModaSeg")
    clock[0] += 30
    reviewed.update()
    review.ui.acceptButton.click()
    application.wait_until(lambda: not reviewed.logic.busy)
    assert corrections.load(reviewed.parameters.datasetFolder, case_id).seconds == pytest.approx(90)
    reviewed.update()
    assert review.item(case_id)["seconds"] == pytest.approx(90)
    assert "2 min spent" in review.ui.progressLabel.text
    clock[0] += 45  # looked at, nothing decided
    looked_at = review.case.id
    review.open(case_id)
    application.wait_until(lambda: not reviewed.logic.busy)
    found = corrections.load(reviewed.parameters.datasetFolder, looked_at)
    assert (found.status, found.seconds) == ("open", pytest.approx(45))


def test_all_views_go_to_the_place_of_highest_doubt(application, opened, slices):
    import slicer

    case = opened.review.case
    for region in case.regions:
        opened.review.regions.go(region["number"])
        x, y, z = region["center_lps"]
        for node in slices:
            np.testing.assert_allclose(
                [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)], (-x, -y, z), atol=1e-6
            )
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        assert crosshair.GetCrosshairRAS() == pytest.approx((-x, -y, z))
    doubt = slicer.util.arrayFromVolume(case.doubt)
    first = case.regions[0]
    inside = doubt[tuple(slice(*part) for part in first["box"])]
    assert inside.max() == pytest.approx(first["peak"], abs=1e-5)
    assert [region["number"] for region in case.regions] == list(range(1, len(case.regions) + 1))
    assert all(case.mask(region["number"]).any() for region in case.regions)


def test_the_overlay_shows_the_doubt_or_a_probability_from_the_value_chosen_on(application, opened):
    import slicer

    parameters, case = opened.parameters, opened.review.case
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    parameters.overlay = "cochlea"
    probability = case.correction.GetNodeReference("CrossModa.probability.cochlea")
    assert slicer.util.arrayFromVolume(probability).max() <= 1
    parameters.overlayFrom = 40
    assert probability.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.4)
    assert probability.GetDisplayNode().GetApplyThreshold()
    parameters.overlay = "doubt"
    assert case.doubt.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.4)
    assert composite.GetScene() is slicer.mrmlScene


def test_every_atlas_votes_with_an_outline_of_its_own(application, opened):
    case, box = opened.review.case, opened.review.ui.votesCheckBox
    box.checked = True
    application.wait_until(lambda: not opened.logic.busy)
    votes = case.correction.GetNodeReference("CrossModa.votes")
    names = [
        votes.GetSegmentation().GetNthSegment(n).GetName() for n in range(votes.GetSegmentation().GetNumberOfSegments())
    ]
    assert names == [f"atlas_{n}: {name}" for n in range(3) for name in ("Vestibular schwannoma", "Cochlea")]
    assert not votes.GetDisplayNode().GetVisibility2DFill()
    box.checked = False
    assert not votes.GetDisplayNode().GetVisibility()


def test_without_the_labels_of_the_atlases_the_probability_is_shown(application, reviewed):
    from pathlib import Path

    review = reviewed.review
    case_id = review.items[0]["id"]
    (Path(reviewed.parameters.resultsFolder) / case_id / "atlases.csv").unlink()
    review.open(case_id)
    application.wait_until(lambda: not reviewed.logic.busy)
    reviewed.update()
    review.ui.votesCheckBox.checked = True
    assert "The probability is shown instead" in review.ui.messageLabel.text
    assert reviewed.parameters.overlay == "schwannoma"
    assert "Not among the results" in reviewed.correct.ui.takeMajorityButton.toolTip
    review.ui.votesCheckBox.checked = False


def test_a_target_without_results_is_listed_with_what_to_do(application, reviewed):
    import shutil
    from pathlib import Path

    review = reviewed.review
    shutil.rmtree(Path(reviewed.parameters.resultsFolder) / "case_1")
    review.ui.listButton.click()
    application.wait_until(lambda: not reviewed.logic.busy)
    assert "crossmoda propagate" in review.item("case_1")["reasons"][0]
    review.open("case_1")
    application.wait_until(lambda: not reviewed.logic.busy)
    assert "crossmoda propagate" in review.ui.messageLabel.text
    assert review.case is None
    review.open("case_2")
    application.wait_until(lambda: not reviewed.logic.busy)
    assert review.case.id == "case_2"


def test_the_next_case_takes_the_place_of_the_last_one_in_the_scene(application, opened):
    import slicer

    first = opened.review.case.id
    opened.review.ui.nextButton.click()
    application.wait_until(lambda: not opened.logic.busy)
    assert opened.review.case.id != first
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")]
    assert not any(name.startswith(first) for name in names)
