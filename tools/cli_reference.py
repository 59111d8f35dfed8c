"""Write docs/cli_reference.md from the XML of the CLI modules: ``python tools/cli_reference.py``."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs/cli_reference.md"
INTRODUCTION = """# CLI modules

Written by `tools/cli_reference.py` from the XML of the modules; do not edit. In Slicer the modules are in the
module menu and in Python as `slicer.cli.run(slicer.modules.crossmodaregister, None, {"fixed": node, ...})` with the
names of the first column. From a shell: `PythonSlicer CrossModaRegister.py --help`, or any Python that has
CrossModa's requirements. Arguments without a flag come last, in the order given. Exit code 2 means unusable input,
with one sentence on standard error.
"""


def cell(text: str | None) -> str:
    """Return a text for a table's cell."""
    return " ".join((text or "").split()).replace("|", "\\|")


def kind(parameter: ElementTree.Element) -> str:
    """Return what a parameter is: its type, its direction, its choices or limits."""
    words = [parameter.get("type", ""), parameter.tag.replace("-enumeration", "")]
    words += ["output"] if parameter.findtext("channel") == "output" else []
    choices = [element.text for element in parameter.findall("element")]
    words += [": " + ", ".join(choices)] if choices else []
    limits = parameter.find("constraints")
    if limits is not None:
        words.append(f"{limits.findtext('minimum', '')} to {limits.findtext('maximum', '')}")
    return cell(" ".join(word for word in words if word)).replace(" :", ":")


def module(path: Path) -> str:
    """Return the reference of one module."""
    root = ElementTree.parse(path).getroot()
    lines = [f"## {path.stem}", "", f"*{cell(root.findtext('title'))}.* {cell(root.findtext('description'))}", ""]
    for group in root.findall("parameters"):
        lines += [f"**{cell(group.findtext('label'))}.** {cell(group.findtext('description'))}", ""]
        lines += ["| name | flag | what | default | |", "|---|---|---|---|---|"]
        for parameter in group:
            if parameter.find("name") is None:
                continue
            flag = parameter.findtext("longflag") or (
                f"argument {int(parameter.findtext('index')) + 1}" if parameter.find("index") is not None else ""
            )
            columns = [parameter.findtext("name"), flag and f"`{flag}`", kind(parameter), parameter.findtext("default")]
            lines.append("| " + " | ".join([*map(cell, columns), cell(parameter.findtext("description"))]) + " |")
        lines.append("")
    return "\n".join(lines)


def reference() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *[module(path) for path in sorted(ROOT.glob("CrossModa*/*.xml"))]])


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    print(TARGET)
