"""Label propagation in the panel: one CLI run per atlas, the side of the tumour found on the way, then the fusion."""

import shutil
from functools import partial
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib import cases, exporting, nodes, runs
from CrossModaSegLib.tasks import CliTask, PythonTask, StepsTask, Task

#: How many atlases are registered with the tumour on both sides to find the target's side.
PROBES = 3
SIDES = ("left", "right")
#: What a registration is called by its side.
_TITLES = {
    "left": _("Register {name} (tumour on the left)"),
    "right": _("Register {name} (tumour on the right)"),
    "no": _("Register {name}"),
}


def register_task(target, atlas, mirror="no", transforms=False, device="auto", settings=None) -> CliTask:
    """Return the task that registers one atlas to the target; its result is the warped label.

    ``mirror`` is ``"no"``, ``"yes"``, the side to which the tumour is to be brought, or a function that returns one of
    them when the task's turn has come; None skips the task.
    """
    row = next((row for row in cases.scene_rows() if row.volume is atlas), None)
    outputs: dict = {}
    temporary: list = []
    chosen = {"device": device, **(settings or {})}

    def prepare():
        runs.require(target, nodes.volume_problem)
        runs.require(
            atlas, lambda volume: row.problem() if row else _("{name} is no case.").format(name=volume.GetName())
        )
        chosen["mirror"] = mirror() if callable(mirror) else mirror
        if chosen["mirror"] is None:
            return None
        label, is_temporary = nodes.label_map_of(row.label, atlas)
        temporary.extend([label] if is_temporary else [])
        outputs.update(runs.outputs(target, atlas, row.id, transforms))
        return {"fixed": target, "moving": atlas, "moving_label": label, **outputs, **chosen}

    def finish(node):
        runs.remove(temporary)
        runs.require_present([target, *outputs.values()])
        record = runs.record("register", chosen, target=target, atlas=atlas, seconds=task.seconds)
        found = record["measurements"] = runs.measurements(node)
        record["device"] = found["processor"]
        task.notes = runs.processor(found)
        for made in outputs.values():
            if found["mirrored"] == "true":
                made.SetName(_("{name} mirrored").format(name=made.GetName()))
            made.SetHideFromEditors(False)
            nodes.set_provenance(made, record)
            made.SetAttribute(nodes.SIDE, found["tumour_side"])
            if not made.IsA("vtkMRMLTransformNode"):
                nodes.place_beside(made, target)
        return outputs["warped_label"]

    def abandon():
        runs.remove([*temporary, *outputs.values()])

    title = _TITLES["no" if callable(mirror) or mirror == "yes" else mirror].format(name=atlas.GetName())
    task = CliTask("CrossModaRegister", title, prepare, finish, abandon)
    return task


def registered(target, atlas, side: str | None, settings: dict | None = None):
    """Return the newest label of an atlas on the target that was made with these settings, or None.

    With a side, the tumour lies there, or the atlas has no tumour on either side; without one, the atlas is as it is.
    """
    for label in reversed(nodes.products("warped label", target, atlas)):
        record = nodes.provenance(label)
        used = {name: value for name, value in record["parameters"].items() if name not in ("device", "mirror")}
        found = record["measurements"]
        fits = found["tumour_side"] in (side, "") if side else found["mirrored"] == "false"
        if fits and (settings is None or used == settings):
            return label
    return None


class Propagation:
    """The tasks of one propagation: which atlas is registered on which side, and what is fused."""

    def __init__(self, target, atlases: list, *, tumour_side="auto", transforms=False, device="auto", settings=None):
        """Plan the propagation of atlases to a target.

        Args:
            target: the scan to be labelled.
            atlases: the volumes of atlases.
            tumour_side: the patient's side of the target's tumour, ``"both"``, or ``"auto"``: known of the target, or
                found from its brightness where the atlases' tumours come to lie.
            transforms: whether the transforms are kept in the scene.
            device: the processor.
            settings: by CLI module, the parameters that are not at their default.

        """
        self.target, self.atlases, self.transforms, self.device = target, list(atlases), transforms, device
        self.settings = settings or {}
        known = target.GetAttribute(nodes.SIDE) or None
        self.side = {"auto": known, "both": None}.get(tumour_side, tumour_side)
        self.is_to_be_found = tumour_side == "auto" and known is None
        self.note = ""

    def tasks(self) -> list[Task]:
        """Return the tasks; atlases that are registered already need none."""
        probes = _spread(self.atlases, PROBES) if self.is_to_be_found else []
        tasks = [self._register(atlas, side) for atlas in probes for side in SIDES]
        if probes:
            tasks.append(self._find_side(probes))
        tasks += [self._register(atlas, None) for atlas in self.atlases if atlas not in probes]
        return [task for task in tasks if task] + self._fuse()

    def _made(self, atlas, side: str | None):
        return registered(self.target, atlas, side, self.settings.get("CrossModaRegister", {}))

    def _register(self, atlas, side: str | None) -> CliTask | None:
        """Return the registration of an atlas with the tumour on a side; None: on the target's, once that is known."""

        def mirror():
            wanted = side or self.side
            return None if self._made(atlas, wanted) else wanted or "no"

        if (side or not self.is_to_be_found) and self._made(atlas, side or self.side):
            return None
        task = register_task(
            self.target, atlas, mirror, self.transforms, self.device, self.settings.get("CrossModaRegister")
        )
        if side:
            task.title = _TITLES[side].format(name=atlas.GetName())
        return task

    def _find_side(self, probes: list) -> PythonTask:
        def arguments():
            pairs = [[_brightness(self._made(atlas, side)) for side in SIDES] for atlas in probes]
            return {"brightness": pairs, "modality": self.target.GetAttribute(nodes.MODALITY) or cases.TARGET}

        def finish(answer):
            self.side, agree, of = answer["side"], answer["agree"], answer["of"]
            if self.side is None:
                self.note = _("The side of the tumour could not be found; choose it above if the result has two.")
                return
            self.target.SetAttribute(nodes.SIDE, self.side)
            self.note = _("The tumour is on the {side} ({agree} of {of} atlases say so).").format(
                side=_(self.side), agree=agree, of=of
            )
            for atlas in probes:
                self._remove_other_side(atlas)

        return PythonTask("side", arguments, _("Find the side of the tumour"), finish)

    def _remove_other_side(self, atlas) -> None:
        """Remove the registration of a probe with its tumour on the wrong side, if there is one on the right side."""
        if self._made(atlas, self.side) is not None:
            made = [node for role in runs.REGISTERED for node in nodes.products(role, self.target, atlas)]
            runs.remove(node for node in made if node.GetAttribute(nodes.SIDE) not in (self.side, "", None))

    def _labels(self) -> list:
        return [label for label in (self._made(atlas, self.side) for atlas in self.atlases) if label is not None]

    def _fuse(self) -> list[Task]:
        return fuse_tasks(
            self.target,
            self._labels,
            lambda: self.side or "both",
            self.settings.get("CrossModaFuse"),
            lambda: self.note,
        )


def fuse_tasks(target, labels, side="auto", settings=None, note=lambda: "") -> list[Task]:
    """Return the tasks that write the registered atlases to files and fuse them.

    The result of the last is (noisy label, disagreement): a segmentation and a volume.

    Args:
        target: the scan.
        labels: a function that returns the warped labels when the tasks' turn has come.
        side: the patient's side of the tumour, ``"both"`` or ``"auto"``; or a function that returns it.
        settings: the parameters of the fusion that are not at their default.
        note: a function that returns what else is to be said of the result.

    """
    outputs: dict = {}
    sources: dict = {}
    folders: list[Path] = []

    def write():
        runs.require(target, nodes.volume_problem)
        found = labels()
        if not found:
            from crossmoda.errors import InputError

            raise InputError(_("No atlas is registered to {name}; register one first.").format(name=target.GetName()))
        folder = exporting.temporary_folder()
        folders.append(folder)
        for kind in ("labels", "images"):
            (folder / kind).mkdir()
        steps = []
        for label in found:
            atlas = label.GetNodeReference(nodes.ATLAS)
            name = runs.free_name(atlas or label, sources)
            sources[name] = atlas or label
            steps.append(partial(exporting.write_volume, label, folder / "labels" / f"{name}.nrrd"))
            image = runs.image_of(label)
            if image is not None:
                steps.append(partial(exporting.write_volume, image, folder / "images" / f"{name}.nrrd"))
        return steps

    def prepare():
        folder = folders[-1]
        images = folder / "images"
        complete = len(list(images.iterdir())) == len(list((folder / "labels").iterdir()))
        outputs["label"] = runs.add_hidden("vtkMRMLLabelMapVolumeNode", target.GetName() + " fused")
        outputs["disagreement"] = runs.add_hidden(
            "vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(target.GetName() + " disagreement")
        )
        given = {"folder": str(folder / "labels"), **({"images": str(images)} if complete else {})}
        wanted = side() if callable(side) else side
        return {**given, "reference": target, "tumour_side": wanted, **outputs, **(settings or {})}

    def finish(node):
        runs.require_present([target, *outputs.values()])
        segmentation = nodes.make_segmentation(
            outputs["label"], target, _("{name} noisy label").format(name=target.GetName()), "noisy label"
        )
        disagreement = outputs["disagreement"]
        runs.reveal(disagreement, "disagreement", target)
        chosen = {"tumour_side": side() if callable(side) else side, **(settings or {})}
        record = runs.record("fuse", chosen, seconds=fuse.seconds, target=target, **sources)
        record["measurements"] = runs.measurements(node)
        fuse.notes = f"{note()} {record['measurements']['notes']}".strip()
        record["measurements"]["notes"] = fuse.notes
        for made in (segmentation, disagreement):
            nodes.set_provenance(made, record)
        runs.remove([outputs["label"]])
        clean()
        nodes.watch_corrections(segmentation)
        return segmentation, disagreement

    def clean():
        for path in folders:
            shutil.rmtree(path, ignore_errors=True)

    def abandon():
        runs.remove(outputs.values())
        clean()

    written = StepsTask(_("Write the registered atlases"), write, abandon=clean)
    fuse = CliTask("CrossModaFuse", _("Fuse the labels"), prepare, finish, abandon)
    fuse.needs = written
    return [written, fuse]


def _brightness(label) -> float | None:
    if label is None or not label.GetAttribute(nodes.SIDE):
        return None
    return float(nodes.provenance(label)["measurements"]["tumour_brightness"])


def _spread(items: list, count: int) -> list:
    """Return ``count`` items spread evenly over all."""
    count = min(count, len(items))
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]
