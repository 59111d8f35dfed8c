"""Segment all checked: scans of a folder and of the scene are segmented and measured into one table."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import cases, export, nodes


class CohortSegmentation:
    """The segmentation of the targets among rows of the table of cases."""

    def __init__(self, rows: list[cases.Row], folder: str, weights: str, device: str, flips: bool):
        """Name the targets, the folder of the results, and the settings of the network."""
        self._rows = {}
        for row in rows:
            self._rows[cli_runs.free_name(row.id, self._rows)] = row
        self._settings = {"folder": folder, "weights": weights, "device": device, "flips": flips}
        self._folder: Path | None = None

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last is the answer of the worker."""
        return [
            StepsTask(_("Write the loaded scans"), self._steps, abandon=self._remove_folder),
            PythonTask("segment_all", self._arguments, _("Segment all checked"), self._finish, self._remove_folder),
        ]

    def _steps(self) -> list[Callable[[], None]]:
        self._folder = export.temporary_folder()
        return [partial(self._write, name) for name, row in self._rows.items() if not row.image_path]

    def _write(self, name: str) -> None:
        cli_runs.require(self._rows[name].volume, nodes.volume_problem)
        export.write_volume(nodes.rounded_copy(self._rows[name].volume), self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.nrrd"

    def _arguments(self) -> dict:
        scans = {name: row.image_path or str(self._file(name)) for name, row in self._rows.items()}
        return {"scans": scans, **self._settings}

    def _finish(self, answer: dict) -> dict:
        self._remove_folder()
        return answer

    def _remove_folder(self) -> None:
        export.remove_folder(self._folder)
