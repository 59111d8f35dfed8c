"""Setup: dependencies and processor."""

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
        self._search = None
        self.bind_path(self.ui.wheelFolderEdit, "wheelFolder")
        self.ui.installButton.connect("clicked(bool)", self.on_install)
        self.show_dependencies()
        self.ui.sectionButton.collapsed = not self._lacking

    def update(self) -> None:
        """Show the missing packages."""
        self.show_path(self.ui.wheelFolderEdit, self.parameters.wheelFolder)
        nothing = "" if self._lacking else _("Nothing is missing.")
        self.allow(
            self.ui.installButton,
            nothing or self.busy_reason(),
            _("Install the missing Python packages, after confirmation"),
        )

    def show_dependencies(self) -> None:
        """Show the installed packages."""
        self.versions = dependencies.versions()
        self._lacking = dependencies.missing()
        self.ui.dependenciesLabel.text = "<br>".join(
            f"✓ {name} {version}" if version else f"✗ <b>{name}</b> " + _("is missing or too old")
            for name, version in self.versions.items()
        )

    def find_device(self) -> None:
        """Find the processor of "auto" in a process of its own: torch takes seconds to import."""
        if self._search is not None:
            return
        if "torch" in self._lacking:
            self.ui.deviceLabel.text = _("PyTorch is missing: only registration on the CPU works.")
            return
        self.ui.deviceLabel.text = _("Looking for a GPU…")
        task = PythonTask("device", {}, _("Look for a GPU"), self._show_device)
        self._search = TaskQueue([task], lambda: self._on_search(task))
        self._search.start()

    def _show_device(self, answer: dict) -> None:
        memory = f", {answer['memory_gib']:g} GiB" if answer["memory_gib"] else ""
        self.ui.deviceLabel.text = _("auto: {device}").format(device=answer["description"]) + memory

    def _on_search(self, task) -> None:
        if task.state == FAILED:
            self.ui.deviceLabel.text = _("Processor unknown: {error}").format(error=task.error)

    def stop(self) -> None:
        """Stop the search for a GPU."""
        if self._search is not None:
            self._search.cancel()

    @reported
    def on_install(self) -> None:
        """Install the missing packages."""
        try:
            dependencies.install(self.parameters.wheelFolder)
            self.say(_("Installed."))
        finally:
            self.show_dependencies()
            self._search = None
            self.find_device()
            self.panel.update()
