"""The parameters of a CLI module in the panel: built from its XML, so that both always show the same."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

_SIMPLE = ("integer", "double", "boolean", "string", "string-enumeration")
#: Parameters that other controls of the panel set, by CLI module.
SET_BY_PANEL = {
    "CrossModaPropagate": ("device", "tumor_side", "registrations", "keep_transforms"),
    "CrossModaPredict": ("device", "flips"),
}


def module_parameters(module: str) -> list[ElementTree.Element]:
    """Return the simple input parameters in the XML of a CLI module, without those of :data:`SET_BY_PANEL`."""
    loaded = getattr(slicer.modules, module.lower(), None)
    if loaded is None:
        return []
    root = ElementTree.parse(Path(loaded.path).with_suffix(".xml")).getroot()
    return [
        element
        for element in root.iter()
        if element.tag in _SIMPLE
        and element.findtext("channel") != "output"
        and element.findtext("name") not in SET_BY_PANEL[module]
    ]


class ParameterControls:
    """A collapsible group with one control per parameter; the parameter node keeps the values that are not default."""

    def __init__(self, section, parameter: str, module: str):
        """Fill the section's ``advancedGroupBox``; ``parameter`` of the parameter node keeps the values (JSON)."""
        self.module = module
        self._section, self._parameter = section, parameter
        self.controls: dict[str, _Control] = {}
        self._showing = False
        form = section.ui.advancedGroupBox.layout()
        for element in module_parameters(module):
            control = _Control(element, self._changed)
            self.controls[control.name] = control
            form.addRow(element.findtext("label") + ":", control.widget)
        self.reset_button = qt.QPushButton(_("Reset to defaults"))
        self.reset_button.objectName = "resetButton"
        self.reset_button.connect("clicked(bool)", self.reset)
        form.addRow(self.reset_button)
        section.ui.advancedGroupBox.collapsed = True

    def values(self) -> dict:
        """Return the parameters that are not at their default."""
        try:
            stored = json.loads(getattr(self._section.parameters, self._parameter) or "{}")
        except ValueError:  # an edited scene
            stored = {}
        return {
            name: stored[name]
            for name, control in self.controls.items()
            if name in stored and stored[name] != control.default
        }

    def update(self) -> None:
        """Show the parameter node's values."""
        values = self.values()
        self._showing = True
        for name, control in self.controls.items():
            control.show(values.get(name, control.default))
        self._showing = False
        unchanged = "" if values else _("Everything is at its default.")
        self._section.allow(self.reset_button, unchanged, _("Set every parameter of this section to its default"))

    def reset(self) -> None:
        """Set every parameter to its default."""
        if self._section.parameters is not None:
            setattr(self._section.parameters, self._parameter, "")

    def _changed(self) -> None:
        if self._showing or self._section.parameters is None:
            return
        values = {name: control.value() for name, control in self.controls.items()}
        changed = {name: value for name, value in values.items() if value != self.controls[name].default}
        setattr(self._section.parameters, self._parameter, json.dumps(changed) if changed else "")


class _Control:
    """The widget of one parameter."""

    def __init__(self, element: ElementTree.Element, changed):
        kind, default = element.tag, element.findtext("default") or ""
        self.name, self._kind = element.findtext("name"), kind
        self.default = {"integer": int, "double": float, "boolean": lambda text: text == "true"}.get(kind, str)(default)
        low, high = (element.findtext(f"constraints/{bound}") for bound in ("minimum", "maximum"))
        if kind == "string-enumeration":
            self.widget = qt.QComboBox()
            self._choices = [choice.text for choice in element.findall("element")]
            self.widget.addItems(self._choices)
            self.widget.connect("currentIndexChanged(int)", changed)
        elif kind == "boolean":
            self.widget = qt.QCheckBox()
            self.widget.connect("toggled(bool)", changed)
        elif kind == "string":
            self.widget = qt.QLineEdit()
            self.widget.connect("editingFinished()", changed)
        else:
            self.widget = qt.QSpinBox() if kind == "integer" else qt.QDoubleSpinBox()
            step = element.findtext("constraints/step") or "1"
            if kind == "double":
                self.widget.setDecimals(max(_decimals(step), _decimals(default), _decimals(low or "")))
            number = int if kind == "integer" else float
            self.widget.setRange(number(low or -1e9), number(high or 1e9))
            self.widget.setSingleStep(number(step))
            self.widget.connect("valueChanged(int)" if kind == "integer" else "valueChanged(double)", changed)
        self.widget.objectName = self.name
        texts = [element.findtext("description")]
        if low and high:
            texts.append(_("Allowed: {low} to {high}.").format(low=low, high=high))
        texts.append(_("Default: {value}.").format(value=default or _("empty")))
        self.widget.toolTip = " ".join(texts)
        self.show(self.default)

    def value(self):
        """Return what is chosen."""
        if self._kind == "string-enumeration":
            return self._choices[self.widget.currentIndex]
        if self._kind == "boolean":
            return bool(self.widget.checked)
        return self.widget.text if self._kind == "string" else type(self.default)(self.widget.value)

    def show(self, value) -> None:
        """Show a value."""
        if value == self.value():
            return
        if self._kind == "string-enumeration":
            self.widget.currentIndex = self._choices.index(value) if value in self._choices else 0
        elif self._kind == "boolean":
            self.widget.checked = value
        elif self._kind == "string":
            self.widget.text = value
        else:
            self.widget.value = value


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])
