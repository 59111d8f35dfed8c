"""Compiled loops on all processor cores."""

import contextlib
import contextvars
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from crossmoda import device

#: A loop is divided into at least so many parts, between which it can be cancelled.
_FEWEST_PARTS = 8
#: Seconds between two calls of the pulse.
_PULSE_SECONDS = 0.2


@functools.cache
def thread_count() -> int:
    """Return the number of threads: ``CROSSMODA_THREADS``, or the cores that this process may use."""
    requested = os.environ.get("CROSSMODA_THREADS", "")
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    return device.cores()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="deeds")


#: Called several times a second while loops run; see :func:`attended`.
_pulse: contextvars.ContextVar[Callable[[], None] | None] = contextvars.ContextVar("pulse", default=None)


@contextlib.contextmanager
def attended(pulse: Callable[[], None] | None) -> Iterator[None]:
    """Call ``pulse`` before each loop and several times a second while it runs, on the thread that waits for the loop.

    An exception from it ends the running loop, so that long work on large images is cancelled at once.
    """
    token = _pulse.set(pulse)
    try:
        yield
    finally:
        _pulse.reset(token)


def run(kernel: Callable[..., Any], count: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` for consecutive parts of ``range(count)``, on all threads.

    The kernels release the interpreter lock and write each item of the range independently, so the result does not
    depend on the number of threads. Python's own threads are used rather than numba's parallel loops: those cannot be
    entered from two threads at once and, with OpenMP, do not survive a fork.
    """
    _attend()  # many short loops are as long as one long loop
    workers = thread_count()
    parts = min(count, max(4 * workers, _FEWEST_PARTS))
    bounds = [count * part // parts for part in range(parts + 1)] if parts > 0 else []
    if workers == 1 or parts == 1:
        for low, high in itertools.pairwise(bounds):
            kernel(low, high, *arguments)
            _attend()
        return
    tasks = [_pool().submit(kernel, low, high, *arguments) for low, high in itertools.pairwise(bounds)]
    try:
        while wait(tasks, timeout=_PULSE_SECONDS).not_done:
            _attend()
    except BaseException:
        for task in tasks:
            task.cancel()
        wait(tasks)  # running tasks still use the arrays
        raise
    for task in tasks:
        task.result()


def both(first: Callable[[], Any], second: Callable[[], Any], at_once: bool) -> tuple[Any, Any]:
    """Return the results of two functions.

    ``at_once``, a GPU has work while the CPU computes, or a core is free: ``first`` runs on a thread of its own and is
    not attended.
    """
    if not at_once:
        return first(), second()
    with ThreadPoolExecutor(1, thread_name_prefix="deeds") as pool:
        task = pool.submit(first)
        result = second()
    return task.result(), result


def _attend() -> None:
    pulse = _pulse.get()
    if pulse is not None:
        pulse()
