"""The planes of the porus of a segmentation: Markups planes that a person can drag."""

import json
import math
import operator

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from CrossModaSegLib.scene import nodes

#: Role of the planes; on a plane, JSON of where the engine found it and of where it was measured last.
ROLE, FOUND, MEASURED = "porus", "CrossModa.PorusFound", "CrossModa.PorusMeasured"
#: Side of a plane as it is shown, mm.
_SIZE_MM = 25.0
#: A plane that is moved or turned by less is where it was: mm; 1 - cosine.
_SHIFT_MM, _TURN = 1e-3, 1e-7
_EVENTS = (slicer.vtkMRMLMarkupsNode.PointModifiedEvent, vtk.vtkCommand.ModifiedEvent)


def planes_of(segmentation) -> dict:
    """Return the planes of a segmentation by side."""
    if segmentation is None:
        return {}
    planes = slicer.util.getNodesByClass("vtkMRMLMarkupsPlaneNode")
    return {
        plane.GetAttribute(nodes.SIDE): plane
        for plane in planes
        if plane.GetAttribute(nodes.ROLE) == ROLE and plane.GetNodeReference(nodes.TARGET) is segmentation
    }


def moved_planes(segmentation) -> dict[str, list[list[float]]]:
    """Return point and normal (LPS, mm) of each plane that is not where the engine found it, by side."""
    return {side: place(plane) for side, plane in planes_of(segmentation).items() if _differs(plane, FOUND)}


def place(plane) -> list[list[float]]:
    """Return point and normal of a plane (LPS, mm)."""
    point, normal = plane.GetOriginWorld(), plane.GetNormalWorld()
    return [[-point[0], -point[1], point[2]], [-normal[0], -normal[1], normal[2]]]


def show(segmentation, planes: dict[str, list[list[float]]]) -> None:
    """Show the planes by which a segmentation was measured: by side, point and normal (LPS, mm).

    A plane that a person moved stays; planes of sides that were not measured are removed.
    """
    shown = planes_of(segmentation)
    for side, plane in shown.items():
        if side not in planes:
            slicer.mrmlScene.RemoveNode(plane)
    for side, where in planes.items():
        plane = shown.get(side) or _new_plane(segmentation, side)
        if not plane.GetAttribute(FOUND) or not _differs(plane, FOUND):
            _move(plane, *where)
            plane.SetAttribute(FOUND, json.dumps(place(plane)))
        plane.SetAttribute(MEASURED, json.dumps(where))  # the plane may have been dragged on meanwhile


def watch(segmentation, moved) -> None:
    """Call ``moved()`` whenever a plane of a segmentation is no longer where it was measured."""

    def changed(plane, _event):
        if plane.GetAttribute(MEASURED) and _differs(plane, MEASURED):
            moved()

    _observers.removeObservers()
    for plane in planes_of(segmentation).values():
        for event in _EVENTS:
            _observers.addObserver(plane, event, changed)


_observers = VTKObservationMixin()


def _differs(plane, attribute: str) -> bool:
    """Return whether a plane is not where an attribute states; whichever way its normal points."""
    (point, normal), (point_before, normal_before) = place(plane), json.loads(plane.GetAttribute(attribute))
    is_turned = abs(sum(map(operator.mul, normal, normal_before))) < 1 - _TURN
    return is_turned or math.dist(point, point_before) > _SHIFT_MM


def _move(plane, point: list[float], normal: list[float]) -> None:
    plane.SetNormalWorld(-normal[0], -normal[1], normal[2])
    plane.SetOriginWorld(-point[0], -point[1], point[2])


def _new_plane(segmentation, side: str):
    name = _("{segmentation} {side} porus").format(segmentation=segmentation.GetName(), side=nodes.SIDE_NAMES[side])
    plane = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsPlaneNode", slicer.mrmlScene.GenerateUniqueName(name))
    plane.SetPlaneType(plane.PlaneTypePointNormal)
    plane.SetSizeMode(plane.SizeModeAbsolute)
    plane.SetSize(_SIZE_MM, _SIZE_MM)
    plane.SetAttribute(nodes.ROLE, ROLE)
    plane.SetAttribute(nodes.SIDE, side)
    plane.SetNodeReferenceID(nodes.TARGET, segmentation.GetID())
    plane.CreateDefaultDisplayNodes()
    look = plane.GetDisplayNode()
    look.SetHandlesInteractive(True)
    look.SetScaleHandleVisibility(False)
    look.SetPropertiesLabelVisibility(False)
    look.SetPointLabelsVisibility(False)
    look.SetFillOpacity(0.3)
    return plane
