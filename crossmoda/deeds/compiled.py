"""The operations of the registration as compiled loops on all cores of the CPU."""

import numpy as np

from crossmoda.deeds import cost, descriptor, sampling, tree


class CompiledKernels:
    """See :class:`crossmoda.deeds.kernels.Kernels`."""

    resize = staticmethod(sampling.resize)
    upsample = staticmethod(sampling.upsample)
    warp = staticmethod(sampling.warp)
    codes = staticmethod(descriptor.codes)
    data_cost = staticmethod(cost.data_cost)
    smoothed_minima = staticmethod(cost.smoothed_minima)
    block_differences = staticmethod(tree.block_differences)

    @staticmethod
    def send(array: np.ndarray) -> np.ndarray:
        """Return the array as float32, rows contiguous."""
        return np.ascontiguousarray(array, np.float32)

    @staticmethod
    def receive(array: np.ndarray) -> np.ndarray:
        """Return the array."""
        return array
