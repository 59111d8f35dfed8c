"""The growth of a tumor between two scans: previous scan aligned, both outlines, table, plot, change of the surface."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import dates, display, export, growth_plot, nodes, segments, tables

#: Role of what a comparison makes; reference role of its table on the scan, of the other nodes on the table.
ROLE, TABLE = "growth", "CrossModa.growth"
PREVIOUS, ALIGNMENT, OUTLINES, CHANGE, CHART = "previous", "alignment", "outlines", "change", "chart"
#: Attributes of the table: the result in words, and what a reader has to know.
SENTENCES = "CrossModa.Sentences"
#: Values of the table that the sentence states as well.
_IN_SENTENCE = ("to", "days", "volume before", "volume after", "change [mm3]")
#: The outline of the tumor in the previous scan.
_PREVIOUS_COLOR = (0.2, 0.8, 1.0)
#: The change at the ends of the colors of the surface, mm: a growth that counts in diameter is 2 mm.
_MOST_MM = 2.0


class Comparison:
    """The tasks that compare a scan with a previous one of the same patient."""

    def __init__(self, scan, previous, weights: str, device: str, criterion: str):
        """Name the scans, the weights (empty: the bundled ones), and the criterion of growth."""
        self.scan, self.previous = scan, previous
        self._settings = {"weights": weights, "device": device, "criterion": criterion}
        self._folder: Path | None = None

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last is the table node."""
        return [
            StepsTask(_("Write both scans"), self._steps, abandon=self._remove_folder),
            PythonTask("growth", self._arguments, _("Compare"), self._finish, self._remove_folder),
        ]

    @property
    def _scans(self) -> dict:
        return {"previous": self.previous, "scan": self.scan}

    def _steps(self) -> list[Callable[[], None]]:
        self._folder = export.temporary_folder()
        steps = []
        for name, volume in self._scans.items():
            cli_runs.require(volume, nodes.volume_problem)
            steps.append(partial(export.write_volume, nodes.rounded_copy(volume), self._folder / f"{name}.nrrd"))
            if (label := corrected_label(volume)) is not None:
                steps.append(partial(export.write_label_map, label, volume, self._folder / f"{name}_label.nrrd"))
        return steps

    def _arguments(self) -> dict:
        labels = {name: self._folder / f"{name}_label.nrrd" for name in self._scans}
        return {
            "folder": str(self._folder),
            "scans": {name: str(self._folder / f"{name}.nrrd") for name in self._scans},
            "names": {name: volume.GetName() for name, volume in self._scans.items()},
            "labels": {name: str(file) for name, file in labels.items() if file.is_file()},
            "dates": {name: dates.of(volume) for name, volume in self._scans.items()},
            **self._settings,
        }

    def _finish(self, answer: dict):
        cli_runs.require_present([self.scan, self.previous])
        remove(self.scan)
        table = tables.fill(_new("vtkMRMLTableNode", _("{scan} growth"), self.scan), answer["columns"], answer["rows"])
        table.SetAttribute(SENTENCES, "\n".join([*answer["sentences"], *answer["notes"]]))
        table.SetNodeReferenceID(PREVIOUS, self.previous.GetID())
        self.scan.SetNodeReferenceID(TABLE, table.GetID())
        table.SetNodeReferenceID(ALIGNMENT, self._align(answer["matrix"]).GetID())
        for name, volume in self._scans.items():
            outline = self._outline(volume, np.load(answer["label_maps"][name]), is_previous=name == "previous")
            table.AddNodeReferenceID(OUTLINES, outline.GetID())
        if (model := _change_model(*outlines(table), self.scan)) is not None:
            table.SetNodeReferenceID(CHANGE, model.GetID())
        table.SetNodeReferenceID(CHART, growth_plot.make(self.scan, answer["plot"]).GetID())
        self._remove_folder()
        return table

    def _align(self, matrix_lps: list[list[float]]):
        """Put the previous scan, and what is in its space, under the transform to the scan."""
        transform = _new("vtkMRMLLinearTransformNode", _("{scan} alignment of the previous scan"), self.scan)
        transform.SetAttribute(nodes.ROLE, nodes.ALIGNMENT)
        signs = np.diag([-1.0, -1.0, 1.0, 1.0])
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(signs @ np.array(matrix_lps) @ signs))
        for node in (self.previous, *nodes.in_space_of(self.previous)):
            node.SetAndObserveTransformNodeID(transform.GetID())
        return transform

    def _outline(self, volume, label_map: np.ndarray, is_previous: bool):
        """Return a segmentation of a time point."""
        name = _("{name} in the comparison").format(name=volume.GetName())
        outline = nodes.make_segmentation(label_map, volume, name, ROLE)
        nodes.watch_corrections(outline)
        display.outline_only(outline, True)
        if is_previous:
            for _structure, segment in segments.known_segments(outline):
                outline.GetSegmentation().GetSegment(segment).SetColor(*_PREVIOUS_COLOR)
        return outline

    def _remove_folder(self) -> None:
        export.remove_folder(self._folder)


def problem(scan, previous) -> str:
    """Return why two scans cannot be compared; an empty string if they can."""
    if scan is None:
        return _("Select a scan.")
    if previous is None:
        return _("Select the previous scan.")
    if scan is previous:
        return _("Scan and previous scan are the same. Select another one.")
    return nodes.volume_problem(scan) or nodes.volume_problem(previous)


def corrected_label(volume):
    """Return the newest segmentation of a scan that a person corrected, or None."""
    made = [node for role in (*nodes.RESULTS, ROLE) for node in nodes.products(role, volume)]
    corrected = [node for node in made if node.GetAttribute(nodes.CORRECTED)]
    return max(corrected, key=lambda node: node.GetAttribute(nodes.CORRECTED), default=None)


def table_of(scan):
    """Return the table of a scan's comparison, or None."""
    return scan.GetNodeReference(TABLE) if scan is not None else None


def is_table(node) -> bool:
    """Whether a node is the table of a comparison."""
    return node.GetAttribute(nodes.ROLE) == ROLE


def outlines(table) -> list:
    """Return the segmentations of a comparison: of the previous scan, and of the scan."""
    return [table.GetNthNodeReference(OUTLINES, number) for number in range(table.GetNumberOfNodeReferences(OUTLINES))]


def remove(scan) -> None:
    """Remove the comparison of a scan; a segmentation that a person corrected stays."""
    table = table_of(scan)
    if table is None:
        return
    made = [table.GetNodeReference(role) for role in (CHANGE, CHART)]
    made += [node for node in outlines(table) if node is not None and not node.GetAttribute(nodes.CORRECTED)]
    growth_plot.remove(table.GetNodeReference(CHART))
    cli_runs.remove([node for node in (*made, table.GetNodeReference(ALIGNMENT), table) if node is not None])


def show(table, scan) -> None:
    """Show both scans in linked views, the outlines of both, the plot, and the change in 3D; nothing else of them."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        view.SetLinkedControl(True)
        view.SetHotLinkedControl(True)
    display.show_aligned(scan, table.GetNodeReference(PREVIOUS))
    shown = outlines(table)
    display.hide_others([*shown, table.GetNodeReference(CHANGE)])
    for outline in shown:
        if outline is not None:
            outline.GetDisplayNode().SetVisibility(True)
            outline.GetDisplayNode().SetVisibility3D(False)
    center = next((center for outline in reversed(shown) if (center := display.center_of(outline)) is not None), None)
    if center is not None:
        display.jump(center)
    growth_plot.show(table.GetNodeReference(CHART))


def show_change(table, is_shown: bool) -> None:
    """Show the change of the surface in the 3D views, or hide it."""
    if has_change(table):
        table.GetNodeReference(CHANGE).GetDisplayNode().SetVisibility(is_shown)


def rows_of(table) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the texts of a table for a narrow panel: the ears, and a row for each value that no sentence has."""
    titles, rows = tables.turned(table)
    return titles, tables.with_intervals([row for row in rows if not row[0].startswith(_IN_SENTENCE)])


def has_change(table) -> bool:
    """Whether a comparison has a surface of the change."""
    return table is not None and table.GetNodeReference(CHANGE) is not None


def is_change_shown(table) -> bool:
    """Whether the surface of the change is shown."""
    return has_change(table) and bool(table.GetNodeReference(CHANGE).GetDisplayNode().GetVisibility())


def _new(kind: str, name: str, scan):
    node = slicer.mrmlScene.AddNewNodeByClass(
        kind, slicer.mrmlScene.GenerateUniqueName(name.format(scan=scan.GetName()))
    )
    node.SetAttribute(nodes.ROLE, ROLE)
    node.SetNodeReferenceID(nodes.TARGET, scan.GetID())
    return node


def _change_model(previous, current, scan):
    """Return the surface of the tumor in the scan, colored by its distance to that in the previous scan.

    None where there is no tumor in one of them.
    """
    surfaces = [surface for outline in (previous, current) if (surface := _tumor_surface(outline)) is not None]
    if len(surfaces) < 2:
        return None
    distance = vtk.vtkDistancePolyDataFilter()  # of each vertex; positive outside of the second surface
    distance.SetInputData(0, surfaces[1])
    distance.SetInputData(1, surfaces[0])
    distance.ComputeSecondDistanceOff()
    distance.Update()
    model = _new("vtkMRMLModelNode", _("{scan} change of the surface (mm)"), scan)
    model.SetAndObservePolyData(distance.GetOutput())
    model.CreateDefaultDisplayNodes()
    look = model.GetDisplayNode()
    look.SetActiveScalar("Distance", vtk.vtkAssignAttribute.POINT_DATA)
    look.SetAndObserveColorNodeID(_colors().GetID())
    look.SetScalarRangeFlag(look.UseManualScalarRange)
    look.SetScalarRange(-_MOST_MM, _MOST_MM)
    look.SetScalarVisibility(True)
    slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(look)
    return model


def _tumor_surface(outline):
    """Return the surface of the tumor of a segmentation in world space; None where there is none."""
    tumor = next((segment for structure, segment in segments.known_segments(outline) if structure.key == "VS"), "")
    if outline.GetSegmentCenterRAS(tumor) is None:
        return None
    outline.CreateClosedSurfaceRepresentation()
    surface, to_world = vtk.vtkPolyData(), vtk.vtkGeneralTransform()
    outline.GetClosedSurfaceRepresentation(tumor, surface)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(outline.GetParentTransformNode(), None, to_world)
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetInputData(surface)
    moved.SetTransform(to_world)
    moved.Update()
    return moved.GetOutput()


def _colors():
    """Return the colors of the change: blue where the tumor shrank, white where it stayed, red where it grew."""
    name = "CrossModa change"
    colors = slicer.mrmlScene.GetFirstNodeByName(name)
    if colors is None:
        colors = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLProceduralColorNode", name)
        scale = colors.GetColorTransferFunction()
        for value, color in ((-_MOST_MM, (0.13, 0.4, 0.67)), (0.0, (0.97, 0.97, 0.97)), (_MOST_MM, (0.7, 0.09, 0.17))):
            scale.AddRGBPoint(value, *color)
        colors.SetHideFromEditors(True)
    return colors


def sentences(scan) -> str:
    """Return the comparison of a scan in words; empty before it is compared."""
    table = table_of(scan)
    return (table.GetAttribute(SENTENCES) or "") if table else ""
