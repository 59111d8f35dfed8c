"""Segments with unknown names: listed, mapped by the user or refused, and never dropped without a word."""

import numpy as np
import pytest

NAMES = {"Befund 1": 1, "Innenohr": 2, "Brainstem": 0}


def boxes():
    array = np.zeros((12, 20, 24), np.uint8)
    array[4:8, 6:12, 8:14], array[9:11, 15:17, 3:6] = 1, 2
    return array


def add_segment(segmentation, name, mask, volume):
    from CrossModaSegLib.scene import nodes

    segment_id = segmentation.GetSegmentation().AddEmptySegment(name, name)
    if mask.any():
        nodes.set_segment(segmentation, segment_id, mask, volume)
    return segment_id


@pytest.fixture
def drawn(panel, add_volume, scene):
    """A volume, and a segmentation of it with the names of a clinic, chosen in the panel."""
    volume = add_volume("ceT1")
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    for name, value in NAMES.items():
        add_segment(segmentation, name, boxes() == value if value else boxes() > 5, volume)
    add_segment(segmentation, "Notes", boxes() > 5, volume)
    panel.cases.ui.volumeSelector.setCurrentNode(volume)
    panel.cases.ui.labelSelector.setCurrentNode(segmentation)
    panel.update()
    return volume, segmentation


@pytest.fixture
def answer(monkeypatch):
    """Press the buttons of the dialog: ``answer(accept, {name: index})`` returns the names asked for, by dialog."""
    from CrossModaSegLib.sections import structure_names

    asked, show = [], structure_names.StructureNamesDialog.ask

    def prepare(accept, choices):
        import qt

        def ask(dialog):
            asked.append(list(dialog._selectors))
            ok, cancel = (dialog.buttons.button(kind) for kind in (qt.QDialogButtonBox.Ok, qt.QDialogButtonBox.Cancel))
            assert not ok.property("enabled"), "nothing is chosen yet"
            for name, index in choices.items():
                dialog._selectors[name].setCurrentIndex(index)
            qt.QTimer.singleShot(0, lambda: (ok if accept else cancel).click())
            return show(dialog)

        monkeypatch.setattr(structure_names.StructureNamesDialog, "ask", ask)
        return asked

    return prepare


def test_the_user_maps_unknown_names_and_a_saved_scene_keeps_them(application, panel, drawn, answer, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes

    volume, segmentation = drawn
    asked = answer(True, {"Befund 1": 1, "Innenohr": 2})
    panel.cases.ui.addAtlasButton.click()
    assert asked == [["Befund 1", "Innenohr"]]
    assert panel.cases.rows[0].problem() == ""
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.label_map_of(segmentation, volume)), boxes())
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    application.scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()
    assert [row.problem() for row in panel.cases.rows] == [""]


def test_a_cancelled_dialog_refuses_the_label_with_the_list(panel, drawn, answer):
    answer(False, {"Befund 1": 1, "Innenohr": 2})
    panel.cases.ui.addAtlasButton.click()
    assert panel.cases.rows == []
    assert 'Unknown segment names in drawn: "Befund 1", "Innenohr"' in panel.cases.ui.messageLabel.text.replace(
        "\u200b", ""
    )


def test_an_ignored_name_is_background(panel, drawn, answer):
    import slicer
    from CrossModaSegLib.scene import nodes

    volume, segmentation = drawn
    answer(True, {"Befund 1": 1, "Innenohr": 3})
    panel.cases.ui.addAtlasButton.click()
    label_map = slicer.util.arrayFromVolume(nodes.label_map_of(segmentation, volume))
    np.testing.assert_array_equal(label_map, np.where(boxes() == 1, 1, 0))


def test_an_atlas_that_gets_an_unknown_segment_later_is_not_registered(panel, drawn, answer):
    volume, segmentation = drawn
    answer(True, {"Befund 1": 1, "Innenohr": 2})
    panel.cases.ui.addAtlasButton.click()
    add_segment(segmentation, "Segment_1", boxes() == 1, volume)
    panel.update()
    assert '"Segment_1"' in panel.cases.rows[0].problem() and panel.cases.atlases() == []


def test_measures_and_exports_ask_for_what_the_user_added(application, panel, add_volume, answer, tmp_path):
    from CrossModaSegLib.scene import nodes

    from crossmoda.volume import read_label_map

    volume = add_volume("target")
    label = np.where(boxes() == 2, 2, 0).astype(np.uint8)
    result = panel.parameters.result = nodes.make_segmentation(label, volume, "result", "prediction")
    add_segment(result, "Segment_1", boxes() == 1, volume)
    panel.parameters.exportFolder = str(tmp_path)
    panel.update()
    answer(False, {})
    for button in (panel.result.ui.measureButton, panel.result.ui.exportButton):
        button.click()
        assert '"Segment_1"' in panel.result.ui.messageLabel.text.replace("\u200b", "") and not panel.logic.busy
    assert list(tmp_path.iterdir()) == []
    answer(True, {"Segment_1": 1})
    panel.result.ui.exportButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    np.testing.assert_array_equal(read_label_map(tmp_path / "result.nii.gz").array, boxes())


def test_a_correction_is_saved_with_the_segments_that_the_reviewer_added(application, opened, answer):
    from crossmoda.dataset import corrections
    from crossmoda.volume import read_label_map

    case = opened.review.case
    before = case.array()
    added = np.zeros(before.shape, bool)
    added[1:3, 2:5, 2:5] = True
    assert not before[added].any()
    add_segment(case.correction, "Segment_1", added, case.volume)
    opened.correct.autosave.flush()
    opened.update()
    assert '"Segment_1"' in opened.correct.ui.caseLabel.text.replace("\u200b", "")
    assert "still in the scene" in opened.correct.keep_before_leaving("open")
    answer(False, {})
    opened.correct.ui.saveButton.click()
    assert case.unsaved and '"Segment_1"' in opened.correct.ui.messageLabel.text.replace("\u200b", "")
    answer(True, {"Segment_1": 1})
    opened.correct.ui.saveButton.click()
    saved = read_label_map(corrections.load(case.data, case.id).label)
    np.testing.assert_array_equal(saved.array, np.where(added, 1, before))
    case.write(before)
    np.testing.assert_array_equal(case.array(), before)
