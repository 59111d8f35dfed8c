"""What the panel can do, usable from scripts: ``slicer.util.getModuleLogic("CrossModaSeg")``."""

import functools
import shutil
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from CrossModaSegLib import cases, exporting, nodes, propagating, runs
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
        return exporting.temporary_folder()

    # ---------------------------------------------------------------- register and fuse

    def register(self, target, atlases: list, keepTransforms=False, device="auto", wait=False):
        """Register atlases (ceT1 volumes made cases with their labels) to the target, one CLI run each."""
        queue = self.run([self.registerTask(target, atlas, keepTransforms, device) for atlas in atlases])
        queue.start()
        return queue.wait() if wait else queue

    def registerTask(self, target, atlas, keepTransforms=False, device="auto", mirror="no", settings=None):
        """Return the task that registers one atlas to the target.

        ``mirror`` is ``"no"``, ``"yes"`` or the patient's side to which its tumour is to be brought; ``settings`` are
        parameters of the CLI module CrossModaRegister.
        """
        return propagating.register_task(target, atlas, mirror, keepTransforms, device, settings)

    def fuseTasks(self, target, tumourSide="auto", settings=None) -> list:
        """Return the tasks that fuse the propagated labels of a target (STAPLE).

        The result of the last is (noisy label, disagreement): a segmentation and a volume. ``tumourSide`` is the
        patient's (``"left"``, ``"right"``, ``"both"``); ``"auto"`` takes the side on which most atlases have it.
        ``settings`` are parameters of the CLI module CrossModaFuse.
        """

        def labels():
            return runs.newest_of_each_atlas(nodes.products("warped label", target))

        return propagating.fuse_tasks(target, labels, tumourSide, settings)

    def propagate(self, target, atlases: list, device="auto", tumourSide="auto", settings=None):
        """Register the atlases to the target, fuse their labels, wait; return the noisy label (a segmentation).

        Atlases whose tumour is on the other side are mirrored; ``"auto"`` finds the target's side from its brightness
        where the atlases' tumours come to lie. ``settings`` are parameters by CLI module, such as
        ``{"CrossModaRegister": {"alpha": 2.0}}``. What was registered with the same settings before is used again.

        Raises:
            InputError: nothing could be fused.

        """
        from crossmoda.errors import InputError

        plan = propagating.Propagation(target, atlases, tumour_side=tumourSide, device=device, settings=settings)
        tasks = plan.tasks()
        self.run(tasks).start().wait()
        if tasks[-1].result is None:
            raise InputError(next((task.error for task in tasks if task.error), _("The work was cancelled.")))
        return tasks[-1].result[0]

    # ---------------------------------------------------------------- segment

    def segmentTask(self, volume, weights="", device="auto", flips=False, settings=None) -> CliTask:
        """Return the task that segments a volume with the network; its result is (segmentation, uncertainty volume).

        ``settings`` are parameters of the CLI module CrossModaPredict.
        """
        outputs: dict = {}

        def prepare():
            runs.require(volume, nodes.volume_problem)
            outputs["label_map"] = runs.add_hidden("vtkMRMLLabelMapVolumeNode", volume.GetName() + " predicted")
            name = slicer.mrmlScene.GenerateUniqueName(volume.GetName() + " uncertainty")
            outputs["uncertainty"] = runs.add_hidden("vtkMRMLScalarVolumeNode", name)
            chosen = {"weights": weights} if weights else {}
            return {"image": volume, **outputs, "device": device, "flips": flips, **chosen, **(settings or {})}

        def finish(node):
            runs.require_present([volume, *outputs.values()])
            segmentation = nodes.make_segmentation(
                outputs["label_map"], volume, _("{name} segmentation").format(name=volume.GetName()), "prediction"
            )
            used = {"device": device, "flips": flips, "weights": Path(weights).name if weights else "shipped"}
            record = runs.record("predict", {**used, **(settings or {})}, image=volume, seconds=task.seconds)
            record["measurements"] = runs.measurements(node)
            task.notes = node.GetParameterAsString("notes") or ""
            uncertainty = outputs.pop("uncertainty")
            runs.reveal(uncertainty, "uncertainty", volume)
            for made in (segmentation, uncertainty):
                nodes.set_provenance(made, record)
            runs.remove(outputs.values())
            nodes.watch_corrections(segmentation)
            return segmentation, uncertainty

        task = CliTask("CrossModaPredict", _("Segment"), prepare, finish, lambda: runs.remove(outputs.values()))
        return task

    def segment(self, volume, weights="", device="auto", flips=False, settings=None):
        """Segment a volume with the network, wait, return the segmentation.

        Raises:
            InputError: the volume or the weights cannot be used.

        """
        from crossmoda.errors import InputError

        task = self.segmentTask(volume, weights, device, flips, settings)
        self.run([task]).start().wait()
        if task.result is None:
            raise InputError(task.error or _("The work was cancelled."))
        return task.result[0]

    # ---------------------------------------------------------------- result

    @staticmethod
    def watchCorrections(segmentation) -> None:
        """Mark the segmentation as corrected when somebody edits it."""
        nodes.watch_corrections(segmentation)

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
