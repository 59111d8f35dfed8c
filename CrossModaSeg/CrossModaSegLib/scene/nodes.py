"""Bridges between MRML nodes and the engine."""

import json
import time
import zlib

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from crossmoda.errors import InputError
from CrossModaSegLib.scene import segments

#: Attributes and reference roles that CrossModa puts on nodes; a saved scene carries them.
CASE, MODALITY, SIDE, ROLE = "CrossModa.Case", "CrossModa.Modality", "CrossModa.Side", "CrossModa.Role"
PROVENANCE, CORRECTED = "CrossModa.Provenance", "CrossModa.Corrected"
#: On a segmentation: the checksum of its voxels before the first correction.
UNCORRECTED = "CrossModa.Uncorrected"
#: On a target: the folder of its registrations, and the tumor side chosen in the panel.
REGISTRATIONS, SIDE_CHOSEN = "CrossModa.Registrations", "CrossModa.SideChosen"
LABEL, TARGET, DISAGREEMENT = "CrossModa.label", "CrossModa.target", "CrossModa.disagreement"
SIDE_NAMES = {"left": _("left"), "right": _("right")}
#: The role of the transforms under which the panel puts a previous scan and what is in its space.
ALIGNMENT = "alignment"
#: The roles of segmentations that work made of a target.
RESULTS = ("noisy label", "prediction")


def volume_problem(volume) -> str:
    """Return why a volume cannot be used and the remedy; an empty string if it can."""
    name = volume.GetName()
    image = volume.GetImageData()
    if not volume.IsA("vtkMRMLScalarVolumeNode") or (image and image.GetNumberOfScalarComponents() > 1):
        return _("{name} has several components per voxel. Choose a volume with one gray value per voxel.").format(
            name=name
        )
    if image is None or image.GetPointData().GetScalars() is None or min(image.GetDimensions()) == 0:
        return _("{name} has no voxels; load it again.").format(name=name)
    if min(image.GetDimensions()) < 4:
        return _("{name} is a single slice; choose a 3D volume.").format(name=name)
    if sequence_of(volume) is not None:
        return _("{name} is one frame of a sequence; export the frame as a volume of its own first.").format(name=name)
    if is_moved(volume):
        return _("{name} is under the transform {transform}; harden the transform first.").format(
            name=name, transform=volume.GetParentTransformNode().GetName()
        )
    if not has_geometry(volume):
        return _(
            "{name} has no geometry (voxels of 1 mm at the origin); load the original DICOM or NIfTI file."
        ).format(name=name)
    from crossmoda.volume.reading import AIR_IN_CT, is_ct

    if is_ct(slicer.util.arrayFromVolume(volume)):
        return _("{name} looks like a CT (air has {air:.0f} or less); choose an MR scan.").format(
            name=name, air=AIR_IN_CT
        )
    return ""


def is_moved(node) -> bool:
    """Whether a node is under a transform of the user; an alignment of the panel leaves its own space as it is."""
    transform = node.GetParentTransformNode()
    return transform is not None and transform.GetAttribute(ROLE) != ALIGNMENT


def scan_of(node):
    """Return the scan of a segmentation, a model, or markups of either; None where there is none."""
    owner = node.GetNodeReference(TARGET)
    return owner.GetNodeReference(TARGET) if owner is not None and owner.IsA("vtkMRMLSegmentationNode") else owner


def in_space_of(volume) -> list:
    """Return the nodes that work made of a volume, and the markups of its segmentations."""
    made: list = [volume]
    for node in slicer.util.getNodesByClass("vtkMRMLTransformableNode"):
        if node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLVolumeNode"):
            made += [node] if node.GetNodeReference(TARGET) is volume and node is not volume else []
    marks = slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
    return [*made[1:], *(mark for mark in marks if mark.GetNodeReference(TARGET) in made)]


def harden(node) -> None:
    """Write the transform that a node is under into the node; the transform stays in the scene, unused."""
    if node is not None and node.GetParentTransformNode() is not None:
        node.HardenTransform()


def has_geometry(volume) -> bool:
    """Whether the volume knows where it lies: not the 1 mm, zero-origin grid that files without a header get."""
    return any(value != 1.0 for value in volume.GetSpacing()) or any(value != 0.0 for value in volume.GetOrigin())


def sequence_of(volume):
    """Return the sequence browser that drives a volume, or None."""
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if browser.IsProxyNode(volume.GetID()):
            return browser
    return None


def label_problem(label, volume) -> str:
    """Return why a label does not fit a volume; an empty string if it does."""
    from crossmoda import labels

    name = label.GetName()
    if is_moved(label):
        return _("The label {name} is under a transform; harden it first.").format(name=name)
    if label.IsA("vtkMRMLSegmentationNode"):
        if problem := segments.problem(label):
            return problem
        if not segments.known_segments(label):
            wanted = " / ".join(structure.name for structure in labels.STRUCTURES)
            return _("The segmentation {name} has no segment named {wanted}; rename its segments.").format(
                name=name, wanted=wanted
            )
        return ""
    if not label.GetImageData():
        return _("The label {name} has no voxels; load it again.").format(name=name)
    if not same_grid(label, volume):
        return _("The label {name} lies on another grid than {volume}; choose the label that belongs to it.").format(
            name=name, volume=volume.GetName()
        )
    least, greatest = label.GetImageData().GetScalarRange()  # VTK remembers it until the voxels change
    if least < min(labels.VALUES) or greatest > max(labels.VALUES):
        unknown = greatest if greatest > max(labels.VALUES) else least
        return _("The label {name} has the value {value:g}; 1 is the schwannoma and 2 the cochlea.").format(
            name=name, value=unknown
        )
    if greatest == labels.BACKGROUND:
        return _("The label {name} is empty. Choose another label.").format(name=name)
    return ""


def same_grid(first, second, tolerance_mm: float = 1e-3) -> bool:
    """Whether two volumes have the same voxels at the same places."""
    if first.GetImageData().GetDimensions() != second.GetImageData().GetDimensions():
        return False
    matrices = [vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()]
    for node, matrix in zip((first, second), matrices, strict=True):
        node.GetIJKToRASMatrix(matrix)
    difference = max(
        abs(matrices[0].GetElement(i, j) - matrices[1].GetElement(i, j)) for i in range(4) for j in range(4)
    )
    return difference <= tolerance_mm


def grid_of(volume):
    """Return the engine's grid of a volume node (LPS)."""
    from crossmoda.volume.grid import Grid

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(matrix)
    signs = (-1.0, -1.0, 1.0)
    direction = tuple(signs[row] * matrix.GetElement(row, column) for row in range(3) for column in range(3))
    origin = tuple(sign * value for sign, value in zip(signs, volume.GetOrigin(), strict=True))
    return Grid(tuple(volume.GetImageData().GetDimensions()), tuple(volume.GetSpacing()), origin, direction)


def label_map_of(label, volume, refuse_unknown: bool = True):
    """Return a label map node on the volume's grid with CrossModa's values (uint8).

    A label map is returned as it is; the node made of a segmentation is in no scene, where it would cost time.

    Raises:
        InputError: the segmentation has no segment that CrossModa knows, or (``refuse_unknown``) one of unknown name.

    """
    if label.IsA("vtkMRMLLabelMapVolumeNode"):
        return label
    if refuse_unknown:
        segments.refuse_unknown(label)
    known, ids, values = segments.known_segments(label), vtk.vtkStringArray(), vtk.vtkIntArray()
    if not known:
        raise InputError(_("{name} has no segment that could be used.").format(name=label.GetName()))
    for structure, segment_id in known:
        ids.InsertNextValue(segment_id)
        values.InsertNextValue(structure.value)
    merged = slicer.vtkOrientedImageData()
    slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
        label, volume, ids, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged, values
    )
    image = vtk.vtkImageData()  # the place of the voxels is in the node
    image.SetDimensions(merged.GetDimensions())
    image.GetPointData().SetScalars(_vtk_array(_voxels(merged)))
    label_map = slicer.vtkMRMLLabelMapVolumeNode()
    label_map.SetName(label.GetName())
    label_map.CopyOrientation(volume)
    label_map.SetAndObserveImageData(image)
    return label_map


def _voxels(image) -> np.ndarray:
    """Return the voxels of an image: (z, y, x), a view."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _vtk_array(array: np.ndarray):
    """Return a copy of an array as VTK's unsigned char array."""
    return numpy_to_vtk(np.ascontiguousarray(array, np.uint8).ravel(), deep=True)


def make_segmentation(label_map, volume, name: str, role: str):
    """Make an editable segmentation from a label map on the volume's grid: a node, or an array (z, y, x).

    Segments get the names, colors and terminology of CrossModa's table (also a structure without voxels, so that it
    can be painted); the reference geometry and the place in the subject hierarchy are the volume's, so that it can be
    saved as DICOM SEG. The name is made unique: an earlier result is never overwritten.
    """
    from crossmoda import labels

    scene = slicer.mrmlScene
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    array = label_map if isinstance(label_map, np.ndarray) else slicer.util.arrayFromVolume(label_map)
    for structure in labels.STRUCTURES:
        color = [channel / 255 for channel in structure.color]
        segment_id = segmentation.GetSegmentation().AddEmptySegment(structure.key, structure.name, color)
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        if structure.terminology:
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), structure.terminology)
        set_segment(segmentation, segment_id, array == structure.value, volume)
    segments.state_algorithm(segmentation, is_corrected=False)
    segmentation.SetAttribute(ROLE, role)
    segmentation.SetNodeReferenceID(TARGET, volume.GetID())
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    place_beside(segmentation, volume)
    return segmentation


def _occupied(array: np.ndarray) -> tuple[slice, ...]:
    """Return the bounding box of the nonzero voxels (slices of z, y, x); empty slices if there are none."""
    box: tuple[slice, ...] = ()
    for axis in range(3):
        occupied = np.flatnonzero(array[box].any(axis=tuple(other for other in range(3) if other != axis)))
        box += (slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0),)
    return box


def set_segment(segmentation, segment_id: str, mask: np.ndarray, volume) -> None:
    """Give a segment the voxels of a mask on the volume's grid (z, y, x); only their bounding box is copied."""
    box = _occupied(mask)
    if not mask[box].size:
        box = (slice(0, 1),) * 3
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.SetExtent([bound for side in reversed(box) for bound in (side.start, side.stop - 1)])
    image.GetPointData().SetScalars(_vtk_array(mask[box]))
    volume.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.SetBinaryLabelmapToSegment(image, segmentation, segment_id, logic.MODE_REPLACE):
        raise RuntimeError(_("The segment {name} could not be made.").format(name=segment_id))


def show_range(volume, low: float, high: float, colors: str = "vtkMRMLColorTableNodeGrey") -> None:
    """Make the display node of a volume with a fixed range, which is faster than an automatic one."""
    display = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(low, max(high, low + 1e-6))
    display.SetAndObserveColorNodeID(colors)
    volume.SetAndObserveDisplayNodeID(display.GetID())


def rounded_copy(volume):
    """Return a node with the voxels of a volume and its grid rounded to 1e-9 mm; it is in no scene.

    Its file has the same bytes before and after the scene was saved, which changes the last digits of oblique grids.
    """
    copy = getattr(slicer, volume.GetClassName())()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    for element in range(16):
        row, column = divmod(element, 4)
        matrix.SetElement(row, column, round(matrix.GetElement(row, column), 9) + 0.0)
    copy.SetName(volume.GetName())
    copy.SetIJKToRASMatrix(matrix)
    copy.SetAndObserveImageData(volume.GetImageData())
    return copy


def set_grid(volume, grid: dict) -> None:
    """Give a volume node the engine's grid (spacing, origin, direction; LPS)."""
    signs = (-1.0, -1.0, 1.0)
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, signs[row] * grid["direction"][3 * row + column])
    volume.SetIJKToRASDirectionMatrix(matrix)
    volume.SetSpacing(grid["spacing"])
    volume.SetOrigin([sign * value for sign, value in zip(signs, grid["origin"], strict=True)])


def place_beside(node, volume) -> None:
    """Put a node where the volume is in the subject hierarchy (the same DICOM study)."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume)
    if item:
        parent, own = hierarchy.GetItemParent(item), hierarchy.GetItemByDataNode(node)
        if own:
            hierarchy.SetItemParent(own, parent)
        else:  # a node that was hidden until now
            hierarchy.CreateItem(parent, node)


def watch_corrections(label) -> None:
    """Mark a segmentation or label map as corrected when it is edited, until a segmentation is as it was at first."""
    if not label.IsA("vtkMRMLSegmentationNode"):
        _observe(label, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, _mark_corrected)
        return
    if not label.GetAttribute(CORRECTED):
        label.SetAttribute(UNCORRECTED, _checksum(label))
    _observe(label, slicer.vtkSegmentation.SourceRepresentationModified, _mark_corrected)
    _observe(label, slicer.vtkSegmentation.SegmentModified, _compare)  # undo and redo have no other event


def _observe(label, event, callback) -> None:
    if not _observers.hasObserver(label, event, callback):
        _observers.addObserver(label, event, callback)


def _mark_corrected(label, _event) -> None:
    label.SetAttribute(CORRECTED, time.strftime("%Y-%m-%dT%H:%M:%S"))
    _compare(label)


def _compare(label, _event=None) -> None:
    """Mark a segmentation as corrected if its voxels are not those before the first correction."""
    uncorrected = label.GetAttribute(UNCORRECTED)
    if uncorrected:
        is_corrected = uncorrected != _checksum(label)
        if is_corrected != bool(label.GetAttribute(CORRECTED)):
            label.SetAttribute(CORRECTED, time.strftime("%Y-%m-%dT%H:%M:%S") if is_corrected else None)
        if label.GetAttribute(ROLE):  # else a person made it
            segments.state_algorithm(label, is_corrected)


def _checksum(segmentation) -> str:
    """Return a checksum of the voxels of all segments and of their place (0.1 mm)."""
    content, image, checksum = segmentation.GetSegmentation(), slicer.vtkOrientedImageData(), 0
    matrix = vtk.vtkMatrix4x4()
    for number in range(content.GetNumberOfSegments()):
        segment_id = content.GetNthSegmentID(number)
        if segmentation.GetBinaryLabelmapRepresentation(segment_id, image) and image.GetNumberOfPoints():
            array = _voxels(image)
            box, first = _occupied(array), image.GetExtent()[::2]
            image.GetImageToWorldMatrix(matrix)
            corner = matrix.MultiplyPoint([*(a + side.start for a, side in zip(first, box[::-1], strict=True)), 1.0])
            mask = array[box] > 0
            where = f"{segment_id} {mask.shape} {[round(x, 1) + 0.0 for x in corner] if mask.size else ''}"
            checksum = zlib.crc32(where.encode() + mask.tobytes(), checksum)
    return f"{checksum:08x}"


_observers = VTKObservationMixin()


def content_times(label) -> list[int]:
    """Return the times at which the voxels of a label map, or of the segments of a segmentation, were changed last."""
    if not label.IsA("vtkMRMLSegmentationNode"):
        return [label.GetImageData().GetMTime()]
    content = label.GetSegmentation()
    segments = [content.GetNthSegment(number) for number in range(content.GetNumberOfSegments())]
    parts = [segment.GetRepresentation(content.GetSourceRepresentationName()) for segment in segments]
    return [content.GetMTime(), *(segment.GetMTime() for segment in segments), *(part.GetMTime() for part in parts)]


def set_provenance(node, record: dict) -> None:
    """Write the provenance of a node into its attributes."""
    node.SetAttribute(PROVENANCE, json.dumps(record))


def provenance(node) -> dict:
    """Return the provenance of a node; empty if CrossModa did not make it."""
    return json.loads(node.GetAttribute(PROVENANCE) or "{}")


def without_scan(result) -> str:
    """Return a sentence if the scan of a result was removed, else an empty string."""
    if result.GetNodeReference(TARGET) is not None:
        return ""
    return _("The scan of {name} is no longer in the scene; load the scan and run it again.").format(
        name=result.GetName()
    )


def products(role: str, target=None) -> list:
    """Return the visible nodes of a role, of a target or of all targets; the newest last."""
    return [
        node
        for kind in ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode")
        for node in slicer.util.getNodesByClass(kind)
        if node.GetAttribute(ROLE) == role
        and not node.GetHideFromEditors()
        and (target is None or node.GetNodeReferenceID(TARGET) == target.GetID())
    ]
