"""Result: the measures of a segmentation; correct, show, export."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.scene import dicom, display, export, measures, nodes, porus, report
from CrossModaSegLib.sections.section import ROW_HEIGHT, Section, reported, reported_beside, set_columns, wrappable
from CrossModaSegLib.sections.structure_names import map_unknown

#: Time after the last move of a plane of the porus until it is measured, ms.
_AFTER_MOVE_MS = 600


class ResultSection(Section):
    """Measures, correction and export of a segmentation."""

    name = "Result"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self.bind_path(self.ui.exportFolderEdit, "exportFolder")
        self.ui.resultSelector.addAttribute("vtkMRMLSegmentationNode", nodes.ROLE)
        self.ui.measuresTable.setSizeAdjustPolicy(qt.QAbstractScrollArea.AdjustToContents)  # as high as its rows
        self.ui.measuresTable.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.ui.measuresTable.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self._plane_timer = qt.QTimer()
        self._plane_timer.setSingleShot(True)
        self._plane_timer.setInterval(_AFTER_MOVE_MS)
        self._plane_timer.connect("timeout()", self.on_plane)
        for name in ("edit", "measure", "uncertainty", "report", "pdf", "export", "dicom"):
            getattr(self.ui, name + "Button").connect("clicked(bool)", getattr(self, f"on_{name}"))

    def update(self) -> None:
        """Show measures and provenance of the result, and enable the buttons."""
        parameters = self.parameters
        result = parameters.result
        self.show_path(self.ui.exportFolderEdit, parameters.exportFolder)
        nothing = "" if result else _("Segment a scan first.")
        no_folder = "" if parameters.exportFolder else _("Choose a folder.")
        self.allow(self.ui.editButton, nothing, _("Open the segmentation in the Segment Editor with its scan"))
        self.ui.show3DButton.setSegmentationNode(result)
        self.allow(self.ui.show3DButton, nothing, _("Show the segmentation in the 3D view, or hide it"))
        busy = self.busy_reason()
        no_scan = nodes.without_scan(result) if result else nothing
        self.allow(self.ui.measureButton, no_scan or busy, _("Measure the segmentation as it is now"))
        self.allow(self.ui.exportButton, nothing or no_folder or busy, _("Write the selected files"))
        self.allow(self.ui.reportButton, no_scan or busy, _("Write the report of the scan and open it in the browser"))
        self.allow(self.ui.pdfButton, no_scan or busy, _("Print the report of the scan to a PDF file and open it"))
        no_series = dicom.problem(result) if result else nothing
        self.allow(
            self.ui.dicomButton,
            no_series or busy,
            _("Add the segmentation as DICOM SEG to the study of the scan in Slicer's DICOM database"),
        )
        self._show_uncertainty_button(parameters.uncertainty)
        self._show_texts(result)
        self._fill(measures.table_of(result))
        porus.watch(result, self._plane_timer.start)

    def _show_uncertainty_button(self, uncertainty) -> None:
        nothing = nodes.without_scan(uncertainty) if uncertainty else _("Segment a scan first.")
        is_shown = display.is_over(uncertainty)
        self.ui.uncertaintyButton.text = _("Hide uncertainty") if is_shown else _("Show uncertainty")
        self.allow(self.ui.uncertaintyButton, nothing, _("Lay the network's uncertainty over the scan, or hide it"))

    def _show_texts(self, result) -> None:
        """Show the measures as a sentence, and how the result was made."""
        for label, text in (
            (self.ui.sentenceLabel, measures.sentences(result)),
            (self.ui.provenanceLabel, self._provenance(result)),
        ):
            label.text = wrappable(text)
            label.setVisible(bool(text))

    @staticmethod
    def _provenance(result) -> str:
        record = nodes.provenance(result) if result else {}
        if not record:
            return ""
        names = ", ".join(source["name"] for source in record["inputs"].values())
        steps = {"propagate": _("Label from atlases"), "predict": _("Segmented by the network")}
        text = _("{step} (CrossModa {version}) from {names} in {seconds:.0f} s, {when}.").format(
            step=steps.get(record["step"], record["step"]),
            version=record["crossmoda"],
            names=names,
            seconds=record["seconds"],
            when=record["created"][:16].replace("T", " "),
        )
        corrected = result.GetAttribute(nodes.CORRECTED)
        sentences = [
            text,
            record.get("caution", ""),
            record.get("measurements", {}).get("notes", ""),
            _("Corrected {when}.").format(when=corrected[:16].replace("T", " ")) if corrected else "",
        ]
        return " ".join(sentence for sentence in sentences if sentence)

    def _fill(self, table) -> None:
        view = self.ui.measuresTable
        view.setVisible(table is not None)
        if table is None:
            return
        structures, rows = measures.by_measure(table)
        set_columns(view, [measures.UNITS, *structures], 0)
        view.setRowCount(len(rows))
        for row, (name, texts) in enumerate(rows):
            for column, text in enumerate([name, *texts]):
                view.setItem(row, column, qt.QTableWidgetItem(text))
                view.item(row, column).setToolTip(text)

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
    def on_uncertainty(self) -> None:
        """Lay the uncertainty over the scan, or hide it."""
        uncertainty = self.parameters.uncertainty
        scan = uncertainty.GetNodeReference(nodes.TARGET)
        if display.is_over(uncertainty):
            display.hide_doubt(scan)
        else:
            display.show_doubt(scan, uncertainty)
        self._show_uncertainty_button(uncertainty)

    @reported
    def on_measure(self) -> None:
        """Measure the result."""
        result = self.parameters.result
        map_unknown(result, self.widget)
        measurement = measures.Measurement(result, result.GetNodeReference(nodes.TARGET))
        self.start(self.logic.run(measurement.tasks()), lambda _table: self.say(""))

    def on_plane(self) -> None:
        """Measure with the plane of the porus where it was dragged to, as soon as nothing else runs."""
        if self.parameters is None or self.parameters.result is None:
            return
        if self.logic.busy:
            self._plane_timer.start()
        elif not nodes.without_scan(self.parameters.result):
            self.on_measure()

    @reported
    def on_report(self) -> None:
        """Write the report as a page."""
        self._report(as_pdf=False)

    @reported
    def on_pdf(self) -> None:
        """Print the report to a PDF file."""
        self._report(as_pdf=True)

    def _report(self, as_pdf: bool) -> None:
        """Write the report into the folder for files, which is chosen first, at best beside the scan."""
        parameters = self.parameters
        if not parameters.exportFolder:
            storage = parameters.result.GetNodeReference(nodes.TARGET).GetStorageNode()
            beside = str(Path(storage.GetFileName() or "").parent) if storage is not None else ""
            parameters.exportFolder = qt.QFileDialog.getExistingDirectory(
                self.widget, _("Folder of the report"), beside
            )
        if parameters.exportFolder:
            map_unknown(parameters.result, self.widget)
            work = report.Report(parameters.result, Path(parameters.exportFolder), parameters.reviewer, as_pdf)
            self.start(self.logic.run(work.tasks()), self._show_report)

    def _show_report(self, file: Path) -> None:
        self.say(_("Written: <a href='{link}'>{name}</a>.").format(link=file.as_uri(), name=file.name))
        report.open_file(file)

    @reported
    def on_export(self) -> None:
        """Write the selected files."""
        parameters = self.parameters
        if parameters.exportLabelMap:
            map_unknown(parameters.result, self.widget)
        work = export.Export(
            parameters.result,
            Path(parameters.exportFolder),
            parameters.exportSegmentation,
            parameters.exportLabelMap,
            parameters.exportSurfaces,
        )
        self.start(self.logic.run(work.tasks()), self._show_files)

    @reported
    def on_dicom(self) -> None:
        """Save the result to Slicer's DICOM database."""
        result = self.parameters.result
        map_unknown(result, self.widget)
        self.start(self.logic.run(dicom.DicomSaving(result).tasks()), self._show_saved)

    def _show_saved(self, name: str) -> None:
        self.say(_("Saved to the DICOM database: {name}.").format(name=name))

    def _show_files(self, files) -> None:
        self.say(_("Written: {names}").format(names=", ".join(path.name for path in files)))
