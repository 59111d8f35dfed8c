"""The real CLI engine of Slicer, running CLI modules in processes of their own.

``ModuleDescription`` and its parser are in the libraries of ``slicer-core`` but are not wrapped for Python; they are
reached through ctypes, which works with the Linux x86_64 wheels (GCC's classic std::string).
"""

import ctypes
import sys
from pathlib import Path

import slicer
import slicer_core

_FOLDER = Path(slicer_core.__file__).parent
_STRING = "Ss"  # mangled std::string
_alive: list[object] = []  # the engine keeps pointers into these


def _function(library, name, *arguments, result=None):
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, result
    return function


def _std_string(text: bytes):
    construct = _function(
        ctypes.CDLL("libstdc++.so.6"), "_ZNSsC1EPKcRKSaIcE", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    )
    memory = ctypes.create_string_buffer(64)
    construct(memory, text, ctypes.create_string_buffer(8))
    _alive.append(memory)
    return memory


def register(script: Path, xml: bytes) -> None:
    """Parse a CLI module's XML with Slicer's own parser and make it known to vtkMRMLCommandLineModuleNode.

    Raises:
        ValueError: Slicer's parser refuses the XML.

    """
    parser = ctypes.CDLL(str(_FOLDER / "third_party.libs/libModuleDescriptionParser.so"))
    pointer = ctypes.c_void_p
    description = ctypes.create_string_buffer(1 << 16)
    _function(parser, "_ZN17ModuleDescriptionC1Ev", pointer)(description)
    parse = _function(
        parser, "_ZN23ModuleDescriptionParser5ParseERKSsR17ModuleDescription", *[pointer] * 3, result=ctypes.c_int
    )
    if parse(ctypes.create_string_buffer(64), _std_string(xml), description):
        raise ValueError(f"Slicer's parser refuses the XML of {script.name}")
    for key, value in {
        "Type": b"CommandLineModule",
        "Target": str(script).encode(),
        "Location": sys.executable.encode(),
    }.items():
        name = f"_ZN17ModuleDescription{len('Set' + key)}Set{key}ERKSs"
        _function(parser, name, pointer, pointer)(description, _std_string(value))
    engine = ctypes.CDLL(str(_FOLDER / "libMRMLCLI.so"))
    name = "_ZN28vtkMRMLCommandLineModuleNode25RegisterModuleDescriptionE17ModuleDescription"
    _function(engine, name, pointer)(description)
    _alive.append(description)


def panel_values(node) -> dict[str, str]:
    """Return what Slicer's own panel of a CLI module passes where the user chose nothing: ``.`` for each folder."""
    parameters = [
        (group, index)
        for group in range(node.GetNumberOfParameterGroups())
        for index in range(node.GetNumberOfParametersInGroup(group))
    ]
    return {node.GetParameterName(*each): "." for each in parameters if node.GetParameterTag(*each) == "directory"}


class CliModule:
    """What ``slicer.modules.<name>`` is for a CLI module."""

    def __init__(self, script: Path, application_logic):
        xml = script.with_suffix(".xml").read_bytes()
        register(script, xml)
        self.name, self.path = script.stem, str(script)
        self.title = xml.decode().split("<title>")[1].split("</title>")[0].strip()
        self._logic = _CliLogic(self.title, application_logic)

    def logic(self):
        """Return the module's logic."""
        return self._logic


class _CliLogic:
    """The real logic; only the creation of nodes is redone, since it needs the description that Python cannot pass."""

    def __init__(self, title, application_logic):
        self._title = title
        self._real = slicer.vtkSlicerCLIModuleLogic()
        self._real.SetMRMLApplicationLogic(application_logic)
        self._real.SetMRMLScene(slicer.mrmlScene)

    def CreateNodeInScene(self):
        node = slicer.vtkMRMLCommandLineModuleNode()
        node.SetModuleDescription(self._title)
        node.SetName(self._title)
        return slicer.mrmlScene.AddNode(node)

    def __getattr__(self, name):
        return getattr(self._real, name)
