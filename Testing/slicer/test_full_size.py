"""Scans as large as clinical ones: what the panel does with them is right; how long it takes is noted beside 0.1 s."""

import numpy as np
import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.bed

pytestmark = pytest.mark.slow

SHAPE = (80, 448, 448)
GOAL_S = 0.1


@pytest.fixture(scope="module")
def arrays():
    """An image with a bright box, and its label map."""
    image = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[30:40, 200:230, 300:330], label[34:37, 210:216, 350:362], label[34:37, 210:216, 90:102] = 1, 2, 2
    image[label > 0] += 600
    return image, label


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    """A data set of one atlas and one target."""
    folder = tmp_path_factory.mktemp("full size")
    for name, array in (("a_ceT1", arrays[0]), ("a_label", arrays[1]), ("b_hrT2", arrays[0] + 1)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.4, 0.4, 1.5))
        image.SetOrigin((-90.0, -70.0, 12.5))
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    return folder


@pytest.fixture
def loaded(application, panel, folder, measured):
    """The panel with both scans loaded from their folder."""
    from testbed.heartbeat import Heartbeat

    panel.parameters.datasetFolder = str(folder)
    panel.update()
    panel.cases.ui.openButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    heartbeat = Heartbeat()
    panel.cases.ui.loadButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    measured("loading two scans and a label of 448 x 448 x 80 (processor, longest step)", heartbeat.longest_s, GOAL_S)
    panel.update()
    assert [row.problem() for row in panel.cases.rows] == ["", ""], panel.cases.ui.messageLabel.text
    return panel


def test_full_size_scans_are_loaded_as_they_are(loaded, arrays):
    import slicer

    atlas, target = loaded.cases.rows
    for volume, expected in ((atlas.volume, arrays[0]), (atlas.label, arrays[1]), (target.volume, arrays[0] + 1)):
        array = slicer.util.arrayFromVolume(volume)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_allclose(volume.GetOrigin(), (90.0, 70.0, 12.5))  # RAS
    assert atlas.side == "left"
    low, high = (getattr(target.volume.GetDisplayNode(), f"GetWindowLevel{end}")() for end in ("Min", "Max"))
    assert low == pytest.approx(1, abs=5) and 190 < high < 900


def test_a_full_size_result_is_shown_measured_and_exported(application, loaded, arrays, measured, tmp_path):
    import slicer
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import display, measures, nodes
    from testbed.heartbeat import Heartbeat

    from crossmoda.volume import read_label_map

    atlas, target = loaded.cases.rows
    heartbeat = Heartbeat()
    result = nodes.make_segmentation(atlas.label, target.volume, "result", "prediction")
    application.processEvents()
    measured("making a segmentation of 448 x 448 x 80 (processor)", heartbeat.longest_s, GOAL_S)
    loaded.parameters.result = result
    loaded.parameters.exportFolder, loaded.parameters.exportSurfaces = str(tmp_path), True
    loaded.update()
    for name, button in (("measuring", loaded.result.ui.measureButton), ("exporting", loaded.result.ui.exportButton)):
        heartbeat = Heartbeat()
        selftest.press(loaded, button)
        measured(f"{name} at 448 x 448 x 80 (processor, longest step)", heartbeat.longest_s, GOAL_S)
    table = measures.table_of(result).GetTable()
    voxel_mm3 = 0.4 * 0.4 * 1.5
    assert table.GetColumnByName("volume [mm3]").GetValue(0) == pytest.approx(
        (arrays[1] == 1).sum() * voxel_mm3, abs=0.06
    )
    (written,) = tmp_path.glob("*.nii.gz")
    np.testing.assert_array_equal(read_label_map(written).array, arrays[1])
    heartbeat = Heartbeat()
    display.show_check(target.volume, atlas.volume, "checkerboard", 50.0)
    application.processEvents()
    measured("checkerboard at 448 x 448 x 80 (processor)", heartbeat.longest_s, GOAL_S)
    board = next(
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetName().endswith("checkerboard")
    )
    hidden = slicer.util.arrayFromVolume(board) < 0
    assert 0.4 < hidden.mean() < 0.6
