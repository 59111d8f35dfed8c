"""Growth: a scan compared with a previous one of the same patient."""

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.scene import dates, display, growth
from CrossModaSegLib.sections.section import (
    ROW_HEIGHT,
    Section,
    refuse,
    reported,
    reported_beside,
    set_columns,
    wrappable,
)


class GrowthSection(Section):
    """The comparison with the previous scan, and what it shows."""

    name = "Growth"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self._criteria = ["volume", "linear"]
        self.ui.criterionComboBox.addItems([_("volume, at least 20 %"), _("diameter, more than 2 mm")])
        self.ui.criterionComboBox.connect("activated(int)", self.on_criterion)
        for name in ("date", "previousDate"):
            getattr(self.ui, f"{name}Edit").connect("editingFinished()", self.on_dates)
        for name in ("compare", "show"):
            getattr(self.ui, f"{name}Button").connect("clicked(bool)", getattr(self, f"on_{name}"))
        self.ui.changeCheckBox.connect("clicked(bool)", self.on_change)
        self.ui.fadeSlider.connect("valueChanged(double)", self.on_fade)
        self.ui.growthTable.setSizeAdjustPolicy(qt.QAbstractScrollArea.AdjustToContents)  # as high as its rows
        self.ui.growthTable.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.ui.growthTable.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.ui.sectionButton.collapsed = True

    def update(self) -> None:
        """Show dates and result of the comparison, and what can be done."""
        parameters = self.parameters
        scan, previous = parameters.target, parameters.previous
        for edit, volume in ((self.ui.dateEdit, scan), (self.ui.previousDateEdit, previous)):
            edit.enabled = volume is not None
            if not edit.hasFocus():
                edit.text = dates.of(volume) if volume else ""
        self.ui.criterionComboBox.currentIndex = self._criteria.index(parameters.criterion)
        self.allow(
            self.ui.compareButton, self.hindrance(), _("Align both scans, segment them together and measure the change")
        )
        table = growth.table_of(scan)
        nothing = "" if table else _("Compare the scan first.")
        self.allow(self.ui.showButton, nothing, _("Show both scans in linked views, both outlines, and the plot"))
        no_change = nothing or ("" if growth.has_change(table) else _("No tumor in one of the scans."))
        self.allow(self.ui.changeCheckBox, no_change, _("Color the tumor's surface by its change: red has grown (mm)"))
        self.ui.changeCheckBox.checked = growth.is_change_shown(table)
        self.ui.fadeSlider.enabled = table is not None
        self._show_result(table)
        self.show_progress()
        for widget in (self.ui.progressBar, self.ui.cancelButton):
            widget.setVisible(self.running)

    def hindrance(self) -> str:
        """Return why the scans cannot be compared; an empty string if they can."""
        parameters = self.parameters
        reason = self.busy_reason() or growth.problem(parameters.target, parameters.previous)
        if not reason and not self.panel.setup.versions["torch"]:
            reason = _("PyTorch is missing; install it in “Setup”.")
        return reason

    def _show_result(self, table) -> None:
        """Show the table with a row for each value, and the comparison in words."""
        text = growth.sentences(self.parameters.target)
        self.ui.sentenceLabel.text = wrappable(text)
        self.ui.sentenceLabel.setVisible(bool(text))
        view = self.ui.growthTable
        view.setVisible(table is not None)
        if table is None:
            return
        titles, rows = growth.rows_of(table)
        set_columns(view, ["", *titles], 0)
        view.setRowCount(len(rows))
        for row, (name, texts) in enumerate(rows):
            for column, value in enumerate([name, *texts]):
                view.setItem(row, column, qt.QTableWidgetItem(value))
                view.item(row, column).setToolTip(value)

    # ---------------------------------------------------------------- slots

    def on_criterion(self, number: int) -> None:
        """Keep the criterion."""
        if self.parameters is not None:
            self.parameters.criterion = self._criteria[number]

    def on_dates(self) -> None:
        """Keep the dates that the user stated."""
        parameters = self.parameters
        for edit, volume in (
            (self.ui.dateEdit, parameters.target),
            (self.ui.previousDateEdit, parameters.previous),
        ):
            if volume is not None and edit.text != dates.of(volume):
                dates.state(volume, edit.text)
        self.panel.update_soon()

    def comparison(self) -> growth.Comparison:
        """Return the comparison of the selected scans."""
        parameters = self.parameters
        return growth.Comparison(
            parameters.target, parameters.previous, parameters.weights, parameters.device, parameters.criterion
        )

    @reported
    def on_compare(self) -> None:
        """Compare the scans."""
        refuse(self.hindrance())
        comparison = self.comparison()
        self.start(self.logic.run(comparison.tasks()), lambda table: self.show_comparison(table, comparison.scan))

    def show_comparison(self, table, scan) -> None:
        """Show a new comparison, unless another scan is selected."""
        self.say("")
        if self.shows(scan):
            growth.show(table, scan)

    @reported_beside
    def on_show(self) -> None:
        """Show the comparison in the views."""
        scan = self.parameters.target
        growth.show(growth.table_of(scan), scan)

    @reported_beside
    def on_change(self) -> None:
        """Show the change of the surface, or hide it."""
        growth.show_change(growth.table_of(self.parameters.target), self.ui.changeCheckBox.checked)

    def on_fade(self, percent: float) -> None:
        """Lay the previous scan over the scan."""
        if self.parameters is not None:
            display.fade_previous(self.parameters.previous, percent)
