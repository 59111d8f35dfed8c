"""Compilation with numba that works wherever Python does: a cache that cannot be used is no error.

Numba keeps compiled code beside the source or in the user's cache folder. In containers, on clusters and in read-only
installations neither may be writable, a disk may be full, and a killed process may leave a damaged file there. Then the
code is compiled anew in each process, and a warning says so once.
"""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

#: What follows where compiled code is not kept, and the remedy.
NOT_KEPT = "each run compiles it again, for about a minute. Set NUMBA_CACHE_DIR to a folder that can be written."

_has_warned = False


def _warn(fact: str, cause: Exception, remedy: str) -> None:
    """Warn once in a process; numba's reasons may be empty or of many lines."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        reason = [*str(cause).strip().splitlines(), type(cause).__name__][0]
        warnings.warn(f"{fact} ({reason}): {remedy}", RuntimeWarning, stacklevel=3)


def _warn_not_kept(cause: Exception) -> None:
    _warn("Compiled code is not kept", cause, NOT_KEPT)


def folder() -> Path | None:
    """Return the folder in which compiled code of this package is kept; None where none can be written."""
    try:
        return Path(FunctionCache(folder).cache_path)
    except RuntimeError:
        return None


class _TolerantCache(FunctionCache):
    """A cache whose files may be damaged, missing or impossible to write."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code of a signature; None where it has to be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as cause:  # damaged files end numba with errors of many kinds
            _warn("Compiled code is damaged", cause, "it is compiled again, for about a minute, and replaced.")
            with contextlib.suppress(Exception):  # saving reports what cannot be written
                self.flush()  # an index that cannot be read would never be replaced
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code if that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as cause:  # also where the index cannot be read: compiling is always possible
            _warn_not_kept(cause)


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
            _warn_not_kept(cause)
        return dispatcher

    return decorate
