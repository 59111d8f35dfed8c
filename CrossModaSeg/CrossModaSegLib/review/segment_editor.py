"""Slicer's Segment Editor inside the panel."""

import slicer

#: Effects that cannot make two labels overlap.
EFFECTS = (
    "Paint",
    "Draw",
    "Erase",
    "Scissors",
    "Threshold",
    "Level tracing",
    "Margin",
    "Smoothing",
    "Fill between slices",
)
UNDO_STEPS = 20
NODE = "CrossModaSegmentEditor"
#: Parts that are not shown; the overlays that the review chose stay, too.
_OFF = (
    *("segmentationNodeSelectorVisible", "sourceVolumeNodeSelectorVisible", "addRemoveSegmentButtonsVisible"),
    *("switchToSegmentationsButtonVisible", "specifyGeometryButtonVisible", "maskingSectionVisible"),
    "autoShowSourceVolumeNode",
)


class SegmentEditor:
    """The widget, made for the first case (its effects take long to load), with its own node in the scene."""

    def __init__(self, place):
        """``place`` is the widget whose layout receives the editor."""
        self._place, self.widget, self._entered = place, None, False
        self._edited = None

    @property
    def segmentation(self):
        """The segmentation that is edited, or None."""
        return self.widget.segmentationNode() if self.widget is not None else None

    def take_up(self, segmentation, volume) -> None:
        """Edit a segmentation over its scan."""
        if self.widget is None:
            self._make()
        self._select_node()
        if self._edited is not segmentation or self.segmentation is not segmentation:
            # A loaded scene brings the editor's node with its selection; the undo history follows changes only.
            self.widget.setSegmentationNode(None)
        self.widget.setSegmentationNode(segmentation)
        self._edited = segmentation
        self.widget.setSourceVolumeNode(volume)
        if self._entered:
            self.widget.installKeyboardShortcuts()

    def let_go(self) -> None:
        """Edit nothing."""
        self._edited = None
        if self.widget is not None:
            self._rest()
            # First the scan: the editor's selector would move on to another scan when this one is removed.
            self.widget.setSourceVolumeNode(None)
            self.widget.setSegmentationNode(None)

    def enter(self) -> None:
        """Enable the keys of the editor while it edits a segmentation."""
        self._entered = True
        if self.segmentation is not None:
            self._select_node()
            self.widget.installKeyboardShortcuts()
            self.widget.updateWidgetFromMRML()

    def exit(self) -> None:
        """Release keys and slice views."""
        self._entered = False
        if self.widget is not None:
            self._rest()

    def _rest(self) -> None:
        self.widget.setActiveEffect(None)
        self.widget.uninstallKeyboardShortcuts()
        self.widget.removeViewObservations()

    def _make(self) -> None:
        self.widget = editor = slicer.qMRMLSegmentEditorWidget()
        editor.setMaximumNumberOfUndoStates(UNDO_STEPS)
        self._select_node()  # before the scene, as the widget asks for
        editor.setMRMLScene(slicer.mrmlScene)
        for part in _OFF:
            setattr(editor, part, False)
        editor.setEffectNameOrder(list(EFFECTS))
        editor.unorderedEffectsVisible = False
        self._place.layout().addWidget(editor)

    def _select_node(self) -> None:
        """Give the editor a node of its own in the scene: that of the Segment Editor module stays as it is."""
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(NODE, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(NODE)
            node = scene.AddNode(node)
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)  # one label per voxel
        self.widget.setMRMLSegmentEditorNode(node)
