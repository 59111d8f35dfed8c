"""The report is one file that shows what it was given."""

import base64
import re
from pathlib import Path

import pytest

from crossmoda.errors import InputError
from crossmoda.report import Report


@pytest.fixture
def report() -> Report:
    from matplotlib.figure import Figure

    page = Report("Title <1>", "Summary")
    page.section("Section", "Text")
    page.table(["structure", "mm3"], [["VS & co", 1407]], "caption of table")
    figure = Figure()
    figure.subplots().plot([0, 1])
    page.figure(figure, "caption of picture")
    return page


def test_the_report_holds_its_text_escaped(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    for expected in ("Title &lt;1&gt;", "VS &amp; co", "1407", "caption of table", "caption of picture"):
        assert expected in html


def test_the_report_loads_nothing_from_elsewhere(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)


def test_pictures_are_png(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.html")
    (picture,) = re.findall(r'base64,([^"]+)"', (tmp_path / "report.html").read_text("utf-8"))
    assert base64.b64decode(picture)[:4] == b"\x89PNG"


def test_a_report_that_cannot_be_written_says_so(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        report.write(tmp_path / "file" / "report.html")
