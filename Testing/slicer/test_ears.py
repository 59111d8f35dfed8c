"""The ears of the target in the panel: located once, then shown in turn."""

import numpy as np
import pytest

from crossmoda.anatomy import template
from crossmoda.volume import Volume


@pytest.fixture
def head(panel, scene):
    """The panel with the ears of the bundled template as its target."""
    import slicer
    from CrossModaSegLib.scene import nodes

    average: Volume = template.load().ears["T2"]
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "average")
    nodes.set_grid(volume, vars(average.grid))
    slicer.util.updateVolumeFromArray(volume, average.array)
    panel.logic.addCase(volume, None, "hrT2")
    panel.parameters.target = volume
    panel.update()
    return panel


def test_ears_are_located_and_shown_in_turn(application, head, slices):
    from CrossModaSegLib.scene import ears

    button, target = head.register.ui.earsButton, head.parameters.target
    assert button.enabled and button.text == "Locate ears"
    button.click()
    application.wait_until(lambda: not head.logic.busy, 120)
    assert "2 of 2 ears" in head.register.ui.messageLabel.text
    seen = []
    for side, following in (("left", "right"), ("right", "left")):
        (points,) = [each for each in ears.lists_of(target) if each.GetAttribute("CrossModa.Side") == side]
        assert button.text == f"Show {following} ear"
        center, *others = [[view.GetSliceToRAS().GetElement(row, 3) for row in range(3)] for view in slices]
        assert all(other == pytest.approx(center) for other in others)
        expected = points.GetNthControlPointPositionWorld(points.GetControlPointIndexByLabel("modiolus"))
        assert center == pytest.approx(expected, abs=1.0)
        truth = template.load().landmarks["modiolus"] * ((-1, -1, 1) if side == "left" else (1, -1, 1))
        assert np.linalg.norm(np.subtract(center, truth)) < 1.5
        assert points.GetLocked()
        seen.append(center[0])
        button.click()
    assert seen[0] < 0 < seen[1]


def test_a_scan_without_ears_is_one_sentence(application, panel, add_volume):
    from CrossModaSegLib.scene import ears

    noise = np.random.default_rng(0).normal(200, 50, (24, 60, 60)).astype(np.float32)
    volume = add_volume("noise", noise, spacing=(2.0, 2.0, 3.0))
    panel.logic.addCase(volume, None, "hrT2")
    panel.parameters.target = volume
    panel.update()
    panel.register.ui.earsButton.click()
    application.wait_until(lambda: not panel.logic.busy, 120)
    assert panel.register.is_error and "skull base" in panel.register.ui.messageLabel.text
    assert ears.lists_of(volume) == []
    assert panel.register.ui.earsButton.text == "Locate ears"
