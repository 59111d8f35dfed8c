"""What the panel can do, usable from scripts: ``slicer.util.getModuleLogic("CrossModaSeg")``."""

from pathlib import Path

from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from crossmoda.errors import InputError
from CrossModaSegLib.ParameterNode import CrossModaSegParameterNode
from CrossModaSegLib.processes.prediction import Predict
from CrossModaSegLib.processes.propagation import AtlasFolder, Propagate
from CrossModaSegLib.processes.tasks import DONE, Task, TaskQueue
from CrossModaSegLib.scene import cases, export, measures, nodes


class CrossModaSegLogic(ScriptedLoadableModuleLogic):
    """Propagate labels, segment, measure, export.

    :meth:`run` returns the queue of long work; the other methods wait for their result while the application
    processes events.
    """

    def __init__(self):
        """Name the logic's module: the parameter node's singleton tag."""
        super().__init__()
        self.moduleName = "CrossModaSeg"
        self.queue: TaskQueue | None = None
        self.atlasFolder = AtlasFolder()

    def getParameterNode(self):
        """Return the panel's state."""
        return CrossModaSegParameterNode(super().getParameterNode())

    @property
    def busy(self) -> bool:
        """Whether long work is running."""
        return self.queue is not None and not self.queue.over

    def run(self, tasks: list[Task]) -> TaskQueue:
        """Return a queue of tasks, to be started by the caller.

        Raises:
            InputError: other work is running.

        """
        if self.busy:
            raise InputError(_("CrossModa is busy. Wait or cancel."))
        self.queue = TaskQueue(tasks)
        return self.queue

    def addCase(self, volume, label=None, modality="hrT2", side=""):
        """Make a volume of the scene an atlas (``modality="ceT1"`` with its label) or a target (``"hrT2"``)."""
        return cases.add_case(volume, label, modality, side=side)

    def propagate(self, target, atlases: list, device="auto", tumorSide="auto", settings=None):
        """Propagate the labels of atlases to a target; return the fused label (a segmentation).

        ``settings`` are parameters of the CLI module CrossModaPropagate, such as ``{"alpha": 2.0}``. Registrations of
        an earlier run with the same settings are reused.

        Raises:
            InputError: the target or the atlases cannot be used.

        """
        task = Propagate(target, atlases, self.atlasFolder, tumorSide, device, settings)
        return self._wait(task.tasks())

    def segment(self, volume, weights="", device="auto", flips=False, settings=None):
        """Segment a volume with the network; return the segmentation.

        ``settings`` are parameters of the CLI module CrossModaPredict.

        Raises:
            InputError: the volume or the weights cannot be used.

        """
        return self._wait([Predict(volume, weights, device, flips, settings)])[0]

    def measure(self, segmentation, volume=None):
        """Return a table node with volumes, diameters, meatal parts and gaps, a row per tumor and cochlea.

        Raises:
            InputError: the segmented volume is missing or cannot be used.

        """
        volume = volume or segmentation.GetNodeReference(nodes.TARGET)
        return self._wait(measures.Measurement(segmentation, volume).tasks())

    def export(self, segmentation, folder, segmentationFile=True, labelMap=True, surfaces=False) -> list[Path]:
        """Write the segmentation as .seg.nrrd, NIfTI label map and STL surfaces; return the files.

        Existing files are not overwritten: the name gets a number.

        Raises:
            InputError: the folder cannot be written, or no format is chosen.

        """
        return self._wait(export.Export(segmentation, Path(folder), segmentationFile, labelMap, surfaces).tasks())

    def _wait(self, tasks: list[Task]):
        """Run tasks, wait, return the result of the last or raise InputError."""
        self.run(tasks).start().wait()
        if tasks[-1].state != DONE:
            raise InputError(next((task.error for task in tasks if task.error), _("The work was cancelled.")))
        return tasks[-1].result
