"""What each worker process of this computer loads first."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the study: it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
