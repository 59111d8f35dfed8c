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
    tumourSide: Annotated[str, Choice(["auto", "left", "right", "both"])] = "auto"
    keepTransforms: bool = False
    noisyLabel: vtkMRMLSegmentationNode
    disagreement: vtkMRMLScalarVolumeNode
    warpedAtlas: vtkMRMLScalarVolumeNode
    check: Annotated[str, Choice(["fade", "checkerboard", "contour"])] = "fade"
    fade: Annotated[float, WithinRange(0, 100)] = 50.0
    weights: str = ""
    flips: bool = False
    uncertainty: vtkMRMLScalarVolumeNode
    result: vtkMRMLSegmentationNode
    exportFolder: str = ""
    exportSegmentation: bool = True
    exportLabelMap: bool = True
    exportSurfaces: bool = False
