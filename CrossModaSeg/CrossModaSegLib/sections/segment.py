"""Segment: the network on the target."""

from pathlib import Path

from slicer.i18n import tr as _

from CrossModaSegLib.processes.prediction import Predict
from CrossModaSegLib.scene import display, nodes
from CrossModaSegLib.sections.parameter_controls import ParameterControls
from CrossModaSegLib.sections.section import Section, refuse, reported, reported_beside


class SegmentSection(Section):
    """Prediction by the network."""

    name = "Segment"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._task = None
        self.controls = ParameterControls(self, "segmentSettings", "CrossModaPredict")
        self.bind_path(self.ui.weightsEdit, "weights", "Files")
        self.ui.uncertaintySelector.addAttribute("vtkMRMLScalarVolumeNode", nodes.ROLE, "uncertainty")
        self.ui.segmentButton.connect("clicked(bool)", self.on_segment)
        self.ui.uncertaintyButton.connect("clicked(bool)", self.on_uncertainty)

    def update(self) -> None:
        """Show what can be done, and the progress."""
        self.show_path(self.ui.weightsEdit, self.parameters.weights)
        self.controls.update()
        self.show_progress()
        self.allow(self.ui.segmentButton, self._hindrance(), _("Segment the target with the network"))
        uncertainty = self.parameters.uncertainty
        nothing = nodes.without_scan(uncertainty) if uncertainty else _("Segment first.")
        self.allow(self.ui.uncertaintyButton, nothing, _("Lay the network's uncertainty over the scan"))

    def _hindrance(self) -> str:
        from crossmoda import weights

        parameters = self.parameters
        if self.logic.busy:
            return self.busy_reason()
        if parameters.target is None:
            return _("Choose a target in “Register and fuse”.")
        if not parameters.weights and not weights.bundled().is_file():
            return _("No bundled weights. Choose a file with trained weights.")
        if parameters.weights and not Path(parameters.weights).is_file():
            return _("Weights not found: {path}. Choose the weights again.").format(path=parameters.weights)
        if not self.panel.setup.versions["torch"]:
            return _("PyTorch is missing; install it in “Set-up”.")
        return nodes.volume_problem(parameters.target)

    @reported
    def on_segment(self) -> None:
        """Segment the target."""
        refuse(self._hindrance())
        parameters = self.parameters
        self._task = Predict(
            parameters.target, parameters.weights, parameters.device, parameters.flips, self.controls.values()
        )
        self.start(self.logic.run([self._task]), self._show_result)

    def _show_result(self, result) -> None:
        task, (segmentation, uncertainty) = self._task, result
        display.hide_earlier(segmentation)
        if self.shows(task.volume):
            self.parameters.result, self.parameters.uncertainty = segmentation, uncertainty
            display.show_result(segmentation)
        done = _("{name}: done in {seconds:.0f} s. Check and correct the result.")
        self.say(f"{done.format(name=task.volume.GetName(), seconds=task.seconds)} {task.notes}".strip())

    @reported_beside
    def on_uncertainty(self) -> None:
        """Lay the uncertainty over the scan."""
        uncertainty = self.parameters.uncertainty
        display.show_doubt(uncertainty.GetNodeReference(nodes.TARGET), uncertainty)
