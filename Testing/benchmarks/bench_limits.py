"""Distance to the limit: the kernels of deeds against what this processor does in simple loops, one thread, one run.

    python Testing/benchmarks/bench_limits.py
    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma python Testing/benchmarks/bench_limits.py    # no AVX-512

Limits are loops over arrays that lie in the first cache (popcount, multiply-add, add-minimum) and over arrays that do
not (copy, counted as read and written). What a kernel needs is what its algorithm needs, not what it does:

- data cost: one exclusive or, one popcount and one addition per compared voxel and displacement;
- MIND-SSC codes: 4 bytes read and 8 written per voxel; 6 squared differences summed over a patch (48 operations), 12
  distances brought to six levels (192);
- messages of the tree: per control point, displacement and axis as many additions and minima as the axis has places.
"""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ["CROSSMODA_THREADS"] = "1"

import numba
import numpy as np

from crossmoda.deeds import cost, mind_codes, tree
from crossmoda.jit_cache import compiled

_compiled = compiled(nogil=True, fastmath=True, boundscheck=False)
#: Working image (z, y, x), control points and displacements of a middle level.
SHAPE, BLOCK, RADIUS = (64, 112, 112), (4, 4, 4), (3, 3, 3)


@_compiled
def _popcounts(first, second, times):
    total = np.uint64(0)
    for n in range(times):
        for x in range(first.shape[0]):
            total += cost._popcount(first[x] ^ (second[x] + np.uint64(n)))
    return total


@_compiled
def _multiply_add(values, times):
    for n in range(times):
        factor = np.float32(n)
        for x in range(values.shape[0]):
            value = values[x]
            for _ in range(16):
                value = value * factor + factor
            values[x] = value


@_compiled
def _add_minimum(values, times):
    for n in range(times):
        bend = np.float32(n)
        for x in range(values.shape[0]):
            value = values[x]
            for step in range(16):
                value = -max(-value, -(values[x] + bend * np.float32(step)))
            values[x] = value


@_compiled
def _copy(source, target):
    for x in range(source.shape[0]):
        target[x] = source[x]


def least_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Return the least processor seconds of some rounds, the first one, which may compile, excluded."""
    work()
    taken = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return min(taken)


def limits() -> dict[str, float]:
    """Return what the processor does at most: billions per second."""
    rng = np.random.default_rng(0)
    words = [rng.integers(0, 2**60, 1024, np.uint64) for _ in range(2)]
    values, large = rng.random(4096, np.float32), np.ones(1 << 24, np.float64)
    target = np.empty_like(large)
    return {
        "popcounts": 1024 * 20000 / least_seconds(lambda: _popcounts(*words, 20000)) / 1e9,
        "multiply, add": 2 * 16 * 4096 * 2000 / least_seconds(lambda: _multiply_add(values, 2000)) / 1e9,
        "add, minimum": 2 * 16 * 4096 * 2000 / least_seconds(lambda: _add_minimum(values, 2000)) / 1e9,
        "bytes copied": 2 * large.nbytes / least_seconds(lambda: _copy(large, target), 3) / 1e9,
    }


def data_cost() -> float:
    """Return the billions of compared voxels per second."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 2**60, SHAPE, np.uint64) for _ in range(2)]
    options = {"block": BLOCK, "radius": RADIUS, "quantization": (1, 1, 1), "skip": (2, 2, 1)}
    compared = np.prod(SHAPE) / 4 * np.prod([2 * steps + 1 for steps in RADIUS])
    return float(compared / least_seconds(lambda: cost.data_cost(*codes, **options), 3) / 1e9)


def codes() -> tuple[float, float]:
    """Return the billions of bytes and of operations per second that MIND-SSC needs at least."""
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    seconds = least_seconds(lambda: mind_codes.codes(image))
    return image.size * 12 / seconds / 1e9, image.size * 240 / seconds / 1e9


def messages() -> float:
    """Return the billions of additions and minima per second of the tree's messages."""
    rng = np.random.default_rng(0)
    points = np.prod([size // step for size, step in zip(SHAPE, BLOCK, strict=True)])
    places = tuple(2 * steps + 1 for steps in RADIUS)
    parents = np.maximum(np.arange(points) - rng.integers(1, 200, points), 0)
    parents[0] = -1
    span = tree.Tree(parents, np.full(points, 0.5, np.float32), np.arange(points))
    costs = rng.random((points, np.prod(places)), np.float32)
    offsets = np.zeros((points, 3), np.float32)
    seconds = least_seconds(lambda: tree.best_displacements(costs.copy(), span, offsets, places), 3)
    return float(points * np.prod(places) * 2 * sum(places) / seconds / 1e9)


def main() -> None:
    """Print the processor and the table."""
    info = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else platform.processor()
    flags = " ".join(line for line in info.splitlines() if line.startswith("flags"))
    name = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), info)
    # The name alone changes nothing: numba adds the features of the host, unless NUMBA_CPU_FEATURES states others.
    _, target, features = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    used = "with" if "+avx512f" in features.split(",") else "without"
    print(f"{name}; AVX-512 popcount {'yes' if 'vpopcntdq' in flags else 'no'}; compiled for {target} {used} AVX-512\n")
    most = limits()
    needs = codes()
    rows = [
        ("data cost", "popcounts", data_cost()),
        ("MIND-SSC codes, arithmetic", "multiply, add", needs[1]),
        ("MIND-SSC codes, memory", "bytes copied", needs[0]),
        ("messages of the tree", "add, minimum", messages()),
    ]
    print("| kernel | 10^9 per second | limit | share |\n|---|---|---|---|")
    for kernel, kind, reached in rows:
        print(f"| {kernel} | {reached:.2f} | {most[kind]:.1f} {kind} | {reached / most[kind]:.0%} |")


if __name__ == "__main__":
    main()
