"""``qMRMLSegmentEditorWidget``: Slicer's own editing logic and undo history behind a plain widget.

In Slicer the widget's ``saveStateForUndo``, ``undo`` and ``redo`` are one call each of ``vtkSlicerSegmentEditorLogic``
(Modules/Loadable/Segmentations/Widgets/qMRMLSegmentEditorWidget.cxx), which is in slicer-core with the
``vtkSegmentationHistory`` that it holds. So what is undone here is what is undone there; only the looks are imitated.
The methods and properties are those of the C++ header; others do not exist.
"""

import types

import numpy as np
import slicer
import vtk
from PySide6 import QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

from testbed.pythonqt import warnings
from testbed.widgets import qMRMLWidget, stored

EFFECTS = ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Margin", "Smoothing", "Scissors")


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The Segment Editor's widget: segments, effects, undo and redo, keys."""

    segmentationNodeSelectorVisible = stored(bool, True)
    sourceVolumeNodeSelectorVisible = stored(bool, True)
    maskingSectionVisible = stored(bool, True)
    specifyGeometryButtonVisible = stored(bool, True)
    show3DButtonVisible = stored(bool, True)
    addRemoveSegmentButtonsVisible = stored(bool, True)
    switchToSegmentationsButtonVisible = stored(bool, True)
    autoShowSourceVolumeNode = stored(bool, True)
    unorderedEffectsVisible = stored(bool, True)
    jumpToSelectedSegmentEnabled = stored(bool, False)
    effectColumnCount = stored(int, 2)
    readOnly = stored(bool, False)
    defaultTerminologyEntrySettingsKey = stored(str, "")
    defaultTerminologyEntry = stored(str, "")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        logic = slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLScene(slicer.mrmlScene)
        self.__dict__.update(_bed_logic=logic, _bed_effect=None, _bed_keys=[], _bed_filling=False, _bed_observed=None)
        self.__dict__.update(_bed_selected=None, _bed_batch=False, _bed_shown_source=None)
        logic.AddObserver(logic.SegmentationHistoryChangedEvent, lambda *_: self.updateWidgetFromMRML())
        self._build()

    def _build(self):
        table, grid = QtWidgets.QTableWidget(0, 2), QtWidgets.QGridLayout()
        table.horizontalHeader().setStretchLastSection(True)
        table.setHorizontalHeaderLabels(["", "Name"])
        table.verticalHeader().hide()
        table.setMaximumHeight(90)
        table.setColumnWidth(0, 30)
        table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        table.itemSelectionChanged.connect(self._select)
        for number, name in enumerate(EFFECTS):
            button = QtWidgets.QToolButton()
            button.setText(name)
            button.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Preferred)
            grid.addWidget(button, number // 2, number % 2)
        undo, redo = QtWidgets.QToolButton(), QtWidgets.QToolButton()
        for button, text, slot in ((undo, "Undo", self.undo), (redo, "Redo", self.redo)):
            button.setText(text)
            button.clicked.connect(lambda _=False, slot=slot: slot())
        row = QtWidgets.QHBoxLayout()
        row.addWidget(undo)
        row.addWidget(redo)
        row.addStretch(1)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(table)
        column.addLayout(grid)
        column.addLayout(row)
        self.__dict__.update(_bed_table=table, _bed_undo=undo, _bed_redo=redo)

    # ---------------------------------------------------------------- nodes

    def setMRMLScene(self, scene):
        """Set the scene; the parameter set node must be there before, so that the selections are kept in it."""
        if self.mrmlSegmentEditorNode() is None:
            raise RuntimeError("the Segment Editor needs setMRMLSegmentEditorNode before setMRMLScene")
        super().setMRMLScene(scene)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removing(_caller, _event, node):
            self._move_on(node)

        tags = [
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removing),
            scene.AddObserver(scene.StartBatchProcessEvent, lambda *_: self.__dict__.update(_bed_batch=True)),
            scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: self._after_batch()),
        ]
        self.destroyed.connect(lambda *_: [scene.RemoveObserver(tag) for tag in tags])

    def _after_batch(self):
        """Take the node of the selector, which knows no node that arrived during the batch (such as an import).

        The event comes after EndImportEvent.
        """
        self._bed_batch = False
        if self.segmentationNode() is not self._bed_selected:
            self.setSegmentationNode(self._bed_selected)
        self.updateWidgetFromMRML()

    def setMRMLSegmentEditorNode(self, node):
        """Set the node that holds the editor's state."""
        logic = self._bed_logic
        if node is logic.GetSegmentEditorNode():
            return
        logic.SetSegmentEditorNode(node)
        observed, tag = self._bed_observed or (None, None)
        if observed is not None:
            observed.RemoveObserver(tag)
        self._bed_observed = None
        if node is not None:
            event = slicer.vtkMRMLSegmentEditorNode.ModifiedEvent if hasattr(node, "ModifiedEvent") else "ModifiedEvent"
            self._bed_observed = (node, node.AddObserver(event, lambda *_: self.updateWidgetFromMRML()))
            self.updateWidgetFromMRML()

    def mrmlSegmentEditorNode(self):
        """Return the node that holds the editor's state."""
        return self._bed_logic.GetSegmentEditorNode()

    def setSegmentationNode(self, node):
        """Edit a segmentation."""
        if node is not None and self.mrmlSegmentEditorNode() is None:
            raise RuntimeError("the Segment Editor needs its own node before a segmentation")
        if not self._bed_batch:
            self._bed_selected = node
        elif self._bed_selected is not None and not slicer.mrmlScene.IsNodePresent(self._bed_selected):
            self._bed_selected = None
        if self._bed_logic.GetSegmentationNode() is not node:
            self._bed_logic.SetSegmentationNode(node)
            self.setActiveEffect(None)
            if node is not None and node.GetSegmentation().GetNumberOfSegments():
                self.setCurrentSegmentID(node.GetSegmentation().GetNthSegmentID(0))

    def segmentationNode(self):
        """Return the segmentation that is edited."""
        return self._bed_logic.GetSegmentationNode()

    def segmentationNodeID(self):
        """Return its ID, or an empty string."""
        node = self.segmentationNode()
        return node.GetID() if node is not None else ""

    def setSourceVolumeNode(self, node):
        """Set the scan under the segmentation."""
        if self.segmentationNode() is None:
            if node is not None:  # an error in Slicer's log
                warnings.append("qMRMLSegmentEditorWidget::setSourceVolumeNode failed: no segmentation node")
            return
        self._bed_logic.SetSourceVolumeNode(node)
        self._bed_shown_source = node

    def _move_on(self, removed):
        """Do what the selector of the scan does when its node is removed, also if no segmentation is edited."""
        if removed is self._bed_shown_source and not self._bed_batch and not slicer.mrmlScene.IsClosing():
            scans = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if node is not removed]
            self._bed_shown_source = next(iter(scans), None)
            self.setSourceVolumeNode(self._bed_shown_source)

    def sourceVolumeNode(self):
        """Return the scan under the segmentation."""
        return self._bed_logic.GetSourceVolumeNode()

    def setCurrentSegmentID(self, segment_id):
        """Choose the segment that is edited."""
        self._bed_logic.SetCurrentSegmentID(segment_id)

    def currentSegmentID(self):
        """Return the segment that is edited."""
        return self._bed_logic.GetCurrentSegmentID()

    def updateWidgetFromMRML(self):
        """Show the state of the nodes."""
        node, table = self.segmentationNode(), self._bed_table
        if self._bed_filling:
            return
        self._bed_filling = True
        count = node.GetSegmentation().GetNumberOfSegments() if node is not None else 0
        table.setRowCount(count)
        for row in range(count):
            segment_id = node.GetSegmentation().GetNthSegmentID(row)
            segment = node.GetSegmentation().GetSegment(segment_id)
            swatch = QtWidgets.QTableWidgetItem()
            swatch.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            table.setItem(row, 0, swatch)
            table.setItem(row, 1, QtWidgets.QTableWidgetItem(segment.GetName()))
            if segment_id == self.currentSegmentID():
                table.selectRow(row)
        self._bed_undo.setEnabled(bool(self._bed_logic.CanUndo()))
        self._bed_redo.setEnabled(bool(self._bed_logic.CanRedo()))
        self._bed_filling = False

    def _select(self):
        rows = self._bed_table.selectionModel().selectedRows()
        if rows and not self._bed_filling:
            self.setCurrentSegmentID(self.segmentationNode().GetSegmentation().GetNthSegmentID(rows[0].row()))

    # ---------------------------------------------------------------- effects

    def setEffectNameOrder(self, names):
        """Choose the effects that are shown."""
        self._bed_order = list(names)

    def effectNameOrder(self):
        """Return the effects that are shown."""
        return list(self.__dict__.get("_bed_order", []))

    def setActiveEffectByName(self, name):
        """Choose an effect."""
        self._bed_effect = types.SimpleNamespace(name=name)

    def setActiveEffect(self, effect):
        """Choose an effect, or none."""
        self._bed_effect = effect

    def activeEffect(self):
        """Return the effect chosen."""
        return self._bed_effect

    def updateEffectList(self):
        """Look for new effects."""

    def setupViewObservations(self):
        """Listen to the slice views."""
        self._bed_observing = True

    def removeViewObservations(self):
        """Stop listening to the slice views."""
        self._bed_observing = False

    # ---------------------------------------------------------------- undo

    def setMaximumNumberOfUndoStates(self, count):
        """Set how many steps can be undone."""
        self._bed_logic.SetMaximumNumberOfUndoStates(count)

    @property
    def maximumNumberOfUndoStates(self):
        """How many steps can be undone."""
        return self._bed_logic.GetMaximumNumberOfUndoStates()

    def saveStateForUndo(self):
        """Remember the segmentation before it is changed."""
        self._bed_logic.SaveStateForUndo()

    def undo(self):
        """Go back one step."""
        if self._bed_logic.CanUndo():
            self._bed_logic.Undo()

    def redo(self):
        """Go forth one step."""
        if self._bed_logic.CanRedo():
            self._bed_logic.Redo()

    # ---------------------------------------------------------------- keys

    def installKeyboardShortcuts(self, parent=None):
        """Make the editor's keys work (in Slicer in the whole main window)."""
        self.uninstallKeyboardShortcuts()
        parent = parent or QtWidgets.QWidget.window(self)
        leave = lambda: self.setActiveEffect(None)  # noqa: E731
        keys = {
            **{
                str(number % 10): (lambda name=name: self.setActiveEffectByName(name))
                for number, name in enumerate(EFFECTS, 1)
            },
            **{"Esc": leave, "Z": self.undo, "Ctrl+Z": self.undo, "Y": self.redo, "Ctrl+Y": self.redo},
            **dict.fromkeys(("Q", "/", ",", ">"), self._previous),
            **dict.fromkeys(("W", "*", ".", "<"), self._next),
            **{key: (lambda: None) for key in ("Space", "I")},
        }
        for key, slot in keys.items():
            shortcut = QtGui.QShortcut(QtGui.QKeySequence(key), parent)
            shortcut.activated.connect(slot)
            self._bed_keys.append(shortcut)

    def uninstallKeyboardShortcuts(self):
        """Give the keys back."""
        for shortcut in self._bed_keys:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
        self._bed_keys = []

    def _previous(self):
        self._bed_logic.SelectSegmentAtOffset(-1, False)

    def _next(self):
        self._bed_logic.SelectSegmentAtOffset(1, False)


def paint(editor, center_ras, radius_mm: float, erase: bool = False) -> None:
    """Do what a click of the Paint (or Erase) effect with a sphere brush does to the current segment."""
    logic, segmentation = editor._bed_logic, editor.segmentationNode()
    editor.saveStateForUndo()
    if not logic.ResetModifierLabelmapToDefault():
        raise RuntimeError("the segmentation has no reference geometry")
    image = logic.GetModifierLabelmap()
    first, last = np.array(image.GetExtent())[::2], np.array(image.GetExtent())[1::2]
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape((last - first + 1)[::-1])
    indices = np.stack(np.meshgrid(*[np.arange(a, b + 1) for a, b in zip(first, last, strict=True)], indexing="ij"), -1)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_world = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(3)])
    distance = np.linalg.norm(indices @ to_world[:, :3].T + to_world[:, 3] - np.array(center_ras), axis=-1)
    array[...] = (distance <= radius_mm).transpose(2, 1, 0)
    image.Modified()
    mode = logic.ModificationModeRemove if erase else logic.ModificationModeAdd
    logic.ModifySegmentByLabelmap(segmentation, editor.currentSegmentID(), image, mode, False, False)


def install() -> None:
    """Put the widget where Slicer has it."""
    slicer.qMRMLSegmentEditorWidget = qMRMLSegmentEditorWidget


__all__ = ["install", "paint", "qMRMLSegmentEditorWidget"]
