"""Correct: Slicer's Segment Editor with helpers that can be undone; the work is kept."""

import contextlib

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.review.autosave import Keeper
from CrossModaSegLib.review.edit_tools import Helpers
from CrossModaSegLib.review.segment_editor import Editor
from CrossModaSegLib.scene import nodes
from CrossModaSegLib.sections.section import Section, reported, wrappable
from CrossModaSegLib.sections.shortcuts import Shortcuts


class CorrectSection(Section):
    """The correction that is worked on."""

    name = "Correct"

    def __init__(self, panel):
        """Connect the controls; the editor is made when the first case is opened."""
        super().__init__(panel)
        self.keeper, self.editor = Keeper(self._on_kept), Editor(self.ui.editorWidget)
        self._compared = None
        self.helpers = Helpers(self)
        for name in ("restore", "discard", "save"):
            getattr(self.ui, name + "Button").connect("clicked(bool)", getattr(self, f"on_{name}"))
        self.ui.reviewerEdit.connect("textChanged(QString)", self.on_reviewer)
        self.ui.recoveryFrame.setVisible(False)
        self._keys = Shortcuts(self.widget, {**self.helpers.keys(), "Ctrl+Shift+S": self.on_save})

    @property
    def case(self):
        """The case that is open, or None."""
        return self.panel.review.case

    @property
    def draft(self) -> str | None:
        """When an earlier session left a draft about which nobody has decided yet; None if there is none."""
        return self.keeper.pending

    def enter(self) -> None:
        """Let the editor's keys and the helpers' keys work."""
        self.editor.enter()
        self._keys.install()

    def exit(self) -> None:
        """Give the keys and the slice views back; the work so far is saved."""
        self._keys.uninstall()
        self.editor.exit()
        self.keeper.draft()

    # ---------------------------------------------------------------- life of a case

    def take_up(self, case) -> None:
        """Edit the correction of a case that was opened."""
        self.editor.take_up(case.correction, case.volume)
        self.keeper.watch(case)
        self.helpers.drop_suggestion()
        self._compared = None
        self.say("")
        self.panel.update_soon()

    def keep_before_leaving(self, status: str) -> str:
        """Save what is unsaved as a draft, and the time; return what is to be said if that failed."""
        from crossmoda.errors import InputError

        keeper = self.keeper
        if keeper.case is None:
            return ""
        keeper.draft()
        if keeper.case.unsaved:
            if keeper.problem:
                return _("The correction of {id} stays in the scene: {problem}").format(
                    id=keeper.case.id, problem=keeper.problem
                )
        elif keeper.case.seconds >= 1:
            item, seconds = self.panel.review.item(keeper.case.id), keeper.case.seconds
            with contextlib.suppress(InputError):  # a folder that cannot be written: only the time is lost
                keeper.mark(status)
                item["seconds"] += seconds
        return ""

    def let_go(self) -> None:
        """Leave the correction; the editor is empty then."""
        self.keeper.forget()
        self.helpers.drop_suggestion()
        self.editor.let_go()

    def closing(self) -> None:
        """Save the work before the scene or the panel is closed."""
        self.keeper.draft()
        self.let_go()

    # ---------------------------------------------------------------- state

    def update(self) -> None:
        """Show the state of the correction, and what can be done."""
        case = self.case
        if case is not None and (self.keeper.case is None or self.keeper.case.correction is not case.correction):
            self.take_up(case)  # a scene that was loaded, or a panel that was opened again
        nothing = "" if case is not None else _("Open a case in “Review” first.")
        waits = "" if self.draft is None else _("Restore or discard the unsaved correction first.")
        self.ui.editorWidget.setVisible(case is not None and not waits)
        self.ui.helpersGroupBox.enabled = case is not None and not waits
        self.helpers.update(case, nothing or waits)
        self.allow(
            self.ui.saveButton,
            nothing or waits,
            _("Save the correction in the data set's folder, where training finds it") + " (Ctrl+Shift+S)",
        )
        self.ui.reviewerEdit.enabled = self.parameters.keepWho
        if self.ui.reviewerEdit.text != self.parameters.reviewer:
            self.ui.reviewerEdit.text = self.parameters.reviewer
        self._show_state(case)

    def _show_state(self, case) -> None:
        keeper = self.keeper
        text = _("No case is open.")
        if case is not None:
            source = _("the correction that was saved") if case.was_saved else _("the label to be reviewed")
            text = _("<b>{id}</b>, begun with {source}.").format(id=case.id, source=source)
            if keeper.problem:
                text += " " + _("<b>Not saved</b>: {problem}").format(problem=keeper.problem)
            elif case.unsaved and keeper.drafted_at:
                text += " " + _("Draft saved at {time}.").format(time=keeper.drafted_at)
            elif case.unsaved:
                text += " " + _("Changed.")
        self.ui.caseLabel.text = wrappable(text)
        self.ui.recoveryFrame.setVisible(self.draft is not None)
        if self.draft is not None:
            self.ui.recoveryLabel.text = _("An unsaved correction of {when} was found.").format(when=self.draft)
        self._show_comparison(case)

    def _on_kept(self) -> None:
        self._compared = None
        self.panel.update_soon()

    def _show_comparison(self, case) -> None:
        """Say how the correction differs from the newest result of its scan."""
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
        """Remember who corrects."""
        if self.parameters is not None and self.parameters.reviewer != name:
            self.parameters.reviewer = name

    @reported
    def on_restore(self) -> None:
        """Go on with the draft that was found; what is in the scene can be had back with undo."""
        self.editor.widget.saveStateForUndo()
        self.keeper.restore(self.case.write)
        self.say(_("The unsaved correction is back."))

    @reported
    def on_discard(self) -> None:
        """Throw the draft away."""
        self.keeper.discard()
        self.panel.update_soon()

    @reported
    def on_save(self) -> None:
        """Save the correction for good."""
        if self.ui.saveButton.enabled:
            review, case = self.panel.review, self.case
            review.count_time()
            item, spent = review.item(case.id), case.seconds
            said = self.save()
            item["status"] = "corrected"
            item["seconds"] += spent
            self.say(said)
            self.panel.update_soon()

    def save(self) -> str:
        """Save the correction; return what is to be said.

        Raises:
            InputError: it could not be saved; it stays in the scene.

        """
        parameters, case = self.parameters, self.case
        kept = self.keeper.save("corrected", parameters.reviewer if parameters.keepWho else "", parameters.keepWhen)
        scores = kept.record.get("dice_with_noisy_label", {})
        words = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        text = _("{id} is saved.").format(id=case.id)
        if words:
            text += " " + _("Dice with the label before: {words}; {volume:.0f} mm³ changed.").format(
                words=words, volume=kept.record.get("changed_mm3", 0.0)
            )
        return text


def difference(case, segmentation) -> str:
    """Say how a result differs from the correction: agreement and volumes of each structure."""
    from crossmoda import labels
    from crossmoda.evaluation import dice_per_structure

    mine, other = case.array(), case.array(segmentation)
    scores, voxel = dice_per_structure(mine, other), nodes.grid_of(case.volume).voxel_volume_mm3
    sentences = []
    for structure in labels.STRUCTURES:
        before, after = (float((array == structure.value).sum()) * voxel for array in (mine, other))
        if not before and not after:
            continue
        change = ""
        if before and after:
            percent = 100 * (after / before - 1)
            words = _("{percent:.0f} % larger") if percent >= 0 else _("{percent:.0f} % smaller")
            change = f" ({words.format(percent=abs(percent))})" if abs(percent) >= 0.5 else " " + _("(as large)")
        sentences.append(
            _("{name} Dice {dice:.2f}, {before:.0f} mm³ here, {after:.0f} mm³ there{change}").format(
                name=structure.name.lower(), dice=scores[structure.key], before=before, after=after, change=change
            )
        )
    return "; ".join(sentences) + "." if sentences else _("both are empty.")
