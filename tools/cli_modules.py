"""Write the XML of the CLI modules and docs/cli_reference.md from the declarations: ``python tools/cli_modules.py``."""

import importlib
import inspect
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import click

import crossmoda
from crossmoda.cli.framework import COMMANDS, crossmoda_command
from crossmoda.parameters import Parameter, parameters
from crossmoda.steps.declaration import KINDS, File, Result, StepDeclaration

ROOT = Path(__file__).resolve().parents[1]
#: The step of each CLI module, by the module's file without its ending.
STEPS = {
    "CrossModaRegister/CrossModaFuse": "fuse",
    "CrossModaRegister/CrossModaPropagate": "propagate",
    "CrossModaRegister/CrossModaRegister": "register",
    "CrossModaSeg/CrossModaGrowth": "growth",
    "CrossModaSeg/CrossModaMeasure": "measure",
    "CrossModaSeg/CrossModaPredict": "predict",
    "CrossModaSeg/CrossModaTrain": "train",
}
CATEGORY = "Segmentation.CrossModa Tools"
HOMEPAGE = "https://github.com/crossmoda/SlicerCrossModa"
INTRODUCTION = """# Reference of the command line

Written by `tools/cli_modules.py` from the declarations in `crossmoda`; do not edit.

## CLI modules

In Slicer the modules are in the module menu under *Segmentation > CrossModa Tools*, and in Python
`slicer.cli.run(slicer.modules.crossmodaregister, None, {"fixed": node, ...})` with the names of the first column. From
a shell: `PythonSlicer CrossModaRegister.py --help`, or any Python with CrossModa's requirements. Arguments without a
flag come last, in the order of their numbers. Exit code 2 means unusable input, with one sentence on standard error.
"""
COMMAND_INTRODUCTION = """## The command crossmoda

`crossmoda COMMAND --help` prints the same. `--quiet` before the command hides the progress, `--debug` shows the
traceback of an error. Exit codes: 1 unexpected error, 2 unusable input, 130 cancelled.
"""
_TAGS = {bool: "boolean", int: "integer", float: "double", str: "string"}


def steps() -> dict[Path, StepDeclaration]:
    """Return the step of each CLI module by the path of its XML."""
    return {
        ROOT / f"{file}.xml": importlib.import_module(f"crossmoda.steps.{name}").STEP for file, name in STEPS.items()
    }


def description(step: StepDeclaration) -> str:
    """Return the XML of a step's CLI module."""
    root = ElementTree.Element("executable")
    about = {"category": CATEGORY, "title": step.title, "description": step.description}
    about |= {"version": crossmoda.__version__, "documentation-url": HOMEPAGE, "license": "Apache-2.0"}
    about |= {"contributor": "The CrossModa developers", "acknowledgements": step.acknowledgements}
    for name, text in about.items():
        _add(root, name, text)
    for label, text, members in groups(step):
        if members:
            group = ElementTree.SubElement(root, "parameters", {"advanced": "true"} if label == "Advanced" else {})
            _add(group, "label", label)
            _add(group, "description", text)
            for member in members:
                _add_member(group, step, member)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def groups(step: StepDeclaration) -> list[tuple[str, str, list[Any]]]:
    """Return label, description and members of each group of a step's files, parameters and results."""
    settings = [item for each in step.settings for item in parameters(each)]
    advanced = [item for item in (*step.inputs, *settings) if item.advanced]
    return [
        ("Inputs", "Scans and folders.", [file for file in step.inputs if not file.advanced]),
        ("Outputs", "Optional, except those without a flag.", list(step.outputs)),
        ("Algorithm", "The defaults suit MR of the head.", [item for item in settings if not item.advanced]),
        ("Advanced", "Details of the algorithm.", advanced),
        ("Measurements", "Numbers and messages of the last run.", list(step.results)),
    ]


def _add(parent: ElementTree.Element, name: str, text: object) -> None:
    ElementTree.SubElement(parent, name).text = str(text)


def _add_member(group: ElementTree.Element, step: StepDeclaration, member: File | Parameter | Result) -> None:
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


def _add_file(group: ElementTree.Element, step: StepDeclaration, file: File) -> None:
    """Add a file; Slicer's panel passes ``.`` for an optional folder that is not set, hence that is a string."""
    is_text = file.kind == "folder" and not file.required
    tags = {"label": "image", "linear transform": "transform", "table": "file", "markups": "file", "weights": "file"}
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
    text = f"Switch off: {item.help_with_unit}" if is_off_switch else item.help_with_unit
    _add(element, "name", name)
    _add(element, "longflag", f"--{name}")  # Slicer's parser refuses dashes within a flag
    _add(element, "label", _label(name) + unit)
    _add(element, "description", text)
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


def reference() -> str:
    """Return docs/cli_reference.md."""
    modules = [_module_reference(path, step) for path, step in sorted(steps().items(), key=lambda item: item[0].stem)]
    return "\n".join([INTRODUCTION, *modules, COMMAND_INTRODUCTION, *map(_command_reference, COMMANDS)])


def _table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Return the lines of a Markdown table and an empty one."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [header, ["---"] * len(header), *rows]]
    return ["| " + " | ".join(row) + " |" for row in cells] + [""]


def _module_reference(path: Path, step: StepDeclaration) -> str:
    lines = [f"### {path.stem}", "", step.description, ""]
    for label, _, members in groups(step):
        if members:
            lines += [f"**{label}**", ""]
            lines += _table(["name", "flag", "type", "default", "description"], [_row(step, item) for item in members])
    return "\n".join(lines)


def _row(step: StepDeclaration, member: File | Parameter | Result) -> list[object]:
    if isinstance(member, File):
        flag = f"argument {step.files.index(member) + 1}" if member.required else f"`--{member.name}`"
        return [member.name, flag, member.kind, "", f"{member.help}."]
    if isinstance(member, Result):
        return [member.name, "", _TAGS[member.type], "", f"{member.help}."]
    limits = [f"{limit:g}" for limit in (member.minimum, member.maximum) if limit is not None]
    kind = ", ".join(member.choices) if member.choices else " ".join([_TAGS[member.type], " to ".join(limits)]).strip()
    return [member.name, f"`--{member.name}`", kind, _default(member.default), member.help_with_unit]


def _command_reference(name: str) -> str:
    command = crossmoda_command.get_command(click.Context(crossmoda_command), name)
    assert command is not None
    arguments = [
        item.make_metavar(click.Context(command)) for item in command.params if isinstance(item, click.Argument)
    ]
    lines = [f"### crossmoda {name}", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["```", " ".join(["crossmoda", name, "[OPTIONS]", *arguments]), "```", ""]
    options = [item for item in command.params if isinstance(item, click.Option)]
    rows: list[list[object]] = [
        [", ".join(f"`{flag}`" for flag in (*item.opts, *item.secondary_opts)), _shown_default(item), item.help or ""]
        for item in options
    ]
    return "\n".join(lines + (_table(["option", "default", "description"], rows) if rows else []))


def _shown_default(option: click.Option) -> str:
    return _default(option.default) if option.show_default else "required" if option.required else ""


if __name__ == "__main__":
    for path, step in steps().items():
        path.write_text(description(step), encoding="utf-8")
    (ROOT / "docs/cli_reference.md").write_text(reference(), encoding="utf-8")
