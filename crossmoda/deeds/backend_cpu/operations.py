"""The operations of the registration on the CPU: compiled loops on all cores."""

from typing import Any

import numpy as np

from crossmoda.deeds import cost, mind_codes, tree
from crossmoda.deeds.backend_cpu import sampling
from crossmoda.deeds.backend_cpu.scratch import Scratch


class CpuBackend:
    """See :class:`crossmoda.deeds.backend.Backend`. Costs are valid until the next costs or codes are computed."""

    at_once = False
    resize = staticmethod(sampling.resize)
    smoothed_minima = staticmethod(cost.smoothed_minima)
    block_differences = staticmethod(tree.block_differences)

    def __init__(self) -> None:
        """Start without scratch memory; each registration has a backend of its own."""
        self._scratch = Scratch()

    def upsample(
        self, field: np.ndarray, origin: np.ndarray, step: np.ndarray, shape: tuple[int, int, int]
    ) -> np.ndarray:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.upsample`."""
        return sampling.upsample(field, origin, step, shape, self._scratch)

    def warp(
        self, image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int, int], field: np.ndarray | None = None
    ) -> np.ndarray:
        """See :func:`crossmoda.deeds.backend_cpu.sampling.warp`."""
        return sampling.warp(image, matrix, shape, field, self._scratch)

    def codes(self, image: np.ndarray, step: int) -> np.ndarray:
        """See :func:`crossmoda.deeds.mind_codes.codes`."""
        return mind_codes.codes(image, step, self._scratch)

    def data_cost(self, fixed: np.ndarray, moving: np.ndarray, **settings: Any) -> np.ndarray:
        """See :func:`crossmoda.deeds.cost.data_cost`."""
        return cost.data_cost(fixed, moving, scratch=self._scratch, **settings)

    @staticmethod
    def send(array: np.ndarray) -> np.ndarray:
        """Return the array as float32, rows contiguous."""
        return np.ascontiguousarray(array, np.float32)

    @staticmethod
    def receive(array: np.ndarray) -> np.ndarray:
        """Return the array."""
        return array
