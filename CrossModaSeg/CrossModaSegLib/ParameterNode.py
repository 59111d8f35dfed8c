"""What the user chose: kept in the scene's parameter node, so that a saved scene opens as it was."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class CrossModaSegParameterNode:
    """The state of the panel.

    Paths are strings: an empty one means "not chosen", which a ``pathlib.Path`` cannot say.
    """

    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    wheelFolder: str = ""
    datasetFolder: str = ""
    unticked: str = ""
    target: vtkMRMLScalarVolumeNode
    tumorSide: Annotated[str, Choice(["auto", "left", "right", "both"])] = "auto"
    keepTransforms: bool = False
    registerSettings: str = ""
    noisyLabel: vtkMRMLSegmentationNode
    disagreement: vtkMRMLScalarVolumeNode
    warpedAtlas: vtkMRMLScalarVolumeNode
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
