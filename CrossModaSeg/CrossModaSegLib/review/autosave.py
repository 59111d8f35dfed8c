"""Autosave of a correction: drafts while it is edited, recovery after a crash, the final save."""

import functools
import time
from pathlib import Path

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.review.reviewed_case import IMAGE, REVIEWED, ReviewedCase
from CrossModaSegLib.scene import segments

#: Time from the first edit to the draft on disk (ms): a crash loses no more than this.
AUTOSAVE_MS = 3000
_EDITS = ("SourceRepresentationModified", "SegmentAdded", "SegmentRemoved")
#: Events of undo, but also of renaming, coloring and saving the scene: the voxels are compared.
_POSSIBLE_EDIT = "SegmentModified"


class Autosave:
    """Saves drafts of a correction in the folder of its data set."""

    def __init__(self, changed):
        """``changed()`` is called when the state of the draft changes."""
        self.case: ReviewedCase | None = None
        self.problem, self.drafted_at = "", ""
        #: Time of an undecided draft of an earlier session; it is not overwritten.
        self.pending = None
        self._changed, self._tags, self._quiet, self._saved = changed, [], 0, None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(AUTOSAVE_MS)
        self._timer.connect("timeout()", self.save_draft)

    def watch(self, case: ReviewedCase) -> None:
        """Save drafts of a correction from now on."""
        self.leave()
        self.case, self.problem, self.drafted_at = case, "", ""
        self._saved = None if case.unsaved else case.array()
        self.pending = self._draft()
        content = case.correction.GetSegmentation()
        for event in (*_EDITS, _POSSIBLE_EDIT):
            callback = self._on_edit if event in _EDITS else self._on_change
            self._tags.append((content, content.AddObserver(getattr(slicer.vtkSegmentation, event), callback)))

    def leave(self) -> None:
        """Save a draft of an unsaved correction, and stop watching."""
        self.look()
        self.forget()

    def look(self) -> None:
        """Save a draft at once if the last event was an edit."""
        if self._timer.isActive():
            self.save_draft()

    def flush(self) -> None:
        """Save a draft if the correction is unsaved."""
        if self._timer.isActive() or (self.case is not None and self.case.unsaved):
            self.save_draft()

    def forget(self) -> None:
        """Stop watching without saving."""
        self._timer.stop()
        for content, tag in self._tags:
            content.RemoveObserver(tag)
        self._tags, self.case, self.pending, self._saved = [], None, None, None

    def _on_edit(self, _caller, _event) -> None:
        if self.case is not None and not self._quiet:
            if not self.case.unsaved:
                self.case.unsaved = True
                self._changed()
            self._on_change()

    def _on_change(self, _caller=None, _event=None) -> None:
        if self.case is not None and not self._quiet and not self._timer.isActive():
            self._timer.start()

    def quietly(self, action) -> None:
        """Change the correction without counting it as an edit (such as restoring a draft)."""
        self._quiet += 1
        try:
            action()
        finally:
            self._quiet -= 1

    def save_draft(self) -> None:
        """Save a draft; after a failure, ``problem`` has the reason and the edits are still in the scene."""
        from crossmoda.dataset import corrections

        self._timer.stop()
        case = self.case
        if case is None or self.pending is not None or case.volume is None or case.volume.GetImageData() is None:
            return
        label_map, unknown = case.label_map(), segments.problem(case.correction)
        if not unknown and self._saved is not None and np.array_equal(label_map.array, self._saved):
            self._forget_edits()  # everything is undone, or only a color or a name has changed
            return
        case.unsaved = True
        try:
            corrections.save_draft(case.data, case.id, label_map, case.based_on, case.seconds)
            self.problem, self.drafted_at = unknown, time.strftime("%H:%M:%S")
        except InputError as error:
            self.problem = str(error)
        self._changed()

    def _forget_edits(self) -> None:
        """Delete the draft of edits that were all undone."""
        from crossmoda.dataset import corrections

        if self.drafted_at:
            corrections.discard_draft(self.case.data, self.case.id)
        self.case.unsaved, self.problem, self.drafted_at = False, "", ""
        self._changed()

    def _draft(self) -> str | None:
        """Return the time (HH:MM, or the date) of an earlier session's draft, or None."""
        from crossmoda.dataset import corrections

        draft = corrections.find_draft(self.case.data, self.case.id) if not self.case.unsaved else None
        return _when(draft.path) if draft is not None else None

    def restore(self, write) -> None:
        """Restore a draft: ``write(array)`` sets the correction."""
        from crossmoda.dataset import corrections

        case = self.case
        draft = corrections.find_draft(case.data, case.id)
        if draft is None:
            raise InputError(_("Draft not found: {id}. Continue with the label in the scene.").format(id=case.id))
        array = draft.read(case.label_map().grid).array
        self.pending = None
        case.seconds += draft.seconds
        self.quietly(functools.partial(write, array))
        case.unsaved = True
        self.drafted_at = _when(draft.path)
        self._changed()

    def discard(self) -> None:
        """Delete the draft."""
        from crossmoda.dataset import corrections

        corrections.discard_draft(self.case.data, self.case.id)
        self.pending = None
        self._changed()

    def save(self, status: str, reviewer: str = "", when: bool = False):
        """Save the correction in the data set; return its record.

        Raises:
            InputError: the folder cannot be written, or the label map cannot be used.

        """
        from crossmoda.dataset import Case, corrections

        case = self.case
        image = Case(case.id, "hrT2", Path(case.correction.GetAttribute(IMAGE)), None)
        corrections.save(
            image,
            case.label_map(),
            case.data,
            status,
            case.seconds,
            case.based_on,
            reviewer or None,
            when,
            noisy=case.correction.GetAttribute(REVIEWED) or None,
        )
        self._timer.stop()
        self._settle()
        return corrections.load(case.data, case.id)

    def mark(self, status: str, results: str = "") -> None:
        """Record a decision without a new label.

        Raises:
            InputError: the folder cannot be written.

        """
        from crossmoda.dataset import corrections

        case = self.case
        corrections.mark(case.data, case.id, status, case.seconds, results=results or None)
        case.seconds = 0.0
        self._changed()

    def _settle(self) -> None:
        """Reset the state after a save; the next edit begins a new draft."""
        self.case.seconds, self.case.unsaved = 0.0, False
        self._saved = self.case.array()
        self.problem, self.drafted_at = "", ""
        self._changed()


def _when(path: Path) -> str:
    saved = time.localtime(path.stat().st_mtime)
    today = time.localtime()[:3] == saved[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", saved)
