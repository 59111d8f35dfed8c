"""A segmentation as DICOM SEG in Slicer's DICOM database, beside the scan that was loaded from there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import export, nodes


def source_files(volume) -> list[str]:
    """Return the files of the DICOM instances from which a volume was loaded; empty if a file is not known."""
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "").split() if volume else []
    database = getattr(slicer, "dicomDatabase", None)
    files = [database.fileForInstance(instance) for instance in instances] if database is not None else []
    return files if all(files) else []


def problem(segmentation) -> str:
    """Return why a segmentation cannot be saved to the DICOM database; an empty string if it can."""
    if missing := nodes.without_scan(segmentation):
        return missing
    if not source_files(segmentation.GetNodeReference(nodes.TARGET)):
        return _("The scan was not loaded with the DICOM module. Load it from there, or export files.")
    return ""


class DicomSaving(export.LabelMapWork):
    """The tasks that write a DICOM SEG and add it to the database."""

    def tasks(self) -> list[Task]:
        """Return the tasks."""
        return [
            StepsTask(_("Write the label map"), self._steps, abandon=self._remove_folder),
            PythonTask("dicom_segmentation", self._arguments, _("Save to DICOM"), self._finish, self._remove_folder),
        ]

    def _steps(self) -> list[Callable[[], None]]:
        volume = self.segmentation.GetNodeReference(nodes.TARGET)
        cli_runs.require(volume, nodes.volume_problem)
        return [self._label_map_step(volume), lambda: self._copy_series(source_files(volume))]

    def _copy_series(self, files: list[str]) -> None:
        """Copy the slices into a folder of their own: theirs may hold other series."""
        (self._folder / "series").mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, self._folder / "series" / f"{number:05d}.dcm")

    def _arguments(self) -> dict:
        return {
            "label_map": str(self._label_map),
            "series": str(self._folder / "series"),
            "path": str(self._folder / "result" / "segmentation.dcm"),
            "is_corrected": bool(self.segmentation.GetAttribute(nodes.CORRECTED)),
            "model": str(nodes.provenance(self.segmentation).get("parameters", {}).get("weights", "")),
        }

    def _finish(self, answer: dict) -> str:
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(Path(answer["path"]).parent), copyFiles=True)
        self._remove_folder()
        return self.segmentation.GetName()
