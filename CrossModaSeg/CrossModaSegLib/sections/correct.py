"""Correct: Slicer's Segment Editor with edit tools and autosave."""

import contextlib

import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.review.autosave import Autosave
from CrossModaSegLib.review.edit_tools import EditTools
from CrossModaSegLib.review.segment_editor import SegmentEditor
from CrossModaSegLib.scene import nodes
from CrossModaSegLib.sections.section import Section, reported, wrappable
from CrossModaSegLib.sections.shortcuts import Shortcuts
from CrossModaSegLib.sections.structure_names import map_unknown


class CorrectSection(Section):
    """The correction of the open case."""

    name = "Correct"

    def __init__(self, panel):
        """Connect the controls; the editor is made when the first case is opened."""
        super().__init__(panel)
        self.autosave, self.editor = Autosave(self._on_autosave), SegmentEditor(self.ui.editorWidget)
        self._compared = None
        self.edit_tools = EditTools(self)
        for name in ("restore", "discard", "save"):
            getattr(self.ui, name + "Button").connect("clicked(bool)", getattr(self, f"on_{name}"))
        self.ui.reviewerEdit.connect("textChanged(QString)", self.on_reviewer)
        self.ui.recoveryFrame.setVisible(False)
        self._keys = Shortcuts(self.widget, {**self.edit_tools.keys(), "Ctrl+Shift+S": self.on_save})

    @property
    def case(self):
        """The open case, or None."""
        return self.panel.review.case

    @property
    def draft(self) -> str | None:
        """Time of an undecided draft of an earlier session, or None."""
        return self.autosave.pending

    def enter(self) -> None:
        """Enable the keys of the editor and of the edit tools."""
        self.editor.enter()
        self._keys.install()

    def exit(self) -> None:
        """Disable the keys, release the slice views and save a draft."""
        self._keys.uninstall()
        self.editor.exit()
        self.autosave.flush()

    # ---------------------------------------------------------------- life of a case

    def take_up(self, case) -> None:
        """Edit the correction of a case."""
        self.editor.take_up(case.correction, case.volume)
        self.autosave.watch(case)
        self.edit_tools.drop_suggestion()
        self._compared = None
        self.say("")
        self.panel.update_soon()

    def keep_before_leaving(self, status: str) -> str:
        """Save a draft and the time; return a message for the user if that failed."""
        autosave = self.autosave
        if autosave.case is None:
            return ""
        autosave.flush()
        if autosave.case.unsaved:
            if autosave.problem:
                return _("The correction of {id} is still in the scene: {problem}").format(
                    id=autosave.case.id, problem=autosave.problem
                )
        elif autosave.case.seconds >= 1:
            item, seconds = self.panel.review.item(autosave.case.id), autosave.case.seconds
            with contextlib.suppress(InputError):  # only the time is lost in a write-protected folder
                autosave.mark(status)
                item["seconds"] += seconds
        return ""

    def let_go(self) -> None:
        """Stop editing the correction."""
        self.autosave.forget()
        self.edit_tools.drop_suggestion()
        self.editor.let_go()

    def closing(self) -> None:
        """Save a draft before the scene or the panel is closed."""
        self.autosave.flush()
        self.let_go()

    # ---------------------------------------------------------------- state

    def update(self) -> None:
        """Show the state of the correction, and enable the buttons."""
        case = self.case
        if case is not None:
            self._resume(case)
        nothing = "" if case is not None else _("Open a case in “Review” first.")
        waits = "" if self.draft is None else _("Restore or discard the unsaved correction first.")
        self.ui.editorWidget.setVisible(case is not None and not waits)
        self.ui.editToolsGroupBox.enabled = case is not None and not waits
        self.edit_tools.update(case, nothing or waits)
        self.allow(
            self.ui.saveButton,
            nothing or waits,
            _("Save the correction in the folder of the data set, for training") + " (Ctrl+Shift+S)",
        )
        self.ui.reviewerEdit.enabled = self.parameters.keepWho
        if self.ui.reviewerEdit.text != self.parameters.reviewer:
            self.ui.reviewerEdit.text = self.parameters.reviewer
        self._show_state(case)

    def _resume(self, case) -> None:
        """Continue with the open case of a loaded scene, or of a panel that was opened again."""
        watched = self.autosave.case
        if watched is None or watched.correction is not case.correction:
            self.take_up(case)
        elif self.editor.segmentation is not case.correction:  # the widget drops its nodes at the end of an import
            self.editor.take_up(case.correction, case.volume)

    def _show_state(self, case) -> None:
        autosave = self.autosave
        text = _("No case is open.")
        if case is not None:
            source = _("the saved correction") if case.was_saved else _("the reviewed label")
            text = _("<b>{id}</b>, based on {source}.").format(id=case.id, source=source)
            if autosave.problem:
                text += " " + _("<b>Not saved</b>: {problem}").format(problem=autosave.problem)
            elif case.unsaved and autosave.drafted_at:
                text += " " + _("Draft saved at {time}.").format(time=autosave.drafted_at)
            elif case.unsaved:
                text += " " + _("Changed.")
        self.ui.caseLabel.text = wrappable(text)
        self.ui.recoveryFrame.setVisible(self.draft is not None)
        if self.draft is not None:
            self.ui.recoveryLabel.text = _("Unsaved correction of {when}.").format(when=self.draft)
        self._show_comparison(case)

    def _on_autosave(self) -> None:
        self._compared = None
        self.panel.update_soon()

    def _show_comparison(self, case) -> None:
        """Show the difference between the correction and the newest result of its scan."""
        label = self.ui.comparisonLabel
        if case is None:
            label.setVisible(False)
            return
        results = [node for role in ("noisy label", "prediction") for node in nodes.products(role, case.volume)]
        order = slicer.mrmlScene.GetNodes()
        newest = max(results, key=order.IsItemPresent, default=None)
        if newest is not None and self._compared != newest.GetID():
            self._compared = newest.GetID()
            text = _("Compared with “{name}”: {words}").format(name=newest.GetName(), words=difference(case, newest))
            label.text = wrappable(text)
        label.setVisible(newest is not None)

    # ---------------------------------------------------------------- keep

    def on_reviewer(self, name: str) -> None:
        """Store the reviewer."""
        if self.parameters is not None and self.parameters.reviewer != name:
            self.parameters.reviewer = name

    @reported
    def on_restore(self) -> None:
        """Restore the draft; undo brings the present correction back."""
        self.editor.widget.saveStateForUndo()
        self.autosave.restore(self.case.write)
        self.say(_("The unsaved correction is restored."))

    @reported
    def on_discard(self) -> None:
        """Delete the draft."""
        self.autosave.discard()
        self.panel.update_soon()

    @reported
    def on_save(self) -> None:
        """Save the correction in the data set."""
        if self.ui.saveButton.enabled:
            review, case = self.panel.review, self.case
            review.count_time()
            item, spent = review.item(case.id), case.seconds
            message = self.save()
            item["status"] = "corrected"
            item["seconds"] += spent
            self.say(message)
            self.panel.update_soon()

    def save(self) -> str:
        """Save the correction; return a message for the user.

        Raises:
            InputError: the correction could not be saved.

        """
        parameters, case = self.parameters, self.case
        map_unknown(case.correction, self.widget)
        saved = self.autosave.save("corrected", parameters.reviewer if parameters.keepWho else "", parameters.keepWhen)
        scores = saved.record.get("dice_with_noisy_label", {})
        words = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        text = _("{id} is saved.").format(id=case.id)
        if words:
            text += " " + _("Dice with the reviewed label: {words}; {volume:.0f} mm³ changed.").format(
                words=words, volume=saved.record.get("changed_mm3", 0.0)
            )
        return text


def difference(case, segmentation) -> str:
    """Return Dice and volumes of each structure, in the correction and in a result."""
    from crossmoda import labels
    from crossmoda.evaluation import dice_per_structure

    correction, result = case.array(), case.array(segmentation)
    scores, voxel = dice_per_structure(correction, result), nodes.grid_of(case.volume).voxel_volume_mm3
    sentences = []
    for structure in labels.STRUCTURES:
        before, after = (float((array == structure.value).sum()) * voxel for array in (correction, result))
        if not before and not after:
            continue
        change = ""
        if before and after:
            percent = 100 * (after / before - 1)
            words = _("{percent:.0f} % larger") if percent >= 0 else _("{percent:.0f} % smaller")
            change = f" ({words.format(percent=abs(percent))})" if abs(percent) >= 0.5 else " " + _("(same volume)")
        sentences.append(
            _("{name} Dice {dice:.2f}, correction {before:.0f} mm³, result {after:.0f} mm³{change}").format(
                name=structure.name.lower(), dice=scores[structure.key], before=before, after=after, change=change
            )
        )
    return "; ".join(sentences) + "." if sentences else _("both are empty.")
