"""Label propagation in the panel: one CLI run per atlas, then the fusion.

On the way the side of the tumor is found and, where no atlas has the other side's cochlea, mirrored copies of some are
registered that speak about it.
"""

import math
import shutil
from functools import partial
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs, sides
from CrossModaSegLib.processes.tasks import CliTask, PythonTask, StepsTask, Task
from CrossModaSegLib.scene import cases, export, nodes

#: How many atlases are registered with the tumor on both sides to find the target's side.
PROBES = 3
#: How many mirrored copies there are at most, of the atlases.
COPIES = 1 / 3
#: What a registration is called by its side.
_TITLES = {
    "left": _("Register {name} (tumor on the left)"),
    "right": _("Register {name} (tumor on the right)"),
    "no": _("Register {name}"),
}


def register_task(
    target, atlas, mirror="no", transforms=False, device="auto", settings=None, then=lambda label: None
) -> CliTask:
    """Return the task that registers one atlas to the target; its result is the warped label.

    ``mirror`` is ``"no"``, ``"yes"``, the side to which the tumor is to be brought, or a function that returns one of
    them when the task's turn has come; None skips the task. ``then(label)`` is called at the end.
    """
    row = next((row for row in cases.scene_rows() if row.volume is atlas), None)
    outputs: dict = {}
    temporary: list = []
    edition_used: list = []
    chosen = {"device": device, **(settings or {})}

    def prepare():
        cli_runs.require(target, nodes.volume_problem)
        cli_runs.require(
            atlas, lambda volume: row.problem() if row else _("{name} is no case.").format(name=volume.GetName())
        )
        chosen["mirror"] = mirror() if callable(mirror) else mirror
        if chosen["mirror"] is None:
            return None
        edition_used[:] = nodes.edition(row.label)
        label, is_temporary = nodes.label_map_of(row.label, atlas)
        temporary.extend([label] if is_temporary else [])
        outputs.update(cli_runs.outputs(target, atlas, row.id, transforms))
        return {"fixed": target, "moving": atlas, "moving_label": label, **outputs, **chosen}

    def finish(node):
        cli_runs.remove(temporary)
        cli_runs.require_present([target, *outputs.values()])
        record = cli_runs.record("register", chosen, target=target, atlas=atlas, seconds=task.seconds)
        found = record["measurements"] = cli_runs.measurements(node)
        record["device"], record["label"] = found["processor"], edition_used
        task.notes = cli_runs.processor(found)
        for made in outputs.values():
            if found["mirrored"] == "true":
                made.SetName(_("{name} mirrored").format(name=made.GetName()))
            made.SetHideFromEditors(False)
            nodes.set_provenance(made, record)
            made.SetAttribute(nodes.SIDE, found["tumor_side"])
            if not made.IsA("vtkMRMLTransformNode"):
                nodes.place_beside(made, target)
        then(outputs["warped_label"])
        return outputs["warped_label"]

    def abandon():
        cli_runs.remove([*temporary, *outputs.values()])

    title = _TITLES["no" if callable(mirror) or mirror == "yes" else mirror].format(name=atlas.GetName())
    task = CliTask("CrossModaRegister", title, prepare, finish, abandon)
    return task


def registered(target, atlas, side: str | None, settings: dict | None = None):
    """Return the newest label of an atlas on the target that was made with these settings, or None.

    With a side, the tumor lies there, or the atlas has no tumor on either side; without one, the atlas is as it is.
    """
    for label in reversed(nodes.products("warped label", target, atlas)):
        if not _holds(label, target, atlas):
            continue
        record = nodes.provenance(label)
        used = {name: value for name, value in record["parameters"].items() if name not in ("device", "mirror")}
        found = record["measurements"]
        fits = found["tumor_side"] in (side, "") if side else found["mirrored"] == "false"
        if fits and (settings is None or used == settings):
            return label
    return None


def _holds(label, target, atlas) -> bool:
    """Whether since its registration neither the target was moved nor the atlas's label changed."""
    used = nodes.provenance(label).get("label")  # scenes of the first versions do not tell
    is_there = label.GetImageData() is not None and nodes.same_grid(label, target)
    return is_there and used in (None, nodes.edition(atlas.GetNodeReference(nodes.LABEL)))


class Propagation:
    """The tasks of one propagation: which atlas is registered on which side, and what is fused."""

    def __init__(self, target, atlases: list, *, tumor_side="auto", transforms=False, device="auto", settings=None):
        """Plan the propagation of atlases to a target.

        Args:
            target: the scan to be labeled.
            atlases: the volumes of atlases.
            tumor_side: the patient's side of the target's tumor, ``"both"``, or ``"auto"``: known of the target, or
                found by comparing both sides where the atlases' tumors come to lie.
            transforms: whether the transforms are kept in the scene.
            device: the processor.
            settings: by CLI module, the parameters that are not at their default.

        """
        self.target, self.atlases, self.transforms, self.device = target, list(atlases), transforms, device
        self.settings = settings or {}
        known = target.GetAttribute(nodes.SIDE) or None
        self.side = {"auto": known, "both": None}.get(tumor_side, tumor_side)
        self.is_automatic = tumor_side == "auto"
        self.is_to_be_found = self.is_automatic and known is None
        self._tasks: list[Task] = []
        self._probes = _probes(self.atlases) if self.is_to_be_found else []
        self._choice: PythonTask | None = None
        self._copied: list = []
        self._notes: list[str] = []

    def tasks(self) -> list[Task]:
        """Return the tasks; atlases that are registered already need none.

        More join the list before the last two as soon as an atlas has one cochlea only: mirrored copies may be needed.
        """
        tasks = [self._register(atlas, side) for atlas in self._probes for side in sides.SIDES]
        if self._probes:
            tasks += self._compare()
        tasks += [self._register(atlas, None) for atlas in self.atlases if atlas not in self._probes]
        if self._is_compared_late():
            tasks += self._compare()
        self._tasks += [task for task in tasks if task] + self._fuse()
        for atlas in self.atlases:
            self._expect_copies(self._made(atlas, self.side))
        return self._tasks

    def _made(self, atlas, side: str | None):
        return registered(self.target, atlas, side, self.settings.get("CrossModaRegister", {}))

    def images(self) -> list:
        """Return the warped images of the atlases that are fused."""
        labels = [self._made(atlas, self.side) for atlas in self.atlases]
        return [image for label in labels if label and (image := cli_runs.image_of(label))]

    def _register(self, atlas, side: str | None, is_copy: bool = False) -> CliTask | None:
        """Return the registration of an atlas with the tumor on a side; None: on the target's, once that is known."""

        def mirror():
            wanted = side or self.side
            return None if self._made(atlas, wanted) else wanted or "no"

        def done(label):
            cli_runs.mark_copy(label, is_copy)
            self._expect_copies(label)

        if (side or not self.is_to_be_found) and self._made(atlas, side or self.side):
            return None
        task = register_task(
            self.target, atlas, mirror, self.transforms, self.device, self.settings.get("CrossModaRegister"), done
        )
        if side:
            task.title = _TITLES[side].format(name=atlas.GetName())
        return task

    def _is_compared_late(self) -> bool:
        """Whether both sides are compared although the side is known: for the tumor's outline."""
        return bool(self.side) and self._outlines() and not sides.are_compared(self.target, self._registration())

    def _outlines(self) -> bool:
        """Whether the comparison of both sides tells the tumor's outline."""
        chosen = self.settings.get("CrossModaFuse", {})
        return chosen.get("outline") != "votes" and chosen.get("weighting") != "global"

    def _registration(self) -> dict:
        return {"device": self.device, **self.settings.get("CrossModaRegister", {})}

    def _compare(self) -> list[Task]:
        """Return the tasks that compare both sides of the target and find the tumor's if it is not known."""

        def probes():
            return [[self._made(atlas, side) for side in sides.SIDES] for atlas in self._probes]

        def finish(side):
            self.side = side
            if side is None:
                self._notes.append(
                    _("The side of the tumor could not be found; choose it above if the result has two.")
                )
            elif self._choice is None:
                self._remove_other_sides()

        if not self._probes:
            return sides.compare_tasks(self.target, self._registration())
        return sides.compare_tasks(self.target, self._registration(), probes, finish)

    def _remove_other_sides(self) -> None:
        """Remove the registrations of probes with the tumor on the wrong side, unless needed or the only ones."""
        for atlas in self._probes:
            if atlas not in self._copied and self._made(atlas, self.side) is not None:
                made = [node for role in cli_runs.REGISTERED for node in nodes.products(role, self.target, atlas)]
                cli_runs.remove(node for node in made if node.GetAttribute(nodes.SIDE) not in (self.side, "", None))

    def _expect_copies(self, label) -> None:
        """Plan mirrored copies if a registered atlas has one cochlea only: perhaps no atlas has the other."""
        if label is None or self._choice or not (self.side or self.is_to_be_found):
            return
        if _found(label)["cochlea_sides"] in sides.SIDES:
            self._choice = self._choose_copies()
            count = math.ceil(COPIES * len(self.atlases))
            copies = [StepsTask(_("Register a mirrored copy"), list) for _number in range(count)]
            self._tasks[-2:-2] = [self._choice, *copies]

    def _choose_copies(self) -> PythonTask:
        """Return the task that asks whose mirrored copies shall speak about a cochlea that no atlas has.

        The registrations of these copies take the places that are kept for them behind the task.
        """
        asked: list = []

        def arguments():
            asked[:] = [atlas for atlas in self.atlases if self.side and self._made(atlas, self.side)]
            return {"placed": [self._placed(atlas) for atlas in asked]} if asked else None

        def finish(answer):
            self._copied = [asked[number] for number in answer["copied"]]
            self._remove_other_sides()
            copies = [self._register(atlas, _other(self.side), is_copy=True) for atlas in self._copied]
            self._tasks[self._tasks.index(choice) + 1 : -2] = [task for task in copies if task]
            if answer["side"]:
                self._notes.append(
                    _("No atlas has the {side} cochlea: mirrored copies speak about it ({count}).").format(
                        side=sides.NAMES[answer["side"]], count=len(self._copied)
                    )
                )

        choice = PythonTask("copies", arguments, _("Choose atlases for the other cochlea"), finish)
        return choice

    def _placed(self, atlas) -> list:
        """Return what the choice of copies needs to know of a registered atlas."""
        found = _found(self._made(atlas, self.side))
        is_copied = self._made(atlas, _other(self.side)) is not None
        return [_identity(atlas), float(found["quality"]), found["tumor_side"], found["cochlea_sides"], is_copied]

    def _labels(self) -> list:
        """Return the labels that are fused: the atlases', then those of their mirrored copies."""
        wanted = {False: [(atlas, self.side) for atlas in self.atlases]}
        wanted[True] = [(atlas, _other(self.side)) for atlas in self._copied]
        found = []
        for is_copy, pairs in wanted.items():
            labels = [label for atlas, side in pairs if (label := self._made(atlas, side)) is not None]
            for label in labels:
                cli_runs.mark_copy(label, is_copy)
            found += labels
        return found

    def _fuse(self) -> list[Task]:
        return fuse_tasks(
            self.target,
            self._labels,
            lambda: self.side or "both",
            self.settings.get("CrossModaFuse", {}),
            lambda: " ".join(self._said()),
            self._of_sides,
        )

    def _of_sides(self) -> dict:
        """Return the parameters of the fusion that the comparison of both sides tells."""
        doubt = sides.doubt(self.target) if self.is_automatic else {}
        return {**doubt, **(sides.comparison(self.target) if self.side else {})}

    def _said(self) -> list[str]:
        said = [sides.note(self.target) if self.is_automatic else "", *self._notes]
        if self.side and self._outlines() and not sides.comparison(self.target):
            said.append(_("Both sides could not be compared: the tumor's outline is as the atlases have it."))
        return [text for text in said if text]


def fuse_tasks(target, labels, side, settings: dict, note, of_sides) -> list[Task]:
    """Return the tasks that write the registered atlases to files and fuse them.

    The result of the last is (noisy label, disagreement): a segmentation and a volume. A second volume is the label's
    confidence.

    Args:
        target: the scan.
        labels: a function that returns the warped labels when the tasks' turn has come.
        side: a function that returns the patient's side of the tumor, or ``"both"``.
        settings: the parameters of the fusion that are not at their default.
        note: a function that returns what else is to be said of the result.
        of_sides: a function that returns the parameters of the fusion that tell how sure the side is, and what lies
            opposite.

    """
    outputs: dict = {}
    sources: dict = {}
    folders: list[Path] = []

    def write():
        cli_runs.require(target, nodes.volume_problem)
        found = labels()
        if not found:
            from crossmoda.errors import InputError

            raise InputError(_("No atlas is registered to {name}; register one first.").format(name=target.GetName()))
        folder = export.temporary_folder()
        folders.append(folder)
        for kind in ("labels", "images"):
            (folder / kind).mkdir()
        steps = []
        for label in found:
            atlas = label.GetNodeReference(nodes.ATLAS)
            name = cli_runs.free_name(atlas or label, sources, "_mirrored" if _is_mirrored(label) else "")
            sources[name] = atlas or label
            steps.append(partial(export.write_volume, label, folder / "labels" / f"{name}.nrrd"))
            image = cli_runs.image_of(label)
            if image is not None:
                steps.append(partial(export.write_volume, image, folder / "images" / f"{name}.nrrd"))
        return steps

    def prepare():
        folder = folders[-1]
        images = folder / "images"
        complete = len(list(images.iterdir())) == len(list((folder / "labels").iterdir()))
        outputs["label"] = cli_runs.add_hidden("vtkMRMLLabelMapVolumeNode", target.GetName() + " fused")
        for what in ("disagreement", "confidence"):
            name = slicer.mrmlScene.GenerateUniqueName(f"{target.GetName()} {what}")
            outputs[what] = cli_runs.add_hidden("vtkMRMLScalarVolumeNode", name)
        given = {"folder": str(folder / "labels"), **({"images": str(images)} if complete else {})}
        return {**given, "reference": target, "tumor_side": side(), **outputs, **of_sides(), **settings}

    def finish(node):
        cli_runs.require_present([target, *outputs.values()])
        segmentation = nodes.make_segmentation(
            outputs["label"], target, _("{name} noisy label").format(name=target.GetName()), "noisy label"
        )
        maps = {what: outputs[what] for what in ("disagreement", "confidence")}
        for what, made in maps.items():
            cli_runs.reveal(made, what, target)
        chosen = {"tumor_side": side(), **settings}
        chosen |= {name: value for name, value in of_sides().items() if name in ("side_certainty", "modality")}
        record = cli_runs.record("fuse", chosen, seconds=fuse.seconds, target=target, **sources)
        record["measurements"] = cli_runs.measurements(node)
        fuse.notes = f"{note()} {record['measurements']['notes']}".strip()
        record["measurements"]["notes"] = fuse.notes
        for made in (segmentation, *maps.values()):
            nodes.set_provenance(made, record)
        cli_runs.remove([outputs["label"]])
        clean()
        nodes.watch_corrections(segmentation)
        return segmentation, maps["disagreement"]

    def clean():
        for path in folders:
            shutil.rmtree(path, ignore_errors=True)

    def abandon():
        cli_runs.remove(outputs.values())
        clean()

    written = StepsTask(_("Write the registered atlases"), write, abandon=clean)
    fuse = CliTask("CrossModaFuse", _("Fuse the labels"), prepare, finish, abandon)
    fuse.needs = written
    return [written, fuse]


def _found(label) -> dict:
    """Return what a registration found out about its atlas."""
    return {"cochlea_sides": "", **nodes.provenance(label).get("measurements", {})}


def _is_mirrored(label) -> bool:
    return _found(label).get("mirrored") == "true"


def _other(side: str) -> str:
    return sides.SIDES[1 - sides.SIDES.index(side)]


def _probes(atlases: list) -> list:
    """Return the atlases that tell the side of the tumor: of different sizes, where those are known."""
    if all(atlas.GetAttribute(nodes.TUMOR_MM3) for atlas in atlases):
        lateral = [atlas for atlas in atlases if atlas.GetAttribute(nodes.SIDE)]
        atlases = sorted(lateral, key=lambda atlas: (float(atlas.GetAttribute(nodes.TUMOR_MM3)), _identity(atlas)))
    count = min(PROBES, len(atlases))
    return [atlases[int((number + 0.5) * len(atlases) / count)] for number in range(count)]


def _identity(atlas) -> str:
    return atlas.GetAttribute(nodes.CASE) or atlas.GetName()
