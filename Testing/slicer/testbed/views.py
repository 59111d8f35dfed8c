"""Slice views drawn by Slicer's own displayable managers, without a screen; and the whole window as a picture."""

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

    def show(self, field_of_view_mm=None, centre_ras=None):
        """Fit the slice to the layers, or show a square of a given width around a point."""
        self._logic.FitSliceToAll()
        if field_of_view_mm:
            width, height = self._size
            self.node.SetFieldOfView(field_of_view_mm, field_of_view_mm * height / width, 1.0)
        if centre_ras is not None:
            self.node.JumpSliceByCentering(*centre_ras)

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
    """The panel on the left and three slice views on the right, as Slicer lays them out."""

    PANEL, SIDE = 470, 400

    def __init__(self, application):
        self._application = application
        self.views = [SliceView(application, name, self.SIDE, self.SIDE) for name in ORIENTATIONS]

    def picture(self, panel: QtWidgets.QWidget, captions=True) -> QtGui.QImage:
        """Draw panel and views side by side."""
        panel.resize(self.PANEL, max(panel.sizeHint().height(), panel.minimumSizeHint().height()))
        panel.show()
        for _ in range(3):
            self._application.processEvents()
        shot = panel.grab().toImage()
        side = self.SIDE
        height = max(shot.height(), 2 * side + 6)
        canvas = QtGui.QImage(self.PANEL + 2 * side + 18, height, QtGui.QImage.Format_RGB32)
        canvas.fill(QtGui.QColor("#efefef"))
        painter = QtGui.QPainter(canvas)
        painter.drawImage(0, 0, shot)
        corners = [(self.PANEL + 6, 0), (self.PANEL + 12 + side, 0), (self.PANEL + 6, side + 6)]
        colors = {"Red": "#f34a33", "Green": "#6eb04b", "Yellow": "#edd54c"}
        for view, (x, y) in zip(self.views, corners, strict=True):
            painter.drawImage(x, y, to_image(view.picture()))
            painter.fillRect(x, y, side, 4, QtGui.QColor(colors[view._name]))
            if captions:
                painter.setPen(QtGui.QColor("white"))
                painter.drawText(QtCore.QRect(x + 8, y + 8, side, 20), QtCore.Qt.AlignLeft, ORIENTATIONS[view._name])
        painter.end()
        return canvas
