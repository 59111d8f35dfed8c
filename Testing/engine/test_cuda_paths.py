"""What runs on a graphics card, checked without one.

:class:`PretendedCard` keeps a list of which tensors would lie on a card while the processor computes them: where CUDA
would refuse (operands on two devices, an array of a tensor on the card, integer matrix products), so does it, and it
counts what is copied between the two. Numbers are therefore real and can be compared.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

torch = pytest.importorskip("torch")

from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from crossmoda import (  # noqa: E402
    deeds,
    device,
    inference,
    mind,
    network,
    threads,
    training,
    weights,
)
from crossmoda.deeds import backend  # noqa: E402
from crossmoda.deeds.backend_cuda import CudaBackend  # noqa: E402
from crossmoda.errors import Cancelled  # noqa: E402
from crossmoda.inference import probabilities  # noqa: E402
from crossmoda.network import layers  # noqa: E402
from crossmoda.preprocessing import Preparation  # noqa: E402
from crossmoda.propagation import registrations  # noqa: E402
from crossmoda.training import learner  # noqa: E402
from crossmoda.training.recording import Recording  # noqa: E402
from crossmoda.volume import Grid, Volume  # noqa: E402

CARD = torch.device("cuda", 0)
WAITING = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero"}
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "conv3d", "conv2d"}
#: Operations without a reproducible implementation on CUDA where gradients flow or sums meet (PyTorch's own list).
UNORDERED = {
    "interpolate",
    "index_add_",
    "index_add",
    "scatter_add_",
    "put_",
    "bincount",
    "histc",
    "kthvalue",
    "median",
}


class PretendedCard(TorchFunctionMode):
    """See above. A context in which ``"cuda"`` is a device."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name, about = function.__name__, getattr(getattr(function, "__self__", None), "__name__", "")
        if name == "__get__" and about in ("device", "is_cuda") and on_card(args[0]):
            return CARD if about == "device" else True
        if name == "__set__":
            function(*args)
            return mark(args[0], on_card(args[1])) if about == "data" else None
        target = self._target(name, args, kwargs)
        if target is not None:
            return self._make(function, name, args, kwargs, target)
        kwargs.pop("pin_memory", None)
        operands = [item for item in tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
        there = any(map(on_card, operands))
        if there and not name.startswith("_has"):
            self._check(name, operands)
        result = function(*args, **kwargs)
        if name == "copy_":
            return mark(result, on_card(args[0]))
        return (
            tree_map(lambda item: mark(item) if isinstance(item, torch.Tensor) else item, result) if there else result
        )

    @staticmethod
    def _target(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
        """Return the device that a call names, if any."""
        if name in ("cpu", "cuda"):
            return torch.device(name)
        given = [kwargs.get("device"), *(args[1:] if name == "to" else ())]
        given = [item.device if isinstance(item, torch.Tensor) else item for item in given]
        return next((torch.device(item) for item in given if isinstance(item, str | torch.device)), None)

    def _make(self, function: Callable, name: str, args: tuple, kwargs: dict, target: torch.device) -> torch.Tensor:
        """Move a tensor to a device or make one there."""
        source = args[0] if name in ("to", "cpu", "cuda") else None
        if source is not None and on_card(source) == (target.type == "cuda"):
            rest = [item for item in args[1:] if isinstance(item, torch.dtype)]
            return mark(source.to(*rest), target.type == "cuda")
        if source is not None:
            self.counted["to the card" if target.type == "cuda" else "from the card"] += 1
            rest = [item for item in args[1:] if isinstance(item, torch.dtype)]
            return mark(source.to(*rest).clone(), target.type == "cuda")
        kwargs["device"] = "cpu"
        kwargs.pop("pin_memory", None)
        return mark(function(*args, **kwargs), target.type == "cuda")

    def _check(self, name: str, operands: list[torch.Tensor]) -> None:
        """Refuse what CUDA refuses."""
        if name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        if name == "copy_":
            if on_card(operands[0]) != on_card(operands[1]):
                self.counted["to the card" if on_card(operands[0]) else "from the card"] += 1
            return
        if name in WAITING:
            self.counted["waited"] += 1
        if name in UNORDERED:
            self.counted[f"unordered: {name}"] += 1
        off_card = [item for item in operands if not on_card(item) and item.dim() > 0]
        if name == "__getitem__" and on_card(operands[0]):
            off_card = []  # indices may lie in the computer's memory
        if off_card:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, cuda:0 and cpu.")
        if name in PRODUCTS and not all(item.is_floating_point() for item in operands):
            raise RuntimeError(f"{name}: not implemented for integers on CUDA.")


def on_card(tensor: Any) -> bool:
    return getattr(tensor, "_lies_on_card", False)


def mark(tensor: torch.Tensor, there: bool = True) -> torch.Tensor:
    tensor._lies_on_card = there
    return tensor


@pytest.fixture
def card(monkeypatch) -> Iterator[PretendedCard]:
    autocast = torch.autocast

    class Generator(torch.Generator):
        def __new__(cls, _device="cpu"):
            return super().__new__(cls)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "pretended")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    # a torch that is built for cards would ask the driver, of which there may be none
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda **_: None, raising=False)
    monkeypatch.setattr(device, "memory_gib", lambda _device: 16.0)
    monkeypatch.setattr(torch, "autocast", lambda _device, *rest, **more: autocast("cpu", *rest, **more))
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(threads, "both", one_after_the_other)  # the mode holds for one thread
    with PretendedCard() as mode:
        yield mode


def one_after_the_other(first: Callable[[], Any], second: Callable[[], Any], at_once: bool) -> tuple[Any, Any]:
    return first(), second()


# The pretended card itself


def test_the_pretended_card_refuses_what_cuda_refuses(card):
    here, there = torch.ones(3), torch.ones(3).to("cuda")
    assert there.is_cuda and there.device == CARD and not here.is_cuda
    assert (there * 2).is_cuda and torch.zeros(2, device="cuda").is_cuda and torch.zeros_like(there).is_cuda
    for mistake in (lambda: here + there, lambda: torch.stack([here, there]), lambda: here[there.long()]):
        with pytest.raises(RuntimeError, match="same device"):
            mistake()
    for mistake in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="numpy"):
            mistake()
    with pytest.raises(RuntimeError, match="integers"):
        there.long() @ there.long()
    assert not there.cpu().is_cuda and there.is_cuda and here[:2].copy_(there[:2]).sum() == 2
    assert (there + torch.tensor(1.0)).sum().item() == 6  # a number may come from anywhere
    assert card.counted == {"to the card": 1, "from the card": 2, "waited": 1}


def test_gradients_stay_on_the_pretended_card(card):
    layer = torch.nn.Linear(3, 2).to("cuda")
    assert layer.weight.is_cuda
    layer(torch.ones(4, 3, device="cuda")).sum().backward()
    assert layer.weight.grad.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        layer(torch.ones(4, 3))


# Registration


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    """Two textured heads of 36 mm, one moved by 2 mm; of different voxel sizes."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices((44, 44, 44))
    inside = (z - 21) ** 2 + (y - 22) ** 2 + (x - 23) ** 2 < 19**2
    image = np.where(inside, 60 + 400 * ndimage.gaussian_filter(rng.normal(size=inside.shape), 2.5), 0)
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    fixed = Volume(image.astype(np.float32), Grid((44, 44, 44), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction))
    coarse = (130 - image[:, ::2]).astype(np.float32)
    return fixed, Volume(coarse, Grid((44, 22, 44), (1.0, 2.0, 1.0), (2.0, 0.0, 0.0), direction))


def field(registration: deeds.Registration) -> np.ndarray:
    return sitk.GetArrayFromImage(registration.displacement_field())


@pytest.fixture
def registered(card, pair) -> tuple[deeds.Registration, Counter[str]]:
    found = deeds.register(*pair, deeds.Settings(device="cuda", levels=4))
    return found, Counter(card.counted)


def test_the_registration_on_the_card_is_that_of_the_processor(registered, pair):
    there, counted = registered
    assert there.provenance["device"] == "cuda (pretended)"
    here = deeds.register(*pair, deeds.Settings(device="cpu", levels=4))
    difference = np.linalg.norm(field(here) - field(there), axis=-1)[pair[0].array != 0]
    assert difference.mean() < 0.1 and np.percentile(difference, 95) < 0.2
    # Per direction and level: minima and their places (linear), differences of blocks and costs (deformable).
    assert 0 < counted["from the card"] + counted["waited"] <= 2 * 2 * (4 + 4)


def test_both_directions_at_once_find_what_they_find_one_after_the_other(pair, monkeypatch):
    monkeypatch.setattr(backend, "choose", lambda _wanted: ("cpu", CudaBackend("cpu")))
    coarse = deeds.Settings(linear="none", levels=2)
    at_once = field(deeds.register(*pair, coarse))
    monkeypatch.setattr(threads, "both", one_after_the_other)
    assert np.array_equal(at_once, field(deeds.register(*pair, coarse)))


def test_both_directions_end_when_one_fails_or_is_cancelled(pair, monkeypatch):
    done = []
    with pytest.raises(ValueError, match="there"):
        threads.both(lambda: int("there"), lambda: done.append("back"), at_once=True)

    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        threads.both(lambda: done.append("there"), cancel, at_once=True)
    assert done == ["back", "there"]


def test_a_registration_leaves_a_full_card_for_the_processor_and_says_so(card, pair, monkeypatch):
    heard, settings = [], deeds.Settings(levels=1)

    def full(*_arguments, **_settings):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(CudaBackend, "data_cost", full)
    found = deeds.register(
        *pair, dataclasses.replace(settings, device="cuda"), progress=lambda _, said: heard.append(said)
    )
    assert found.provenance["device"].startswith("cpu") and "GPU memory ran out: on the CPU" in heard
    assert np.array_equal(field(found), field(deeds.register(*pair, dataclasses.replace(settings, device="cpu"))))


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_torch_says_when_memory_runs_out_is_understood(error, meant):
    assert device.ran_out_of_memory(error) == meant


@pytest.mark.parametrize(("gib", "cores", "expected"), [(80.0, 16, 8), (80.0, 2, 2), (6.0, 16, 3), (1.5, 16, 1)])
def test_registrations_at_once_fit_card_and_processor(card, monkeypatch, gib, cores, expected):
    # a torch that is built for cards would ask the driver, of which there may be none
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda **_: None, raising=False)
    monkeypatch.setattr(device, "memory_gib", lambda _device: gib)
    monkeypatch.setattr(threads, "thread_count", lambda: cores)
    assert registrations.default_parallel_registrations(deeds.Settings(device="cuda")) == expected


def test_masks_and_images_smaller_than_a_block_work_on_the_card(card):
    from crossmoda.deeds.backend_cpu.operations import CpuBackend

    rng = np.random.default_rng(3)
    image, other = (rng.normal(size=(5, 9, 7)).astype(np.float32) for _ in range(2))
    there, here = CudaBackend("cuda"), CpuBackend()
    options = {"block": (6, 4, 7), "radius": (1, 2, 2), "quantization": (2, 1, 3), "skip": (3, 3, 1)}
    options["mask"] = image > 0
    found = there.data_cost(there.codes(there.send(image), 1), there.codes(there.send(other), 1), **options)
    expected = here.data_cost(here.codes(image, 1), here.codes(other, 1), **options)
    np.testing.assert_allclose(there.receive(found), expected, atol=0.02)
    differences = there.block_differences(there.send(image), (6, 4, 7))
    expected = here.block_differences(image, (6, 4, 7))
    np.testing.assert_allclose(differences[1, :, :-1], expected[1, :, :-1], rtol=1e-5)
    assert not differences[0].any() and not differences[2].any()


# MIND and inference


def test_mind_on_the_card_has_the_features_of_the_processor(card):
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 7, 9, 8)).astype(np.float32))
    found = mind.mind_ssc(image.to("cuda"), 2, 1)
    assert found.is_cuda and torch.equal(found.cpu(), mind.mind_ssc(image, 2, 1))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(2)
    return network.build(network.Settings(width=0.125)).eval()


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_scan_is_segmented_on_the_card_in_tiles_or_on_the_processor(card, model, monkeypatch, fails):
    image = np.random.default_rng(4).normal(size=(18, 40, 44)).astype(np.float32)
    expected, _ = probabilities.predict_probabilities(model, image, inference.Settings(), "cpu", None)
    run, left, where = probabilities._softmax, [fails], []

    def short_of_memory(network, features, tiled):
        where.append((features.is_cuda, tiled))
        left[0] -= 1
        if left[0] >= 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return run(network, features, tiled)

    monkeypatch.setattr(probabilities, "_softmax", short_of_memory)
    found, notes = probabilities.predict_probabilities(model, image, inference.Settings(flips=fails == 0), "cuda", None)
    assert isinstance(found, np.ndarray) and len(notes) == fails
    assert where[-1] == (fails < 2, fails > 0)
    if fails:
        np.testing.assert_allclose(found, expected, atol=0.05)  # bfloat16


# Training

TINY = training.Settings(field="scan", width=0.25, seed=3, device="cuda")


def new_student(**changes: Any) -> learner.Learner:
    """Begin a training on two small noisy scans."""
    from crossmoda.training import sampling

    plan = dataclasses.replace(training.routine(TINY), crop=(16, 32, 32), epochs=2, visits=2)
    rng = np.random.default_rng(5)
    examples = []
    for number in range(2):
        label = ndimage.gaussian_filter(rng.normal(size=(18, 40, 36)), 3)
        label = np.digitize(label, np.quantile(label, [0.8, 0.95]))
        image = torch.from_numpy((label + rng.normal(size=label.shape)).astype(np.float32))[None]
        targets = torch.from_numpy(np.stack([label, np.ones(label.shape)]).astype(np.float32))
        voxels = tuple(np.argwhere(label == value) for value in (1, 2))
        examples.append(sampling.Example(str(number), image, targets, (1.5, 0.5, 0.5), voxels))
    return learner.Learner(examples, plan, dataclasses.replace(TINY, **changes), None, examples)


@pytest.fixture
def student(card) -> Callable[..., learner.Learner]:
    return new_student


def state_of(learning: learner.Learner) -> dict[str, torch.Tensor]:
    return {name: item.cpu() for name, item in learning.network.state_dict().items()}


def test_a_training_runs_on_the_card_and_its_steps_copy_next_to_nothing(student, card):
    one = student()
    assert all(item.is_cuda for item in one.network.state_dict().values())
    assert all(example.image.is_cuda for example in one.examples)
    one.take_step()
    assert all(item.grad.is_cuda for item in one.network.parameters())
    card.counted.clear()
    for _ in range(3):
        one.take_step()
    # The loss, once a step, and two numbers of which torch finds out that they do not really lie on a card.
    assert card.counted["from the card"] <= 6 and card.counted["waited"] <= 3
    assert not [name for name in card.counted if name.startswith("unordered")]


def test_a_training_on_the_card_resumes_to_the_bit(student):
    through, first, second = student(), student(), student()
    for _ in range(4):
        through.take_step()
    for _ in range(2):
        first.take_step()
    tensors, state = first.snapshot()
    second.restore({name: item.cpu() for name, item in tensors.items()}, state)
    for _ in range(2):
        second.take_step()
    expected = state_of(through)
    assert all(torch.equal(item, expected[name]) for name, item in state_of(second).items())


@pytest.fixture
def recordings(card, monkeypatch) -> list[Recording]:
    """CUDA's graphs, played: what was recorded is done again. Real ones do nothing while they record."""
    made = []

    class Played(Recording):
        def __init__(self, network, optimizer, work, batch):
            super().__init__(network, optimizer, work, batch)
            made.append(self)

            def again() -> None:
                network.zero_grad(set_to_none=True)
                self._loss = work(self._batch)

            self._graph.replay = again

    monkeypatch.setattr(learner, "Recording", Played)
    monkeypatch.setattr(torch.cuda, "Stream", mock.MagicMock)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", mock.MagicMock)
    for name in ("current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    return made


def test_a_recorded_step_learns_what_one_by_one_operations_learn(student, recordings):
    recorded, plain = student(), student()
    plain._records = False
    for _ in range(3):
        recorded.take_step()
        plain.take_step()
    assert len(recordings) == 1 and recorded._losses == plain._losses
    expected = state_of(plain)
    assert all(torch.equal(item, expected[name]) for name, item in state_of(recorded).items())


def test_smaller_crops_are_recorded_anew(student, recordings):
    one = student()
    one.take_step()
    one.crop = (16, 24, 24)
    one.take_step()
    assert [tuple(made._batch.label.shape) for made in recordings] == [(2, 16, 32, 32), (2, 16, 24, 24)]


def test_what_cannot_be_recorded_is_done_step_by_step_and_from_the_same_start(student, recordings, monkeypatch):
    plain, one = student(), student()
    plain._records = False
    monkeypatch.setattr(torch.cuda, "graph", mock.Mock(side_effect=RuntimeError("not permitted when recording")))
    for training_ in (plain, one):
        training_.take_step()
    assert not recordings and not one._records
    expected = state_of(plain)
    assert all(torch.equal(item, expected[name]) for name, item in state_of(one).items())


@pytest.mark.parametrize("size", [(4, 6, 10), (2, 6, 5)])
def test_what_is_enlarged_on_the_card_is_what_the_processor_enlarges(card, size):
    torch.manual_seed(0)
    here = torch.randn(2, 3, 2, 3, 5, requires_grad=True)
    there = here.detach().clone().to("cuda").requires_grad_()
    gradient = torch.randn(2, 3, *size)
    for features in (here, there):
        (
            layers.enlarge(features, torch.Size(size)) * (gradient if features is here else gradient.to("cuda"))
        ).sum().backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad)
    found = layers.enlarge(there, torch.Size(size)).detach().cpu()
    torch.testing.assert_close(found, layers.enlarge(here, torch.Size(size)).detach())


def test_a_training_leaves_a_full_card_for_the_processor(student, monkeypatch):
    one = student()
    one.take_step()
    one.crop, learn = learner._MIN_CROP, one._loss_of_step

    def short_of_memory() -> float:
        if one.device == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return learn()

    monkeypatch.setattr(one, "_loss_of_step", short_of_memory)
    one.take_step()
    assert one.fallbacks == ["out of GPU memory: training on the CPU"]
    assert not any(item.is_cuda for item in one.network.state_dict().values())
    one.end_epoch(20)
    assert "dice" in one.history[-1] or one.fraction < 1 / 20


def test_too_little_memory_for_the_next_batch_does_not_repeat_this_step(student, monkeypatch):
    one, draw = student(), learner.sampling.draw
    answers = iter([draw, mock.Mock(side_effect=RuntimeError("CUDA error: out of memory")), draw, draw])
    monkeypatch.setattr(learner.sampling, "draw", lambda *given: next(answers)(*given))
    one.take_step()
    assert one.step == 1 and not one.fallbacks and one._next is None
    assert {int(moments["step"]) for moments in one.optimizer.state.values()} == {1}


def test_weights_trained_on_the_card_are_written_as_they_are(student, tmp_path):
    one = student()
    one.take_step()
    with contextlib.suppress(KeyError):
        one.end_epoch(20)
    card_text = weights.new_card(one.network_settings, Preparation(), license="none")
    path = weights.save(tmp_path / "net.safetensors", one.network.state_dict(), card_text)
    loaded = weights.load(path).network.state_dict()
    assert all(torch.equal(item, loaded[name]) for name, item in state_of(one).items())


# A real card


@pytest.mark.gpu
def test_a_card_counts_bits_as_it_adds_them():
    from crossmoda.deeds import backend_cuda

    generator = torch.Generator("cuda").manual_seed(0)
    codes = torch.randint(0, 1 << 60, (3, 40, 50), generator=generator, device="cuda")
    operands = codes[0][:, :, None], codes[1][:, None, ::2], codes[2][:, :, None]
    counter = backend_cuda._bit_counter(codes.device)
    assert counter is not backend_cuda._differing_bits
    assert torch.equal(counter(*operands), backend_cuda._differing_bits(*operands))


@pytest.mark.gpu
def test_a_card_registers_the_same_on_every_run(pair):
    one, two = (deeds.register(*pair, deeds.Settings(device="cuda")) for _ in range(2))
    assert np.array_equal(field(one), field(two))


@pytest.mark.gpu
def test_a_card_learns_the_same_on_every_run_recorded_or_not():
    one, two, plain = new_student(), new_student(), new_student()
    plain._records = False
    for learning in (one, two, plain):
        for _ in range(4):
            learning.take_step()
    assert one._records and one._recording is not None
    assert one._losses == two._losses
    expected = state_of(one)
    assert all(torch.equal(item, expected[name]) for name, item in state_of(two).items())
    assert plain._losses == pytest.approx(one._losses, rel=1e-3)


@pytest.mark.gpu
def test_a_training_goes_on_to_the_bit_on_a_card():
    through, first, second = new_student(), new_student(), new_student()
    for _ in range(4):
        through.take_step()
    for _ in range(2):
        first.take_step()
    tensors, state = first.snapshot()
    second.restore({name: item.cpu().clone() for name, item in tensors.items()}, state)
    for _ in range(2):
        second.take_step()
    expected = state_of(through)
    assert all(torch.equal(item, expected[name]) for name, item in state_of(second).items())
