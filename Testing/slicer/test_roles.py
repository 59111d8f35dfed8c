"""The panel by role: Measure opens first, a loaded scan is one click from its volume, every tab fits on a screen."""

import types

import numpy as np
import pytest

#: Of a panel on a screen of 1080 pixels, at Slicer's usual width.
HEIGHT, WIDTH = 900, 325


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
    assert panel.tabs.tabText(panel.tabs.currentIndex) == "Measure"
    assert panel.setup.ui.sectionButton.collapsed, "nothing is missing"
    assert panel.measure.ui.advancedGroupBox.collapsed
    assert panel.measure.ui.applyButton.toolTip == "Select a scan."
    assert panel.measure.ui.modelComboBox.currentText == "Bundled model"
    assert panel.measure.ui.cautionLabel.text == "Trained on simulated scans only."


def test_setup_is_open_where_a_package_is_missing(panel, monkeypatch):
    from CrossModaSegLib.processes import dependencies
    from CrossModaSegLib.sections.setup import SetupSection

    monkeypatch.setattr(dependencies, "missing", lambda: ["numba>=0.60"])
    assert not SetupSection(panel).ui.sectionButton.collapsed


@pytest.mark.bed
def test_every_tab_is_at_most_900_pixels_high(application, opened, add_volume):
    heights = {section.name: height_of(application, opened, section) for section in opened.sections}
    print(heights)
    import sys; sys.path.insert(0,'/tmp/panel'); from shot import shot
    opened.show_tab(opened.review); height_of(application,opened,opened.review); shot(opened,'rev')
    for section in opened.sections: print(section.name, section.widget.height)
    assert {name: height for name, height in heights.items() if height > HEIGHT} == {}
