"""Review: the queue of cases and the decision about each."""

import qt
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask
from CrossModaSegLib.review import reviewed_case
from CrossModaSegLib.review.region_list import RegionList
from CrossModaSegLib.review.stopwatch import Stopwatch
from CrossModaSegLib.scene import display, export
from CrossModaSegLib.sections.section import NOTE, Section, reported, set_columns, shortened
from CrossModaSegLib.sections.shortcuts import Shortcuts

CASE, STATE, GAIN, TIME, WHY = range(5)
OPEN, CORRECTED, ACCEPTED, EXPERT = "open", "corrected", "accepted", "needs expert"


class ReviewSection(Section):
    """The queue of cases, and the open case."""

    name = "Review"

    def __init__(self, panel):
        """Connect the controls and the keys."""
        super().__init__(panel)
        self.items: list[dict] = []
        self._leaving = ""
        self._stopwatch, self._entered = Stopwatch(), False
        set_columns(self.ui.queueTable, [_("Case"), _("State"), _("Gain"), _("min"), _("Why")], WHY)
        self.ui.queueTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.ui.queueTable.horizontalHeaderItem(GAIN).setToolTip(_("Expected gain of a correction (Dice)"))
        self.bind_path(self.ui.dataFolderEdit, "datasetFolder")
        self.bind_path(self.ui.resultsFolderEdit, "resultsFolder")
        self.ui.queueTable.connect("cellDoubleClicked(int,int)", self.on_double_click)
        for name in ("list", "previous", "next", "accept", "expert"):
            getattr(self.ui, name + "Button").connect("clicked(bool)", getattr(self, "on_" + name))
        self.regions = RegionList(self)
        self._keys = Shortcuts(
            self.widget,
            {
                "Ctrl+Right": self.on_next,
                "Ctrl+Left": self.on_previous,
                "Ctrl+Return": self.on_accept,
                "Ctrl+Shift+Return": self.on_expert,
                **self.regions.keys(),
            },
        )

    # ---------------------------------------------------------------- state

    @property
    def case(self):
        """The open case, or None."""
        node = self.parameters.correction if self.parameters else None
        return reviewed_case.ReviewedCase(node) if node is not None and node.GetAttribute(reviewed_case.ID) else None

    def enter(self) -> None:
        """Enable the keys and start the stopwatch."""
        self._entered = True
        self._keys.install()
        if self.case is not None:
            self._stopwatch.go()

    def exit(self) -> None:
        """Disable the keys and stop the stopwatch."""
        self._entered = False
        self._keys.uninstall()
        self.count_time()
        self._stopwatch.stop()

    def count_time(self) -> None:
        """Add the time since the last lap to the open case."""
        seconds, case = self._stopwatch.lap(), self.case
        if case is not None:
            case.seconds += seconds

    def update(self) -> None:
        """Show the queue, and enable the buttons."""
        parameters, case = self.parameters, self.case
        self.show_path(self.ui.dataFolderEdit, parameters.datasetFolder)
        self.show_path(self.ui.resultsFolderEdit, parameters.resultsFolder)
        self._fill(case)
        missing = "" if parameters.datasetFolder else _("Choose the folder of a data set first.")
        missing = missing or ("" if parameters.resultsFolder else _("Choose the folder of the results first."))
        busy = self.busy_reason()
        empty = "" if self.items else _("List the cases first.")
        nothing = "" if case is not None else _("Open a case first.")
        undecided = "" if self.panel.correct.draft is None else _("Restore or discard the unsaved correction first.")
        keys = {"next": "Ctrl+→", "previous": "Ctrl+←", "accept": "Ctrl+↵", "expert": "Ctrl+Shift+↵"}
        self.allow(self.ui.listButton, busy or missing, _("Rank the cases by expected benefit of correction"))
        tips = {
            "next": (busy or missing or empty, _("Open the next open case")),
            "previous": (busy or missing or empty, _("Open the case above this one")),
            "accept": (nothing or busy or undecided, _("Accept the current label and open the next case")),
            "expert": (nothing or busy, _("Mark the case for an expert and open the next case")),
        }
        for name, (reason, tip) in tips.items():
            self.allow(getattr(self.ui, name + "Button"), reason, f"{tip} ({keys[name]})")
        self.ui.cancelButton.setVisible(self.running)
        self.ui.progressLabel.text = self._progress()
        done = [item for item in self.items if item["status"] in (CORRECTED, ACCEPTED)]
        self.ui.progressBar.value = (
            round(100 * self._work.progress) if self.running else round(100 * len(done) / max(len(self.items), 1))
        )
        self.ui.regionsGroupBox.enabled = case is not None
        self.regions.update(case)

    def _fill(self, case) -> None:
        table = self.ui.queueTable
        if table.rowCount != len(self.items):
            table.setRowCount(len(self.items))
        names = {OPEN: _("open"), CORRECTED: _("corrected"), ACCEPTED: _("accepted"), EXPERT: _("needs expert")}
        for number, item in enumerate(self.items):
            is_open = case is not None and item["id"] == case.id
            seconds = item["seconds"] + (case.seconds if is_open else 0.0)
            state = names[item["status"]] + (" *" if is_open and case.unsaved else "")
            why = item["reasons"][0] if item["reasons"] else ""
            texts = [
                shortened(item["id"]),
                state,
                f"{item['priority']:.2f}",
                f"{seconds / 60:.0f}" if seconds else "",
                why,
            ]
            tip = "\n".join([item["id"], *item["reasons"]])
            for column, text in enumerate(texts):
                cell = table.item(number, column)
                if cell is None:
                    cell = qt.QTableWidgetItem()
                    table.setItem(number, column, cell)
                if cell.text() != text:
                    cell.setText(text)
                cell.setToolTip(tip)
                font = cell.font()
                if font.bold() != is_open:
                    font.setBold(is_open)
                    cell.setFont(font)

    def _progress(self) -> str:
        if not self.items:
            return _("No cases listed.")
        counts = {
            status: sum(item["status"] == status for item in self.items) for status in (CORRECTED, ACCEPTED, EXPERT)
        }
        done = counts[CORRECTED] + counts[ACCEPTED]
        seconds = sum(item["seconds"] for item in self.items) + (self.case.seconds if self.case else 0.0)
        text = _("{done} of {all} done ({corrected} corrected, {accepted} accepted), {expert} for an expert.").format(
            done=done,
            all=len(self.items),
            corrected=counts[CORRECTED],
            accepted=counts[ACCEPTED],
            expert=counts[EXPERT],
        )
        if seconds >= 30:
            text += " " + _("{minutes:.0f} min spent.").format(minutes=seconds / 60)
        return text

    def item(self, case_id: str) -> dict:
        """Return the entry of a case in the queue (new if it is not listed)."""
        listed = next((item for item in self.items if item["id"] == case_id), None)
        return listed or {"id": case_id, "status": OPEN, "seconds": 0.0, "reasons": [], "priority": 0.0}

    # ---------------------------------------------------------------- slots

    @reported
    def on_list(self) -> None:
        """Rank the cases of the data set."""
        arguments = {"data": self.parameters.datasetFolder, "results": self.parameters.resultsFolder}
        task = PythonTask("review_list", arguments, _("Rank the cases"), self._listed)
        self._run([task])

    def _listed(self, answer) -> None:
        self.items = answer["items"]

    def on_double_click(self, number: int) -> None:
        """Open a case of the table."""
        if number < len(self.items):
            self._open(self.items[number]["id"])

    @reported
    def on_next(self) -> None:
        """Open the next open case."""
        if self.ui.nextButton.enabled:
            self._open_next()

    @reported
    def on_previous(self) -> None:
        """Open the case above."""
        row = self._row()
        if self.ui.previousButton.enabled and row > 0:
            self.open(self.items[row - 1]["id"])

    def _row(self) -> int:
        case = self.case
        return next((n for n, item in enumerate(self.items) if case is not None and item["id"] == case.id), -1)

    def _open_next(self, message: str = "") -> None:
        row = self._row()
        order = self.items[row + 1 :] + self.items[: max(row, 0)]
        following = next((item for item in order if item["status"] == OPEN), None)
        if following is not None:
            self.open(following["id"], message)
        else:
            self.say(f"{message} " + _("No open case is left."))
            self.panel.update()

    @reported
    def on_accept(self) -> None:
        """Save the label if it was corrected, else accept it."""
        if not self.ui.acceptButton.enabled:
            return
        case, correct = self.case, self.panel.correct
        self.count_time()
        correct.autosave.look()
        item, spent = self.item(case.id), case.seconds
        if case.unsaved:
            message = correct.save()
            item["status"] = CORRECTED
        elif item["status"] == CORRECTED:
            correct.autosave.mark(CORRECTED)
            message = _("{id} remains corrected.").format(id=case.id)
        else:
            correct.autosave.mark(ACCEPTED, case.results)
            item["status"] = ACCEPTED
            message = _("{id} is accepted.").format(id=case.id)
        item["seconds"] += spent
        self._open_next(message)

    @reported
    def on_expert(self) -> None:
        """Mark the case for an expert."""
        if not self.ui.expertButton.enabled:
            return
        case = self.case
        self.count_time()
        item, spent = self.item(case.id), case.seconds
        if case.unsaved:
            self.panel.correct.autosave.save_draft()
        self.panel.correct.autosave.mark(EXPERT)
        item["status"] = EXPERT
        item["seconds"] += spent
        self._open_next(_("{id} is marked for an expert.").format(id=case.id))

    # ---------------------------------------------------------------- opening and leaving a case

    def _open(self, case_id: str) -> None:
        self._wanted = case_id
        self._open_wanted()

    @reported
    def _open_wanted(self) -> None:
        self.open(self._wanted)

    def open(self, case_id: str, message: str = "") -> None:
        """Open a case, after a draft of the present one was saved; ``message`` is shown then.

        If the case is open already, its correction stays and newer results are added.
        """
        if self.logic.busy:
            raise InputError(self.busy_reason())
        present, parameters = self.case, self.parameters
        data, results = parameters.datasetFolder, parameters.resultsFolder
        stays = present is not None and (present.id, present.data) == (case_id, data)  # newer results are looked for
        left = "" if stays else self.leave()
        self._leaving = f"{message} {left}".strip()
        folder, opened = str(export.temporary_folder()), []
        answer: dict = {}
        arguments = {"data": data, "results": results, "case_id": case_id, "folder": folder}
        self._run(
            [
                PythonTask("review_case", arguments, _("Read {id}").format(id=case_id), answer.update),
                StepsTask(
                    _("Load {id}").format(id=case_id),
                    lambda: reviewed_case.loading_steps(answer, data, results, opened),
                    lambda _result: self._opened(opened[0]),
                ),
            ]
        )

    def leave(self) -> str:
        """Save a draft of the open case and remove it from the scene; return a message for the user."""
        case, correct = self.case, self.panel.correct
        if case is None:
            return ""
        self.count_time()
        problem = correct.keep_before_leaving(self.item(case.id)["status"])
        correct.let_go()
        self.parameters.correction = None
        if problem:
            case.correction.GetDisplayNode().SetVisibility(False)
            return problem
        reviewed_case.remove(case)
        return ""

    def _opened(self, case) -> None:
        self.parameters.correction = case.correction
        self.parameters.target = case.volume
        self.ui.casesGroupBox.collapsed = True  # room for the regions and the editor
        self.show(case)
        if self._entered:
            self._stopwatch.lap()
            self._stopwatch.go()

    def show(self, case) -> None:
        """Show a case: scan, correction, outlines of fused label and prediction, the most uncertain region."""
        case.correction.GetDisplayNode().SetVisibility(True)
        display.show_target(case.volume)
        self.panel.correct.take_up(case)
        self.regions.show(case)

    def _run(self, tasks: list) -> None:
        self.start(self.logic.run(tasks), self._show_hint)

    def run_steps(self, task) -> None:
        """Run short steps of the open case."""
        self._run([task])

    def on_work(self) -> None:
        """Show the state of the work; remove a case whose loading was stopped."""
        if self._work is not None and self._work.over and not self._work.succeeded:
            reviewed_case.remove_unfinished()
        super().on_work()

    def _show_hint(self, _result) -> None:
        self.say(self._leaving or self._hint(), NOTE)
        self._leaving = ""

    def _hint(self) -> str:
        if self.case is None:
            return _("Double-click a case to open it. The first has the largest expected gain.") if self.items else ""
        return next(iter(self.item(self.case.id)["reasons"]), "")  # all of them are in the tool tip of the queue
