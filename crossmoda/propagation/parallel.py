"""Several registrations at the same time in one process."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import Any

from crossmoda.errors import Cancelled
from crossmoda.progress import Progress, part, report

#: Registrations done at the same time, at most: each has its images in memory.
_MOST_AT_ONCE = 4
#: The same where a graphics card registers: reading, preparing and warping then take most of the time.
_MOST_WITH_CARD = 8
#: What a registration takes of the card's memory, GiB.
_CARD_GIB = 2.0


def default_at_once(registration: Any) -> int:
    """Return how many registrations are done at the same time."""
    from crossmoda import device
    from crossmoda.deeds.backend_cpu.threads import thread_count

    if device.choose(getattr(registration, "device", "cpu")) == "cpu":
        return min(thread_count(), _MOST_AT_ONCE)
    return max(min(thread_count(), _MOST_WITH_CARD, int(device.memory_gib("cuda") / _CARD_GIB)), 1)


def in_parallel(work: Any, items: Sequence[Any], at_once: int, progress: Progress | None) -> None:
    """Call ``work(item, progress)`` for each item, some at once; progress is told, and may cancel, in this thread."""
    names = [f"atlas {number} of {len(items)}: " for number in range(1, len(items) + 1)]
    if at_once == 1 or len(items) == 1:
        for number, (name, item) in enumerate(zip(names, items, strict=True)):
            work(item, part(progress, number / len(items), (number + 1) / len(items), name))
        return
    fractions, messages, stop = [0.0] * len(items), ["waiting"], Event()

    def one(number: int) -> None:
        def tell(fraction: float, message: str) -> None:
            if stop.is_set():
                raise Cancelled
            fractions[number], messages[0] = fraction, names[number] + message

        tell(0.0, "reading")
        work(items[number], tell)
        fractions[number] = 1.0

    with ThreadPoolExecutor(at_once, thread_name_prefix="registration") as pool:
        tasks = [pool.submit(one, number) for number in range(len(items))]
        try:
            waiting = set(tasks)
            while waiting:
                finished, waiting = wait(waiting, 0.2, FIRST_EXCEPTION)
                for task in finished:
                    task.result()
                report(progress, sum(fractions) / len(items), messages[0])
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
