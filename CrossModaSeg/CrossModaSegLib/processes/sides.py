"""Both sides of a target: compared by the engine, which finds the tumor's side where registered probes come to lie.

What was found is remembered with its doubt, and the opposite side itself, by which the fusion outlines the tumor.
"""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import cases, export, nodes

#: On the target: hidden volumes of where the tumor is if it is on the other side, and of what lies opposite.
ELSEWHERE, OPPOSITE = "CrossModa.elsewhere", "CrossModa.opposite"
NAMES = {"left": _("left"), "right": _("right")}
SIDES = tuple(NAMES)


def compare_tasks(target, settings: dict, probes=None, finish=lambda side: None) -> list[Task]:
    """Return the tasks that compare both sides of a target and, with probes, find the side of the tumor.

    Args:
        target: the scan.
        settings: of the registrations; the target is registered to its own mirror image with them.
        probes: a function that returns, when the tasks' turn has come, for each probe its warped label with the tumor
            on the left and on the right; None where it could not be registered. Without probes the side is known.
        finish: is called with the side (or None) when it is known.

    """
    folders: list[Path] = []
    pairs: list[list[str]] = []

    def write():
        cli_runs.require(target, nodes.volume_problem)
        complete = [pair for pair in probes() if None not in pair] if probes else []
        folder = export.temporary_folder()
        folders.append(folder)
        steps = [partial(export.write_volume, target, folder / "target.nrrd")]
        for number, pair in enumerate(complete):
            files = [folder / f"{number}_{side}.nrrd" for side in SIDES]
            pairs.append([str(file) for file in files])
            steps += [partial(export.write_volume, label, file) for label, file in zip(pair, files, strict=True)]
        return steps

    def arguments():
        folder = folders[-1]
        given = {"target": str(folder / "target.nrrd"), "folder": str(folder)}
        return {**given, "probes": pairs, "modality": _modality(target), "settings": settings}

    def done(answer):
        cli_runs.require_present([target])
        _keep(target, OPPOSITE, answer.pop("opposite"), _("{name} opposite side"), settings)
        if probes:
            _remember(target, answer, settings)
        clean()
        finish(answer["side"])

    def clean():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    titles = [_("Write the probes"), _("Find the side of the tumor")]
    if not probes:
        titles = [_("Write the target"), _("Compare both sides")]
    written = StepsTask(titles[0], write, abandon=clean)
    found = PythonTask("compare", arguments, titles[1], done, abandon=clean)
    found.needs = written
    return [written, found]


def _keep(target, reference: str, volume: dict | None, name: str, settings: dict) -> None:
    """Keep a volume that the worker handed over as a hidden node of a target, instead of an earlier one."""
    cli_runs.remove(node for node in [target.GetNodeReference(reference)] if node)
    target.SetNodeReferenceID(reference, None)
    if volume is not None:
        node = cli_runs.add_hidden("vtkMRMLScalarVolumeNode", name.format(name=target.GetName()))
        nodes.set_grid(node, volume["grid"])
        slicer.util.updateVolumeFromArray(node, np.load(volume["array"]))
        node.SetAttribute(nodes.ROLE, reference.rpartition(".")[2])
        record = cli_runs.record("compare", _that_matter(settings), seconds=0.0, target=target)
        nodes.set_provenance(node, {**record, "grid": dataclasses.asdict(nodes.grid_of(target))})
        target.SetNodeReferenceID(reference, node.GetID())


def _kept(target, reference: str):
    """Return the hidden node of a target, or None, also where the target was moved since."""
    from crossmoda.volume import Grid

    node = target.GetNodeReference(reference)
    if node is None or node.GetImageData() is None:
        return None
    grid = nodes.provenance(node).get("grid")  # scenes of the first versions do not tell
    lay_there = grid is None or Grid(*map(tuple, grid.values())).same_as(nodes.grid_of(target))
    return node if lay_there else None


def remove_unused() -> None:
    """Remove the hidden nodes of targets that are no longer in the scene."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    used = {volume.GetNodeReferenceID(reference) for volume in volumes for reference in (ELSEWHERE, OPPOSITE)}
    roles = [reference.rpartition(".")[2] for reference in (ELSEWHERE, OPPOSITE)]
    cli_runs.remove(node for node in volumes if node.GetAttribute(nodes.ROLE) in roles and node.GetID() not in used)


def _that_matter(settings: dict) -> dict:
    """Return the settings of a registration that change its result."""
    return {name: value for name, value in settings.items() if name != "device"}


def are_compared(target, settings: dict) -> bool:
    """Whether both sides of a target were compared with these settings of the registration."""
    kept = _kept(target, OPPOSITE)
    return kept is not None and nodes.provenance(kept)["parameters"] == _that_matter(settings)


def _remember(target, answer: dict, settings: dict) -> None:
    """Note on a target what the worker found of its tumor's side, and where the tumor is if that is wrong."""
    _keep(target, ELSEWHERE, answer.pop("elsewhere"), _("{name} tumor elsewhere"), settings)
    if answer["side"] is not None:
        target.SetAttribute(nodes.SIDE, answer["side"])
        target.SetAttribute(nodes.SIDE_FOUND, json.dumps(answer))


def recall(target) -> dict:
    """Return what was found of the side that a target has; empty if that was given."""
    found = json.loads(target.GetAttribute(nodes.SIDE_FOUND) or "{}")
    return found if found and found["side"] == target.GetAttribute(nodes.SIDE) else {}


def note(target) -> str:
    """Say what was found of the side of a target's tumor; empty if it was given."""
    found = recall(target)
    if not found:
        return ""
    said = _("The tumor is on the {side}.")
    if not found["sure"]:
        said = _("The tumor is probably on the {side}, but both sides look much alike: check.")
    return said.format(side=NAMES[found["side"]])


def doubtful(volume) -> str:
    """Say that the side of a scan's tumor is doubtful; empty if it is not, or the scan is none of the scene."""
    return "" if volume is None or recall(volume).get("sure", True) else note(volume)


def doubt(target) -> dict:
    """Return the parameters of the fusion that tell how sure the side of a target's tumor is."""
    found, elsewhere = recall(target), _kept(target, ELSEWHERE)
    if not found:
        return {}
    return {"side_certainty": found["certainty"], **({"elsewhere": elsewhere} if elsewhere else {})}


def comparison(target) -> dict:
    """Return the parameters of the fusion that tell what lies opposite; empty if both sides were not compared."""
    opposite = _kept(target, OPPOSITE)
    return {"opposite": opposite, "modality": _modality(target)} if opposite else {}


def _modality(target) -> str:
    return target.GetAttribute(nodes.MODALITY) or cases.TARGET
