"""The state of the panel: the choices of the user, kept in the scene's parameter node."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class CrossModaSegParameterNode:
    """The state of the panel; paths are strings, empty where none is chosen."""

    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    wheelFolder: str = ""
    datasetFolder: str = ""
    excluded: str = ""
    target: vtkMRMLScalarVolumeNode
    previous: vtkMRMLScalarVolumeNode
    criterion: Annotated[str, Choice(["volume", "linear"])] = "volume"
    tumorSide: Annotated[str, Choice(["auto", "left", "right", "unknown"])] = "auto"
    registerSettings: str = ""
    noisyLabel: vtkMRMLSegmentationNode
    check: Annotated[str, Choice(["fade", "checkerboard", "contour"])] = "fade"
    fade: Annotated[float, WithinRange(0, 100)] = 50.0
    weights: str = ""
    flips: bool = False
    segmentSettings: str = ""
    uncertainty: vtkMRMLScalarVolumeNode
    resultsFolder: str = ""
    correction: vtkMRMLSegmentationNode
    overlay: Annotated[str, Choice(["doubt", "schwannoma", "cochlea", "nothing"])] = "doubt"
    overlayFrom: Annotated[float, WithinRange(1, 100)] = 15.0
    where: Annotated[str, Choice(["region", "pointer", "whole scan"])] = "region"
    pointerRadius: Annotated[float, WithinRange(0.5, 30)] = 4.0
    islandVolume: Annotated[float, WithinRange(0, 5000)] = 10.0
    smoothRadius: Annotated[float, WithinRange(0.1, 5)] = 0.8
    reviewer: str = ""
    keepWho: bool = False
    keepWhen: bool = False
    modelsFolder: str = ""
    improveMinutes: Annotated[float, WithinRange(0.05, 6000)] = 10.0
    result: vtkMRMLSegmentationNode
    exportFolder: str = ""
    exportSegmentation: bool = True
    exportLabelMap: bool = True
    exportSurfaces: bool = False
