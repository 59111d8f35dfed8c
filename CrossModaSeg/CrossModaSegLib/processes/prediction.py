"""Segmentation by the network: a run of CrossModaPredict."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import CliTask
from CrossModaSegLib.scene import nodes


class Predict(CliTask):
    """A run of CrossModaPredict; its result is (segmentation, uncertainty volume)."""

    def __init__(self, volume, weights="", device="auto", flips=False, settings=None, with_probability=False):
        """Name the scan, the weights (empty: the bundled ones), and parameters of the module.

        ``with_probability``: :attr:`probability` is the tumor's probability map afterwards, a hidden node.
        """
        super().__init__("CrossModaPredict", _("Segment"))
        self.volume, self.weights = volume, weights
        self.settings = {"device": device, "flips": flips, **(settings or {})}
        self._with_probability, self.probability = with_probability, None
        self._outputs: dict = {}

    def prepare(self) -> dict:
        """Return the parameters of the module, with hidden output nodes."""
        cli_runs.require(self.volume, nodes.volume_problem)
        name = self.volume.GetName()
        self._outputs["label_map"] = cli_runs.add_hidden("vtkMRMLLabelMapVolumeNode", f"{name} predicted")
        unique = slicer.mrmlScene.GenerateUniqueName(f"{name} uncertainty")
        self._outputs["uncertainty"] = cli_runs.add_hidden("vtkMRMLScalarVolumeNode", unique)
        if self._with_probability:
            self._outputs["vs_probability"] = cli_runs.add_hidden("vtkMRMLScalarVolumeNode", f"{name} VS probability")
        weights = {"weights": self.weights} if self.weights else {}
        return {"image": self.volume, **self._outputs, **weights, **self.settings}

    def finish(self, node):
        """Show the results with their provenance."""
        cli_runs.require_present([self.volume, *self._outputs.values()])
        label_map, uncertainty = self._outputs.pop("label_map"), self._outputs["uncertainty"]
        self.probability = self._outputs.get("vs_probability")
        name = _("{name} segmentation").format(name=self.volume.GetName())
        segmentation = nodes.make_segmentation(label_map, self.volume, name, "prediction")
        cli_runs.remove([label_map])
        used = {**self.settings, "weights": Path(self.weights).name if self.weights else "bundled"}
        measured = cli_runs.measurements(node)
        note = measured["notes"]
        measured["notes"] = f"{note[:1].upper()}{note[1:].rstrip('.')}{'.' if note else ''}"
        record = cli_runs.record("predict", used, self.seconds, {"image": self.volume})
        record |= {"measurements": measured, "device": measured["processor"], "caution": self._caution()}
        self.notes = f"{cli_runs.processor(measured)} {measured['notes']}".strip()
        cli_runs.reveal(uncertainty, "uncertainty", self.volume)
        for made in (segmentation, uncertainty):
            nodes.set_provenance(made, record)
        nodes.watch_corrections(segmentation)
        return segmentation, uncertainty

    def _caution(self) -> str:
        """Return what the card of the weights cautions about."""
        from crossmoda import weights
        from crossmoda.review import models

        return weights.caution(models.card_of(Path(self.weights) if self.weights else weights.bundled()))

    def abandon(self) -> None:
        """Remove the output nodes."""
        cli_runs.remove(self._outputs.values())
