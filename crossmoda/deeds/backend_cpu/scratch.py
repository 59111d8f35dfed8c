"""Memory that is reused within a registration."""

import math
import sys
from typing import Any

import numpy as np


def _references(buffers: list[np.ndarray], index: int) -> int:
    return sys.getrefcount(buffers[index])


#: References to a buffer that no array lies in, as this interpreter counts them: the list's and its own.
_UNUSED = _references([np.empty(0, np.uint8)], 0)


class Scratch:
    """Large arrays in memory that is reused: fresh memory costs more time than filling it."""

    def __init__(self) -> None:
        """Start without memory."""
        self._named: dict[str, np.ndarray] = {}
        self._buffers: list[np.ndarray] = []

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array with any content, valid until the next call with the same name."""
        size = _size(shape, dtype)
        if name not in self._named or self._named[name].nbytes < size:
            self._named.pop(name, None)  # gives its memory back before more is taken
            self._named[name] = np.empty(size + size // 4, np.uint8)  # the next level may need somewhat more
        return _lay(self._named[name], shape, dtype)

    def fresh(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array with any content, in memory that no array uses any more."""
        size = _size(shape, dtype)
        buffers = self._buffers
        unused = [index for index in range(len(buffers)) if _references(buffers, index) <= _UNUSED]
        fitting = [index for index in unused if buffers[index].nbytes >= size]
        if fitting:
            return _lay(min((buffers[index] for index in fitting), key=lambda buffer: buffer.nbytes), shape, dtype)
        for index in reversed(unused):
            del buffers[index]  # gives its memory back before more is taken
        buffers.append(np.empty(size, np.uint8))
        return _lay(buffers[-1], shape, dtype)


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _lay(buffer: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array in the first bytes of a buffer, which lives as long as the array does."""
    return buffer[: _size(shape, dtype)].view(dtype).reshape(shape)
