"""The ears of a scan: landmarks as point lists, found by the engine in a process of its own."""

from collections.abc import Callable
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import display, export, nodes

ROLE = "ear landmarks"
#: The landmark that the views go to: the axis of the cochlea.
CENTER = "modiolus"


class EarLocation:
    """The landmarks of both ears of a scan."""

    def __init__(self, volume):
        """Name the scan."""
        self.volume = volume
        self._folder: Path | None = None

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last are the point lists, one for each ear."""
        return [
            StepsTask(_("Write the scan"), self._writing_steps, abandon=self._remove_folder),
            PythonTask("locate", self._arguments, _("Locate the ears"), self._finish, self._remove_folder),
        ]

    def _writing_steps(self) -> list[Callable[[], None]]:
        cli_runs.require(self.volume, nodes.volume_problem)
        self._folder = export.temporary_folder()
        return [lambda: export.write_volume(nodes.rounded_copy(self.volume), self._scan)]

    @property
    def _scan(self) -> Path:
        return self._folder / "scan.nrrd"

    def _arguments(self) -> dict:
        return {"scan": str(self._scan)}

    def _finish(self, answer: dict) -> list:
        self._remove_folder()
        cli_runs.require_present([self.volume])
        ears = [ear for ear in answer["ears"] if ear["accepted"]]
        if not ears:
            raise InputError(answer["ears"][0]["reason"])
        for earlier in lists_of(self.volume):
            slicer.mrmlScene.RemoveNode(earlier)
        return [_point_list(self.volume, ear["side"], ear["landmarks_lps_mm"]) for ear in ears]

    def _remove_folder(self) -> None:
        export.remove_folder(self._folder)


def lists_of(volume) -> list:
    """Return the point lists of a scan's ears."""
    lists = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    return [
        each
        for each in lists
        if each.GetAttribute(nodes.ROLE) == ROLE and each.GetNodeReference(nodes.TARGET) is volume
    ]


def show(points) -> None:
    """Show an ear: every slice view goes to its cochlea."""
    display.show_target(points.GetNodeReference(nodes.TARGET))
    number = points.GetControlPointIndexByLabel(CENTER)
    display.jump(points.GetNthControlPointPositionWorld(number))


def _point_list(volume, side: str, landmarks: dict[str, list[float]]):
    """Add the landmarks of an ear; they are locked, since a dragged landmark would no longer be what was found."""
    name = _("{scan} {side} ear").format(scan=volume.GetName(), side=nodes.SIDE_NAMES[side])
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(name))
    for landmark, (x, y, z) in landmarks.items():
        points.AddControlPointWorld(vtk.vtkVector3d(-x, -y, z), landmark.replace("_", " "))
    points.SetAttribute(nodes.ROLE, ROLE)
    points.SetAttribute(nodes.SIDE, side)
    points.SetNodeReferenceID(nodes.TARGET, volume.GetID())
    points.SetLocked(True)
    points.CreateDefaultDisplayNodes()
    look = points.GetDisplayNode()
    look.SetGlyphTypeFromString("Cross2D")
    look.SetTextScale(2.0)
    return points
