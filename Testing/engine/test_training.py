"""Training: what it learns, what it keeps, what it refuses."""

import csv
import dataclasses
import json
import os
import signal
import sys

import numpy as np
import pytest

from phantoms import CROP_GRID, crop

torch = pytest.importorskip("torch")

from crossmoda import locks, preprocessing, training, volume, weights  # noqa: E402
from crossmoda.errors import Cancelled, InputError  # noqa: E402
from crossmoda.training import Settings, TrainingCase, augmentation, logs, losses, train  # noqa: E402

pytestmark = pytest.mark.slow

WHOLE = preprocessing.Preparation(in_plane_spacing=0, region="whole")
TINY = Settings(field="scan", width=0.25, epochs=2, device="cpu", seed=3)
SHAPE = (16, 32, 32)


@pytest.fixture
def cases(tmp_path):
    return [write_case(tmp_path, number) for number in range(3)]


def write_case(folder, number, **changes) -> TrainingCase:
    image, label = crop(number)
    paths = folder / f"case_{number}.nii.gz", folder / f"case_{number}_label.nii.gz"
    volume.write(volume.Volume(changes.pop("image", image), CROP_GRID), paths[0])
    volume.write(volume.Volume(changes.pop("label", label), CROP_GRID), paths[1])
    return TrainingCase(*paths, **changes)


@pytest.fixture(autouse=True)
def small_routine(monkeypatch):
    """Crops and epochs small enough for a test."""
    smaller = dataclasses.replace(training.ROUTINES["default"], crop=(16, 32, 32), visits=2, batch=2)
    monkeypatch.setitem(training.ROUTINES, "default", smaller)


def tensors_of(path):
    return weights.read_tensors(path)[0]


def test_it_learns_to_segment_a_case_it_has_not_seen(cases, tmp_path):
    settings = dataclasses.replace(TINY, epochs=24)
    path = train(cases[:2], tmp_path / "run", settings, cases[2:], preparation=WHOLE)
    card = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert card["metrics"]["dice_VS"] > 0.5


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(cases, tmp_path):
    one, two = (tensors_of(train(cases, tmp_path / name, TINY, preparation=WHOLE)) for name in "ab")
    other = tensors_of(train(cases, tmp_path / "c", dataclasses.replace(TINY, seed=4), preparation=WHOLE))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def stop_after(steps):
    def progress(fraction, message):
        if message.startswith("training"):
            progress.calls += 1
            if progress.calls > steps:
                raise Cancelled

    progress.calls = 0
    return progress


def test_a_cancelled_training_resumes_to_the_same_bits(cases, tmp_path):
    through = tensors_of(train(cases, tmp_path / "through", TINY, cases_for_validation(cases), preparation=WHOLE))
    for stop in (1, 3):  # in the first and in the second epoch
        with pytest.raises(Cancelled):
            train(cases, tmp_path / "cut", TINY, cases_for_validation(cases), stop_after(stop), preparation=WHOLE)
        assert not (tmp_path / "cut" / training.WEIGHTS).exists()
    path = train(cases, tmp_path / "cut", TINY, cases_for_validation(cases), preparation=WHOLE)
    resumed = tensors_of(path)
    assert all(torch.equal(through[name], resumed[name]) for name in through)
    assert {item.name for item in path.parent.iterdir()} - {training.BOARD, locks.LOCK} == {
        "metrics.csv",
        "weights.json",
        "weights.safetensors",
    }


@pytest.mark.parametrize("what", ["loss", "gradients"])
def test_a_training_that_diverges_says_so_and_keeps_what_was_good(cases, tmp_path, monkeypatch, what):
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "run", TINY, preparation=WHOLE, progress=stop_after(2))
    before = tensors_of(tmp_path / "run" / "checkpoint.safetensors")
    clip, entropy = torch.nn.utils.clip_grad_norm_, losses.cross_entropy

    def endless(parameters, most):
        parameters = list(parameters)
        parameters[0].grad.fill_(torch.inf)
        return clip(parameters, most)

    if what == "gradients":
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", endless)
    else:
        monkeypatch.setattr(losses, "cross_entropy", lambda *rest: entropy(*rest) * torch.nan)
    with pytest.raises(InputError, match="diverged at step 3: learning rate"):
        train(cases, tmp_path / "run", TINY, preparation=WHOLE)
    after = tensors_of(tmp_path / "run" / "checkpoint.safetensors")
    assert before and all(torch.equal(after[name], item) for name, item in before.items())


def cases_for_validation(cases):
    return [write_case(cases[0].image.parent, 7)]


def test_a_finished_training_is_not_done_again(cases, tmp_path):
    first = train(cases, tmp_path / "run", TINY, preparation=WHOLE)
    before = first.stat().st_mtime_ns
    assert train(cases, tmp_path / "run", TINY, preparation=WHOLE) == first
    assert first.stat().st_mtime_ns == before


def test_a_finished_model_of_other_settings_is_replaced_by_a_restart_only(cases, tmp_path):
    settings = dataclasses.replace(TINY, epochs=1)
    first = train(cases, tmp_path / "run", settings, preparation=WHOLE)
    before = first.read_bytes()
    for changes in ({"seed": 4}, {"width": 0.5}):
        with pytest.raises(InputError, match=r"the model of another training .*Select another folder, or restart"):
            train(cases, tmp_path / "run", dataclasses.replace(settings, **changes), preparation=WHOLE)
    with pytest.raises(InputError, match="the model of another training"):
        train(cases[:2], tmp_path / "run", settings, preparation=WHOLE)
    assert first.read_bytes() == before
    train(cases, tmp_path / "run", dataclasses.replace(settings, seed=4, restart=True), preparation=WHOLE)
    assert first.read_bytes() != before


def test_a_killed_training_resumes_from_a_checkpoint_within_its_epoch(cases, tmp_path, monkeypatch):
    through = tensors_of(train(cases, tmp_path / "through", TINY, preparation=WHOLE))
    monkeypatch.setattr(sys.modules["crossmoda.training.train"], "_CHECKPOINT_INTERVAL_S", 0.0)

    class Killed(BaseException):
        """As if the process ended: nothing is saved any more."""

    stopping = stop_after(2)

    def kill(fraction, message):
        try:
            stopping(fraction, message)
        except Cancelled:
            raise Killed from None

    with pytest.raises(Killed):
        train(cases, tmp_path / "cut", TINY, None, kill, preparation=WHOLE)
    _, state = weights.read_tensors(tmp_path / "cut" / training.CHECKPOINT)
    assert state["step"] == 2  # of three in an epoch
    resumed = tensors_of(train(cases, tmp_path / "cut", TINY, preparation=WHOLE))
    assert all(torch.equal(through[name], resumed[name]) for name in through)


def test_the_signal_of_a_batch_system_ends_the_command_with_a_checkpoint(cases, tmp_path, monkeypatch, run):
    from crossmoda.training.learner import Learner

    step = Learner.take_step

    def signalled(learner):
        step(learner)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Learner, "take_step", signalled)
    for number, case in enumerate(cases):
        case.image.rename(tmp_path / f"{number}_ceT1.nii.gz")
        case.label.rename(tmp_path / f"{number}_label.nii.gz")
    options = ("--output", tmp_path / "run", "--field", "scan", "--width", 0.25, "--device", "cpu", "--from-scratch")
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, _, err = run("--quiet", "train", "--data", tmp_path, *options)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 130 and "finished results stay" in err
    _, state = weights.read_tensors(tmp_path / "run" / training.CHECKPOINT)
    assert state["step"] == 1 and not (tmp_path / "run" / training.WEIGHTS).exists()


def test_a_checkpoint_of_another_training_is_not_resumed(cases, tmp_path):
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "run", TINY, None, stop_after(1), preparation=WHOLE)
    with pytest.raises(InputError, match="another folder"):
        train(cases[:2], tmp_path / "run", TINY, preparation=WHOLE)
    train(cases[:2], tmp_path / "run", dataclasses.replace(TINY, restart=True), preparation=WHOLE)


def test_a_pickled_checkpoint_is_refused(cases, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"step": torch.ones(1)}, folder / training.CHECKPOINT)
    with pytest.raises(InputError, match="Pickled"):
        train(cases, folder, TINY, preparation=WHOLE)


@pytest.mark.parametrize("damage", ["cut", "not finite", "without crop"])
def test_a_damaged_checkpoint_says_how_to_go_on(cases, tmp_path, damage):
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "run", TINY, None, stop_after(1), preparation=WHOLE)
    path = tmp_path / "run" / training.CHECKPOINT
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        tensors, state = weights.read_tensors(path)
        if damage == "not finite":
            next(item for item in tensors.values() if item.is_floating_point()).fill_(float("nan"))
        else:
            state["crop"] = None
        weights.write_tensors(path, tensors, state)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"[Ss]elect another.* folder"):
        train(cases, tmp_path / "run", TINY, preparation=WHOLE)
    assert path.read_bytes() == before
    train(cases, tmp_path / "run", dataclasses.replace(TINY, restart=True), preparation=WHOLE)


def test_metrics_have_one_row_per_epoch(cases, tmp_path):
    train(cases, tmp_path / "run", TINY, cases_for_validation(cases), preparation=WHOLE)
    with (tmp_path / "run" / training.METRICS).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["dice"]) <= 1 for row in rows)


def test_tensorboard_gets_the_metrics_of_every_epoch_once_even_after_a_killed_run(cases, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    held_out = cases_for_validation(cases)
    kill = type("Kill", (BaseException,), {})

    def killed(folder, *rest, write=logs.write_metrics):
        write(folder, *rest)
        if len(rest[0]) == 2:
            raise kill

    monkeypatch.setattr(sys.modules[train.__module__], "_CHECKPOINT_INTERVAL_S", 0.0)
    settings = dataclasses.replace(TINY, epochs=3)
    with monkeypatch.context() as patch, pytest.raises(kill):
        patch.setattr(logs, "write_metrics", killed)
        train(cases, tmp_path / "run", settings, held_out, preparation=WHOLE)
    train(cases, tmp_path / "run", settings, held_out, preparation=WHOLE)
    with (tmp_path / "run" / training.METRICS).open() as stream:
        rows = list(csv.DictReader(stream))
    board = accumulator.EventAccumulator(str(tmp_path / "run" / training.BOARD)).Reload()
    for name in ("loss", "learning_rate", "dice", "dice_VS", "dice_cochlea"):
        logged = {event.step: event.value for event in board.Scalars(name)}
        assert list(logged) == [1, 2, 3] and len(board.Scalars(name)) == 3
        assert list(logged.values()) == pytest.approx([float(row[name]) for row in rows], rel=1e-5)


def test_without_tensorboard_training_goes_on(cases, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    path = train(cases[:1], tmp_path / "run", dataclasses.replace(TINY, epochs=1), preparation=WHOLE)
    assert path.exists() and not (path.parent / training.BOARD).exists()


def test_a_time_limit_ends_the_schedule_and_not_only_the_training(cases, tmp_path):
    settings = dataclasses.replace(TINY, epochs=100_000, seconds=1.5)
    path = train(cases, tmp_path / "run", settings, preparation=WHOLE)
    card = json.loads(path.with_suffix(".json").read_text("utf-8"))
    peak = training.routine(settings).learning_rate
    assert card["training"]["optimization_seconds"] > 0.5
    assert card["metrics"]["learning_rate"] < 0.05 * peak


def test_thicker_slices_keep_ramps_and_average_what_is_finer():
    ramp = torch.arange(60.0)[:, None, None].expand(60, 4, 5)
    for distance, first in ((1.4, -0.3), (6.4, -6.4), (6.4, 0.0)):
        for axis in range(3):
            moved = ramp.movedim(0, axis).contiguous()
            thick = augmentation.thicken(moved, axis, distance, first).movedim(axis, 0)
            torch.testing.assert_close(thick[8:-8], ramp[8:-8], rtol=0, atol=0.1)
    stripes = (torch.arange(60) % 2).float()[:, None, None].expand(60, 4, 5)
    assert (augmentation.thicken(stripes, 0, 6.0, -2.0)[8:-8] - 0.5).abs().max() < 0.1
    torch.testing.assert_close(augmentation.thicken(torch.ones(20, 3, 3), 0, 30.0, -1.0), torch.ones(20, 3, 3))


def test_a_validation_ends_within_the_time_limit_too(cases, tmp_path):
    from crossmoda.training import learner, sampling

    settings = dataclasses.replace(TINY, epochs=100_000, seconds=20)
    examples = sampling.load(cases, WHOLE, tmp_path / "prepared")
    student = learner.Learner(examples, training.routine(settings), settings, None, examples)
    student.step, student.seconds = 10, 10.0
    assert 0.55 < student.fraction < 1, "a step of a second, and a validation of unknown duration"
    student.validations, student.validation_seconds = 1, 9.5
    assert student.fraction == 1
    student.held_out, student.validation_seconds = (), 0.0
    assert student.fraction == pytest.approx(11 / 20)


def test_training_begins_with_the_given_weights(cases, tmp_path):
    start = train(cases, tmp_path / "start", TINY, preparation=WHOLE)
    still = dataclasses.replace(TINY, learning_rate=1e-12, epochs=1)
    after = tensors_of(train(cases, tmp_path / "more", still, preparation=WHOLE, initial=start))
    before = tensors_of(start)
    name = "stem.0.weight"
    torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"Initial weights of preset default, width 0.25"):
        train(cases, tmp_path / "wide", dataclasses.replace(TINY, width=0.5), preparation=WHOLE, initial=start)


def test_memory_that_runs_out_leads_to_smaller_crops_and_the_card_says_so(cases, tmp_path, monkeypatch):
    from crossmoda.training import learner, sampling

    monkeypatch.setattr(learner, "_MIN_CROP", (8, 16, 16))
    sizes, draw = [], sampling.draw

    def short_of_memory(examples, size, *rest):
        sizes.append(size)
        if size[1] > 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return draw(examples, size, *rest)

    monkeypatch.setattr(sampling, "draw", short_of_memory)
    path = train(cases, tmp_path / "run", TINY, preparation=WHOLE)
    assert sizes[:3] == [(16, 32, 32), (8, 24, 24), (8, 16, 16)]
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["training"]["fallbacks"] == [
        "out of memory: crops of 24 x 24 x 8 voxels",
        "out of memory: crops of 16 x 16 x 8 voxels",
    ]


def test_a_gpu_without_memory_is_left_for_the_cpu(cases, tmp_path, monkeypatch):
    """The GPU is played by the CPU under its name: what matters is who is asked to compute after it failed."""
    from crossmoda.training import learner, sampling

    examples = sampling.load(cases, WHOLE, tmp_path / "prepared")
    student = learner.Learner(examples, training.routine(TINY), TINY, None)
    student.device, student.crop = "cuda", learner._MIN_CROP
    learn = student._loss_of_step

    def short_of_memory():
        if student.device == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return learn()

    monkeypatch.setattr(student, "_loss_of_step", short_of_memory)
    student.take_step()
    assert student.device == "cpu" and student.step == 1
    assert student.fallbacks == ["out of GPU memory: training on the CPU"]
    assert "on the CPU" in student.describe()


def test_noisy_voxels_count_as_much_as_they_are_trusted():
    from crossmoda.training import losses

    logits, label = torch.randn(1, 3, 4, 4, 4), torch.randint(0, 3, (1, 4, 4, 4))
    half = torch.ones(1, 4, 4, 4)
    half[..., :2] = 0
    wrong = label.clone()
    wrong[..., :2] = (label[..., :2] + 1) % 3
    for loss in (losses.cross_entropy, losses.dice_loss):
        assert torch.equal(loss(logits, label, half), loss(logits, wrong, half))
    torch.testing.assert_close(
        losses.cross_entropy(logits, label, torch.ones_like(half)), torch.nn.functional.cross_entropy(logits, label)
    )


def test_class_weights_are_normalized_inverse_square_roots():
    from crossmoda.training import losses

    found = losses.class_weights(torch.tensor([10_000, 400, 100]))
    expected = np.array([1 / 100, 1 / 20, 1 / 10])
    np.testing.assert_allclose(found.numpy(), expected / expected.mean(), rtol=1e-6)


def test_the_dice_loss_has_the_value_of_monais():
    """MONAI 1.6.1, DiceLoss(include_background=False, softmax=True, batch=True, smooth_nr=1, smooth_dr=1)."""
    from crossmoda.training import losses

    count = 2 * 6 * 8 * 8
    logits = 2 * torch.sin(0.7 * torch.arange(3 * count, dtype=torch.float64)).reshape(2, 3, 6, 8, 8)
    label = (torch.arange(count) // 37 % 3).reshape(2, 6, 8, 8)
    sure = torch.ones(label.shape, dtype=torch.float64)
    assert losses.dice_loss(logits, label, sure).item() == pytest.approx(0.67640413839319, abs=1e-12)


def test_a_perfect_prediction_has_no_dice_loss():
    from crossmoda.training import losses

    label = torch.randint(0, 3, (1, 4, 4, 4))
    logits = 50 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    assert losses.dice_loss(logits, label, torch.ones(1, 4, 4, 4)).item() < 1e-6


def test_the_paper_preset_is_the_published_routine(cases, tmp_path):
    plan = training.routine(Settings(preset="paper"))
    assert (plan.epochs, plan.batch, plan.learning_rate, plan.one_cycle, plan.dice) == (2000, 1, 1e-3, False, False)
    assert plan.weight_decay == 0  # Adam
    settings = Settings(preset="paper", width=0.125, epochs=1, device="cpu")
    card = weights.read_tensors(train(cases[:1], tmp_path / "run", settings, preparation=WHOLE))[1]
    assert (
        card["network"] == {"preset": "paper", "field": "scan", "inputs": "mind", "width": 0.125}
        and card["training"]["steps"] == 1
    )


def test_a_validation_case_that_is_also_a_training_case_is_refused(cases, tmp_path):
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(cases[1].image.read_bytes())
    with pytest.raises(InputError, match=r"training and validation: copy.nii.gz \(case_1.nii.gz\)"):
        train(cases, tmp_path / "run", TINY, [TrainingCase(copy, cases[1].label)], preparation=WHOLE)
    assert not (tmp_path / "run").exists()


def test_bad_cases_are_named(cases, tmp_path):
    with pytest.raises(InputError, match="No labeled cases"):
        train([], tmp_path / "run", TINY)
    with pytest.raises(InputError, match=r"file not found: .*missing.nii"):
        train([TrainingCase(tmp_path / "missing.nii", cases[0].label)], tmp_path / "run", TINY)
    image, label = crop(9)
    strange = write_case(tmp_path, 9, label=label * 4)
    with pytest.raises(InputError, match=r"Unknown label value in case_9_label\.nii\.gz: 4, 8\. Use 0 background"):
        train([strange], tmp_path / "run", TINY, preparation=WHOLE)
    volume.write(volume.Volume(image + 2, volume.read(cases[0].image).grid), tmp_path / "sure.nii.gz")
    unsure = dataclasses.replace(cases[0], confidence=tmp_path / "sure.nii.gz")
    with pytest.raises(InputError, match="outside 0 to 1"):
        train([unsure], tmp_path / "run", TINY, preparation=WHOLE)


def test_features_of_a_crop_are_those_of_the_whole_scan(cases, tmp_path):
    from crossmoda import mind
    from crossmoda.training import augmentation, sampling

    (example,) = sampling.load(cases[:1], WHOLE, tmp_path / "prepared")
    rng = np.random.default_rng(5)
    batch = sampling.draw([example], (8, 12, 12), augmentation.NONE, [rng], 0.0, "cpu")
    whole = mind.mind_ssc(example.image)[0]
    center = sampling._center(example, (8, 12, 12), np.random.default_rng(5), 0.0)
    part = tuple(
        slice(middle - size // 2, middle + size // 2) for middle, size in zip(center, (8, 12, 12), strict=True)
    )
    inside = (slice(None), *(slice(max(0, 2 - cut.start), None) for cut in part))
    torch.testing.assert_close(
        batch.features[0][inside][..., :-2, :-2, :-2], whole[(slice(None), *part)][inside][..., :-2, :-2, :-2]
    )
    assert torch.equal(batch.label[0], example.targets[0][part].long())


def test_an_affine_crop_moves_image_and_label_alike_and_keeps_millimeters():
    from crossmoda.training import augmentation

    rng = np.random.default_rng(0)
    only_turned = augmentation.Strength(rotation_deg=30, scale=0, shear=0)
    spacing = np.array([1.5, 0.5, 0.5])
    matrix = augmentation.random_affine(rng, only_turned, tuple(spacing))
    in_mm = matrix * spacing[:, None] / spacing
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)
    ramp = torch.as_tensor(np.indices((20, 30, 40)), dtype=torch.float32)
    crop = augmentation.cut(ramp, np.array([10, 15, 20]), (5, 7, 9), matrix, "bilinear")
    offset = np.array([1, -2, 3])
    np.testing.assert_allclose(
        crop[:, 2 + 1, 3 - 2, 4 + 3].numpy(), np.array([10, 15, 20]) + matrix @ offset, atol=1e-4
    )


def test_confidence_reaches_the_loss(cases, tmp_path):
    from crossmoda.training import augmentation, sampling

    grid = volume.read(cases[0].image).grid
    given = np.linspace(0, 1, 32, dtype=np.float32)[None, None] * np.ones(SHAPE, np.float32)
    volume.write(volume.Volume(given, grid), tmp_path / "confidence.nii.gz")
    case = dataclasses.replace(cases[0], confidence=tmp_path / "confidence.nii.gz")
    examples = sampling.load([case], WHOLE, tmp_path / "prepared")
    batch = sampling.draw(examples, SHAPE, augmentation.NONE, [np.random.default_rng(0)], 0.0, "cpu")
    np.testing.assert_allclose(batch.confidence[0].numpy(), given, atol=2e-3)
