"""Register and fuse: the ticked atlases onto the target, one process after another, and the visual check."""

import html

from slicer.i18n import tr as _

from CrossModaSegLib.processes import propagating
from CrossModaSegLib.processes.tasks import DONE
from CrossModaSegLib.scene import display, nodes
from CrossModaSegLib.sections.parameter_controls import Advanced
from CrossModaSegLib.sections.section import ERROR, Section, refuse, reported, reported_beside


class RegisterSection(Section):
    """Label propagation and its check."""

    name = "Register"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._work = self._target = self._plan = None
        self.advanced = Advanced(self, "registerSettings", ("CrossModaRegister", "CrossModaFuse"))
        for selector, role in (
            ("noisyLabel", "noisy label"),
            ("disagreement", "disagreement"),
            ("warped", "warped atlas"),
        ):
            combo = getattr(self.ui, selector + "Selector")
            combo.addAttribute(combo.nodeTypes[0], nodes.ROLE, role)
        self.ui.registerButton.connect("clicked(bool)", self.on_register)
        self.ui.cancelButton.connect("clicked(bool)", self.on_cancel)
        self.ui.disagreementButton.connect("clicked(bool)", self.on_disagreement)
        self.ui.checkButton.connect("clicked(bool)", self.on_check)
        self.ui.fadeSlider.connect("valueChanged(double)", self.on_fade)

    def forget(self) -> None:
        """Let go of the work of a scene that is being closed."""
        super().forget()
        self._work = self._target = self._plan = None

    def update(self) -> None:
        """Show what can be done, and the progress."""
        parameters = self.parameters
        self.advanced.update()
        running = self._work is not None and not self._work.over
        if self._work is None:
            self.ui.taskProgressBar.value = self.ui.progressBar.value = 0
        elif running:
            task = self._work.current
            self.ui.taskProgressBar.value = round(100 * task.progress) if task else 0
            self.ui.progressBar.value = round(100 * self._work.progress)
        elif not self._work.cancelled:
            self.ui.taskProgressBar.value = self.ui.progressBar.value = 100
        self.ui.taskProgressBar.enabled = self.ui.progressBar.enabled = running
        self.allow(
            self.ui.registerButton,
            self._hindrance(),
            _("Register the ticked atlases to the target and fuse their labels"),
        )
        self.allow(
            self.ui.cancelButton,
            "" if running else _("Nothing is running."),
            _("Stop at once; finished registrations are kept"),
        )
        no_disagreement = (
            nodes.without_scan(parameters.disagreement) if parameters.disagreement else _("Register and fuse first.")
        )
        self.allow(self.ui.disagreementButton, no_disagreement, _("Lay the disagreement over the target"))
        no_warped = (
            nodes.without_scan(parameters.warpedAtlas)
            if parameters.warpedAtlas
            else _("Register an atlas and choose it.")
        )
        self.allow(self.ui.checkButton, no_warped, _("Show target and atlas in the slice views"))

    def _hindrance(self) -> str:
        """Say why the registration cannot start; an empty string if it can."""
        target = self.parameters.target
        if self.logic.busy:
            return self.busy_reason()
        if target is None:
            return _("Choose a target.")
        problem = nodes.volume_problem(target)
        if problem:
            return problem
        if not self._atlases():
            return _("Tick at least one atlas without a problem in the table above.")
        return ""

    def _atlases(self) -> list:
        target = self.parameters.target
        return [row.volume for row in self.panel.cases.atlases() if row.volume is not target]

    @reported
    def on_register(self) -> None:
        """Register the ticked atlases that are not registered yet, then fuse all ticked ones."""
        refuse(self._hindrance())
        parameters = self.parameters
        without_torch = parameters.device == "auto" and not self.panel.setup.versions["torch"]
        self._target = parameters.target
        self._plan = propagating.Propagation(
            self._target,
            self._atlases(),
            tumor_side=parameters.tumorSide,
            transforms=parameters.keepTransforms,
            device="cpu" if without_torch else parameters.device,
            settings=self.advanced.values(),
        )
        self._work = self.logic.run(self._plan.tasks())
        self._work.observe(self._on_work)
        self._work.start()
        self.panel.update()

    def _on_work(self) -> None:
        work, parameters = self._work, self.parameters
        if parameters is None:
            return
        if work.current is not None:
            done = sum(task.over for task in work.tasks) + 1
            self.say(
                _("Step {number} of {all}: {title}").format(number=done, all=len(work.tasks), title=work.current.title)
            )
        elif work.over:
            self._finish()
        self.panel.update_soon()

    def _finish(self) -> None:
        work, parameters = self._work, self.parameters
        failures = [html.escape(f"{task.title}: {task.error}", quote=False) for task in work.failures]
        fused = work.tasks[-1]
        on = next((task.notes for task in work.tasks[:-1] if task.notes), "")
        notes = "".join(f" {note}" for note in (on, fused.notes) if note)
        if fused.state == DONE:
            display.hide_earlier(fused.result[0])
            if self.shows(self._target):
                parameters.noisyLabel, parameters.disagreement = fused.result
                parameters.result = parameters.noisyLabel
                warped = self._plan.images()
                if parameters.warpedAtlas not in warped:
                    parameters.warpedAtlas = warped[-1] if warped else None
                display.show_target(self._target)
        if failures:
            self.say("<br>".join(failures) + notes, ERROR)
        elif work.cancelled:
            self.say(_("Cancelled. Finished registrations are kept; “Register and fuse” goes on from there."))
        else:
            seconds = sum(task.seconds for task in work.tasks)
            done = _("{name}: done in {seconds:.0f} s.").format(name=self._target.GetName(), seconds=seconds)
            self.say(done + notes)

    @reported
    def on_cancel(self) -> None:
        """Stop at once."""
        self._work.cancel()

    @reported_beside
    def on_disagreement(self) -> None:
        """Lay the disagreement over the target."""
        parameters = self.parameters
        display.show_doubt(parameters.disagreement.GetNodeReference(nodes.TARGET), parameters.disagreement)

    @reported_beside
    def on_check(self) -> None:
        """Show target and warped atlas."""
        parameters = self.parameters
        target = parameters.warpedAtlas.GetNodeReference(nodes.TARGET)
        display.show_check(target, parameters.warpedAtlas, parameters.check, parameters.fade, parameters.noisyLabel)

    def on_fade(self, value: float) -> None:
        """Fade between target and atlas while they are shown so."""
        parameters = self.parameters
        if parameters and parameters.check == "fade" and parameters.warpedAtlas:
            display.fade(parameters.warpedAtlas, value)
