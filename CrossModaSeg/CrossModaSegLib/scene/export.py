"""The files of a segmentation."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import nodes


def remove_folder(folder: Path | None) -> None:
    """Remove a temporary folder, if there is one."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def write_label_map(segmentation, volume, path: Path) -> None:
    """Write a segmentation as a label map on the volume's grid, not compressed."""
    write_volume(nodes.label_map_of(segmentation, volume), path)


class LabelMapWork:
    """Tasks that hand a segmentation to the engine as a label map file in a temporary folder."""

    def __init__(self, segmentation):
        """Name the segmentation: a node, or a function that returns it when its turn has come."""
        self._segmentation = segmentation
        self._folder: Path | None = None

    @property
    def segmentation(self):
        """The segmentation's node."""
        return self._segmentation() if callable(self._segmentation) else self._segmentation

    def _label_map_step(self, volume) -> Callable[[], None]:
        """Return the step that writes the label map."""
        self._folder = temporary_folder()
        return partial(write_label_map, self.segmentation, volume, self._label_map)

    @property
    def _label_map(self) -> Path:
        return self._folder / "label.nrrd"

    def _remove_folder(self) -> None:
        remove_folder(self._folder)


class Export(LabelMapWork):
    """The files of a segmentation in the chosen formats, with its provenance.

    Nothing is overwritten: if a name is taken, the files get a number.
    """

    def __init__(self, segmentation, folder: Path, segmentation_file: bool, label_map: bool, surfaces: bool):
        """Choose the formats.

        Raises:
            InputError: no format is chosen.

        """
        super().__init__(segmentation)
        if not (segmentation_file or label_map or surfaces):
            raise InputError(_("Choose at least one format to export."))
        self.files: list[Path] = []
        self._target_folder, self._stem = folder, free_stem(folder, segmentation.GetName())
        self._segmentation_file, self._with_label_map, self._surfaces = segmentation_file, label_map, surfaces

    def tasks(self) -> list[Task]:
        """Return the tasks; the result of the last are the files."""
        tasks: list[Task] = [
            StepsTask(_("Write the segmentation"), self._first_steps, abandon=self._remove_folder),
            StepsTask(_("Write surfaces and provenance"), self._last_steps, self._finish, self._remove_folder),
        ]
        if self._with_label_map:
            title = _("Compress the label map")
            tasks.insert(1, PythonTask("convert", self._arguments, title, abandon=self._remove_folder))
        return tasks

    def _path(self, ending: str) -> Path:
        return self._target_folder / f"{self._stem}{ending}"

    def _first_steps(self) -> list[Callable[[], None]]:
        volume = self.segmentation.GetNodeReference(nodes.TARGET)
        if self._with_label_map and (volume is None or volume.GetImageData() is None):
            raise InputError(
                _("The segmented volume is no longer in the scene, so its grid is unknown; export .seg.nrrd only.")
            )
        steps = [self._write_segmentation] if self._segmentation_file else []
        return [*steps, self._label_map_step(volume)] if self._with_label_map else steps

    def _write_segmentation(self) -> None:
        from crossmoda.output import atomic

        with atomic(self._path(".seg.nrrd")) as path:
            _write(slicer.vtkMRMLSegmentationStorageNode(), self.segmentation, path)
        self.files.append(self._path(".seg.nrrd"))

    def _arguments(self) -> dict:
        return {"source": str(self._label_map), "target": str(self._path(".nii.gz"))}

    def _last_steps(self) -> list[Callable[[], None]]:
        if self._with_label_map:
            self.files.append(self._path(".nii.gz"))
        surfaces = [self.segmentation.CreateClosedSurfaceRepresentation, self._write_surfaces]
        return [*(surfaces if self._surfaces else []), self._write_provenance]

    def _write_surfaces(self) -> None:
        self.files += _write_surfaces(self.segmentation, self._target_folder, self._stem)

    def _write_provenance(self) -> None:
        from crossmoda.output import write_json

        write_json(self._path(".json"), nodes.provenance(self.segmentation))
        self.files.append(self._path(".json"))

    def _finish(self, _result) -> list[Path]:
        self._remove_folder()
        return self.files


def free_stem(folder: Path, name: str) -> str:
    """Return a name as that of a file, with a number if a file of the folder has it."""
    stem = "".join(letter if letter not in '<>:"/\\|?*' else "_" for letter in name)
    taken = {path.name.split(".")[0] for path in folder.glob("*")} if folder.is_dir() else set()
    stem = stem.replace(".", "_")
    number, free = 2, stem
    while free in taken:
        free, number = f"{stem}_{number}", number + 1
    return free


def _write(storage, node, path: Path) -> None:
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise InputError(_("Cannot write {path}. Choose another folder.").format(path=path))


def temporary_folder() -> Path:
    """Return a new folder for temporary files.

    Raises:
        InputError: the application's temporary folder cannot be written.

    """
    parent = Path(slicer.app.temporaryPath)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="CrossModa-", dir=parent))
    except OSError as cause:
        raise InputError(
            _(
                "Cannot write the folder for temporary files: {folder}. Choose another one in the application settings."
            ).format(folder=parent)
        ) from cause


def write_volume(volume, path: Path, compress: bool = False) -> None:
    """Write a volume; the storage node that remembers where it came from is not touched.

    Raises:
        InputError: the file cannot be written.

    """
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetUseCompression(int(compress))
    _write(storage, volume, path)


def _write_surfaces(segmentation, folder: Path, stem: str) -> list[Path]:
    """Write one STL file (LPS, mm) per segment that has a surface."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=slicer.app.temporaryPath) as temporary:
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if not logic.ExportSegmentsClosedSurfaceRepresentationToFiles(
            temporary, segmentation, None, "STL", True, 1.0, False
        ):
            raise InputError(_("{name} has no surface to export; is it empty?").format(name=segmentation.GetName()))
        written = []
        for path in sorted(Path(temporary).glob("*.stl")):
            name = path.stem.removeprefix(segmentation.GetName()).strip("_ ")
            written.append(Path(shutil.move(path, folder / f"{stem}_{name}.stl")))
    return written
