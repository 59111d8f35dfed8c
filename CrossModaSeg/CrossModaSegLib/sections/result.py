"""Result: correct, measure, export."""

import qt
import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.processes.tasks import DONE
from CrossModaSegLib.scene import display, export, nodes
from CrossModaSegLib.sections.section import ERROR, Section, reported, reported_beside, set_columns, wrappable


class ResultSection(Section):
    """What is done with a segmentation."""

    name = "Result"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self.bind_path(self.ui.exportFolderEdit, "exportFolder")
        self.ui.resultSelector.addAttribute("vtkMRMLSegmentationNode", nodes.ROLE)
        self.ui.editButton.connect("clicked(bool)", self.on_edit)
        self.ui.show3DButton.connect("clicked(bool)", self.on_show_3d)
        self.ui.measureButton.connect("clicked(bool)", self.on_measure)
        self.ui.exportButton.connect("clicked(bool)", self.on_export)

    def update(self) -> None:
        """Show the result's measures and provenance, and what can be done."""
        parameters = self.parameters
        result = parameters.result
        self.show_path(self.ui.exportFolderEdit, parameters.exportFolder)
        nothing = "" if result else _("Choose a segmentation.")
        no_folder = "" if parameters.exportFolder else _("Choose a folder.")
        self.allow(self.ui.editButton, nothing, _("Open the segmentation in the Segment Editor with its scan"))
        self.allow(self.ui.show3DButton, nothing, _("Show or hide the surfaces in the 3D view"))
        busy = self.busy_reason()
        no_scan = nodes.without_scan(result) if result else nothing
        self.allow(
            self.ui.measureButton, no_scan or busy, _("Measure volume, largest diameter and distance to the cochlea")
        )
        self.allow(self.ui.exportButton, nothing or no_folder or busy, _("Write the files chosen"))
        self.ui.provenanceLabel.text = wrappable(self._provenance(result))
        self.ui.provenanceLabel.setVisible(bool(self.ui.provenanceLabel.text))
        self._fill(result.GetNodeReference(export.TABLE) if result else None)

    @staticmethod
    def _provenance(result) -> str:
        record = nodes.provenance(result) if result else {}
        if not record:
            return ""
        names = ", ".join(source["name"] for source in record["inputs"].values())
        steps = {"register": _("Registered"), "fuse": _("Fused"), "predict": _("Segmented by the network")}
        text = _("{step} (CrossModa {version}) from {names} in {seconds:.0f} s, {when}.").format(
            step=steps.get(record["step"], record["step"]),
            version=record["crossmoda"],
            names=names,
            seconds=record["seconds"],
            when=record["created"][:16].replace("T", " "),
        )
        corrected = result.GetAttribute(nodes.CORRECTED)
        said = [
            text,
            record.get("measurements", {}).get("notes", ""),
            _("Corrected {when}.").format(when=corrected[:16].replace("T", " ")) if corrected else "",
        ]
        return " ".join(part for part in said if part)

    def _fill(self, table) -> None:
        view = self.ui.measuresTable
        view.setVisible(table is not None)
        if table is None:
            return
        content = table.GetTable()
        titles = [content.GetColumnName(column) for column in range(content.GetNumberOfColumns())]
        set_columns(view, titles, 0)
        view.setRowCount(content.GetNumberOfRows())
        for row in range(content.GetNumberOfRows()):
            for column in range(len(titles)):
                view.setItem(row, column, qt.QTableWidgetItem(content.GetValue(row, column).ToString()))

    @reported_beside
    def on_edit(self) -> None:
        """Open the Segment Editor with the result and its scan."""
        result = self.parameters.result
        volume = result.GetNodeReference(nodes.TARGET)
        display.outline_only(result, False)
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.util.getModuleWidget("SegmentEditor").editor
        editor.setSegmentationNode(result)
        if volume is not None:
            editor.setSourceVolumeNode(volume)

    @reported_beside
    def on_show_3d(self) -> None:
        """Show the surfaces, or hide them."""
        segmentation = self.parameters.result
        shown = segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
        if shown:
            segmentation.RemoveClosedSurfaceRepresentation()
        else:
            segmentation.CreateClosedSurfaceRepresentation()

    @reported
    def on_measure(self) -> None:
        """Measure the result."""
        self._run(self.logic.measureTasks(self.parameters.result), lambda _table: self.say(""))

    @reported
    def on_export(self) -> None:
        """Write the files chosen."""
        parameters = self.parameters
        tasks = self.logic.exportTasks(
            parameters.result,
            parameters.exportFolder,
            parameters.exportSegmentation,
            parameters.exportLabelMap,
            parameters.exportSurfaces,
        )
        self._run(
            tasks,
            lambda files: self.say(_("Written: {names}").format(names=", ".join(path.name for path in files))),
        )

    def _run(self, tasks: list, done) -> None:
        """Run short tasks; ``done(result)`` shows the result of the last."""
        work = self.logic.run(tasks)

        def changed():
            if self.parameters is None:
                return
            if work.failures:
                self.say(work.failures[0].error, ERROR)
            elif work.over and tasks[-1].state == DONE:
                done(tasks[-1].result)
            elif work.current is not None:
                self.say(work.current.title + "…")
            self.panel.update_soon()

        work.observe(changed)
        work.start()
        self.panel.update()
