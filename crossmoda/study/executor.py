"""Execution of tasks on a Dask cluster, with a callback for each result."""

import itertools
import queue
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crossmoda.errors import InputError
from crossmoda.study.tasks import Failed, Stopped

if TYPE_CHECKING:
    from distributed import Client, Future

#: Maximum time between two ticks while no task finishes.
_TICK_S = 0.5


class Executor:
    """Submits tasks to the workers of a study and handles their results."""

    def __init__(self, client: "Client", retries: int, patience_s: float):
        """Submit tasks to the workers of ``client``; a task is retried ``retries`` times if its worker dies."""
        self.client, self.retries, self.patience_s = client, retries, patience_s
        self._finished: queue.Queue[Future] = queue.Queue()
        self._pending: dict[str, tuple[Future, Callable[[Any], None]]] = {}
        self._number, self._token = itertools.count(), uuid.uuid4().hex[:8]

    def workers(self) -> int:
        """Return the current number of workers."""
        return len(self.client.nthreads())

    def submit(
        self, callback: Callable[[Any], None], function: Any, *arguments: Any, name: str, priority: int = 0
    ) -> None:
        """Submit ``function(*arguments)``; :meth:`work` calls ``callback`` with the result.

        The result of a failed task is :class:`~crossmoda.study.tasks.Failed`.

        Args:
            callback: called in :meth:`work`.
            function: a task of :mod:`crossmoda.study.tasks`.
            arguments: its arguments.
            name: name in the dashboard of Dask.
            priority: tasks of higher priority run first.

        """
        key = f"{name}-{self._token}-{next(self._number)}"
        future = self.client.submit(function, *arguments, key=key, pure=False, retries=self.retries, priority=priority)
        self._pending[key] = future, callback
        future.add_done_callback(self._finished.put)

    def work(self, tick: Callable[[], None]) -> None:
        """Wait until all tasks have finished, including those submitted by callbacks; call ``tick`` every second.

        Raises:
            InputError: a task stopped the study, the scheduler was lost, or there was no worker for ``patience_s``.

        """
        last_worker_time = time.monotonic()
        while self._pending:
            try:
                future = self._finished.get(timeout=_TICK_S)
            except queue.Empty:
                if self.workers():
                    last_worker_time = time.monotonic()
                elif time.monotonic() - last_worker_time > self.patience_s:
                    raise InputError(
                        f"No worker for {self.patience_s:.0f} s. Check the cluster and run again; finished results are "
                        "reused."
                    ) from None
                tick()
                continue
            _, callback = self._pending.pop(str(future.key), (None, None))
            if callback is not None:
                result = self._result_of(future)
                if isinstance(result, Stopped):
                    raise InputError(result.why)
                callback(result)
            tick()

    def _result_of(self, future: "Future") -> Any:
        if future.status == "finished":
            return future.result()
        if future.status == "error":
            cause = future.exception()
            if type(cause).__name__ == "KilledWorker":
                return Failed("its worker died repeatedly. Increase the memory per worker.")
            return Failed(f"unexpected error: {cause} ({type(cause).__name__}).")
        raise InputError("The scheduler of the cluster was lost. Run again; finished results are reused.")

    def dismiss(self) -> None:
        """Cancel all pending tasks."""
        futures = [future for future, _ in self._pending.values()]
        self._pending.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)
