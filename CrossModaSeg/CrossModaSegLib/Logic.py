"""What the panel can do, usable from scripts: ``slicer.util.getModuleLogic("CrossModaSeg")``."""

import shutil
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from CrossModaSegLib.ParameterNode import CrossModaSegParameterNode
from CrossModaSegLib.processes import cli_runs, propagating
from CrossModaSegLib.processes.tasks import DONE, CliTask, PythonTask, StepsTask, TaskQueue
from CrossModaSegLib.scene import cases, export, nodes

#: The sample data: three labeled ceT1 atlases and one hrT2 target, about half a minute to make.
SAMPLE = {
    "sources": 3,
    "targets": 1,
    "seed": 4,
    "settings": {"field_of_view": 150.0, "slices": 48, "tumor_volume": 1600.0},
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

        ready: list[dict] = []

        def take(answer):
            ready[:] = answer["rows"]
            for row, found in zip(rows, ready, strict=True):
                row.file_problem, row.side = found["problem"], found["side"]

        def steps():
            read = zip(rows, ready, strict=True)
            return [step for row, found in read if not row.file_problem for step in cases.placing(row, found)]

        def finish(_result):
            shutil.rmtree(folder, ignore_errors=True)
            if loaded:
                loaded(rows)

        described = [
            {"id": row.id, "modality": row.modality, "side": row.side, "image": row.image_path, "label": row.label_path}
            for row in rows
        ]
        read = PythonTask("prepare", {"rows": described, "folder": str(folder)}, _("Read the files"), take)
        place = StepsTask(_("Load the cases"), steps, finish, lambda: shutil.rmtree(folder, ignore_errors=True))
        place.needs = read
        return [read, place]

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
        return export.temporary_folder()

    # ---------------------------------------------------------------- register and fuse

    def register(self, target, atlases: list, keepTransforms=False, device="auto", wait=False):
        """Register atlases (ceT1 volumes made cases with their labels) to the target, one CLI run each."""
        queue = self.run([self.registerTask(target, atlas, keepTransforms, device) for atlas in atlases])
        queue.start()
        return queue.wait() if wait else queue

    def registerTask(self, target, atlas, keepTransforms=False, device="auto", mirror="no", settings=None):
        """Return the task that registers one atlas to the target.

        ``mirror`` is ``"no"``, ``"yes"`` or the patient's side to which its tumor is to be brought; ``settings`` are
        parameters of the CLI module CrossModaRegister.
        """
        return propagating.register_task(target, atlas, mirror, keepTransforms, device, settings)

    def propagate(self, target, atlases: list, device="auto", tumorSide="auto", settings=None):
        """Register the atlases to the target, fuse their labels, wait; return the noisy label (a segmentation).

        Atlases whose tumor is on the other side are mirrored; ``"auto"`` finds the target's side from its image
        where the atlases' tumors come to lie. ``settings`` are parameters by CLI module, such as
        ``{"CrossModaRegister": {"alpha": 2.0}}``. What was registered with the same settings before is used again.

        Raises:
            InputError: nothing could be fused.

        """
        plan = propagating.Propagation(target, atlases, tumor_side=tumorSide, device=device, settings=settings)
        return self._wait(plan.tasks())[0]

    # ---------------------------------------------------------------- segment

    def segmentTask(self, volume, weights="", device="auto", flips=False, settings=None) -> CliTask:
        """Return the task that segments a volume with the network; its result is (segmentation, uncertainty volume).

        ``settings`` are parameters of the CLI module CrossModaPredict.
        """
        outputs: dict = {}

        def prepare():
            cli_runs.require(volume, nodes.volume_problem)
            outputs["label_map"] = cli_runs.add_hidden("vtkMRMLLabelMapVolumeNode", volume.GetName() + " predicted")
            name = slicer.mrmlScene.GenerateUniqueName(volume.GetName() + " uncertainty")
            outputs["uncertainty"] = cli_runs.add_hidden("vtkMRMLScalarVolumeNode", name)
            chosen = {"weights": weights} if weights else {}
            return {"image": volume, **outputs, "device": device, "flips": flips, **chosen, **(settings or {})}

        def finish(node):
            cli_runs.require_present([volume, *outputs.values()])
            segmentation = nodes.make_segmentation(
                outputs["label_map"], volume, _("{name} segmentation").format(name=volume.GetName()), "prediction"
            )
            used = {"device": device, "flips": flips, "weights": Path(weights).name if weights else "bundled"}
            record = cli_runs.record("predict", {**used, **(settings or {})}, image=volume, seconds=task.seconds)
            found = record["measurements"] = cli_runs.measurements(node)
            record["device"] = found["processor"]
            note = found["notes"]
            found["notes"] = f"{note[:1].upper()}{note[1:]}{'.' if note else ''}"
            task.notes = f"{cli_runs.processor(found)} {found['notes']}".strip()
            uncertainty = outputs.pop("uncertainty")
            cli_runs.reveal(uncertainty, "uncertainty", volume)
            for made in (segmentation, uncertainty):
                nodes.set_provenance(made, record)
            cli_runs.remove(outputs.values())
            nodes.watch_corrections(segmentation)
            return segmentation, uncertainty

        task = CliTask("CrossModaPredict", _("Segment"), prepare, finish, lambda: cli_runs.remove(outputs.values()))
        return task

    def segment(self, volume, weights="", device="auto", flips=False, settings=None):
        """Segment a volume with the network, wait, return the segmentation.

        Raises:
            InputError: the volume or the weights cannot be used.

        """
        return self._wait([self.segmentTask(volume, weights, device, flips, settings)])[0]

    # ---------------------------------------------------------------- result

    @staticmethod
    def watchCorrections(label) -> None:
        """Mark a segmentation or label map as corrected when somebody edits it."""
        nodes.watch_corrections(label)

    def measure(self, segmentation, volume=None):
        """Return a table node with volume, largest diameter and distance to the cochlea of each structure.

        Raises:
            InputError: the segmented volume is missing or cannot be used.

        """
        return self._wait(self.measureTasks(segmentation, volume))

    def measureTasks(self, segmentation, volume=None) -> list:
        """Return the tasks that measure a segmentation; the result of the last is the table node."""
        volume = volume or segmentation.GetNodeReference(nodes.TARGET)
        return export.measure_tasks(segmentation, volume)

    def _wait(self, tasks: list):
        """Run tasks, wait, return the result of the last or raise InputError."""
        from crossmoda.errors import InputError

        self.run(tasks).start().wait()
        if tasks[-1].state != DONE:
            raise InputError(next((task.error for task in tasks if task.error), _("The work was cancelled.")))
        return tasks[-1].result

    def export(self, segmentation, folder, segmentationFile=True, labelMap=True, surfaces=False) -> list[Path]:
        """Write the segmentation as .seg.nrrd, NIfTI label map and STL surfaces; return the files.

        Existing files are not overwritten: the name gets a number.

        Raises:
            InputError: the folder cannot be written, or nothing was chosen.

        """
        return self._wait(self.exportTasks(segmentation, folder, segmentationFile, labelMap, surfaces))

    def exportTasks(self, segmentation, folder, segmentationFile=True, labelMap=True, surfaces=False) -> list:
        """Return the tasks that write the segmentation; the result of the last are the files."""
        return export.export_tasks(segmentation, Path(folder), segmentationFile, labelMap, surfaces)
