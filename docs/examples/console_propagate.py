"""For the Python console: two labeled ceT1 atlases and a T2 target that are in the scene already."""

try:
    from slicer import app  # noqa: F401 (not in a plain Python, nor in slicer-core)
except ImportError:
    raise SystemExit("Not in 3D Slicer. Run this example in Slicer's Python console.") from None
import slicer

logic = slicer.util.getModuleLogic("CrossModaSeg")
target = slicer.util.getNode("T2")
atlases = []
for name in ("atlas 1", "atlas 2"):
    atlas, label = slicer.util.getNode(name), slicer.util.getNode(name + " label")
    atlases.append(logic.addCase(atlas, label, modality="ceT1"))

noisy_label = logic.propagate(target, atlases)  # waits; the window stays alive
table = logic.measure(noisy_label)
print([table.GetTable().GetValue(row, 1).ToString() + " mm³" for row in range(table.GetTable().GetNumberOfRows())])
