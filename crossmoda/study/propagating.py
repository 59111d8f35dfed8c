"""The propagation of a study: each target is a chain of decisions with independent registrations between them."""

import functools
import time
from collections.abc import Sequence

from crossmoda.propagation.atlases import Atlas
from crossmoda.study import tasks
from crossmoda.study.executor import Executor
from crossmoda.study.log import Log
from crossmoda.study.plan import spoken_time
from crossmoda.study.tasks import Failed, Job, Next, Noisy


class Propagating:
    """The propagation of all targets."""

    def __init__(
        self, executor: Executor, log: Log, atlases: Sequence[Atlas], jobs: Sequence[Job], shares: tuple[float, float]
    ):
        """Propagate ``atlases`` to the targets of ``jobs``, between these two shares of the whole study."""
        self.executor, self.log, self.atlases, self.jobs = executor, log, atlases, jobs
        self._before, self._after = shares
        self.begun = time.monotonic()
        self.registrations = 0
        self._left: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._finished = 0

    def run(self) -> None:
        """Bring all targets to their noisy labels; failures are told to the log."""
        for number, job in enumerate(self.jobs):
            atlases = tuple(atlas for atlas in self.atlases if atlas.id != job.target.id)
            if not atlases:
                self.log.fail(job.target.id, "there is no atlas but the scan itself.")
                continue
            _Chain(self, job, atlases, -number).decide()
        self.executor.work(self.log.tick)
        self.log.outcome.registrations = self.registrations

    def show(self) -> None:
        """Show how many targets are done and how long the rest may take."""
        total = len(self.jobs)
        share = self._finished / total if total else 1.0
        spent = time.monotonic() - self.begun
        text = f"{self.registrations} registrations, {self._finished} of {total} targets"
        if self.registrations >= 2:
            mean_left = sum(self._left.values()) + (total - self._finished - len(self._left)) * len(self.atlases)
            text += f", about {spoken_time(spent / self.registrations * mean_left)} left"
            share = self.registrations / max(1, self.registrations + mean_left)
        self.log.show(self._before + (self._after - self._before) * share, text)

    def waits_for(self, target: str, count: int) -> None:
        """Remember how many registrations a target still waits for."""
        self._left[target] = count
        self.show()

    def registered(self, target: str) -> None:
        """Count a registration."""
        self.registrations += 1
        self._left[target] = max(0, self._left.get(target, 1) - 1)
        self.show()

    def finished(self, target: str) -> None:
        """Count a target."""
        self._left.pop(target, None)
        self._finished += 1
        self.show()


class _Chain:
    """One target on its way to a noisy label."""

    def __init__(self, whole: Propagating, job: Job, atlases: Sequence[Atlas], priority: int):
        self.whole, self.job, self.atlases, self.priority = whole, job, tuple(atlases), priority
        self.executor, self.log = whole.executor, whole.log
        self._waiting, self._last = 0, False
        self._tried: set[tuple[str, bool, bool]] = set()

    @property
    def name(self) -> str:
        return self.job.target.id

    def decide(self) -> None:
        """Ask which registrations are needed next."""
        self.executor.submit(
            self._decided, tasks.next_registrations, self.job, self.atlases,
            name=f"decide-{self.name}", priority=self.priority,
        )  # fmt: skip

    def _decided(self, result: Next | Failed) -> None:
        if isinstance(result, Failed):
            self._fail(result.why)
            return
        pairs = [pair for pair in result.pairs if pair not in self._tried]
        if not pairs:  # finished, or only what cannot be read is left: the propagation says so
            self._fuse()
            return
        by_name = {atlas.id: atlas for atlas in self.atlases}
        self._waiting, self._last = len(pairs), result.last
        self._tried.update(pairs)
        self.whole.waits_for(self.name, len(pairs) + (0 if result.last else len(self.atlases)))
        for atlas, mirrored, linear in pairs:
            self.executor.submit(
                functools.partial(self._registered, atlas),
                tasks.register, self.job, by_name[atlas], mirrored, linear,
                name=f"register-{atlas}-to-{self.name}", priority=self.priority,
            )  # fmt: skip

    def _fuse(self) -> None:
        self.executor.submit(
            self._fused, tasks.fuse, self.job, self.atlases, name=f"fuse-{self.name}", priority=self.priority + 1
        )

    def _registered(self, atlas: str, result: float | Failed) -> None:
        if isinstance(result, Failed):
            # Not a matter of the images, which is remembered on disk: leave the atlas out for this target.
            self.log.fail(f"{atlas} to {self.name}", result.why)
            self.atlases = tuple(one for one in self.atlases if one.id != atlas)
        self.whole.registered(self.name)
        self._waiting -= 1
        if self._waiting == 0:
            if not self.atlases:
                self._fail("no atlas could be registered to it.")
            elif self._last:
                self._fuse()
            else:
                self.decide()

    def _fused(self, result: Noisy | Failed) -> None:
        if isinstance(result, Failed):
            self._fail(result.why)
            return
        self.log.outcome.noisy[self.name] = result
        for note in result.notes:
            self.log.write(f"{self.name}: note: {note}")
        self.whole.finished(self.name)

    def _fail(self, why: str) -> None:
        self.log.fail(self.name, why)
        self.whole.finished(self.name)
