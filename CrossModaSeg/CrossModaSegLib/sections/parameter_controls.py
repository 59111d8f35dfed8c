"""The parameters of the CLI modules in the panel: built from their XML, so that both always say the same."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

_SIMPLE = ("integer", "double", "boolean", "string", "string-enumeration")
#: What other controls of the panel decide, by CLI module.
ELSEWHERE = {
    "CrossModaRegister": ("device", "mirror"),
    "CrossModaFuse": ("pattern", "files", "tumor_side", "side_certainty", "modality"),
    "CrossModaPredict": ("device", "flips"),
}


def described(module: str) -> list[ElementTree.Element]:
    """Return the simple input parameters of a CLI module as its XML has them, without those that are elsewhere."""
    loaded = getattr(slicer.modules, module.lower(), None)
    if loaded is None:
        return []
    root = ElementTree.parse(Path(loaded.path).with_suffix(".xml")).getroot()
    return [
        element
        for element in root.iter()
        if element.tag in _SIMPLE
        and element.findtext("channel") != "output"
        and element.findtext("name") not in ELSEWHERE[module]
    ]


class Advanced:
    """A collapsible group with one control per parameter; what is not at its default is in the parameter node."""

    def __init__(self, section, parameter: str, modules: tuple[str, ...]):
        """Fill the section's ``advancedGroupBox``; ``parameter`` of the parameter node keeps the values (JSON)."""
        self._section, self._parameter = section, parameter
        self._controls: dict[tuple[str, str], _Control] = {}
        self._showing = False
        form = section.ui.advancedGroupBox.layout()
        for module in modules:
            if len(modules) > 1 and described(module):
                form.addRow(qt.QLabel(f"<b>{getattr(slicer.modules, module.lower()).title}</b>"))
            for element in described(module):
                control = _Control(element, self._changed)
                self._controls[module, element.findtext("name")] = control
                form.addRow(element.findtext("label") + ":", control.widget)
        self.reset_button = qt.QPushButton(_("Reset to defaults"))
        self.reset_button.objectName = "resetButton"
        self.reset_button.connect("clicked(bool)", self.reset)
        form.addRow(self.reset_button)
        section.ui.advancedGroupBox.collapsed = True

    def values(self) -> dict[str, dict]:
        """Return, by CLI module, the parameters that are not at their default."""
        text = getattr(self._section.parameters, self._parameter)
        try:
            stored = json.loads(text or "{}")
        except ValueError:  # a scene that somebody edited
            stored = {}
        known = {}
        for (module, name), control in self._controls.items():
            value = stored.get(module, {}).get(name, control.default)
            if value != control.default:
                known.setdefault(module, {})[name] = value
        return known

    def update(self) -> None:
        """Show the parameter node's values."""
        values = self.values()
        self._showing = True
        for (module, name), control in self._controls.items():
            control.show(values.get(module, {}).get(name, control.default))
        self._showing = False
        nothing = "" if values else _("Everything is at its default.")
        self._section.allow(self.reset_button, nothing, _("Set every parameter of this section to its default"))

    def reset(self) -> None:
        """Set everything to its default."""
        if self._section.parameters is not None:
            setattr(self._section.parameters, self._parameter, "")

    def _changed(self) -> None:
        if self._showing or self._section.parameters is None:
            return
        changed: dict[str, dict] = {}
        for (module, name), control in self._controls.items():
            if control.value() != control.default:
                changed.setdefault(module, {})[name] = control.value()
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
