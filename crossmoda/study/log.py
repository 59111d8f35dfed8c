"""The log of a study: messages, failures and progress."""

import datetime
import shutil
from collections.abc import Callable

from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.study.outcome import StudyOutcome

LOG = "study.log"
#: Free space below which a failure is attributed to a full disk.
_MIN_FREE_BYTES = 20_000_000


class Log:
    """The log of a study, with failures and progress."""

    def __init__(self, outcome: StudyOutcome, progress: Progress | None, echo: Callable[[str], None] | None):
        """Log into the folder of ``outcome`` and record failures in it; ``echo`` receives each line, too."""
        self.outcome, self._progress, self._echo = outcome, progress, echo
        self._fraction, self._message = 0.0, ""

    def write(self, line: str) -> None:
        """Write a line to the log."""
        now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        with (self.outcome.folder / LOG).open("a", encoding="utf-8") as stream:
            stream.write(f"{now}  {line}\n")
        if self._echo is not None:
            self._echo(line)

    def fail(self, name: str, why: str) -> None:
        """Record the failure of a case or step.

        Raises:
            InputError: the disk is full.

        """
        if shutil.disk_usage(self.outcome.folder).free < _MIN_FREE_BYTES:
            raise InputError(f"The disk is full ({name}: {why}). Free space, then run again; results are reused.")
        if why not in self.outcome.failed.setdefault(name, []):
            self.outcome.failed[name].append(why)
            self.write(f"{name}: failed: {why}")

    def show(self, fraction: float, message: str) -> None:
        """Report the progress of the study; may cancel."""
        self._fraction, self._message = fraction, message
        report(self._progress, fraction, message)

    def tick(self) -> None:
        """Report the same progress again, so that the study can be cancelled."""
        report(self._progress, self._fraction, self._message)

    def show_later(self, fraction: float, message: str) -> None:
        """Report progress at the next tick; for calls from other threads."""
        self._fraction, self._message = fraction, message
