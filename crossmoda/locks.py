"""One writer per folder, between processes and computers, with the library filelock.

The operating system releases a lock when its process ends, however it ends: there is no stale lock to remove by hand.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from crossmoda.errors import InputError, reason_of

#: The file in a folder that is locked; it stays, since removing it would race with another process.
LOCK = ".crossmoda.lock"
#: Seconds that a store (corrections, models) waits for another process, which writes for seconds at most.
_PATIENCE_S = 60.0

#: Locks of this process by folder: two threads of it take turns like two processes.
_threads: dict[str, threading.RLock] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def locked(folder: Path | str, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is missing; a thread may hold it twice.

    A folder that was made here and is empty when the work fails is removed again.

    Args:
        folder: the folder to write into.
        patience_s: time to wait for another holder.

    Raises:
        InputError: another run holds the lock, or the folder cannot be written.

    """
    import filelock

    folder = Path(folder)
    try:
        is_new = _make(folder)
        key = str(folder.resolve())
    except OSError as cause:
        raise InputError(f"Cannot write {folder}: {reason_of(cause)}. Choose a folder that can be written.") from cause
    with _guard:
        own = _threads.setdefault(key, threading.RLock())
    busy = InputError(f"Folder in use by another run: {folder}. Wait until it ends, or choose another folder.")
    if not own.acquire(timeout=patience_s) if patience_s else not own.acquire(blocking=False):
        raise busy
    try:
        with contextlib.ExitStack() as stack:
            try:
                lock = filelock.FileLock(folder / LOCK, timeout=patience_s, is_singleton=True, thread_local=False)
                try:
                    stack.enter_context(lock)
                except NotImplementedError:  # a network folder without locks of the operating system
                    stack.enter_context(filelock.SoftFileLock(folder / f"{LOCK}.soft", timeout=patience_s))
            except filelock.Timeout as cause:
                raise busy from cause
            except OSError as cause:
                raise InputError(
                    f"Cannot write {folder}: {reason_of(cause)}. Choose a folder that can be written."
                ) from cause
            yield
    except BaseException:
        if is_new:
            _remove_empty(folder)
        raise
    finally:
        own.release()


def _make(folder: Path) -> bool:
    """Make a folder; return whether it was missing."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        folder.mkdir(exist_ok=True)  # a file is refused
        return False
    return True


def _remove_empty(folder: Path) -> None:
    """Remove a folder that has nothing but its lock."""
    with contextlib.suppress(OSError):
        if [file.name for file in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()


@contextlib.contextmanager
def store_locked(folder: Path | str) -> Iterator[None]:
    """Hold the lock of a store for one change, waiting for the changes of others.

    Raises:
        InputError: another process held it for a minute, or the folder cannot be written.

    """
    with locked(folder, _PATIENCE_S):
        yield
