"""While work is running: the panel stays alive, cancels at once, and survives what happens to the scene."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from mr_series import write_dicom_series
from testbed.processes import child_processes

pytestmark = pytest.mark.slow


def test_a_folder_is_listed_checked_and_loaded(application, panel, sample_folder):
    panel.parameters.datasetFolder = str(sample_folder)
    panel.update()
    panel.cases.ui.openButton.click()
    assert not panel.cases.ui.sampleButton.enabled
    assert "busy" in panel.cases.ui.sampleButton.toolTip
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    assert [row.state(None) for row in panel.cases.rows] == ["in the folder"] * 4
    panel.cases.ui.casesTable.item(0, 0).setCheckState(panel.cases.ui.casesTable.item(0, 0).checkState().Unchecked)
    panel.update()
    panel.cases.ui.loadButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    assert [row.volume is not None for row in panel.cases.rows].count(True) == 3
    assert all(row.side in ("left", "right") for row in panel.cases.rows if row.volume and row.is_atlas)
    assert panel.parameters.target.GetName() == "crossmoda_4"


@pytest.mark.bed
def test_closing_the_scene_stops_the_work_and_the_panel_stays_usable(application, loaded):
    register = loaded.register
    register.ui.registerButton.click()
    application.wait_until(lambda: child_processes())
    application.scene.Clear(False)
    application.wait_until(lambda: not child_processes())
    loaded.update()
    assert not loaded.logic.busy
    assert loaded.cases.rows == []
    assert register.ui.registerButton.toolTip == "Select a target."


@pytest.mark.bed
def test_removing_the_target_while_it_is_registered_fails_with_a_reason(application, loaded):
    loaded.cases.ui.casesTable.item(1, 0).setCheckState(loaded.cases.ui.casesTable.item(1, 0).checkState().Unchecked)
    loaded.cases.ui.casesTable.item(2, 0).setCheckState(loaded.cases.ui.casesTable.item(2, 0).checkState().Unchecked)
    loaded.update()
    loaded.register.ui.registerButton.click()
    application.wait_until(lambda: child_processes())
    application.scene.RemoveNode(loaded.parameters.target)
    application.wait_until(lambda: not loaded.logic.busy)
    loaded.update()
    assert "removed from the scene" in loaded.register.ui.messageLabel.text
    assert [row.modality for row in loaded.cases.rows] == ["ceT1"] * 3


def test_an_unwritable_temporary_folder_is_reported_at_the_button(application, loaded, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(application, "temporaryPath", str(tmp_path / "file"))
    loaded.cases.ui.sampleButton.click()
    assert "folder for temporary files" in loaded.cases.ui.messageLabel.text
    assert not loaded.logic.busy


def test_wrong_weights_are_named_in_one_sentence(application, loaded, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not weights at all")
    loaded.parameters.weights = str(tmp_path / "nowhere.safetensors")
    loaded.update()
    assert "Weights not found" in loaded.measure.ui.applyButton.toolTip
    loaded.parameters.weights = str(bad)
    loaded.update()
    loaded.measure.ui.applyButton.click()
    application.wait_until(lambda: not loaded.logic.busy)
    assert loaded.measure.ui.messageLabel.text == "Not a valid safetensors file: bad.safetensors. Download it again."
    assert loaded.parameters.result is None


@pytest.mark.bed
def test_the_logic_segments_from_a_script(application, loaded, weights):
    import slicer

    logic = slicer.util.getModuleLogic("CrossModaSeg")
    segmentation = logic.segment(loaded.parameters.target, weights=str(weights))
    assert segmentation.GetSegmentation().GetSegment("VS").GetName() == "Vestibular schwannoma"
    table = logic.measure(segmentation)
    assert table.GetTable().GetColumnByName("volume [mm3]").GetClassName() == "vtkDoubleArray"
    assert child_processes() == set()


def test_a_missing_schwannoma_is_reported_at_the_button(application, loaded, weights, tmp_path):
    from crossmoda import labels
    from crossmoda import weights as files

    tensors, card = files.read_tensors(weights)
    each = len(tensors["classifier.bias"]) // len(labels.VALUES)
    tensors["classifier.bias"][labels.COCHLEA * each : (labels.COCHLEA + 1) * each] = 100.0  # sees nothing but cochlea
    loaded.parameters.weights = str(files.save(tmp_path / "cochlea.safetensors", tensors, card))
    loaded.update()
    loaded.measure.ui.applyButton.click()
    application.wait_until(lambda: not loaded.logic.busy)
    assert loaded.measure.ui.messageLabel.text.endswith(" No schwannoma was found.")


def test_all_checked_targets_of_a_folder_are_measured_into_one_table(
    application, panel, sample_folder, weights, tmp_path, monkeypatch
):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    panel.parameters.weights = str(weights)
    panel.parameters.datasetFolder = str(sample_folder)
    panel.update()
    button = panel.cases.ui.segmentAllButton
    assert not button.enabled and button.toolTip == "Check T2 scans of the scene or of a folder."
    panel.cases.ui.openButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    button.click()
    assert panel.cases.ui.cancelButton.enabled
    application.wait_until(lambda: not panel.logic.busy)
    assert "1 of 1 segmented and measured" in panel.cases.ui.messageLabel.text, panel.cases.ui.messageLabel.text
    header, *rows = (tmp_path / "measures.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("scan,structure,side,volume [mm3]")
    assert {row.split(",")[0] for row in rows} == {"crossmoda_4"}


def test_checked_scans_of_the_scene_are_measured_and_an_unchecked_one_is_not(
    application, panel, add_volume, weights, tmp_path, monkeypatch
):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    panel.parameters.weights = str(weights)
    for name in ("first/scan", "unchecked", "third"):
        panel.logic.addCase(add_volume(name))
    panel.parameters.excluded = "unchecked hrT2"
    panel.update()
    button, temporary = panel.cases.ui.segmentAllButton, set(Path(application.temporaryPath).glob("CrossModa-*"))
    button.click()
    application.wait_until(lambda: panel.logic.queue.tasks[1].state == "running")
    panel.cases.ui.cancelButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    assert panel.cases.ui.messageLabel.text == "Cancelled."
    assert set(Path(application.temporaryPath).glob("CrossModa-*")) == temporary
    panel.update()
    button.click()
    application.wait_until(lambda: not panel.logic.busy)
    assert "2 of 2 segmented and measured" in panel.cases.ui.messageLabel.text, panel.cases.ui.messageLabel.text
    _header, *rows = (tmp_path / "measures.csv").read_text(encoding="utf-8").splitlines()
    assert {row.split(",")[0] for row in rows} == {"first_scan", "third"}
    assert set(Path(application.temporaryPath).glob("CrossModa-*")) == temporary


@pytest.mark.bed
@pytest.mark.parametrize("category", ["CrossModa", "General"])
def test_sample_data_opens_the_panel_and_starts_the_simulation(application, panel, category):
    import SampleData

    (sample,) = SampleData.SampleDataLogic.sampleDataSourcesByCategory(category)
    sample.customDownloader(sample)
    assert panel.logic.busy
    assert panel.cases.ui.cancelButton.enabled
    panel.cases.ui.cancelButton.click()
    application.wait_until(lambda: not child_processes(), seconds=1.0)
    assert panel.cases.ui.messageLabel.text == "Cancelled."


def test_a_dicom_folder_of_a_data_set_is_loaded_where_it_lies(application, panel, tmp_path):
    import slicer
    from CrossModaSegLib.scene import nodes

    from crossmoda.volume import Volume

    array = np.random.default_rng(0).integers(0, 500, (6, 16, 20)).astype(np.int16)
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((0.5, 0.6, 1.5))
    volume.SetOrigin((10.0, -20.0, 30.0))
    write_dicom_series(tmp_path / "patient-1" / "t2_ci3d", volume, "t2_ci3d_tra")
    panel.parameters.datasetFolder = str(tmp_path)
    panel.update()
    panel.cases.ui.openButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    panel.update()
    assert [row.modality for row in panel.cases.rows] == ["hrT2"], panel.cases.ui.messageLabel.text
    panel.cases.ui.loadButton.click()
    application.wait_until(lambda: not panel.logic.busy)
    node = panel.parameters.target
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array)
    assert nodes.grid_of(node).same_as(Volume.from_sitk(volume).grid)


def test_the_processor_of_a_run_and_a_missing_gpu_are_reported(application, loaded, weights):
    import torch
    from CrossModaSegLib.scene import nodes

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    loaded.parameters.weights = str(weights)
    for device in ("cuda", "auto"):
        loaded.parameters.device = device
        loaded.update()
        loaded.measure.ui.applyButton.click()
        application.wait_until(lambda: not loaded.logic.busy)
        message = loaded.measure.ui.messageLabel.text
        if device == "cuda":
            assert message == "No CUDA device is available: 'cuda'. Choose device 'auto' or 'cpu'."
            assert loaded.parameters.result is None
    assert " On cpu (" in message
    record = nodes.provenance(loaded.parameters.result)
    assert record["device"].startswith("cpu (")
    assert record["parameters"]["device"] == "auto"


def test_hiding_the_target_while_it_is_segmented_changes_nothing(application, loaded, weights):
    from CrossModaSegLib.scene import nodes

    target = loaded.parameters.target
    loaded.parameters.weights = str(weights)
    loaded.update()
    loaded.measure.ui.applyButton.click()
    target.SetHideFromEditors(True)
    loaded.parameters.target = None  # what a selector does when its node is gone from it
    application.wait_until(lambda: not loaded.logic.busy)
    assert "done in" in loaded.measure.ui.messageLabel.text, loaded.measure.ui.messageLabel.text
    assert loaded.parameters.result.GetNodeReference(nodes.TARGET).GetID() == target.GetID()
    loaded.update()
    assert "Select a scan" in loaded.measure.ui.applyButton.toolTip


@pytest.mark.bed
def test_the_panel_stays_usable_after_its_temporary_folder_was_unwritable(application, loaded, tmp_path, monkeypatch):
    from CrossModaSegLib.scene import nodes

    atlas = loaded.cases.rows[0]
    result = nodes.make_segmentation(atlas.label, loaded.parameters.target, "result", "prediction")
    loaded.parameters.result = result
    loaded.update()
    (tmp_path / "file").touch()
    with monkeypatch.context() as patched:
        patched.setattr(application, "temporaryPath", str(tmp_path / "file"))
        loaded.result.ui.measureButton.click()
        application.wait_until(lambda: not loaded.logic.busy)
    assert "folder for temporary files" in loaded.result.ui.messageLabel.text
    loaded.update()
    loaded.result.ui.measureButton.click()
    application.wait_until(lambda: not loaded.logic.busy)
    assert loaded.result.ui.messageLabel.text == ""
    assert child_processes() == set()
