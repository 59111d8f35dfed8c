"""Slice views drawn by Slicer's own displayable managers, without a screen; and the whole window as a picture."""

import typing

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLModelSliceDisplayableManager")
ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


class SliceView:
    """One slice view: the layers that the slice logic blends, and what the displayable managers lay over them."""

    def __init__(self, application, name, width, height):
        self._logic = logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application.applicationLogic())
        logic.SetMRMLScene(application.scene)
        self._application, self._name, self._size = application, name, (width, height)
        application.applicationLogic().GetSliceLogics().AddItem(logic)
        self.node = logic.AddSliceNode(name)
        self.node.SetOrientation(ORIENTATIONS[name])
        self.composite = logic.GetSliceCompositeNode()
        logic.ResizeSliceNode(width, height)
        self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetSize(width, height)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()  # the managers need one
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        self._group = self._factory(application).InstantiateDisplayableManagers(self._renderer)
        self._group.SetMRMLDisplayableNode(self.node)
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._image = actor
        self._renderer.AddViewProp(actor)

    @staticmethod
    def _factory(application):
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application.applicationLogic())
        for manager in MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        return factory

    def show(self, field_of_view_mm=None, center_ras=None):
        """Fit the slice to the layers, or show a square of a given width around a point."""
        self._logic.FitSliceToAll()
        if field_of_view_mm:
            width, height = self._size
            self.node.SetFieldOfView(field_of_view_mm, field_of_view_mm * height / width, 1.0)
        if center_ras is not None:
            self.node.JumpSliceByCentering(*center_ras)

    def picture(self) -> np.ndarray:
        """Return the view as (rows, columns, RGB) bytes, the first row on top."""
        layers = self._logic.GetImageDataConnection()  # another one whenever the layers change
        self._mapper.SetInputConnection(layers)
        self._image.SetVisibility(layers is not None)
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


def to_image(picture: np.ndarray) -> QtGui.QImage:
    """Return an RGB array as a Qt image."""
    rows, columns, _ = picture.shape
    data = np.ascontiguousarray(picture)
    return QtGui.QImage(data.tobytes(), columns, rows, 3 * columns, QtGui.QImage.Format_RGB888).copy()


class Window:
    """The panel on the left, a large axial and two small slice views on the right."""

    PANEL, LARGE, SMALL, GAP = 470, 660, 327, 6
    COLORS: typing.ClassVar = {"Red": "#f34a33", "Green": "#6eb04b", "Yellow": "#edd54c"}

    def __init__(self, application):
        self._application = application
        sizes = {"Red": self.LARGE, "Green": self.SMALL, "Yellow": self.SMALL}
        self.views = {name: SliceView(application, name, size, size) for name, size in sizes.items()}

    def show(self, field_of_view_mm=None, center_ras=None):
        """Aim all views."""
        for view in self.views.values():
            view.show(field_of_view_mm, center_ras)

    def picture(self, panel: QtWidgets.QWidget) -> QtGui.QImage:
        """Draw panel and views side by side."""
        panel.resize(self.PANEL, 100)
        panel.show()
        for _ in range(3):
            self._application.processEvents()
            height = max(panel.sizeHint().height(), panel.minimumSizeHint().height())
            wrapped = QtWidgets.QWidget.heightForWidth(panel, self.PANEL)
            panel.resize(self.PANEL, max(height, wrapped) + 80)  # wrapped texts need more than Qt foresees
        shot = panel.grab().toImage()
        left, below = self.PANEL + self.GAP, self.LARGE + self.GAP
        height = max(shot.height(), below + self.SMALL)
        canvas = QtGui.QImage(left + self.LARGE, height, QtGui.QImage.Format_RGB32)
        canvas.fill(QtGui.QColor("#efefef"))
        painter = QtGui.QPainter(canvas)
        painter.drawImage(0, 0, shot)
        corners = {"Red": (left, 0), "Green": (left, below), "Yellow": (left + self.SMALL + self.GAP, below)}
        for name, (x, y) in corners.items():
            image = to_image(self.views[name].picture())
            painter.drawImage(x, y, image)
            painter.fillRect(x, y, image.width(), 4, QtGui.QColor(self.COLORS[name]))
            painter.setPen(QtGui.QColor("white"))
            painter.drawText(QtCore.QRect(x + 8, y + 8, 200, 20), QtCore.Qt.AlignLeft, ORIENTATIONS[name])
        painter.end()
        return canvas
