"""The measures of a segmentation: a table, sentences, the axial diameters as lines, the porus as a plane."""

import json
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
#: Attribute of a segmentation: the intervals of the volumes, by the network's probabilities (JSON).
INTERVALS = "CrossModa.VolumeIntervals"
#: Role of the lines of a segmentation's diameters.
DIAMETER = "diameter"


class Measurement(export.LabelMapWork):
    """The measurement of a segmentation on the grid of its scan."""

    def __init__(self, segmentation, volume, probability: Callable | None = None, weights: str = ""):
        """Name the segmentation, or a function that returns it when its turn has come, and its scan.

        ``probability()`` returns the tumor's probability map by the network of ``weights``; it is removed at the end.
        """
        super().__init__(segmentation)
        self.volume, self._weights = volume, weights
        self._probability = probability or (lambda: None)

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last is the table node."""
        return [
            StepsTask(_("Write the label map"), self._steps, abandon=self._clean),
            PythonTask("measure", self._arguments, _("Measure"), self._finish, self._clean),
        ]

    def _steps(self) -> list[Callable[[], None]]:
        cli_runs.require(self.volume, nodes.volume_problem)
        write_label_map = self._label_map_step(self.volume)
        files = {self._scan: self.volume, self._folder / "probability.nrrd": self._probability()}
        volumes = [(nodes.rounded_copy(volume), file) for file, volume in files.items() if volume is not None]
        return [write_label_map, *(partial(export.write_volume, *pair) for pair in volumes)]

    @property
    def _scan(self):
        return self._folder / "scan.nrrd"

    def _arguments(self) -> dict:
        planes = porus.moved_planes(self.segmentation)
        probability = self._folder / "probability.nrrd"
        return {
            "label_map": str(self._label_map),
            "scan": str(self._scan),
            "planes": planes,
            "probability": str(probability) if probability.is_file() else "",
            "weights": self._weights,
            "intervals": intervals(self.segmentation),
        }

    def _clean(self) -> None:
        self._remove_folder()
        if self._probability() is not None:
            cli_runs.remove([self._probability()])

    def _finish(self, answer: dict):
        self._clean()
        segmentation = self.segmentation
        cli_runs.require_present([segmentation])
        table = fill_table(segmentation, answer["columns"], answer["rows"])
        known = nodes.provenance(segmentation).get("measurements", {}).get("notes", "").lower()
        notes = [note for note in answer["notes"] if note.lower() not in known]  # the others are shown beside it
        table.SetAttribute(SENTENCES, "\n".join([*answer["sentences"], *notes]))
        table.SetAttribute(nodes.CORRECTED, segmentation.GetAttribute(nodes.CORRECTED))
        segmentation.SetAttribute(INTERVALS, json.dumps(answer["intervals"]))
        _show_diameters(segmentation, answer["diameters"])
        porus.show(segmentation, answer["planes"])
        return table


def intervals(segmentation) -> dict[str, list[float]]:
    """Return the intervals of the tumors' volumes by side (mm3); none of a segmentation that a person corrected."""
    is_corrected = segmentation.GetAttribute(nodes.CORRECTED)
    return {} if is_corrected else json.loads(segmentation.GetAttribute(INTERVALS) or "{}")


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
    rows = []
    for name, texts in tables.with_intervals([row for row in measured if not row[0].endswith("[mL]")]):
        rows.append((re.sub(r" \[mm3?\]$", "", name), [text.removesuffix(" (suggested)") for text in texts]))
    return structures, rows


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
