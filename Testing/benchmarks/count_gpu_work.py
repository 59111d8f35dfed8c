"""Operations of the CUDA paths and the bytes that they read and write, counted without a card.

    python Testing/benchmarks/count_gpu_work.py [--size 192 192 64]

The operations of the CUDA path run on the processor (minutes, at the full size) and are counted where torch dispatches
them; views, which start nothing, are not counted. A card needs some 5 microseconds to be told of an operation and, at
3 TB/s, a third of a second for a terabyte: both are lower bounds of the time. Where the card counts bits in one
operation (it does, unless torch's compiler for elementwise functions is missing), the bytes of bit counting are less:
the last column leaves them out but for one pass.
"""

import argparse
import collections
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from crossmoda import deeds, inference, mind, threads, training, weights
from crossmoda.deeds import backend, backend_cuda
from crossmoda.deeds.registration import warm_up
from crossmoda.simulation import simulate_subject
from crossmoda.training import learner, sampling
from crossmoda.volume import Grid, resample

#: Operations that start no kernel.
VIEWS = {
    "view", "reshape", "permute", "transpose", "expand", "select", "slice", "unsqueeze", "squeeze", "as_strided", "t",
    "detach", "alias", "unflatten", "split", "unfold", "split_with_sizes", "_unsafe_view", "lift_fresh",
    "_reshape_alias", "movedim", "narrow", "unbind", "empty", "empty_strided",
}  # fmt: skip


class Counter(TorchDispatchMode):
    """Counts the operations dispatched in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: collections.Counter[str] = collections.Counter()
        self.bytes = self.bytes_of_bits = 0
        self.in_bits = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.__name__.split(".")[0]
        if name not in VIEWS:
            self.operations[name] += 1
            everything = [*args, *(out if isinstance(out, tuple | list) else [out])]
            size = sum(item.nbytes for item in everything if isinstance(item, torch.Tensor))
            self.bytes += size
            if self.in_bits:
                self.bytes_of_bits += size
        return out

    def tell(self, what: str, times: int = 1) -> None:
        """Print a row of the table, per run of ``times`` runs."""
        number, gigabytes = sum(self.operations.values()) / times, self.bytes / 1e9 / times
        rest = gigabytes - self.bytes_of_bits / 1e9 / times
        print(f"| {what} | {number:.0f} | {number * 5e-3:.1f} | {gigabytes:.1f} | {rest:.1f} |", flush=True)


def registration(size: tuple[int, int, int]) -> None:
    """Count one registration with default settings."""
    first, second = simulate_subject(1).hrt2, simulate_subject(2).cet1
    corner = [(whole - part) // 2 for whole, part in zip(first.grid.size, size, strict=True)]
    origin = (first.grid.index_to_physical @ [*corner, 1])[:3]
    grid = Grid(size, first.grid.spacing, tuple(origin.tolist()), first.grid.direction)
    pair = resample(first, grid), resample(second, grid)
    warm_up()
    counter, count = Counter(), backend_cuda._differing_bits

    def counted(*operands: torch.Tensor) -> torch.Tensor:
        counter.in_bits = True
        counts = count(*operands)
        counter.in_bits = False
        counter.bytes_of_bits -= counts.nbytes  # what one operation would write
        return counts

    with (
        mock.patch.object(backend, "choose", lambda _device: ("cpu", backend_cuda.CudaBackend("cpu"))),
        mock.patch.object(threads, "both", lambda first, second, at_once: (first(), second())),
        mock.patch.object(mind, "_directions_at_once", lambda _image: len(mind.DIRECTIONS)),
        mock.patch.object(backend_cuda, "_bit_counter", lambda _device: counted),
        counter,
    ):
        deeds.register(*pair)
    counter.tell(f"registration {' x '.join(map(str, size))}")


def crop(size: tuple[int, int, int]) -> None:
    """Count MIND and the network with the bundled weights on one crop."""
    model = weights.load(weights.bundled())
    image = np.random.default_rng(0).normal(size=size[::-1]).astype(np.float32)
    with mock.patch.object(mind, "_directions_at_once", lambda _image: len(mind.DIRECTIONS)), Counter() as counter:
        inference.probabilities.predict_probabilities(model.network, image, inference.Settings(), "cpu", None)
    counter.tell(f"MIND and network {' x '.join(map(str, size))}")


def training_step() -> None:
    """Count the data of a training step, and its recorded part."""
    rng = np.random.default_rng(0)
    label = np.zeros((64, 192, 192), np.float32)
    label[20:30, 80:100, 80:100], label[20:23, 20:25, 20:25] = 1, 2
    image = torch.from_numpy(rng.normal(size=(1, *label.shape)).astype(np.float32))
    voxels = tuple(np.argwhere(label == value) for value in (1, 2))
    targets = torch.from_numpy(np.stack([label, np.ones_like(label)]))
    example = sampling.Example("one", image, targets, (1.5, 0.5, 0.5), voxels)
    for batch in (2, 8):
        settings = training.Settings(device="cpu", batch=batch)
        student = learner.Learner([example], training.routine(settings), settings, None)
        with mock.patch.object(mind, "_directions_at_once", lambda _image: len(mind.DIRECTIONS)), Counter() as counter:
            drawn = [student._draw(step) for step in range(8)]
        counter.tell(f"training, {batch} crops: drawing them", times=8)
        with Counter() as counter:
            student._forward_and_backward(drawn[0])
        counter.tell(f"training, {batch} crops: loss and gradients (recorded)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(192, 192, 64), metavar=("X", "Y", "Z"))
    options = parser.parse_args()
    print("| task | operations | ms at 5 us each | GB read and written | of that without bit counting |")
    print("|---|---|---|---|---|")
    training_step()
    crop(tuple(options.size))
    registration(tuple(options.size))


if __name__ == "__main__":
    main()
