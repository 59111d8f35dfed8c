"""What a study says while it runs: its log, what failed, how far it is."""

import datetime
import shutil
from collections.abc import Callable

from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.study.outcome import StudyOutcome

LOG = "study.log"
#: With less free space than this a failure is taken for that of a full disk, bytes.
_LEAST_FREE = 20_000_000


class Log:
    """Told by all steps of a study what happens."""

    def __init__(self, outcome: StudyOutcome, progress: Progress | None, say: Callable[[str], None] | None):
        """Log into the folder of ``outcome``, whose failures are kept; ``say`` receives each line as well."""
        self.outcome, self._progress, self._say = outcome, progress, say
        self._fraction, self._message = 0.0, ""

    def write(self, line: str) -> None:
        """Write a line of the log."""
        now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        with (self.outcome.folder / LOG).open("a", encoding="utf-8") as stream:
            stream.write(f"{now}  {line}\n")
        if self._say is not None:
            self._say(line)

    def fail(self, name: str, why: str) -> None:
        """Report that a case, or a step, failed.

        Raises:
            InputError: it failed because the disk is full.

        """
        if shutil.disk_usage(self.outcome.folder).free < _LEAST_FREE:
            raise InputError(
                f"The disk is full ({name}: {why}). Free some space and run again; what is finished is kept."
            )
        if why not in self.outcome.failed.setdefault(name, []):
            self.outcome.failed[name].append(why)
            self.write(f"{name}: failed: {why}")

    def show(self, fraction: float, message: str) -> None:
        """Show how far the study is; may cancel."""
        self._fraction, self._message = fraction, message
        report(self._progress, fraction, message)

    def tick(self) -> None:
        """Show the same again, so that the study can be cancelled while nothing happens."""
        report(self._progress, self._fraction, self._message)

    def foretell(self, fraction: float, message: str) -> None:
        """Have this shown at the next tick: for what is heard in another thread."""
        self._fraction, self._message = fraction, message
