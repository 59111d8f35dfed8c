"""What the sections of the panel share."""

import functools
import logging
import re
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

UI_FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "UI"
#: What a message is: something to mend, or a remark.
ERROR, NOTE = "error", "note"
#: The red of errors on a light and on a dark panel; both have a contrast of at least 4.5 to it.
_RED_ON_LIGHT, _RED_ON_DARK = "#b3261e", "#f2b8b5"
#: Words of so many letters or more may be broken.
_LONG_WORD = 32


def reported(method, keeps_remark: bool = False):
    """Show what goes wrong in a slot next to the controls of its section.

    What was said before is gone then; ``keeps_remark``: only if it was an error.
    """

    @functools.wraps(method)
    def slot(self):
        from crossmoda.errors import InputError

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


#: For slots that only show something: what a run said of its result can still be read beside it.
reported_beside = functools.partial(reported, keeps_remark=True)


def refuse(hindrance: str) -> None:
    """Raise InputError if something hinders a button that has not yet been grayed out for it."""
    from crossmoda.errors import InputError

    if hindrance:
        raise InputError(hindrance)


class Section:
    """One collapsible part of the panel: a .ui file and what its controls do."""

    #: The .ui file's name; set by subclasses.
    name = ""

    def __init__(self, panel):
        """Load the section's controls; ``panel`` gives the logic and the parameter node."""
        self.panel, self.logic = panel, panel.logic
        self.widget = slicer.util.loadUI(str(UI_FOLDER / f"{self.name}.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        policy = qt.QSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        policy.setHorizontalStretch(1)
        for label in vars(self.ui).values():
            if isinstance(label, qt.QLabel) and label.wordWrap:  # else Qt reckons its lines at the width it would like
                label.setSizePolicy(policy)
        self.say("")

    @property
    def parameters(self):
        """The state of the panel; None while the scene is being closed."""
        return self.panel.parameters

    def update(self) -> None:
        """Show the state of scene and work."""

    def show_style(self) -> None:
        """Take on the colors of Slicer's style, which may have been switched."""
        style = f"color: {red(self.widget)}" if self.is_error else ""
        if self.ui.messageLabel.styleSheet != style:
            self.ui.messageLabel.setStyleSheet(style)

    def forget(self) -> None:
        """Let go of what belongs to a scene that is being closed."""
        self.say("")

    def enter(self) -> None:
        """Do what the panel's opening asks for."""

    def exit(self) -> None:
        """Do what the panel's leaving asks for."""

    def say(self, text: str, kind: str = NOTE) -> None:
        """Show a message under the controls: an error in red, a remark in the color of the panel's text."""
        self.ui.messageLabel.text = wrappable(text)
        self.is_error = kind == ERROR
        self.show_style()
        self.ui.messageLabel.setVisible(bool(text))

    @staticmethod
    def allow(button, reason: str, tip: str) -> None:
        """Enable a button, or disable it with a tool tip that says why."""
        button.enabled = not reason
        button.toolTip = reason or tip

    def shows(self, target) -> bool:
        """Whether results of a target are to be shown: another one may have been chosen since work on it began."""
        return self.parameters.target in (target, None)

    def busy_reason(self) -> str:
        """Say why no work can be started now; an empty string if it can."""
        return _("CrossModa is at work; wait for it or cancel it.") if self.logic.busy else ""

    def bind_path(self, edit, parameter: str, kinds: str = "Dirs") -> None:
        """Keep a path and a string parameter the same."""
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


def red(widget) -> str:
    """Return the red that can be read on a widget, in Slicer's light and dark style alike."""
    is_dark = widget.palette.color(qt.QPalette.Window).lightness() < 128
    return _RED_ON_DARK if is_dark else _RED_ON_LIGHT


def wrappable(text: str) -> str:
    """Return a text whose long words (names of files and scans) can go on in the next line, here and there.

    A label is at least as wide as its longest word; one of eighty letters would push half of the panel out of view.
    Tags stay as they are: a link leads to where it led.
    """

    def broken(word: re.Match) -> str:
        if word[0].startswith("<"):
            return word[0]
        at_signs = re.sub(r"([_/\\.-])", "\\1\u200b", word[0])
        return re.sub(rf"[^\u200b]{{{_LONG_WORD}}}", "\\g<0>\u200b", at_signs)

    return re.sub(rf"<[^<>]*>|[^\s<>]{{{_LONG_WORD},}}", broken, text)


def shortened(name: str, most: int = 22) -> str:
    """Return a name without its middle if it is too long for a narrow column; its tool tip should have all of it."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def set_columns(table, titles: list[str], stretched: int) -> None:
    """Give a table its columns; one of them takes the space left."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.verticalHeader().setVisible(False)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    header = table.horizontalHeader()
    header.setHighlightSections(False)  # bold headings would be wider than their columns
    for column in range(len(titles)):
        header.setSectionResizeMode(
            column, qt.QHeaderView.Stretch if column == stretched else qt.QHeaderView.ResizeToContents
        )
