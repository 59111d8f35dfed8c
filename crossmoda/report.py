"""A report as one self-contained HTML file: text, tables and pictures."""

import base64
import datetime
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crossmoda
from crossmoda.labels import STRUCTURES
from crossmoda.output import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A cell with more characters is a sentence.
_SENTENCE = 48


def _png(figure: "Figure") -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode("ascii")


class Report:
    """Sections of text, tables and pictures, written as one self-contained HTML file.

    Example:
        >>> report = Report("Demo", "One target, six atlases.")
        >>> report.section("Volumes")
        >>> report.table(["structure", "mm3"], [["VS", "1407"]])
        >>> report.write("report.html")

    """

    def __init__(self, title: str, summary: str):
        """Start a report with its title and one paragraph."""
        self.title, self.summary = title, summary
        self._sections: list[dict[str, Any]] = []

    def section(self, title: str, text: str = "") -> None:
        """Start a section; the following figures and tables belong to it."""
        self._sections.append({"title": title, "text": text, "content": []})

    def figure(self, figure: "Figure | Sequence[Figure]", caption: str) -> None:
        """Add a matplotlib figure to the current section, or a row of figures, which a narrow screen breaks."""
        figures = figure if isinstance(figure, Sequence) else [figure]
        self._add({"pngs": [_png(each) for each in figures], "caption": caption})

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
        """Add a table to the current section; its cells are shown as text."""
        # A table with sentences is aligned to the left, and its lines break.
        sentences = any(len(str(cell)) > _SENTENCE for row in rows for cell in row)
        content = {"columns": list(columns), "rows": [list(row) for row in rows], "caption": caption}
        self._add({**content, "sentences": sentences})

    def write(self, path: Path | str) -> None:
        """Write the report to ``path`` (.html) in one step.

        Raises:
            InputError: the path cannot be written.

        """
        write_text(path, self.html())

    def html(self) -> str:
        """Return the report as a page."""
        import jinja2

        source = resources.files("crossmoda").joinpath("report.html.j2").read_text(encoding="utf-8")
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(source).render(
            title=self.title,
            summary=self.summary,
            sections=self._sections,
            structures=STRUCTURES,
            version=crossmoda.__version__,
            created=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        )

    def _add(self, item: dict[str, Any]) -> None:
        if not self._sections:
            raise ValueError("start a section first")
        self._sections[-1]["content"].append(item)
