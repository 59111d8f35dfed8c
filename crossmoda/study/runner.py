"""The runner of a study: the sequence of its steps, their tasks and messages."""

import dataclasses
import functools
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import inference, locks, training
from crossmoda.dataset import Case
from crossmoda.dataset import results as layout
from crossmoda.dataset.corrections import all_corrections
from crossmoda.errors import Cancelled, InputError
from crossmoda.progress import Progress
from crossmoda.propagation.atlases import Atlas
from crossmoda.provenance import Record
from crossmoda.study import cluster, results, tasks
from crossmoda.study.cohort import STUDY, Cohort, open_cohort
from crossmoda.study.configuration import Configuration
from crossmoda.study.executor import Executor
from crossmoda.study.log import LOG, Log
from crossmoda.study.outcome import NOISY, PREDICTION, StudyOutcome
from crossmoda.study.propagating import Propagating
from crossmoda.study.tasks import Checked, Failed, Job

if TYPE_CHECKING:
    from distributed import Client

MODEL, STOP = "model", ".stop-"
#: Fraction of the whole work completed after each step, an estimate for the progress bar.
_AFTER = {"check": 0.03, "propagate": 0.6, "train": 0.85, "predict": 0.97}


def run(
    study: Configuration,
    progress: Progress | None = None,
    echo: Callable[[str], None] | None = None,
) -> StudyOutcome:
    """Run or resume a study.

    Args:
        study: the configuration.
        progress: callback(fraction, message); raise ``Cancelled`` to abort. Finished results remain.
        echo: receives each line of the log, too.

    Raises:
        InputError: the study cannot continue (no data set, no usable atlas, a full disk, a lost cluster). Failures of
            single cases are in :attr:`StudyOutcome.failed`.

    """
    runner = Runner(study, open_cohort(study), progress, echo)
    with locks.locked(study.results / STUDY), cluster.connected(study.cluster, study.batch_system) as client:
        return runner.run(client)


class Runner:
    """One run of a study."""

    executor: Executor

    def __init__(
        self,
        study: Configuration,
        cohort: Cohort,
        progress: Progress | None,
        echo: Callable[[str], None] | None,
    ):
        """Prepare a run; see :func:`run`."""
        self.study, self.cohort, self.folder = study, cohort, study.results / STUDY
        self.outcome = StudyOutcome(self.folder)
        self.log = Log(self.outcome, progress, echo)
        self.record = Record("study", _plain(study))
        self.stop_file = self.folder / f"{STOP}{uuid.uuid4().hex[:8]}"

    def run(self, client: "Client") -> StudyOutcome:
        """Run all steps."""
        self._start()
        settings = self.study.cluster
        self.executor = Executor(client, settings.retries, settings.patience)
        client.subscribe_topic(tasks.TOPIC, self._on_training_event)
        try:
            self._wait_for_workers(client)
            atlases, targets = self._check()
            self._propagate(atlases, targets)
            self._train(targets)
            self._predict(targets)
            self._evaluate()
        except BaseException as cause:
            self.stop_file.touch()
            self.executor.dismiss()
            stopped = isinstance(cause, (Cancelled, KeyboardInterrupt))
            self.log.write("Cancelled; finished results are reused." if stopped else f"Stopped: {cause}")
            raise
        self._report()
        return self.outcome

    def _start(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"{STOP}*"):
                leftover.unlink(missing_ok=True)
            self.log.write(f"Study of {self.study.data}")
        except OSError as cause:
            raise InputError(
                f"Cannot write {self.folder}: {(cause.strerror or str(cause)).lower()}. Select another results folder."
            ) from cause
        for name in self.cohort.repeated:
            self.log.fail(name, "duplicate case ID; the first scan is used. Use unique IDs.")

    def _wait_for_workers(self, client: "Client") -> None:
        self.log.show(0.0, "waiting for workers")
        start = time.monotonic()
        while not self.executor.workers():
            if time.monotonic() - start > self.study.cluster.patience:
                raise InputError(
                    f"No worker within {self.study.cluster.patience:.0f} s. Check the queue and the logs of the "
                    "cluster, or increase its patience."
                )
            time.sleep(0.2)
            self.log.tick()

    def _on_training_event(self, event: Any) -> None:
        try:
            fraction, message = event[1]
        except (TypeError, ValueError, IndexError):
            return
        low, high = _AFTER["propagate"], _AFTER["train"]
        self.log.show_later(low + (high - low) * float(fraction), f"training: {message}")

    # The steps

    def _check(self) -> tuple[list[Atlas], list[Case]]:
        """Check every scan; return the usable atlases and targets."""
        cases = (*self.cohort.atlases, *self.cohort.targets)
        checked: dict[int, Checked] = {}

        def done(number: int, case: Case, result: Checked | Failed) -> None:
            if isinstance(result, Failed):
                self.log.fail(case.id, result.why)
            else:
                checked[number] = result
                for problem in result.problems:
                    self.outcome.notes.append(problem)
                    self.log.write(f"{case.id}: note: {problem}")
            self.log.show(_AFTER["check"] * len(checked) / len(cases), f"checked {len(checked)} of {len(cases)} scans")

        for number, case in enumerate(cases):
            folder = self.folder / "checked" / f"{case.id}_{case.modality}"
            self.executor.submit(
                functools.partial(done, number, case),
                tasks.check, case, folder, name=f"check-{case.id}",
            )  # fmt: skip
        self.executor.work(self.log.tick)
        atlases = [checked[n].atlas for n in range(len(self.cohort.atlases)) if n in checked]
        targets = [case for n, case in enumerate(cases) if case in self.cohort.targets and n in checked]
        if not atlases or not targets:
            raise InputError(f"No usable {'target' if atlases else 'atlas'}. See the log: {self.folder / LOG}")
        return [atlas for atlas in atlases if atlas is not None], targets

    def _propagate(self, atlases: Sequence[Atlas], targets: Sequence[Case]) -> None:
        """Compute the noisy label of every target."""
        jobs = [self._job(target, atlases) for target in targets]
        shares = _AFTER["check"], _AFTER["propagate"]
        Propagating(self.executor, self.log, atlases, jobs, shares).run()
        self.log.write(
            f"{len(self.outcome.noisy)} of {len(targets)} noisy labels, {self.outcome.registrations} registrations in "
            "this run"
        )

    def _job(self, target: Case, atlases: Sequence[Atlas]) -> Job:
        """Return the data shared by the tasks of a target."""
        study = self.study
        return Job(
            target,
            study.results / target.id,
            study.propagation,
            study.registration,
            study.fusion,
            self.stop_file,
        )

    def _train(self, targets: Sequence[Case]) -> None:
        """Train the network on the atlases and on the noisy or corrected labels of targets outside the tests."""
        if not self.study.train:
            self.outcome.weights = self.study.initial
            return
        targets = [case for case in targets if case.id in self.outcome.noisy and case.id not in self.cohort.tests]
        corrections = all_corrections(self.study.data)
        cases = [training.TrainingCase.of(case) for case in self.cohort.atlases if case.id not in self.outcome.failed]
        from_targets = training.corrected_cases(targets, corrections)
        if targets:
            from_targets += [
                case
                for case in training.noisy_cases(targets, self.study.results, corrections)
                if case.id not in {corrected.id for corrected in from_targets}
            ]
        self.outcome.learned_from = tuple(case.id for case in from_targets)
        self.log.show(_AFTER["propagate"], f"training on {len(cases)} atlases and {len(from_targets)} targets")
        threads = self.study.cluster.threads
        if self.study.cluster.place == "local":
            threads *= self.study.cluster.local_workers  # the other workers are idle during training

        def done(result: Path | Failed) -> None:
            if isinstance(result, Failed):
                self.log.fail("training", result.why)
            else:
                self.outcome.weights = result
                self.log.write(f"Trained on {len(cases)} atlases and {len(from_targets)} targets: {result}")

        self.executor.submit(
            done, tasks.train, (*cases, *from_targets), self.folder / MODEL, self.study.training,
            self.study.initial, threads, self.stop_file, name="train",
        )  # fmt: skip
        self.executor.work(self.log.tick)

    def _predict(self, targets: Sequence[Case]) -> None:
        """Segment every target with the network."""
        if self.study.train and self.outcome.weights is None:
            return
        count = 0

        def done(case: Case, result: inference.StoredPrediction | Failed) -> None:
            nonlocal count
            count += 1
            if isinstance(result, Failed):
                self.log.fail(case.id, result.why)
            else:
                self.outcome.predicted[case.id] = result
            low, high = _AFTER["train"], _AFTER["predict"]
            self.log.show(low + (high - low) * count / len(targets), f"predicted {count} of {len(targets)} targets")

        for case in targets:
            self.executor.submit(
                functools.partial(done, case),
                tasks.predict, case, self.study.results, self.outcome.weights, self.study.prediction, self.stop_file,
                name=f"predict-{case.id}",
            )  # fmt: skip
        self.executor.work(self.log.tick)
        self.log.write(f"{len(self.outcome.predicted)} of {len(targets)} predictions")

    def _evaluate(self) -> None:
        """Score the label maps of all targets with a reference."""
        self.log.show(_AFTER["predict"], "scoring")

        def done(name: str, result: Any) -> None:
            if isinstance(result, Failed):
                self.log.fail(name, result.why)
            else:
                self.outcome.scores[name] = result

        for name, reference in self.cohort.references.items():
            folder = self.study.results / name
            files = {NOISY: folder / layout.NOISY_LABEL} if name in self.outcome.noisy else {}
            if name in self.outcome.predicted:
                files[PREDICTION] = folder / layout.PREDICTION / layout.LABEL_MAP
            if files:
                self.executor.submit(
                    functools.partial(done, name), tasks.evaluate, files, reference, name=f"evaluate-{name}"
                )
        self.executor.work(self.log.tick)

    def _report(self) -> None:
        self.log.show(0.99, "writing the report")
        results.write(self.study, self.cohort, self.outcome, self.record)
        failures = len(self.outcome.failed)
        self.log.write(f"Done; {failures} failed." if failures else "Done; nothing failed.")
        self.log.show(1.0, "done")


def _plain(study: Configuration) -> dict[str, Any]:
    """Return the configuration in JSON types, with the names of folders only."""
    content = dataclasses.asdict(study)
    return {key: value.name if isinstance(value, Path) else value for key, value in content.items()}
