"""Compilation with numba that works wherever Python does: a cache that cannot be used is no error.

Numba keeps compiled code beside the source or in the user's cache folder. In containers, on clusters and in read-only
installations neither may be writable, a disk may be full, and a killed process may leave a damaged file there. Then the
code is compiled anew in each process, and a warning says so once.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache

_has_warned = False


def _warn(reason: object) -> None:
    global _has_warned
    if not _has_warned:
        _has_warned = True
        warnings.warn(
            f"Compiled code is not kept ({str(reason).strip().splitlines()[0]}): each run compiles it again, for about "
            "a minute. Set NUMBA_CACHE_DIR to a folder that can be written.",
            RuntimeWarning,
            stacklevel=3,
        )


class _TolerantCache(FunctionCache):
    """A cache whose files may be damaged, missing or impossible to write."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code of a signature; None where it has to be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged files end numba with errors of many kinds; compiling replaces them
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code if that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as cause:  # also where the index cannot be read: compiling is always possible
            _warn(cause)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at its first call, or loads it from the cache.

    Args:
        options: those of :func:`numba.njit`.

    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = _TolerantCache(dispatcher.py_func)
        except Exception as cause:  # no folder for the cache
            _warn(cause)
        return dispatcher

    return decorate
