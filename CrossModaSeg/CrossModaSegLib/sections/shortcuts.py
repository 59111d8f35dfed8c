"""Keys that work while the panel is open, and only then."""

import qt


class Shortcuts:
    """A set of keys with what they do."""

    def __init__(self, parent, actions: dict):
        """Make the keys for a widget's window; they do nothing until :meth:`install`."""
        self.keys = []
        for key, action in actions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), parent)
            shortcut.connect("activated()", action)
            shortcut.enabled = False
            self.keys.append(shortcut)

    def install(self) -> None:
        """Let the keys work."""
        for shortcut in self.keys:
            shortcut.enabled = True

    def uninstall(self) -> None:
        """Give the keys back."""
        for shortcut in self.keys:
            shortcut.enabled = False
