"""Tasks handed to Dask, and what follows from each as it comes back."""

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

#: Seconds between two looks at progress while no task comes back.
_TICK = 0.5


class Executor:
    """The workers of a study, as the study sees them."""

    def __init__(self, client: "Client", retries: int, patience_s: float):
        """Hand tasks to the workers of ``client``; a task whose worker died is done again ``retries`` times."""
        self.client, self.retries, self.patience_s = client, retries, patience_s
        self._back: queue.Queue[Future] = queue.Queue()
        self._under_way: dict[str, tuple[Future, Callable[[Any], None]]] = {}
        self._number, self._token = itertools.count(), uuid.uuid4().hex[:8]

    def workers(self) -> int:
        """Return how many workers there are now."""
        return len(self.client.nthreads())

    def submit(self, then: Callable[[Any], None], function: Any, *arguments: Any, name: str, priority: int = 0) -> None:
        """Have ``function(*arguments)`` done and ``then`` called here with what it returns.

        What could not be done comes back as :class:`~crossmoda.study.tasks.Failed`.

        Args:
            then: called in :meth:`work`.
            function: a task of :mod:`crossmoda.study.tasks`.
            arguments: its arguments.
            name: what the dashboard of Dask calls it.
            priority: higher comes first.

        """
        key = f"{name}-{self._token}-{next(self._number)}"
        future = self.client.submit(function, *arguments, key=key, pure=False, retries=self.retries, priority=priority)
        self._under_way[key] = future, then
        future.add_done_callback(self._back.put)

    def work(self, tick: Callable[[], None]) -> None:
        """Wait until all tasks, also those submitted meanwhile, are back; ``tick`` is called at least every second.

        Raises:
            InputError: a task says that nothing can go on, the scheduler is lost, or there has been no worker for the
                time of ``patience_s``.

        """
        last_seen = time.monotonic()
        while self._under_way:
            try:
                future = self._back.get(timeout=_TICK)
            except queue.Empty:
                if self.workers():
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > self.patience_s:
                    raise InputError(
                        f"There has been no worker for {self.patience_s:.0f} s; see to the cluster and run again: "
                        "what is finished is kept."
                    ) from None
                tick()
                continue
            entry = self._under_way.pop(str(future.key), None)
            if entry is not None:
                result = self._result_of(future)
                if isinstance(result, Stopped):
                    raise InputError(result.why)
                entry[1](result)
            tick()

    def _result_of(self, future: "Future") -> Any:
        if future.status == "finished":
            return future.result()
        if future.status == "error":
            cause = future.exception()
            if type(cause).__name__ == "KilledWorker":
                return Failed("its worker died every time; has it too little memory?")
            return Failed(f"unexpected error: {cause} ({type(cause).__name__}).")
        raise InputError("The scheduler of the cluster was lost; run again: what is finished is kept.")

    def dismiss(self) -> None:
        """Withdraw all tasks that have not begun."""
        futures = [future for future, _ in self._under_way.values()]
        self._under_way.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)
