"""Slice views: layers for the visual check, outlines, the overlay of disagreement or uncertainty."""

import slicer
import vtk

from CrossModaSegLib.scene import nodes, segments

CHECKER = "CrossModa checkerboard"
#: On the display of a segmentation that is hidden because another scan is shown.
HIDDEN = "CrossModa.Hidden"


def show_target(target) -> None:
    """Show the target alone."""
    _show(target, foreground=None, label=None, fit=True)


def show_aligned(scan, previous) -> None:
    """Show a scan with the previous one, aligned, over it; transparent at first."""
    _show(scan, foreground=previous, foregroundOpacity=0.0, also=previous, fit=True)


def fade_previous(previous, percent: float) -> None:
    """Set the opacity of the previous scan where it is shown over a scan."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if previous is not None and composite.GetForegroundVolumeID() == previous.GetID():
            composite.SetForegroundOpacity(percent / 100)


def center_of(segmentation):
    """Return the center of the tumor of a segmentation (RAS); None without a tumor."""
    if segmentation is None:
        return None
    tumor = next((segment for structure, segment in segments.known_segments(segmentation) if structure.key == "VS"), "")
    return segmentation.GetSegmentCenterRAS(tumor)


def show_result(segmentation) -> None:
    """Show the target of a result alone, with the center of the tumor in all slice views."""
    show_target(segmentation.GetNodeReference(nodes.TARGET))
    center = center_of(segmentation)
    if center is not None:
        jump(center)


def show_3d(segmentation) -> None:
    """Show a segmentation in the 3D views, in their center, as the button “Show 3D” does; nothing if it is empty."""
    if segments.is_empty(segmentation):
        return
    segmentation.CreateClosedSurfaceRepresentation()
    layout = slicer.app.layoutManager()
    for number in range(layout.threeDViewCount if layout is not None else 0):
        layout.threeDWidget(number).threeDView().resetFocalPoint()


def is_over(doubt) -> bool:
    """Whether a volume is laid over the scan in a slice view."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return doubt is not None and any(view.GetForegroundVolumeID() == doubt.GetID() for view in views)


def jump(center_ras) -> None:
    """Show a place in all slice views, and set the crosshair there."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *center_ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(center_ras)


def _show(target, also=None, **layers) -> None:
    """Show a target with layers over it; what belongs to other targets (but ``also``) is hidden meanwhile."""
    slicer.util.setSliceViewerLayers(background=target, **layers)
    shown = [scan for scan in (target, also) if scan is not None]
    for node in _made():
        display, is_shown = node.GetDisplayNode(), nodes.scan_of(node) in shown
        if is_shown and display.GetAttribute(HIDDEN):
            display.SetAttribute(HIDDEN, None)
            display.SetVisibility(True)
        elif not is_shown:
            _hide(node)


def hide_others(shown: list) -> None:
    """Hide all that work made but these nodes, until a target is shown again."""
    for node in _made():
        if node not in shown:
            _hide(node)


def _made() -> list:
    """Return the segmentations, markups and models that work made and that have a display."""
    kinds = ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode", "vtkMRMLModelNode")
    every = [node for kind in kinds for node in slicer.util.getNodesByClass(kind)]
    return [node for node in every if node.GetAttribute(nodes.ROLE) and node.GetDisplayNode() is not None]


def _hide(node) -> None:
    display = node.GetDisplayNode()
    if display.GetVisibility():
        display.SetAttribute(HIDDEN, "true")
        display.SetVisibility(False)


def hide_earlier(result) -> None:
    """Hide earlier results of the same scan, which would be drawn under the new one.

    A segmentation that is open in a Segment Editor stays visible.
    """
    editors = slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode")
    visible = [result, *(editor.GetSegmentationNode() for editor in editors)]
    for role in nodes.RESULTS:
        for segmentation in nodes.products(role, result.GetNodeReference(nodes.TARGET)):
            if segmentation not in visible and segmentation.GetDisplayNode() is not None:
                segmentation.GetDisplayNode().SetAttribute(HIDDEN, None)
                segmentation.GetDisplayNode().SetVisibility(False)


def show_doubt(target, doubt) -> None:
    """Lay a volume of disagreement or uncertainty over the target, transparent where it is low."""
    greatest = max(doubt.GetImageData().GetScalarRange()[1], 1e-6)
    if doubt.GetDisplayNode() is None:
        nodes.show_range(doubt, 0.0, greatest)
    display = doubt.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeWarm1")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, greatest)
    display.SetApplyThreshold(True)
    display.SetThreshold(0.05 * greatest, 1e6)
    _show(target, foreground=doubt, foregroundOpacity=0.6)


def hide_doubt(target) -> None:
    """Show the target without a volume over it."""
    _show(target, foreground=None)


def show_check(target, warped, mode: str, fade: float, segmentation=None) -> None:
    """Show how well a warped atlas lies on the target.

    ``fade``: the warped atlas over the target with an opacity of ``fade`` percent. ``checkerboard``: fields of both
    alternate. ``contour``: the target with the outlines of the segmentation.
    """
    remove_checkerboard()
    if segmentation is not None:
        outline_only(segmentation, mode == "contour")
    if mode == "contour":
        _show(target, foreground=None)
    elif mode == "checkerboard":
        _show(target, foreground=_checkerboard(warped), foregroundOpacity=1.0)
    else:
        _show(target, foreground=warped, foregroundOpacity=fade / 100)


def outline_only(segmentation, only: bool) -> None:
    """Show a segmentation as outlines, or with its translucent fill."""
    display = segmentation.GetDisplayNode()
    if display is not None:
        display.SetVisibility2DFill(not only)
        display.SetVisibility2DOutline(True)


def remove_checkerboard() -> None:
    """Remove the volume that shows the checkerboard."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(nodes.ROLE) == CHECKER:
            slicer.mrmlScene.RemoveNode(node)


def _checkerboard(warped, fields: int = 8):
    """Return a copy of the warped atlas whose every other field is transparent (below the display's threshold).

    It has the voxels of the original; the fields are cut out by VTK's checkerboard filter.
    """
    image = warped.GetImageData()
    low, high = image.GetScalarRange()
    shown = warped.GetDisplayNode()
    hidden = vtk.vtkImageData()
    hidden.CopyStructure(image)
    hidden.AllocateScalars(image.GetScalarType(), 1)
    hidden.GetPointData().GetScalars().Fill(low - 1)
    size = image.GetDimensions()
    spacing = warped.GetSpacing()
    field_mm = max(size[axis] * spacing[axis] for axis in range(3)) / fields
    board = vtk.vtkImageCheckerboard()
    board.SetInputData(0, image)
    board.SetInputData(1, hidden)
    board.SetNumberOfDivisions(*[max(round(size[axis] * spacing[axis] / field_mm), 1) for axis in range(3)])
    board.Update()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", warped.GetName() + " checkerboard")
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAttribute(nodes.ROLE, CHECKER)
    node.CopyOrientation(warped)
    node.SetAndObserveTransformNodeID(warped.GetTransformNodeID())
    nodes.show_range(node, 0.0, 1.0)
    node.SetAndObserveImageData(board.GetOutput())
    display = node.GetDisplayNode()
    display.SetWindowLevel(shown.GetWindow(), shown.GetLevel())
    display.SetInterpolate(False)  # interpolation would draw dark seams around the fields
    display.SetApplyThreshold(True)
    display.SetThreshold(low, high)
    return node


def fade(percent: float) -> None:
    """Set the opacity of the warped atlas where it is shown."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        volume = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        if volume is not None and volume.GetAttribute(nodes.ROLE) == "warped atlas":
            composite.SetForegroundOpacity(percent / 100)
