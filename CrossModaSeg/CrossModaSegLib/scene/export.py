"""Results leave the scene: tables, files."""

import itertools
import shutil
import tempfile
from functools import partial
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from CrossModaSegLib.processes import cli_runs
from CrossModaSegLib.processes.tasks import PythonTask, StepsTask, Task
from CrossModaSegLib.scene import nodes

TABLE = "CrossModa.table"


def table_of(segmentation, measurements: list[dict]):
    """Write measurements into the segmentation's table node; a new one is made at the first time."""
    table = segmentation.GetNodeReference(TABLE)
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", segmentation.GetName() + " measures")
        segmentation.SetNodeReferenceID(TABLE, table.GetID())
        nodes.place_beside(table, segmentation)
    columns = {
        _("Structure"): "structure",
        _("Volume (mm³)"): "volume_mm3",
        _("Diameter (mm)"): "largest_diameter_mm",
        _("To cochlea (mm)"): "distance_to_cochlea_mm",
    }
    table.RemoveAllColumns()
    for title, key in columns.items():
        column = vtk.vtkStringArray()
        column.SetName(title)
        for value in (row[key] for row in measurements):
            column.InsertNextValue("" if value is None else value if isinstance(value, str) else f"{value:.1f}")
        table.AddColumn(column)
    return table


def write_label_map(segmentation, volume, path: Path) -> None:
    """Write a segmentation as a label map on the volume's grid, not compressed."""
    node, temporary = nodes.label_map_of(segmentation, volume)
    try:
        write_volume(node, path)
    finally:
        if temporary:
            slicer.mrmlScene.RemoveNode(node)


def measure_tasks(segmentation, volume) -> list[Task]:
    """Return the tasks that measure a segmentation; the result of the last is the table node."""
    folders: list[Path] = []

    def steps():
        cli_runs.require(volume, nodes.volume_problem)
        folders.append(temporary_folder())
        return [partial(write_label_map, segmentation, volume, folders[0] / "label.nrrd")]

    def clean():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def finish(answer):
        clean()
        cli_runs.require_present([segmentation])
        return table_of(segmentation, answer["measurements"])

    written = StepsTask(_("Write the label map"), steps, abandon=clean)
    measured = PythonTask(
        "measure", lambda: {"label_map": str(folders[0] / "label.nrrd")}, _("Measure"), finish, abandon=clean
    )
    measured.needs = written
    return [written, measured]


def export_tasks(segmentation, folder: Path, segmentation_file: bool, label_map: bool, surfaces: bool) -> list[Task]:
    """Return the tasks that write a segmentation in the formats chosen, with its provenance beside it.

    The result of the last are the files. Nothing is overwritten: if a name is taken, the files get a number.

    Raises:
        InputError: nothing was chosen.

    """
    from crossmoda.errors import InputError

    if not (segmentation_file or label_map or surfaces):
        raise InputError(_("Choose at least one format to export."))
    stem = _free_stem(folder, "".join(c if c not in '<>:"/\\|?*' else "_" for c in segmentation.GetName()))
    folders: list[Path] = []
    written: list[Path] = []

    def write_segmentation():
        from crossmoda.output import atomic

        with atomic(folder / f"{stem}.seg.nrrd") as path:
            _write(slicer.vtkMRMLSegmentationStorageNode(), segmentation, path)
        written.append(folder / f"{stem}.seg.nrrd")

    def first_steps():
        volume = segmentation.GetNodeReference(nodes.TARGET)
        if label_map and (volume is None or volume.GetImageData() is None):
            raise InputError(
                _("The segmented volume is no longer in the scene, so its grid is unknown; export .seg.nrrd only.")
            )
        folders.append(temporary_folder())
        steps = [write_segmentation] if segmentation_file else []
        if label_map:
            steps.append(partial(write_label_map, segmentation, volume, folders[0] / "label.nrrd"))
        return steps

    def last_steps():
        from crossmoda.output import write_json

        if label_map:
            written.append(folder / f"{stem}.nii.gz")
        record = folder / f"{stem}.json"
        steps = [segmentation.CreateClosedSurfaceRepresentation] if surfaces else []
        steps += [lambda: written.extend(_write_surfaces(segmentation, folder, stem))] if surfaces else []
        return [*steps, lambda: write_json(record, nodes.provenance(segmentation)), lambda: written.append(record)]

    def clean():
        for each in folders:
            shutil.rmtree(each, ignore_errors=True)

    def finish(_nothing):
        clean()
        return written

    tasks: list[Task] = [StepsTask(_("Write the segmentation"), first_steps, abandon=clean)]
    if label_map:

        def arguments():
            return {"source": str(folders[0] / "label.nrrd"), "target": str(folder / f"{stem}.nii.gz")}

        tasks.append(PythonTask("convert", arguments, _("Compress the label map"), abandon=clean))
    tasks.append(StepsTask(_("Write surfaces and provenance"), last_steps, finish, abandon=clean))
    for before, after in itertools.pairwise(tasks):
        after.needs = before
    return tasks


def _free_stem(folder: Path, stem: str) -> str:
    taken = {path.name.split(".")[0] for path in folder.glob("*")} if folder.is_dir() else set()
    stem = stem.replace(".", "_")
    number, free = 2, stem
    while free in taken:
        free, number = f"{stem}_{number}", number + 1
    return free


def _write(storage, node, path: Path) -> None:
    from crossmoda.errors import InputError

    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise InputError(_("{path} cannot be written; choose another folder.").format(path=path))


def temporary_folder() -> Path:
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
    from crossmoda.errors import InputError

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
