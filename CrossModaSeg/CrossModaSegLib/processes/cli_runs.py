"""What the runs of CLI modules share: checked inputs, hidden outputs, measurements, provenance."""

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.scene import nodes

#: The roles of what a registration makes.
REGISTERED = ("warped atlas", "warped label", "transform")
_SIMPLE = ("double", "float", "integer", "string", "boolean")


def require(node, problem) -> None:
    """Raise InputError if a node is gone or ``problem(node)`` says why it cannot be used."""
    from crossmoda.errors import InputError

    if node is None or not slicer.mrmlScene.IsNodePresent(node):
        raise InputError(_("A volume was removed from the scene; choose another one."))
    found = problem(node)
    if found:
        raise InputError(found)


def require_present(used) -> None:
    """Raise InputError if a node was removed from the scene in the meantime."""
    from crossmoda.errors import InputError

    if not all(slicer.mrmlScene.IsNodePresent(node) for node in used):
        raise InputError(_("A scan or result was removed from the scene while the work was running; run it again."))


def remove(some) -> None:
    """Remove nodes that are still in the scene."""
    for node in list(some):
        if slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)


def add_hidden(kind: str, name: str):
    """Add an output node; it is hidden from the selectors until its run has succeeded."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetHideFromEditors(True)
    return node


def measurements(node) -> dict:
    """Return the simple output parameters of a CLI node."""
    found = {}
    for group in range(node.GetNumberOfParameterGroups()):
        for index in range(node.GetNumberOfParametersInGroup(group)):
            if node.GetParameterChannel(group, index) == "output" and node.GetParameterTag(group, index) in _SIMPLE:
                found[node.GetParameterName(group, index)] = node.GetParameterValue(group, index)
    return found


def processor(found: dict) -> str:
    """Say on what a run's work was done; "auto" may have had to do without a graphics card."""
    return _("On {processor}.").format(processor=found["processor"]) if found.get("processor") else ""


def reveal(volume, role: str, target) -> None:
    """Show a result in the selectors, beside its target."""
    volume.SetHideFromEditors(False)
    volume.SetAttribute(nodes.ROLE, role)
    volume.SetNodeReferenceID(nodes.TARGET, target.GetID())
    if volume.GetDisplayNode() is None:
        nodes.show_range(volume, 0.0, 1.0, "vtkMRMLColorTableNodeWarm1")
    nodes.place_beside(volume, target)


def outputs(target, atlas, atlas_id: str, transforms: bool) -> dict:
    """Make the output nodes of a registration: hidden until it has succeeded."""
    name = f"{atlas_id} on {target.GetName()}"
    outputs = {
        "warped": add_hidden("vtkMRMLScalarVolumeNode", name),
        "warped_label": add_hidden("vtkMRMLLabelMapVolumeNode", name + " label"),
    }
    if transforms:
        outputs["transform"] = add_hidden("vtkMRMLTransformNode", name + " transform")
        outputs["inverse_transform"] = add_hidden("vtkMRMLTransformNode", name + " inverse transform")
    roles = {"warped": "warped atlas", "warped_label": "warped label"}
    for key, node in outputs.items():
        node.SetAttribute(nodes.ROLE, roles.get(key, "transform"))
        node.SetNodeReferenceID(nodes.TARGET, target.GetID())
        node.SetNodeReferenceID(nodes.ATLAS, atlas.GetID())
    return outputs


def image_of(label):
    """Return the warped image that was made with a warped label, or None."""
    target, atlas = (label.GetNodeReference(role) for role in (nodes.TARGET, nodes.ATLAS))
    images = nodes.products("warped atlas", target, atlas) if target and atlas else []
    made = nodes.provenance(label)
    return next((image for image in reversed(images) if nodes.provenance(image) == made), None)


def mark_copy(label, is_copy: bool) -> None:
    """Note on a warped label and its image whether they are an atlas's mirrored copy, made for the other cochlea."""
    for node in (label, image_of(label)):
        if node is not None:
            node.SetAttribute(nodes.COPY, "true" if is_copy else None)


def free_name(node, taken, ending: str = "") -> str:
    """Return a file name for a node that is not taken yet."""
    name = free = file_name(node.GetAttribute(nodes.CASE) or node.GetName()) + ending
    number = 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def file_name(name: str) -> str:
    """Return a name without letters that file systems refuse."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def record(step: str, settings: dict, seconds: float, **inputs) -> dict:
    """Return the provenance of a result in the scene: its inputs are nodes, named by role."""
    from crossmoda.provenance import Record

    record = Record(step, settings).content
    return {
        **record,
        "inputs": {role: {"name": node.GetName()} for role, node in inputs.items()},
        "seconds": round(seconds, 3),
    }
