"""Write the XML of the CLI modules from the declarations of their steps: ``python tools/cli_modules.py``."""

import importlib
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import crossmoda
from crossmoda.parameters import Parameter, parameters
from crossmoda.steps.declaration import KINDS, File, Result, Step

ROOT = Path(__file__).resolve().parents[1]
#: The step of each CLI module, by the module's file without its ending.
STEPS = {
    "CrossModaRegister/CrossModaPropagate": "propagate",
}
CATEGORY = "Segmentation.CrossModa Tools"
HOMEPAGE = "https://github.com/crossmoda/SlicerCrossModa"
_TAGS = {bool: "boolean", int: "integer", float: "double", str: "string"}


def steps() -> dict[Path, Step]:
    """Return the step of each CLI module by the path of its XML."""
    return {
        ROOT / f"{file}.xml": importlib.import_module(f"crossmoda.steps.{name}").STEP for file, name in STEPS.items()
    }


def description(step: Step) -> str:
    """Return the XML of a step's CLI module."""
    root = ElementTree.Element("executable")
    about = {"category": CATEGORY, "title": step.title, "description": step.description}
    about |= {"version": crossmoda.__version__, "documentation-url": HOMEPAGE, "license": "Apache-2.0"}
    about |= {"contributor": "The CrossModa developers", "acknowledgements": step.acknowledgements}
    for name, text in about.items():
        _add(root, name, text)
    settings = [item for each in step.settings for item in parameters(each)]
    advanced = [item for item in (*step.inputs, *settings) if item.advanced]
    groups: list[tuple[str, str, list[Any]]] = [
        ("Inputs", "Scans and folders.", [file for file in step.inputs if not file.advanced]),
        ("Outputs", "All optional.", list(step.outputs)),
        ("Algorithm", "The defaults suit MR of the head.", [item for item in settings if not item.advanced]),
        ("Advanced", "Details of the algorithm.", advanced),
        ("Measurements", "Numbers and messages of the last run.", list(step.results)),
    ]
    for label, text, members in groups:
        if members:
            group = ElementTree.SubElement(root, "parameters", {"advanced": "true"} if label == "Advanced" else {})
            _add(group, "label", label)
            _add(group, "description", text)
            for member in members:
                _add_member(group, step, member)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _add(parent: ElementTree.Element, name: str, text: object) -> None:
    ElementTree.SubElement(parent, name).text = str(text)


def _add_member(group: ElementTree.Element, step: Step, member: File | Parameter | Result) -> None:
    if isinstance(member, File):
        _add_file(group, step, member)
    elif isinstance(member, Parameter):
        _add_parameter(group, member)
    else:
        element = ElementTree.SubElement(group, _TAGS[member.type])
        for name, text in {"name": member.name, "label": member.label, "description": f"{member.help}."}.items():
            _add(element, name, text)
        _add(element, "channel", "output")
        _add(element, "default", _default(member.type()))


def _add_file(group: ElementTree.Element, step: Step, file: File) -> None:
    """Add a file; Slicer's panel passes ``.`` for an optional folder that is not set, hence that is a string."""
    is_text = file.kind == "folder" and not file.required
    tags = {"label": "image", "linear transform": "transform", "table": "file", "weights": "file"}
    tags |= {"folder": "string" if is_text else "directory"}
    attributes = {"label": {"type": "label"}, "linear transform": {"type": "linear"}}.get(file.kind, {})
    if KINDS[file.kind]:
        attributes["fileExtensions"] = KINDS[file.kind]
    element = ElementTree.SubElement(group, tags.get(file.kind, file.kind), attributes)
    optional = " Optional." if not file.required and file in step.inputs else ""
    about = {"name": file.name, "label": _label(file.name), "description": f"{file.help}.{optional}"}
    for name, text in about.items():
        _add(element, name, text)
    if not is_text:
        _add(element, "channel", "output" if file in step.outputs else "input")
    if file.required:
        _add(element, "index", [each for each in step.files if each.required].index(file))
    else:
        _add(element, "longflag", f"--{file.name}")
    if is_text:
        _add(element, "default", "")


def _add_parameter(group: ElementTree.Element, item: Parameter) -> None:
    """Add a parameter; Slicer cannot switch a flag off, hence one that is on by default becomes its contrary."""
    is_off_switch = item.type is bool and item.default
    name = f"no_{item.name}" if is_off_switch else item.name
    element = ElementTree.SubElement(group, "string-enumeration" if item.choices else _TAGS[item.type])
    unit = f" ({item.unit})" if item.unit else ""
    _add(element, "name", name)
    _add(element, "longflag", f"--{name}")  # Slicer's parser refuses dashes within a flag
    _add(element, "label", _label(name) + unit)
    _add(element, "description", f"Switch off: {item.help}." if is_off_switch else f"{item.help}.")
    _add(element, "default", _default(False if is_off_switch else item.default))
    for choice in item.choices or ():
        _add(element, "element", choice)
    limits = {"minimum": item.minimum, "maximum": item.maximum}
    if any(limit is not None for limit in limits.values()):
        constraints = ElementTree.SubElement(element, "constraints")
        for bound, limit in limits.items():
            if limit is not None:
                _add(constraints, bound, f"{limit:.15g}")
        _add(constraints, "step", "1" if item.type is int else f"{_increment(item):g}")


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _increment(item: Parameter) -> float:
    """Return the step of a slider: a tenth of the default's decade, or a hundredth of the range."""
    if item.default:
        return 10.0 ** (math.floor(math.log10(abs(item.default))) - 1)
    return ((item.maximum or 1.0) - (item.minimum or 0.0)) / 100


if __name__ == "__main__":
    for path, step in steps().items():
        path.write_text(description(step), encoding="utf-8")
        print(path)
