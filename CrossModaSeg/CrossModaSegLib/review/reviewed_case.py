"""A case under review in the scene: scan, labels, doubt, regions, and the correction that is worked on.

All state is in the nodes, so that a scene that is saved, or a panel that is closed in the middle, goes on where it was.
"""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.scene import nodes, segments

#: Attributes and reference roles of the correction's node.
ROLE = "correction"
ID, DATA, RESULTS, IMAGE = "CrossModa.ReviewId", "CrossModa.DataSet", "CrossModa.Results", "CrossModa.ImageFile"
SCAN_FILE, TEMPORARY = "CrossModa.ScanFile", "CrossModa.TemporaryFolder"
BASED_ON, REVIEWED, SECONDS = "CrossModa.BasedOn", "CrossModa.Reviewed", "CrossModa.Seconds"
REGIONS, UNSAVED, FILES = "CrossModa.Regions", "CrossModa.Unsaved", "CrossModa.Files"
STAMP = "CrossModa.File"
DOUBT, NUMBERS = "CrossModa.doubt", "CrossModa.numbers"
#: The labels a part can be taken from: reference role, the role of the node, its name.
SOURCES = {
    "fused": ("CrossModa.fused", "noisy label"),
    "network": ("CrossModa.network", "prediction"),
    "majority": ("CrossModa.majority", "majority"),
}
#: References to nodes that are loaded on demand.
PROBABILITY, VOTES = "CrossModa.probability.", "CrossModa.votes"
LOADED_LATER = (PROBABILITY + "VS", PROBABILITY + "cochlea", VOTES)
#: Nodes of a case under review carry this; they leave the scene with the case.
OWNED = "CrossModa.ReviewOf"


class ReviewedCase:
    """A case under review, read from the node of its correction."""

    def __init__(self, correction):
        """Take the correction's segmentation node."""
        self.correction = correction

    @property
    def id(self) -> str:
        """The case."""
        return self.correction.GetAttribute(ID) or ""

    @property
    def data(self) -> str:
        """The data set's folder."""
        return self.correction.GetAttribute(DATA) or ""

    @property
    def results(self) -> str:
        """The folder of the results."""
        return self.correction.GetAttribute(RESULTS) or ""

    @property
    def volume(self):
        """The scan."""
        return self.correction.GetNodeReference(nodes.TARGET)

    @property
    def doubt(self):
        """The volume of the doubt about the label."""
        return self.correction.GetNodeReference(DOUBT)

    @property
    def regions(self) -> list[dict]:
        """The doubtful regions, the largest gain first."""
        return json.loads(self.correction.GetAttribute(REGIONS) or "[]")

    @property
    def files(self) -> dict:
        """The files that are loaded when they are asked for: probabilities, votes of the atlases."""
        return json.loads(self.correction.GetAttribute(FILES) or "{}")

    @property
    def seconds(self) -> float:
        """The time spent on the case since its last save or mark."""
        return float(self.correction.GetAttribute(SECONDS) or 0)

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.correction.SetAttribute(SECONDS, f"{value:.1f}")

    @property
    def unsaved(self) -> bool:
        """Whether the correction has changes that are not in the data set."""
        return bool(self.correction.GetAttribute(UNSAVED))

    @unsaved.setter
    def unsaved(self, value: bool) -> None:
        self.correction.SetAttribute(UNSAVED, "yes" if value else None)

    @property
    def based_on(self) -> str:
        """The file of the label map that the work began with."""
        return self.correction.GetAttribute(BASED_ON) or ""

    @property
    def was_saved(self) -> bool:
        """Whether the work began with a correction that the data set had already."""
        return self.based_on != (self.correction.GetAttribute(REVIEWED) or "")

    def source(self, name: str):
        """Return the segmentation of one of :data:`SOURCES`, or None."""
        return self.correction.GetNodeReference(SOURCES[name][0])

    def mask(self, number: int) -> np.ndarray:
        """Return where a region lies: bool (z, y, x)."""
        return slicer.util.arrayFromVolume(self.correction.GetNodeReference(NUMBERS)) == number

    def array(self, segmentation=None) -> np.ndarray:
        """Return the correction, or another segmentation, as a label map on the scan's grid: uint8 (z, y, x).

        Segments of unknown names are left out: autosave reports them, and a save asks for their structures.
        """
        label_map = nodes.label_map_of(segmentation or self.correction, self.volume, refuse_unknown=False)
        return slicer.util.arrayFromVolume(label_map).astype(np.uint8)

    def label_map(self):
        """Return the correction as the engine's volume on the scan's grid."""
        from crossmoda.volume.grid import Volume

        return Volume(self.array(), nodes.grid_of(self.volume))

    def write(self, array: np.ndarray) -> None:
        """Set the correction; only changed segments are written, and each voxel has at most one label."""
        from crossmoda import labels

        before = self.array()
        known: dict = {}
        for structure, segment_id in segments.known_segments(self.correction):
            known.setdefault(structure, []).append(segment_id)
        blocked = self.correction.StartModify()
        try:
            # What shrinks goes first: no voxel belongs to two segments in between.
            for structure in sorted(
                labels.STRUCTURES,
                key=lambda item: bool(((array == item.value) & (before > 0) & (before != item.value)).any()),
            ):
                mask = array == structure.value
                if structure in known and not np.array_equal(mask, before == structure.value):
                    first, *parts = known[structure]
                    nodes.set_segment(self.correction, first, mask, self.volume)
                    for part in parts:
                        nodes.set_segment(self.correction, part, np.zeros_like(mask), self.volume)
        finally:
            self.correction.EndModify(blocked)


def find(data: str, case_id: str):
    """Return the case under review if its correction is in the scene already, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(nodes.ROLE) == ROLE:
            case = ReviewedCase(node)
            if (case.data, case.id) == (data, case_id) and case.volume is not None:
                return case
    return None


def loading_steps(answer: dict, data: str, results: str, opened: list) -> list:
    """Return the short steps that load a case; ``opened`` receives its :class:`ReviewedCase`.

    A case that is in the scene already keeps its correction: results that are newer arrive beside it.
    """
    present = find(data, answer["id"])
    if present is not None:
        opened.append(present)
        return [functools.partial(_renew, present, answer)]
    made: dict = {}
    return [
        functools.partial(_load_scan, made, answer),
        *(functools.partial(_load_source, made, answer, name) for name in SOURCES if answer["labels"][name]),
        functools.partial(_load_doubt, made, answer),
        lambda: opened.append(_begin(made, answer, data, results)),
    ]


def load_owned(path: str, name: str, case: ReviewedCase, label: bool = False):
    """Load a file that belongs to a case; it leaves the scene with it.

    Raises:
        InputError: the file cannot be loaded.

    """
    return _own(_load(path, name, label), case.id)


def _own(node, case_id: str):
    node.SetAttribute(OWNED, case_id)
    return node


def _load(path: str, name: str, label: bool = False):
    load = slicer.util.loadLabelVolume if label else slicer.util.loadVolume
    try:
        node = load(path, {"name": name, "singleFile": True, "show": False})
    except RuntimeError as cause:
        raise InputError(_("{name} could not be loaded; check the file.").format(name=path)) from cause
    if slicer.mrmlScene.GetFirstNodeByName(name) is None:  # Slicer numbers names, also those of removed nodes
        node.SetName(name)
    return node


def _load_scan(made: dict, answer: dict) -> None:
    made["scan"] = _own(_load(answer["image"], answer["id"]), answer["id"])


def _load_source(made: dict, answer: dict, name: str) -> None:
    titles = {"fused": _("fused label"), "network": _("prediction"), "majority": _("majority vote")}
    made[name] = _segmentation(
        answer["labels"][name], made["scan"], f"{answer['id']} {titles[name]}", SOURCES[name][1], answer["id"]
    )


def _segmentation(path: str, scan, name: str, role: str, case_id: str):
    """Load a label map as a segmentation that shows its outline only."""
    from crossmoda.volume import read_label_map

    segmentation = _own(nodes.make_segmentation(read_label_map(path).array, scan, name, role), case_id)
    segmentation.SetAttribute(STAMP, json.dumps(stamp(path)))
    display = segmentation.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetVisibility3D(False)
    display.SetVisibility(False)
    return segmentation


def stamp(path: str) -> list:
    """Return the identity of a file: path, time, size."""
    state = Path(path).stat()
    return [path, state.st_mtime_ns, state.st_size]


def _load_doubt(made: dict, answer: dict) -> None:
    made["doubt"] = _own(_load(answer["doubt"], answer["id"] + " doubt"), answer["id"])
    made["doubt"].CreateDefaultDisplayNodes()
    made["doubt"].SetAttribute(nodes.ROLE, "doubt")
    made["doubt"].SetNodeReferenceID(nodes.TARGET, made["scan"].GetID())
    made["numbers"] = _own(_load(answer["numbers"], answer["id"] + " regions", label=True), answer["id"])
    made["numbers"].SetHideFromEditors(True)


def _begin(made: dict, answer: dict, data: str, results: str) -> ReviewedCase:
    """Make the correction: a copy of the one in the data set, else of the reviewed label."""
    initial_label = answer["correction"] or answer["reviewed"]
    name = _("{id} correction").format(id=answer["id"])
    node = _segmentation(initial_label, made["scan"], name, ROLE, answer["id"])
    node.GetDisplayNode().SetVisibility(True)
    node.GetDisplayNode().SetVisibility2DFill(True)
    node.GetDisplayNode().SetOpacity2DFill(0.35)
    for attribute, value in {
        ID: answer["id"],
        DATA: data,
        RESULTS: results,
        IMAGE: answer["original"],
        SCAN_FILE: answer["image"],
        BASED_ON: initial_label,
        REVIEWED: answer["reviewed"],
    }.items():
        node.SetAttribute(attribute, value)
    case = ReviewedCase(node)
    _refer(case, made, answer)
    return case


def _refer(case: ReviewedCase, made: dict, answer: dict) -> None:
    """Refer from the correction to the nodes loaded with it."""
    node = case.correction
    node.SetAttribute(REGIONS, json.dumps(answer["regions"]))
    node.SetAttribute(FILES, json.dumps({"probabilities": answer["probabilities"], "votes": answer["votes"]}))
    node.SetAttribute(TEMPORARY, answer["folder"])
    node.SetNodeReferenceID(DOUBT, made["doubt"].GetID())
    node.SetNodeReferenceID(NUMBERS, made["numbers"].GetID())
    for source, (reference, _role) in SOURCES.items():
        if source in made:
            node.SetNodeReferenceID(reference, made[source].GetID())


def _renew(case: ReviewedCase, answer: dict) -> None:
    """Bring results that were made since the case was opened into the scene, as new segmentations.

    The correction stays as it is; the doubt, which is computed, is replaced.
    """
    made: dict = {"scan": case.volume}
    for name, path in answer["labels"].items():
        present = case.source(name)
        if path and name != "majority" and (present is None or json.loads(present.GetAttribute(STAMP)) != stamp(path)):
            _load_source(made, answer, name)
    if len(made) == 1:
        shutil.rmtree(answer["folder"], ignore_errors=True)
        return
    shutil.rmtree(case.correction.GetAttribute(TEMPORARY) or answer["folder"] + "-", ignore_errors=True)
    cli_runs.remove([case.doubt, case.correction.GetNodeReference(NUMBERS)])
    cli_runs.remove([node for node in map(case.correction.GetNodeReference, LOADED_LATER) if node is not None])
    if answer["labels"]["majority"]:
        cli_runs.remove([case.source("majority")] if case.source("majority") is not None else [])
        _load_source(made, answer, "majority")
    _load_doubt(made, answer)
    _refer(case, made, answer)


def remove(case: ReviewedCase) -> None:
    """Remove a case from the scene; its scan stays if other nodes refer to it."""
    case_id, scan, folder = case.id, case.volume, case.correction.GetAttribute(TEMPORARY)
    owned = [
        node for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode") if node.GetAttribute(OWNED) == case_id
    ]
    for node in owned:
        if node is not scan:
            slicer.mrmlScene.RemoveNode(node)
    used = any(
        node.GetNodeReference(nodes.TARGET) is scan for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")
    )
    if scan is not None and scan.GetAttribute(OWNED) == case_id and not used:
        slicer.mrmlScene.RemoveNode(scan)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished() -> None:
    """Take out of the scene what belongs to a case whose loading was stopped half-way."""
    owned = [node for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode") if node.GetAttribute(OWNED)]
    whole = {node.GetAttribute(ID) for node in owned if node.GetAttribute(nodes.ROLE) == ROLE}
    for node in owned:
        if node.GetAttribute(OWNED) not in whole:
            slicer.mrmlScene.RemoveNode(node)


def place() -> tuple[float, float, float] | None:
    """Return the place (LPS, mm) under the mouse pointer or, if that is in no slice view, of the crosshair."""
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is None:
        return None
    ras = [0.0, 0.0, 0.0]
    if not crosshair.GetCursorPositionRAS(ras):
        ras = list(crosshair.GetCrosshairRAS())
    return -ras[0], -ras[1], ras[2]
