"""What the runs of CLI modules share: checked inputs, hidden outputs, measurements, provenance."""

import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.scene import nodes

_SIMPLE = ("double", "float", "integer", "string", "boolean")


def require(node, problem) -> None:
    """Raise InputError if a node was removed or ``problem(node)`` returns a reason."""
    if node is None or not slicer.mrmlScene.IsNodePresent(node):
        raise InputError(_("A volume was removed from the scene. Choose another volume."))
    if reason := problem(node):
        raise InputError(reason)


def require_present(used) -> None:
    """Raise InputError if a node was removed from the scene in the meantime."""
    if not all(slicer.mrmlScene.IsNodePresent(node) for node in used):
        raise InputError(_("A scan or result was removed from the scene during the run. Run it again."))


def remove(nodes_to_remove) -> None:
    """Remove nodes that are still in the scene."""
    for node in list(nodes_to_remove):
        if slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)


def add_hidden(kind: str, name: str):
    """Add an output node; it is hidden from the selectors until its run has succeeded."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetHideFromEditors(True)
    return node


def measurements(node) -> dict:
    """Return the simple output parameters of a CLI node."""
    values = {}
    for group in range(node.GetNumberOfParameterGroups()):
        for index in range(node.GetNumberOfParametersInGroup(group)):
            if node.GetParameterChannel(group, index) == "output" and node.GetParameterTag(group, index) in _SIMPLE:
                values[node.GetParameterName(group, index)] = node.GetParameterValue(group, index)
    return values


def processor(measured: dict) -> str:
    """Return the processor of a run as a sentence."""
    return _("On {processor}.").format(processor=measured["processor"]) if measured.get("processor") else ""


def reveal(volume, role: str, target) -> None:
    """Show a result in the selectors, beside its target."""
    volume.SetHideFromEditors(False)
    volume.SetAttribute(nodes.ROLE, role)
    volume.SetNodeReferenceID(nodes.TARGET, target.GetID())
    if volume.GetDisplayNode() is None:
        nodes.show_range(volume, 0.0, 1.0, "vtkMRMLColorTableNodeWarm1")
    nodes.place_beside(volume, target)


def free_name(name: str, taken) -> str:
    """Return a name for a file without letters that file systems refuse, with a number if it is taken."""
    name = free = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    number = 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def record(step: str, settings: dict, seconds: float, inputs: dict) -> dict:
    """Return the provenance of a result in the scene; its inputs are nodes by role."""
    from crossmoda.provenance import Record

    return {
        **Record(step, settings).content,
        "inputs": {role: {"name": node.GetName()} for role, node in inputs.items()},
        "seconds": round(seconds, 3),
    }
