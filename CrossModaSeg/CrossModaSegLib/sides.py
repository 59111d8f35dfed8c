"""The side of a target's tumour: found by the engine where registered probes come to lie, remembered with its doubt."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from CrossModaSegLib import cases, exporting, nodes, runs
from CrossModaSegLib.tasks import PythonTask, StepsTask, Task

#: On the target: a hidden volume of where the tumour is if it is on the other side.
ELSEWHERE = "CrossModa.elsewhere"
NAMES = {"left": _("left"), "right": _("right")}
SIDES = tuple(NAMES)


def find_tasks(target, probes, settings: dict, finish) -> list[Task]:
    """Return the tasks that find the side of the tumour.

    Args:
        target: the scan.
        probes: a function that returns, when the tasks' turn has come, for each probe its warped label with the tumour
            on the left and on the right; None where it could not be registered.
        settings: of the registrations; the target is registered to its own mirror image with them.
        finish: is called with the side (or None) when it is known.

    """
    folders: list[Path] = []
    pairs: list[list[str]] = []

    def write():
        runs.require(target, nodes.volume_problem)
        complete = [pair for pair in probes() if None not in pair]
        folder = exporting.temporary_folder()
        folders.append(folder)
        steps = [partial(exporting.write_volume, target, folder / "target.nrrd")]
        for number, pair in enumerate(complete):
            files = [folder / f"{number}_{side}.nrrd" for side in SIDES]
            pairs.append([str(file) for file in files])
            steps += [partial(exporting.write_volume, label, file) for label, file in zip(pair, files, strict=True)]
        return steps

    def arguments():
        folder = folders[-1]
        modality = target.GetAttribute(nodes.MODALITY) or cases.TARGET
        given = {"target": str(folder / "target.nrrd"), "folder": str(folder)}
        return {**given, "probes": pairs, "modality": modality, "settings": settings}

    def done(answer):
        runs.require_present([target])
        remember(target, answer)
        clean()
        finish(answer["side"])

    def clean():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    written = StepsTask(_("Write the probes"), write, abandon=clean)
    found = PythonTask("side", arguments, _("Find the side of the tumour"), done, abandon=clean)
    found.needs = written
    return [written, found]


def remember(target, answer: dict) -> None:
    """Note on a target what the worker found of its tumour's side, and where the tumour is if that is wrong."""
    runs.remove(node for node in [target.GetNodeReference(ELSEWHERE)] if node)
    target.SetNodeReferenceID(ELSEWHERE, None)
    if answer["side"] is None:
        return
    target.SetAttribute(nodes.SIDE, answer["side"])
    elsewhere = answer.pop("elsewhere")
    target.SetAttribute(nodes.SIDE_FOUND, json.dumps(answer))
    if elsewhere is not None:
        node = runs.add_hidden("vtkMRMLScalarVolumeNode", target.GetName() + " tumour elsewhere")
        nodes.set_grid(node, elsewhere["grid"])
        slicer.util.updateVolumeFromArray(node, np.load(elsewhere["array"]))
        node.SetAttribute(nodes.ROLE, "tumour elsewhere")
        target.SetNodeReferenceID(ELSEWHERE, node.GetID())


def recall(target) -> dict:
    """Return what was found of the side that a target has; empty if that was given."""
    found = json.loads(target.GetAttribute(nodes.SIDE_FOUND) or "{}")
    return found if found and found["side"] == target.GetAttribute(nodes.SIDE) else {}


def note(target) -> str:
    """Say what was found of the side of a target's tumour; empty if it was given."""
    found = recall(target)
    if not found:
        return ""
    said = _("The tumour is on the {side} ({agree} of {of} atlases say so).")
    if not found["sure"]:
        said = _("The tumour is probably on the {side} ({agree} of {of} atlases say so): check.")
    return said.format(side=NAMES[found["side"]], agree=found["agree"], of=found["of"])


def doubt(target) -> dict:
    """Return the parameters of the fusion that tell how sure the side of a target's tumour is."""
    found, elsewhere = recall(target), target.GetNodeReference(ELSEWHERE)
    if not found:
        return {}
    known = elsewhere is not None and elsewhere.GetImageData() is not None
    return {"side_certainty": found["certainty"], **({"elsewhere": elsewhere} if known else {})}
