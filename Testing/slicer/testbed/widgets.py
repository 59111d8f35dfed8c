"""Stand-ins of the ctk and qMRML widgets that the panel uses, with the properties and signals of the real ones."""

import itertools
import types
import typing

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from testbed.pythonqt import PythonQtObject, pythonqt_class

Signal, Property = QtCore.Signal, QtCore.Property
HEADER = 26
_numbers = itertools.count()


def stored(kind, default):
    """Return a Qt property that only keeps its value."""
    key = f"_bed_stored_{next(_numbers)}"
    return Property(
        kind, lambda self: self.__dict__.get(key, default), lambda self, value: self.__dict__.__setitem__(key, value)
    )


class ctkCollapsibleButton(PythonQtObject, QtWidgets.QWidget):
    """A section with a header; when it is collapsed its contents are cut off, so that each keeps its own visibility."""

    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.__dict__.update(_bed_text="", _bed_collapsed=False)
        QtWidgets.QWidget.setContentsMargins(self, 0, HEADER, 0, 0)

    def _set_text(self, text):
        self.__dict__["_bed_text"] = text
        QtWidgets.QWidget.update(self)

    def _set_collapsed(self, collapsed):
        changed = self.__dict__["_bed_collapsed"] != bool(collapsed)
        QtWidgets.QWidget.setMaximumHeight(self, HEADER if collapsed else 16777215)
        self.__dict__["_bed_collapsed"] = bool(collapsed)
        if changed:
            self.contentsCollapsed.emit(bool(collapsed))

    text = Property(str, lambda self: self.__dict__["_bed_text"], _set_text)
    collapsed = Property(bool, lambda self: self.__dict__["_bed_collapsed"], _set_collapsed)
    checked = Property(
        bool, lambda self: not self.__dict__["_bed_collapsed"], lambda self, on: self._set_collapsed(not on)
    )

    def paintEvent(self, event):
        """Draw the header as Slicer's style does: a bar with an arrow."""
        painter = QtGui.QPainter(self)
        bar = QtCore.QRect(0, 1, QtWidgets.QWidget.width(self), HEADER - 4)
        painter.fillRect(bar, QtGui.QColor("#d4d9e0"))
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        arrow = "▸" if self.__dict__["_bed_collapsed"] else "▾"
        painter.drawText(bar.adjusted(8, 0, 0, 0), QtCore.Qt.AlignVCenter, f"{arrow}  {self.__dict__['_bed_text']}")

    def mousePressEvent(self, event):
        """Collapse or open when the header is clicked."""
        if event.position().y() < HEADER:
            self._set_collapsed(not self.__dict__["_bed_collapsed"])


class ctkCollapsibleGroupBox(ctkCollapsibleButton):
    """The flat variant, for advanced settings; its header text is ``title``."""

    title = Property(str, lambda self: self.__dict__["_bed_text"], ctkCollapsibleButton._set_text)


class ctkPathLineEdit(PythonQtObject, QtWidgets.QWidget):
    """A path that is typed or chosen."""

    currentPathChanged = Signal(str)
    Files, Dirs, Readable, Writable = 0x002, 0x001, 0x010, 0x020

    def __init__(self, *arguments):
        super().__init__(*arguments)
        edit = QtWidgets.QLineEdit()
        edit.textChanged.connect(self.currentPathChanged)
        browse = QtWidgets.QToolButton()
        browse.setText("…")
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(edit)
        row.addWidget(browse)
        self.__dict__.update(_bed_edit=edit)

    filters = stored(int, 0)
    settingKey = stored(str, "")
    nameFilters = stored("QStringList", [])
    currentPath = Property(
        str, lambda self: self.__dict__["_bed_edit"].text(), lambda self, path: self.__dict__["_bed_edit"].setText(path)
    )


class ctkSliderWidget(PythonQtObject, QtWidgets.QWidget):
    """A slider with a spin box."""

    valueChanged = Signal("double")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        spin, slider = QtWidgets.QDoubleSpinBox(), QtWidgets.QSlider(QtCore.Qt.Horizontal)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(slider)
        row.addWidget(spin)
        self.__dict__.update(_bed_spin=spin, _bed_slider=slider)
        slider.setRange(0, 1000)
        slider.valueChanged.connect(self._slid)
        spin.valueChanged.connect(self._spun)

    def _slid(self, position):
        spin = self.__dict__["_bed_spin"]
        spin.setValue(spin.minimum() + (spin.maximum() - spin.minimum()) * position / 1000)

    def _spun(self, value):
        spin, slider = self.__dict__["_bed_spin"], self.__dict__["_bed_slider"]
        slider.blockSignals(True)
        slider.setValue(round(1000 * (value - spin.minimum()) / max(spin.maximum() - spin.minimum(), 1e-9)))
        slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _spin_property(name, kind=float):
        setter = "set" + name[0].upper() + name[1:]
        return Property(
            kind,
            lambda self: getattr(self.__dict__["_bed_spin"], name)(),
            lambda self, value: getattr(self.__dict__["_bed_spin"], setter)(value),
        )

    value, minimum, maximum = _spin_property("value"), _spin_property("minimum"), _spin_property("maximum")
    singleStep, decimals, suffix = (
        _spin_property("singleStep"),
        _spin_property("decimals", int),
        _spin_property("suffix", str),
    )


class qMRMLWidget(PythonQtObject, QtWidgets.QWidget):
    """A widget that knows the scene and tells the widgets that the .ui file connects to it."""

    mrmlSceneChanged = Signal(object)
    _bed_signals: typing.ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": True}

    def setMRMLScene(self, scene):
        """Set the scene."""
        self._bed_scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        """Return the scene."""
        return self.__dict__.get("_bed_scene")


class _NodeFilter:
    """``qMRMLSortFilterProxyModel`` of a selector."""

    def __init__(self, selector):
        self._selector, self._hidden = selector, []

    @property
    def hiddenNodeIDs(self):
        """The nodes that are not offered."""
        return self._hidden

    @hiddenNodeIDs.setter
    def hiddenNodeIDs(self, ids):
        if list(ids) != self._hidden:
            self._hidden = list(ids)
            self._selector._fill()


class qMRMLNodeComboBox(PythonQtObject, QtWidgets.QComboBox):
    """A selector of nodes of the scene."""

    currentNodeChanged = Signal(object)
    nodeAddedByUser = Signal(object)
    _bed_signals: typing.ClassVar = {"currentNodeChanged(vtkMRMLNode*)": True}
    nodeTypes = stored("QStringList", [])
    noneEnabled, addEnabled, removeEnabled = stored(bool, False), stored(bool, True), stored(bool, True)
    renameEnabled, editEnabled, showHidden = stored(bool, False), stored(bool, False), stored(bool, False)
    showChildNodeTypes, selectNodeUponCreation = stored(bool, True), stored(bool, True)
    noneDisplay = stored(str, "None")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.__dict__.update(_bed_scene=None, _bed_ids=[], _bed_filling=False, _bed_tags=[], _bed_attributes=[])
        self.__dict__["_bed_filter"] = _NodeFilter(self)
        QtWidgets.QComboBox.setSizeAdjustPolicy(self, QtWidgets.QComboBox.AdjustToContents)  # as wide as its names
        QtCore.QObject.connect(self, QtCore.SIGNAL("currentIndexChanged(int)"), self._on_index)

    def _on_index(self, _index):
        if not self.__dict__["_bed_filling"]:
            self.currentNodeChanged.emit(self.currentNode())

    def setMRMLScene(self, scene):
        """Observe the scene."""
        self._bed_scene = scene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removing(_caller, _event, node):
            self._fill(node)

        self._bed_tags.append(scene.AddObserver(scene.NodeAddedEvent, lambda *_: self._fill()))
        self._bed_tags.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removing))
        self._bed_tags.append(scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: self._fill()))
        tags = self._bed_tags  # the widget itself is gone when it is destroyed
        self.destroyed.connect(lambda *_: [scene.RemoveObserver(tag) for tag in tags])
        self._fill()

    def sortFilterProxyModel(self):
        """Return the filter of the nodes; of its properties only ``hiddenNodeIDs`` is there."""
        return self._bed_filter

    def addAttribute(self, node_type, name, value=None):
        """Show only the nodes of a type that have an attribute."""
        self._bed_attributes.append((node_type, name, value))
        if self._bed_scene:
            self._fill()

    def _shown(self, node):
        if (node.GetHideFromEditors() and not self.showHidden) or node.GetID() in self._bed_filter.hiddenNodeIDs:
            return False
        if not self.showChildNodeTypes and node.GetClassName() not in self.nodeTypes:
            return False
        wanted = [item for item in self._bed_attributes if node.IsA(item[0])]
        return all(node.GetAttribute(name) == value if value else node.GetAttribute(name) for _, name, value in wanted)

    def _fill(self, removed=None):
        before = self.currentNodeID
        self._bed_filling = True
        QtWidgets.QComboBox.clear(self)
        self._bed_ids = []
        if self.noneEnabled:
            QtWidgets.QComboBox.addItem(self, self.noneDisplay)
            self._bed_ids.append("")
        for kind in self.nodeTypes:
            for node in slicer.util.getNodesByClass(kind):
                if node is not removed and self._shown(node):
                    QtWidgets.QComboBox.addItem(self, node.GetName())
                    self._bed_ids.append(node.GetID())
        if before in self._bed_ids:
            index = self._bed_ids.index(before)
        elif removed is not None and removed.GetID() == before and any(self._bed_ids):
            index = self._bed_ids.index(next(filter(None, self._bed_ids)))  # it moves on to another node
        else:
            index = 0 if self.noneEnabled else -1
        QtWidgets.QComboBox.setCurrentIndex(self, index)
        self._bed_filling = False
        if before != self.currentNodeID:
            self.currentNodeChanged.emit(self.currentNode())

    @property
    def currentNodeID(self):
        """The ID of the node chosen, or an empty string."""
        index = QtCore.QObject.property(self, "currentIndex")
        return self._bed_ids[index] if 0 <= index < len(self._bed_ids) else ""

    def currentNode(self):
        """Return the node chosen."""
        return self._bed_scene.GetNodeByID(self.currentNodeID) if self._bed_scene and self.currentNodeID else None

    def setCurrentNode(self, node):
        """Choose a node."""
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id):
        """Choose a node by its ID."""
        index = self._bed_ids.index(node_id) if node_id in self._bed_ids else (0 if self.noneEnabled else -1)
        QtWidgets.QComboBox.setCurrentIndex(self, index)


class qMRMLSegmentationShow3DButton(PythonQtObject, QtWidgets.QPushButton):
    """A button that makes the surfaces of a segmentation, or removes them; checked while they are there."""

    locked = stored(bool, False)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.__dict__.update(_bed_node=None, _bed_tag=None)
        self.setCheckable(True)
        QtCore.QObject.connect(self, QtCore.SIGNAL("toggled(bool)"), self._bed_toggled)

    def segmentationNode(self):
        """Return the segmentation."""
        return self._bed_node

    def setSegmentationNode(self, node):
        """Set the segmentation, and follow what is shown of it."""
        if self._bed_node is not None:
            self._bed_node.RemoveObserver(self._bed_tag)
        self._bed_node = node
        if node is not None:
            self._bed_tag = node.AddObserver(vtk.vtkCommand.AnyEvent, lambda *_: self._bed_update())
        self._bed_update()

    def _bed_update(self):
        node = self._bed_node
        blocked = self.blockSignals(True)
        self.setChecked(node is not None and node.GetSegmentation().ContainsRepresentation("Closed surface"))
        self.blockSignals(blocked)

    def _bed_toggled(self, on):
        if self._bed_node is not None and on:
            self._bed_node.CreateClosedSurfaceRepresentation()
        elif self._bed_node is not None:
            self._bed_node.RemoveClosedSurfaceRepresentation()


def install(ctk: types.ModuleType) -> None:
    """Put the widgets where Slicer has them: in ``ctk`` and in ``slicer``."""
    for widget in (ctkCollapsibleButton, ctkCollapsibleGroupBox, ctkPathLineEdit, ctkSliderWidget):
        setattr(ctk, widget.__name__, widget)
    for name, base in {
        "ctkComboBox": "QComboBox",
        "ctkCheckBox": "QCheckBox",
        "ctkDoubleSpinBox": "QDoubleSpinBox",
    }.items():
        setattr(ctk, name, pythonqt_class(getattr(QtWidgets, base), name))
    for widget in (qMRMLWidget, qMRMLNodeComboBox, qMRMLSegmentationShow3DButton):
        setattr(slicer, widget.__name__, widget)
