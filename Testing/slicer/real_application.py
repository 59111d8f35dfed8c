"""A running Slicer as the tests see it: what they ask of an application, through Slicer's public API only."""

import sys
import time
from pathlib import Path

import slicer


def is_running() -> bool:
    """Tell whether this Python belongs to a Slicer application; the test bed's is a plain Python object."""
    app = getattr(slicer, "app", None)
    return hasattr(app, "className") and app.className() == "qSlicerApplication"


class RealApplication:
    """The counterpart of ``testbed.application.Application`` in a complete Slicer."""

    @property
    def scene(self):
        """The scene of the application."""
        return slicer.mrmlScene

    @property
    def selected_module(self) -> str:
        """The name of the module that is shown."""
        return slicer.util.selectedModule()

    @property
    def temporaryPath(self) -> str:
        """The folder of temporary files."""
        return slicer.app.temporaryPath

    def processEvents(self) -> None:
        """Process the events that wait."""
        slicer.app.processEvents()

    def load_missing(self, scripts: list[Path]) -> None:
        """Load the modules that no extension and no additional module path has loaded."""
        missing = [script for script in scripts if not hasattr(slicer.modules, script.stem.lower())]
        if not missing:
            return
        import qt

        factory = slicer.app.moduleManager().factoryManager()
        for script in missing:
            sys.path.append(str(script.parent))  # as for an additional module path
            factory.registerModule(qt.QFileInfo(str(script)))
        factory.loadModules([script.stem for script in missing])
        absent = [script.stem for script in missing if not hasattr(slicer.modules, script.stem.lower())]
        if absent:
            raise RuntimeError(f"Slicer could not load: {', '.join(absent)}. See its error log.")

    def wait_until(self, condition, seconds: float = 240.0) -> None:
        """Process events until the condition holds; fail after ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the condition did not come true")
            slicer.app.processEvents()
            time.sleep(0.002)
