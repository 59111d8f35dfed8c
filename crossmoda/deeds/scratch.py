"""Memory that is used again within a registration."""

import math
from typing import Any

import numpy as np


class Scratch:
    """Large arrays by name, kept from use to use: fresh memory costs more time than filling it."""

    def __init__(self) -> None:
        """Start without memory."""
        self._buffers: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array with any content, which is valid until the name is asked for again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._buffers or self._buffers[name].nbytes < size:
            self._buffers.pop(name, None)  # gives its memory back before more is taken
            self._buffers[name] = np.empty(size, np.uint8)
        return self._buffers[name][:size].view(dtype).reshape(shape)
