"""The panel by role: Measure opens first, a loaded scan is one click from its volume, every tab fits on a screen."""

import numpy as np
import pytest

#: Of a panel on a screen of 1080 pixels, at Slicer's usual width.
HEIGHT, WIDTH = 900, 325


pytestmark = pytest.mark.usefixtures("folded")


def reopen(panel) -> None:
    """Leave the panel and open it again."""
    panel.exit()
    panel.enter()
    panel.update()


def height_of(application, panel, section) -> int:
    """Return the height of the panel with the tab of a section, at Slicer's usual width."""
    import slicer

    panel.show_tab(section)
    widget = slicer.modules.crossmodaseg.widgetRepresentation()
    widget.show()
    widget.resize(WIDTH, 3000)
    for _ in range(3):
        application.processEvents()
    panel.update()
    for _ in range(3):
        application.processEvents()
    last = max((part for part in panel.tab_of(section) if part.widget.height), key=lambda part: part.widget.y)
    return panel.pages[panel.tabs.currentIndex].y + last.widget.y + last.widget.height


def test_the_panel_opens_with_measure(application, panel):
    titles = [panel.tabs.tabText(number) for number in range(len(panel.pages))]
    assert titles == ["Measure", "Review", "Atlases && training"], "the first tab is shown until another is selected"
    assert panel.setup.ui.sectionButton.collapsed, "nothing is missing"
    assert panel.measure.ui.advancedGroupBox.collapsed
    assert panel.measure.ui.applyButton.toolTip == "Select a scan."
    assert panel.measure.ui.modelComboBox.currentText == "Bundled model"
    assert panel.measure.ui.cautionLabel.text == "No real schwannoma was in its training."


def test_setup_is_open_where_a_package_is_missing(panel, monkeypatch):
    from CrossModaSegLib.processes import dependencies
    from CrossModaSegLib.sections.setup import SetupSection

    monkeypatch.setattr(dependencies, "missing", lambda: ["numba>=0.60"])
    assert not SetupSection(panel).ui.sectionButton.collapsed


@pytest.mark.bed
def test_every_tab_is_at_most_900_pixels_high(application, opened, add_volume):
    opened.register.say(40 * "words ")
    opened.register.ui.checkGroupBox.collapsed = False
    heights = {section.name: height_of(application, opened, section) for section in opened.sections}
    assert {name: height for name, height in heights.items() if height > HEIGHT} == {}


def test_the_first_mr_volume_is_selected_when_the_panel_opens(panel, add_volume):
    from CrossModaSegLib.scene import nodes

    ct = add_volume("CT", np.full((12, 20, 24), -1000.0, np.float32))
    label = add_volume("label", kind="vtkMRMLLabelMapVolumeNode")
    own, atlas = add_volume("uncertainty"), add_volume("atlas")
    own.SetAttribute(nodes.ROLE, "uncertainty")
    panel.logic.addCase(atlas, None, "ceT1")
    reopen(panel)
    assert panel.parameters.target is None, (ct.GetName(), label.GetName(), own.GetName(), atlas.GetName())
    scan, _second = add_volume("T2"), add_volume("second T2")
    reopen(panel)
    assert panel.parameters.target is scan is panel.measure.ui.scanSelector.currentNode()
    assert panel.measure.ui.applyButton.enabled, panel.measure.ui.applyButton.toolTip


def test_a_selected_scan_is_kept_and_after_a_deletion_none_is_selected(application, panel, add_volume):
    _first, second = add_volume("first"), add_volume("second")
    panel.parameters.target = second
    reopen(panel)
    assert panel.parameters.target is second
    application.scene.RemoveNode(second)
    reopen(panel)
    assert panel.parameters.target is None
    assert panel.measure.ui.messageLabel.text == "Scan removed from the scene: second. Select a scan."
    assert panel.measure.ui.applyButton.toolTip == "Select a scan."


@pytest.mark.slow
@pytest.mark.bed
def test_from_a_loaded_t2_one_click_gives_the_volume(application, panel, sample_folder, weights, monkeypatch):
    import slicer
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import display, measures, segments
    from PySide6 import QtWidgets

    from crossmoda.dataset import open_dataset

    (case,) = [case for case in open_dataset(sample_folder).cases if case.modality == "hrT2"]
    slicer.util.loadVolume(str(case.image), {"name": "T2"})
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.parameters.weights = str(weights)  # the bundled ones need more time
    clicks = count_clicks(monkeypatch, QtWidgets)
    reopen(panel)
    panel.measure.ui.applyButton.click()
    application.wait_until(lambda: not panel.logic.busy, 500)
    panel.update()
    assert clicks == ["applyButton"]
    assert not [node for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode") if "probability" in node.GetName()]
    result, table = panel.parameters.result, panel.result.ui.measuresTable
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(result, "VS", panel.parameters.target)
    volume_mm3 = float(voxels.sum() * np.prod(panel.parameters.target.GetSpacing()))
    sentence = panel.result.ui.sentenceLabel.text
    assert sentence.startswith(f"VS {volume_mm3 / 1000:.2f} mL") if volume_mm3 else sentence == "No tumor."
    assert not table.isHidden() and table.columnCount == 1 + measures.table_of(result).GetNumberOfRows()
    centers = [result.GetSegmentCenterRAS(segment) for _, segment in segments.known_segments(result)]
    assert panel.result.ui.show3DButton.checked == any(center is not None for center in centers)
    panel.result.ui.uncertaintyButton.click()
    assert display.is_over(panel.parameters.uncertainty)
    panel.result.ui.uncertaintyButton.click()
    assert not display.is_over(panel.parameters.uncertainty)
    selftest.paint_ball(result, "VS")
    panel.update()
    assert "measure again" in panel.result.ui.sentenceLabel.text
    selftest.press(panel, panel.result.ui.measureButton)
    assert panel.result.ui.sentenceLabel.text.startswith("VS ")
    assert height_of(application, panel, panel.measure) <= HEIGHT


def count_clicks(monkeypatch, widgets) -> list[str]:
    """Count the buttons that are clicked from now on, by name."""
    clicked = []
    click = widgets.QAbstractButton.click
    monkeypatch.setattr(widgets.QAbstractButton, "click", lambda self: (clicked.append(self.name), click(self)))
    return clicked


def test_the_models_of_a_folder_are_in_the_list(panel, weights, tmp_path, monkeypatch):
    import qt

    from crossmoda.review import models

    models.add(tmp_path, weights, "mine")
    combo_box = panel.measure.ui.modelComboBox
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    combo_box.currentIndex = combo_box.count - 1
    combo_box.activated.emit(combo_box.count - 1)
    panel.update()
    assert [combo_box.itemText(index) for index in range(combo_box.count)] == ["Bundled model", "mine", "Folder…"]
    assert combo_box.currentText == "Bundled model"
    combo_box.activated.emit(1)
    panel.update()
    assert panel.parameters.weights == str(tmp_path / "mine" / "weights.safetensors")
    assert combo_box.currentText == "mine"
    assert panel.measure.ui.cautionLabel.isHidden(), "its card names nothing that it has not seen"
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "mine"))
    combo_box.activated.emit(combo_box.count - 1)
    assert "No models in" in panel.measure.ui.messageLabel.text


def test_the_keys_of_the_review_belong_to_its_tab(opened):
    keys = opened.review._keys.keys
    assert all(key.enabled for key in keys)
    opened.show_tab(opened.measure)
    assert not any(key.enabled for key in keys)
    opened.show_tab(opened.correct)
    assert all(key.enabled for key in keys)


@pytest.mark.bed
def test_the_buttons_of_work_and_of_problems_fit_into_the_panel(application, panel, add_volume):
    import slicer

    for name in ("cancel", "harden"):
        getattr(panel.cases.ui, name + "Button").setVisible(True)
    height_of(application, panel, panel.cases)
    assert panel.cases.widget.property("minimumSizeHint").width() <= WIDTH
    assert slicer.modules.crossmodaseg.widgetRepresentation().width == WIDTH
