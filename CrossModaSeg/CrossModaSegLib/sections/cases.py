"""Atlases and targets: folders, nodes of the scene, and the state of every case."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.processes.case_files import CaseLoading, FolderListing, simulation_task
from CrossModaSegLib.processes.cohort import CohortSegmentation
from CrossModaSegLib.scene import cases, display, nodes
from CrossModaSegLib.sections.section import Section, red, refuse, reported, set_columns, shortened
from CrossModaSegLib.sections.structure_names import map_unknown

CASE, MODALITY, SIDE, STATE, PROBLEM = range(5)


class CasesSection(Section):
    """The table of cases."""

    name = "Cases"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self.in_folder: list[cases.Row] = []
        self.rows: list[cases.Row] = []
        self._filling = False
        titles = [_("Case"), _("Scan"), _("Side"), _("State"), _("Problem")]
        set_columns(self.ui.casesTable, titles, CASE, STATE, PROBLEM)
        self.bind_path(self.ui.datasetFolderEdit, "datasetFolder")
        self.ui.casesTable.connect("itemChanged(QTableWidgetItem*)", self.on_checked)
        self.ui.casesTable.connect("cellDoubleClicked(int,int)", self.on_double_click)
        for button, handler in (
            (self.ui.openButton, self.on_open),
            (self.ui.addAtlasButton, self.on_add_atlas),
            (self.ui.addTargetButton, self.on_add_target),
            (self.ui.loadButton, self.on_load),
            (self.ui.sampleButton, self.on_sample),
            (self.ui.segmentAllButton, self.on_segment_all),
            (self.ui.hardenButton, self.on_harden),
        ):
            button.connect("clicked(bool)", handler)

    # ---------------------------------------------------------------- state

    def forget(self) -> None:
        """Forget the folder of a scene that is being closed."""
        super().forget()
        self.in_folder = []

    def update(self) -> None:
        """Show the cases, and enable the buttons."""
        self.show_path(self.ui.datasetFolderEdit, self.parameters.datasetFolder)
        self._fill()
        busy = self.busy_reason()
        volume = self.ui.volumeSelector.currentNode()
        choose = "" if volume else _("Choose a volume first.")
        folder = "" if self.parameters.datasetFolder else _("Choose the folder of a data set first.")
        waiting = [row for row in self.selected() if row.volume is None and not row.file_problem]
        selected = "" if waiting else _("Open a folder and select the cases to load.")
        no_label = "" if self.ui.labelSelector.currentNode() else _("An atlas needs a label; choose it.")
        self.allow(self.ui.openButton, busy or folder, _("List the cases of the folder"))
        self.allow(self.ui.loadButton, busy or selected, _("Load the selected cases of the folder into the scene"))
        self.allow(
            self.ui.sampleButton,
            busy,
            _("Simulate three atlases and a target on this computer (about a minute; no internet)"),
        )
        self.allow(
            self.ui.addAtlasButton, choose or no_label, _("Use the volume and its label as a labeled ceT1 atlas")
        )
        self.allow(self.ui.addTargetButton, choose, _("Use the volume as an hrT2 target"))
        no_target = "" if self._checked_targets() else _("Check T2 scans of the scene or of a folder.")
        self.allow(
            self.ui.segmentAllButton,
            busy or no_target,
            _("Segment and measure the checked T2 scans into one table (CSV)"),
        )
        self.show_progress()
        self.ui.cancelButton.setVisible(self.running)
        self.ui.progressBar.setVisible(self.running)
        self.ui.hardenButton.setVisible(bool(self._transformed()))
        self.allow(
            self.ui.hardenButton,
            busy,
            _("Harden the transforms of the volumes and labels in the table; the transforms stay in the scene"),
        )

    def _transformed(self) -> list:
        """Return the volumes and labels of the table that are under a transform."""
        all_nodes = [node for row in self.rows for node in (row.volume, row.label) if node is not None]
        return [node for node in all_nodes if nodes.is_moved(node)]

    def selected(self) -> list[cases.Row]:
        """Return the selected cases."""
        excluded = set(self.parameters.excluded.split("\n"))
        return [row for row in self.rows if f"{row.id} {row.modality}" not in excluded]

    def atlases(self) -> list[cases.Row]:
        """Return the selected atlases that can be registered."""
        return [row for row in self.selected() if row.is_atlas and row.volume is not None and not row.problem()]

    def _checked_targets(self) -> list[cases.Row]:
        """Return the selected targets without a problem; those of the folder as files, also if they are loaded."""
        files = {row.id: row for row in self.in_folder if not row.is_atlas}
        targets = [files.get(row.id, row) for row in self.selected() if not row.is_atlas]
        return [row for row in targets if not row.problem()]

    def _fill(self) -> None:
        self.rows = cases.merged(self.in_folder)
        selected = {id(row) for row in self.selected()}
        table = self.ui.casesTable
        self._filling = True
        table.setRowCount(len(self.rows))
        for number, row in enumerate(self.rows):
            problem = row.problem()
            state = row.state(self.parameters.target)
            texts = [row.id, row.modality, self._side(row), state, problem]
            # The tool tips have the whole texts.
            shown = {
                CASE: shortened(row.id),
                STATE: state.partition(":")[0],
                PROBLEM: problem.removeprefix(f"{row.id} "),
            }
            for column, text in enumerate(texts):
                item = table.item(number, column)
                if item is None:
                    item = qt.QTableWidgetItem()
                    table.setItem(number, column, item)
                item.setText(shown.get(column, text))
                item.setToolTip(text)
                if column == PROBLEM:
                    item.setForeground(qt.QBrush(qt.QColor(red(table))))
            case = table.item(number, CASE)
            case.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            case.setCheckState(qt.Qt.Checked if id(row) in selected else qt.Qt.Unchecked)
        table.setColumnHidden(PROBLEM, not any(row.problem() for row in self.rows))
        self._filling = False

    def _side(self, row) -> str:
        """Return the side of a case's tumor: chosen, or measured with its certainty."""
        chosen = row.volume.GetAttribute(nodes.SIDE_CHOSEN) if row.volume else None
        if row.volume and row.volume is self.parameters.target:
            chosen = self.parameters.tumorSide
        if chosen in nodes.SIDE_NAMES:
            return nodes.SIDE_NAMES[chosen]
        side, certainty = row.tumor_side()
        name, percent = nodes.SIDE_NAMES.get(side, ""), round(100 * certainty)
        return _("{side}, {percent} %").format(side=name, percent=percent) if name and percent < 100 else name

    # ---------------------------------------------------------------- slots

    def on_checked(self, item) -> None:
        """Store the excluded cases."""
        if self._filling or item.column() != CASE or self.parameters is None:
            return
        excluded = [
            f"{row.id} {row.modality}"
            for number, row in enumerate(self.rows)
            if self.ui.casesTable.item(number, CASE).checkState() != qt.Qt.Checked
        ]
        self.parameters.excluded = "\n".join(excluded)

    def on_double_click(self, number: int) -> None:
        """Show a case in the slice views."""
        if number < len(self.rows) and self.rows[number].volume is not None:
            display.show_target(self.rows[number].volume)

    @reported
    def on_open(self) -> None:
        """List the folder, then check its files in the background."""
        self.start(self.logic.run(FolderListing(self.parameters.datasetFolder, self._list_rows).tasks()))

    def _list_rows(self, rows) -> None:
        self.in_folder = rows
        count = len([row for row in rows if row.file_problem])
        self.say(
            _("{all} cases; {bad} with a problem.").format(all=len(rows), bad=count)
            if count
            else _("{all} cases.").format(all=len(rows))
        )

    @reported
    def on_load(self) -> None:
        """Load the selected cases."""
        rows = [row for row in self.selected() if row.volume is None and not row.file_problem]
        self.start(self.logic.run(CaseLoading(rows, self._loaded).tasks()))

    def _loaded(self, rows) -> None:
        targets = [row.volume for row in rows if row.volume is not None and not row.is_atlas]
        if targets:
            if self.parameters.target is None:
                self.parameters.target = targets[0]
            display.show_target(targets[0])
        loaded = [row for row in rows if row.volume is not None]
        self.say(_("{count} cases loaded.").format(count=len(loaded)))

    @reported
    def on_sample(self) -> None:
        """Simulate the sample data, then load it."""

        def listed(rows):
            self._list_rows(rows)
            self._work.tasks += CaseLoading(rows, self._loaded).tasks()

        self.start(self.logic.run([simulation_task(listed, self.panel.sample)]))

    @reported
    def on_segment_all(self) -> None:
        """Segment and measure the checked targets."""
        parameters = self.parameters
        folder = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Folder of the segmentations and of their table"), parameters.exportFolder
        )
        if not folder:
            return
        work = CohortSegmentation(
            self._checked_targets(), folder, parameters.weights, parameters.device, parameters.flips
        )
        self.start(self.logic.run(work.tasks()), self._show_cohort)

    def _show_cohort(self, answer: dict) -> None:
        table, failures = Path(answer["table"]), answer["failures"]
        text = _("{count} of {all} segmented and measured: <a href='{link}'>{name}</a>.").format(
            count=answer["count"] - len(failures), all=answer["count"], link=table.as_uri(), name=table.name
        )
        self.say(" ".join([text, *(f"{case}: {reason}" for case, reason in failures.items())]))

    @reported
    def on_harden(self) -> None:
        """Harden the transforms of volumes and labels."""
        changed = self._transformed()
        names = sorted({node.GetParentTransformNode().GetName() for node in changed})
        for node in changed:
            nodes.harden(node)
        self.say(
            _("Hardened: {nodes}. To undo it, put them under {transforms}, inverted.").format(
                nodes=", ".join(node.GetName() for node in changed), transforms=", ".join(names)
            )
        )
        self.panel.update()

    @reported
    def on_add_atlas(self) -> None:
        """Make the selected volume an atlas."""
        volume, label = self.ui.volumeSelector.currentNode(), self.ui.labelSelector.currentNode()
        refuse(nodes.volume_problem(volume))
        if label.IsA("vtkMRMLSegmentationNode"):
            map_unknown(label, self.widget)
        refuse(nodes.label_problem(label, volume))
        self.logic.addCase(volume, label, cases.ATLAS)
        self.panel.update()

    @reported
    def on_add_target(self) -> None:
        """Make the selected volume a target."""
        volume = self.ui.volumeSelector.currentNode()
        refuse(nodes.volume_problem(volume))
        self.logic.addCase(volume, None, cases.TARGET)
        self.parameters.target = volume
        self.panel.update()
