"""Cases in files: a folder is listed and checked, its cases are read into the scene, sample data is simulated."""

import shutil
from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import cases, export

Rows = list[cases.Row]

#: The sample data: three labeled ceT1 atlases and one hrT2 target, about half a minute to make.
SAMPLE = {
    "sources": 3,
    "targets": 1,
    "seed": 4,
    "settings": {"field_of_view": 150.0, "slices": 48, "tumor_volume": 1600.0},
}


class FolderListing:
    """The cases of a data set's folder, listed first and checked then."""

    def __init__(self, folder: str, listed: Callable[[Rows], None]):
        """Name the folder; ``listed(rows)`` is called after each of the two tasks."""
        self.rows: Rows = []
        self._folder, self._listed = folder, listed

    def tasks(self) -> list[Task]:
        """Return the tasks."""
        return [
            PythonTask("cases", {"folder": self._folder}, _("List the folder"), self._take_cases),
            PythonTask("check", {"folder": self._folder}, _("Check the files"), self._take_problems),
        ]

    def _take_cases(self, answer: dict) -> None:
        self.rows = cases.folder_rows(answer["cases"])
        self._listed(self.rows)

    def _take_problems(self, answer: dict) -> None:
        problems = answer["problems"]
        for row in self.rows:
            row.file_problem = problems.get(row.image_path) or problems.get(row.label_path) or ""
        self._listed(self.rows)


class CaseLoading:
    """Cases of a folder, read in a process and placed in the scene step by step."""

    def __init__(self, rows: Rows, loaded: Callable[[Rows], None] | None = None):
        """Name the cases; ``loaded(rows)`` is called at the end."""
        self._rows, self._loaded = rows, loaded
        self._folder: Path = export.temporary_folder()
        self._contents: list[dict] = []

    def tasks(self) -> list[Task]:
        """Return the tasks."""
        files = [
            {"id": row.id, "modality": row.modality, "side": row.side, "image": row.image_path, "label": row.label_path}
            for row in self._rows
        ]
        return [
            PythonTask("prepare", {"rows": files, "folder": str(self._folder)}, _("Read the files"), self._take),
            StepsTask(_("Load the cases"), self._steps, self._finish, self._remove_folder),
        ]

    def _take(self, answer: dict) -> None:
        self._contents = answer["rows"]
        for row, content in zip(self._rows, self._contents, strict=True):
            row.file_problem, row.side = content["problem"], content["side"]

    def _steps(self) -> list[Callable[[], None]]:
        read = zip(self._rows, self._contents, strict=True)
        return [step for row, content in read if not row.file_problem for step in cases.placing(row, content)]

    def _finish(self, _result) -> None:
        self._remove_folder()
        if self._loaded:
            self._loaded(self._rows)

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def simulation_task(listed: Callable[[Rows], None] | None = None, sample: dict | None = None) -> PythonTask:
    """Return the task that simulates the sample data; ``listed(rows)`` gets its cases."""
    folder = export.temporary_folder() / "sample"

    def finish(answer: dict) -> None:
        if listed:
            listed(cases.folder_rows(answer["cases"]))

    arguments = {"folder": str(folder), **(sample or SAMPLE)}
    return PythonTask("simulate", arguments, _("Simulate the sample data"), finish)
