"""What the panel says can be read in Slicer's light and dark style: WCAG 2.1 asks for a contrast of 4.5."""

import pytest

pytestmark = pytest.mark.bed


@pytest.fixture(params=["#efefef", "#353535"], ids=["light", "dark"])
def style(request, application, panel):
    """The panel with a light or a dark background."""
    from PySide6 import QtGui

    background = QtGui.QColor(request.param)
    text = QtGui.QColor("black" if background.lightness() > 128 else "white")
    palette = QtGui.QPalette()
    roles = QtGui.QPalette
    for role, color in ((roles.Window, background), (roles.Base, background)):
        palette.setColor(role, color)
    for role in (roles.WindowText, roles.Text):
        palette.setColor(role, text)
    widgets = [section.widget for section in panel.sections]
    before = [widget.palette for widget in widgets]
    for widget in widgets:
        widget.setPalette(palette)
    yield panel, background
    for widget, old in zip(widgets, before, strict=True):
        widget.setPalette(old)


def luminance(color) -> float:
    """Return the relative luminance of WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color.getRgbF()[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second) -> float:
    """Return the contrast ratio of WCAG 2.1."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def shown_color(label):
    """Return the color in which a label's text is drawn."""
    from PySide6 import QtGui, QtWidgets

    QtWidgets.QWidget.ensurePolished(label)
    return QtWidgets.QWidget.palette(label).color(QtGui.QPalette.WindowText)


def test_remarks_and_errors_can_be_read(style):
    from CrossModaSegLib.sections.section import ERROR

    panel, background = style
    for section in panel.sections:
        section.say("Check the result.")
        remark = shown_color(section.ui.messageLabel)
        section.say("Choose another scan.", ERROR)
        error = shown_color(section.ui.messageLabel)
        assert error != remark
        assert min(contrast(remark, background), contrast(error, background)) >= 4.5
        section.say("")


def test_the_table_of_cases_can_be_read(style, add_volume):
    from PySide6 import QtCore, QtGui

    panel, background = style
    panel.logic.addCase(add_volume("T2", spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)))
    panel.update()
    table = panel.cases.ui.casesTable
    for column in range(5):
        own = table.item(0, column).data(QtCore.Qt.ForegroundRole)
        color = own.color() if own else table.palette.color(QtGui.QPalette.Text)
        assert contrast(color, background) >= 4.5
