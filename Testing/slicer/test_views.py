"""Slice views drawn by Slicer's own displayable managers: what is shown lies where it should."""

import types

import numpy as np
import pytest

pytestmark = pytest.mark.bed


@pytest.fixture(scope="module")
def view(application):
    """An axial slice view of 200 x 200 pixels."""
    from testbed.views import SliceView

    return SliceView(application, "Red", 200, 200)


@pytest.fixture
def shown(panel, view, add_volume):
    """A gray volume around the origin with a segment on the patient's right, in front."""
    import slicer
    import vtk
    from CrossModaSegLib.scene import nodes

    directions = vtk.vtkMatrix4x4()  # ITK's axes: to the left, to the back, up
    directions.SetElement(0, 0, -1)
    directions.SetElement(1, 1, -1)
    array = np.full((20, 40, 40), 50.0, np.float32)
    volume = add_volume("scan", array, spacing=(1.0, 1.0, 1.5), origin=(19.5, 19.5, -15.0))
    volume.SetIJKToRASDirectionMatrix(directions)
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevelMinMax(0.0, 100.0)
    label = np.zeros(array.shape, np.uint8)
    label[6:14, 5:12, 4:12] = 1
    label_map = add_volume("label", label, (1.0, 1.0, 1.5), (19.5, 19.5, -15.0), "vtkMRMLLabelMapVolumeNode")
    label_map.SetIJKToRASDirectionMatrix(directions)
    segmentation = nodes.make_segmentation(label_map, volume, "result", "prediction")
    slicer.util.setSliceViewerLayers(background=volume)
    view.show(40.0, (0.0, 0.0, 0.0))
    return volume, segmentation


def redness(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0].astype(int) - picture[..., 2]


def test_a_segment_on_the_patients_right_in_front_is_at_the_top_left(view, shown):
    picture = view.picture()
    rows, columns = np.nonzero(redness(picture) > 30)
    assert len(rows) > 500
    # The box spans x = 8.5..15.5 mm to the right and y = 8.5..14.5 mm to the front; 5 pixels per mm, center at 100.
    assert (columns.min(), columns.max()) == pytest.approx((100 - 16 * 5, 100 - 8 * 5), abs=5)
    assert (rows.min(), rows.max()) == pytest.approx((100 - 15 * 5, 100 - 8 * 5), abs=5)
    gray = picture[150, 150].astype(int)
    assert np.ptp(gray) == 0 and 100 < gray[0] < 155, "the rest of the scan is gray"


def test_outlines_leave_the_inside_of_the_segment_visible(view, shown):
    from CrossModaSegLib.scene import display

    _volume, segmentation = shown
    inside = np.s_[40:50, 35:45]
    assert redness(view.picture()[inside]).min() > 30
    display.outline_only(segmentation, True)
    picture = view.picture()
    assert redness(picture[inside]).max() == 0
    assert (redness(picture) > 30).sum() > 100


def test_doubt_covers_the_scan_only_where_there_is_some(view, shown, add_volume):
    import slicer
    from CrossModaSegLib.scene import display

    volume, segmentation = shown
    segmentation.GetDisplayNode().SetVisibility(False)
    array = np.zeros((20, 40, 40), np.float32)
    array[6:14, 25:35, 25:35] = 0.9
    doubt = add_volume("doubt", array)
    doubt.CopyOrientation(volume)
    display.show_doubt(volume, doubt)
    picture = view.picture()
    rows, columns = np.nonzero(np.ptp(picture.astype(int), axis=2) > 30)
    assert len(rows) > 500
    assert rows.min() > 110 and columns.min() > 110, "the patient's left, at the back"
    assert slicer.util.arrayFromVolume(doubt).max() == pytest.approx(0.9)


def test_the_checkerboard_alternates_and_goes_away(view, shown, add_volume):
    from CrossModaSegLib.scene import display

    volume, segmentation = shown
    segmentation.GetDisplayNode().SetVisibility(False)
    warped = add_volume("warped", np.full((20, 40, 40), 90.0, np.float32))
    warped.CopyOrientation(volume)
    warped.GetDisplayNode().SetAutoWindowLevel(False)
    warped.GetDisplayNode().SetWindowLevelMinMax(0.0, 100.0)
    display.show_check(volume, warped, "checkerboard", 50.0)
    line = view.picture()[103, :, 0].astype(int)
    changes = np.count_nonzero(np.abs(np.diff(line)) > 60)
    assert changes == pytest.approx(7, abs=2), "eight fields"
    display.show_check(volume, warped, "fade", 0.0)
    assert np.ptp(view.picture()[103, 20:180, 0].astype(int)) == 0


def test_the_views_go_to_the_tumor_of_a_new_result(panel, view, shown):
    volume, segmentation = shown
    view.show(40.0, (0.0, 0.0, 0.0))
    panel.parameters.target = volume
    panel.measure._task = types.SimpleNamespace(volume=volume, seconds=1.0, notes="")
    panel.measure.show_segmentation(segmentation, None)
    matrix = view.node.GetSliceToRAS()
    place = [matrix.GetElement(row, 3) for row in range(3)]
    # The box spans the voxels 4..11, 5..11 and 6..13 of 1, 1 and 1.5 mm; the first voxel is at 19.5, 19.5, -15.
    np.testing.assert_allclose(place, (19.5 - 7.5, 19.5 - 8.0, -15.0 + 9.5 * 1.5), atol=1.5)
