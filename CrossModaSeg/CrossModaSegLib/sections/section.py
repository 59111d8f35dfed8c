"""What the sections of the panel share."""

import functools
import logging
import re
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes.tasks import TaskQueue

UI_FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "UI"
#: The kinds of a message.
ERROR, NOTE = "error", "note"
#: The red of errors on a light and on a dark panel; both have a contrast of at least 4.5 to it.
_RED_ON_LIGHT, _RED_ON_DARK = "#b3261e", "#f2b8b5"
#: Words of so many letters or more may be broken.
_LONG_WORD = 32
#: The least width of a selector of nodes or choices (pixels).
_SELECTOR_WIDTH = 80
#: Of the tables of measures (pixels): all rows are in sight.
ROW_HEIGHT = 18


def reported(method, keeps_remark: bool = False):
    """Show the errors of a slot next to the controls of its section.

    An earlier message is cleared; with ``keeps_remark`` only if it was an error.
    """

    @functools.wraps(method)
    def slot(self):
        try:
            if not keeps_remark or self.is_error:
                self.say("")
            return method(self)
        except InputError as error:
            self.say(str(error), ERROR)
        except Exception as error:
            logging.exception("CrossModa")
            self.say(_("Unexpected: {error}. The application log has the details.").format(error=error), ERROR)

    return slot


#: For slots that only show a result: the message of its run stays.
reported_beside = functools.partial(reported, keeps_remark=True)


def refuse(hindrance: str) -> None:
    """Raise InputError if a button that is not yet disabled cannot be used."""
    if hindrance:
        raise InputError(hindrance)


class Section:
    """One part of the panel: a .ui file and what its controls do."""

    #: The name of the .ui file; set by subclasses.
    name = ""
    cancelled, cancel_tip = _("Cancelled."), _("Stop at once")

    def __init__(self, panel):
        """Load the section's controls; ``panel`` gives the logic and the parameter node."""
        self.panel, self.logic = panel, panel.logic
        self.widget = slicer.util.loadUI(str(UI_FOLDER / f"{self.name}.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        fit_width(vars(self.ui).values())
        self._work, self._done = None, None
        self._removed_target = ""
        if hasattr(self.ui, "cancelButton"):
            self.ui.cancelButton.connect("clicked(bool)", self.on_cancel)
        self.say("")

    @property
    def parameters(self):
        """The state of the panel; None while the scene is being closed."""
        return self.panel.parameters

    def update(self) -> None:
        """Show the state of scene and work."""

    def report_removed_target(self, name: str) -> None:
        """Show that the target was removed from the scene, until another one is selected."""
        self._removed_target = name
        self.say(_("Scan removed from the scene: {name}. Select a scan.").format(name=name))

    def forget_removed_target(self) -> None:
        """Clear that message if a target is selected."""
        if self._removed_target and self.parameters.target is not None:
            self._removed_target = ""
            self.say("")

    def show_style(self) -> None:
        """Apply the colors of Slicer's current style."""
        style = f"color: {red(self.widget)}" if self.is_error else ""
        if self.ui.messageLabel.styleSheet != style:
            self.ui.messageLabel.setStyleSheet(style)

    def forget(self) -> None:
        """Release the content of a scene that is being closed."""
        self._work = None
        self.say("")

    def enter(self) -> None:
        """React to the opening of the panel."""

    def exit(self) -> None:
        """React to the leaving of the panel."""

    def say(self, text: str, kind: str = NOTE) -> None:
        """Show a message under the controls, an error in red."""
        self.ui.messageLabel.text = wrappable(text)
        self.is_error = kind == ERROR
        self.show_style()
        self.ui.messageLabel.setVisible(bool(text))

    @staticmethod
    def allow(button, reason: str, tip: str) -> None:
        """Enable a button, or disable it with the reason as tool tip."""
        button.enabled = not reason
        button.toolTip = reason or tip

    def shows(self, target) -> bool:
        """Whether a target is the selected one, so that its results are shown."""
        return self.parameters.target in (target, None)

    def busy_reason(self) -> str:
        """Return why no work can be started; an empty string if it can."""
        return _("CrossModa is busy. Wait or cancel.") if self.logic.busy else ""

    # ---------------------------------------------------------------- work

    @property
    def running(self) -> bool:
        """Whether work of this section is running."""
        return self._work is not None and not self._work.over

    def start(self, queue: TaskQueue, done=None) -> None:
        """Start work and show its messages; ``done(result)`` gets the result of the last task."""
        self._work, self._done = queue, done
        queue.observe(self.on_work)
        queue.start()
        self.panel.update()

    def on_work(self) -> None:
        """Show the state of the work."""
        work = self._work
        if work is None or self.parameters is None:
            return
        if work.failures:
            self.say(work.failures[0].error, ERROR)
        elif work.cancelled:
            self.say(self.cancelled)
        elif work.current is not None:
            self.say(f"{work.current.title}: {work.current.message}".rstrip(": "))
        elif work.succeeded and self._done:
            done, self._done = self._done, None
            done(work.tasks[-1].result)
        self.panel.update_soon()

    def on_cancel(self) -> None:
        """Stop the work at once."""
        if self.running:
            self._work.cancel()

    def show_progress(self) -> None:
        """Show the progress of the work, and whether it can be cancelled."""
        bar = self.ui.progressBar
        bar.enabled = self.running
        if self._work is None:
            bar.value = 0
        elif self.running or self._work.succeeded:
            bar.value = round(100 * self._work.progress)
        nothing = "" if self.running else _("Nothing is running.")
        self.allow(self.ui.cancelButton, nothing, self.cancel_tip)

    # ---------------------------------------------------------------- controls

    def bind_path(self, edit, parameter: str, kinds: str = "Dirs") -> None:
        """Synchronize a path and a string parameter."""
        import ctk

        edit.filters = getattr(ctk.ctkPathLineEdit, kinds)

        def changed(path):
            if self.parameters and getattr(self.parameters, parameter) != path:
                setattr(self.parameters, parameter, path)

        edit.connect("currentPathChanged(QString)", changed)

    def show_path(self, edit, path: str) -> None:
        """Show a path that the parameter node has."""
        if edit.currentPath != path:
            edit.currentPath = path


def fit_width(widgets) -> None:
    """Let widgets be as wide as the panel, whatever names they show: selectors elide them, labels wrap them."""
    for widget in widgets:
        is_label = (
            isinstance(widget, qt.QLabel) and widget.wordWrap
        )  # else Qt computes its height at its preferred width
        is_selector = isinstance(widget, (qt.QComboBox, slicer.qMRMLNodeComboBox))
        if is_label or is_selector:
            policy = qt.QSizePolicy(qt.QSizePolicy.Ignored, widget.sizePolicy.verticalPolicy())
            policy.setHorizontalStretch(1)
            widget.setSizePolicy(policy)
        if is_selector:
            widget.setMinimumWidth(_SELECTOR_WIDTH)


def red(widget) -> str:
    """Return a red with enough contrast on a widget, in a light or dark style."""
    is_dark = widget.palette.color(qt.QPalette.Window).lightness() < 128
    return _RED_ON_DARK if is_dark else _RED_ON_LIGHT


def wrappable(text: str) -> str:
    """Return a text whose long words (names of files and scans) can be broken into lines; tags stay unchanged.

    A label is at least as wide as its longest word.
    """

    def broken(word: re.Match) -> str:
        if word[0].startswith("<"):
            return word[0]
        at_signs = re.sub(r"([_/\\.-])", "\\1\u200b", word[0])
        return re.sub(rf"[^\u200b]{{{_LONG_WORD}}}", "\\g<0>\u200b", at_signs)

    return re.sub(rf"<[^<>]*>|[^\s<>]{{{_LONG_WORD},}}", broken, text)


def shortened(name: str, most: int = 22) -> str:
    """Return a name without its middle if it is too long for a narrow column."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def set_columns(table, titles: list[str], *stretched: int) -> None:
    """Set the columns of a table; the ``stretched`` ones share the remaining width, their texts are elided."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.verticalHeader().setVisible(False)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    header = table.horizontalHeader()
    header.setHighlightSections(False)  # bold headings would be wider than their columns
    for column in range(len(titles)):
        header.setSectionResizeMode(
            column, qt.QHeaderView.Stretch if column in stretched else qt.QHeaderView.ResizeToContents
        )
