"""Helpers of the correction: each changes the segmentation in one step that can be undone."""

import functools

from slicer.i18n import tr as _

from CrossModaSegLib.processes.tasks import PythonTask
from CrossModaSegLib.review import reviewed_case
from CrossModaSegLib.scene import nodes
from CrossModaSegLib.sections.section import ERROR, reported


class Helpers:
    """Take another label here, fill, remove islands, smooth, look at the other side."""

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
            "mirror": self.on_mirror,
            "mirrorApply": self.on_mirror_apply,
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
        """Show what can be done; ``hindrance`` says why nothing can."""
        allow = self.section.allow
        for name, source, tip in (
            ("Fused", "fused", _("Take the fused atlas label here") + " (S)"),
            ("Network", "network", _("Take the network's prediction here") + " (D)"),
            ("Majority", "majority", _("Take the majority vote of the atlases here") + " (M)"),
        ):
            lacking = hindrance or ("" if case.source(source) else _("The results of this case have none."))
            allow(getattr(self.ui, f"take{name}Button"), lacking, tip)
        self.ui.radiusSpinBox.enabled = self.section.parameters.where == "pointer"
        allow(self.ui.fillButton, hindrance, _("Fill the holes of the segment chosen") + " (H)")
        allow(self.ui.islandsButton, hindrance, _("Remove the small pieces of the segment chosen; the largest stays"))
        allow(self.ui.smoothButton, hindrance, _("Smooth the outline of the segment chosen; its volume stays"))
        allow(
            self.ui.mirrorButton,
            hindrance or self.section.busy_reason(),
            _("Compare the cochlea with the one of the other side"),
        )

    def _where(self):
        """Return where a helper works: a mask, or None for the whole scan.

        Raises:
            InputError: there is no region, or the place is outside of the scan.

        """
        from crossmoda.errors import InputError
        from crossmoda.review import operations

        case, parameters = self._case, self.section.parameters
        if parameters.where == "whole scan":
            return None
        if parameters.where == "region":
            number = self.section.panel.review.places.number
            mask = case.mask(number) if number else None
            if mask is None or not mask.any():
                raise InputError(_("Choose a region in “Where to look”, or choose another “Where”."))
            return mask
        place = reviewed_case.place()
        grid = nodes.grid_of(case.volume)
        mask = operations.ball(grid, place, parameters.pointerRadius) if place is not None else None
        if mask is None or not mask.any():
            raise InputError(_("Point at a place in a slice view, or set the crosshair with Shift and the mouse."))
        return mask

    def _change(self, compute, done: str) -> None:
        """Change the correction by ``compute(label map, where)``; one step that can be undone."""
        case = self._case
        before = case.array()
        after = compute(before, self._where())
        count = int((before != after).sum())
        if not count:
            self.say(_("Nothing to change here."))
            return
        self.section.editor.widget.saveStateForUndo()
        case.write(after)
        volume = count * float(nodes.grid_of(case.volume).voxel_volume_mm3)
        self.say(_("{done}: {volume:.0f} mm³ changed. Undo: Z.").format(done=done, volume=volume))

    def _take(self, source: str, button) -> None:
        from crossmoda.review import operations

        if button.enabled:
            other = self._case.array(self._case.source(source))
            title = {"fused": _("Fused"), "network": _("Network"), "majority": _("Majority")}[source]
            self._change(lambda array, where: operations.take(array, other, where), title)

    def _segment(self) -> int:
        """Return the value of the segment that is chosen in the editor.

        Raises:
            InputError: none of ours is chosen.

        """
        from crossmoda.errors import InputError

        chosen = self.section.editor.widget.currentSegmentID()
        for structure, segment_id in nodes.known_segments(self._case.correction):
            if segment_id == chosen:
                return structure.value
        raise InputError(_("Choose the schwannoma or the cochlea in the list of segments."))

    @reported
    def on_fused(self) -> None:
        """Take the fused label here."""
        self._take("fused", self.ui.takeFusedButton)

    @reported
    def on_network(self) -> None:
        """Take the prediction here."""
        self._take("network", self.ui.takeNetworkButton)

    @reported
    def on_majority(self) -> None:
        """Take the majority vote here."""
        self._take("majority", self.ui.takeMajorityButton)

    @reported
    def on_fill(self) -> None:
        """Fill the holes of the segment chosen."""
        from crossmoda.review import operations

        if self.ui.fillButton.enabled:
            value = self._segment()
            self._change(lambda array, where: operations.fill_holes(array, value, where), _("Holes filled"))

    @reported
    def on_islands(self) -> None:
        """Remove the small pieces of the segment chosen."""
        from crossmoda.review import operations

        value, grid, smallest = self._segment(), nodes.grid_of(self._case.volume), self.section.parameters.islandVolume
        self._change(
            lambda array, where: operations.remove_islands(array, value, smallest, grid, where), _("Islands removed")
        )

    @reported
    def on_smooth(self) -> None:
        """Smooth the outline of the segment chosen."""
        from crossmoda.review import operations

        value, grid, radius = self._segment(), nodes.grid_of(self._case.volume), self.section.parameters.smoothRadius
        self._change(lambda array, where: operations.smooth(array, value, radius, grid, where), _("Smoothed"))

    # ---------------------------------------------------------------- the other side

    @reported
    def on_mirror(self) -> None:
        """Compare the cochlea with the one of the other side, in a process of its own."""
        from crossmoda.volume import write

        self.drop_suggestion()
        case, folder = self._case, self.section.logic.temporaryFolder()
        write(case.label_map(), folder / "label.nrrd")
        arguments = {
            "image": case.correction.GetAttribute(reviewed_case.SCAN_FILE),
            "label_map": str(folder / "label.nrrd"),
            "folder": str(folder),
        }
        task = PythonTask(
            "mirror_check", arguments, _("Check the other side"), functools.partial(self._mirrored, case.id)
        )
        queue = self.section.logic.run([task])
        queue.observe(lambda: self._on_mirror(task))
        queue.start()
        self.section.panel.update()

    def _on_mirror(self, task) -> None:
        if task.error:
            self.say(task.error, ERROR)
        self.section.panel.update_soon()

    def _mirrored(self, case_id: str, answer: dict) -> None:
        from crossmoda.volume import read_label_map

        if self._case is None or self._case.id != case_id:
            return
        self.say(" ".join(answer["messages"]) or _("Both cochleae match."))
        if answer["suggestion"]:
            self._suggestion = read_label_map(answer["suggestion"]).array
            self.ui.mirrorLabel.text = _("The image suggests a cochlea there.")
        self.ui.mirrorFrame.setVisible(bool(answer["suggestion"]))

    @reported
    def on_mirror_apply(self) -> None:
        """Take the cochlea that is suggested; nothing else changes."""
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
        """Forget what was suggested for the other side."""
        self._suggestion = None
        self.ui.mirrorFrame.setVisible(False)
