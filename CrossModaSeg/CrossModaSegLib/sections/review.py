"""Review: which case first, and what was decided about each."""

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.processes.tasks import DONE, PythonTask, StepsTask
from CrossModaSegLib.review import reviewed_case
from CrossModaSegLib.review.autosave import Stopwatch
from CrossModaSegLib.review.region_list import Places
from CrossModaSegLib.scene import display
from CrossModaSegLib.sections.section import ERROR, NOTE, Section, reported, set_columns, shortened
from CrossModaSegLib.sections.shortcuts import Shortcuts

CASE, STATE, GAIN, TIME, WHY = range(5)
OPEN, CORRECTED, ACCEPTED, EXPERT = "open", "corrected", "accepted", "needs expert"


class ReviewSection(Section):
    """The queue of cases; the case that is open."""

    name = "Review"

    def __init__(self, panel):
        """Connect the controls and the keys."""
        super().__init__(panel)
        self.items: list[dict] = []
        self._work, self._leaving = None, ""
        self._stopwatch, self._entered = Stopwatch(), False
        set_columns(self.ui.queueTable, [_("Case"), _("State"), _("Gain"), _("min"), _("Why")], WHY)
        self.ui.queueTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.ui.queueTable.horizontalHeaderItem(GAIN).setToolTip(_("The Dice that a correction is expected to gain"))
        self.bind_path(self.ui.dataFolderEdit, "datasetFolder")
        self.bind_path(self.ui.resultsFolderEdit, "resultsFolder")
        self.ui.queueTable.connect("cellDoubleClicked(int,int)", self.on_double_click)
        for name in ("list", "cancel", "previous", "next", "accept", "expert"):
            getattr(self.ui, name + "Button").connect("clicked(bool)", getattr(self, "on_" + name))
        self.places = Places(self)
        self._keys = Shortcuts(
            self.widget,
            {
                "Ctrl+Right": self.on_next,
                "Ctrl+Left": self.on_previous,
                "Ctrl+Return": self.on_accept,
                "Ctrl+Shift+Return": self.on_expert,
                **self.places.keys(),
            },
        )

    # ---------------------------------------------------------------- state

    @property
    def case(self):
        """The case that is open, or None."""
        node = self.parameters.correction if self.parameters else None
        return reviewed_case.ReviewedCase(node) if node is not None and node.GetAttribute(reviewed_case.ID) else None

    def enter(self) -> None:
        """Let the keys work; the time runs."""
        self._entered = True
        self._keys.install()
        if self.case is not None:
            self._stopwatch.go()

    def exit(self) -> None:
        """Give the keys back; the time stands still."""
        self._entered = False
        self._keys.uninstall()
        self.count_time()
        self._stopwatch.stop()

    def count_time(self) -> None:
        """Add the time since the last look to the case that is open."""
        seconds, case = self._stopwatch.lap(), self.case
        if case is not None:
            case.seconds += seconds

    def update(self) -> None:
        """Show the queue, and what can be done."""
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
        self.allow(self.ui.listButton, busy or missing, _("Sort the cases by how much a correction would help"))
        tips = {
            "next": (busy or missing or empty, _("Open the next case that is not done")),
            "previous": (busy or missing or empty, _("Open the case above this one")),
            "accept": (nothing or busy or undecided, _("Keep the label as it is now and open the next case")),
            "expert": (nothing or busy, _("Put the case aside for an expert and open the next one")),
        }
        for name, (reason, tip) in tips.items():
            self.allow(getattr(self.ui, name + "Button"), reason, f"{tip} ({keys[name]})")
        running = self._work is not None and not self._work.over
        self.ui.cancelButton.setVisible(running)
        self.ui.progressLabel.text = self._progress()
        done = [item for item in self.items if item["status"] in (CORRECTED, ACCEPTED)]
        self.ui.progressBar.value = (
            round(100 * self._work.progress) if running else round(100 * len(done) / max(len(self.items), 1))
        )
        self.ui.regionsGroupBox.enabled = case is not None
        self.places.update(case)

    def _fill(self, case) -> None:
        table = self.ui.queueTable
        if table.rowCount != len(self.items):
            table.setRowCount(len(self.items))
        names = {OPEN: _("open"), CORRECTED: _("corrected"), ACCEPTED: _("accepted"), EXPERT: _("needs expert")}
        for number, item in enumerate(self.items):
            here = case is not None and item["id"] == case.id
            seconds = item["seconds"] + (case.seconds if here else 0.0)
            state = names[item["status"]] + (" *" if here and case.unsaved else "")
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
                if font.bold() != here:
                    font.setBold(here)
                    cell.setFont(font)

    def _progress(self) -> str:
        if not self.items:
            return _("No cases are listed yet.")
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
        """Return a case's line of the queue (a new one if it is not listed)."""
        found = next((item for item in self.items if item["id"] == case_id), None)
        return found or {"id": case_id, "status": OPEN, "seconds": 0.0, "reasons": [], "priority": 0.0}

    # ---------------------------------------------------------------- slots

    @reported
    def on_list(self) -> None:
        """Sort the cases of the data set."""
        arguments = {"data": self.parameters.datasetFolder, "results": self.parameters.resultsFolder}
        task = PythonTask("review_list", arguments, _("Sort the cases"), self._listed)
        self._run([task])

    def _listed(self, answer) -> None:
        self.items = answer["items"]

    @reported
    def on_cancel(self) -> None:
        """Stop at once."""
        self._work.cancel()

    def on_double_click(self, number: int) -> None:
        """Open a case of the table."""
        if number < len(self.items):
            self._open(self.items[number]["id"])

    @reported
    def on_next(self) -> None:
        """Open the next case that is not done."""
        if self.ui.nextButton.enabled:
            self._open_next()

    @reported
    def on_previous(self) -> None:
        """Open the case above."""
        here = self._row()
        if self.ui.previousButton.enabled and here > 0:
            self.open(self.items[here - 1]["id"])

    def _row(self) -> int:
        case = self.case
        return next((n for n, item in enumerate(self.items) if case is not None and item["id"] == case.id), -1)

    def _open_next(self, said: str = "") -> None:
        here = self._row()
        order = self.items[here + 1 :] + self.items[: max(here, 0)]
        following = next((item for item in order if item["status"] == OPEN), None)
        if following is not None:
            self.open(following["id"], said)
        else:
            self.say(f"{said} " + _("No other case is open."))
            self.panel.update()

    @reported
    def on_accept(self) -> None:
        """Keep the label as it is now: a corrected one is saved, an untouched one is accepted."""
        if not self.ui.acceptButton.enabled:
            return
        case, correct = self.case, self.panel.correct
        self.count_time()
        correct.keeper.look()
        item, spent = self.item(case.id), case.seconds
        if case.unsaved:
            said = correct.save()
            item["status"] = CORRECTED
        elif item["status"] == CORRECTED:
            correct.keeper.mark(CORRECTED)
            said = _("{id} stays as it was corrected.").format(id=case.id)
        else:
            correct.keeper.mark(ACCEPTED, case.results)
            item["status"] = ACCEPTED
            said = _("{id} is accepted.").format(id=case.id)
        item["seconds"] += spent
        self._open_next(said)

    @reported
    def on_expert(self) -> None:
        """Put the case aside."""
        if not self.ui.expertButton.enabled:
            return
        case = self.case
        self.count_time()
        item, spent = self.item(case.id), case.seconds
        if case.unsaved:
            self.panel.correct.keeper.autosave()
        self.panel.correct.keeper.mark(EXPERT)
        item["status"] = EXPERT
        item["seconds"] += spent
        self._open_next(_("{id} waits for an expert.").format(id=case.id))

    # ---------------------------------------------------------------- opening and leaving a case

    def _open(self, case_id: str) -> None:
        self._wanted = case_id
        self._open_wanted()

    @reported
    def _open_wanted(self) -> None:
        self.open(self._wanted)

    def open(self, case_id: str, said: str = "") -> None:
        """Open a case: what is unsaved of the present one is kept first.

        The case that is open stays as it is; results that were made in the meantime arrive beside it.
        """
        from crossmoda.errors import InputError

        if self.logic.busy:
            raise InputError(self.busy_reason())
        present, parameters = self.case, self.parameters
        data, results = parameters.datasetFolder, parameters.resultsFolder
        stays = present is not None and (present.id, present.data) == (case_id, data)  # newer results are looked for
        left = "" if stays else self.leave()
        self._leaving = f"{said} {left}".strip()
        folder, opened = str(self.logic.temporaryFolder()), []
        answer: dict = {}
        arguments = {"data": data, "results": results, "case_id": case_id, "folder": folder}
        self._run(
            [
                PythonTask("review_case", arguments, _("Read {id}").format(id=case_id), answer.update),
                StepsTask(
                    _("Load {id}").format(id=case_id),
                    lambda: reviewed_case.loading_steps(answer, data, results, opened) if answer else _nothing_read(),
                    lambda _result: self._opened(opened[0]),
                ),
            ]
        )

    def leave(self) -> str:
        """Keep what is unsaved of the case that is open and take it out of the scene; return what is to be said."""
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
        self.show(case)
        if self._entered:
            self._stopwatch.lap()
            self._stopwatch.go()

    def show(self, case) -> None:
        """Show a case: scan, correction, outlines of noisy label and prediction, the most doubtful place."""
        case.correction.GetDisplayNode().SetVisibility(True)
        display.show_target(case.volume)
        self.panel.correct.take_up(case)
        self.places.show(case)

    def _run(self, tasks) -> None:
        self._work = self.logic.run(tasks)
        self._work.observe(self._on_work)
        self._work.start()
        self.panel.update()

    def run_steps(self, task) -> None:
        """Run short steps of the case that is open."""
        self._run([task])

    def _on_work(self) -> None:
        work = self._work
        if self.parameters is None:
            return
        if work.over and (work.cancelled or work.failures):
            reviewed_case.remove_unfinished()
        if work.cancelled:
            self.say(_("Cancelled."))
        elif work.failures:
            self.say(work.failures[0].error, ERROR)
        elif work.current is not None:
            self.say(f"{work.current.title}: {work.current.message}".rstrip(": "))
        elif work.over and work.tasks[-1].state == DONE:
            self.say(self._leaving or self._hint(), NOTE)
            self._leaving = ""
        self.panel.update_soon()

    def _hint(self) -> str:
        if self.case is None:
            return _("Double-click a case to open it; the first gains most.") if self.items else ""
        return "\n".join(self.item(self.case.id)["reasons"])


def _nothing_read() -> list:
    from crossmoda.errors import InputError

    raise InputError(_("The case could not be read."))
