"""``slicer.app.coreIOManager()``: loading and saving through the scene's own storage nodes."""

from pathlib import Path

import slicer

READERS = (
    ((".seg.nrrd", ".seg.nhdr"), "SegmentationFile"),
    ((".mrb", ".mrml"), "SceneFile"),
    ((".h5", ".tfm"), "TransformFile"),
    ((".vtp", ".vtk", ".stl"), "ModelFile"),
    ((".nrrd", ".nii", ".nii.gz", ".mha"), "VolumeFile"),
)


class Files:
    """Enough for slicer.util.load..., saveNode, exportNode and saveScene."""

    def __init__(self, application):
        self._application = application

    def fileType(self, name):
        """Return the reader for a file name."""
        return next((kind for endings, kind in READERS if str(name).lower().endswith(endings)), "")

    def fileWriterFileType(self, _node):
        """Return the writer for a node."""
        return "NodeFile"

    def loadNodes(self, kind, properties, loaded, _messages=None):
        """Load a file into the scene."""
        path = Path(properties["fileName"]).absolute()
        if not path.exists() or not kind:
            return False
        if kind == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear", False)))
        node = getattr(self, "_load_" + kind.removesuffix("File").lower())(
            path, properties.get("name") or path.name.split(".")[0], properties
        )
        if node is None:
            return False
        loaded.AddItem(node)
        return True

    def _logic(self, name):
        return getattr(slicer.modules, name.lower()).logic()

    def _load_scene(self, path, clear):
        scene = slicer.mrmlScene
        if clear:
            scene.Clear(False)
        if path.suffix == ".mrb":
            return bool(scene.ReadFromMRB(str(path), clear))
        scene.SetURL(str(path))
        return bool(scene.Import())

    def _load_volume(self, path, name, properties):
        options = int(bool(properties.get("labelmap"))) + 4 * int(bool(properties.get("singleFile", True)))
        return self._logic("Volumes").AddArchetypeVolume(str(path), name, options)

    def _load_transform(self, path, _name, _properties):
        return self._logic("Transforms").AddTransform(str(path), slicer.mrmlScene)

    def _load_model(self, path, _name, _properties):
        return self._logic("Models").AddModel(str(path))

    def _load_segmentation(self, path, name, _properties):
        if not path.name.endswith((".seg.nrrd", ".seg.nhdr")):
            label_map = self._load_volume(path, name, {"labelmap": True})
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(label_map, node)
            slicer.mrmlScene.RemoveNode(label_map)
        else:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
            storage.SetFileName(str(path))
            node.SetAndObserveStorageNodeID(storage.GetID())
            if not storage.ReadData(node):
                slicer.mrmlScene.RemoveNode(node)
                return None
        node.CreateDefaultDisplayNodes()
        return node

    def saveNodes(self, kind, properties, _messages=None):
        """Save a node or the scene."""
        path = Path(properties["fileName"]).absolute()
        scene = slicer.mrmlScene
        if kind == "SceneFile":
            scene.SetRootDirectory(str(path.parent))
            if path.suffix == ".mrb":
                return bool(scene.WriteToMRB(str(path)))
            scene.SetURL(str(path))
            return bool(scene.Commit())
        node = scene.GetNodeByID(properties["nodeID"])
        if not node.GetStorageNode():
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(path))
        return bool(node.GetStorageNode().WriteData(node))
