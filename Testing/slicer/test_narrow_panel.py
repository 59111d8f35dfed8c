"""A panel of Slicer's usual width, 325 pixels: long names, tables and headings fit into it."""

import pytest

NAME = "VS-SEG-242_1994-05-17_" + 98 * "x"
WIDTH = 325


@pytest.fixture
def named(opened, add_volume):
    """The panel with an open case, where every selector has a node with a name of 120 characters."""
    import slicer
    from CrossModaSegLib.scene import nodes

    assert len(NAME) == 120
    for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
        for node in slicer.util.getNodesByClass(kind):
            node.SetName(NAME)
    opened.register.ui.atlasComboBox.addItem(NAME)
    label = add_volume(NAME, kind="vtkMRMLLabelMapVolumeNode")
    label.SetName(NAME)
    add_volume(NAME).SetAttribute(nodes.ROLE, "uncertainty")
    add_volume("last: the selectors read the names again")
    return opened


def unfold(panel):
    """Open every section and group."""
    for section in panel.sections:
        for widget in vars(section.ui).values():
            if hasattr(type(widget), "collapsed"):
                widget.collapsed = False


def test_a_name_of_120_characters_leaves_every_section_at_most_320_pixels_wide(application, named):
    unfold(named)
    application.processEvents()
    widths = {section.name: section.widget.property("minimumSizeHint").width() for section in named.sections}
    assert {name: width for name, width in widths.items() if width > 320} == {}


@pytest.mark.bed
def test_every_selector_elides_the_names_of_its_nodes(application, named):
    from PySide6 import QtWidgets

    selectors = [
        widget
        for section in named.sections
        for name, widget in vars(section.ui).items()
        if name.endswith(("Selector", "ComboBox"))
    ]
    assert len(selectors) > 8
    for selector in selectors:
        assert selector.sizePolicy.horizontalPolicy() == QtWidgets.QSizePolicy.Ignored


@pytest.mark.bed
def test_the_columns_of_every_table_and_their_headings_fit(application, opened, add_volume):
    import qt
    import slicer
    from PySide6 import QtWidgets

    unfold(opened)
    opened.logic.addCase(add_volume("no geometry", spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)))
    opened.cases.update()
    comparison = opened.improve.ui.comparisonTable
    comparison.setVisible(True)
    texts = ["case_1", "Vestibular schwannoma", "0.812", "0.834", "+0.022"]
    comparison.setRowCount(1)
    for column, text in enumerate(texts):
        comparison.setItem(0, column, qt.QTableWidgetItem(text))
    widget = slicer.modules.crossmodaseg.widgetRepresentation()
    widget.show()
    widget.resize(WIDTH, 3000)
    checked = set()
    for section in opened.sections:
        opened.show_tab(section)
        for _ in range(3):
            application.processEvents()
        assert widget.width == WIDTH
        tables = {
            name: table
            for name, table in vars(section.ui).items()
            if isinstance(table, QtWidgets.QTableWidget) and QtWidgets.QWidget.isVisible(table)
        }
        checked |= set(tables)
        for name, table in tables.items():
            header = QtWidgets.QTableView.horizontalHeader(table)
            shown = [column for column in range(header.count()) if not header.isSectionHidden(column)]
            assert sum(map(header.sectionSize, shown)) <= QtWidgets.QTableView.viewport(table).width(), name
            for column in shown:
                wanted = QtWidgets.QHeaderView.sectionSizeFromContents(header, column).width()
                assert header.sectionSize(column) >= wanted, (name, column)
    assert checked >= {"casesTable", "queueTable", "regionsTable", "modelsTable", "comparisonTable"}


@pytest.mark.bed
def test_the_measures_are_shown_without_scrolling(application, panel, add_volume):
    import numpy as np
    import slicer
    from CrossModaSegLib.scene import measures, nodes
    from PySide6 import QtWidgets

    from crossmoda.measurement import COLUMNS

    target = add_volume("T2")
    result = panel.parameters.result = nodes.make_segmentation(np.ones((12, 20, 24)), target, "result", "prediction")
    tumor = ["VS", "right", *(1234.56 + number for number in range(len(COLUMNS) - 3)), "III (suggested)"]
    cochleae = [["cochlea", side, 81.2, 0.0812, *[None] * (len(COLUMNS) - 4)] for side in ("left", "right")]
    measures.fill_table(result, COLUMNS, [tumor, *cochleae])
    panel.update()
    widget = slicer.modules.crossmodaseg.widgetRepresentation()
    widget.show()
    widget.resize(WIDTH, 3000)
    for _ in range(3):
        application.processEvents()
    table = panel.result.ui.measuresTable
    viewport, header = QtWidgets.QTableView.viewport(table), QtWidgets.QTableView.horizontalHeader(table)
    assert table.rowCount == len(COLUMNS) - 5, "all but structure, side and mL; each interval is one row"
    assert sum(table.rowHeight(row) for row in range(table.rowCount)) <= viewport.height()
    assert header.length() <= viewport.width()
    assert header.sectionSize(0) >= 80, "“perpendicular dia…”"
