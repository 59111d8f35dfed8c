"""The course of a study: what is handed to the workers when, and what is said about it."""

import dataclasses
import functools
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import training
from crossmoda.dataset import Case
from crossmoda.dataset import results as layout
from crossmoda.errors import Cancelled, InputError
from crossmoda.progress import Progress
from crossmoda.propagation.atlases import Atlas
from crossmoda.propagation.noisy_label import LABEL_MAP
from crossmoda.provenance import Record
from crossmoda.study import cluster, results, tasks
from crossmoda.study.cohort import STUDY, Cohort, open_cohort
from crossmoda.study.configuration import Configuration
from crossmoda.study.executor import Crew
from crossmoda.study.log import LOG, Journal
from crossmoda.study.outcome import NOISY, PREDICTION, Outcome
from crossmoda.study.propagating import Propagating
from crossmoda.study.tasks import Checked, Failed, Job, Predicted

if TYPE_CHECKING:
    from distributed import Client

MODEL, STOP = "model", ".stop-"
#: The share of the whole work that is done after each step: a guess that only the bar shows.
_AFTER = {"check": 0.03, "propagate": 0.6, "train": 0.85, "predict": 0.97}


def run(
    study: Configuration,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a study, or what is left of it.

    Args:
        study: what to do.
        progress: told what is done and how long it may still take; may cancel. What is finished stays.
        say: receives each line of the log as well.

    Raises:
        InputError: nothing can go on (no data set, no usable atlas, a full disk, a lost cluster). What fails for one
            case alone is in :attr:`Outcome.failed`.

    """
    cohort = open_cohort(study)
    folder = study.results / STUDY
    course = _Course(study, cohort, folder, progress, say)
    with cluster.connected(study.cluster, study.batch_system) as client:
        return course.run(client)


class _Course:
    """One run of a study."""

    crew: Crew

    def __init__(
        self,
        study: Configuration,
        cohort: Cohort,
        folder: Path,
        progress: Progress | None,
        say: Callable[[str], None] | None,
    ):
        self.study, self.cohort, self.folder = study, cohort, folder
        self.outcome = Outcome(folder)
        self.journal = Journal(self.outcome, progress, say)
        self.record = Record("study", _plain(study))
        self.stop_file = folder / f"{STOP}{uuid.uuid4().hex[:8]}"

    def run(self, client: "Client") -> Outcome:
        """Take all steps."""
        self._begin()
        settings = self.study.cluster
        self.crew = Crew(client, settings.retries, settings.patience)
        client.subscribe_topic(tasks.TOPIC, self._hear_training)
        try:
            self._wait_for_workers(client)
            atlases, targets = self._check()
            self._propagate(atlases, targets)
            self._train(targets)
            self._predict(targets)
            self._evaluate()
        except BaseException as cause:
            self.stop_file.touch()
            self.crew.dismiss()
            stopped = isinstance(cause, (Cancelled, KeyboardInterrupt))
            self.journal.log("Cancelled; what is finished is kept." if stopped else f"Stopped: {cause}")
            raise
        self._report()
        return self.outcome

    def _begin(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"{STOP}*"):
                leftover.unlink(missing_ok=True)
            self.journal.log(f"Study of {self.study.data}")
        except OSError as cause:
            raise InputError(
                f"Cannot write {self.folder}: {(cause.strerror or str(cause)).lower()}; choose other results."
            ) from cause
        for name in self.cohort.repeated:
            self.journal.fail(name, "is given twice; the first of the scans is used: give each its own name.")

    def _wait_for_workers(self, client: "Client") -> None:
        self.journal.show(0.0, "waiting for workers")
        begun = time.monotonic()
        while not self.crew.workers():
            if time.monotonic() - begun > self.study.cluster.patience:
                raise InputError(
                    f"No worker has come within {self.study.cluster.patience:.0f} s; see to the cluster (its queue, "
                    "its logs), or give it more patience."
                )
            time.sleep(0.2)
            self.journal.tick()

    def _hear_training(self, event: Any) -> None:
        try:
            fraction, message = event[1]
        except (TypeError, ValueError, IndexError):
            return
        low, high = _AFTER["propagate"], _AFTER["train"]
        self.journal.foretell(low + (high - low) * float(fraction), f"training: {message}")

    # The steps

    def _check(self) -> tuple[list[Atlas], list[Case]]:
        """Check every scan; return the atlases and targets that can be used."""
        cases = (*self.cohort.atlases, *self.cohort.targets)
        found: dict[int, Checked] = {}

        def note(number: int, case: Case, result: Checked | Failed) -> None:
            if isinstance(result, Failed):
                self.journal.fail(case.id, result.why)
            else:
                found[number] = result
                for problem in result.problems:
                    self.outcome.notes.append(problem)
                    self.journal.log(f"{case.id}: note: {problem}")
            self.journal.show(_AFTER["check"] * len(found) / len(cases), f"checked {len(found)} of {len(cases)} scans")

        for number, case in enumerate(cases):
            place = self.folder / "checked" / f"{case.id}_{case.modality}"
            self.crew.submit(
                functools.partial(note, number, case),
                tasks.check, case, place, name=f"check-{case.id}",
            )  # fmt: skip
        self.crew.work(self.journal.tick)
        atlases = [found[n].atlas for n in range(len(self.cohort.atlases)) if n in found]
        targets = [case for n, case in enumerate(cases) if case in self.cohort.targets and n in found]
        if not atlases or not targets:
            what = "atlas" if not atlases else "target"
            raise InputError(f"No {what} can be used; {self.folder / LOG} says why.")
        return [atlas for atlas in atlases if atlas is not None], targets

    def _propagate(self, atlases: Sequence[Atlas], targets: Sequence[Case]) -> None:
        """Make the noisy label of every target."""
        jobs = [self._job(target, atlases) for target in targets]
        shares = _AFTER["check"], _AFTER["propagate"]
        Propagating(self.crew, self.journal, atlases, jobs, shares).run()
        self.journal.log(
            f"{len(self.outcome.noisy)} of {len(targets)} noisy labels, {self.outcome.registrations} registrations in "
            "this run"
        )

    def _job(self, target: Case, atlases: Sequence[Atlas]) -> Job:
        """Return what the tasks of a target share."""
        study = self.study
        return Job(
            target,
            study.results / target.id,
            study.propagation,
            study.registration,
            study.fusion,
            any(atlas.volumes_mm3["cochlea"] > 0 for atlas in atlases),
            self.stop_file,
        )

    def _train(self, targets: Sequence[Case]) -> None:
        """Train the network on the atlases and on what is known about the targets that are no tests."""
        if not self.study.train:
            self.outcome.weights = self.study.initial
            return
        from crossmoda.dataset.corrections import all_corrections

        learned = [case for case in targets if case.id in self.outcome.noisy and case.id not in self.cohort.tests]
        corrections = all_corrections(self.study.data)
        cases = [training.TrainingCase.of(case) for case in self.cohort.atlases if case.id not in self.outcome.failed]
        from_targets = training.corrected_cases(learned, corrections)
        if learned:
            from_targets += [
                case
                for case in training.noisy_cases(learned, self.study.results, corrections)
                if case.id not in {known.id for known in from_targets}
            ]
        self.outcome.learned_from = tuple(case.id for case in from_targets)
        self.journal.show(_AFTER["propagate"], f"training on {len(cases)} atlases and {len(from_targets)} targets")
        threads = self.study.cluster.threads
        if self.study.cluster.place == "local":
            threads *= self.study.cluster.local_workers  # the others have nothing to do meanwhile

        def done(result: Path | Failed) -> None:
            if isinstance(result, Failed):
                self.journal.fail("training", result.why)
            else:
                self.outcome.weights = result
                self.journal.log(f"Trained on {len(cases)} atlases and {len(from_targets)} targets: {result}")

        self.crew.submit(
            done, tasks.train, (*cases, *from_targets), self.folder / MODEL, self.study.training,
            self.study.initial, threads,
            self.stop_file, name="train",
        )  # fmt: skip
        self.crew.work(self.journal.tick)

    def _predict(self, targets: Sequence[Case]) -> None:
        """Segment every target with the network."""
        if self.study.train and self.outcome.weights is None:
            return
        count = 0

        def done(case: Case, result: Predicted | Failed) -> None:
            nonlocal count
            count += 1
            if isinstance(result, Failed):
                self.journal.fail(case.id, result.why)
            else:
                self.outcome.predicted[case.id] = result
            low, high = _AFTER["train"], _AFTER["predict"]
            self.journal.show(low + (high - low) * count / len(targets), f"predicted {count} of {len(targets)} targets")

        for case in targets:
            self.crew.submit(
                functools.partial(done, case),
                tasks.predict, case, self.study.results, self.outcome.weights, self.study.prediction, self.stop_file,
                name=f"predict-{case.id}",
            )  # fmt: skip
        self.crew.work(self.journal.tick)
        self.journal.log(f"{len(self.outcome.predicted)} of {len(targets)} predictions")

    def _evaluate(self) -> None:
        """Score what there is of every target with a reference."""
        self.journal.show(_AFTER["predict"], "scoring")

        def done(name: str, result: Any) -> None:
            if isinstance(result, Failed):
                self.journal.fail(name, result.why)
            else:
                self.outcome.scores[name] = result

        for name, reference in self.cohort.references.items():
            place = self.study.results / name
            files = {NOISY: place / LABEL_MAP} if name in self.outcome.noisy else {}
            if name in self.outcome.predicted:
                files[PREDICTION] = place / layout.PREDICTION / layout.LABEL_MAP
            if files:
                self.crew.submit(
                    functools.partial(done, name), tasks.evaluate, files, reference,
                    name=f"evaluate-{name}",
                )  # fmt: skip
        self.crew.work(self.journal.tick)

    def _report(self) -> None:
        self.journal.show(0.99, "writing the report")
        results.write(self.study, self.cohort, self.outcome, self.record)
        failures = len(self.outcome.failed)
        self.journal.log(f"Done; {failures} failed." if failures else "Done; nothing failed.")
        self.journal.show(1.0, "done")


def _plain(study: Configuration) -> dict[str, Any]:
    """Return the configuration in JSON's types, folders by their names only."""
    content = dataclasses.asdict(study)
    return {key: value.name if isinstance(value, Path) else value for key, value in content.items()}
