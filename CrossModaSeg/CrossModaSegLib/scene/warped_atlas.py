"""An atlas on a target, for the visual check: a second volume of the atlas's voxels under its transform."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.scene import nodes

ROLE = "warped atlas"
#: On the volume: the file of its transform, with the time of its last change.
FILE = "CrossModa.TransformFile"


def warped_atlas(atlas, target, transform_file: Path):
    """Return the volume that shows an atlas on a target; it shares the atlas's voxels and leaves with :func:`remove`.

    Raises:
        InputError: the transform cannot be read.

    """
    key = f"{transform_file} {transform_file.stat().st_mtime_ns} {atlas.GetID()}"
    for volume in _nodes("vtkMRMLScalarVolumeNode"):
        if volume.GetAttribute(FILE) == key:
            return volume
    remove()
    transform = _add("vtkMRMLTransformNode", f"{atlas.GetName()} to {target.GetName()}")
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(transform_file))
    if not storage.ReadData(transform):
        remove()
        raise InputError(
            _("Transform not readable: {file}. Run “Register and fuse” again.").format(file=transform_file)
        )
    volume = _add("vtkMRMLScalarVolumeNode", f"{atlas.GetName()} on {target.GetName()}")
    volume.SetAttribute(FILE, key)
    volume.CopyOrientation(atlas)
    shown = atlas.GetDisplayNode()
    low, high = atlas.GetImageData().GetScalarRange()
    if shown is not None:
        low, high = shown.GetWindowLevelMin(), shown.GetWindowLevelMax()
    nodes.show_range(volume, low, high)
    volume.SetAndObserveImageData(atlas.GetImageData())
    volume.SetAndObserveTransformNodeID(transform.GetID())
    return volume


def _add(kind: str, name: str):
    """Add a node that no selector offers and no scene saves."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAttribute(nodes.ROLE, ROLE)
    return node


def _nodes(kind: str) -> list:
    return [node for node in slicer.util.getNodesByClass(kind) if node.GetAttribute(nodes.ROLE) == ROLE]


def remove() -> None:
    """Remove the volume and its transform from the scene."""
    for node in _nodes("vtkMRMLScalarVolumeNode") + _nodes("vtkMRMLTransformNode"):
        slicer.mrmlScene.RemoveNode(node)
