"""The heavy operations of the registration, on the processor that is chosen.

Two sets of functions with the same names and results: compiled loops on the CPU, tensor operations on CUDA. The tree's
messages depend on each other; they are computed on the CPU in both cases.
"""

import ctypes.util
import sys
from typing import Any, Protocol, cast

import numpy as np

from crossmoda import device
from crossmoda.volume.grid import Grid


class Kernels(Protocol):
    """What both sets offer. ``Image``, ``Codes`` and ``Costs`` are arrays where the work is done."""

    at_once: bool
    """whether several threads may use them at once, so that a card has work while the tree is gone through here"""

    def send(self, array: np.ndarray) -> Any:
        """Bring an image (z, y, x) to where the work is done, float32."""

    def resize(self, image: Any, grid: Grid, new: Grid) -> Any:
        """See :func:`crossmoda.deeds.sampling.resize`."""

    def upsample(self, field: np.ndarray, origin: np.ndarray, step: np.ndarray, shape: tuple[int, int, int]) -> Any:
        """See :func:`crossmoda.deeds.sampling.upsample`."""

    def warp(self, image: Any, matrix: np.ndarray, shape: tuple[int, int, int], field: Any = None) -> Any:
        """See :func:`crossmoda.deeds.sampling.warp`."""

    def codes(self, image: Any, step: int) -> Any:
        """See :func:`crossmoda.deeds.descriptor.codes`."""

    def data_cost(self, fixed: Any, moving: Any, **settings: Any) -> Any:
        """See :func:`crossmoda.deeds.cost.data_cost`."""

    def smoothed_minima(self, costs: Any) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`crossmoda.deeds.cost.smoothed_minima`."""

    def block_differences(self, image: Any, block: tuple[int, int, int]) -> np.ndarray:
        """See :func:`crossmoda.deeds.tree.block_differences`."""

    def receive(self, array: Any) -> np.ndarray:
        """Bring an array back to the CPU."""


def choose(wanted: str) -> tuple[str, Kernels]:
    """Return the device (``"cpu"`` or ``"cuda"``) and its functions; ``wanted`` is one of :data:`device.CHOICES`.

    Without the driver of an NVIDIA card, ``"auto"`` is the CPU and torch, which takes seconds to import, is not needed.
    """
    if wanted == "auto" and "torch" not in sys.modules:
        driver = "nvcuda" if sys.platform == "win32" else "cuda"
        wanted = "auto" if ctypes.util.find_library(driver) else "cpu"
    chosen = device.choose(wanted)
    if chosen == "cuda":
        from crossmoda.deeds.tensors import TensorKernels

        return chosen, cast(Kernels, TensorKernels("cuda"))
    from crossmoda.deeds.compiled import CompiledKernels

    return chosen, cast(Kernels, CompiledKernels())
