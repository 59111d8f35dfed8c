"""The list of models: the bundled one, those of a folder, a file of its own."""

from pathlib import Path

from slicer.i18n import tr as _

#: The entry that opens a dialog.
_FOLDER = _("Folder…")


class ModelChoice:
    """The combo box of models; the parameter node keeps the file of the weights, empty for the bundled ones."""

    def __init__(self, section):
        """Fill ``modelComboBox`` of the section, and ``cautionLabel`` below it."""
        self._section, self._shown = section, None
        self._combo_box, self._caution = section.ui.modelComboBox, section.ui.cautionLabel
        self._files: list[str] = []
        self._combo_box.connect("activated(int)", self._on_chosen)

    def update(self) -> None:
        """List the models, and show the one in use with what its card cautions about."""
        parameters = self._section.parameters
        if self._shown != (parameters.modelsFolder, parameters.weights):
            self._shown = (parameters.modelsFolder, parameters.weights)
            self._fill(parameters.modelsFolder, parameters.weights)

    def forget(self) -> None:
        """List the models anew at the next update."""
        self._shown = None

    def _fill(self, folder: str, weights: str) -> None:
        from crossmoda.review import models
        from crossmoda.weights import bundled, caution

        listed = [(model.name, str(model.weights)) for model in models.models(folder)] if folder else []
        listed = [(_("Bundled model"), ""), *((name, file) for name, file in listed if file != str(bundled()))]
        if weights not in [file for _name, file in listed]:
            listed.append((Path(weights).name, weights))
        self._files = [file for _name, file in listed]
        self._combo_box.clear()
        self._combo_box.addItems([*(name for name, _file in listed), _FOLDER])
        self._combo_box.currentIndex = self._files.index(weights)
        card = models.card_of(Path(weights) if weights else bundled())
        self._caution.text = caution(card)
        self._caution.toolTip = card.get("notes", "")
        self._caution.setVisible(bool(self._caution.text))

    def _on_chosen(self, number: int) -> None:
        parameters = self._section.parameters
        if parameters is None:
            return
        if number < len(self._files):
            parameters.weights = self._files[number]
            return
        self._combo_box.currentIndex = self._files.index(parameters.weights)
        self._section.on_models_folder()
