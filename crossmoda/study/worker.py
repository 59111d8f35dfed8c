"""Preload of local worker processes."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C, which the study handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
