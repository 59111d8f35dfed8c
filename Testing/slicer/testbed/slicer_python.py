"""The few pure-Python parts of Slicer that are in no package and that the panel uses, written anew and small.

Where the real ones accept more, these refuse: what the panel needs must be said here first.
"""

import logging
import pathlib
import sys
import types
import typing

import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtWidgets

from testbed.pythonqt import qt

# ---------------------------------------------------------------- slicer.ScriptedLoadableModule


class ScriptedLoadableModule:
    """Base of a module's description."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        icon = pathlib.Path(parent.path).parent / f"Resources/Icons/{self.moduleName}.png"
        if icon.is_file():
            parent.icon = qt.QIcon(str(icon))
        slicer.selfTests[self.moduleName] = self.runTest

    def runTest(self, msec=0):
        """Run the module's test class."""
        test = getattr(sys.modules[self.__module__], self.moduleName + "Test")()
        test.messageDelay = msec
        test.runTest()


class ScriptedLoadableModuleWidget:
    """Base of a module's panel."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name):
        """Return the path of a file in the module's Resources."""
        return str(pathlib.Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self):
        """Make the developer's section (none here)."""

    def cleanup(self):
        """Release what the panel holds."""

    def onReload(self):
        """Load the module's file again and make its widget anew."""
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """Base of a module's logic."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        """Return the one parameter node of this module in the scene."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest:
    """Base of a module's test; the assertions are unittest's."""

    def __init__(self):
        import unittest

        self._case = unittest.TestCase()
        self.messageDelay = 0

    def __getattr__(self, name):
        if name.startswith("assert"):
            return getattr(self._case, name)
        raise AttributeError(name)

    def delayDisplay(self, message, _delay=None):
        """Show a message."""
        logging.info(message)


# ---------------------------------------------------------------- slicer.cli


def _set_parameters(node, parameters):
    for key, value in (parameters or {}).items():
        for kind, setter in (
            (str, "SetParameterAsString"),
            (bool, "SetParameterAsBool"),
            (int, "SetParameterAsInt"),
            (float, "SetParameterAsDouble"),
            (slicer.vtkMRMLNode, "SetParameterAsNode"),
        ):
            if isinstance(value, kind):
                getattr(node, setter)(key, value)
                break
        else:  # Slicer prints and drops it
            raise TypeError(f"slicer.cli cannot pass {key}={value!r}")


def run(
    module, node=None, parameters=None, wait_for_completion=False, delete_temporary_files=True, update_display=True
):
    """Run a CLI module; return its node."""
    node = node or module.logic().CreateNodeInScene()
    _set_parameters(node, parameters)
    known = {
        node.GetParameterName(group, index)
        for group in range(node.GetNumberOfParameterGroups())
        for index in range(node.GetNumberOfParametersInGroup(group))
    }
    if set(parameters or {}) - known:
        raise LookupError(f"{module.name} has no parameter {sorted(set(parameters) - known)}")
    module.logic().SetDeleteTemporaryFiles(int(delete_temporary_files))
    (module.logic().ApplyAndWait if wait_for_completion else module.logic().Apply)(node, update_display)
    return node


# ---------------------------------------------------------------- slicer.parameterNodeWrapper


class WithinRange:
    """Bounds of a number."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum


class Choice:
    """The values allowed."""

    def __init__(self, choices):
        self.choices = list(choices)


def parameterNodeWrapper(cls):
    """Give a class typed access to a parameter node, and to widgets that name its parameters."""
    hints = typing.get_type_hints(cls, include_extras=True)
    cls.allParameters = {name: (hint, getattr(cls, name, None)) for name, hint in hints.items()}
    for name in hints:
        setattr(cls, name, property(*_access(name)))
    for method in (_init, _connect_gui, _disconnect_gui, _data_type):
        setattr(cls, {"_init": "__init__"}.get(method.__name__, _camel(method.__name__)), method)
    for name in ("AddObserver", "RemoveObserver", "StartModify", "EndModify", "Modified"):
        setattr(cls, name, lambda self, *values, _name=name: getattr(self.parameterNode, _name)(*values))
    return cls


def _camel(name):
    first, *rest = name.strip("_").split("_")
    return first + "".join(part.title() for part in rest)


def _kind(hint):
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _annotation(hint, kind):
    return next((item for item in typing.get_args(hint)[1:] if isinstance(item, kind)), None)


def _access(name):
    def read(self):
        kind = _kind(self.allParameters[name][0])
        if issubclass(kind, slicer.vtkMRMLNode):
            return self.parameterNode.GetNodeReference(name)
        text = self.parameterNode.GetParameter(name)
        return text == "True" if kind is bool else kind(text)

    def write(self, value):
        hint = self.allParameters[name][0]
        kind = _kind(hint)
        if issubclass(kind, slicer.vtkMRMLNode):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}")
            self.parameterNode.SetNodeReferenceID(name, value.GetID() if value else None)
            return
        if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
            raise TypeError(f"{name} must be {kind.__name__}, not {value!r}")
        limits, choice = _annotation(hint, WithinRange), _annotation(hint, Choice)
        if (limits and not limits.minimum <= value <= limits.maximum) or (choice and value not in choice.choices):
            raise ValueError(f"{name} cannot be {value!r}")
        self.parameterNode.SetParameter(name, str(value))

    return read, write


def _init(self, parameterNode):
    self.parameterNode = parameterNode
    self._connections, self._updating = {}, False
    for name, (hint, default) in self.allParameters.items():
        if not issubclass(_kind(hint), slicer.vtkMRMLNode) and not parameterNode.GetParameter(name):
            zero = pathlib.Path() if _kind(hint) is pathlib.Path else _kind(hint)()
            setattr(self, name, zero if default is None else default)


def _data_type(self, name):
    return self.allParameters[name][0]


def _connect_gui(self, gui):
    children = gui.findChildren(QtWidgets.QWidget) if hasattr(gui, "findChildren") else vars(gui).values()
    pairs = []
    for widget in children:
        name = QtCore.QObject.property(widget, "SlicerParameterName")
        if name:
            if name not in self.allParameters:
                raise ValueError(f"Cannot find a param with the given name: {name}")
            if any(name == before for before, *_ in pairs):  # Slicer connects the last one only
                raise ValueError(f"Two widgets are connected to {name}")
            pairs.append((name, widget, *_connector(widget, self.allParameters[name][0])))
    handlers = []
    for name, _widget, signal, read, write in pairs:
        write(getattr(self, name))

        def changed(*_, name=name, read=read):
            if not self._updating:
                setattr(self, name, read())

        signal.connect(changed)
        handlers.append((signal, changed))

    def update(*_):
        if self._updating:
            return
        self._updating = True
        try:
            for name, _widget, _signal, _read, write in pairs:
                write(getattr(self, name))
        finally:
            self._updating = False

    tag = len(self._connections)
    self._connections[tag] = (handlers, self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, update))
    return tag


def _disconnect_gui(self, tag):
    handlers, observer = self._connections.pop(tag, ([], None))
    for signal, changed in handlers:
        signal.disconnect(changed)
    if observer is not None:
        self.parameterNode.RemoveObserver(observer)


def _connector(widget, hint):
    """Return (signal, read, write) of a widget; which pairs exist follows Slicer's guiConnectors."""
    import ctk

    kind, exact = _kind(hint), type(widget)
    if exact in (qt.QCheckBox, ctk.ctkCheckBox) and kind is bool:
        return widget.toggled, lambda: widget.checked, lambda value: setattr(widget, "checked", value)
    if exact in (qt.QComboBox, ctk.ctkComboBox) and _annotation(hint, Choice):
        choices = _annotation(hint, Choice).choices
        widget.clear()
        widget.addItems([str(choice) for choice in choices])
        return (
            widget.currentIndexChanged,
            lambda: choices[widget.currentIndex],
            lambda value: widget.setCurrentIndex(choices.index(value)),
        )
    if exact is ctk.ctkPathLineEdit and kind is pathlib.Path:
        return (
            widget.currentPathChanged,
            lambda: pathlib.Path(widget.currentPath),
            lambda value: setattr(widget, "currentPath", str(value)),
        )
    if exact in (qt.QSpinBox, ctk.ctkSliderWidget, qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox) and kind in (int, float):
        limits = _annotation(hint, WithinRange)
        if limits:
            widget.minimum, widget.maximum = limits.minimum, limits.maximum
        elif exact is ctk.ctkSliderWidget:
            raise RuntimeError("a ctkSliderWidget needs a parameter WithinRange")
        return widget.valueChanged, lambda: kind(widget.value), lambda value: setattr(widget, "value", value)
    if exact is slicer.qMRMLNodeComboBox and issubclass(kind, slicer.vtkMRMLNode):
        return widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
    raise TypeError(f"no connection between {exact.__name__} and {kind.__name__}")


# ---------------------------------------------------------------- slicer.packaging, slicer.i18n, SampleData


class Packaging(types.ModuleType):
    """``slicer.packaging``: records what would be installed, installs nothing."""

    def __init__(self):
        super().__init__("slicer.packaging")
        self.missing: set[str] = set()
        self.asked: list[tuple[list[str], str]] = []
        self.answer = True

    def load_requirements(self, path):
        """Read a requirements file."""
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def pip_check(self, requirements):
        """Say whether all requirements are there."""
        return not any(name in requirement for name in self.missing for requirement in requirements)

    def pip_ensure(self, requirements, prompt_install=True, requester=None):
        """Ask, then install."""
        self.asked.append((list(requirements), requester))
        if not self.answer:
            raise RuntimeError("User declined package installation")
        self.missing.clear()

    def pip_install(self, requirements, requester=None):
        """Install."""
        self.asked.append(([requirements] if isinstance(requirements, str) else list(requirements), requester))
        self.missing.clear()


class SampleDataSource:
    """``SampleData.SampleDataSource``: as many files and nodes as addresses, which must be a string or a list."""

    def __init__(self, sampleName, uris, fileNames, nodeNames, customDownloader, thumbnailFileName):
        if isinstance(uris, str):
            uris, fileNames, nodeNames = [uris], [fileNames], [nodeNames]
        elif isinstance(uris, list | tuple) and nodeNames is None:
            nodeNames = [None] * len(uris)
        if not len(uris) == len(fileNames) == len(nodeNames):
            raise ValueError("All fields of sample data source must have the same length")
        self.sampleName, self.uris, self.fileNames, self.nodeNames = sampleName, uris, fileNames, nodeNames
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName


class SampleDataLogic:
    """``SampleData.SampleDataLogic``: the register of sample data."""

    @staticmethod
    def registerCustomSampleDataCategory(category, title=None):
        """Name a category."""

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
    ):
        """Register a sample."""
        slicer.modules.sampleDataSources.setdefault(category, []).append(
            SampleDataSource(sampleName, uris, fileNames, nodeNames, customDownloader, thumbnailFileName)
        )

    @staticmethod
    def sampleDataSourcesByCategory(category):
        """Return the samples of a category."""
        return slicer.modules.sampleDataSources.get(category, [])

    def __init__(self):
        self.builtInCategoryName = "General"
        slicer.modules.sampleDataSources.setdefault(self.builtInCategoryName, [])


def _module(name, **content):
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    if name.startswith("slicer."):
        setattr(slicer, name.removeprefix("slicer."), module)
    return module


def install():
    """Put the modules where Slicer has them."""
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    module = _module("slicer.ScriptedLoadableModule", **{item.__name__: item for item in classes})
    module.__all__ = [item.__name__ for item in classes]
    _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    _module("slicer.cli", run=run)
    _module(
        "slicer.parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper, WithinRange=WithinRange, Choice=Choice
    )
    _module("SampleData", SampleDataLogic=SampleDataLogic, SampleDataSource=SampleDataSource)
    slicer.modules.sampleDataSources = {}
    slicer.packaging = sys.modules["slicer.packaging"] = Packaging()
