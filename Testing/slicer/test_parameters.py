"""Every parameter is the same everywhere: engine, command, CLI modules (XML and arguments), panel."""

import argparse
import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from crossmoda import inference, training
from crossmoda.cli import crossmoda_command
from crossmoda.parameters import Parameter, parameters
from crossmoda.propagation import label_files, single

PROJECT = Path(__file__).resolve().parents[2]
MODULES = {
    "CrossModaRegister/CrossModaRegister": (single.Settings, "register"),
    "CrossModaRegister/CrossModaFuse": (label_files.Settings, "fuse"),
    "CrossModaSeg/CrossModaPredict": (inference.Settings, "predict"),
    "CrossModaSeg/CrossModaTrain": (training.Settings, "train"),
}
TAGS = {bool: "boolean", int: "integer", float: "double", str: "string"}
EVERY = [
    pytest.param(script, command, item, id=f"{Path(script).name}-{item.name}")
    for script, (settings, command) in MODULES.items()
    for item in parameters(settings)
]


def described(script: str) -> dict[str, ElementTree.Element]:
    """Return the parameters of a CLI module's XML by name."""
    root = ElementTree.parse(PROJECT / f"{script}.xml").getroot()
    return {element.findtext("name"): element for element in root.iter() if element.find("name") is not None}


def arguments_of(script: str) -> argparse.ArgumentParser:
    """Return the argument parser of a CLI module."""
    specification = importlib.util.spec_from_file_location(Path(script).name, PROJECT / f"{script}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.arguments()


def typed(text: str | None, item: Parameter):
    """Return a text of the XML as the parameter's type."""
    return text == "true" if item.type is bool else item.type(text or "")


@pytest.mark.parametrize(("script", "command", "item"), EVERY)
def test_the_xml_describes_the_parameter_of_the_engine(script, command, item):
    element = described(script)[item.name]
    assert element.tag == ("string-enumeration" if item.choices else TAGS[item.type])
    assert element.findtext("longflag") == f"--{item.name}"
    assert typed(element.findtext("default"), item) == item.default
    assert tuple(choice.text for choice in element.findall("element")) == (item.choices or ())
    for bound in ("minimum", "maximum"):
        text = element.findtext(f"constraints/{bound}")
        assert (None if text is None else float(text)) == getattr(item, bound)
    if item.unit:
        assert element.findtext("label").endswith(f"({item.unit})")
    assert element.findtext("description").startswith(item.help.rstrip("."))
    group = next(
        group for group in ElementTree.parse(PROJECT / f"{script}.xml").getroot() if element_in(group, item.name)
    )
    assert (group.get("advanced") == "true") == item.advanced


def element_in(group: ElementTree.Element, name: str) -> bool:
    return any(element.findtext("name") == name for element in group)


@pytest.mark.parametrize(("script", "command", "item"), EVERY)
def test_the_arguments_of_the_module_and_of_the_command_are_the_engines(script, command, item):
    import click

    action = next(action for action in arguments_of(script)._actions if action.dest == item.name)
    assert action.default == item.default
    assert item.flag in action.option_strings
    if item.type is not bool:
        assert (action.type, action.choices) == (item.type, item.choices)
    context = click.Context(crossmoda_command)
    options = {option.name: option for option in crossmoda_command.get_command(context, command).params}
    option = options[item.name]
    assert option.default == item.default
    assert item.flag in option.opts
    assert option.help == item.full_help
    if item.choices:
        assert tuple(option.type.choices) == item.choices


@pytest.mark.parametrize("script", MODULES, ids=lambda script: Path(script).name)
def test_the_xml_has_no_setting_that_the_engine_lacks(script):
    settings, _command = MODULES[script]
    known = {item.name for item in parameters(settings)}
    files = {"pattern", "files"}  # which files are read
    found = {
        name
        for name, element in described(script).items()
        if element.tag in (*TAGS.values(), "string-enumeration") and element.findtext("channel") != "output"
    }
    assert found - files == known


def controls(panel):
    """Return (module, name, control) of every control in the panel's advanced groups."""
    return [
        (module, name, control)
        for section in (panel.register, panel.segment)
        for (module, name), control in section.advanced._controls.items()
    ]


def test_the_panel_shows_every_parameter_with_the_engines_default_range_choices_and_help(panel):
    from CrossModaSegLib.sections.parameter_controls import ELSEWHERE

    shown = {(module, name): control for module, name, control in controls(panel)}
    for script, (settings, _command) in MODULES.items():
        module = Path(script).name
        if module == "CrossModaTrain":  # not in the panel: it takes hours
            continue
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
