"""The work on a correction is kept: saved on the way while it is edited, found again after a crash, saved for good."""

import functools
import time
from pathlib import Path

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.review.reviewed_case import IMAGE, REVIEWED, ReviewedCase

#: Milliseconds from the first edit to the draft on disk: nothing older than this is lost when the application crashes.
AUTOSAVE_MS = 3000
_EDITS = ("SourceRepresentationModified", "SegmentAdded", "SegmentRemoved")
#: Undo does this, but so do renaming, coloring and saving the scene: the voxels tell whether it was an edit.
_PERHAPS = "SegmentModified"


class Keeper:
    """Watches a correction and keeps a draft of it beside the data."""

    def __init__(self, changed):
        """``changed()`` is called when the state of the draft changes."""
        self.case: ReviewedCase | None = None
        self.problem, self.drafted_at = "", ""
        #: The draft of an earlier session about which nobody has decided yet: it is not overwritten.
        self.pending = None
        self._changed, self._tags, self._quiet, self._kept = changed, [], 0, None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(AUTOSAVE_MS)
        self._timer.connect("timeout()", self.autosave)

    def watch(self, case: ReviewedCase) -> None:
        """Keep drafts of a correction from now on."""
        self.leave()
        self.case, self.problem, self.drafted_at = case, "", ""
        self._kept = None if case.unsaved else case.array()
        self.pending = self._draft()
        content = case.correction.GetSegmentation()
        for event in (*_EDITS, _PERHAPS):
            seen = self._on_edit if event in _EDITS else self._on_change
            self._tags.append((content, content.AddObserver(getattr(slicer.vtkSegmentation, event), seen)))

    def leave(self) -> None:
        """Save a draft of what is not saved, and stop watching."""
        self.look()
        self.forget()

    def look(self) -> None:
        """Find out now whether what happened last was an edit, and save a draft if it was."""
        if self._timer.isActive():
            self.autosave()

    def draft(self) -> None:
        """Save a draft of what is unsaved, if anything is."""
        if self._timer.isActive() or (self.case is not None and self.case.unsaved):
            self.autosave()

    def forget(self) -> None:
        """Stop watching; nothing is saved."""
        self._timer.stop()
        for content, tag in self._tags:
            content.RemoveObserver(tag)
        self._tags, self.case, self.pending, self._kept = [], None, None, None

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
        """Do something that is no edit of the user (such as restoring a draft)."""
        self._quiet += 1
        try:
            action()
        finally:
            self._quiet -= 1

    def autosave(self) -> None:
        """Save a draft; a failure is remembered and the work stays in the scene."""
        from crossmoda.dataset import corrections
        from crossmoda.errors import InputError

        self._timer.stop()
        case = self.case
        if case is None or self.pending is not None or case.volume is None or case.volume.GetImageData() is None:
            return
        label_map = case.label_map()
        if not self.drafted_at and self._kept is not None and np.array_equal(label_map.array, self._kept):
            case.unsaved = False  # a color or a name was changed, nothing was drawn
            self._changed()
            return
        case.unsaved = True
        try:
            corrections.save_draft(case.data, case.id, label_map, case.based_on, case.seconds)
            self.problem, self.drafted_at = "", time.strftime("%H:%M:%S")
        except InputError as error:
            self.problem = str(error)
        self._changed()

    def _draft(self) -> str | None:
        """Return when (HH:MM, or the date) an earlier session left a draft, or None."""
        from crossmoda.dataset import corrections

        found = corrections.find_draft(self.case.data, self.case.id) if not self.case.unsaved else None
        return _when(found.path) if found is not None else None

    def restore(self, write) -> None:
        """Take up a draft again: ``write(array)`` sets the correction."""
        from crossmoda.dataset import corrections
        from crossmoda.errors import InputError

        case = self.case
        draft = corrections.find_draft(case.data, case.id)
        if draft is None:
            raise InputError(_("The unsaved correction is no longer there."))
        array = draft.read(case.label_map().grid).array
        self.pending = None
        case.seconds += draft.seconds
        self.quietly(functools.partial(write, array))
        case.unsaved = True
        self.drafted_at = _when(draft.path)
        self._changed()

    def discard(self) -> None:
        """Throw the draft away."""
        from crossmoda.dataset import corrections

        corrections.discard_draft(self.case.data, self.case.id)
        self.pending = None
        self._changed()

    def save(self, status: str, reviewer: str = "", when: bool = False):
        """Save the correction for good; return what the data set then knows of it.

        Raises:
            InputError: the folder cannot be written, or the label map cannot be used; the work stays in the scene.

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
        self.settled()
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

    def settled(self) -> None:
        """All work is kept; the next edit begins a new draft."""
        self.case.seconds, self.case.unsaved = 0.0, False
        self._kept = self.case.array()
        self.problem, self.drafted_at = "", ""
        self._changed()


def _when(path: Path) -> str:
    saved = time.localtime(path.stat().st_mtime)
    today = time.localtime()[:3] == saved[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", saved)


_now = time.monotonic


class Stopwatch:
    """Counts the time spent on a case while the panel is open."""

    def __init__(self):
        """Stand still."""
        self._since: float | None = None

    def go(self) -> None:
        """Run."""
        if self._since is None:
            self._since = _now()

    def stop(self) -> float:
        """Stand still; return the seconds since it was started."""
        seconds = self.lap()
        self._since = None
        return seconds

    def lap(self) -> float:
        """Return the seconds since the last lap, and go on."""
        if self._since is None:
            return 0.0
        now = _now()
        seconds, self._since = now - self._since, now
        return seconds
