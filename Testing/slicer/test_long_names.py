"""Names of scans as archives give them: the panel stays as wide as it is, and every column stays in view."""

import pytest

LONG = "VS-SEG-242_1994-05-17_MR_t1_mpr_sag_p2_iso_0p4_after_contrast_agent_second_acquisition"


def test_a_long_name_in_a_message_does_not_widen_the_panel(panel):
    for section in panel.sections:
        label = section.ui.messageLabel
        assert label.wordWrap
        section.say(f"Register {LONG} (tumor on the left): The images do not overlap.")
        assert label.property("minimumSizeHint").width() < 280
        label.text = LONG
        assert label.property("minimumSizeHint").width() > 450, "it would"


@pytest.mark.bed
def test_a_long_message_is_shown_to_its_last_line(application, panel):
    """Qt reckons the lines of a label in a form at the width it would like, not at the one it gets."""
    import slicer
    from PySide6 import QtWidgets

    widget, label = slicer.modules.crossmodaseg.widgetRepresentation(), panel.result.ui.messageLabel
    panel.show_tab(panel.result)
    widget.show()
    for words in range(10, 70, 5):
        for text in ("", " ".join(f"word{number}" for number in range(words))):
            panel.result.say(text)
            for _ in range(3):
                application.processEvents()
                widget.resize(470, QtWidgets.QWidget.heightForWidth(widget, 470) + 80)
        assert QtWidgets.QWidget.height(label) >= QtWidgets.QLabel.heightForWidth(label, QtWidgets.QWidget.width(label))
    panel.result.say("")


def test_a_word_is_broken_only_if_it_is_long_and_only_in_what_is_read():
    from CrossModaSegLib.sections.section import wrappable

    short = "crossmoda_1 was left out: <b>its registration failed</b>; check /data/crossmoda_1_ceT1.nii.gz."
    assert wrappable(short) == short
    long = wrappable(f"<b>{LONG}</b><br>C:\\{'x' * 100}")
    assert long.replace("\u200b", "") == f"<b>{LONG}</b><br>C:\\{'x' * 100}"
    assert long.startswith("<b>VS-\u200b") and "</b><br>" in long
    link = f"<a href='file:///data/{LONG}/report.html'>"
    assert wrappable(f"{link}{LONG}</a>").startswith(f"{link}VS-\u200b")
    assert max(len(word) for word in long.replace("<", " <").replace("\u200b", " ").split()) <= 40


def test_a_long_name_leaves_the_other_columns_in_view_and_the_tool_tip_has_all_of_it(panel, add_volume):
    volume = add_volume(LONG)
    panel.logic.addCase(volume)
    panel.update()
    table = panel.cases.ui.casesTable
    cell = table.item(0, 0)
    assert cell.text() == "VS-SEG-242…acquisition"
    assert cell.toolTip() == LONG
    assert [row.id for row in panel.cases.selected()] == [LONG]


def test_the_column_of_problems_does_not_repeat_the_name(panel, add_volume):
    panel.logic.addCase(add_volume(LONG, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)))
    panel.update()
    cell = panel.cases.ui.casesTable.item(0, 4)
    assert cell.text().startswith("has no geometry")
    assert cell.toolTip().startswith(f"{LONG} has no geometry")
