"""The report of one patient: a page that the engine writes, opened in the browser or printed to PDF by Qt."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import qt
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import dicom, export, measures, nodes, porus

#: Margins of the printed page (mm), and its resolution, at which the fonts of a page in a browser have their size.
_MARGINS_MM, _DOTS_PER_INCH = (14, 12, 14, 12), 96
#: Fonts of the printed page: Qt's documents have no other style of a browser's page.
_PRINTED = (
    "body { font-size: 9pt; } h1 { font-size: 15pt; } h2 { font-size: 11pt; margin-top: 8px; } "
    "td, th { padding: 1px 14px 1px 0; text-align: left; }"
)
#: Between the pictures of a row, pixels.
_GAP = 4


class Report(export.LabelMapWork):
    """The tasks that write the report of a segmentation as HTML (with JSON and CSV beside it) or as PDF.

    Nothing is overwritten: if a name is taken, the files get a number.
    """

    def __init__(self, segmentation, folder: Path, reviewer: str = "", as_pdf: bool = False):
        """Name the folder, and who corrected the segmentation."""
        super().__init__(segmentation)
        self._reviewer, self._as_pdf = reviewer, as_pdf
        self._target_folder = folder
        self._stem = export.free_stem(folder, _("{name} report").format(name=self.segmentation.GetName()))

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last is the file."""
        return [
            StepsTask(_("Write the label map"), self._steps, abandon=self._remove_folder),
            PythonTask("report", self._arguments, _("Write the report"), self._finish, self._remove_folder),
        ]

    def _steps(self) -> list[Callable[[], None]]:
        volume = self.segmentation.GetNodeReference(nodes.TARGET)
        cli_runs.require(volume, nodes.volume_problem)
        write_label_map = self._label_map_step(volume)
        return [write_label_map, partial(export.write_volume, nodes.rounded_copy(volume), self._folder / "scan.nrrd")]

    def _arguments(self) -> dict:
        segmentation = self.segmentation
        instances = dicom.source_files(segmentation.GetNodeReference(nodes.TARGET))
        return {
            "label_map": str(self._label_map),
            "scan": str(self._folder / "scan.nrrd"),
            "path": str((self._folder if self._as_pdf else self._target_folder) / f"{self._stem}.html"),
            "planes": porus.moved_planes(segmentation),
            "intervals": measures.intervals(segmentation),
            "record": nodes.provenance(segmentation),
            "instance": instances[0] if instances else "",
            "reviewer": self._reviewer if segmentation.GetAttribute(nodes.CORRECTED) else "",
        }

    def _finish(self, answer: dict) -> Path:
        page = Path(answer["path"])
        if self._as_pdf:
            html, page = page.read_text(encoding="utf-8"), self._target_folder / f"{self._stem}.pdf"
            print_page(html, page)
        self._remove_folder()
        return page


def print_page(html: str, path: Path) -> None:
    """Print a page of a report to a PDF file (A4).

    Raises:
        InputError: the file cannot be written.

    """
    from crossmoda.output import atomic

    with atomic(path) as unfinished:
        writer = qt.QPdfWriter(str(unfinished))
        writer.setResolution(_DOTS_PER_INCH)
        writer.setPageSize(qt.QPageSize(qt.QPageSize.A4))
        writer.setPageMargins(qt.QMarginsF(*_MARGINS_MM), qt.QPageLayout.Millimeter)
        writer.setTitle(path.stem)
        page = writer.pageLayout().paintRectPixels(_DOTS_PER_INCH)
        document = qt.QTextDocument()
        document.setDocumentMargin(0)
        document.setPageSize(qt.QSizeF(page.width(), page.height()))
        document.setHtml(_printable(html, page.width()))
        getattr(document, "print_" if hasattr(document, "print_") else "print")(writer)  # PySide6 or PythonQt


def _printable(html: str, width: int) -> str:
    """Return a page in the part of HTML that Qt prints: its own fonts, the pictures of a row side by side."""

    def row(match: re.Match) -> str:
        share = (width - _GAP) // match[1].count("<img ") - _GAP
        return "<p>" + match[1].replace("<img ", f'<img width="{share}" ') + "</p>"

    html = re.sub(r"<style>.*?</style>", f"<style>{_PRINTED}</style>", html, flags=re.DOTALL)
    html = re.sub(r'<div class="row">(.*?)</div>', row, html, flags=re.DOTALL)
    return re.sub(
        r'<span class="swatch" style="background: (.*?)"></span>', r'<span style="color: \1"> ■ </span>', html
    )


def open_file(path: Path) -> None:
    """Open a file in the program that the system has for it."""
    if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path))):
        raise InputError(_("No program opens {path}. Open it by hand.").format(path=path))
