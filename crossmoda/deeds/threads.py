"""Compiled loops on all processor cores."""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


@functools.cache
def thread_count() -> int:
    """Return how many threads work at once: ``CROSSMODA_THREADS``, or the cores this process may use."""
    wanted = os.environ.get("CROSSMODA_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="deeds")


def run(kernel: Callable[..., Any], count: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` for consecutive parts of ``range(count)``, on all threads.

    The kernels release the interpreter lock and write each item of the range independently, so the result does not
    depend on the number of threads. Python's own threads are used rather than numba's parallel loops: those cannot be
    entered from two threads at once and, with OpenMP, do not survive a fork.
    """
    if count <= 0:
        return
    workers = thread_count()
    if workers == 1 or count == 1:
        kernel(0, count, *arguments)
        return
    parts = min(count, 4 * workers)
    bounds = [count * part // parts for part in range(parts + 1)]
    tasks = [_pool().submit(kernel, low, high, *arguments) for low, high in itertools.pairwise(bounds)]
    for task in tasks:
        task.result()


def both(*works: Callable[[], Any]) -> list[Any]:
    """Call each of ``works`` on its own thread and return their results in order."""
    if thread_count() == 1:
        return [work() for work in works]
    return [task.result() for task in [_pool().submit(work) for work in works]]
