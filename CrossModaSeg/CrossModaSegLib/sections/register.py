"""Register and fuse: label propagation from the selected atlases to the target, and its visual check."""

from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes.propagation import Propagate, transform_file
from CrossModaSegLib.scene import cases, display, ears, nodes
from CrossModaSegLib.scene.warped_atlas import warped_atlas
from CrossModaSegLib.sections.parameter_controls import ParameterControls
from CrossModaSegLib.sections.section import Section, refuse, reported, reported_beside


class RegisterSection(Section):
    """Label propagation and its check."""

    name = "Register"
    cancelled = _("Cancelled. “Register and fuse” reuses the finished registrations.")
    cancel_tip = _("Stop at once; finished registrations are reused by the next run")

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._task, self._location = None, None
        self._checked: list[dict] = []
        self._showing = False
        self.controls = ParameterControls(self, "registerSettings", "CrossModaPropagate")
        self.ui.noisyLabelSelector.addAttribute("vtkMRMLSegmentationNode", nodes.ROLE, "noisy label")
        self._shown_ear = ""
        self.ui.targetSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.on_target)
        self.ui.earsButton.connect("clicked(bool)", self.on_ears)
        self.ui.registerButton.connect("clicked(bool)", self.on_register)
        self.ui.disagreementButton.connect("clicked(bool)", self.on_disagreement)
        self.ui.checkButton.connect("clicked(bool)", self.on_check)
        self.ui.fadeSlider.connect("valueChanged(double)", self.on_fade)

    def update(self) -> None:
        """Show what can be done, and the progress."""
        self.forget_removed_target()
        self._show_target()
        self.controls.update()
        self.show_progress()
        self.ui.progressBar.setVisible(self.running)
        self.allow(
            self.ui.registerButton,
            self._hindrance(),
            _("Register the selected atlases to the target and fuse their labels"),
        )
        self._update_ears()
        label = self.parameters.noisyLabel
        nothing = nodes.without_scan(label) if label else _("Register and fuse first.")
        disagreement = label.GetNodeReference(nodes.DISAGREEMENT) if label else None
        no_disagreement = "" if disagreement else _("The label has no disagreement.")
        self.allow(
            self.ui.disagreementButton,
            nothing or no_disagreement,
            _("Lay the disagreement of the atlases over the target"),
        )
        self._fill_atlases([] if nothing else cases.fused_atlases(label.GetNodeReference(nodes.TARGET)))
        no_atlas = "" if self._checked else _("The label has no registered atlas.")
        self.allow(self.ui.checkButton, nothing or no_atlas, _("Show target and atlas in the slice views"))

    def _update_ears(self) -> None:
        """Let the button locate the ears of the target, or go to the next one."""
        target = self.parameters.target
        points = self._next_ear()
        if points is not None:
            side = nodes.SIDE_NAMES[points.GetAttribute(nodes.SIDE)]
            self.ui.earsButton.text = _("Show {side} ear").format(side=side)
            self.allow(self.ui.earsButton, "", _("Show this ear in all slice views"))
            return
        self.ui.earsButton.text = _("Locate ears")
        problem = nodes.volume_problem(target) if target else _("Select a target.")
        tip = _("Find both inner ears by registration with a template, and show their landmarks")
        self.allow(self.ui.earsButton, self.busy_reason() or problem, tip)

    def _next_ear(self):
        """Return the landmarks of the ear of the target that is not the one shown; None before they are located."""
        target = self.parameters.target
        located = ears.lists_of(target) if target else []
        return next((each for each in located if each.GetID() != self._shown_ear), next(iter(located), None))

    def on_target(self, target) -> None:
        """Make another scan the target, which is the scan of “Measure” as well."""
        if self.parameters is not None and not self._showing:
            self.parameters.target = target

    def _show_target(self) -> None:
        """Show the target by hand: in Slicer only one widget can be connected to a parameter."""
        self._showing = True
        self.ui.targetSelector.setCurrentNode(self.parameters.target)
        self._showing = False

    @reported
    def on_ears(self) -> None:
        """Locate the ears of the target, or show the next one."""
        if self._next_ear() is not None:
            self._show_ear()
            return
        self._location = ears.EarLocation(self.parameters.target)
        self.start(self.logic.run(self._location.tasks()), self._show_location)

    def _show_location(self, lists: list) -> None:
        if self.shows(self._location.volume):
            self._show_ear()
        self.say(_("{name}: {count} of 2 ears located.").format(name=self._location.volume.GetName(), count=len(lists)))

    def _show_ear(self) -> None:
        points = self._next_ear()
        self._shown_ear = points.GetID()
        ears.show(points)
        self._update_ears()

    def _fill_atlases(self, outcomes: list[dict]) -> None:
        """List the registered atlases of the newest fused label."""
        registered = [outcome for outcome in outcomes if outcome["transform"]]
        if registered != self._checked:
            self._checked = registered
            self.ui.atlasComboBox.clear()
            for outcome in registered:
                text = _("{atlas}, quality {quality:.2f}")
                self.ui.atlasComboBox.addItem(text.format(atlas=outcome["atlas"], quality=float(outcome["quality"])))

    def _hindrance(self) -> str:
        """Return why the propagation cannot start; an empty string if it can."""
        target = self.parameters.target
        if self.logic.busy:
            return self.busy_reason()
        if target is None:
            return _("Select a target.")
        problem = nodes.volume_problem(target)
        if problem:
            return problem
        if not self._atlases():
            return _("Select at least one atlas without a problem in the table above.")
        return ""

    def _atlases(self) -> list:
        target = self.parameters.target
        return [row.volume for row in self.panel.cases.atlases() if row.volume is not target]

    @reported
    def on_register(self) -> None:
        """Propagate the labels of the selected atlases."""
        refuse(self._hindrance())
        parameters = self.parameters
        without_torch = parameters.device == "auto" and not self.panel.setup.versions["torch"]
        self._task = Propagate(
            parameters.target,
            self._atlases(),
            self.logic.atlasFolder,
            parameters.tumorSide,
            "cpu" if without_torch else parameters.device,
            self.controls.values(),
        )
        self.start(self.logic.run(self._task.tasks()), self._show_result)

    def _show_result(self, label) -> None:
        task, parameters = self._task, self.parameters
        display.hide_earlier(label)
        if self.shows(task.target):
            parameters.noisyLabel = parameters.result = label
            display.show_result(label)
            self.ui.checkGroupBox.collapsed = False
        seconds = sum(each.seconds for each in self._work.tasks)
        done = _("{name}: done in {seconds:.0f} s.").format(name=task.target.GetName(), seconds=seconds)
        self.say(f"{done} {task.notes}")

    @reported_beside
    def on_disagreement(self) -> None:
        """Lay the disagreement over the target."""
        label = self.parameters.noisyLabel
        display.show_doubt(label.GetNodeReference(nodes.TARGET), label.GetNodeReference(nodes.DISAGREEMENT))

    @reported_beside
    def on_check(self) -> None:
        """Show target and warped atlas."""
        parameters = self.parameters
        target = parameters.noisyLabel.GetNodeReference(nodes.TARGET)
        warped = self._warped_atlas(target)
        display.show_check(target, warped, parameters.check, parameters.fade, parameters.noisyLabel)

    def _warped_atlas(self, target):
        outcome = self._checked[self.ui.atlasComboBox.currentIndex]
        row = next((row for row in cases.scene_rows() if row.is_atlas and row.id == outcome["atlas"]), None)
        if row is None:
            raise InputError(
                _("Atlas not in the scene: {name}. Load it again to check it.").format(name=outcome["atlas"])
            )
        return warped_atlas(row.volume, target, transform_file(target, outcome))

    def on_fade(self, value: float) -> None:
        """Fade between target and atlas while they are shown so."""
        if self.parameters and self.parameters.check == "fade":
            display.fade(value)
