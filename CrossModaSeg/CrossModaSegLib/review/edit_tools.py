"""Edit tools of the correction; each is one undo step."""

import functools

from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes.tasks import PythonTask
from CrossModaSegLib.review import reviewed_case
from CrossModaSegLib.scene import export, nodes, segments
from CrossModaSegLib.sections.section import reported


class EditTools:
    """Copy a label, fill, remove islands, smooth, compare the cochleae."""

    def __init__(self, section):
        """Connect the controls of the section."""
        self.section, self.ui, self.say = section, section.ui, section.say
        self._suggestion = None
        slots = {
            "takeFused": self.on_fused,
            "takeNetwork": self.on_network,
            "takeMajority": self.on_majority,
            "fill": self.on_fill,
            "islands": self.on_islands,
            "smooth": self.on_smooth,
            "contralateral": self.on_contralateral,
            "contralateralApply": self.on_contralateral_apply,
        }
        for name, slot in slots.items():
            getattr(self.ui, name + "Button").connect("clicked(bool)", slot)
        self.drop_suggestion()

    def keys(self) -> dict:
        """Return the keys with what they do."""
        return {"S": self.on_fused, "D": self.on_network, "M": self.on_majority, "H": self.on_fill}

    @property
    def _case(self):
        return self.section.case

    def update(self, case, hindrance: str) -> None:
        """Enable the buttons, or disable them with the reason ``hindrance``."""
        allow = self.section.allow
        for name, source, tip in (
            ("Fused", "fused", _("Copy the fused label") + " (S)"),
            ("Network", "network", _("Copy the prediction of the network") + " (D)"),
            ("Majority", "majority", _("Copy the majority vote of the atlases") + " (M)"),
        ):
            lacking = hindrance or ("" if case.source(source) else _("Not among the results of this case."))
            allow(getattr(self.ui, f"take{name}Button"), lacking, tip)
        self.ui.radiusSpinBox.enabled = self.section.parameters.where == "pointer"
        allow(self.ui.fillButton, hindrance, _("Fill the holes of the selected segment") + " (H)")
        allow(self.ui.islandsButton, hindrance, _("Remove the small pieces of the selected segment; the largest stays"))
        allow(self.ui.smoothButton, hindrance, _("Smooth the outline of the selected segment; its volume stays"))
        allow(
            self.ui.contralateralButton,
            hindrance or self.section.busy_reason(),
            _("Compare the cochlea with the contralateral one"),
        )

    def _where(self):
        """Return the mask to be edited, or None for the whole scan.

        Raises:
            InputError: there is no region, or the place is outside of the scan.

        """
        from crossmoda.review import operations

        case, parameters = self._case, self.section.parameters
        if parameters.where == "whole scan":
            return None
        if parameters.where == "region":
            number = self.section.panel.review.regions.number
            mask = case.mask(number) if number else None
            if mask is None or not mask.any():
                raise InputError(_("No region selected. Select a region in “Uncertain regions”, or change “Where”."))
            return mask
        place = reviewed_case.place()
        grid = nodes.grid_of(case.volume)
        mask = operations.ball(grid, place, parameters.pointerRadius) if place is not None else None
        if mask is None or not mask.any():
            raise InputError(_("Point at a place in a slice view, or set the crosshair with Shift and the mouse."))
        return mask

    def _change(self, compute, done: str) -> None:
        """Change the correction by ``compute(label map, where)``, in one undo step."""
        case = self._case
        before = case.array()
        after = compute(before, self._where())
        count = int((before != after).sum())
        if not count:
            self.say(_("Nothing to change."))
            return
        self.section.editor.widget.saveStateForUndo()
        case.write(after)
        volume = count * float(nodes.grid_of(case.volume).voxel_volume_mm3)
        self.say(_("{done}: {volume:.0f} mm³ changed. Undo: Z.").format(done=done, volume=volume))

    def _take(self, source: str, button) -> None:
        from crossmoda.review import operations

        if button.enabled:
            label = self._case.array(self._case.source(source))
            title = {"fused": _("Atlases"), "network": _("Network"), "majority": _("Majority vote")}[source]
            self._change(lambda array, where: operations.take(array, label, where), title)

    def _segment(self) -> int:
        """Return the label value of the selected segment.

        Raises:
            InputError: no segment of CrossModa is selected.

        """
        chosen = self.section.editor.widget.currentSegmentID()
        for structure, segment_id in segments.known_segments(self._case.correction):
            if segment_id == chosen:
                return structure.value
        raise InputError(_("Select the schwannoma or the cochlea in the list of segments."))

    @reported
    def on_fused(self) -> None:
        """Copy the fused label."""
        self._take("fused", self.ui.takeFusedButton)

    @reported
    def on_network(self) -> None:
        """Copy the prediction."""
        self._take("network", self.ui.takeNetworkButton)

    @reported
    def on_majority(self) -> None:
        """Copy the majority vote."""
        self._take("majority", self.ui.takeMajorityButton)

    @reported
    def on_fill(self) -> None:
        """Fill the holes of the selected segment."""
        from crossmoda.review import operations

        if self.ui.fillButton.enabled:
            value = self._segment()
            self._change(lambda array, where: operations.fill_holes(array, value, where), _("Holes filled"))

    @reported
    def on_islands(self) -> None:
        """Remove the small pieces of the selected segment."""
        from crossmoda.review import operations

        value, grid, smallest = self._segment(), nodes.grid_of(self._case.volume), self.section.parameters.islandVolume
        self._change(
            lambda array, where: operations.remove_islands(array, value, smallest, grid, where), _("Islands removed")
        )

    @reported
    def on_smooth(self) -> None:
        """Smooth the outline of the selected segment."""
        from crossmoda.review import operations

        value, grid, radius = self._segment(), nodes.grid_of(self._case.volume), self.section.parameters.smoothRadius
        self._change(lambda array, where: operations.smooth(array, value, radius, grid, where), _("Smoothed"))

    # ---------------------------------------------------------------- contralateral cochlea

    @reported
    def on_contralateral(self) -> None:
        """Compare the cochlea with the contralateral one, in a process of its own."""
        from crossmoda.volume import write

        self.drop_suggestion()
        case, folder = self._case, export.temporary_folder()
        write(case.label_map(), folder / "label.nrrd")
        arguments = {
            "image": case.correction.GetAttribute(reviewed_case.SCAN_FILE),
            "label_map": str(folder / "label.nrrd"),
            "folder": str(folder),
        }
        task = PythonTask(
            "compare_cochleae", arguments, _("Compare both cochleae"), functools.partial(self._show_comparison, case.id)
        )
        self.section.start(self.section.logic.run([task]))

    def _show_comparison(self, case_id: str, answer: dict) -> None:
        from crossmoda.volume import read_label_map

        if self._case is None or self._case.id != case_id:
            return
        self.say(" ".join(answer["messages"]) or _("Both cochleae match."))
        if answer["suggestion"]:
            self._suggestion = read_label_map(answer["suggestion"]).array
            self.ui.contralateralLabel.text = _("The image suggests a contralateral cochlea.")
        self.ui.contralateralFrame.setVisible(bool(answer["suggestion"]))

    @reported
    def on_contralateral_apply(self) -> None:
        """Add the suggested cochlea."""
        from crossmoda import labels

        suggestion, case = self._suggestion, self._case
        self.drop_suggestion()
        array = case.array()
        after = array.copy()
        after[(array == labels.COCHLEA) & (suggestion != labels.COCHLEA)] = labels.BACKGROUND
        after[(suggestion == labels.COCHLEA) & (after == labels.BACKGROUND)] = labels.COCHLEA
        self.section.editor.widget.saveStateForUndo()
        case.write(after)
        self.say(_("The suggested cochlea was added. Undo: Z."))

    def drop_suggestion(self) -> None:
        """Drop the suggested cochlea."""
        self._suggestion = None
        self.ui.contralateralFrame.setVisible(False)
