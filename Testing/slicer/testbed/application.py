"""``slicer.app``, ``slicer.modules`` and the scene, with the parts that the panel and ``slicer.util`` ask for."""

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
import time
import types
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
#: Slicer starts CLI modules at the lowest priority: on a busy machine tests would wait for them for minutes.
os.environ.setdefault("SLICER_BACKGROUND_THREAD_PRIORITY", "0")

import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtWidgets

from testbed import cli_engine, pythonqt, segment_editor, slicer_python, slicer_source, widgets
from testbed.files import Files
from testbed.pythonqt import qt

LOGICS = (
    ("Colors", "vtkMRMLColorLogic"),
    ("Volumes", "vtkSlicerVolumesLogic"),
    ("Transforms", "vtkSlicerTransformLogic"),
    ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    ("Data", "vtkSlicerDataModuleLogic"),
    ("Models", "vtkSlicerModelsLogic"),
    ("Markups", "vtkSlicerMarkupsLogic"),
    ("Tables", "vtkSlicerTablesLogic"),
    ("Plots", "vtkSlicerPlotsLogic"),
    ("Units", "vtkSlicerUnitsLogic"),
    ("Sequences", "vtkSlicerSequencesLogic"),
)


class Module:
    """What ``slicer.modules.<name>`` is for a scripted or loadable module."""

    def __init__(self, name, path="", logic=None):
        self.name, self.path, self.title, self.icon = name, path, "", None
        self.categories, self.dependencies, self.contributors = [], [], []
        self.helpText = self.acknowledgementText = ""
        self.hidden = False
        self._logic, self._widget = logic, None

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return self._widget


class ScriptedModule(Module):
    """``slicer.qSlicerScriptedLoadableModule``; the widget is made when it is first asked for, as in Slicer."""

    def __init__(self, path):
        super().__init__(Path(path).stem, str(path))
        specification = importlib.util.spec_from_file_location(self.name, path)
        self.python = importlib.util.module_from_spec(specification)
        sys.modules[self.name] = self.python
        specification.loader.exec_module(self.python)
        self.instance = getattr(self.python, self.name)(self)

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = ScriptedModuleWidget(self.python, self.name)
        return self._widget


class ScriptedModuleWidget(widgets.qMRMLWidget):
    """``slicer.qSlicerScriptedLoadableModuleWidget``."""

    def __init__(self, python, name):
        super().__init__()
        self.setLayout(qt.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self._bed_entered, self._bed_name = False, name
        self._bed_make(python)

    def _bed_make(self, python):
        self._bed_self = getattr(python, self._bed_name + "Widget")(self)
        setattr(slicer.modules, self._bed_name + "Widget", self._bed_self)
        self._bed_self.setup()

    def reload(self):
        """Make the widget again from the module that was loaded last."""
        self._bed_make(sys.modules[self._bed_name])

    @property
    def isEntered(self):
        return self._bed_entered

    def self(self):
        return self._bed_self

    def enter(self):
        self._bed_entered = True
        self._bed_self.enter()

    def exit(self):
        self._bed_entered = False
        self._bed_self.exit()


class SegmentEditor(Module):
    """A stand-in of the Segment Editor module: it only remembers what it is opened with."""

    def widgetRepresentation(self):
        self._widget = self._widget or types.SimpleNamespace(editor=SegmentEditorWidget())
        return self._widget


class SegmentEditorWidget:
    """The few methods of ``qMRMLSegmentEditorWidget`` that the panel calls."""

    segmentation = volume = None

    def setSegmentationNode(self, node):
        self.segmentation = node

    def setSourceVolumeNode(self, node):
        if self.segmentation is None:
            raise RuntimeError("the Segment Editor needs the segmentation before the source volume")
        self.volume = node


class ErrorLog:
    """``slicer.app.errorLogModel()``: what was logged, as (level, description)."""

    def __init__(self):
        self.entries = []

    def logEntryCount(self):
        return len(self.entries)

    def logEntryData(self, row, column):
        return {2: self.entries[row][0], 4: self.entries[row][1]}[column]

    def logEntryDescription(self, row):
        return self.entries[row][1]


class Application:
    """``slicer.app`` and everything behind it."""

    applicationName, majorVersion, minorVersion, revision = "Slicer", 5, 13, "0"

    def __init__(self):
        self.qt = pythonqt.start()
        self._startup, self._modules, self.cursor_depth, self._log = [], {}, 0, ErrorLog()
        self.temporaryPath = self._folder = tempfile.mkdtemp(prefix="slicer-testbed-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self.slicerHome = sys.prefix
        self.selected_module = None
        self._make_scene()
        self._install_python()
        self._pump = QtCore.QTimer()
        self._pump.timeout.connect(self._process_requests)
        self._pump.start(20)

    def _make_scene(self):
        self.vtk_log = Path(self.temporaryPath) / "vtk.log"
        window = vtk.vtkFileOutputWindow()
        window.SetFileName(str(self.vtk_log))
        window.SetFlush(True)
        vtk.vtkOutputWindow.SetInstance(window)
        vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
        vtk.vtkObject.GlobalWarningDisplayOff()  # no terminology files are in the wheel: two harmless errors at start
        self.scene = scene = slicer.vtkMRMLScene()
        self._logic = logic = slicer.vtkSlicerApplicationLogic()
        logic.SetMRMLScene(scene)
        logic.SetTemporaryPath(self.temporaryPath)
        logic.GetColorLogic().SetMRMLScene(scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        slicer.mrmlScene = scene
        slicer.modules = types.SimpleNamespace()
        for name, class_name in LOGICS:
            module_logic = getattr(slicer, class_name)()
            module_logic.SetMRMLScene(scene)
            module_logic.SetMRMLApplicationLogic(logic)
            logic.SetModuleLogic(name, module_logic)
            self._add_module(Module(name, logic=module_logic))
        self._add_module(SegmentEditor("SegmentEditor"))
        terminologies = slicer.vtkSlicerTerminologiesModuleLogic()
        terminologies.SetMRMLScene(scene)
        self._add_module(Module("Terminologies", logic=terminologies))
        scene.RegisterNodeClass(slicer.vtkMRMLCommandLineModuleNode())
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLScene(scene)
        self._remote.SetMRMLApplicationLogic(logic)
        self._remote.GetCacheManager().SetRemoteCacheDirectory(self.temporaryPath)
        self._io = slicer.vtkDataIOManagerLogic()
        self._io.SetMRMLScene(scene)
        self._io.SetMRMLApplicationLogic(logic)
        self._io.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self._remote.AddDataIOToScene()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        scene.AddObserver(scene.NodeAddedEvent, self._add_to_subject_hierarchy)
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._remove_from_subject_hierarchy)
        logic.CreateProcessingThread()
        vtk.vtkObject.GlobalWarningDisplayOn()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _add_to_subject_hierarchy(self, _caller, _event, node):
        """Do what Slicer's subject hierarchy plugins do: every shown data node gets an item."""
        if self.scene.IsClosing() or self.scene.IsImporting() or node.GetHideFromEditors():
            return
        if isinstance(node, (slicer.vtkMRMLDisplayableNode, slicer.vtkMRMLTableNode)):
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _remove_from_subject_hierarchy(self, _caller, _event, node):
        """Do what Slicer's subject hierarchy logic does when a node goes."""
        if self.scene.IsClosing() or not isinstance(node, slicer.vtkMRMLNode):
            return
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None and hierarchy is not node else 0
        if item:
            hierarchy.RemoveItem(item, False, False)

    def _install_python(self):
        ctk = types.ModuleType("ctk")
        sys.modules.update(qt=qt, ctk=ctk)
        widgets.install(ctk)
        segment_editor.install()
        slicer.qSlicerScriptedLoadableModule = ScriptedModule
        slicer.qSlicerScriptedLoadableModuleWidget = ScriptedModuleWidget
        slicer.selfTests = {}
        slicer.app = self
        slicer_python.install()
        if slicer_source.folder():
            slicer_source.install()
        slicer.util.selectModule = self._select_module
        slicer.util.setSliceViewerLayers = self._fitting(slicer.util.setSliceViewerLayers)
        self._files = Files(self)

    # -- modules

    def _add_module(self, module):
        self._modules[module.name] = module
        setattr(slicer.modules, module.name.lower(), module)
        return module

    def load_scripted_module(self, path):
        """Load a scripted module as Slicer does at start."""
        sys.path.insert(0, str(Path(path).parent))
        return self._add_module(ScriptedModule(path))

    def load_cli_module(self, script):
        """Load a CLI module as Slicer does at start."""
        module = cli_engine.CliModule(Path(script), self._logic)
        module.logic().SetMRMLScene(self.scene)
        return self._add_module(module)

    def startup_completed(self):
        """Tell the modules that the application is up."""
        for slot in self._startup:
            try:
                slot()
            except Exception as error:  # Slicer logs it and goes on
                self._log.entries.append(("Error", f"{type(error).__name__}: {error}"))

    def _fitting(self, set_layers):
        """Return Slicer's function; without a layout manager it would not fit the views."""

        def set_layers_and_fit(*arguments, fit=False, **options):
            set_layers(*arguments, **options)
            logics = self._logic.GetSliceLogics()
            for index in range(logics.GetNumberOfItems() if fit else 0):
                logics.GetItemAsObject(index).FitSliceToAll()

        return set_layers_and_fit

    def _select_module(self, module):
        name = module if isinstance(module, str) else module.name
        if name not in self._modules:
            raise RuntimeError(f"Could not find module with name '{name}'")
        for other in self._modules.values():
            widget = other._widget if isinstance(other, ScriptedModule) else None
            if widget is not None and widget.isEntered and other.name != name:
                widget.exit()
        self.selected_module = name
        if isinstance(self._modules[name], ScriptedModule):
            self._modules[name].widgetRepresentation().enter()

    # -- what slicer.app offers

    def connect(self, signature, slot):
        if signature != "startupCompleted()":
            raise ValueError(f"slicer.app has no signal {signature}")
        self._startup.append(slot)

    def errorLogModel(self):
        return self._log

    def testingEnabled(self):
        return False

    def applicationLogic(self):
        return self._logic

    def coreIOManager(self):
        return self._files

    def moduleManager(self):
        return _ModuleManager(self._modules)

    def layoutManager(self):
        return None

    def mainWindow(self):
        return None

    def settings(self):
        return QtCore.QSettings(str(Path(self.temporaryPath) / "settings.ini"), QtCore.QSettings.IniFormat)

    userSettings = settings

    def translate(self, _context, text):
        return text

    def processEvents(self):
        self.qt.processEvents()

    def setOverrideCursor(self, _cursor):
        self.cursor_depth += 1

    def restoreOverrideCursor(self):
        self.cursor_depth -= 1

    def _process_requests(self):
        self._logic.ProcessModified()
        self._logic.ProcessReadData()
        self._logic.ProcessWriteData()

    # -- what tests ask for

    def wait_until(self, condition, seconds=240.0):
        """Process events until the condition holds; fail after ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the condition did not come true")
            self.qt.processEvents()
            time.sleep(0.002)

    def vtk_errors(self):
        """Return the errors that VTK and MRML reported so far."""
        text = self.vtk_log.read_text(errors="replace") if self.vtk_log.exists() else ""
        return [block for block in text.split("\n\n") if "ERROR: In" in block]

    def close(self):
        """Stop the processing thread; remove the temporary files."""
        self._pump.stop()
        self._logic.TerminateProcessingThread()
        shutil.rmtree(self._folder, ignore_errors=True)


class _ModuleManager:
    def __init__(self, modules):
        self._modules = modules

    def module(self, name):
        return self._modules.get(name)

    def connect(self, signature, slot):
        if signature != "moduleAboutToBeUnloaded(QString)":
            raise ValueError(f"the module manager has no signal {signature}")


def start() -> Application:
    """Start the one application of this process."""
    return Application() if not isinstance(getattr(slicer, "app", None), Application) else slicer.app


__all__ = ["Application", "QtWidgets", "start"]
