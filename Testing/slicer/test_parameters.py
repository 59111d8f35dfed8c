"""Every parameter of a CLI module has one control in the panel, made from the module's XML."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TAGS = ("boolean", "integer", "double", "string", "string-enumeration")


def described(script: str) -> dict[str, ElementTree.Element]:
    """Return the simple input parameters of a CLI module's XML by name."""
    root = ElementTree.parse(PROJECT / f"{script}.xml").getroot()
    return {
        element.findtext("name"): element
        for element in root.iter()
        if element.tag in TAGS and element.findtext("channel") != "output"
    }


def test_the_panel_shows_every_parameter_of_the_xml_that_has_no_control_of_its_own(panel):
    from CrossModaSegLib.sections.parameter_controls import SET_BY_PANEL

    scripts = ("CrossModaRegister/CrossModaPropagate", "CrossModaSeg/CrossModaPredict")
    for section, script in zip((panel.register, panel.measure), scripts, strict=True):
        shown, hidden = section.controls.controls, SET_BY_PANEL[Path(script).name]
        inputs = described(script)
        assert set(hidden) <= set(inputs)
        assert set(shown) == set(inputs) - set(hidden)
        for name, control in shown.items():
            assert control.widget.toolTip.startswith(inputs[name].findtext("description"))
            choices = [choice.text for choice in inputs[name].findall("element")]
            assert [control.widget.itemText(index) for index in range(len(choices))] == choices
            assert control.value() == control.default
            for bound in ("minimum", "maximum"):
                if text := inputs[name].findtext(f"constraints/{bound}"):
                    assert getattr(control.widget, bound) == float(text)


def test_what_is_set_in_the_panel_is_in_the_parameter_node_and_reset_by_the_button(panel):
    import qt

    section = panel.register
    assert not section.controls.reset_button.enabled
    assert "default" in section.controls.reset_button.toolTip
    group = section.ui.advancedGroupBox
    group.findChild(qt.QDoubleSpinBox, "alpha").value = 2.5
    group.findChild(qt.QComboBox, "linear").setCurrentIndex(1)
    group.findChild(qt.QCheckBox, "free_volumes").checked = True
    panel.update()
    changed = {"linear": "rigid", "alpha": 2.5, "free_volumes": True}
    assert section.controls.values() == changed
    panel.open()  # as a saved scene does
    assert section.controls.values() == changed
    assert group.findChild(qt.QDoubleSpinBox, "alpha").value == 2.5
    section.controls.reset_button.click()
    panel.update()
    assert section.controls.values() == {}
    assert group.findChild(qt.QDoubleSpinBox, "alpha").value == 1.6
    assert not group.findChild(qt.QCheckBox, "free_volumes").checked
