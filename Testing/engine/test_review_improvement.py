"""From corrections to a better model: what is learned from, what is held out, what is compared and reported."""

import csv
import dataclasses
import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from phantoms import CROP_GRID, crop

torch = pytest.importorskip("torch")

from crossmoda import dataset, locks, output, preprocessing, training, volume, weights  # noqa: E402
from crossmoda.cli.framework import crossmoda_command  # noqa: E402
from crossmoda.dataset import corrections  # noqa: E402
from crossmoda.errors import Cancelled, InputError  # noqa: E402
from crossmoda.review import cohort_report, improvement, models  # noqa: E402
from crossmoda.review.improvement import held_out, improve  # noqa: E402
from crossmoda.volume import Volume  # noqa: E402

pytestmark = pytest.mark.slow

WHOLE = preprocessing.Preparation(in_plane_spacing=0, region="whole")
QUICK = improvement.ImprovementSettings(seconds=0, epochs=1, device="cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A data set with two sources and five targets, noisy labels, and a small model that is in use."""
    folder = tmp_path_factory.mktemp("project")
    for number in range(2):
        image, label = crop(number)
        volume.write(Volume(image, CROP_GRID), folder / "data" / f"s{number}_ceT1.nii.gz")
        volume.write(Volume(label, CROP_GRID), folder / "data" / f"s{number}_label.nii.gz")
    for number in range(5):
        image, label = crop(10 + number)
        volume.write(Volume(image, CROP_GRID), folder / "data" / f"t{number}_hrT2.nii.gz")
        place = folder / "results" / f"t{number}"
        volume.write(Volume(np.roll(label, 2, axis=2), CROP_GRID), place / "noisy_label.nii.gz")
        volume.write(Volume(np.full(CROP_GRID.shape, 0.75, np.float32), CROP_GRID), place / "confidence.nii.gz")
    small = dataclasses.replace(training.ROUTINES["default"], crop=(16, 32, 32), visits=2, batch=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.ROUTINES, "default", small)
        settings = training.Settings(field="scan", width=0.25, epochs=1, device="cpu")
        first = training.train(
            dataset.open_dataset(folder / "data").sources, folder / "first", settings, preparation=WHOLE
        )
        models.add(folder / "models", first, "small")
        models.switch(folder / "models", "small")
        for number in (0, 1, 2):
            case = next(case for case in dataset.open_dataset(folder / "data").targets if case.id == f"t{number}")
            noisy = folder / "results" / case.id / "noisy_label.nii.gz"
            truth = Volume(crop(10 + number)[1], CROP_GRID)
            corrections.save(case, truth, folder / "data", "corrected", 60 * (number + 1), noisy, "R. Viewer")
        corrections.mark(folder / "data", "t3", "needs expert", 20)
        yield folder


@pytest.fixture(scope="module")
def improved(project):
    return improve(project / "data", project / "results", project / "models", QUICK)


# What is learned from


def test_corrected_cases_count_fully_and_their_noisy_label_is_left_out(project):
    targets, decided = dataset.open_dataset(project / "data").targets, corrections.all_corrections(project / "data")
    corrected = training.corrected_cases(targets, decided)
    noisy = training.noisy_cases(targets, project / "results", decided)
    assert [case.id for case in corrected] == ["t0", "t1", "t2"]
    assert all(case.confidence is None for case in corrected)
    assert all("corrections" in case.label.parts for case in corrected)
    assert [case.id for case in noisy] == ["t3", "t4"]
    assert all(case.confidence is not None for case in noisy)


def test_a_label_accepted_as_it_is_counts_fully_whatever_its_confidence(project, tmp_path):
    decided = {"t4": corrections.Correction("t4", "accepted", 0.0, None, {})}
    found = training.noisy_cases(dataset.open_dataset(project / "data").targets, project / "results", decided)
    confidences = {case.id: case.confidence for case in found}
    assert confidences["t4"] is None and confidences["t0"] is not None


def test_training_on_a_data_set_learns_from_its_corrections(project, monkeypatch):
    given = {}
    monkeypatch.setattr(
        sys.modules[training.train.__module__], "train", lambda cases, *rest, **more: given.update(cases=cases)
    )
    training.train_folder(project / "data", project / "unused", noisy=project / "results")
    assert [(case.id, case.confidence is None) for case in given["cases"]] == [
        *(("s0", True), ("s1", True)),
        *(("t0", True), ("t1", True), ("t2", True)),
        *(("t3", False), ("t4", False)),
    ]
    training.train_folder(project / "data", project / "unused")
    assert [case.id for case in given["cases"]] == ["s0", "s1", "t0", "t1", "t2"]


def test_when_every_label_is_corrected_no_noisy_one_is_missed(project):
    targets = [case for case in dataset.open_dataset(project / "data").targets if case.id in ("t0", "t1")]
    assert training.noisy_cases(targets, project / "results", corrections.all_corrections(project / "data")) == []
    with pytest.raises(InputError, match="No noisy label"):
        training.noisy_cases(targets, project / "nowhere")


# What is held out


def test_who_is_held_out_depends_on_the_id_alone_and_stays():
    ids = [f"crossmoda_{number}" for number in range(100)]
    chosen = held_out(ids, 0.2)
    assert chosen == held_out(ids[::-1], 0.2)
    assert 8 <= len(chosen) <= 35
    for count in (30, 60):
        fewer = held_out(ids[:count], 0.2)
        assert set(fewer) == set(chosen) & set(ids[:count])


def test_one_case_is_held_out_and_one_is_left_even_of_two():
    for pair in (["a", "b"], ["x1", "x2"], ["p", "q"]):
        assert len(held_out(pair, 0.2)) == 1
        assert len(held_out(pair, 0.2, earlier=pair)) == 1


def test_a_case_once_held_out_is_held_out_again():
    ids = [f"crossmoda_{number}" for number in range(10)]
    assert "crossmoda_3" in held_out(ids, 0.05, earlier=["crossmoda_3"])


# Improving


def test_the_new_model_is_registered_beside_the_old_one_which_stays_in_use(project, improved):
    assert improved.old.name == "small" and improved.new.name == "model-1"
    assert [model.name for model in models.models(project / "models")] == ["bundled", "small", "model-1"]
    assert models.current(project / "models").name == "small"
    assert {entry.name for entry in (project / "models").iterdir() if entry.name.startswith(".")} <= {locks.LOCK}


def test_the_card_of_the_new_model_says_what_it_learned_from_and_what_it_did_not(improved):
    card = improved.new.card
    assert card["learned_from"] == {"sources": 2, "corrected": 2, "noisy": 2, "initial": "small"}
    assert len(card["held_out"]) == 1 and card["held_out"][0] in ("t0", "t1", "t2")
    assert set(card["corrections"]) == {"t0", "t1", "t2"}
    assert weights.load(improved.new.weights).preparation == WHOLE


def test_neither_correction_nor_noisy_label_of_a_held_out_case_is_learned_from(project, monkeypatch):
    given = {}

    def train(cases, *rest, **more):
        given["cases"] = cases
        raise Cancelled

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(Cancelled):
        improve(project / "data", project / "results", project / "models", QUICK)
    names = [case.id for case in given["cases"]]
    (kept,) = {"t0", "t1", "t2"} - set(names)
    assert kept == held_out(["t0", "t1", "t2"], 0.2)[0]
    assert sorted(names) == sorted({"s0", "s1", "t0", "t1", "t2", "t3", "t4"} - {kept})


def test_old_and_new_model_are_compared_on_the_held_out_correction(project, improved):
    (name,) = improved.before
    assert set(improved.before[name]) == set(improved.after[name]) == {"VS", "cochlea"}
    from crossmoda import inference
    from crossmoda.evaluation import dice_per_structure

    case = next(case for case in dataset.open_dataset(project / "data").targets if case.id == name)
    found = inference.predict(case.read_image(), improved.new.weights, inference.Settings(device="cpu"))
    assert improved.after[name] == pytest.approx(dice_per_structure(found.label_map.array, case.read_label().array))
    assert improved.gain == pytest.approx(
        improvement.mean_dice(improved.after) - improvement.mean_dice(improved.before)
    )
    kept = json.loads((improved.new.weights.parent / "comparison.json").read_text("utf-8"))
    assert kept["after"] == improved.after and kept["old"] == "small"


def test_there_are_pictures_before_and_after(improved):
    ((before, after),) = improved.pictures.values()
    for file in (before, after):
        assert file.read_bytes().startswith(b"\x89PNG") and file.parent.parent == improved.new.weights.parent


def test_fewer_than_two_corrections_are_too_few(project, tmp_path):
    volume.write(Volume(crop(1)[0], CROP_GRID), tmp_path / "t_hrT2.nii.gz")
    with pytest.raises(InputError, match="at least 2"):
        improve(tmp_path, None, tmp_path / "models", QUICK)


def models_of(project, tmp_path):
    """Return a folder of models of its own, in which the small one of the project is in use."""
    folder = tmp_path / "models"
    models.add(folder, models.current(project / "models").weights, "small")
    models.switch(folder, "small")
    return folder


def cancel_training_after(done: float):
    """Return a progress that cancels the work when its training has come farther."""

    def stop(fraction, message):
        if message.startswith("training") and fraction > done:
            raise Cancelled

    return stop


def test_a_cancelled_improvement_goes_on_and_leaves_no_model(project, tmp_path):
    folder, stop = models_of(project, tmp_path), cancel_training_after(0.3)
    longer = dataclasses.replace(QUICK, epochs=2)
    with pytest.raises(Cancelled):
        improve(project / "data", None, folder, longer, stop)
    assert [model.name for model in models.models(folder)] == ["bundled", "small"]
    (left,) = folder.glob(".training-*")
    assert (left / training.CHECKPOINT).is_file()
    improve(project / "data", None, folder, longer)
    assert [model.name for model in models.models(folder)] == ["bundled", "small", "model-1"]
    assert not list(folder.glob(".training-*"))


# Models


def test_without_a_choice_the_bundled_weights_are_used(tmp_path):
    assert models.current(tmp_path / "none").weights == weights.bundled()
    assert [model.name for model in models.models(tmp_path / "none")] == ["bundled"]


def test_models_are_switched_and_switched_back(project, improved):
    folder = project / "models"
    try:
        assert models.switch(folder, "model-1").weights == improved.new.weights
        assert [model.name for model in models.models(folder) if model.is_current] == ["model-1"]
        assert models.switch(folder, "bundled").weights == weights.bundled()
    finally:
        assert models.switch(folder, "small").is_current


def test_a_model_that_is_not_there_cannot_be_used(project):
    with pytest.raises(InputError, match="bundled, small"):
        models.switch(project / "models", "best")


def test_a_deleted_current_model_is_replaced_by_the_bundled_weights(tmp_path):
    output.write_json(tmp_path / "current.json", {"current": "gone"})
    assert models.current(tmp_path).name == "bundled"


def test_a_damaged_card_beside_the_weights_of_a_model_hinders_nothing(project, tmp_path):
    """The card that counts is in the file of the weights; the one beside it is for people."""
    folder, stop = models_of(project, tmp_path), cancel_training_after(0)
    for card in ("{", "null", '{"learned_from": 1, "metrics": [], "held_out": 3}', "[" * 99999):
        (folder / "small" / "weights.json").write_text(card)
        assert models.current(folder).card == {}
        with pytest.raises(Cancelled):
            improve(project / "data", None, folder, dataclasses.replace(QUICK, epochs=2), stop)


def test_weights_that_cannot_be_used_do_not_become_a_model(project, tmp_path):
    tensors, card = weights.read_tensors(models.current(project / "models").weights)
    weights.write_tensors(tmp_path / "odd.safetensors", {"odd": next(iter(tensors.values()))}, card)
    with pytest.raises(InputError, match="do not match their model card"):
        models.add(tmp_path / "models", tmp_path / "odd.safetensors", "odd")
    assert not (tmp_path / "models").exists()


def test_a_name_is_taken_once_and_must_be_a_folders(project):
    file = models.current(project / "models").weights
    for name, words in (("small", "exists"), ("bundled", "exists"), ("../x", "Invalid model name")):
        with pytest.raises(InputError, match=words):
            models.add(project / "models", file, name)


# The report of the cohort


@pytest.fixture(scope="module")
def reported(project, improved):
    return cohort_report.write_report(project / "data", project / "results", project / "models", project / "report")


def test_the_table_has_every_target_with_agreement_correction_volumes_and_time(reported):
    rows = {row["case"]: row for row in csv.DictReader(reported["table"].read_text("utf-8").splitlines())}
    assert set(rows) == {f"t{number}" for number in range(5)}
    assert rows["t1"]["status"] == "corrected" and float(rows["t1"]["seconds"]) == 120
    assert rows["t1"]["reviewer"] == "R. Viewer"
    truth = crop(11)[1]
    expected = 2 * ((truth == 1) & (np.roll(truth, 2, axis=2) == 1)).sum() / ((truth == 1).sum() * 2)
    assert float(rows["t1"]["dice_label_correction_VS"]) == pytest.approx(expected, abs=1e-3)
    assert float(rows["t1"]["volume_after_mm3_VS"]) == pytest.approx((truth == 1).sum() * 1.5, abs=0.01)
    assert rows["t4"]["status"] == "open" and rows["t4"]["volume_after_mm3_VS"] == ""
    assert rows["t3"]["status"] == "needs expert"


def test_the_page_lists_corrections_reasons_and_models(reported):
    html = reported["report"].read_text("utf-8")
    for words in (
        "5 targets",
        "3 corrected",
        "6 minutes of review",
        "t4",
        "small (current)",
        "model-1",
    ):
        assert words in html, words
    assert "crossmoda predict" in html  # what is missing is said
    assert "data:image/png;base64," in html and "http" not in html.split("</style>")[1]


# The command


def run(*arguments):
    return CliRunner().invoke(crossmoda_command, ["--quiet", *map(str, arguments)], catch_exceptions=False)


def test_the_command_lists_cases_with_reasons_and_writes_all_numbers(project, tmp_path):
    found = run(
        "review-list", "--data", project / "data", "--results", project / "results", "--csv", tmp_path / "q.csv"
    )
    assert found.exit_code == 0
    lines = [line for line in found.output.splitlines() if line.startswith("t")]
    assert lines[0].startswith("t4") and "open" in lines[0] and len(lines) == 5
    rows = list(csv.DictReader((tmp_path / "q.csv").open(encoding="utf-8")))
    assert rows[0]["case"] == "t4" and float(rows[0]["pieces_VS"]) == 1


def test_the_command_lists_and_switches_models(project, improved):
    folder = project / "models"
    assert run("models", folder, "--switch", "model-1").output.splitlines()[2].startswith("* model-1")
    back = run("models", folder, "--switch", "small").output
    assert "* small" in back and "from small, corrections: 2" in back


def test_the_command_improves_and_reports(project, tmp_path):
    folder = tmp_path / "models"
    run("models", folder, "--add", models.current(project / "models").weights, "--name", "small", "--switch", "small")
    where = ("--data", project / "data", "--models", folder)
    found = run("improve", *where, "--seconds", 0, "--epochs", 1, "--device", "cpu")
    assert "model-1 continues small. Training cases: 2 sources, 2 corrected, 0 noisy" in found.output
    assert "--switch model-1" in found.output and "before" in found.output
    found = run("review-report", *where, "--results", project / "results", "--output", tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file() and "cohort.csv" in found.output
