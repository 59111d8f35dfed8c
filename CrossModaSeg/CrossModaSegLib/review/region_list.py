"""Uncertain regions of the open case, overlays, and the labels of the atlases."""

import functools

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes.tasks import StepsTask
from CrossModaSegLib.review import reviewed_case
from CrossModaSegLib.scene import display, nodes
from CrossModaSegLib.sections.section import NOTE, set_columns

NUMBER, STRUCTURE, VOLUME, REASON = range(4)
#: The choices of the overlay and what they mean: nothing, the doubt, or the probability of a structure.
OVERLAYS = {"doubt": "", "schwannoma": "VS", "cochlea": "cochlea", "nothing": ""}


class RegionList:
    """The list of uncertain regions and the overlay."""

    def __init__(self, section):
        """Connect the controls of the section."""
        self.section, self.ui = section, section.ui
        self._shown, self.number = None, 0
        set_columns(self.ui.regionsTable, [_("#"), _("Structure"), _("mm³"), _("Why")], REASON)
        self.ui.regionsTable.setWordWrap(False)
        self.ui.regionsTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.ui.regionsTable.connect("cellClicked(int,int)", self.on_click)
        self.ui.previousRegionButton.connect("clicked(bool)", self.on_previous)
        self.ui.nextRegionButton.connect("clicked(bool)", self.on_next)
        self.ui.overlayComboBox.connect("currentIndexChanged(int)", self.on_overlay)
        self.ui.overlaySlider.connect("valueChanged(double)", self.on_threshold)
        self.ui.votesCheckBox.connect("toggled(bool)", self.on_votes)

    def keys(self) -> dict:
        """Return the keys with what they do."""
        return {"N": self.on_next, "P": self.on_previous, "O": self.on_toggle_overlay, "A": self.on_toggle_votes}

    # ---------------------------------------------------------------- regions

    def update(self, case) -> None:
        """Show the regions of the case, and enable the buttons."""
        shown = (
            (case.correction.GetID(), case.correction.GetAttribute(reviewed_case.REGIONS)) if case is not None else None
        )
        if shown != self._shown:
            self._shown, self.number = shown, 0
            self._fill(case.regions if case is not None else [])
        nothing = "" if self.ui.regionsTable.rowCount else _("No uncertain region.")
        allow = self.section.allow
        allow(self.ui.previousRegionButton, nothing, _("Go to the previous region (P)"))
        allow(self.ui.nextRegionButton, nothing, _("Go to the next region (N)"))

    def _fill(self, regions: list[dict]) -> None:
        from crossmoda import labels

        names = {structure.key: structure.name for structure in labels.STRUCTURES}
        table = self.ui.regionsTable
        table.setRowCount(len(regions))
        for row, region in enumerate(regions):
            structure = names.get(region["structure"], region["structure"])
            texts = [str(region["number"]), structure, f"{region['volume_mm3']:.0f}", region["reason"]]
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(region["reason"])
                table.setItem(row, column, item)

    def show(self, case) -> None:
        """Show the overlay of a case that was opened and go to its most doubtful place."""
        self.update(case)
        if case.regions:
            self.go(1)
        self._show_overlay()

    def go(self, number: int) -> None:
        """Go to a region: every slice view shows its place."""
        case = self.section.case
        regions = case.regions if case is not None else []
        region = next((item for item in regions if item["number"] == number), None)
        if region is not None:
            self.number = number
            self.ui.regionsTable.selectRow(number - 1)
            x, y, z = region["center_lps"]
            display.jump((-x, -y, z))
            self.section.say(region["reason"], NOTE)

    def on_click(self, row: int) -> None:
        """Go to the region clicked."""
        self.go(row + 1)

    def on_next(self) -> None:
        """Go to the next region; after the last comes the first."""
        if self.ui.nextRegionButton.enabled:
            self.go(self.number % self.ui.regionsTable.rowCount + 1)

    def on_previous(self) -> None:
        """Go to the region before."""
        if self.ui.previousRegionButton.enabled:
            self.go((self.number - 2) % self.ui.regionsTable.rowCount + 1)

    # ---------------------------------------------------------------- overlays

    def on_overlay(self, _index) -> None:
        """Show another overlay."""
        self._guarded(self._show_overlay)

    def on_threshold(self, _value) -> None:
        """Show the overlay from another value on."""
        volume = self._overlay(load=False)
        if volume is not None:
            self._dress(volume)

    def on_toggle_overlay(self) -> None:
        """Hide the overlay, or show the doubt."""
        parameters = self.section.parameters
        parameters.overlay = "doubt" if parameters.overlay == "nothing" else "nothing"

    def _guarded(self, action) -> None:
        from CrossModaSegLib.sections.section import ERROR

        try:
            action()
        except InputError as error:
            self.section.say(str(error), ERROR)

    def _show_overlay(self) -> None:
        case = self.section.case
        if case is None or case.volume is None:
            return
        volume = self._overlay(load=True)
        if volume is None:
            slicer.util.setSliceViewerLayers(background=case.volume, foreground=None)
            return
        self._dress(volume)
        slicer.util.setSliceViewerLayers(background=case.volume, foreground=volume, foregroundOpacity=0.5)

    def _overlay(self, load: bool):
        """Return the volume that is laid over the scan; ``load``: from its file if it is not in the scene yet."""
        case, parameters = self.section.case, self.section.parameters
        if case is None or parameters is None or parameters.overlay == "nothing":
            return None
        if parameters.overlay == "doubt":
            return case.doubt
        key = OVERLAYS[parameters.overlay]
        reference = reviewed_case.PROBABILITY + key
        volume = case.correction.GetNodeReference(reference)
        if volume is None and load:
            path = case.files.get("probabilities", {}).get(key)
            if not path:
                raise InputError(_("Probability not found: {id}. Choose another overlay.").format(id=case.id))
            volume = reviewed_case.load_owned(path, f"{case.id} probability {key}", case)
            case.correction.SetNodeReferenceID(reference, volume.GetID())
        return volume

    def _dress(self, volume) -> None:
        """Give an overlay its colors, from the value chosen to 1."""
        parameters = self.section.parameters
        if volume.GetDisplayNode() is None:
            volume.CreateDefaultDisplayNodes()
        shown, lowest = volume.GetDisplayNode(), max(parameters.overlayFrom / 100, 0.01)
        color = "Warm1" if parameters.overlay == "doubt" else "Cool1"
        shown.SetAndObserveColorNodeID(f"vtkMRMLColorTableNode{color}")
        shown.SetAutoWindowLevel(False)
        shown.SetWindowLevelMinMax(0.0, 1.0)
        shown.SetApplyThreshold(True)
        shown.SetThreshold(lowest, 1e6)

    # ---------------------------------------------------------------- votes of the atlases

    def on_toggle_votes(self) -> None:
        """Outline the atlases' labels, or hide them."""
        self.ui.votesCheckBox.checked = not self.ui.votesCheckBox.checked

    def on_votes(self, shown: bool) -> None:
        """Outline the labels of the atlases; without their files, show the probability."""
        case = self.section.case
        if case is None:
            return
        node = case.correction.GetNodeReference(reviewed_case.VOTES)
        if node is not None:
            node.GetDisplayNode().SetVisibility(shown)
        elif shown and case.files.get("votes"):
            self._guarded(functools.partial(self._load_votes, case))
        elif shown:
            self.section.parameters.overlay = "schwannoma"
            self.section.say(_("Labels of the atlases not found. The probability is shown instead."))

    def _load_votes(self, case) -> None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("{id} atlas votes").format(id=case.id))
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(case.volume)
        node.SetAttribute(reviewed_case.OWNED, case.id)
        node.SetNodeReferenceID(nodes.TARGET, case.volume.GetID())
        steps = [functools.partial(self._add_vote, node, case, *vote) for vote in case.files["votes"]]
        steps.append(lambda: case.correction.SetNodeReferenceID(reviewed_case.VOTES, node.GetID()))
        display_node = node.GetDisplayNode()
        display_node.SetVisibility2DFill(False)
        display_node.SetVisibility3D(False)
        display_node.SetOpacity2DOutline(0.6)
        self.section.run_steps(StepsTask(_("Load the votes of the atlases"), lambda: steps))

    @staticmethod
    def _add_vote(node, case, atlas: str, path: str) -> None:
        from crossmoda import labels

        label_map = reviewed_case.load_owned(path, f"{atlas} vote", case, label=True)
        array = slicer.util.arrayFromVolume(label_map)
        for structure in labels.STRUCTURES:
            mask = (array == structure.value).astype(np.uint8)
            if mask.any():
                color = [0.5 + channel / 510 for channel in structure.color]
                name = f"{atlas}: {structure.name}"
                segment_id = node.GetSegmentation().AddEmptySegment("", name, color)
                slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, case.volume)
        slicer.mrmlScene.RemoveNode(label_map)
