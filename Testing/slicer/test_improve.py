"""A better model from corrections: trained in a process of its own, compared, used only on the user's word."""

from pathlib import Path

import pytest
from testbed.processes import child_processes

pytestmark = pytest.mark.slow


@pytest.fixture
def corrected(application, reviewed, weights, tmp_path):
    """The panel with all three cases accepted, and a folder of models in which an untrained one is in use."""
    from crossmoda.dataset import corrections
    from crossmoda.review import models

    parameters, review = reviewed.parameters, reviewed.review
    for item in review.items:
        corrections.mark(parameters.datasetFolder, item["id"], "accepted", results=parameters.resultsFolder)
    models.add(tmp_path / "models", weights, "untrained")
    models.switch(tmp_path / "models", "untrained")
    parameters.modelsFolder = str(tmp_path / "models")
    parameters.improveMinutes = 0.05
    review.ui.listButton.click()
    application.wait_until(lambda: not reviewed.logic.busy)
    reviewed.update()
    return reviewed


def names(panel):
    return [model.name for model in panel.improve.models]


def current(panel):
    return [model.name for model in panel.improve.models if model.is_current]


def test_a_model_is_improved_compared_used_and_switched_back(application, corrected, scene):
    improve, parameters = corrected.improve, corrected.parameters
    assert "3 corrected or accepted cases of 3" in improve.ui.correctionsLabel.text
    improve.ui.improveButton.click()
    assert improve.running and not corrected.logic.busy, "the review goes on while the model learns"
    application.wait_until(lambda: not improve.running)
    corrected.update()
    assert names(corrected) == ["bundled", "untrained", "model-1"], improve.ui.messageLabel.text
    assert current(corrected) == ["untrained"] and parameters.weights == "", "nothing is switched unasked"
    text = improve.ui.comparisonLabel.text
    assert "model-1" in text and "(untrained) on 1 corrected case not used for training" in text
    assert improve.ui.comparisonTable.rowCount == 2
    before, after, change = (float(improve.ui.comparisonTable.item(0, column).text()) for column in (2, 3, 4))
    assert change == pytest.approx(after - before, abs=2e-3)

    assert improve.chosen.name == "model-1"
    assert "Fine-tuned from untrained" in improve.ui.cardLabel.text
    improve.ui.switchButton.click()
    assert current(corrected) == ["model-1"]
    assert parameters.weights == str(improve.chosen.weights) == corrected.measure.ui.weightsEdit.currentPath
    assert improve.ui.switchButton.toolTip == "This model is in use."
    improve.ui.modelsTable.selectRow(0)
    improve.ui.switchButton.click()
    assert current(corrected) == ["bundled"] and parameters.weights == ""
    assert {path.name for path in Path(parameters.modelsFolder).glob("*/weights.safetensors")} == {
        "weights.safetensors"
    }


def test_a_training_that_is_cancelled_leaves_the_models_as_they_were(application, corrected):
    improve = corrected.improve
    corrected.parameters.improveMinutes = 60
    improve.ui.improveButton.click()
    corrected.update()
    assert not improve.ui.improveButton.enabled
    application.wait_until(lambda: improve._work.progress > 0)
    improve.ui.cancelButton.click()
    corrected.update()
    assert not improve.running
    assert names(corrected) == ["bundled", "untrained"]
    assert "The model in use stays" in improve.ui.messageLabel.text
    assert not improve.is_error, "the user wanted it"


@pytest.mark.bed
def test_closing_the_scene_stops_the_training_and_says_that_it_can_go_on(application, corrected, scene):
    improve = corrected.improve
    corrected.parameters.improveMinutes = 60
    improve.ui.improveButton.click()
    application.wait_until(lambda: improve._work.progress > 0)
    scene.Clear(False)
    application.wait_until(lambda: not child_processes())
    corrected.update()
    assert not improve.running
    assert "the next start continues this training" in improve.ui.messageLabel.text


def test_too_few_corrections_are_reported(application, reviewed, tmp_path):
    reviewed.parameters.modelsFolder = str(tmp_path / "models")
    reviewed.update()
    reviewed.improve.ui.improveButton.click()
    application.wait_until(lambda: not reviewed.improve.running)
    assert "Too few corrected or accepted labels: 0 in" in reviewed.improve.ui.messageLabel.text


def test_without_folders_the_buttons_say_what_is_missing(panel):
    panel.update()
    assert "data set" in panel.improve.ui.improveButton.toolTip
    panel.parameters.datasetFolder = "/data"
    panel.update()
    assert panel.improve.ui.improveButton.toolTip == "Choose a folder for the models."
    assert "Choose both folders" in panel.improve.ui.reportButton.toolTip


@pytest.mark.parametrize(("form", "name"), [("nnunet", "Dataset501_CrossModa"), ("bids", "bids")])
def test_the_labels_are_exported_for_other_trainers(application, corrected, tmp_path, monkeypatch, form, name):
    import qt

    target = tmp_path / "out"
    target.mkdir()
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(target))
    for expected in ("3 labeled scans written", "The folder is not empty"):
        getattr(corrected.improve.ui, f"{form}Button").click()
        application.wait_until(lambda: not corrected.logic.busy)
        corrected.update()
        assert expected in corrected.improve.ui.messageLabel.text
    pattern = "labelsTr/*.nii.gz" if form == "nnunet" else "derivatives/**/*dseg.nii.gz"
    assert len(list((target / name).glob(pattern))) == 3


def test_the_report_of_the_cohort_is_written_and_linked(application, corrected):
    corrected.improve.ui.reportButton.click()
    application.wait_until(lambda: not corrected.logic.busy)
    folder = Path(corrected.parameters.resultsFolder) / "review"
    assert folder.joinpath("report.html").as_uri() in corrected.improve.ui.messageLabel.text
    table = folder.joinpath("cohort.csv").read_text("utf-8").splitlines()
    assert len(table) == 4 and "accepted" in table[1]
