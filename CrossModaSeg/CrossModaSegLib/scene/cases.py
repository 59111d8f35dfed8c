"""The cases of the panel's table: volumes of the scene and files of the opened folder."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.scene import nodes

ATLAS, TARGET = "ceT1", "hrT2"


@dataclasses.dataclass
class Row:
    """One line of the table."""

    id: str
    modality: str
    side: str
    volume: object = None
    """the volume node; None while the case is only in the folder"""
    label: object = None
    """the label map or segmentation node"""
    image_path: str = ""
    label_path: str = ""
    file_problem: str = ""

    @property
    def is_atlas(self) -> bool:
        """Whether its label can be propagated: a ceT1 with a label."""
        return self.modality == ATLAS

    def problem(self) -> str:
        """Return why the case cannot be used; an empty string if it can."""
        if self.volume is None:
            return self.file_problem
        problem = nodes.volume_problem(self.volume)
        if not problem and self.is_atlas:
            if self.label is None:
                return _("The atlas has no label. Load its label or use it as a target.")
            problem = nodes.label_problem(self.label, self.volume)
        return problem

    def state(self, target) -> str:
        """Return the state of the case; that of an atlas is its use for the newest fused label of the target."""
        if self.volume is None:
            return _("in the folder")
        if self.is_atlas:
            return self._use(target) or _("loaded")
        results = nodes.products("prediction", self.volume)
        fused = nodes.products("noisy label", self.volume)
        if any(node.GetAttribute(nodes.CORRECTED) for node in results + fused):
            return _("corrected")
        if results:
            return _("segmented")
        return _("fused label") if fused else _("loaded")

    def _use(self, target) -> str:
        """Return the use of the atlas and the quality of its registration, or why it was excluded."""
        outcomes = fused_atlases(target) if target else []
        outcome = next((outcome for outcome in outcomes if outcome["atlas"] == self.id), None)
        if outcome is None:
            return ""
        fate = {"contributed": _("used"), "registered": _("not used"), "excluded": _("excluded")}[outcome["fate"]]
        if outcome["quality"]:
            fate = _("{fate}, quality {quality:.2f}").format(fate=fate, quality=float(outcome["quality"]))
        return f"{fate}: {outcome['why']}" if outcome["why"] else fate

    def tumor_side(self) -> tuple[str, float]:
        """Return the tumor side (empty: unknown) and its certainty: stated, or that of the newest fused label."""
        labels = nodes.products("noisy label", self.volume) if self.volume else []
        measured = nodes.provenance(labels[-1]).get("measurements", {}) if labels and not self.side else {}
        return (measured["side"], float(measured["side_certainty"])) if "side" in measured else (self.side, 1.0)


def fused_atlases(target) -> list[dict]:
    """Return the atlases of a target's newest fused label: the rows of the table of CrossModaPropagate."""
    labels = nodes.products("noisy label", target)
    return nodes.provenance(labels[-1]).get("atlases", []) if labels else []


def may_be_target(volume) -> bool:
    """Whether a volume of the scene can be segmented: an MR scan that CrossModa did not make, and no atlas."""
    is_own = volume.GetAttribute(nodes.ROLE) or volume.GetHideFromEditors()
    is_plain = volume.GetClassName() == "vtkMRMLScalarVolumeNode" and not is_own
    return is_plain and volume.GetAttribute(nodes.MODALITY) != ATLAS and not nodes.volume_problem(volume)


def add_case(volume, label=None, modality=TARGET, case_id="", side=""):
    """Make a volume of the scene a case; return it.

    Its modality is an attribute of the node, also in a saved scene. ``side`` is the tumor's side
    (``"left"``, ``"right"`` or unknown). Scans with the same name get numbers.
    """
    volume.SetAttribute(nodes.CASE, case_id or _free_identity(volume))
    volume.SetAttribute(nodes.MODALITY, modality)
    volume.SetAttribute(nodes.SIDE, side)
    _set_label(volume, label)
    return volume


def _set_label(volume, label) -> None:
    """Make a label, or None, that of an atlas; whether it is edited from now on is noted."""
    volume.SetNodeReferenceID(nodes.LABEL, label.GetID() if label else None)
    if label:
        nodes.watch_corrections(label)


def _free_identity(volume) -> str:
    """Return the name under which a volume is listed: its own, with a number if another case has it."""
    name = volume.GetName().strip() or _("scan")
    taken = {row.id for row in scene_rows() if row.volume is not volume}
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def placing(row: Row, ready: dict) -> list[Callable[[], None]]:
    """Return the steps that make the nodes of a row from what the worker read: arrays in files, ranges, grids."""

    def node(kind: str, name: str, what: dict):
        made = slicer.mrmlScene.AddNewNodeByClass(kind, slicer.mrmlScene.GenerateUniqueName(name))
        nodes.set_grid(made, what["grid"])
        slicer.util.updateVolumeFromArray(made, np.load(what["array"], mmap_mode="r"))
        return made

    def place_image():
        row.volume = add_case(
            node("vtkMRMLScalarVolumeNode", row.id, ready["image"]), None, row.modality, row.id, row.side
        )
        nodes.show_range(row.volume, *ready["image"]["range"])

    def place_label():
        row.label = node("vtkMRMLLabelMapVolumeNode", row.id + " label", ready["label"])
        row.label.CreateDefaultDisplayNodes()
        _set_label(row.volume, row.label)

    def look():
        row.label.GetImageData().GetScalarRange()  # VTK remembers it; the table asks for it

    return [place_image, *([place_label, look] if ready["label"] else [])]


def scene_rows() -> list[Row]:
    """Return the cases of the scene, atlases first."""
    rows = []
    for volume in slicer.util.getNodesByClass("vtkMRMLVolumeNode"):
        case_id = volume.GetAttribute(nodes.CASE)
        if case_id:
            rows.append(
                Row(
                    id=case_id,
                    modality=volume.GetAttribute(nodes.MODALITY) or TARGET,
                    side=volume.GetAttribute(nodes.SIDE) or "",
                    volume=volume,
                    label=volume.GetNodeReference(nodes.LABEL),
                )
            )
    return sorted(rows, key=lambda row: not row.is_atlas)


def folder_rows(listed: list[dict]) -> list[Row]:
    """Return the cases of a folder as the engine lists them."""
    return [
        Row(case["id"], case["modality"], case["side"], image_path=case["image"], label_path=case["label"])
        for case in listed
    ]


def merged(in_folder: list[Row]) -> list[Row]:
    """Return the cases of the scene and those of the folder that are not loaded yet."""
    rows = scene_rows()
    loaded = {(row.id, row.modality) for row in rows}
    more = [row for row in in_folder if (row.id, row.modality) not in loaded]
    return sorted(rows + more, key=lambda row: not row.is_atlas)
