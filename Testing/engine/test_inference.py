"""Inference: from weights and a scan to segmentation, probabilities and uncertainty on the scan's own grid."""

import dataclasses
import json

import numpy as np
import pytest

from phantoms import ball

torch = pytest.importorskip("torch")

from crossmoda import inference, labels, locks, network, preprocessing, provenance, volume, weights  # noqa: E402
from crossmoda.anatomy import plausibility  # noqa: E402
from crossmoda.dataset import Case, results  # noqa: E402
from crossmoda.errors import Cancelled, InputError  # noqa: E402
from crossmoda.inference import (  # noqa: E402
    Settings,
    predict,
    predict_all,
    predict_files,
    probabilities,
    scan_files,
)
from crossmoda.inference.probabilities import predict_probabilities  # noqa: E402

CPU = Settings(device="cpu")
NETWORK = network.Settings(width=0.125)
CROP = preprocessing.Preparation(crop_x=40, crop_y=36, crop_z=12)
GRID = volume.Grid((50, 44, 14), (0.8, 0.8, 2.0), (5.0, -7.0, 3.0), (0, -1, 0, 1, 0, 0, 0, 0, 1))


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    model = network.build(NETWORK)
    with torch.no_grad():  # decisive enough that labels occur
        model.classifier.weight.mul_(8)
        model.classifier.bias.zero_()
    return weights.save(path, model.state_dict(), weights.new_card(NETWORK, CROP, license="none"))


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    _, y, x = np.indices(GRID.shape)
    head = (y - 22) ** 2 / 400 + (x - 25) ** 2 / 500 < 1
    return volume.Volume((head * 100 + rng.normal(0, 15, GRID.shape)).astype(np.float32), GRID)


def test_everything_lies_on_the_grid_of_the_scan(weight_file, scan):
    found = predict(scan, weight_file, CPU)
    for result in (found.label_map, found.uncertainty, found.probability(labels.STRUCTURES[0])):
        assert result.grid == scan.grid and result.array.shape == GRID.shape
    assert found.label_map.array.dtype == np.uint8
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    assert found.provenance["network"] == {"preset": "default", "field": "scan", "inputs": "mind", "width": 0.125}
    assert set(found.provenance["volumes_mm3"]) == {"VS", "cochlea"}


def test_without_tidying_the_label_is_the_most_probable_one(weight_file, scan):
    found = predict(scan, weight_file, Settings(device="cpu", keep_all=True))
    assert np.array_equal(found.label_map.array, found.probabilities.argmax(axis=0))
    assert len(np.unique(found.label_map.array)) > 1


def test_uncertainty_is_the_normalized_entropy():
    probabilities = np.array([[1.0, 1 / 3, 0.5], [0.0, 1 / 3, 0.5], [0.0, 1 / 3, 0.0]])
    np.testing.assert_allclose(inference.entropy(probabilities), [0, 1, np.log(2) / np.log(3)], atol=1e-6)


def test_flips_make_the_prediction_indifferent_to_mirroring(weight_file, scan):
    """The crop of a scan that is a whole number of voxels is mirrored exactly with it."""
    model = weights.load(weight_file)
    rng = np.random.default_rng(2)
    image = rng.normal(size=(12, 24, 32)).astype(np.float32)
    flips = Settings(device="cpu", flips=True)
    one, _ = predict_probabilities(model.network, image, flips, "cpu", None)
    other, _ = predict_probabilities(model.network, image[..., ::-1].copy(), flips, "cpu", None)
    np.testing.assert_allclose(other[..., ::-1], one, atol=1e-5)
    plain, _ = predict_probabilities(model.network, image, CPU, "cpu", None)
    assert np.abs(plain - one).max() > 1e-3


def test_tiles_with_margins_as_wide_as_the_field_equal_the_whole(weight_file, monkeypatch):
    model = weights.load(weight_file)
    image = np.random.default_rng(3).normal(size=(16, 32, 48)).astype(np.float32)
    monkeypatch.setattr(probabilities, "TILE", (8, 16, 24))
    monkeypatch.setattr(probabilities, "MARGIN", (56, 216, 216))
    whole, _ = predict_probabilities(model.network, image, CPU, "cpu", None)
    tiled, _ = predict_probabilities(model.network, image, Settings(device="cpu", tiles=True), "cpu", None)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_memory_that_runs_out_leads_to_tiles_and_the_record_says_so(weight_file, scan, monkeypatch):
    expected = predict(scan, weight_file, Settings(device="cpu", tiles=True))
    run = probabilities._softmax

    def short_of_memory(model, features, tiled):
        if not tiled:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return run(model, features, tiled)

    monkeypatch.setattr(probabilities, "_softmax", short_of_memory)
    messages = []
    found = predict(scan, weight_file, CPU, lambda fraction, message: messages.append(message))
    assert found.provenance["fallbacks"] == ["out of memory: predicted in tiles on the CPU"]
    assert "out of memory: predicted in tiles on the CPU" in messages
    assert np.array_equal(found.label_map.array, expected.label_map.array)


def test_a_gpu_without_memory_for_tiles_is_left_for_the_cpu(weight_file, monkeypatch):
    """The GPU is played by the CPU under its name."""
    model = weights.load(weight_file)
    image = torch.zeros(12, 24, 32)
    image[:, 8:16, 8:20] = 1
    asked, run, move = [], probabilities._softmax, torch.Tensor.to

    def short_of_memory(network_, features, tiled):
        asked.append(tiled)
        if len(asked) < 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return run(network_, features, tiled)

    monkeypatch.setattr(probabilities, "_softmax", short_of_memory)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to: self if to == ("cuda",) else move(self, *to))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *to: self)
    _, notes = predict_probabilities(model.network, image.numpy(), CPU, "cuda", None)
    assert asked == [False, True, True]
    assert notes == ["out of memory: predicted in tiles on the GPU", "out of memory: predicted in tiles on the CPU"]


@pytest.mark.gpu
def test_the_gpu_finds_what_the_cpu_finds(weight_file, scan):
    on_cpu, on_gpu = (predict(scan, weight_file, Settings(device=device)) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu.probabilities, on_cpu.probabilities, atol=0.1)  # bfloat16
    assert on_gpu.provenance["device"].startswith("cuda")


def test_of_several_tumors_the_most_probable_stays_and_of_cochleae_one_on_each_side():
    grid = volume.Grid((100, 60, 20), (1.0, 1.0, 1.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    wanted = np.zeros(grid.shape, np.uint8)
    wanted[ball(grid, (15, 30, 30), 6)] = 1
    wanted[ball(grid, (15, 30, 18), 3)] = 2
    wanted[ball(grid, (17, 33, 82), 2.5)] = 2
    found = wanted.copy()
    found[ball(grid, (15, 30, 70), 4)] = 1  # a ghost on the healthy side
    found[ball(grid, (15, 50, 40), 2.6)] = 2  # too near the first cochlea
    found[ball(grid, (15, 5, 55), 2)] = 2
    found[2, 2, 2] = 2
    probabilities = np.stack([found == value for value in labels.VALUES]).astype(np.float32)
    assert np.array_equal(plausibility.plausible(found, probabilities, grid), wanted)


def test_a_tumor_beside_a_cochlea_is_preferred_to_a_larger_distant_one():
    grid = volume.Grid((100, 60, 20), (1.0, 1.0, 1.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    wanted = np.zeros(grid.shape, np.uint8)
    wanted[ball(grid, (15, 30, 30), 4)] = 1
    wanted[ball(grid, (15, 30, 18), 3)] = 2
    found = wanted.copy()
    found[ball(grid, (15, 50, 50), 8)] = 1
    probabilities = np.stack([found == value for value in labels.VALUES]).astype(np.float32)
    assert np.array_equal(plausibility.plausible(found, probabilities, grid), wanted)
    found[found == 2] = wanted[wanted == 2] = 0
    probabilities = np.stack([found == value for value in labels.VALUES]).astype(np.float32)
    largest = np.zeros_like(found)
    largest[ball(grid, (15, 50, 50), 8)] = 1
    assert np.array_equal(plausibility.plausible(found, probabilities, grid), largest)  # no cochlea to go by


def test_a_hole_in_a_tumor_is_filled_but_a_bay_is_not():
    grid = volume.Grid((20, 20, 10), (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    wanted = np.zeros(grid.shape, np.uint8)
    wanted[2:8, 4:14, 4:14] = labels.VS
    wanted[2:8, 8:10, 11:14] = 0  # open to the side
    found = wanted.copy()
    found[4:6, 6:8, 6:9] = 0
    found[4, 12, 12] = 0
    assert np.array_equal(plausibility.plausible(found, np.full((3, *grid.shape), 0.9, np.float32), grid), wanted)


def test_nothing_found_stays_nothing():
    empty = np.zeros((4, 5, 6), np.uint8)
    grid = volume.Grid((6, 5, 4), (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert not plausibility.plausible(empty, np.zeros((3, 4, 5, 6), np.float32), grid).any()


def test_an_empty_result_says_what_to_check(weight_file, scan):
    model = weights.load(weight_file)
    with torch.no_grad():
        model.network.classifier.bias[: len(model.network.classifier.bias) // 3] = 100.0
    found = predict(scan, model, CPU)
    assert not found.label_map.array.any()
    assert found.provenance["notes"] == [
        "no schwannoma and no cochlea was found: check that the scan shows the inner ears"
    ]
    np.testing.assert_allclose(found.uncertainty.array, 0, atol=1e-4)


def favoring(weight_file, value):
    """The network, sure that every voxel has this label."""
    model = weights.load(weight_file)
    each = len(model.network.classifier.bias) // len(labels.VALUES)
    with torch.no_grad():
        model.network.classifier.bias[value * each : (value + 1) * each] = 100.0
    return model


def test_a_result_without_a_schwannoma_says_so(weight_file, scan):
    found = predict(scan, favoring(weight_file, labels.COCHLEA), Settings(device="cpu", keep_all=True))
    assert found.provenance["notes"] == ["no schwannoma was found"]
    assert found.provenance["mean_probability"] == {"VS": 0.0, "cochlea": pytest.approx(1.0, abs=1e-3)}


def test_the_mean_probability_is_that_within_each_structure(weight_file, scan):
    found = predict(scan, weight_file, CPU)
    for structure in labels.structures_in(found.label_map.array):
        within = found.probability(structure).array[found.label_map.array == structure.value]
        assert found.provenance["mean_probability"][structure.key] == pytest.approx(within.mean(), abs=1e-3)


@pytest.mark.parametrize(("below", "doubtful"), [({}, False), ({"VS": 0.5}, False), ({"VS": 1.1}, True)])
def test_a_schwannoma_less_sure_than_the_model_card_asks_for_is_called_doubtful(weight_file, scan, below, doubtful):
    model = favoring(weight_file, labels.VS)
    model.card[weights.DOUBTFUL] = below
    notes = predict(scan, model, Settings(device="cpu", keep_all=True)).provenance["notes"]
    assert ["typical of false positives" in note for note in notes] == [doubtful]
    assert "no cochlea next to it" in notes[0]  # everything is called tumor here


def test_a_tumor_that_reaches_near_a_cochlea_lies_beside_it():
    grid = volume.Grid((120, 40, 10), (1.0, 1.0, 2.0), (5, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    label_map = np.zeros(grid.shape, np.uint8)
    label_map[4:6, 18:22, 100:104] = labels.COCHLEA
    label_map[4:6, 18:22, 60:80] = labels.VS  # its end is 22 mm from the middle of the cochlea
    assert not plausibility.beside_a_cochlea(label_map, grid)
    label_map[4:6, 18:22, 80:90] = labels.VS
    assert plausibility.beside_a_cochlea(label_map, grid)


def test_files_are_written_with_their_provenance(weight_file, scan, tmp_path):
    volume.write(scan, tmp_path / "scan é.nii.gz")
    predict_files(
        tmp_path / "scan é.nii.gz",
        tmp_path / "out" / "result.nii.gz",
        weight_file,
        CPU,
        probabilities=tmp_path / "out" / "p",
        uncertainty=tmp_path / "out" / "u.nii.gz",
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "p_VS.nii.gz",
        "p_cochlea.nii.gz",
        "result.nii.gz",
        "result.provenance.json",
        "u.nii.gz",
    ]
    assert volume.read_label_map(tmp_path / "out" / "result.nii.gz").grid.same_as(scan.grid)
    record = json.loads((tmp_path / "out" / "result.provenance.json").read_text("utf-8"))
    assert record["inputs"]["image"]["name"] == "scan é.nii.gz" and len(record["inputs"]["weights"]["sha256"]) == 64


def test_cancelling_leaves_nothing_behind(weight_file, scan, tmp_path):
    volume.write(scan, tmp_path / "scan.nii.gz")

    def cancel(fraction, message):
        if fraction >= 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        predict_files(tmp_path / "scan.nii.gz", tmp_path / "out.nii.gz", weight_file, CPU, cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestFilesOfTheUser:
    """Nothing that a user made is replaced by a segmentation."""

    @pytest.fixture
    def scans(self, scan, tmp_path):
        folder = tmp_path / "scans"
        volume.write(scan, folder / "T2.nii.gz")
        volume.write(scan.with_array(scan.array + 1), folder / "T2.nrrd")
        return folder

    @pytest.fixture
    def segment(self, run, weight_file):
        return lambda *arguments: run("segment", *arguments, "--weights", weight_file, "--device", "cpu")

    @pytest.mark.parametrize(
        ("ending", "message"),
        [
            (
                "seg.nrrd",
                "Edited since it was written, or not a result of this version of CrossModa: {}/T2.seg.nrrd. Move",
            ),
            ("nrrd", "The output would replace an input: {}/T2.nrrd. Choose another"),
        ],
    )
    def test_several_scans_replace_neither_a_drawing_nor_a_scan(self, ending, message, scans, segment):
        (scans / "T2.seg.nrrd").write_bytes(b"drawn by hand")
        before = contents(scans)
        code, out, error = segment(scans, "-o", scans, "--format", ending)
        assert (code, out) == (2, "") and message.format(scans) in error and error.count("\n") == 1
        assert contents(scans) == before

    def test_a_second_run_replaces_its_own_results_and_no_corrected_one(self, scans, segment, scan, tmp_path):
        folder = tmp_path / "results"
        assert segment(scans, "-o", folder)[0] == 0
        first = contents(folder)
        record = json.loads((folder / "T2.provenance.json").read_text("utf-8"))
        assert record["outputs"] == {"segmentation": provenance.checksum_of_file(folder / "T2.seg.nrrd")}
        assert segment(scans, "-o", folder, "--keep-all")[0] == 0
        again = contents(folder)
        assert again.keys() == first.keys() and again != first, "its own results are replaced"
        for name in ("scans_T2.seg.nrrd", "measures.csv", "cases.csv"):
            (folder / name).write_bytes(b"corrected")
            before = contents(folder)
            code, out, error = segment(scans, "-o", folder)
            assert (code, out) == (2, "") and str(folder / name) in error and error.count("\n") == 1
            assert contents(folder) == before
            (folder / name).unlink()
        assert segment(scans, "-o", folder)[0] == 0

    def test_a_table_that_is_not_of_this_software_is_kept(self, scans, segment):
        (scans / "cases.csv").write_text("patient,remark", encoding="utf-8")
        before = contents(scans)
        code, _, error = segment(scans, "-o", scans)
        assert code == 2 and "cases.csv" in error and contents(scans) == before

    def test_a_single_scan_replaces_its_own_result_and_no_corrected_one(self, scans, segment):
        target, prefix = scans / "out.nii.gz", scans / "p"
        command = scans / "T2.nii.gz", "-o", target, "--probabilities", prefix
        target.write_bytes(b"drawn by hand")
        before = contents(scans)
        code, _, error = segment(*command)
        assert code == 2 and str(target) in error and contents(scans) == before
        target.unlink()
        assert segment(*command)[0] == 0
        assert segment(*command, "--keep-all")[0] == 0
        for path in (target, scans / "p_VS.nii.gz"):
            written = path.read_bytes()
            path.write_bytes(b"corrected")
            before = contents(scans)
            code, _, error = segment(*command)
            assert code == 2 and str(path) in error and contents(scans) == before
            path.write_bytes(written)

    def test_the_result_of_another_scan_is_not_replaced(self, scans, segment, tmp_path):
        target, folder = scans / "out.nii.gz", tmp_path / "results"
        assert segment(scans / "T2.nii.gz", "-o", target)[0] == 0
        assert segment(scans, "-o", folder)[0] == 0
        (scans / "T2.nii.gz").rename(tmp_path / "first.nii.gz")
        (scans / "T2.nrrd").rename(scans / "T2.nii.gz.nrrd")
        volume.write(volume.read(scans / "T2.nii.gz.nrrd"), scans / "T2.nii.gz")
        before = contents(tmp_path)
        for scan, output in ((scans / "T2.nii.gz", target), (scans, folder)):
            code, _, error = segment(scan, "-o", output)
            assert code == 2 and "The result of another scan, T2.nii.gz, would be replaced" in error
            assert contents(tmp_path) == before

    def test_runs_with_other_formats_and_outputs_do_not_make_a_result_one_of_the_user(self, scans, segment):
        seg, nifti, prefix = scans / "out.seg.nrrd", scans / "out.nii.gz", scans / "p"
        for target, more in (
            (seg, ("--probabilities", prefix)),
            (nifti, ()),
            (seg, ()),
            (nifti, ("--keep-all",)),
            (seg, ("--probabilities", prefix)),
        ):
            code, _, error = segment(scans / "T2.nii.gz", "-o", target, *more)
            assert code == 0, error
        nifti.write_bytes(b"corrected")
        code, _, error = segment(scans / "T2.nii.gz", "-o", nifti)
        assert code == 2 and str(nifti) in error and nifti.read_bytes() == b"corrected"

    @pytest.mark.parametrize("record", ["not JSON", "[]", '{"mine": 1}', '{"crossmoda": "0.1.0", "outputs": [1]}'])
    def test_a_record_that_cannot_be_read_vouches_for_nothing(self, scans, segment, record):
        (scans / "out.provenance.json").write_text(record, encoding="utf-8")
        (scans / "out.nrrd").write_bytes(b"drawn by hand")
        before = contents(scans)
        code, _, error = segment(scans / "T2.nii.gz", "-o", scans / "out.nrrd")
        assert code == 2 and "not a result of this version" in error and contents(scans) == before

    def test_without_a_record_the_files_of_a_program_are_replaced(self, scans, weight_file):
        (scans / "out.nrrd").write_bytes(b"made by Slicer for the result")
        predict_files(scans / "T2.nii.gz", scans / "out.nrrd", weight_file, CPU, keep_record=False)
        assert volume.read_label_map(scans / "out.nrrd").grid.same_as(volume.read(scans / "T2.nii.gz").grid)

    def test_several_scans_print_the_notes_that_one_prints(self, scans, segment, tmp_path, monkeypatch):
        predicted = scan_files.predict_files

        def noted(*arguments):
            result = predicted(*arguments)
            return dataclasses.replace(result, measures=dataclasses.replace(result.measures, notes=("Cut off.",)))

        monkeypatch.setattr(scan_files, "predict_files", noted)
        code, out, _ = segment(scans, "-o", tmp_path / "results")
        assert code == 0 and "T2: Cut off." in out and "scans_T2: Cut off." in out


class TestSeveralTargets:
    @pytest.fixture
    def targets(self, scan, tmp_path):
        volume.write(scan, tmp_path / "data" / "b.nii.gz")
        volume.write(scan.with_array(np.full(GRID.shape, 5, np.float32)), tmp_path / "data" / "a.nii.gz")
        return [Case(name, "hrT2", tmp_path / "data" / f"{name}.nii.gz") for name in ("a", "b", "missing")]

    def test_what_fails_does_not_stop_the_rest(self, targets, weight_file, scan, tmp_path):
        done, failed = predict_all(targets, tmp_path / "out", weight_file, CPU)
        assert list(done) == ["b"] and "same value everywhere" in failed["a"] and "File not found" in failed["missing"]
        folder = tmp_path / "out" / "b" / "prediction"
        assert done["b"].folder == folder
        written = {path.name for path in folder.iterdir()} - {locks.LOCK}
        assert written == {*results.PREDICTION_FILES, "finished.json"}
        single = predict(scan, weight_file, CPU)
        written = volume.read_label_map(folder / results.LABEL_MAP)
        assert written.grid.same_as(scan.grid) and np.array_equal(written.array, single.label_map.array)
        assert done["b"].volumes_mm3 == single.provenance["volumes_mm3"]
        record = json.loads((folder / results.PROVENANCE).read_text("utf-8"))
        assert {item["name"] for item in record["inputs"].values()} == {"b.nii.gz", weight_file.name}

    def test_finished_predictions_are_taken_as_they_are(self, targets, weight_file, tmp_path, monkeypatch):
        first, _ = predict_all(targets[1:2], tmp_path / "out", weight_file, CPU)
        assert not first["b"].reused
        monkeypatch.setattr("crossmoda.inference.prediction_files.predict", None)
        again, _ = predict_all(targets[1:2], tmp_path / "out", weight_file, CPU)
        assert again["b"].reused and again["b"].volumes_mm3 == first["b"].volumes_mm3

    @pytest.mark.parametrize("changed", ["settings", "weights", "image", "output"])
    def test_what_it_depends_on_makes_it_anew(self, changed, targets, weight_file, scan, tmp_path):
        first, _ = predict_all(targets[1:2], tmp_path / "out", weight_file, CPU)
        settings, path = CPU, weight_file
        if changed == "settings":
            settings = Settings(device="cpu", keep_all=True)
        elif changed == "weights":
            model = weights.load(weight_file)
            path = weights.save(tmp_path / "other.safetensors", model.network.state_dict(), model.card, half=True)
        elif changed == "image":
            volume.write(scan.with_array(scan.array + 1), targets[1].image)
        else:
            (first["b"].folder / results.UNCERTAINTY).unlink()
        again, _ = predict_all(targets[1:2], tmp_path / "out", path, settings)
        assert not again["b"].reused and (again["b"].folder / results.UNCERTAINTY).is_file()

    @pytest.mark.parametrize("name", [results.SEGMENTATION, results.LABEL_MAP])
    @pytest.mark.parametrize("settings", [CPU, Settings(device="cpu", keep_all=True)], ids=["same", "other"])
    def test_an_edited_result_is_never_removed(self, name, settings, targets, weight_file, tmp_path):
        first, _ = predict_all(targets[1:2], tmp_path / "out", weight_file, CPU)
        file = first["b"].folder / name
        file.write_bytes(b"edited")
        before = contents(tmp_path / "out")
        done, failed = predict_all(targets[1:2], tmp_path / "out", weight_file, settings)
        assert not done and f"Edited or damaged after it was written: {file}. Move it" in failed["b"]
        assert contents(tmp_path / "out") == before
        file.rename(tmp_path / "edited")
        again, _ = predict_all(targets[1:2], tmp_path / "out", weight_file, settings)
        assert not again["b"].reused and file.is_file() and (tmp_path / "edited").read_bytes() == b"edited"

    def test_cancelling_keeps_what_is_finished(self, targets, weight_file, scan, tmp_path):
        volume.write(scan.with_array(scan.array + 1), tmp_path / "data" / "c.nii.gz")
        cases = [targets[1], Case("c", "hrT2", tmp_path / "data" / "c.nii.gz")]

        def cancel(fraction, message):
            if message == "c: segmenting":
                raise Cancelled

        with pytest.raises(Cancelled):
            predict_all(cases, tmp_path / "out", weight_file, CPU, cancel)
        assert not (tmp_path / "out" / "c" / "prediction" / results.LABEL_MAP).exists()
        done, failed = predict_all(cases, tmp_path / "out", weight_file, CPU)
        assert not failed and [done["b"].reused, done["c"].reused] == [True, False]

    def test_the_command_segments_every_target_of_a_data_set(self, scan, weight_file, tmp_path, capsys):
        from crossmoda import cli

        for name in ("crossmoda_1_hrT2", "crossmoda_2_ceT1"):
            volume.write(scan, tmp_path / "data" / f"{name}.nii.gz")
        command = ["--quiet", "predict", "--targets", tmp_path / "data", "--output", tmp_path / "out"]
        command = [str(word) for word in (*command, "--weights", weight_file, "--device", "cpu")]
        with pytest.raises(SystemExit) as ending:
            cli.main(command)
        assert not ending.value.code
        folder = tmp_path / "out" / "crossmoda_1" / "prediction"
        assert (folder / results.SEGMENTATION).is_file() and str(folder) in capsys.readouterr().out
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["crossmoda_1"]
        for wrong in ([str(tmp_path / "scan.nii.gz")], ["--uncertainty", "u.nii.gz"]):
            with pytest.raises(SystemExit) as ending:
                cli.main([*command, *wrong])
            assert ending.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1

    def test_a_duplicate_scan_is_a_failure(self, targets, weight_file, tmp_path):
        done, failed = predict_all([targets[1], targets[1]], tmp_path / "out", weight_file, CPU)
        assert list(done) == ["b"] and "Duplicate case ID: b" in failed["b"]

    def test_unusable_weights_stop_everything(self, targets, tmp_path):
        with pytest.raises(InputError, match="Weights not found"):
            predict_all(targets, tmp_path / "out", tmp_path / "none.safetensors", CPU)
        assert not (tmp_path / "out").exists()


def test_weights_survive_the_disk_and_half_precision(weight_file, tmp_path):
    model = weights.load(weight_file)
    again = weights.save(tmp_path / "half.safetensors", model.network.state_dict(), model.card, half=True)
    assert again.stat().st_size < 0.7 * weight_file.stat().st_size
    assert again.stat().st_mode == again.with_suffix(".json").stat().st_mode
    for name, item in weights.load(again).network.state_dict().items():
        torch.testing.assert_close(item, model.network.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert json.loads(again.with_suffix(".json").read_text("utf-8")) == model.card


def test_the_bundled_weights_are_small_and_their_card_names_the_training_data():
    path = weights.bundled()
    model = weights.load(path)
    assert path.stat().st_size < 10 * 2**20
    assert "never on a real vestibular schwannoma" in model.card["notes"]
    assert model.card["license"] == "Apache-2.0" and model.card["training"]["processor_minutes"] > 0
    assert json.loads(path.with_suffix(".json").read_text("utf-8")) == model.card


@pytest.mark.slow
def test_the_bundled_weights_segment_tumor_and_cochleae_of_an_unseen_subject():
    from crossmoda.simulation import simulate_subject

    subject = simulate_subject(9001)
    found = predict(subject.hrt2, None, CPU)
    for structure in labels.STRUCTURES:
        one, other = (item.array == structure.value for item in (found.label_map, subject.hrt2_label))
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.5, structure.key


def test_weights_are_no_pickle_whatever_the_length_of_their_header(tmp_path):
    path = tmp_path / "weights.safetensors"
    starts = set()
    for length in range(0, 256, 8):
        weights.write_tensors(path, {"a": torch.zeros(1)}, {"notes": "x" * length})
        starts.add(path.read_bytes()[0])
        assert weights.read_tensors(path)[1]["notes"] == "x" * length
    assert 0x80 in starts, "one of them begins as a pickle does"


def test_unusable_weights_are_refused_in_one_sentence(weight_file, tmp_path):
    with pytest.raises(InputError, match="Weights not found"):
        weights.load(tmp_path / "none.safetensors")
    pickled = tmp_path / "old.safetensors"
    torch.save({"stem.0.weight": torch.zeros(2)}, pickled)
    with pytest.raises(InputError, match="Pickled checkpoint"):
        weights.load(pickled)
    legacy = tmp_path / "older.pth"
    torch.save({"stem.0.weight": torch.zeros(2)}, legacy, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="Pickled checkpoint"):
        weights.load(legacy)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weight_file.read_bytes()[:-100])
    with pytest.raises(InputError, match="Not a valid"):
        weights.load(cut)
    tensors, card = weights.read_tensors(weight_file)
    weights.write_tensors(
        tmp_path / "other.safetensors", tensors, {**card, "network": {"preset": "paper", "width": 1.0}}
    )
    with pytest.raises(InputError, match="do not match their model card"):
        weights.load(tmp_path / "other.safetensors")
    weights.write_tensors(tmp_path / "later.safetensors", tensors, {**card, "format": "CrossModa weights 9"})
    with pytest.raises(InputError, match="Unknown format"):
        weights.load(tmp_path / "later.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    weights.write_tensors(tmp_path / "nan.safetensors", tensors, card)
    with pytest.raises(InputError, match="not finite"):
        weights.load(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        *({"card": card} for card in ("null", "[]", "1", "[" * 99999)),
        *({"preprocessing": {"crop_x": value}} for value in ("64", 64.5, None, True, 10**400)),
        *({"network": value} for value in (None, [], {"width": "1"}, {"depth": 3})),
        *({weights.DOUBTFUL: value} for value in (0.5, ["VS"], {"VS": "0.5"}, None)),
    ],
    ids=lambda change: str(change)[:50],
)
def test_the_error_about_a_damaged_model_card_names_its_file(weight_file, tmp_path, change):
    from safetensors.torch import save

    tensors, card = weights.read_tensors(weight_file)
    text = change.get("card") or json.dumps({**card, **change})
    (tmp_path / "odd.safetensors").write_bytes(save(tensors, metadata={"card": text}))
    with pytest.raises(InputError, match=r"odd\.safetensors") as caught:
        weights.load(tmp_path / "odd.safetensors")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "complex64", "int32", "bool"])
def test_weights_of_another_type_are_converted_or_refused(weight_file, tmp_path, kind):
    tensors, card = weights.read_tensors(weight_file)
    tensors["classifier.weight"] = tensors["classifier.weight"].to(getattr(torch, kind))
    weights.write_tensors(tmp_path / "net.safetensors", tensors, card)
    if kind.startswith("float"):
        assert weights.load(tmp_path / "net.safetensors").network.classifier.weight.dtype == torch.float32
        return
    with pytest.raises(InputError, match="wrong data type"):
        weights.load(tmp_path / "net.safetensors")


def test_weights_with_undefined_output_are_refused_not_reported_as_no_tumor(weight_file, scan, tmp_path):
    tensors, card = weights.read_tensors(weight_file)
    variance = next(name for name in tensors if name.endswith("running_var"))
    for name, item, said in (
        (variance, torch.full_like(tensors[variance], -1.0), "negative variances"),
        ("classifier.bias", tensors["classifier.bias"].double() + 1e300, "not finite"),
    ):
        weights.write_tensors(tmp_path / "net.safetensors", {**tensors, name: item}, card)
        with pytest.raises(InputError, match=said):
            weights.load(tmp_path / "net.safetensors")
    huge = {name: torch.full_like(item, 3e38) if name.endswith("weight") else item for name, item in tensors.items()}
    weights.write_tensors(tmp_path / "net.safetensors", huge, card)
    with pytest.raises(InputError, match="Predicted probabilities are not finite"):
        predict(scan, tmp_path / "net.safetensors", Settings(device="cpu"))


def test_too_little_memory_for_the_preparation_is_one_error(weight_file, scan, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(preprocessing, "prepare", full)
    with pytest.raises(InputError, match="Not enough memory to prepare this scan"):
        predict(scan, weight_file, CPU)


def test_a_scan_without_contrast_is_refused(weight_file, scan):
    with pytest.raises(InputError):
        predict(scan.with_array(np.ones_like(scan.array)), weight_file, CPU)


def test_importing_the_settings_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, crossmoda.inference, crossmoda.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
