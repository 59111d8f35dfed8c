"""Label propagation: the atlases are written as a data set, and one run of CrossModaPropagate labels the target."""

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import CliTask, StepsTask, Task
from CrossModaSegLib.scene import cases, export, nodes


class AtlasFolder:
    """Atlases of the scene as files, in the layout of a data set; an unchanged atlas is written once."""

    def __init__(self):
        """Start without a folder."""
        self.path = Path()
        self._written: dict[Path, tuple] = {}

    def steps(self, rows: list[cases.Row]) -> list[Callable[[], None]]:
        """Return the steps that write these atlases and remove all others."""
        if self.path == Path() or not self.path.is_dir():
            self.path, self._written = export.temporary_folder(), {}
        wanted = {self.path / f"{name}_ceT1.nrrd": row for name, row in file_names(rows).items()}
        for image in [image for image in self._written if image not in wanted]:
            self._remove(image)
        return [
            partial(self._write, image, row)
            for image, row in wanted.items()
            if self._written.get(image) != _content(row) or not _label_file(image).is_file()
        ]

    def _write(self, image: Path, row: cases.Row) -> None:
        self._remove(image)
        export.write_volume(nodes.rounded_copy(row.volume), image)
        export.write_volume(nodes.rounded_copy(nodes.label_map_of(row.label, row.volume)), _label_file(image))
        self._written[image] = _content(row)

    def _remove(self, image: Path) -> None:
        self._written.pop(image, None)
        for file in (image, _label_file(image)):
            file.unlink(missing_ok=True)


def file_names(rows: list[cases.Row]) -> dict[str, cases.Row]:
    """Return the cases by names that file systems accept."""
    named: dict[str, cases.Row] = {}
    for row in rows:
        named[cli_runs.free_name(row.id, named)] = row
    return named


def _label_file(image: Path) -> Path:
    return image.with_name(image.name.replace("_ceT1.nrrd", "_Label.nrrd"))


def _content(row: cases.Row) -> tuple:
    """Return the state of an atlas's nodes; it changes with their voxels and their grid."""
    times = row.volume.GetImageData().GetMTime(), *nodes.content_times(row.label)
    return row.volume.GetID(), row.label.GetID(), nodes.grid_of(row.volume), *times


def registrations_folder(target) -> Path:
    """Return the folder that keeps the registrations to a target; the target names it, also in a saved scene."""
    folder = Path(target.GetAttribute(nodes.REGISTRATIONS) or "")
    if folder == Path() or not folder.is_dir():
        folder = export.temporary_folder()
        target.SetAttribute(nodes.REGISTRATIONS, str(folder))
    return folder


class Propagate(CliTask):
    """A run of CrossModaPropagate; its result is the fused label, a segmentation."""

    def __init__(self, target, atlases: list, folder: AtlasFolder, tumor_side="auto", device="auto", settings=None):
        """Name the scan to be labeled, the volumes of the atlases, and parameters of the module."""
        super().__init__("CrossModaPropagate", _("Register and fuse"))
        self.target, self.atlases, self.folder = target, list(atlases), folder
        self.settings = {"tumor_side": tumor_side, "device": device, **(settings or {})}
        self.table: list[dict] = []
        self._rows: dict[str, cases.Row] = {}
        self._outputs: dict = {}
        self._table_file, self._input = Path(), None

    def tasks(self) -> list[Task]:
        """Return the tasks of the propagation; this one is the last."""
        return [StepsTask(_("Write the atlases"), self._writing_steps), self]

    def _writing_steps(self) -> list[Callable[[], None]]:
        rows = {row.volume.GetID(): row for row in cases.scene_rows()}
        for atlas in self.atlases:
            cli_runs.require(atlas, partial(_atlas_problem, rows))
        self._rows = file_names([rows[atlas.GetID()] for atlas in self.atlases])
        return self.folder.steps(list(self._rows.values()))

    def prepare(self) -> dict:
        """Return the parameters of the module, with hidden output nodes."""
        cli_runs.require(self.target, nodes.volume_problem)
        name, registrations = self.target.GetName(), registrations_folder(self.target)
        self._outputs["label"] = cli_runs.add_hidden("vtkMRMLLabelMapVolumeNode", f"{name} fused")
        for role in ("confidence", "disagreement"):
            unique = slicer.mrmlScene.GenerateUniqueName(f"{name} {role}")
            self._outputs[role] = cli_runs.add_hidden("vtkMRMLScalarVolumeNode", unique)
        self._table_file = registrations / "table.csv"
        self._input = slicer.mrmlScene.AddNode(nodes.rounded_copy(self.target))
        self._input.SetHideFromEditors(True)
        files = {
            "atlases": str(self.folder.path),
            "registrations": str(registrations),
            "table": str(self._table_file),
            "keep_transforms": True,
        }
        return {"target": self._input, **files, **self._outputs, **self.settings}

    def finish(self, node):
        """Show the results with their provenance; return the fused label."""
        cli_runs.remove([self._input])
        cli_runs.require_present([self.target, *self._outputs.values()])
        label_map = self._outputs.pop("label")
        name = _("{name} fused label").format(name=self.target.GetName())
        fused = nodes.make_segmentation(label_map, self.target, name, "noisy label")
        cli_runs.remove([label_map])
        record = self._record(node)
        nodes.set_provenance(fused, record)
        for role, volume in self._outputs.items():
            cli_runs.reveal(volume, role, self.target)
            nodes.set_provenance(volume, record)
        fused.SetNodeReferenceID(nodes.DISAGREEMENT, self._outputs["disagreement"].GetID())
        nodes.watch_corrections(fused)
        return fused

    def _record(self, node) -> dict:
        """Return the provenance of the result, with one entry per atlas."""
        inputs = {"target": self.target, **{row.id: row.volume for row in self._rows.values()}}
        record = cli_runs.record("propagate", self.settings, self.seconds, inputs)
        measured = cli_runs.measurements(node)
        with self._table_file.open(encoding="utf-8", newline="") as stream:
            outcomes = list(csv.DictReader(stream))
        for outcome in outcomes:
            outcome["atlas"] = self._rows[outcome["atlas"]].id
        self.notes = f"{_summary(measured)} {measured['notes']} {cli_runs.processor(measured)}"
        return {**record, "measurements": measured, "device": measured["processor"], "atlases": outcomes}

    def abandon(self) -> None:
        """Remove the nodes of the run."""
        cli_runs.remove([*self._outputs.values(), *([self._input] if self._input else [])])

    def error_text(self, error: str) -> str:
        """Return an error with the name of the target instead of that of its temporary file."""
        return re.sub(r"\b[A-Z]+_vtkMRML\w+Node[A-J]+\b", self.target.GetName(), error)


def _atlas_problem(rows: dict[str, cases.Row], atlas) -> str:
    row = rows.get(atlas.GetID())
    return row.problem() if row else _("Not an atlas: {name}. Add it with its label.").format(name=atlas.GetName())


def _summary(measured: dict) -> str:
    """Return the tumor side and the number of atlases used as a sentence each."""
    texts = [_("Atlases used: {used}, excluded: {excluded}.")]
    if measured["side"]:
        texts.insert(0, _("Tumor side: {side}."))
    return " ".join(texts).format(
        side=nodes.SIDE_NAMES.get(measured["side"], ""),
        used=measured["contributed"],
        excluded=measured["excluded"],
    )


def transform_file(target, outcome: dict) -> Path:
    """Return the file of the transform that maps an atlas onto a target.

    Raises:
        InputError: the registrations are no longer there.

    """
    folder = target.GetAttribute(nodes.REGISTRATIONS) or ""
    file = Path(folder) / outcome["transform"]
    if not file.is_file():
        raise InputError(_("Registrations not found: {folder}. Run “Register and fuse” again.").format(folder=folder))
    return file
