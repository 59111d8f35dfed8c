"""The compiled loops of deeds keep to their arrays: random shapes, every array between two pages nobody may touch.

The loops do not check their indices. Here each array they are given ends where a protected page begins, or
begins where one ends: whoever reads or writes a byte too far is stopped by the operating system. The checks run in a
process of their own, which may die of it. Results are compared with those of the tensor operations, of SciPy and of
brute force. Many more shapes than the test takes:

    python Testing/engine/test_deeds_memory.py --rounds 2000 --seed 1
"""

import argparse
import ctypes
import math
import mmap
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from crossmoda.deeds import cost, mind_codes, tree
from crossmoda.deeds.backend_cpu import sampling
from crossmoda.deeds.backend_cpu.scratch import Scratch
from crossmoda.volume.grid import Grid

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
#: What memory holds before anything is written: as a float32 or a float64 no number.
POISON = 0xFF


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages as Linux does")
def test_compiled_loops_keep_to_their_arrays_whatever_the_shapes() -> None:
    command = [sys.executable, __file__, "--rounds", "12"]
    environment = os.environ | {"CROSSMODA_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages as Linux does")
@pytest.mark.parametrize("place", [-1, 4])
def test_reading_beyond_a_guarded_array_ends_the_process(place: int) -> None:
    program = (
        "import ctypes, sys; sys.path.insert(0, sys.argv[1]); import test_deeds_memory as guard\n"
        f"array = guard.guarded((4,), 'f4', {place > 0})\n"
        f"ctypes.c_float.from_address(array.ctypes.data + 4 * {place}).value"
    )
    done = subprocess.run([sys.executable, "-c", program, str(Path(__file__).parent)], capture_output=True, timeout=600)
    assert done.returncode < 0


def guarded(shape: tuple[int, ...], dtype: Any, at_end: bool) -> np.ndarray:
    """Return an array full of poison whose last (or first) byte is next to a protected page."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    page, size = mmap.PAGESIZE, math.prod(shape) * np.dtype(dtype).itemsize
    room = -(-max(size, 1) // page) * page
    whole = room + 2 * page
    begin = libc.mmap(None, whole, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if begin in (None, ctypes.c_void_p(-1).value):
        raise MemoryError("no memory for a guarded array")
    assert libc.mprotect(begin + page, room, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    ctypes.memset(begin + page, POISON, room)
    memory = (ctypes.c_uint8 * size).from_address(begin + page + (room - size if at_end else 0))
    weakref.finalize(memory, libc.munmap, begin, whole)
    return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)


class GuardedScratch(Scratch):
    """Scratch memory of which each array lies between protected pages and is only as large as was asked for."""

    def __init__(self, at_end: bool):
        super().__init__()
        self.at_end = at_end

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return guarded(shape, dtype, self.at_end)

    def fresh(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return guarded(shape, dtype, self.at_end)


class GuardedNumpy:
    """NumPy, but that new arrays lie between protected pages: for modules whose loops are compiled already."""

    def __init__(self, at_end: bool):
        self.at_end = at_end

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> np.ndarray:
        return guarded(tuple(shape) if np.iterable(shape) else (int(shape),), dtype, self.at_end)

    def empty_like(self, array: np.ndarray) -> np.ndarray:
        return self.empty(array.shape, array.dtype)

    def zeros(self, shape: Any, dtype: Any = float) -> np.ndarray:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def ascontiguousarray(self, array: Any, dtype: Any = None) -> np.ndarray:
        return self.copy_of(np.asarray(array, dtype))

    def asarray(self, array: Any, dtype: Any = None) -> np.ndarray:
        return self.copy_of(np.asarray(array, dtype))

    def copy_of(self, array: np.ndarray) -> np.ndarray:
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy


class Case:
    """Random shapes and arrays of one round, and the operations on them."""

    def __init__(self, seed: int, at_end: bool):
        self.rng = np.random.default_rng(seed)
        self.numpy = GuardedNumpy(at_end)
        self.scratch = GuardedScratch(at_end)

    def shape(self, most: int = 23) -> tuple[int, int, int]:
        """One voxel thick, a few wide, prime, a multiple of the lanes: what loops stumble over."""
        sizes = [1, 2, 3, 5, 7, 8, 11, 13, 15, 16, 17, 19, 23]
        z, y, x = self.rng.choice([size for size in sizes if size <= most], 3).tolist()
        return z, y, x

    def three(self, low: int, high: int) -> tuple[int, int, int]:
        z, y, x = self.rng.integers(low, high, 3, endpoint=True).tolist()
        return z, y, x

    def image(self, shape: tuple[int, ...]) -> np.ndarray:
        smooth = ndimage.gaussian_filter(self.rng.normal(size=shape), [0] * (len(shape) - 3) + [1] * 3)
        return self.numpy.copy_of((100 * smooth).astype(np.float32))

    def data_cost(self, tensors: Any) -> None:
        import torch

        shape = self.shape(17)
        fixed, moving = (self.numpy.copy_of(self.rng.integers(0, 1 << 60, shape).astype(np.uint64)) for _ in range(2))
        mask = None if self.rng.random() < 0.3 else self.numpy.copy_of(self.rng.random(shape) < 0.7)
        radius = (*self.three(0, 4)[:2], int(self.rng.integers(1, 12)))
        settings = {
            "block": self.three(1, 9),
            "radius": radius,
            "quantization": self.three(1, 6),
            "skip": (*self.three(1, 3)[:2], 1),
            "mask": mask,
        }
        costs = cost.data_cost(fixed, moving, scale=0.7, scratch=self.scratch, **settings)
        if mask is not None:
            settings["mask"] = mask.copy()
        here, there = (torch.from_numpy(codes.astype(np.int64)) for codes in (fixed, moving))
        expected = tensors.data_cost(here, there, scale=0.7, **settings).reshape(costs.shape)
        np.testing.assert_allclose(costs, expected, rtol=1e-5, err_msg=f"{shape} {settings}")

    def smoothed_minima(self, tensors: Any) -> None:
        import torch

        shape = (*self.shape(7), int(self.rng.integers(1, 90)))
        costs = self.numpy.copy_of(self.rng.random(shape).astype(np.float32))
        best, lowest = cost.smoothed_minima(costs)
        expected, least = tensors.smoothed_minima(torch.from_numpy(costs.copy()))
        np.testing.assert_allclose(lowest, least, rtol=1e-5, err_msg=f"{shape}")
        assert (best != expected).sum() <= 1 + best.size // 100, shape  # rounding may decide between equals

    def codes(self, tensors: Any) -> None:
        import torch

        image, step = self.image(self.shape()), int(self.rng.integers(1, 5))
        codes = mind_codes.codes(image, step, self.scratch)
        expected = tensors.codes(torch.from_numpy(image.copy()), step).numpy().astype(np.uint64)
        # rounding may move a voxel across a threshold
        assert (codes == expected).mean() > 0.97, (image.shape, step, (codes == expected).mean())

    def block_differences(self, tensors: Any) -> np.ndarray:
        import torch

        image, block = self.image(self.shape(17)), self.three(1, 6)
        found = tree.block_differences(image, block)
        expected = tensors.block_differences(torch.from_numpy(image.copy()), block)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=f"{image.shape} {block}")
        return found

    def best_displacements(self, tensors: Any) -> None:
        counts = self.shape(5)
        differences = self.numpy.copy_of(self.rng.random((3, *counts)).astype(np.float32))
        span = tree.spanning_tree(differences, float(self.rng.uniform(0.1, 2)))
        z, y, x = (2 * radius + 1 for radius in self.three(1, 3))
        size = math.prod(counts)
        costs = self.rng.uniform(0, 8, (size, z * y * x)).astype(np.float32)
        offsets = self.numpy.copy_of(self.rng.normal(size=(size, 3)).astype(np.float32))
        chosen = tree.best_displacements(self.numpy.copy_of(costs), span, offsets, (z, y, x))
        shifts = cost.displacements((z // 2, y // 2, x // 2), (1, 1, 1))

        def bend(child: int) -> np.ndarray:
            """|p - c + offset|^2 for each displacement p of the parent and c of the child."""
            return np.square(shifts[:, None] - shifts[None] + offsets[child].astype(float)).sum(axis=-1)

        sums = costs.astype(float)
        for node in span.order[:0:-1]:
            sums[span.parents[node]] += (sums[node] * span.weights[node] + bend(node)).min(axis=1)
        # going down, each choice is as good as any given its parent's
        assert sums[span.order[0], chosen[span.order[0]]] == pytest.approx(sums[span.order[0]].min(), rel=1e-4)
        for node in span.order[1:]:
            options = sums[node] * span.weights[node] + bend(node)[chosen[span.parents[node]]]
            assert options[chosen[node]] == pytest.approx(options.min(), rel=1e-4, abs=1e-3), (counts, (z, y, x))

    def warp(self, tensors: Any) -> None:
        image, shape = self.image(self.shape()), self.shape()
        matrix = np.eye(4)
        matrix[:3] += self.rng.normal(scale=[0.2, 0.2, 0.2, 3], size=(3, 4))
        field = None if self.rng.random() < 0.3 else self.numpy.copy_of(4 * self.image((3, *shape)) / 30)
        warped = sampling.warp(image, matrix, shape, field, self.scratch)
        index = np.indices(shape).astype(float) + (0 if field is None else field)
        flipped = matrix[:3][::-1][:, [2, 1, 0, 3]]
        places = np.einsum("ij,jzyx->izyx", flipped[:, :3], index) + flipped[:, 3, None, None, None]
        expected = ndimage.map_coordinates(image, places, order=1, mode="nearest")
        np.testing.assert_allclose(warped, expected, atol=2e-3, err_msg=f"{image.shape} {shape}")
        wild = self.numpy.copy_of(self.rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e38, 0], (3, *shape)).astype("f4"))
        assert sampling.warp(image, matrix, shape, wild, self.scratch).shape == shape

    def upsample(self, tensors: Any) -> None:
        field, shape = self.image((3, *self.shape(7))), self.shape()
        origin, step = self.rng.uniform(-3, 3, 3), self.rng.uniform(0.05, 1.5, 3)
        fine = sampling.upsample(field, origin, step, shape, self.scratch)
        expected = tensors.upsample(field.copy(), origin, step, shape)
        np.testing.assert_allclose(fine, expected, atol=2e-3, err_msg=f"{field.shape} {shape}")

    def compose(self, tensors: Any) -> None:
        shape = (3, *self.shape(13))
        outer, inner = self.image(shape), self.numpy.copy_of(self.image(shape) / 10)
        places = np.indices(shape[1:]) + inner
        found = sampling.compose(outer, inner)
        for axis in range(3):
            expected = ndimage.map_coordinates(outer[axis], places, order=1, mode="nearest")
            np.testing.assert_allclose(found[axis], expected, atol=2e-3, err_msg=f"{shape}")
        wild = self.numpy.copy_of(self.rng.choice([np.nan, np.inf, -np.inf, 1e38, 0], shape).astype("f4"))
        assert sampling.compose(outer, wild).shape == shape

    def resize(self, tensors: Any) -> None:
        import torch

        size, new = self.shape()[::-1], self.shape()[::-1]
        spacing, other = (tuple(self.rng.uniform(0.3, 4, 3).tolist()) for _ in range(2))
        grid, goal = Grid(size, spacing, (0.0,) * 3, AXES), Grid(new, other, (0.0,) * 3, AXES)  # type: ignore[arg-type]
        image = self.image(grid.shape)
        found = sampling.resize(image, grid, goal)
        expected = tensors.resize(torch.from_numpy(image.copy()), grid, goal)
        np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=f"{grid} {goal}")


OPERATIONS: list[Callable[[Case, Any], Any]] = [
    Case.data_cost,
    Case.smoothed_minima,
    Case.codes,
    Case.block_differences,
    Case.best_displacements,
    Case.warp,
    Case.upsample,
    Case.compose,
    Case.resize,
]


def main() -> None:
    """Run the rounds; what fails ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import faulthandler

    import torch

    from crossmoda.deeds.backend_cuda import CudaBackend

    faulthandler.enable()
    torch.set_num_threads(1)
    tensors = CudaBackend("cpu")
    # First with NumPy's own arrays: compiling looks at the names that are exchanged below.
    for seed in range(options.seed, options.seed + 2):
        plain = Case(seed, at_end=True)
        for operation in OPERATIONS:
            operation(plain, tensors)
    for seed in range(options.seed, options.seed + options.rounds):
        for at_end in (True, False):
            for module in (cost, sampling, tree, mind_codes):
                module.np = GuardedNumpy(at_end)  # type: ignore[attr-defined]
            for operation in OPERATIONS:
                try:
                    operation(Case(seed, at_end), tensors)
                except BaseException:
                    print(f"{operation.__name__}, seed {seed}, at end {at_end}", flush=True)
                    raise
    print(f"{options.rounds} rounds from seed {options.seed}: nothing found")


if __name__ == "__main__":
    main()
