"""Slice views drawn by Slicer's own displayable managers, without a screen; and the whole window as a picture."""

import typing

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)
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
        return _grabbed(self._window)


class ThreeDView:
    """A 3D view: what the displayable managers show, seen from the front as Slicer does at first."""

    MANAGERS = (
        "vtkMRMLCameraDisplayableManager",
        "vtkMRMLViewDisplayableManager",
        "vtkMRMLModelDisplayableManager",
        "vtkMRMLSegmentationsDisplayableManager3D",
        "vtkMRMLMarkupsDisplayableManager",
        "vtkMRMLColorLegendDisplayableManager",
    )

    def __init__(self, application, width, height):
        self.node = slicer.vtkMRMLViewNode()
        self.node.SetLayoutName("1")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        application.scene.AddNode(self.node)
        self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetSize(width, height)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application.applicationLogic())
        for manager in self.MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._group = factory.InstantiateDisplayableManagers(self._renderer)
        self._group.SetMRMLDisplayableNode(self.node)

    def picture(self) -> np.ndarray:
        """Return the view as (rows, columns, RGB) bytes, the first row on top; what is shown fills it."""
        camera = self._renderer.GetActiveCamera()
        camera.SetPosition(0.0, 500.0, 0.0)
        camera.SetFocalPoint(0.0, 0.0, 0.0)
        camera.SetViewUp(0.0, 0.0, 1.0)
        bounds = self._bounds()
        self._renderer.ResetCamera(*([bounds.GetBound(number) for number in range(6)] if bounds.IsValid() else []))
        self._window.Render()
        return _grabbed(self._window)

    @staticmethod
    def _bounds():
        """Return the box around the surfaces that are shown."""
        box, bounds = vtk.vtkBoundingBox(), [0.0] * 6
        segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        shown = [node for node in segmentations if node.GetDisplayNode() and node.GetDisplayNode().GetVisibility3D()]
        models = [node for node in slicer.util.getNodesByClass("vtkMRMLModelNode") if node.GetPolyData()]
        for node in [*shown, *models]:
            if node.GetDisplayNode() is not None and node.GetDisplayNode().GetVisibility():
                node.GetRASBounds(bounds)
                box.AddBounds(bounds)
        return box


class PlotView:
    """The plot of the chart that a layout would show."""

    def __init__(self, application, width, height):
        self._selection = application.applicationLogic().GetSelectionNode()
        self._view = vtk.vtkContextView()
        self._window = self._view.GetRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetSize(width, height)
        self._chart = vtk.vtkChartXY()
        self._chart.SetShowLegend(True)
        self._chart.GetLegend().SetHorizontalAlignment(vtk.vtkChartLegend.LEFT)
        self._view.GetScene().AddItem(self._chart)

    @property
    def node(self):
        """The chart that is shown, or None."""
        return slicer.mrmlScene.GetNodeByID(self._selection.GetActivePlotChartID() or "")

    def picture(self) -> np.ndarray:
        """Return the view as (rows, columns, RGB) bytes, the first row on top."""
        self._chart.ClearPlots()
        for number in range(self.node.GetNumberOfPlotSeriesNodes()):
            series = self.node.GetNthPlotSeriesNode(number)
            plot = self._chart.AddPlot(vtk.vtkChart.LINE)
            plot.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
            plot.SetColorF(*series.GetColor())
            plot.SetLabel(series.GetYColumnName())
            plot.SetWidth(2)
            is_dashed = series.GetLineStyle() == series.LineStyleDash
            plot.GetPen().SetLineType(vtk.vtkPen.DASH_LINE if is_dashed else vtk.vtkPen.SOLID_LINE)
            plot.SetMarkerStyle(0 if is_dashed else vtk.vtkPlotPoints.CIRCLE)
        for axis, title in (
            (vtk.vtkAxis.BOTTOM, self.node.GetXAxisTitle()),
            (vtk.vtkAxis.LEFT, self.node.GetYAxisTitle()),
        ):
            self._chart.GetAxis(axis).SetTitle(title)
        self._chart.RecalculateBounds()
        self._window.Render()
        return _grabbed(self._window)


def _grabbed(window) -> np.ndarray:
    """Return what a window shows as (rows, columns, RGB) bytes, the first row on top."""
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
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
    """The panel on the left at Slicer's usual width, four views on the right: axial, 3D, coronal, sagittal or plot."""

    PANEL, VIEW, GAP = 325, 400, 4
    COLORS: typing.ClassVar = {"Red": "#f34a33", "3D": "#7985ff", "Green": "#6eb04b", "Yellow": "#edd54c"}

    def __init__(self, application):
        self._application = application
        self.views = {name: SliceView(application, name, self.VIEW, self.VIEW) for name in ORIENTATIONS}
        self._three_d = ThreeDView(application, self.VIEW, self.VIEW)
        self._plot = PlotView(application, self.VIEW, self.VIEW)

    def show(self, field_of_view_mm=None, center_ras=None):
        """Aim the slice views."""
        for view in self.views.values():
            view.show(field_of_view_mm, center_ras)

    def picture(self, panel: QtWidgets.QWidget) -> QtGui.QImage:
        """Draw panel and views side by side; the panel is as long as its contents, as if it was scrolled."""
        panel.resize(self.PANEL, 100)
        panel.show()
        for _ in range(3):
            self._application.processEvents()
            height = max(panel.sizeHint().height(), panel.minimumSizeHint().height())
            wrapped = QtWidgets.QWidget.heightForWidth(panel, self.PANEL)
            panel.resize(self.PANEL, max(height, wrapped) + 30)  # wrapped texts need more than Qt foresees
        shot = panel.grab().toImage()
        step = self.VIEW + self.GAP
        canvas = QtGui.QImage(self.PANEL + 2 * step, max(shot.height(), 2 * step), QtGui.QImage.Format_RGB32)
        canvas.fill(QtGui.QColor("#efefef"))
        painter = QtGui.QPainter(canvas)
        painter.drawImage(0, 0, shot)
        for number, (name, color) in enumerate(self.COLORS.items()):
            row, column = divmod(number, 2)
            x, y = self.PANEL + self.GAP + column * step, row * step
            is_plot = name == "Yellow" and self._plot.node is not None
            view = self._plot if is_plot else self.views.get(name) or self._three_d
            painter.drawImage(x, y, to_image(view.picture()))
            painter.fillRect(x, y, self.VIEW, 4, QtGui.QColor(color))
            painter.setPen(QtGui.QColor("white"))
            title = "" if is_plot else ORIENTATIONS.get(name, name)
            painter.drawText(QtCore.QRect(x + 8, y + 8, 200, 20), QtCore.Qt.AlignLeft, title)
        painter.end()
        return canvas
