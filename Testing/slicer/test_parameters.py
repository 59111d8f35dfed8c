"""Every parameter is the same in the engine and in the panel."""

from pathlib import Path

from crossmoda import inference
from crossmoda.parameters import parameters
from crossmoda.propagation import label_files, single

MODULES = {
    "CrossModaRegister/CrossModaRegister": (single.Settings, "register"),
    "CrossModaRegister/CrossModaFuse": (label_files.Settings, "fuse"),
    "CrossModaSeg/CrossModaPredict": (inference.Settings, "predict"),
}


def controls(panel):
    """Return (module, name, control) of every control in the panel's advanced groups."""
    return [
        (module, name, control)
        for section in (panel.register, panel.segment)
        for (module, name), control in section.advanced._controls.items()
    ]


def test_the_panel_shows_every_parameter_as_the_engine_declares_it(panel):
    from CrossModaSegLib.sections.parameter_controls import ELSEWHERE

    shown = {(module, name): control for module, name, control in controls(panel)}
    for script, (settings, _command) in MODULES.items():
        module = Path(script).name
        items = {item.name: item for item in parameters(settings)}
        assert {name for owner, name in shown if owner == module} == set(items) - set(ELSEWHERE[module])
        for name, item in items.items():
            if name in ELSEWHERE[module]:
                continue
            control = shown[module, name]
            assert (control.default, control.value()) == (item.default, item.default)
            assert control.widget.toolTip.startswith(item.help.rstrip("."))
            if item.choices:
                choices = [control.widget.itemText(index) for index in range(control.widget.count)]
                assert tuple(choices) == item.choices
            elif item.type in (int, float) and None not in (item.minimum, item.maximum):
                assert (control.widget.minimum, control.widget.maximum) == (item.minimum, item.maximum)


def test_what_is_set_in_the_panel_is_in_the_parameter_node_and_reset_by_the_button(panel):
    import qt

    section = panel.register
    assert not section.advanced.reset_button.enabled
    assert "default" in section.advanced.reset_button.toolTip
    group = section.ui.advancedGroupBox
    group.findChild(qt.QDoubleSpinBox, "alpha").value = 2.5
    group.findChild(qt.QComboBox, "linear").setCurrentIndex(1)
    group.findChild(qt.QCheckBox, "free_volumes").checked = True
    panel.update()
    changed = {"CrossModaRegister": {"linear": "rigid", "alpha": 2.5}, "CrossModaFuse": {"free_volumes": True}}
    assert section.advanced.values() == changed
    panel.open()  # as a saved scene does
    assert section.advanced.values() == changed
    assert group.findChild(qt.QDoubleSpinBox, "alpha").value == 2.5
    section.advanced.reset_button.click()
    panel.update()
    assert section.advanced.values() == {}
    assert group.findChild(qt.QDoubleSpinBox, "alpha").value == 1.6
    assert not group.findChild(qt.QCheckBox, "free_volumes").checked
