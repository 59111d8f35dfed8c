"""Logs of a training: metrics as CSV and, if it is installed, for TensorBoard."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crossmoda import output


def write_metrics(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write one CSV row per epoch; missing metrics are empty."""
    names = list(dict.fromkeys(name for row in history for name in row))
    output.write_csv(path, names, ([row.get(name) for name in names] for row in history))


@contextlib.contextmanager
def board(folder: Path, epochs: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that logs the row of an epoch to TensorBoard, or does nothing if it is not installed.

    Earlier log entries after ``epochs`` completed epochs are removed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    writer = SummaryWriter(str(folder), purge_step=epochs + 1)

    def log(row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, float):
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    try:
        yield log
    finally:
        writer.close()
