"""Improve: fine-tune the model in use with the corrections, compare, switch on request."""

import json
from pathlib import Path

import qt
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import CliTask, PythonTask, TaskQueue
from CrossModaSegLib.sections.section import Section, refuse, reported, set_columns

NAME, DICE, MADE = range(3)


class ImproveSection(Section):
    """Models: fine-tuned with corrections, compared, selected."""

    name = "Improve"
    cancelled = _("Cancelled. The model in use stays; the next start continues this training.")

    def __init__(self, panel):
        """Connect the controls."""
        super().__init__(panel)
        self.models: list = []
        self._listed = None
        titles = [_("Case"), _("Structure"), _("Dice\nnow"), _("Dice\nnew"), _("Change")]
        set_columns(self.ui.comparisonTable, titles, 0, 1)
        set_columns(self.ui.modelsTable, [_("Model"), _("Held-out Dice"), _("Made")], NAME, DICE)
        self.ui.modelsTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.ui.modelsTable.connect("itemSelectionChanged()", self.panel_update)
        self.bind_path(self.ui.modelsFolderEdit, "modelsFolder")
        self.ui.comparisonTable.setVisible(False)
        self.ui.comparisonLabel.setVisible(False)
        self.ui.progressBar.setVisible(False)
        for name in ("improve", "switch", "report", "nnunet", "bids"):
            getattr(self.ui, name + "Button").connect("clicked(bool)", getattr(self, f"on_{name}"))

    # ---------------------------------------------------------------- state

    def panel_update(self) -> None:
        """Show the selected model."""
        if self.parameters is not None:
            self._show_chosen()

    def stop(self) -> None:
        """Stop the training."""
        if self.running:
            self._work.cancel()

    def forget(self) -> None:
        """Stop the training, whose CLI node is removed with the scene; its checkpoints stay."""
        was_running = self.running
        self.stop()
        super().forget()
        if was_running:
            self.say(self.cancelled)

    def update(self) -> None:
        """Show the models, and enable the buttons."""
        parameters = self.parameters
        self.show_path(self.ui.modelsFolderEdit, parameters.modelsFolder)
        if self._listed != (parameters.modelsFolder, parameters.weights):
            self.list_models()
        settled = [item for item in self.panel.review.items if item["status"] in ("corrected", "accepted")]
        self.ui.correctionsLabel.text = (
            _("{count} corrected or accepted cases of {all} in the review.").format(
                count=len(settled), all=len(self.panel.review.items)
            )
            if self.panel.review.items
            else _("List the cases in “Review” to count the corrections.")
        )
        self.allow(self.ui.improveButton, self._hindrance(), _("Fine-tune the model in use with the corrections"))
        self.show_progress()
        self.ui.progressBar.setVisible(self.running)
        missing = "" if parameters.datasetFolder and parameters.resultsFolder else _("Choose both folders in “Review”.")
        self.allow(
            self.ui.reportButton,
            missing or self.busy_reason(),
            _("Write a report of all cases: agreement, corrections, volumes, models"),
        )
        no_data = "" if parameters.datasetFolder else _("Choose the folder of a data set in “Review”.")
        for button in (self.ui.nnunetButton, self.ui.bidsButton):
            tip = _("Write the T2 scans with their corrected labels, else those of the results, into a new folder")
            self.allow(button, no_data or self.busy_reason(), tip)
        self._show_chosen()

    def _hindrance(self) -> str:
        parameters = self.parameters
        if self.running:
            return _("A model is being trained. Wait or cancel.")
        if not parameters.datasetFolder:
            return _("Choose the folder of a data set in “Review”.")
        if not parameters.modelsFolder:
            return _("Choose a folder for the models.")
        if not self.panel.setup.versions["torch"]:
            return _("PyTorch is missing; install it in “Setup”.")
        return ""

    def list_models(self) -> None:
        """Read the cards of the models in the folder."""
        parameters = self.parameters
        self._listed, self.models = (parameters.modelsFolder, parameters.weights), []
        if parameters.modelsFolder:
            from crossmoda.review import models  # takes as long as the rest of the panel

            self.models = models.models(parameters.modelsFolder)
        table = self.ui.modelsTable
        table.setRowCount(len(self.models))
        for row, model in enumerate(self.models):
            texts = [_name(model.name), _dice(model.card), _made(model.card)]
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                font = item.font()
                font.setBold(model.is_current)
                item.setFont(font)
                item.setToolTip(str(model.weights))
                table.setItem(row, column, item)

    @property
    def chosen(self):
        """The selected model, or None."""
        rows = self.ui.modelsTable.selectionModel().selectedRows()
        return self.models[rows[0].row()] if rows and rows[0].row() < len(self.models) else None

    def _show_chosen(self) -> None:
        model = self.chosen
        self.ui.cardLabel.setVisible(model is not None)
        if model is None:
            reason = _("Select a model in the table.") if self.models else _("Choose a folder for the models.")
        else:
            self.ui.cardLabel.text = _card(model)
            reason = _("This model is in use.") if model.is_current and self._uses(model) else ""
        tip = _("Use this model in “Measure”; you can switch back")
        self.allow(self.ui.switchButton, reason or (self.busy_reason() if self.running else ""), tip)

    def _uses(self, model) -> bool:
        """Whether “Measure” uses a model."""
        from crossmoda import weights

        return self.parameters.weights == ("" if model.weights == weights.bundled() else str(model.weights))

    # ---------------------------------------------------------------- slots

    @reported
    def on_improve(self) -> None:
        """Fine-tune the model in use and compare; the model in use stays."""
        refuse(self._hindrance())
        parameters = self.parameters
        if self.panel.correct.autosave.case is not None and self.panel.correct.autosave.case.unsaved:
            self.say(_("The open correction is not saved and not used for training."))
        arguments = {
            "data": parameters.datasetFolder,
            "models": parameters.modelsFolder,
            "seconds": 60.0 * parameters.improveMinutes,
            "device": parameters.device,
            **({"noisy": parameters.resultsFolder} if parameters.resultsFolder else {}),
        }
        task = CliTask("CrossModaTrain", _("Improve the model"), lambda: arguments, self._weights)
        self.start(TaskQueue([task]), self._show_comparison)

    @staticmethod
    def _weights(node) -> Path:
        return Path(cli_runs.measurements(node)["weights"])

    def _show_comparison(self, weights: Path) -> None:
        """Show Dice before and after on the held-out cases, and select the new model."""
        from crossmoda import labels

        self.list_models()
        comparison = json.loads((weights.parent / "comparison.json").read_text(encoding="utf-8"))
        names = {structure.key: structure.name for structure in labels.STRUCTURES}
        rows = [
            (case, names.get(key, key), before, comparison["after"][case][key])
            for case, scores in comparison["before"].items()
            for key, before in scores.items()
        ]
        table = self.ui.comparisonTable
        table.setRowCount(len(rows))
        for number, (case, structure, before, after) in enumerate(rows):
            texts = [case, structure, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
            for column, text in enumerate(texts):
                table.setItem(number, column, qt.QTableWidgetItem(text))
        table.setVisible(True)
        gain, cases = comparison["gain"], len(comparison["before"])
        words = _("better") if round(gain, 3) > 0 else _("not better")
        self.ui.comparisonLabel.text = _(
            "<b>{new}</b> is {words} than the model in use ({old}) on {cases} not used for training: "
            "mean Dice {gain:+.3f}. <a href='{folder}'>Pictures</a>"
        ).format(
            new=comparison["new"],
            old=_name(comparison["old"]),
            words=words,
            cases=_("1 corrected case") if cases == 1 else _("{count} corrected cases").format(count=cases),
            gain=gain,
            folder=(weights.parent / "comparison").as_uri(),
        )
        self.ui.comparisonLabel.setVisible(True)
        self.say(_("The model in use stays. “Use this model” switches to the new model."))
        row = next((n for n, model in enumerate(self.models) if model.weights == weights), -1)
        self.ui.modelsTable.selectRow(row)

    @reported
    def on_switch(self) -> None:
        """Use the selected model in “Measure”."""
        from crossmoda import weights
        from crossmoda.review import models

        model = models.switch(self.parameters.modelsFolder, self.chosen.name)
        row = self.models.index(self.chosen)
        self.parameters.weights = "" if model.weights == weights.bundled() else str(model.weights)
        self.list_models()
        self.ui.modelsTable.selectRow(row)
        self.say(_("“Measure” uses {name} now.").format(name=_name(model.name)))
        self.panel.update()

    @reported
    def on_report(self) -> None:
        """Write the report of the cohort beside the results."""
        parameters = self.parameters
        folder = Path(parameters.resultsFolder) / "review"
        arguments = {
            "data": parameters.datasetFolder,
            "results": parameters.resultsFolder,
            "models": parameters.modelsFolder,
            "folder": str(folder),
        }
        task = PythonTask("review_report", arguments, _("Report of the cohort"))
        self.start(self.logic.run([task]), self._show_report)

    @reported
    def on_nnunet(self) -> None:
        """Export the labeled scans as an nnU-Net v2 raw data set."""
        self._export("nnunet", "Dataset501_CrossModa")

    @reported
    def on_bids(self) -> None:
        """Export the labeled scans as BIDS derivatives."""
        self._export("bids", "bids")

    def _export(self, form: str, name: str) -> None:
        """Write the labeled scans into a new folder, in a folder that the user chooses."""
        parameters = self.parameters
        parent = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Folder that receives {name}").format(name=name), parameters.exportFolder
        )
        if parent:
            arguments = {
                "data": parameters.datasetFolder,
                "results": parameters.resultsFolder,
                "folder": str(Path(parent) / name),
                "form": form,
            }
            task = PythonTask("export_training_data", arguments, _("Export the labeled scans"))
            self.start(self.logic.run([task]), self._show_export)

    def _show_export(self, answer: dict) -> None:
        text = _("{count} labeled scans written to {folder}.").format(count=answer["count"], folder=answer["folder"])
        left_out = _("Left out, without a label: {names}.").format(names=", ".join(answer["unlabeled"]))
        self.say(f"{text} {left_out}" if answer["unlabeled"] else text)

    def _show_report(self, files: dict) -> None:
        report, table = Path(files["report"]), Path(files["table"])
        self.say(
            _("Written: <a href='{report}'>{name}</a> and {table} in {folder}.").format(
                report=report.as_uri(), name=report.name, table=table.name, folder=report.parent
            )
        )


def _name(name: str) -> str:
    return _("bundled model") if name == "bundled" else name


def _dice(card: dict) -> str:
    cases = card.get("metrics", {}).get("dice_on_held_out_corrections")
    if not cases:
        return ""
    keys = sorted({key for scores in cases.values() for key in scores}, key=str.lower, reverse=True)
    means = {key: sum(scores[key] for scores in cases.values()) / len(cases) for key in keys}
    return ", ".join(f"{key} {value:.2f}" for key, value in means.items())


def _learned(card: dict) -> str:
    counts = card["learned_from"]
    return _("corrections ({corrected}), fused labels ({noisy}) and atlases ({sources})").format(
        **{key: counts.get(key, 0) for key in ("corrected", "noisy", "sources")}
    )


def _made(card: dict) -> str:
    return str(card.get("training", {}).get("created", ""))[:10]


def _card(model) -> str:
    """Return a summary of a model's card."""
    card = model.card
    training = card.get("training", {})
    lines = [f"<b>{_name(model.name)}</b>"]
    if card.get("learned_from"):
        initial = card["learned_from"].get("initial", "?")
        initial = _("the bundled model") if initial == "bundled" else initial
        lines.append(_("Fine-tuned from {initial} with {learned}.").format(initial=initial, learned=_learned(card)))
    if card.get("held_out"):
        lines.append(_("Held out: {cases}.").format(cases=", ".join(card["held_out"])))
    for key, title in (("license", _("License")), ("data", _("Data")), ("notes", _("Notes"))):
        if card.get(key):
            lines.append(f"{title}: {card[key]}")
    if training.get("notes"):
        lines.append(training["notes"])
    if training.get("seconds"):
        lines.append(_("Trained for {minutes:.0f} min.").format(minutes=training["seconds"] / 60))
    return "<br>".join(lines)
