"""The panel: what it opens with, what it refuses, what it remembers, what it never overwrites."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
OPEN = """
import sys, time
sys.path.insert(0, {here!r})
from testbed import application
app = application.start()
import slicer
app.load_scripted_module({module!r})
begun = time.process_time()
slicer.util.selectModule("CrossModaSeg")
print(time.process_time() - begun, sorted({{"torch", "numba", "matplotlib"}} & set(sys.modules)))
slicer.util.getModuleWidget("CrossModaSeg").panel.stop()
app.close()
"""


def text_of(panel, row, column):
    return panel.cases.ui.casesTable.item(row, column).text()


def add_label(add_volume, volume, array=None):
    import slicer

    if array is None:
        array = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        array[4:8, 6:12, 8:14], array[9:11, 15:17, 3:6] = 1, 2
    return add_volume(volume.GetName() + " label", array, kind="vtkMRMLLabelMapVolumeNode")


@pytest.fixture
def atlas(panel, add_volume):
    """A labeled ceT1 of the scene."""
    volume = add_volume("atlas")
    panel.logic.addCase(volume, add_label(add_volume, volume), "ceT1")
    panel.update()
    return volume


@pytest.fixture
def target(panel, add_volume):
    """An hrT2 of the scene, chosen as the target."""
    volume = add_volume("target")
    panel.logic.addCase(volume)
    panel.parameters.target = volume
    panel.update()
    return volume


@pytest.mark.bed
def test_the_panel_opens_without_importing_torch(application, measured):
    module = HERE.parents[1] / "CrossModaSeg/CrossModaSeg.py"
    code = OPEN.format(here=str(HERE), module=str(module))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert heavy == "[]"
    measured("opening the panel (processor)", float(seconds), 1.0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda volume: (volume.SetSpacing(1, 1, 1), volume.SetOrigin(0, 0, 0)), "no geometry"),
        (lambda volume: volume.SetAndObserveImageData(None), "no voxels"),
        ("transform", "under the transform"),
        ("sequence", "sequence"),
        ("slice", "single slice"),
    ],
)
def test_a_target_that_cannot_be_used_is_explained_at_the_button_and_in_its_row(panel, atlas, target, spoil, words):
    import slicer

    if spoil == "transform":
        target.SetAndObserveTransformNodeID(
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T").GetID()
        )
    elif spoil == "sequence":
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
        browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
        browser.AddSynchronizedSequenceNodeID(sequence.GetID())
        browser.AddProxyNode(target, sequence, False)
    elif spoil == "slice":
        slicer.util.updateVolumeFromArray(target, np.ones((1, 20, 20), np.float32))
    else:
        spoil(target)
    panel.update()
    assert not panel.register.ui.registerButton.enabled
    assert words in panel.register.ui.registerButton.toolTip
    assert words in text_of(panel, 1, 4)
    assert not panel.measure.ui.applyButton.enabled


def test_one_click_hardens_the_transforms_of_the_table(panel, atlas, target):
    import slicer
    import vtk

    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 7.0)
    shift.SetMatrixTransformToParent(matrix)
    label = panel.cases.rows[0].label
    before = np.array(atlas.GetOrigin())
    for node in (atlas, label):
        node.SetAndObserveTransformNodeID(shift.GetID())
    panel.update()
    assert "under the transform moved" in text_of(panel, 0, 4)
    assert panel.cases.atlases() == []
    assert not panel.cases.ui.hardenButton.isHidden()
    panel.cases.ui.hardenButton.click()
    np.testing.assert_allclose(np.array(atlas.GetOrigin()) - before, (7.0, 0.0, 0.0))
    assert [node.GetParentTransformNode() for node in (atlas, label)] == [None, None]
    assert text_of(panel, 0, 4) == ""
    assert [row.volume for row in panel.cases.atlases()] == [atlas]
    assert panel.cases.ui.hardenButton.isHidden()
    assert "moved, inverted" in panel.cases.ui.messageLabel.text


def test_a_vector_volume_is_not_offered_and_refused(panel):
    import slicer
    from CrossModaSegLib.scene import nodes

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colors")
    slicer.util.updateVolumeFromArray(volume, np.ones((8, 8, 8, 3), np.uint8))
    volume.SetSpacing(0.5, 0.5, 1.5)
    panel.cases.ui.volumeSelector.setCurrentNode(volume)
    assert panel.cases.ui.volumeSelector.currentNode() is None
    assert "several components" in nodes.volume_problem(volume)


@pytest.mark.parametrize(
    ("array", "spacing", "words"),
    [
        (np.full((12, 20, 24), 3, np.uint8), (0.5, 0.5, 1.5), "has the value 3"),
        (np.zeros((12, 20, 24), np.uint8), (0.5, 0.5, 1.5), "is empty"),
        (np.ones((12, 20, 20), np.uint8), (0.5, 0.5, 1.5), "another grid"),
        (np.ones((12, 20, 24), np.uint8), (0.6, 0.5, 1.5), "another grid"),
    ],
)
def test_an_atlas_whose_label_does_not_fit_is_not_registered(panel, add_volume, target, array, spacing, words):
    volume = add_volume("atlas")
    label = add_volume("label", array, spacing=spacing, kind="vtkMRMLLabelMapVolumeNode")
    panel.logic.addCase(volume, label, "ceT1")
    panel.update()
    assert words in text_of(panel, 0, 4)
    assert panel.cases.atlases() == []
    assert "Select at least one atlas" in panel.register.ui.registerButton.toolTip


def test_a_cleared_atlas_is_not_used_and_stays_cleared(panel, atlas, target):
    import qt

    panel.cases.ui.casesTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    panel.update()
    assert panel.cases.atlases() == []
    assert panel.cases.ui.casesTable.item(0, 0).checkState() == qt.Qt.Unchecked
    panel.cases.ui.casesTable.item(0, 0).setCheckState(qt.Qt.Checked)
    assert [row.volume for row in panel.cases.atlases()] == [atlas]


@pytest.mark.bed
def test_nothing_is_installed_without_confirmation(panel, monkeypatch):
    import slicer
    from CrossModaSegLib.processes import dependencies

    monkeypatch.setattr(dependencies, "missing", lambda: ["numba>=0.60"])
    monkeypatch.setattr(slicer.packaging, "answer", False)
    slicer.packaging.asked.clear()
    panel.setup.show_dependencies()
    panel.update()
    panel.setup.ui.installButton.click()
    assert slicer.packaging.asked == [(["numba>=0.60"], "CrossModa")]
    assert "declined" in panel.setup.ui.messageLabel.text
    monkeypatch.undo()
    panel.setup.show_dependencies()
    panel.update()
    assert panel.setup.ui.installButton.toolTip == "Nothing is missing."


def test_offline_everything_comes_from_the_wheel_folder(panel, monkeypatch, tmp_path):
    import slicer
    from CrossModaSegLib.processes import dependencies

    from crossmoda.errors import InputError

    monkeypatch.setattr(dependencies, "missing", lambda: ["numba>=0.60", "pynrrd>=1.0"])
    with pytest.raises(InputError, match=r"holds no wheels .* of numba>=0\.60, pynrrd>=1\.0"):
        dependencies.install(str(tmp_path))
    (tmp_path / "numba-1-py3-none-any.whl").touch()
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    monkeypatch.setattr(slicer.util, "pip_install", asked.append)
    with pytest.raises(InputError, match=r"Not installed: pynrrd>=1\.0\. Their wheels are not in"):
        dependencies.install(str(tmp_path))
    (tmp_path / "pynrrd-1.1.3-py3-none-any.whl").touch()
    dependencies.install(str(tmp_path))
    options = ["--no-index", "--find-links", str(tmp_path)]
    assert asked == [[*options, "numba>=0.60"], [*options, "numba>=0.60", "pynrrd>=1.0"]]


@pytest.mark.bed
def test_a_package_that_is_too_old_is_installed_anew(panel, monkeypatch):
    import importlib.metadata

    from CrossModaSegLib.processes import dependencies

    old = {"numba": "0.59.1", "torch": "2.13.0+cpu"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: old.get(name, "99"))
    assert dependencies.missing() == ["numba>=0.60"]
    assert dependencies.versions()["numba"] == "" and dependencies.versions()["torch"] == "2.13.0+cpu"


def test_without_the_pytorch_extension_the_remedy_is_named(panel, monkeypatch):
    from CrossModaSegLib.processes import dependencies

    from crossmoda.errors import InputError

    monkeypatch.setattr(dependencies, "missing", lambda: ["torch"])
    with pytest.raises(InputError, match="Extensions Manager"):
        dependencies.install()


def test_a_saved_scene_opens_with_the_state_of_the_panel(application, panel, atlas, target, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes, segments

    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    segmentation = nodes.make_segmentation(label, target, "result", "prediction")
    nodes.set_provenance(
        segmentation, {"step": "predict", "crossmoda": "x", "created": "y", "inputs": {}, "seconds": 1}
    )
    panel.parameters.result = segmentation
    panel.parameters.check = "contour"
    panel.parameters.tumorSide = "left"
    panel.parameters.excluded = "atlas ceT1"
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    application.scene.Clear(False)
    panel.update()
    assert panel.cases.rows == []
    assert panel.parameters.result is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()
    assert [(row.id, row.modality) for row in panel.cases.rows] == [("atlas", "ceT1"), ("target", "hrT2")]
    assert [row.problem() for row in panel.cases.rows] == ["", ""]
    assert panel.cases.selected() == [panel.cases.rows[1]]
    assert panel.parameters.target.GetName() == "target"
    assert panel.register.ui.targetSelector.currentNode().GetName() == "target"
    assert panel.register.ui.checkComboBox.currentText == "contour"
    assert panel.register.ui.tumorSideComboBox.currentText == "left"
    assert panel.result.ui.resultSelector.currentNode().GetName() == "result"
    assert "Segmented by the network (CrossModa x)" in panel.result.ui.provenanceLabel.text
    found = {structure.key for structure, _segment in segments.known_segments(panel.parameters.result)}
    assert found == {"VS", "cochlea"}


def test_a_result_never_overwrites_an_earlier_one(panel, atlas, target):
    import slicer
    from CrossModaSegLib import selftest
    from CrossModaSegLib.scene import nodes

    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    first = nodes.make_segmentation(label, target, "target segmentation", "prediction")
    selftest.paint_ball(first, "VS")
    corrected = slicer.util.arrayFromSegmentBinaryLabelmap(first, "VS", target).copy()
    second = nodes.make_segmentation(label, target, "target segmentation", "prediction")
    assert first.GetName() != second.GetName()
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(first, "VS", target), corrected)


def test_exporting_twice_keeps_both(panel, atlas, target, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes

    from crossmoda.volume import read_label_map

    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    segmentation = nodes.make_segmentation(label, target, "Größe 1/2", "prediction")
    first = panel.logic.export(segmentation, tmp_path)
    second = panel.logic.export(segmentation, tmp_path)
    assert len(set(first) | set(second)) == 6
    expected = slicer.util.arrayFromVolume(label)
    for path in first[:2]:
        written = read_label_map(path)
        np.testing.assert_array_equal(written.array, expected)
        assert written.grid.same_as(nodes.grid_of(target))


def test_an_export_folder_that_cannot_be_written_is_named(application, panel, atlas, target, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes

    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    panel.parameters.result = nodes.make_segmentation(label, target, "result", "prediction")
    (tmp_path / "file").touch()
    panel.parameters.exportFolder = str(tmp_path / "file")
    panel.update()
    panel.result.ui.exportButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    assert "Cannot write" in panel.result.ui.messageLabel.text


def test_the_segmentation_lies_where_the_volume_lies_also_with_oblique_slices(panel, add_volume):
    import slicer
    import vtk
    from CrossModaSegLib.scene import nodes

    volume = add_volume("oblique")
    turn = vtk.vtkTransform()
    turn.RotateX(20)
    turn.RotateZ(-35)
    directions = turn.GetMatrix()
    volume.SetIJKToRASDirectionMatrix(directions)
    label = add_label(add_volume, volume)
    label.SetIJKToRASDirectionMatrix(directions)
    segmentation = nodes.make_segmentation(label, volume, "result", "prediction")
    back = nodes.label_map_of(segmentation, volume)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(back), slicer.util.arrayFromVolume(label))
    bounds = np.zeros(6)
    segmentation.GetSegmentation().GetSegment("VS").GetBounds(bounds)
    corners = np.argwhere(slicer.util.arrayFromVolume(label) == 1)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    centers = np.array([matrix.MultiplyPoint([*index[::-1], 1.0])[:3] for index in corners])
    assert np.all(centers.min(0) >= bounds[::2] - 1.5)
    assert np.all(centers.max(0) <= bounds[1::2] + 1.5)


@pytest.mark.bed
def test_correct_opens_the_segment_editor_with_segmentation_and_scan(panel, atlas, target):
    import slicer
    from CrossModaSegLib.scene import nodes

    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    panel.parameters.result = nodes.make_segmentation(label, target, "result", "prediction")
    panel.update()
    panel.result.ui.editButton.click()
    editor = slicer.util.getModuleWidget("SegmentEditor").editor
    assert slicer.app.selected_module == "SegmentEditor"
    assert (editor.segmentation, editor.volume) == (panel.parameters.result, target)


def test_the_surfaces_are_shown_and_hidden(panel, atlas, target):
    import slicer
    from CrossModaSegLib.scene import nodes

    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    result = panel.parameters.result = nodes.make_segmentation(label, target, "result", "prediction")
    panel.update()
    panel.result.ui.show3DButton.click()
    surface = vtk_surface(result)
    assert surface.GetNumberOfPoints() > 10
    panel.result.ui.show3DButton.click()
    assert not result.GetSegmentation().ContainsRepresentation("Closed surface")


def vtk_surface(segmentation):
    import vtk

    surface = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation("VS", surface)
    return surface


def test_results_lie_in_the_study_of_the_scan(panel, atlas, target):
    import slicer
    from CrossModaSegLib.scene import nodes

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(target), study)
    label = slicer.mrmlScene.GetFirstNodeByName("atlas label")
    segmentation = nodes.make_segmentation(label, target, "result", "prediction")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study


@pytest.mark.parametrize("category", ["CrossModa", "General"])
def test_the_sample_is_in_sample_data_with_a_thumbnail_and_nothing_to_download(panel, category):
    import SampleData

    (sample,) = SampleData.SampleDataLogic.sampleDataSourcesByCategory(category)
    assert sample.sampleName == "CrossModaPhantom"
    assert Path(sample.thumbnailFileName).is_file()
    assert list(sample.uris) == []


def test_slicer_refuses_a_sample_without_addresses(panel):
    import SampleData

    with pytest.raises(TypeError):
        SampleData.SampleDataLogic.registerCustomSampleDataSource("Custom", "sample", customDownloader=print)


def test_the_choices_of_the_panel_are_those_of_the_engine(application):
    import typing

    from CrossModaSegLib.ParameterNode import CrossModaSegParameterNode

    from crossmoda import device, parameters, propagation

    def choices(name):
        return tuple(typing.get_args(CrossModaSegParameterNode.allParameters[name][0])[1].choices)

    assert choices("device") == device.CHOICES
    engine = {item.name: item for item in parameters.parameters(propagation.Settings)}
    assert choices("tumorSide") == engine["tumor_side"].choices


def test_reload_replaces_every_module_of_the_panel_and_keeps_its_state(application, panel, add_volume):
    import slicer

    target = add_volume("T2")
    panel.parameters.target = target
    before = {name: module for name, module in sys.modules.items() if name.startswith("CrossModaSegLib")}
    slicer.util.getModuleWidget("CrossModaSeg").onReload()
    reloaded = slicer.util.getModuleWidget("CrossModaSeg").panel
    assert "CrossModaSegLib.sections.register" in before
    assert not [name for name, module in before.items() if sys.modules.get(name) is module]
    assert reloaded is not panel
    assert reloaded.parameters.target is target
    reloaded.update()
    assert reloaded.register.ui.targetSelector.currentNode() is target
