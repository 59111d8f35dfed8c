"""Set-up: what is installed, which processor works."""

from slicer.i18n import tr as _

from CrossModaSegLib.processes import dependencies
from CrossModaSegLib.processes.tasks import FAILED, PythonTask, TaskQueue
from CrossModaSegLib.sections.section import Section, reported


class SetupSection(Section):
    """State of the dependencies, choice of the processor."""

    name = "Setup"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._probe = None
        self.bind_path(self.ui.wheelFolderEdit, "wheelFolder")
        self.ui.installButton.connect("clicked(bool)", self.on_install)
        self.show_dependencies()

    def update(self) -> None:
        """Show what is missing."""
        self.show_path(self.ui.wheelFolderEdit, self.parameters.wheelFolder)
        nothing = "" if self._lacking else _("Nothing is missing.")
        self.allow(
            self.ui.installButton,
            nothing or self.busy_reason(),
            _("Install the Python packages that are missing; asks first"),
        )

    def show_dependencies(self) -> None:
        """Read again which packages are there."""
        self.versions = found = dependencies.versions()
        self._lacking = dependencies.missing()
        self.ui.dependenciesLabel.text = "<br>".join(
            f"✓ {name} {version}" if version else f"✗ <b>{name}</b> " + _("is missing")
            for name, version in found.items()
        )

    def probe_device(self) -> None:
        """Ask a process of its own which processor "auto" means: torch takes seconds to import."""
        if self._probe is not None:
            return
        if "torch" in self._lacking:
            self.ui.deviceLabel.text = _("PyTorch is missing: only registration on the processor works.")
            return
        self.ui.deviceLabel.text = _("looking for a graphics card…")
        task = PythonTask("device", {}, _("Look for a graphics card"), self._show_device)
        self._probe = TaskQueue([task], lambda: self._on_probe(task))
        self._probe.start()

    def _show_device(self, answer: dict) -> None:
        memory = f", {answer['memory_gib']:g} GiB" if answer["memory_gib"] else ""
        self.ui.deviceLabel.text = _("auto: {device}").format(device=answer["description"]) + memory

    def _on_probe(self, task) -> None:
        if task.state == FAILED:
            self.ui.deviceLabel.text = _("The processor could not be found out: {error}").format(error=task.error)

    def stop(self) -> None:
        """Stop the search for a graphics card."""
        if self._probe is not None:
            self._probe.cancel()

    @reported
    def on_install(self) -> None:
        """Install what is missing."""
        try:
            dependencies.install(self.parameters.wheelFolder)
            self.say(_("Installed."))
        finally:
            self.show_dependencies()
            self._probe = None
            self.probe_device()
            self.panel.update()
