"""Atlases and targets: open folders, take nodes of the scene, see the state of every case."""

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.processes import sides
from CrossModaSegLib.scene import cases, display, nodes
from CrossModaSegLib.sections.section import ERROR, Section, red, reported, set_columns, shortened

CASE, MODALITY, SIDE, STATE, PROBLEM = range(5)


class CasesSection(Section):
    """The table of cases."""

    name = "Cases"

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self.in_folder: list[cases.Row] = []
        self.rows: list[cases.Row] = []
        self._work, self._filling = None, False
        titles = [_("Case"), _("Scan"), _("Side"), _("State"), _("Problem")]
        set_columns(self.ui.casesTable, titles, PROBLEM)
        self.bind_path(self.ui.datasetFolderEdit, "datasetFolder")
        self.ui.casesTable.connect("itemChanged(QTableWidgetItem*)", self.on_ticked)
        self.ui.casesTable.connect("cellDoubleClicked(int,int)", self.on_double_click)
        for name in ("open", "addAtlas", "addTarget", "load", "sample", "harden", "cancel"):
            handler = getattr(self, "on_" + {"addAtlas": "add_atlas", "addTarget": "add_target"}.get(name, name))
            getattr(self.ui, name + "Button").connect("clicked(bool)", handler)

    # ---------------------------------------------------------------- state

    def forget(self) -> None:
        """Let go of the folder and the work of a scene that is being closed."""
        super().forget()
        self.in_folder = []

    def update(self) -> None:
        """Show the cases, and what can be done."""
        self.show_path(self.ui.datasetFolderEdit, self.parameters.datasetFolder)
        self._fill()
        busy = self.busy_reason()
        volume = self.ui.volumeSelector.currentNode()
        choose = "" if volume else _("Choose a volume first.")
        folder = "" if self.parameters.datasetFolder else _("Choose the folder of a data set first.")
        waiting = [row for row in self.ticked() if row.volume is None and not row.file_problem]
        ticked = "" if waiting else _("Open a folder and tick the cases to load.")
        no_label = "" if self.ui.labelSelector.currentNode() else _("An atlas needs a label; choose it.")
        self.allow(self.ui.openButton, busy or folder, _("List the cases of the folder"))
        self.allow(self.ui.loadButton, busy or ticked, _("Load the ticked cases of the folder into the scene"))
        self.allow(
            self.ui.sampleButton,
            busy,
            _("Simulate three atlases and a target on this computer (about a minute; no internet)"),
        )
        self.allow(
            self.ui.addAtlasButton, choose or no_label, _("Use the volume and its label as a labeled ceT1 atlas")
        )
        self.allow(self.ui.addTargetButton, choose, _("Use the volume as an hrT2 target"))
        running = self._work is not None and not self._work.over
        self.ui.cancelButton.setVisible(running)
        self.ui.hardenButton.setVisible(bool(self._transformed()))
        self.allow(
            self.ui.hardenButton,
            busy,
            _("Write the transforms into the volumes and labels of the table; the transforms stay in the scene"),
        )
        self.ui.progressBar.setVisible(running)
        if running:
            self.ui.progressBar.value = round(100 * self._work.progress)

    def _transformed(self) -> list:
        """Return the volumes and labels of the table that are under a transform."""
        found = [node for row in self.rows for node in (row.volume, row.label) if node is not None]
        return [node for node in found if node.GetParentTransformNode() is not None]

    def ticked(self) -> list[cases.Row]:
        """Return the ticked cases."""
        unticked = set(self.parameters.unticked.split("\n"))
        return [row for row in self.rows if f"{row.id} {row.modality}" not in unticked]

    def atlases(self) -> list[cases.Row]:
        """Return the ticked atlases that can be registered."""
        return [row for row in self.ticked() if row.is_atlas and row.volume is not None and not row.problem()]

    def _fill(self) -> None:
        self.rows = cases.merged(self.in_folder)
        ticked = {id(row) for row in self.ticked()}
        table = self.ui.casesTable
        self._filling = True
        table.setRowCount(len(self.rows))
        for number, row in enumerate(self.rows):
            problem = row.problem()
            side, doubt = self._side(row)
            texts = [row.id, row.modality, doubt or side, row.state(self.parameters.target), problem]
            # Narrow columns show the most telling part; the tool tips have all of it.
            shown = {CASE: shortened(row.id), PROBLEM: problem.removeprefix(f"{row.id} ")}
            if doubt:
                shown[SIDE] = side + "?"
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
            case.setCheckState(qt.Qt.Checked if id(row) in ticked else qt.Qt.Unchecked)
        self._filling = False

    def _side(self, row) -> tuple[str, str]:
        """Return the side of a case's tumor, as it was chosen or else found, and what is doubtful about it."""
        chosen = row.volume.GetAttribute(nodes.SIDE_CHOSEN) if row.volume else None
        if row.volume and row.volume is self.parameters.target:
            chosen = self.parameters.tumorSide
        if chosen in (None, "auto"):
            return sides.NAMES.get(row.side, ""), sides.doubtful(row.volume)
        return sides.NAMES.get(chosen, ""), ""

    # ---------------------------------------------------------------- slots

    def on_ticked(self, item) -> None:
        """Remember which cases are not to be used."""
        if self._filling or item.column() != CASE or self.parameters is None:
            return
        unticked = [
            f"{row.id} {row.modality}"
            for number, row in enumerate(self.rows)
            if self.ui.casesTable.item(number, CASE).checkState() != qt.Qt.Checked
        ]
        self.parameters.unticked = "\n".join(unticked)

    def on_double_click(self, number: int) -> None:
        """Show a case in the slice views."""
        if number < len(self.rows) and self.rows[number].volume is not None:
            display.show_target(self.rows[number].volume)

    @reported
    def on_open(self) -> None:
        """List the folder, then check its files in the background."""
        self._run(self.logic.folderTasks(self.parameters.datasetFolder, self._found))

    def _found(self, rows) -> None:
        self.in_folder = rows
        count = len([row for row in rows if row.file_problem])
        self.say(
            _("{all} cases; {bad} with a problem.").format(all=len(rows), bad=count)
            if count
            else _("{all} cases.").format(all=len(rows))
        )

    @reported
    def on_load(self) -> None:
        """Load the ticked cases."""
        rows = [row for row in self.ticked() if row.volume is None and not row.file_problem]
        self._run(self.logic.loadTasks(rows, self._loaded))

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

        def found(rows):
            self._found(rows)
            self._work.tasks += self.logic.loadTasks(rows, self._loaded)

        self._run([self.logic.sampleTask(found, self.panel.sample)])

    def _run(self, tasks) -> None:
        self._work = self.logic.run(tasks)
        self._work.observe(self._on_work)
        self._work.start()
        self.panel.update()

    def _on_work(self) -> None:
        failures = self._work.failures
        if failures:
            self.say(failures[0].error, ERROR)
        elif self._work.cancelled:
            self.say(_("Cancelled."))
        elif self._work.current is not None:
            self.say(f"{self._work.current.title}: {self._work.current.message}")
        self.panel.update()

    @reported
    def on_harden(self) -> None:
        """Write the transforms into the volumes and labels that are under one."""
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
    def on_cancel(self) -> None:
        """Stop at once."""
        self._work.cancel()

    @reported
    def on_add_atlas(self) -> None:
        """Make the volume chosen an atlas."""
        volume, label = self.ui.volumeSelector.currentNode(), self.ui.labelSelector.currentNode()
        self._refuse(nodes.volume_problem(volume) or nodes.label_problem(label, volume))
        self.logic.addCase(volume, label, cases.ATLAS)
        self.panel.update()

    @reported
    def on_add_target(self) -> None:
        """Make the volume chosen a target."""
        volume = self.ui.volumeSelector.currentNode()
        self._refuse(nodes.volume_problem(volume))
        self.logic.addCase(volume, None, cases.TARGET)
        self.parameters.target = volume
        self.panel.update()

    @staticmethod
    def _refuse(problem: str) -> None:
        from crossmoda.errors import InputError

        if problem:
            raise InputError(problem)
