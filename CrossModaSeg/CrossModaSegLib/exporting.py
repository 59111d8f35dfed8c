"""Results leave the scene: tables, files."""

import shutil
import tempfile
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from CrossModaSegLib import nodes

TABLE = "CrossModa.table"


def table_of(segmentation, measurements):
    """Write measurements into the segmentation's table node; a new one is made at the first time."""
    table = segmentation.GetNodeReference(TABLE)
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", segmentation.GetName() + " measures")
        segmentation.SetNodeReferenceID(TABLE, table.GetID())
        nodes.place_beside(table, segmentation)
    columns = {
        _("Structure"): [item.structure.name for item in measurements],
        _("Volume (mm³)"): [item.volume_mm3 for item in measurements],
        _("Diameter (mm)"): [item.largest_diameter_mm for item in measurements],
        _("To cochlea (mm)"): [item.distance_to_cochlea_mm for item in measurements],
    }
    table.RemoveAllColumns()
    for title, values in columns.items():
        column = vtk.vtkStringArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue("" if value is None else value if isinstance(value, str) else f"{value:.1f}")
        table.AddColumn(column)
    return table


def export(segmentation, folder: Path, segmentation_file: bool, label_map: bool, surfaces: bool) -> list[Path]:
    """Write a segmentation in the formats chosen, with its provenance beside it; return the files.

    Nothing is overwritten: if a name is taken, the files get a number.

    Raises:
        InputError: nothing was chosen, or the folder cannot be written.

    """
    from crossmoda.errors import InputError
    from crossmoda.output import atomic, write_json

    if not (segmentation_file or label_map or surfaces):
        raise InputError(_("Choose at least one format to export."))
    stem = _free_stem(folder, "".join(c if c not in '<>:"/\\|?*' else "_" for c in segmentation.GetName()))
    written = []
    if segmentation_file:
        with atomic(folder / f"{stem}.seg.nrrd") as path:
            _write(slicer.vtkMRMLSegmentationStorageNode(), segmentation, path)
        written.append(folder / f"{stem}.seg.nrrd")
    if label_map:
        volume = segmentation.GetNodeReference(nodes.TARGET)
        if volume is None or volume.GetImageData() is None:
            raise InputError(
                _("The segmented volume is no longer in the scene, so its grid is unknown; export .seg.nrrd only.")
            )
        node, temporary = nodes.label_map_of(segmentation, volume)
        try:
            with atomic(folder / f"{stem}.nii.gz") as path:
                write_volume(node, path, compress=True)
        finally:
            if temporary:
                slicer.mrmlScene.RemoveNode(node)
        written.append(folder / f"{stem}.nii.gz")
    if surfaces:
        written += _write_surfaces(segmentation, folder, stem)
    write_json(folder / f"{stem}.json", nodes.provenance(segmentation))
    return [*written, folder / f"{stem}.json"]


def _free_stem(folder: Path, stem: str) -> str:
    taken = {path.name.split(".")[0] for path in folder.glob("*")} if folder.is_dir() else set()
    number, free = 2, stem.replace(".", "_")
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
        segmentation.CreateClosedSurfaceRepresentation()
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
