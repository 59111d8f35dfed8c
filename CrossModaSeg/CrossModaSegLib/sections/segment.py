"""Segment: the network on the target."""

from pathlib import Path

from slicer.i18n import tr as _

from CrossModaSegLib.processes.tasks import DONE
from CrossModaSegLib.scene import display, nodes
from CrossModaSegLib.sections.parameter_controls import Advanced
from CrossModaSegLib.sections.section import ERROR, NOTE, Section, refuse, reported, reported_beside


class SegmentSection(Section):
    """Prediction by the network."""

    name = "Segment"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._work = self._target = None
        self.advanced = Advanced(self, "segmentSettings", ("CrossModaPredict",))
        self.bind_path(self.ui.weightsEdit, "weights", "Files")
        self.ui.uncertaintySelector.addAttribute("vtkMRMLScalarVolumeNode", nodes.ROLE, "uncertainty")
        self.ui.segmentButton.connect("clicked(bool)", self.on_segment)
        self.ui.uncertaintyButton.connect("clicked(bool)", self.on_uncertainty)
        self.ui.cancelButton.connect("clicked(bool)", self.on_cancel)

    def forget(self) -> None:
        """Let go of the work of a scene that is being closed."""
        super().forget()
        self._work = self._target = None

    def update(self) -> None:
        """Show what can be done, and the progress."""
        self.show_path(self.ui.weightsEdit, self.parameters.weights)
        self.advanced.update()
        running = self._work is not None and not self._work.over
        self.ui.progressBar.enabled = running
        if self._work is None:
            self.ui.progressBar.value = 0
        elif running:
            self.ui.progressBar.value = round(100 * self._work.progress)
        elif not self._work.cancelled and not self._work.failures:
            self.ui.progressBar.value = 100
        self.allow(self.ui.segmentButton, self._hindrance(), _("Segment the target with the network"))
        uncertainty = self.parameters.uncertainty
        nothing = nodes.without_scan(uncertainty) if uncertainty else _("Segment first.")
        self.allow(self.ui.uncertaintyButton, nothing, _("Lay the network's uncertainty over the scan"))
        self.allow(self.ui.cancelButton, "" if running else _("Nothing is running."), _("Stop at once"))

    def _hindrance(self) -> str:
        from crossmoda import weights

        parameters = self.parameters
        if self.logic.busy:
            return self.busy_reason()
        if parameters.target is None:
            return _("Choose a target in “Register and fuse”.")
        if not parameters.weights and not weights.bundled().is_file():
            return _("No weights come with this version; choose a file with trained weights.")
        if parameters.weights and not Path(parameters.weights).is_file():
            return _("There is no file {path}; choose the weights again.").format(path=parameters.weights)
        if not self.panel.setup.versions["torch"]:
            return _("PyTorch is missing; install it in “Set-up”.")
        return nodes.volume_problem(parameters.target)

    @reported
    def on_segment(self) -> None:
        """Segment the target."""
        refuse(self._hindrance())
        parameters = self.parameters
        settings = self.advanced.values().get("CrossModaPredict")
        task = self.logic.segmentTask(
            parameters.target, parameters.weights, parameters.device, parameters.flips, settings
        )
        self._work = self.logic.run([task])
        self._target = parameters.target
        self._work.observe(lambda: self._on_work(task))
        self._work.start()
        self.panel.update()

    def _on_work(self, task) -> None:
        if self.parameters is None:
            return
        if task.state == DONE:
            display.hide_earlier(task.result[0])
            if self.shows(self._target):
                self.parameters.result, self.parameters.uncertainty = task.result
                display.show_target(self._target)
            done = _("{name}: done in {seconds:.0f} s. Check and correct the result.").format(
                name=self._target.GetName(), seconds=task.seconds
            )
            self.say(f"{done} {task.notes}".strip())
        elif task.over:
            self.say(task.error or _("Cancelled."), ERROR if task.error else NOTE)
        else:
            self.say(task.message)
        self.panel.update_soon()

    @reported_beside
    def on_uncertainty(self) -> None:
        """Lay the uncertainty over the scan."""
        uncertainty = self.parameters.uncertainty
        display.show_doubt(uncertainty.GetNodeReference(nodes.TARGET), uncertainty)

    @reported
    def on_cancel(self) -> None:
        """Stop at once."""
        self._work.cancel()
