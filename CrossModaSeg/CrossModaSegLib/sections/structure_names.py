"""The dialog that asks for the structures of segments with unknown names."""

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.scene import segments


def map_unknown(segmentation, parent) -> None:
    """Ask for the structure of each segment whose name is not known, and remember the answers in the segmentation.

    Args:
        segmentation: the segmentation node.
        parent: the widget over which the window opens.

    Raises:
        InputError: the user cancelled; it lists the unknown names.

    """
    unknown = segments.unknown_names(segmentation)
    if not unknown:
        return
    dialog = StructureNamesDialog(segmentation.GetName(), unknown, parent)
    if dialog.ask():
        segments.map_names(segmentation, dialog.answers())
    segments.refuse_unknown(segmentation)


class StructureNamesDialog:
    """A row for each unknown name, with the structures to choose from; nothing is chosen at first."""

    def __init__(self, segmentation: str, names: list[str], parent):
        """Make the window."""
        from crossmoda import labels, structure_names

        self.window = qt.QDialog(parent)
        self.window.setWindowTitle(_("Unknown segment names"))
        layout = qt.QFormLayout(self.window)
        text = qt.QLabel(_("Choose the structure of each segment of {name}:").format(name=segmentation))
        text.setWordWrap(True)
        layout.addRow(text)
        self._selectors = {}
        for name in dict.fromkeys(names):
            selector = qt.QComboBox()
            selector.addItem(_("Choose..."), "")
            for structure in labels.STRUCTURES:
                selector.addItem(structure.name, structure.key)
            selector.addItem(_("Ignore (background)"), structure_names.IGNORE)
            selector.connect("currentIndexChanged(int)", self._update)
            layout.addRow(qt.QLabel(name[:60]), selector)
            self._selectors[name] = selector
        self.buttons = qt.QDialogButtonBox(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
        self.buttons.connect("accepted()", self.window.accept)
        self.buttons.connect("rejected()", self.window.reject)
        layout.addRow(self.buttons)
        self._update()

    def _update(self) -> None:
        is_complete = all(selector.currentIndex > 0 for selector in self._selectors.values())
        self.buttons.button(qt.QDialogButtonBox.Ok).setEnabled(is_complete)

    def ask(self) -> bool:
        """Show the window until the user decides; return whether it was accepted."""
        return bool(self.window.exec_())

    def answers(self) -> dict[str, str]:
        """Return the key of the chosen structure, or ``"ignore"``, by name."""
        return {name: selector.itemData(selector.currentIndex) for name, selector in self._selectors.items()}
