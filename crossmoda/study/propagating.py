"""The propagation of a study: each target is a chain of decisions with independent registrations between them."""

import functools
import time
from collections.abc import Sequence

from crossmoda.propagation.atlases import Atlas
from crossmoda.study import tasks
from crossmoda.study.executor import Executor
from crossmoda.study.log import Log
from crossmoda.study.plan import readable_time
from crossmoda.study.tasks import Failed, Job, Next, Noisy


class Propagating:
    """The propagation of all targets."""

    def __init__(
        self,
        executor: Executor,
        log: Log,
        atlases: Sequence[Atlas],
        jobs: Sequence[Job],
        fractions: tuple[float, float],
    ):
        """Propagate ``atlases`` to the targets of ``jobs``, between two ``fractions`` of the study's progress."""
        self.executor, self.log, self.atlases, self.jobs = executor, log, atlases, jobs
        self._start, self._stop = fractions
        self._start_time = time.monotonic()
        self.registrations = 0
        self._pending: dict[str, int] = {}
        self._finished = 0

    def run(self) -> None:
        """Make the noisy labels of all targets; failures are logged."""
        for number, job in enumerate(self.jobs):
            atlases = tuple(atlas for atlas in self.atlases if atlas.id != job.target.id)
            if not atlases:
                self.log.fail(job.target.id, "there is no atlas but the scan itself.")
                continue
            _Chain(self, job, atlases, -number).decide()
        self.executor.work(self.log.tick)
        self.log.outcome.registrations = self.registrations

    def show(self) -> None:
        """Report the finished targets and the remaining time."""
        total = len(self.jobs)
        fraction = self._finished / total if total else 1.0
        seconds = time.monotonic() - self._start_time
        text = f"{self.registrations} registrations, {self._finished} of {total} targets"
        if self.registrations >= 2:
            started = self._finished + len(self._pending)
            remaining = sum(self._pending.values()) + (total - started) * len(self.atlases)
            text += f", about {readable_time(seconds / self.registrations * remaining)} left"
            fraction = self.registrations / max(1, self.registrations + remaining)
        self.log.show(self._start + (self._stop - self._start) * fraction, text)

    def waits_for(self, target: str, count: int) -> None:
        """Record the number of pending registrations of a target."""
        self._pending[target] = count
        self.show()

    def registered(self, target: str) -> None:
        """Count a finished registration."""
        self.registrations += 1
        self._pending[target] = max(0, self._pending.get(target, 1) - 1)
        self.show()

    def finished(self, target: str) -> None:
        """Count a finished target."""
        self._pending.pop(target, None)
        self._finished += 1
        self.show()


class _Chain:
    """The decisions and registrations of one target."""

    def __init__(self, study: Propagating, job: Job, atlases: Sequence[Atlas], priority: int):
        self.study, self.job, self.atlases, self.priority = study, job, tuple(atlases), priority
        self.executor, self.log = study.executor, study.log
        self._waiting, self._is_last = 0, False
        self._submitted: set[tuple[str, bool, bool]] = set()

    @property
    def name(self) -> str:
        return self.job.target.id

    def decide(self) -> None:
        """Submit the task that decides which registrations are needed next."""
        self.executor.submit(
            self._decided, tasks.next_registrations, self.job, self.atlases,
            name=f"decide-{self.name}", priority=self.priority,
        )  # fmt: skip

    def _decided(self, result: Next | Failed) -> None:
        if isinstance(result, Failed):
            self._fail(result.why)
            return
        pairs = [pair for pair in result.pairs if pair not in self._submitted]
        if not pairs:  # finished, or only unreadable registrations are left, which the propagation reports
            self._fuse()
            return
        by_name = {atlas.id: atlas for atlas in self.atlases}
        self._waiting, self._is_last = len(pairs), result.last
        self._submitted.update(pairs)
        self.study.waits_for(self.name, len(pairs) + (0 if result.last else len(self.atlases)))
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
            # Not the fault of the images, which is cached: exclude the atlas for this target.
            self.log.fail(f"{atlas} to {self.name}", result.why)
            self.atlases = tuple(remaining for remaining in self.atlases if remaining.id != atlas)
        self.study.registered(self.name)
        self._waiting -= 1
        if self._waiting == 0:
            if not self.atlases:
                self._fail("no atlas could be registered to it.")
            elif self._is_last:
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
        self.study.finished(self.name)

    def _fail(self, reason: str) -> None:
        self.log.fail(self.name, reason)
        self.study.finished(self.name)
