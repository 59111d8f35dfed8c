"""Networks that see one ear in its canonical frame: decisions from both ears, the way back to the scan, training."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crossmoda import inference, labels, network, preprocessing, training, volume, weights  # noqa: E402
from crossmoda.anatomy import template  # noqa: E402
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames, patch_grid  # noqa: E402
from crossmoda.errors import InputError  # noqa: E402
from crossmoda.inference import coverage, ear_patches, ears  # noqa: E402
from crossmoda.network.features import CONTRASTS, features, normalized  # noqa: E402
from crossmoda.training import augmentation, sampling  # noqa: E402

SETTINGS = network.Settings(field="ear", inputs="all", width=0.25)
CPU = inference.Settings(device="cpu")
RULE = ears.Calling(smallest_mm3=10, least_probability=0.6, second_mm3=40, second_probability=0.8, second_share=0.1)
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
#: Both patches lie in it; oblique axes, thick slices.
GRID = volume.Grid((70, 60, 16), (1.9, 1.4, 4.0), (62.0, -10.0, -75.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))


def frame(side: str, reason: str = "") -> EarFrame:
    """Return a frame of a head that lies as the template does."""
    matrix = np.eye(4) if side == "left" else MIRROR
    landmarks = {name: matrix[:3, :3] @ point for name, point in template.load().landmarks.items()}
    return EarFrame(side, matrix, landmarks, 0.9, 1.0, 0.2, reason)


def ball(center: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """Return a ball in the patch; ``center`` in canonical LPS mm."""
    points = patch_grid().points(np.ones(patch_grid().shape, bool)).reshape(*patch_grid().shape, 3)
    return np.linalg.norm(points - np.array(center), axis=-1) < radius_mm


def ear(side: str, *tumors: tuple[tuple[float, float, float], float, float]) -> ear_patches.EarPrediction:
    """Return an ear with a cochlea and tumors (center, radius in mm, probability)."""
    probabilities = np.zeros((3, *patch_grid().shape), np.float32)
    probabilities[labels.COCHLEA][ball((38, 23, -45), 2.6)] = 0.9
    for center, radius, probability in tumors:
        probabilities[labels.VS][ball(center, radius)] = probability
    probabilities[0] = 1 - probabilities[1:].sum(axis=0)
    return ear_patches.EarPrediction(frame(side), probabilities, np.ones(patch_grid().shape, bool))


def sizes(*given: ear_patches.EarPrediction) -> list[int]:
    """Return how many mm3 of tumor are called in each ear."""
    voxel = patch_grid().voxel_volume_mm3
    return [round(float((one.argmax(axis=0) == labels.VS).sum() * voxel)) for one in ears.call(list(given), RULE)]


LARGE, SMALL, TINY = ((22.0, 30.0, -42.0), 6.0, 0.95), ((30.0, 26.0, -42.0), 1.8, 0.7), ((30.0, 26.0, -42.0), 1.0, 0.9)


def test_the_ear_with_less_evidence_has_to_convince_by_itself():
    left, right = sizes(ear("left", LARGE), ear("right", SMALL))
    assert left > 800 and right == 0, "a weak mark in the healthy ear is no second tumor"
    left, right = sizes(ear("left", LARGE), ear("right", ((22, 30, -42), 5, 0.9)))
    assert left > 800 and right > 450, "two convincing tumors stay two"


def test_a_tumor_needs_a_volume_and_a_probability():
    assert sizes(ear("left"), ear("right", SMALL))[1] > 15
    assert sizes(ear("left"), ear("right", TINY)) == [0, 0]
    assert sizes(ear("left", (LARGE[0], 6.0, 0.55)), ear("right")) == [0, 0]


def test_an_ear_has_one_tumor_and_what_is_not_called_is_background():
    both = ear("left", LARGE, ((40.0, 45.0, -30.0), 2.5, 0.9))
    (called,) = ears.call([both], RULE)
    assert called[labels.VS][ball((40, 45, -30), 2)].max() == 0
    np.testing.assert_allclose(called.sum(axis=0), 1, atol=1e-5)
    assert (called.argmax(axis=0) == labels.COCHLEA).any()


def t2_anatomy() -> np.ndarray:
    """Return a patch of T2: bone (10), brain (100) and fluid (300)."""
    anatomy = np.where(np.random.default_rng(0).random(patch_grid().shape) < 0.35, 10.0, 100.0)
    anatomy[:4] = 300.0
    return anatomy


def tumor_with_a_lobe():
    """Return an ear whose network marks a tumor and a lobe beside it, and the masks of both."""
    (center, radius, _), beside = LARGE, np.array([7.0, 0, 0])
    tumor = ball(center, radius)
    lobe = ball(center + beside, 6.0) & ~tumor
    return ear("left", LARGE, (tuple(center + beside), 6.0, 0.9)), tumor, lobe


def test_what_is_as_bright_as_fluid_is_no_schwannoma_on_t2():
    both = ear("left", LARGE, ((40.0, 45.0, -30.0), 3.5, 0.9))
    anatomy = t2_anatomy()
    tumor, spot = ball(LARGE[0], LARGE[1]), ball((40, 45, -30), 3.5)

    def found(t2: np.ndarray | None) -> tuple[bool, bool]:
        (called,) = ears.call([dataclasses.replace(both, image=t2, contrast="T2")], RULE)
        mask = called.argmax(axis=0) == labels.VS
        return bool(mask[tumor].any()), bool(mask[spot].any())

    assert found(None) == (True, False) and found(np.where(tumor, 130.0, anatomy)) == (True, False)
    fluid = np.where(tumor, 310.0, anatomy)
    assert found(np.where(spot, 110.0, fluid)) == (False, True), "the darker one is the tumor"
    alone = dataclasses.replace(ear("left", LARGE), image=fluid, contrast="T2")
    called = ears.call([alone, dataclasses.replace(both, contrast="T1")], RULE)
    assert not (called[0].argmax(axis=0) == labels.VS).any()
    (note,) = ears._fluid_notes([alone, dataclasses.replace(both, contrast="T1")], called, RULE)
    assert "left canal" in note and "as bright as fluid" in note and f"{4 / 3 * np.pi * LARGE[1] ** 3:.0f}"[0] in note


def test_a_tumor_is_kept_without_the_fluid_that_is_marked_beside_it():
    one, tumor, lobe = tumor_with_a_lobe()
    anatomy = t2_anatomy()
    cyst = ball(LARGE[0], 1.5)
    t2 = np.where(lobe | cyst, 310.0, np.where(tumor, 130.0, anatomy))
    one = dataclasses.replace(one, image=t2, contrast="T2")
    called = ears.call([one], RULE)
    found = called[0].argmax(axis=0) == labels.VS
    assert (found & lobe).sum() == 0, "more fluid than tumor"
    assert not (ears.marked_tumor(one) & lobe).any() and (one.marked(labels.VS) & lobe).any()
    assert (found & tumor).sum() >= 0.97 * tumor.sum() and found[cyst].all(), "an enclosed cyst belongs to it"
    (note,) = ears._fluid_notes([one], called, RULE)
    assert "left schwannoma" in note and "cyst" in note
    plain = dataclasses.replace(one, contrast="T1")
    called = ears.call([plain], RULE)
    assert (called[0].argmax(axis=0) == labels.VS)[lobe].all() and not ears._fluid_notes([plain], called, RULE)


@pytest.mark.parametrize("level", [90.0, 150.0])
def test_what_is_fluid_or_bone_rather_than_tumor_is_not_part_of_it(level):
    one, tumor, lobe = tumor_with_a_lobe()
    anatomy = t2_anatomy()

    def found(other: float, share: float) -> np.ndarray:
        image = np.where(lobe, level + share * (other - level), np.where(tumor, level, anatomy))
        (called,) = ears.call([dataclasses.replace(one, image=image, contrast="T2")], RULE)
        return called.argmax(axis=0) == labels.VS

    fluid, bone = 300.0, 10.0
    assert found(fluid, 0.4)[lobe].all() and not found(fluid, 0.5)[lobe].any()
    assert found(bone, 0.5)[lobe].all() and not found(bone, 0.7)[lobe].any()
    assert found(fluid, 0.5)[tumor].mean() > 0.97


@pytest.mark.parametrize("side", ["left", "right"])
def test_structures_return_to_their_place_in_thick_slices(side):
    one = ear(side, LARGE)
    region, found = ears._restored([one], [one.probabilities], GRID)
    points = GRID.crop(region).points(found.argmax(axis=0) == labels.VS)
    expected = np.array([22.0 if side == "left" else -22.0, 30.0, -42.0])
    np.testing.assert_allclose(points.mean(axis=0), expected, atol=0.6)
    assert len(points) * GRID.voxel_volume_mm3 == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.12)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_cochleae_are_lowered_by_what_the_network_places_them_too_high():
    one, fine = ear("left"), patch_grid()
    maps = [ears.label_map_of([one], [one.probabilities], fine, up) for up in (0.0, 1.4)]
    centers = [fine.points(label_map == labels.COCHLEA).mean(axis=0) for label_map in maps]
    np.testing.assert_allclose(centers[0] - centers[1], [0, 0, 1.4], atol=0.01)


def test_intensities_are_relative_and_what_lies_outside_the_scan_does_not_count():
    rng = np.random.default_rng(0)
    patch = rng.normal(100, 20, (8, 9, 10))
    seen = normalized(patch)
    np.testing.assert_allclose(normalized(3 * patch + 50), seen, atol=1e-4)
    padded = np.concatenate([patch, np.full_like(patch, -1000)])
    np.testing.assert_allclose(normalized(padded)[:8], seen, atol=0.05)
    image = torch.from_numpy(seen)
    assert [features(image, kind).shape[0] for kind in ("intensity", "mind", "both", "all")] == [1, 12, 13, 14]


def test_the_contrast_of_each_scan_is_an_input():
    images = torch.rand(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    both = features(images, "all", torch.tensor([CONTRASTS["T1"], CONTRASTS["T2"]]))
    assert torch.equal(both[:, :-1], features(images, "both"))
    assert torch.equal(both[:, -1], torch.stack([-images[0], images[1]]))
    assert torch.equal(features(images[0], "all", CONTRASTS["T1"]), both[0])
    assert not features(images, "all")[:, -1].any(), "not known"
    with pytest.raises(InputError, match="field 'ear'"):
        network.Settings(field="scan", inputs="all")


@pytest.mark.parametrize(("inputs", "changes"), [("all", True), ("both", False)])
def test_a_prediction_depends_on_the_contrast_where_that_is_an_input(inputs, changes, head, tmp_path):
    settings = network.Settings(field="ear", inputs=inputs, width=0.25)
    torch.manual_seed(0)
    card = weights.new_card(settings, preprocessing.Preparation())
    model = weights.load(
        weights.save(tmp_path / "ear.safetensors", network.build(settings).state_dict(), card, half=True)
    )
    t1, t2 = (
        ear_patches.predict_patches(model, head[0], [frame("left")], contrast, CPU, "cpu")[0][0].probabilities
        for contrast in ("T1", "T2")
    )
    assert bool(np.abs(t1 - t2).max() > 1e-3) == changes


@pytest.fixture
def head(monkeypatch):
    """Return a scan with a bright tumor on its left side, and its label map; frames are those of the template."""
    rng = np.random.default_rng(1)
    array = rng.normal(50, 5, GRID.shape).astype(np.float32)
    label = np.zeros(GRID.shape, np.uint8)
    points = GRID.points(np.ones(GRID.shape, bool)).reshape(*GRID.shape, 3)
    for center, radius, value in (((22, 30, -42), 8, 1), ((38, 23, -45), 4, 2), ((-38, 23, -45), 4, 2)):
        label[np.linalg.norm(points - np.array(center, float), axis=-1) < radius] = value
    array[label > 0] += 40 * label[label > 0]
    frames = EarFrames(frame("left"), frame("right"), "T1", 0.8)
    monkeypatch.setattr(ears, "ear_frames", lambda scan, progress=None: frames)
    monkeypatch.setattr(sampling, "ear_frames", lambda scan: frames)
    return volume.Volume(array, GRID), volume.Volume(label, GRID)


@pytest.fixture
def weight_file(tmp_path):
    torch.manual_seed(0)
    card = weights.new_card(SETTINGS, preprocessing.Preparation(), calling={"smallest_mm3": 1.0, "cochlea_up_mm": 0.5})
    return weights.save(tmp_path / "ear.safetensors", network.build(SETTINGS).state_dict(), card)


def test_a_prediction_lies_on_the_grid_of_the_scan(head, weight_file):
    found = inference.predict(head[0], weight_file, CPU)
    assert found.label_map.grid == GRID and found.probabilities.shape == (3, *GRID.shape)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-4)
    moved = inference.predict(head[0], weight_file, dataclasses.replace(CPU, flips=True))
    assert 0 < np.abs(moved.probabilities - found.probabilities).max() < 0.5


def test_beyond_the_patches_all_is_background_whatever_the_voxel_type(head, weight_file):
    larger = volume.Grid((110, 90, 60), (1.2, 1.2, 1.5), (66.0, -24.0, -86.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    array = np.rint(volume.resample(head[0], larger).array).astype(np.int16)
    found, same = (
        inference.predict(volume.Volume(array.astype(kind), larger), weight_file, CPU)
        for kind in (np.int16, np.float32)
    )
    np.testing.assert_array_equal(found.probabilities, same.probabilities)
    beyond = np.ones(larger.shape, bool)
    beyond[found.region] = False
    assert beyond.any() and not beyond.all()
    assert np.all(found.probabilities[:, beyond] == np.array([[1], [0], [0]]))
    np.testing.assert_allclose(found.uncertainty.array, inference.entropy(found.probabilities), atol=1e-6)
    for structure in labels.STRUCTURES:
        np.testing.assert_array_equal(found.probability(structure).array, found.probabilities[structure.value])


def bright_is_tumor(model, patches, contrast, settings, device):
    """Stand in for the network: what is bright is tumor."""
    tumor = np.stack([np.where(patch.array > 80, 0.96, 0.02) for patch in patches]).astype(np.float32)
    return np.stack([0.99 - tumor, tumor, np.full_like(tumor, 0.01)], axis=1), []


@pytest.mark.parametrize(("center", "radius"), [((26.0, 34.0, -34.0), 20.0), ((31.0, 31.0, -42.0), 26.0)])
def test_a_tumor_larger_than_the_patch_is_segmented_whole(head, weight_file, monkeypatch, center, radius):
    grid = volume.Grid((110, 90, 60), (1.2, 1.2, 1.5), (66.0, -24.0, -86.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    points = grid.points(np.ones(grid.shape, bool)).reshape(*grid.shape, 3)
    inside = np.linalg.norm(points - np.array(center), axis=-1) < radius
    monkeypatch.setattr(ear_patches, "_probabilities", bright_is_tumor)
    found = inference.predict(volume.Volume(np.where(inside, 100, 50).astype(np.float32), grid), weight_file, CPU)
    notes = " ".join(found.provenance["notes"])
    assert np.count_nonzero(found.label_map.array == labels.VS) == pytest.approx(inside.sum(), rel=0.04)
    assert "incomplete" not in notes


def test_memory_that_runs_out_for_a_further_patch_is_said(head, weight_file, monkeypatch):
    grid = volume.Grid((110, 90, 60), (1.2, 1.2, 1.5), (66.0, -24.0, -86.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    points = grid.points(np.ones(grid.shape, bool)).reshape(*grid.shape, 3)
    inside = np.linalg.norm(points - np.array([31.0, 31.0, -42.0]), axis=-1) < 26
    calls = []

    def probabilities(*arguments):
        calls.append(arguments)
        return bright_is_tumor(*arguments)[0], ["out of memory"] if len(calls) > 1 else []

    monkeypatch.setattr(ear_patches, "_probabilities", probabilities)
    found = inference.predict(volume.Volume(np.where(inside, 100, 50).astype(np.float32), grid), weight_file, CPU)
    assert found.provenance["fallbacks"] == ["out of memory"] and "out of memory" in found.provenance["notes"]


def test_a_tumor_that_crosses_the_midline_is_one_tumor(head, weight_file, monkeypatch):
    grid = volume.Grid((110, 90, 60), (1.2, 1.2, 1.5), (66.0, -24.0, -86.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    points = grid.points(np.ones(grid.shape, bool)).reshape(*grid.shape, 3)
    inside = np.linalg.norm(points - np.array([10.0, 36.0, -42.0]), axis=-1) < 18
    monkeypatch.setattr(ear_patches, "_probabilities", bright_is_tumor)
    found = inference.predict(volume.Volume(np.where(inside, 100, 50).astype(np.float32), grid), weight_file, CPU)
    assert np.count_nonzero(found.label_map.array == labels.VS) == pytest.approx(inside.sum(), rel=0.04)
    assert "right schwannoma" not in " ".join(found.provenance["notes"])


def test_a_tumor_that_both_patches_show_is_of_the_nearer_ear(monkeypatch):
    frames = [frame("left"), frame("right")]
    center, radius = np.array([10.0, 34.0, -42.0]), 17.0
    predictions = []
    for one, size in zip(frames, (80, 110), strict=True):  # the right patch, extended, shows more of the left tumor
        grid = patch_grid()
        grid = grid.crop((slice(0, 64), slice(0, 80), slice(80 - size, 80)))
        scan_points = one.to_scan(grid.points(np.ones(grid.shape, bool)))
        inside = (np.linalg.norm(scan_points - center, axis=1) < radius).reshape(grid.shape)
        tumor = np.where(inside, 0.95, 0.01).astype(np.float32)
        values = np.stack([0.99 - tumor, tumor, np.full_like(tumor, 0.01)])
        predictions.append(ear_patches.EarPrediction(one, values, np.ones(grid.shape, bool), grid))
    assert ears.Candidate.of(predictions[1]).volume_mm3 > ears.Candidate.of(predictions[0]).volume_mm3
    left, right = (int((one.argmax(axis=0) == labels.VS).sum()) for one in ears.call(predictions, RULE))
    assert left > 1000 and right == 0


def test_a_tumor_cut_by_the_edge_of_the_scan_is_said_to_be_incomplete(head, weight_file, monkeypatch):
    grid = dataclasses.replace(GRID, size=(70, 60, 7))
    points = grid.points(np.ones(grid.shape, bool)).reshape(*grid.shape, 3)
    inside = np.linalg.norm(points - np.array([25.0, 31.0, -50.0]), axis=-1) < 9
    monkeypatch.setattr(ear_patches, "_probabilities", bright_is_tumor)
    found = inference.predict(volume.Volume(np.where(inside, 100, 50).astype(np.float32), grid), weight_file, CPU)
    assert any("left schwannoma reaches the edge of the scan" in note for note in found.provenance["notes"])


def test_what_the_network_was_not_trained_for_is_said():
    card = {"covers": {"scans": "hrT2", "slice_mm": [0.4, 4.2], "pixel_mm": [0.3, 1.2], "tumor_mm3": [40, 18000]}}
    assert coverage.notes(card, GRID, 500.0) == [
        "pixels of 1.9 mm: the network was trained for 0.3 to 1.2, check the result"
    ]
    thick = dataclasses.replace(GRID, spacing=(0.5, 0.5, 6.0))
    said = coverage.notes(card, thick, 25.0)
    assert [note.split(":")[0] for note in said] == ["slices of 6 mm", "a schwannoma of 25 mm³"]
    assert coverage.notes(card, thick, 0.0) == said[:1] and coverage.notes({}, thick, 25.0) == []


@pytest.mark.parametrize("wrong", [{"slice_mm": [0.4]}, {"slice_mm": [0.4, "4"]}, {"slice_mm": 4}, [1]])
def test_a_model_card_with_an_unknown_range_is_refused(weight_file, wrong):
    tensors, card = weights.read_tensors(weight_file)
    weights.write_tensors(weight_file, tensors, {**card, "covers": wrong})
    with pytest.raises(InputError, match="Invalid model card"):
        weights.load(weight_file)


def test_an_ear_that_is_not_recognized_is_said_and_a_scan_without_ears_refused(head, weight_file, monkeypatch):
    reason = "Right ear outside the scan: 10% of it covered, at least 80% needed."
    one = EarFrames(frame("left"), frame("right", reason), "T2", 0.8)
    monkeypatch.setattr(ears, "ear_frames", lambda scan, progress=None: one)
    assert reason in inference.predict(head[0], weight_file, CPU).provenance["notes"]
    none = EarFrames(*(frame(side, "No skull base in the scan.") for side in ("left", "right")), "T2", 0.05)
    monkeypatch.setattr(ears, "ear_frames", lambda scan, progress=None: none)
    with pytest.raises(InputError, match=r"^No skull base in the scan\.$"):
        inference.predict(head[0], weight_file, CPU)
    anyway = dataclasses.replace(CPU, any_ear=True)
    assert inference.predict(head[0], weight_file, anyway).label_map.grid == GRID


def test_a_model_card_with_an_unknown_rule_is_refused(head, weight_file):
    tensors, card = weights.read_tensors(weight_file)
    weights.write_tensors(weight_file, tensors, {**card, "calling": {"smallest_mm3": "many"}})
    with pytest.raises(InputError, match="Invalid model card"):
        inference.predict(head[0], weight_file, CPU)


def test_training_uses_both_ears_and_keeps_the_model_card(head, weight_file, tmp_path):
    for scan, name in zip(head, ("scan", "label"), strict=True):
        volume.write(scan, tmp_path / f"{name}.nii.gz")
    case = training.TrainingCase(tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz")
    settings = training.Settings(width=0.25, epochs=1, device="cpu")
    path = training.train([case], tmp_path / "run", settings, initial=weight_file)
    card = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert card["network"] == dataclasses.asdict(SETTINGS)
    assert card["training"]["cases"] == 1 and card["training"]["examples"] == 2
    assert card["calling"] == {"smallest_mm3": 1.0} and "sha256" in card["initial_weights"]
    examples = sampling.load([case], preprocessing.Preparation(), tmp_path / "prepared", field="ear")
    assert [len(example.voxels) for example in examples] == [2, 1], "the right ear is healthy"
    again = sampling.load([case], preprocessing.Preparation(), tmp_path / "prepared", field="ear")
    assert [example.contrast for example in examples + again] == 4 * [CONTRASTS["T1"]]


@pytest.fixture
def cases(head, tmp_path):
    """Return two cases: the scan with a tumor, and its cochleae alone."""
    scan, label = head
    healthy = dataclasses.replace(label, array=np.where(label.array == labels.VS, 0, label.array))
    darker = dataclasses.replace(scan, array=np.where(label.array == labels.VS, 50, scan.array).astype(np.float32))
    found = []
    for name, image, truth in (("tumor", scan, label), ("healthy", darker, healthy)):
        volume.write(image, tmp_path / f"{name}.nii.gz")
        volume.write(truth, tmp_path / f"{name}_Label.nii.gz")
        found.append(training.TrainingCase(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_Label.nii.gz"))
    return found


def floating(path) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file that are averaged."""
    return {name: item for name, item in weights.read_tensors(path)[0].items() if item.is_floating_point()}


def test_weights_of_ears_trained_further_are_averaged_with_the_initial_ones(cases, weight_file, tmp_path, monkeypatch):
    """Also if the training is validated, and interrupted in a validation and resumed."""
    from crossmoda.training.learner import Learner

    settings = training.Settings(width=0.25, epochs=2, learning_rate=1e-3, device="cpu")
    alone = dataclasses.replace(settings, unaveraged=True)
    initial = floating(weight_file)
    trained = floating(training.train(cases[:1], tmp_path / "trained", alone, initial=weight_file))
    averaged = floating(training.train(cases[:1], tmp_path / "averaged", settings, initial=weight_file))
    assert any((initial[name] - item).abs().max() > 1e-4 for name, item in trained.items())
    for name, item in averaged.items():
        torch.testing.assert_close(item, 0.75 * initial[name] + 0.25 * trained[name])
    card = json.loads((tmp_path / "averaged" / training.WEIGHTS).with_suffix(".json").read_text("utf-8"))
    assert card["training"]["initial_share"] == 0.75 and "loss" not in card["metrics"]

    validated, validate, logits_of = [], Learner._validate, inference.logits_of

    def interrupted(network, features):
        validated.append({name: item.clone() for name, item in network.state_dict().items()})
        if len(validated) == 2:
            raise KeyboardInterrupt
        return logits_of(network, features)

    monkeypatch.setattr(inference, "logits_of", interrupted)
    monkeypatch.setattr(Learner, "_validate", lambda self: {**validate(self), "dice": len(self.history) / 2})
    with pytest.raises(KeyboardInterrupt):
        training.train(cases[:1], tmp_path / "checked", settings, cases[1:], initial=weight_file)
    checked = training.train(cases[:1], tmp_path / "checked", settings, cases[1:], initial=weight_file)
    rows = (checked.parent / training.METRICS).read_text("utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"] and all(row.split(",")[-1] for row in rows)
    for name, item in floating(checked).items():
        assert torch.equal(item, validated[-1][name]), "the saved weights are the validated ones"
        assert torch.equal(item, averaged[name]), "validation and interruption change nothing"


def test_a_case_without_an_ear_is_named(cases, weight_file, tmp_path, monkeypatch):
    nothing = EarFrames(*(frame(side, "No skull base in the scan.") for side in ("left", "right")), "T2", 0.05)
    answers = iter([sampling.ear_frames(None), nothing])
    monkeypatch.setattr(sampling, "ear_frames", lambda scan: next(answers))
    settings = training.Settings(width=0.25, epochs=1, device="cpu")
    path = training.train(cases, tmp_path / "run", settings, initial=weight_file)
    assert training.notes_of(path) == "Not used, since no ear is recognized in them: healthy.nii.gz."
    assert training.notes_of(weight_file) == ""
    assert "notes" not in weights.read_tensors(path)[1], "reports of other patients show the notes of a card"


def test_random_weights_and_those_of_whole_scans_are_not_averaged(cases, tmp_path):
    scratch = training.Settings(width=0.25, epochs=1, device="cpu")
    alone = dataclasses.replace(scratch, unaveraged=True)
    one, other = (floating(training.train(cases[:1], tmp_path / str(how.unaveraged), how)) for how in (scratch, alone))
    for name, item in one.items():
        assert torch.equal(item, other[name])
    whole_scans = training.Settings(field="scan", inputs="mind")
    assert training.routine(whole_scans, fine_tuning=True).initial_share == 0, "measured on ears only"


@pytest.mark.parametrize(("changed", "expected"), [(0.0, CONTRASTS["T2"]), (1.0, 0.0)])
def test_a_training_sample_has_the_contrast_as_input_unless_that_was_changed(changed, expected):
    image = torch.rand(1, 30, 30, 30, generator=torch.Generator().manual_seed(0))
    example = sampling.Example("a", image, torch.zeros(2, 30, 30, 30), (0.7, 0.7, 0.7), (), CONTRASTS["T2"])
    strength = augmentation.Strength(pose=0, mirror=0, contrast=changed, blur=0, noise=0)
    batch = sampling.draw([example], (8, 8, 8), strength, [np.random.default_rng(0)], 0.0, "cpu", SETTINGS)
    assert torch.equal(batch.features[:, -1], expected * batch.features[:, 0]) and batch.features[:, 0].std() > 0


def test_the_papers_network_can_see_ears(tmp_path, head):
    settings = training.Settings(preset="paper", field="ear", width=0.125)
    assert settings.network.inputs == "mind" and training.routine(settings).crop == patch_grid().shape
    assert training.Settings(preset="paper").network.field == "scan"
    card = weights.new_card(settings.network, preprocessing.Preparation())
    path = weights.save(tmp_path / "paper.safetensors", network.build(settings.network).state_dict(), card)
    assert inference.predict(head[0], path, CPU).label_map.grid == GRID


def test_the_refusal_of_a_scan_says_what_to_select():
    reasons = ("Left ear not recognized: 0.4.", "Right ear not recognized: 0.3.")
    refused = EarFrames(frame("left", reasons[0]), frame("right", reasons[1]), "T2", 0.9)
    assert refused.refusal == " ".join([*reasons, "Select an MR scan that shows an inner ear."])
