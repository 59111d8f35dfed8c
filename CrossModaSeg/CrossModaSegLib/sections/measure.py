"""Measure: from a scan to a segmentation and its measures."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.processes.prediction import Predict
from CrossModaSegLib.processes.tasks import DONE
from CrossModaSegLib.scene import display, growth, measures, nodes
from CrossModaSegLib.sections.model_choice import ModelChoice
from CrossModaSegLib.sections.parameter_controls import ParameterControls
from CrossModaSegLib.sections.section import Section, refuse, reported


class MeasureSection(Section):
    """The network on the scan, and the measures of what it segments."""

    name = "Measure"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._task, self._is_shown = None, False
        self.models = ModelChoice(self)
        self.controls = ParameterControls(self, "segmentSettings", "CrossModaPredict")
        self.bind_path(self.ui.weightsEdit, "weights", "Files")
        self.ui.applyButton.connect("clicked(bool)", self.on_apply)

    def update(self) -> None:
        """Show what can be done, and the progress."""
        self.show_path(self.ui.weightsEdit, self.parameters.weights)
        self.forget_removed_target()
        self.models.update()
        self.controls.update()
        self.show_progress()
        for widget in (self.ui.progressBar, self.ui.cancelButton):
            widget.setVisible(self.running)
        self.allow(self.ui.applyButton, self._hindrance(), _("Segment the scan, measure and show the result"))

    def _hindrance(self) -> str:
        from crossmoda import weights

        parameters = self.parameters
        if self.logic.busy:
            return self.busy_reason()
        if parameters.target is None:
            return _("Select a scan.")
        if not parameters.weights and not weights.bundled().is_file():
            return _("No bundled weights. Choose a file with trained weights.")
        if parameters.weights and not Path(parameters.weights).is_file():
            return _("Weights not found: {path}. Choose the weights again.").format(path=parameters.weights)
        if not self.panel.setup.versions["torch"]:
            return _("PyTorch is missing; install it in “Setup”.")
        if parameters.previous is not None:
            return growth.problem(parameters.target, parameters.previous)
        return nodes.volume_problem(parameters.target)

    @reported
    def on_models_folder(self) -> None:
        """Select the folder of the models."""
        from crossmoda.review import models

        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of models"), self.parameters.modelsFolder)
        if folder:
            self.parameters.modelsFolder = folder
            if len(models.models(folder)) == 1:
                self.say(_("No models in {folder}. Select a folder with one folder per model.").format(folder=folder))

    # ---------------------------------------------------------------- Apply

    @reported
    def on_apply(self) -> None:
        """Segment the scan, measure what was segmented, and compare it with the previous scan."""
        refuse(self._hindrance())
        parameters = self.parameters
        chosen = (parameters.target, parameters.weights, parameters.device, parameters.flips, self.controls.values())
        task = Predict(*chosen, with_probability=True)
        self._task, self._is_shown = task, False
        measurement = measures.Measurement(
            lambda: task.result[0], task.volume, lambda: task.probability, parameters.weights
        )
        comparison = self.panel.growth.comparison().tasks() if parameters.previous else []
        self.start(self.logic.run([task, *measurement.tasks(), *comparison]), self._show_measures)

    def on_work(self) -> None:
        """Show the state of the work, and the segmentation as soon as it is there."""
        if self._task is not None and self._task.state == DONE and not self._is_shown and self.parameters is not None:
            self._is_shown = True
            self.show_segmentation(*self._task.result)
        super().on_work()

    def show_segmentation(self, segmentation, uncertainty) -> None:
        """Show a new segmentation in slice and 3D views, the tumor in their center, unless another scan is selected."""
        display.hide_earlier(segmentation)
        if self.shows(self._task.volume):
            self.parameters.result, self.parameters.uncertainty = segmentation, uncertainty
            display.show_result(segmentation)
            display.show_3d(segmentation)

    def _show_measures(self, table) -> None:
        task = self._task
        if growth.is_table(table):
            self.panel.growth.show_comparison(table, task.volume)
        done = _("{name}: done in {seconds:.0f} s.").format(name=task.volume.GetName(), seconds=task.seconds)
        self.say(f"{done} {task.notes}".strip())
