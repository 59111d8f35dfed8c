"""The measures of a segmentation: a table, sentences, the axial diameters as lines, the porus as a plane."""

import re
from collections.abc import Callable
from functools import partial

import slicer
import vtk
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import export, nodes, porus, tables

#: Reference role of the table of a segmentation, and the attribute with its measures in words.
TABLE, SENTENCES = "CrossModa.table", "CrossModa.Sentences"
#: Units of the measures in the narrow table.
UNITS = "mm, mm3"
#: Role of the lines of a segmentation's diameters.
DIAMETER = "diameter"


class Measurement(export.LabelMapWork):
    """The measurement of a segmentation on the grid of its scan."""

    def __init__(self, segmentation, volume):
        """Name the segmentation, or a function that returns it when its turn has come, and its scan."""
        super().__init__(segmentation)
        self.volume = volume

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last is the table node."""
        return [
            StepsTask(_("Write the label map"), self._steps, abandon=self._remove_folder),
            PythonTask("measure", self._arguments, _("Measure"), self._finish, self._remove_folder),
        ]

    def _steps(self) -> list[Callable[[], None]]:
        cli_runs.require(self.volume, nodes.volume_problem)
        write_label_map = self._label_map_step(self.volume)
        return [write_label_map, partial(export.write_volume, nodes.rounded_copy(self.volume), self._scan)]

    @property
    def _scan(self):
        return self._folder / "scan.nrrd"

    def _arguments(self) -> dict:
        planes = porus.moved_planes(self.segmentation)
        return {"label_map": str(self._label_map), "scan": str(self._scan), "planes": planes}

    def _finish(self, answer: dict):
        self._remove_folder()
        segmentation = self.segmentation
        cli_runs.require_present([segmentation])
        table = fill_table(segmentation, answer["columns"], answer["rows"])
        known = nodes.provenance(segmentation).get("measurements", {}).get("notes", "").lower()
        notes = [note for note in answer["notes"] if note.lower() not in known]  # the others are shown beside it
        table.SetAttribute(SENTENCES, "\n".join([*answer["sentences"], *notes]))
        table.SetAttribute(nodes.CORRECTED, segmentation.GetAttribute(nodes.CORRECTED))
        _show_diameters(segmentation, answer["diameters"])
        porus.show(segmentation, answer["planes"])
        return table


def table_of(segmentation):
    """Return the table of a segmentation, or None."""
    return segmentation.GetNodeReference(TABLE) if segmentation else None


def sentences(segmentation) -> str:
    """Return the measures of a segmentation in words, and whether it has changed since; empty before it is measured."""
    table = table_of(segmentation)
    text = (table.GetAttribute(SENTENCES) or "") if table else ""
    if text and (table.GetAttribute(nodes.CORRECTED) or "") != (segmentation.GetAttribute(nodes.CORRECTED) or ""):
        text = _("The segmentation has changed since: measure again.") + f"\n{text}"
    return text


def fill_table(segmentation, columns: list[str], rows: list[list]):
    """Return the table of a segmentation, filled with these rows; numbers are numeric, unknown ones not a number."""
    table = segmentation.GetNodeReference(TABLE)
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", segmentation.GetName() + " measures")
        segmentation.SetNodeReferenceID(TABLE, table.GetID())
        nodes.place_beside(table, segmentation)
    return tables.fill(table, columns, rows)


def by_measure(table) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the texts of a table for a narrow panel: the measured structures, and a row of values for each measure.

    Measures that nothing has are left out, volumes in mL as well.
    """
    structures, measured = tables.turned(table)
    shown = [(name, texts) for name, texts in measured if not name.endswith("[mL]")]
    return structures, [(_short(name), [text.removesuffix(" (suggested)") for text in texts]) for name, texts in shown]


def _short(name: str) -> str:
    """Return the name of a measure without its unit (:data:`UNITS`); that of a limit without that of its measure."""
    _measure, is_limit, limit = name.partition(", ")
    return re.sub(r" \[mm3?\]$", "", f"    {limit}" if is_limit else name)


def _show_diameters(segmentation, diameters: list[dict]) -> None:
    """Draw the diameters of a segmentation as locked lines, instead of those of an earlier measurement."""
    for line in slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode"):
        if line.GetAttribute(nodes.ROLE) == DIAMETER and line.GetNodeReference(nodes.TARGET) is segmentation:
            slicer.mrmlScene.RemoveNode(line)
    for diameter in diameters:
        name = slicer.mrmlScene.GenerateUniqueName(f"{segmentation.GetName()} {diameter['name']}")
        line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
        for x, y, z in (diameter["start_mm"], diameter["stop_mm"]):
            line.AddControlPointWorld(vtk.vtkVector3d(-x, -y, z))
        line.SetAttribute(nodes.ROLE, DIAMETER)
        line.SetNodeReferenceID(nodes.TARGET, segmentation.GetID())
        line.SetLocked(True)
        line.CreateDefaultDisplayNodes()
        line.GetDisplayNode().SetPropertiesLabelVisibility(False)
        line.GetDisplayNode().SetPointLabelsVisibility(False)
