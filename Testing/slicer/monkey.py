"""A monkey at the panel: clicks, choices, deleted nodes, closed scenes and cancels at random moments.

``pytest -s Testing/slicer/monkey.py`` (it is not collected otherwise) takes a minute per seed; with
``CROSSMODA_MONKEY="5 6 7"`` other seeds. Whatever Slicer, Qt or Python complains of is printed with the actions before.
"""

import logging
import os
import random
import sys
import time
import traceback

import pytest
from testbed.processes import child_processes

SEEDS = [int(seed) for seed in os.environ.get("CROSSMODA_MONKEY", "1 2").split()]
COUNT = 200
PAUSES_S = (0.0, 0.0, 0.02, 0.1, 0.3, 1.0)
KINDS = ("vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTransformNode")
#: How often each action is taken.
ACTIONS = ("click", "wait", "cancel", "choose", "tick", "remove", "number", "clear", "leave")
WEIGHTS = (44, 14, 10, 4, 4, 4, 3, 3, 2)


class Monkey:
    """Acts on a panel and collects errors."""

    def __init__(self, application, panel, seed: int, load):
        """Take what it plays with; ``load()`` fills an empty scene."""
        self.application, self.panel, self.load = application, panel, load
        self.random, self.trace, self.complaints = random.Random(seed), [], []

    def act(self) -> None:
        """Do something."""
        action = self.random.choices(ACTIONS, WEIGHTS)[0]
        try:
            getattr(self, action)()
        except Exception:
            self.complain(traceback.format_exc())

    def complain(self, what: str) -> None:
        """Note a complaint with the actions before it."""
        self.complaints.append(f"{what[-1500:]}\n   after {self.trace[-8:]}")

    def spend(self, seconds: float) -> None:
        """Process events for a while."""
        end = time.monotonic() + seconds
        while True:
            self.application.processEvents()
            if time.monotonic() >= end:
                return
            time.sleep(0.002)

    def pick(self, kind, wanted=lambda name: True):
        """Return a control that a user could use now, or None."""
        from PySide6 import QtCore, QtWidgets

        def shown(widget) -> bool:
            while widget is not None and not QtWidgets.QWidget.isWindow(widget):
                if QtWidgets.QWidget.isHidden(widget):
                    return False
                widget = QtWidgets.QWidget.parentWidget(widget)
            return True

        found = {}
        for section in self.panel.sections:
            for widget in QtWidgets.QWidget.findChildren(section.widget, kind):
                name = QtCore.QObject.objectName(widget)
                if name and wanted(name) and QtWidgets.QWidget.isEnabled(widget) and shown(widget):
                    found[f"{section.name}.{name}"] = widget
        if not found:
            return None
        name = self.random.choice(sorted(found))
        self.trace.append(name)
        return found[name]

    def click(self) -> None:
        from PySide6 import QtWidgets

        button = self.pick(QtWidgets.QAbstractButton, lambda name: name != "cancelButton" and "nstall" not in name)
        if button is not None:
            QtWidgets.QAbstractButton.click(button)

    def cancel(self) -> None:
        from PySide6 import QtWidgets

        button = self.pick(QtWidgets.QAbstractButton, lambda name: name == "cancelButton")
        if button is not None:
            QtWidgets.QAbstractButton.click(button)

    def choose(self) -> None:
        from PySide6 import QtWidgets

        box = self.pick(QtWidgets.QComboBox)
        if box is not None and QtWidgets.QComboBox.count(box):
            QtWidgets.QComboBox.setCurrentIndex(box, self.random.randrange(QtWidgets.QComboBox.count(box)))

    def tick(self) -> None:
        from PySide6 import QtCore, QtWidgets

        table = self.pick(QtWidgets.QTableWidget)
        if table is None or not QtWidgets.QTableWidget.rowCount(table):
            return
        row = self.random.randrange(QtWidgets.QTableWidget.rowCount(table))
        QtWidgets.QTableWidget.setCurrentCell(table, row, 0)
        item = QtWidgets.QTableWidget.item(table, row, 0)
        if item is not None and item.flags() & QtCore.Qt.ItemIsUserCheckable:
            on = item.checkState() == QtCore.Qt.Checked
            item.setCheckState(QtCore.Qt.Unchecked if on else QtCore.Qt.Checked)

    def number(self) -> None:
        from PySide6 import QtWidgets

        box = self.pick(QtWidgets.QAbstractSpinBox)
        if box is not None:
            box.setProperty("value", box.property(self.random.choice(("minimum", "maximum", "value"))))

    def remove(self) -> None:
        import slicer

        nodes = [node for kind in KINDS for node in slicer.util.getNodesByClass(kind) if not node.GetHideFromEditors()]
        if nodes:
            node = self.random.choice(nodes)
            self.trace.append(f"remove {node.GetName()}")
            self.application.scene.RemoveNode(node)

    def clear(self) -> None:
        self.trace.append("close the scene")
        self.application.scene.Clear(False)
        self.spend(self.random.choice(PAUSES_S[:-1]))
        self.load()

    def leave(self) -> None:
        import slicer

        self.trace.append("another module")
        slicer.util.selectModule("Data")
        self.spend(self.random.choice(PAUSES_S[:-1]))
        slicer.util.selectModule("CrossModaSeg")

    def wait(self) -> None:
        self.spend(self.random.choice(PAUSES_S))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_breaks(application, reviewed, sample_folder, weights, tmp_path, seed, caplog, monkeypatch):
    import slicer
    from testbed import pythonqt

    from crossmoda.dataset import open_dataset

    (tmp_path / "export").mkdir()

    def load() -> None:
        for case in open_dataset(sample_folder).cases:
            volume = slicer.util.loadVolume(str(case.image), {"name": case.id})
            atlas = case.modality == "ceT1"
            label = slicer.util.loadLabelVolume(str(case.label), {"name": case.id + " label"}) if atlas else None
            reviewed.logic.addCase(volume, label, case.modality)
            if not atlas:
                reviewed.parameters.target = volume
        parameters = reviewed.parameters
        parameters.weights, parameters.exportFolder = str(weights), str(tmp_path / "export")
        parameters.datasetFolder, parameters.resultsFolder = str(tmp_path / "data"), str(tmp_path / "results")
        reviewed.update()

    monkey = Monkey(application, reviewed, seed, load)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: False)
    monkeypatch.setattr(sys, "excepthook", lambda *what: monkey.complain("".join(traceback.format_exception(*what))))
    known = len(application.vtk_errors())
    load()
    for _ in range(COUNT):
        monkey.act()
        monkey.spend(0.0)
        for warning in pythonqt.warnings:
            monkey.complain(warning)
        pythonqt.warnings.clear()
        errors = application.vtk_errors()
        for error in errors[known:]:
            if "standard error" not in error and "completed with errors" not in error:  # a refused run
                monkey.complain(error)
        known = len(errors)
        for record in caplog.records:
            if record.levelno >= logging.WARNING:
                monkey.complain(f"{record.getMessage()} {record.exc_info and record.exc_info[1]}")
        caplog.clear()
    reviewed.stop()
    application.wait_until(lambda: not reviewed.logic.busy and not child_processes(), seconds=30)
    assert monkey.complaints == [], "\n".join(monkey.complaints)
