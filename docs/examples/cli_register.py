"""For the Python console: one registration through the CLI module, without waiting."""

try:
    from slicer import app  # noqa: F401 (not in a plain Python, nor in slicer-core)
except ImportError:
    raise SystemExit("Not in 3D Slicer. Run this example in Slicer's Python console.") from None
import slicer

parameters = {
    "fixed": slicer.util.getNode("T2"),
    "moving": slicer.util.getNode("atlas 1"),
    "moving_label": slicer.util.getNode("atlas 1 label"),
    "warped": slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "atlas 1 on T2"),
    "warped_label": slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "atlas 1 on T2 label"),
}
run = slicer.cli.run(slicer.modules.crossmodaregister, None, parameters)
# run.GetStatusString(), run.GetProgress(), run.GetErrorText(), run.Cancel()
