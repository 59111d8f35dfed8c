"""What the panel can do, usable from scripts: ``slicer.util.getModuleLogic("CrossModaSeg")``."""

import functools
import shutil
import tempfile
import time
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from CrossModaSegLib import cases, exporting, nodes, runs
from CrossModaSegLib.parameters import CrossModaSegParameterNode
from CrossModaSegLib.tasks import CliTask, PythonTask, StepsTask, TaskQueue

#: The sample data: three labelled ceT1 atlases and one hrT2 target, about half a minute to make.
SAMPLE = {
    "sources": 3,
    "targets": 1,
    "seed": 4,
    "settings": {"field_of_view": 150.0, "slices": 48, "tumour_volume": 1600.0},
}


class CrossModaSegLogic(ScriptedLoadableModuleLogic):
    """Register, fuse, segment, measure, export.

    Functions that take long start a :class:`~CrossModaSegLib.tasks.TaskQueue` and return it; with ``wait=True`` they
    process events until it is done and return the result.
    """

    def __init__(self):
        """Name the logic's module: the parameter node's singleton tag."""
        super().__init__()
        self.moduleName = "CrossModaSeg"
        self.queue: TaskQueue | None = None

    def getParameterNode(self):
        """Return the panel's state."""
        return CrossModaSegParameterNode(super().getParameterNode())

    @property
    def busy(self) -> bool:
        """Whether long work is running."""
        return self.queue is not None and not self.queue.over

    def run(self, tasks: list, wait: bool = False) -> TaskQueue:
        """Run tasks one after another.

        Raises:
            InputError: other work is running.

        """
        from crossmoda.errors import InputError

        if self.busy:
            raise InputError(_("CrossModa is still at work; wait for it or cancel it."))
        self.queue = TaskQueue(tasks)
        return self.queue

    # ---------------------------------------------------------------- cases

    def addCase(self, volume, label=None, modality="hrT2", side=""):
        """Make a volume of the scene an atlas (``modality="ceT1"`` with its label) or a target (``"hrT2"``)."""
        return cases.add_case(volume, label, modality, side=side)

    def folderTasks(self, folder: str, found) -> list:
        """Return the tasks that list a data set's folder and then check its files; ``found(rows)`` is called twice."""
        rows: list[cases.Row] = []

        def listed(answer):
            rows[:] = cases.folder_rows(answer["cases"])
            found(rows)

        def checked(answer):
            for row in rows:
                row.file_problem = (
                    answer["problems"].get(row.image_path) or answer["problems"].get(row.label_path) or ""
                )
            found(rows)

        return [
            PythonTask("cases", {"folder": folder}, _("List the folder"), listed),
            PythonTask("check", {"folder": folder}, _("Check the files"), checked),
        ]

    def loadTasks(self, rows: list, loaded=None) -> list:
        """Return the tasks that load rows of the folder into the scene; ``loaded(rows)`` is called at the end."""
        folder = self.temporaryFolder()

        def take(answer):
            for row, ready in zip(rows, answer["rows"], strict=True):
                row.file_problem = ready["problem"]
                row.image_path, row.label_path, row.side = ready["image"], ready["label"], ready["side"]

        def finish(_result):
            shutil.rmtree(folder, ignore_errors=True)
            if loaded:
                loaded(rows)

        described = [
            {"id": row.id, "modality": row.modality, "side": row.side, "image": row.image_path, "label": row.label_path}
            for row in rows
        ]
        return [
            PythonTask("prepare", {"rows": described, "folder": str(folder)}, _("Read the files"), take),
            StepsTask(
                _("Load the cases"),
                lambda: [functools.partial(cases.load, row) for row in rows if not row.file_problem],
                finish,
            ),
        ]

    def sampleTask(self, found=None, sample: dict | None = None) -> PythonTask:
        """Return the task that simulates the sample data; ``found(rows)`` gets its cases."""
        folder = self.temporaryFolder() / "sample"
        return PythonTask(
            "simulate",
            {"folder": str(folder), **(sample or SAMPLE)},
            _("Simulate the sample data"),
            lambda answer: found(cases.folder_rows(answer["cases"])) if found else answer,
        )

    @staticmethod
    def temporaryFolder() -> Path:
        """Return a new folder for temporary files.

        Raises:
            InputError: the application's temporary folder cannot be written.

        """
        from crossmoda.errors import InputError

        parent = Path(slicer.app.temporaryPath)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="CrossModa-", dir=parent))
        except OSError as cause:
            raise InputError(
                _(
                    "The folder for temporary files, {folder}, cannot be written; choose another one in the settings."
                ).format(folder=parent)
            ) from cause

    # ---------------------------------------------------------------- register and fuse

    def register(self, target, atlases: list, keepTransforms=False, device="auto", wait=False):
        """Register atlases (ceT1 volumes made cases with their labels) to the target, one CLI run each."""
        queue = self.run([self.registerTask(target, atlas, keepTransforms, device) for atlas in atlases])
        queue.start()
        return queue.wait() if wait else queue

    def registerTask(self, target, atlas, keepTransforms=False, device="auto") -> CliTask:
        """Return the task that registers one atlas to the target."""
        row = next((row for row in cases.scene_rows() if row.volume is atlas), None)
        outputs: dict = {}
        temporary = []

        def prepare():
            runs.require(target, nodes.volume_problem)
            runs.require(
                atlas, lambda volume: row.problem() if row else _("{name} is no case.").format(name=volume.GetName())
            )
            label, is_temporary = nodes.label_map_of(row.label, atlas)
            temporary.extend([label] if is_temporary else [])
            outputs.update(runs.outputs(target, atlas, row.id, keepTransforms))
            return {
                "fixed": target,
                "moving": atlas,
                "moving_label": label,
                **outputs,
                "device": device,
            }

        def finish(node):
            runs.remove(temporary)
            runs.require_present([target, *outputs.values()])
            record = runs.record("register", {"device": device}, target=target, atlas=atlas, seconds=task.seconds)
            record["measurements"] = runs.measurements(node)
            for made in outputs.values():
                made.SetHideFromEditors(False)
                nodes.set_provenance(made, record)
                if not made.IsA("vtkMRMLTransformNode"):
                    nodes.place_beside(made, target)
            return outputs["warped_label"]

        def abandon():
            runs.remove([*temporary, *outputs.values()])

        task = CliTask("CrossModaRegister", _("Register {name}").format(name=atlas.GetName()), prepare, finish, abandon)
        return task

    def fuseTask(self, target, tumourSide="auto") -> CliTask:
        """Return the task that fuses the propagated labels of a target (STAPLE).

        Its result is (noisy label, disagreement): a segmentation and a volume. ``tumourSide`` is the patient's
        (``"left"``, ``"right"``, ``"both"``); ``"auto"`` takes the side on which most atlases have the tumour.
        """
        outputs: dict = {}
        atlases: dict = {}
        folder: list[Path] = []

        def prepare():
            runs.require(target, nodes.volume_problem)
            labels = runs.newest_of_each_atlas(nodes.products("warped label", target))
            if not labels:
                from crossmoda.errors import InputError

                raise InputError(
                    _("No atlas is registered to {name}; register one first.").format(name=target.GetName())
                )
            folder.append(self.temporaryFolder())
            atlases.update(
                {f"atlas {n}": (label.GetNodeReference(nodes.ATLAS) or label) for n, label in enumerate(labels, 1)}
            )
            for label in labels:
                exporting.write_volume(label, folder[0] / f"{runs.file_name(label.GetName())}.nrrd")
            outputs["label"] = runs.add_hidden("vtkMRMLLabelMapVolumeNode", target.GetName() + " fused")
            outputs["disagreement"] = runs.add_hidden(
                "vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(target.GetName() + " disagreement")
            )
            return {"folder": str(folder[0]), "reference": target, "tumour_side": tumourSide, **outputs}

        def finish(node):
            runs.require_present([target, *outputs.values()])
            segmentation = nodes.make_segmentation(
                outputs["label"], target, _("{name} noisy label").format(name=target.GetName()), "noisy label"
            )
            disagreement = outputs["disagreement"]
            runs.reveal(disagreement, "disagreement", target)
            settings = {"tumour_side": tumourSide}
            record = runs.record("fuse", settings, seconds=task.seconds, target=target, **atlases)
            record["measurements"] = runs.measurements(node)
            for made in (segmentation, disagreement):
                nodes.set_provenance(made, record)
            runs.remove([outputs["label"]])
            shutil.rmtree(folder[0], ignore_errors=True)
            self.watchCorrections(segmentation)
            return segmentation, disagreement

        def abandon():
            runs.remove(outputs.values())
            for path in folder:
                shutil.rmtree(path, ignore_errors=True)

        task = CliTask("CrossModaFuse", _("Fuse the labels (STAPLE)"), prepare, finish, abandon)
        return task

    def propagate(self, target, atlases: list, device="auto", tumourSide="auto"):
        """Register the atlases to the target, fuse their labels, wait; return the noisy label (a segmentation).

        Raises:
            InputError: nothing could be fused.

        """
        from crossmoda.errors import InputError

        tasks = [self.registerTask(target, atlas, device=device) for atlas in atlases] + [
            self.fuseTask(target, tumourSide)
        ]
        self.run(tasks).start().wait()
        if tasks[-1].result is None:
            raise InputError(next((task.error for task in tasks if task.error), _("The work was cancelled.")))
        return tasks[-1].result[0]

    # ---------------------------------------------------------------- segment

    def segmentTask(self, volume, weights="", device="auto", flips=False) -> CliTask:
        """Return the task that segments a volume with the network; its result is (segmentation, uncertainty volume)."""
        outputs: dict = {}

        def prepare():
            runs.require(volume, nodes.volume_problem)
            outputs["label_map"] = runs.add_hidden("vtkMRMLLabelMapVolumeNode", volume.GetName() + " predicted")
            name = slicer.mrmlScene.GenerateUniqueName(volume.GetName() + " uncertainty")
            outputs["uncertainty"] = runs.add_hidden("vtkMRMLScalarVolumeNode", name)
            chosen = {"weights": weights} if weights else {}
            return {"image": volume, **outputs, "device": device, "flips": flips, **chosen}

        def finish(node):
            runs.require_present([volume, *outputs.values()])
            segmentation = nodes.make_segmentation(
                outputs["label_map"], volume, _("{name} segmentation").format(name=volume.GetName()), "prediction"
            )
            settings = {"device": device, "flips": flips, "weights": Path(weights).name if weights else "shipped"}
            record = runs.record("predict", settings, image=volume, seconds=task.seconds)
            record["measurements"] = runs.measurements(node)
            task.notes = node.GetParameterAsString("notes") or ""
            uncertainty = outputs.pop("uncertainty")
            runs.reveal(uncertainty, "uncertainty", volume)
            for made in (segmentation, uncertainty):
                nodes.set_provenance(made, record)
            runs.remove(outputs.values())
            self.watchCorrections(segmentation)
            return segmentation, uncertainty

        task = CliTask("CrossModaPredict", _("Segment"), prepare, finish, lambda: runs.remove(outputs.values()))
        return task

    def segment(self, volume, weights="", device="auto", flips=False):
        """Segment a volume with the network, wait, return the segmentation.

        Raises:
            InputError: the volume or the weights cannot be used.

        """
        from crossmoda.errors import InputError

        task = self.segmentTask(volume, weights, device, flips)
        self.run([task]).start().wait()
        if task.result is None:
            raise InputError(task.error or _("The work was cancelled."))
        return task.result[0]

    # ---------------------------------------------------------------- result

    @staticmethod
    def watchCorrections(segmentation) -> None:
        """Mark the segmentation as corrected when somebody edits it."""

        def corrected(_caller, _event):
            segmentation.SetAttribute(nodes.CORRECTED, time.strftime("%Y-%m-%dT%H:%M:%S"))

        source = segmentation.GetSegmentation()
        source.AddObserver(slicer.vtkSegmentation.SourceRepresentationModified, corrected)

    def measure(self, segmentation, volume=None):
        """Return a table node with volume, largest diameter and distance to the cochlea of each structure.

        Raises:
            InputError: the segmented volume is missing or cannot be used.

        """
        from crossmoda.measurement import measure
        from crossmoda.volume.geometry import Volume

        volume = volume or segmentation.GetNodeReference(nodes.TARGET)
        runs.require(volume, nodes.volume_problem)
        label_map, temporary = nodes.label_map_of(segmentation, volume)
        label = Volume(slicer.util.arrayFromVolume(label_map), nodes.grid_of(volume))
        table = exporting.table_of(segmentation, measure(label))
        runs.remove([label_map] if temporary else [])
        return table

    def export(self, segmentation, folder, segmentationFile=True, labelMap=True, surfaces=False) -> list[Path]:
        """Write the segmentation as .seg.nrrd, NIfTI label map and STL surfaces; return the files.

        Existing files are not overwritten: the name gets a number.

        Raises:
            InputError: the folder cannot be written, or nothing was chosen.

        """
        return exporting.export(segmentation, Path(folder), segmentationFile, labelMap, surfaces)
