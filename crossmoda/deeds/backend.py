"""The heavy operations of the registration, on the CPU or on a GPU.

Both backends offer the same functions with the same results: compiled loops on the CPU, tensor operations on CUDA. The
messages of the spanning tree depend on each other; they are computed on the CPU in both cases.
"""

from typing import Any, Protocol, cast

import numpy as np

from crossmoda import device
from crossmoda.volume.grid import Grid


class Backend(Protocol):
    """The operations of a registration. Images, codes and costs are arrays in the backend's own memory."""

    at_once: bool
    """whether several threads may use it at once, so that a GPU has work while the tree is processed on the CPU"""

    def send(self, array: np.ndarray) -> Any:
        """Copy an image (z, y, x) to the backend's memory, float32."""

    def resize(self, image: Any, grid: Grid, new: Grid) -> Any:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.resize`."""

    def upsample(self, field: np.ndarray, origin: np.ndarray, step: np.ndarray, shape: tuple[int, int, int]) -> Any:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.upsample`."""

    def warp(self, image: Any, matrix: np.ndarray, shape: tuple[int, int, int], field: Any = None) -> Any:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.warp`."""

    def codes(self, image: Any, step: int) -> Any:
        """See :func:`crossmoda.deeds.mind_codes.codes`."""

    def data_cost(self, fixed: Any, moving: Any, **settings: Any) -> Any:
        """See :func:`crossmoda.deeds.cost.data_cost`."""

    def smoothed_minima(self, costs: Any) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`crossmoda.deeds.cost.smoothed_minima`."""

    def block_differences(self, image: Any, block: tuple[int, int, int]) -> np.ndarray:
        """See :func:`crossmoda.deeds.tree.block_differences`."""

    def receive(self, array: Any) -> np.ndarray:
        """Copy an array to the CPU."""


def choose(device_choice: str) -> tuple[str, Backend]:
    """Return the device (``"cpu"`` or ``"cuda"``) and its backend for one of :data:`device.CHOICES`."""
    chosen = device.choose(device_choice)
    if chosen == "cuda":
        from crossmoda.deeds.backend_cuda import CudaBackend

        return chosen, cast(Backend, CudaBackend("cuda"))
    from crossmoda.deeds.backend_cpu.operations import CpuBackend

    return chosen, cast(Backend, CpuBackend())
