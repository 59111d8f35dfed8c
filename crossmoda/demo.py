"""The whole chain on digital subjects, with nothing to download.

Labeled ceT1 atlases and unlabeled hrT2 targets are simulated; the atlases' labels are propagated to each target and
fused; the bundled network is trained further on atlases and noisy labels, and segments unseen targets. The reference
labels of the targets are read for the scores only.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossmoda import (
    cache,
    dataset,
    deeds,
    evaluation,
    figures,
    fusion,
    inference,
    labels,
    parameters,
    propagation,
    simulation,
    training,
    volume,
    weights,
)
from crossmoda.deeds.files import RegistrationSettings, register_files
from crossmoda.errors import InputError
from crossmoda.output import check_writable
from crossmoda.parameters import parameter, parameter_of
from crossmoda.progress import Progress, part, report
from crossmoda.report import Report
from crossmoda.simulation.dataset import TEST, TRUTH
from crossmoda.simulation.subject import BASES
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case


@dataclasses.dataclass(frozen=True)
class DemoSettings(parameters.Settings):
    """Size of the demo."""

    atlases: int = parameter(6, "Number of labeled ceT1 scans", minimum=2, maximum=100)
    targets: int = parameter(2, "Number of unlabeled hrT2 scans with noisy labels to train on", minimum=0, maximum=100)
    tests: int = parameter(2, "Number of unlabeled hrT2 scans to segment only", minimum=1, maximum=100)
    base: str = parameter("phantom", "Anatomy of the digital subjects", choices=BASES)
    seed: int = parameter(1, "Random seed", minimum=0, maximum=100000)
    training_seconds: float = parameter(60.0, "Duration of the training", unit="s", minimum=1, maximum=100000)
    device: str = parameter_of(deeds.Settings, "device")


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """Scores and files of the demo."""

    scores: dict[str, dict[str, evaluation.Scores]]
    """step -> test case -> scores"""
    files: dict[str, Path]
    """description -> output file"""


#: The scored steps, in the order of the chain.
BY_HEADER, ONE_ATLAS, MAJORITY, FUSED, BUNDLED, FINE_TUNED = (
    "one atlas, by header",
    "one atlas, deeds",
    "majority vote",
    "fused (noisy label)",
    "network, bundled weights",
    "network, fine-tuned",
)


def run(
    folder: Path | str,
    settings: DemoSettings = DemoSettings(),
    progress: Progress | None = None,
    *,
    subjects: simulation.Settings = simulation.Settings(),  # noqa: B008 (frozen)
) -> DemoResult:
    """Run the chain in ``folder``; a second run with the same settings reuses finished steps.

    Args:
        folder: receives all results; new, empty, or of an earlier demo.
        settings: size of the demo.
        progress: callback(fraction, message); raise Cancelled to abort. Finished steps stay.
        subjects: variation and acquisition of the digital subjects.

    Raises:
        InputError: the folder cannot be written, or has a demo with other settings.

    """
    folder = Path(folder)
    check_writable(folder, is_folder=True)
    data = _simulate(folder, settings, subjects, part(progress, 0.0, 0.2))
    tests = [case for case in data.targets if case.image.parent.name == TEST]
    propagated = _propagate(data, folder / "propagated", settings, part(progress, 0.2, 0.55))
    trained = _train(data, tests, folder / "propagated", folder / "model", settings, part(progress, 0.55, 0.88))
    predicted = {}
    for number, case in enumerate(tests):
        name = "segmentation" if number == 0 else f"segmentation_{case.id}"
        step = part(
            progress, 0.88 + 0.04 * number / len(tests), 0.88 + 0.04 * (number + 1) / len(tests), f"{case.id}: "
        )
        predicted[case.id] = inference.predict_files(
            case.image, folder / f"{name}.seg.nrrd", trained, inference.Settings(device=settings.device), step
        )
    subject = _Shown(tests[0], propagated[tests[0].id], predicted[tests[0].id])
    registered = subject.register(data, folder / "registration", settings, part(progress, 0.92, 0.94))
    report(progress, 0.94, "scoring")
    scores = _score(data, tests, propagated, predicted, settings.device)
    evaluation.write_scores(
        {f"{case}, {step}": row for step, cases in scores.items() for case, row in cases.items()}, folder / "scores.csv"
    )
    report(progress, 0.97, "writing the report")
    subject.report(registered, scores, settings).write(folder / "report.html")
    files = {
        "segmentation": folder / "segmentation.seg.nrrd",
        "T2 scan": subject.case.image,
        "noisy label": subject.propagation.folder / "noisy_label.seg.nrrd",
        "transform, atlas to T2": folder / "registration" / "T.h5",
        "inverse transform": folder / "registration" / "T_inverse.h5",
        "network weights": trained,
        "scores": folder / "scores.csv",
        "report": folder / "report.html",
    }
    report(progress, 1.0, "done")
    return DemoResult(scores, files)


def _simulate(
    folder: Path, settings: DemoSettings, subjects: simulation.Settings, progress: Progress | None
) -> dataset.Dataset:
    step = cache.CachedStep(folder, demo=settings, subjects=subjects)
    data = folder / "dataset"
    if step.results() is None:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / cache.SEAL).exists() and not data.exists():
            raise InputError(f"The folder is not empty and has no demo: {folder}. Choose a new folder.")
        if data.exists():
            raise InputError(f"Demo with other settings in {folder}. Choose another folder or delete it.")
        simulation.simulate_dataset(
            data,
            sources=settings.atlases,
            targets=settings.targets,
            tests=settings.tests,
            seed=settings.seed,
            base=settings.base,
            settings=subjects,
            progress=part(progress, 0.0, 0.98, "simulating: "),
        )
        step.begin()
        step.finish([str(Path(data.name) / "dataset.json")], {})
    return dataset.open_dataset(data).with_sides()


def _propagate(
    data: dataset.Dataset, folder: Path, settings: DemoSettings, progress: Progress | None
) -> dict[str, propagation.PropagationResult]:
    results, failures = propagation.propagate_all(
        data.targets, data.sources, folder, progress=progress, device=settings.device
    )
    for cause in failures.values():
        raise InputError(cause)
    return results


def _train(
    data: dataset.Dataset,
    tests: "Sequence[Case]",
    propagated: Path,
    folder: Path,
    settings: DemoSettings,
    progress: Progress | None,
) -> Path:
    cases = [training.TrainingCase.of(case) for case in data.sources]
    if learned := [case for case in data.targets if case not in tests]:
        cases += training.noisy_cases(learned, propagated)
    limits = training.Settings(seconds=settings.training_seconds, seed=settings.seed, device=settings.device)
    return training.train(cases, folder, limits, progress=progress, initial=weights.bundled())


def _truth(case: "Case") -> Volume:
    name = case.image.name.replace("hrT2", "Label")
    return volume.read_label_map(case.image.parents[1] / TRUTH / name)


def _votes(done: propagation.PropagationResult) -> dict[str, Volume]:
    """Return the label map of every contributing atlas, on the target's grid."""
    votes = {}
    for outcome in done.contributors:
        warped = volume.read_label_map(done.warped_label(outcome))
        votes[outcome.atlas] = volume.resample(warped, done.label_map.grid, interpolation="nearest")
    return votes


def _score(
    data: dataset.Dataset,
    tests: "Sequence[Case]",
    propagated: Mapping[str, propagation.PropagationResult],
    predicted: Mapping[str, inference.Prediction],
    device: str,
) -> dict[str, dict[str, evaluation.Scores]]:
    """Score every step of the chain on the test cases."""
    scores: dict[str, dict[str, evaluation.Scores]] = {
        step: {} for step in (BY_HEADER, ONE_ATLAS, MAJORITY, FUSED, BUNDLED, FINE_TUNED)
    }
    for case in tests:
        truth = _truth(case)
        done = propagated[case.id]
        for atlas in data.sources:
            by_header = volume.resample(atlas.read_label(), truth.grid, interpolation="label")
            scores[BY_HEADER][f"{case.id} from {atlas.id}"] = evaluation.evaluate(by_header, truth)
        votes = _votes(done)
        for atlas_id, vote in votes.items():
            scores[ONE_ATLAS][f"{case.id} from {atlas_id}"] = evaluation.evaluate(vote, truth)
        majority = fusion.majority_vote([vote.array for vote in votes.values()])
        scores[MAJORITY][case.id] = evaluation.evaluate(truth.with_array(majority), truth)
        scores[FUSED][case.id] = evaluation.evaluate(done.label_map, truth)
        bundled = inference.predict(case.read_image(), None, inference.Settings(device=device))
        scores[BUNDLED][case.id] = evaluation.evaluate(bundled.label_map, truth)
        scores[FINE_TUNED][case.id] = evaluation.evaluate(predicted[case.id].label_map, truth)
    return scores


@dataclasses.dataclass(frozen=True)
class _Shown:
    """The test case whose pictures are in the report."""

    case: "Case"
    propagation: propagation.PropagationResult
    prediction: inference.Prediction

    def register(
        self, data: dataset.Dataset, folder: Path, settings: DemoSettings, progress: Progress | None
    ) -> tuple["Case", deeds.Registration]:
        """Register the atlas with the best registration, for its transform and the pictures."""
        best = max(self.propagation.contributors, key=lambda outcome: (not outcome.mirrored, outcome.quality or 0.0))
        atlas = next(case for case in data.sources if case.id == best.atlas)
        done = register_files(
            self.case.image,
            atlas.image,
            folder,
            moving_label=atlas.label,
            settings=RegistrationSettings(device=settings.device, region="whole"),
            progress=progress,
        )
        return atlas, done

    def report(
        self,
        registered: tuple["Case", deeds.Registration],
        scores: Mapping[str, Mapping[str, evaluation.Scores]],
        settings: DemoSettings,
    ) -> Report:
        """Return the report: pictures of this case, scores of all test cases."""
        atlas, registration = registered
        image, truth = self.case.read_image(), _truth(self.case)
        moving, moving_label = atlas.read_image(), atlas.read_label()
        page = Report(
            "CrossModa demo",
            f"Digital subjects: {settings.atlases} labeled ceT1 atlases, {settings.targets} unlabeled hrT2 scans to "
            f"train on, {settings.tests} hrT2 scans to segment. The bundled network, trained on other digital "
            f"subjects, was trained for {settings.training_seconds:.0f} more seconds. The numbers do not apply to "
            "real patients.",
        )
        page.section(
            "Scores on the test scans", "Mean ± standard deviation over scans (and over atlases, where one is used)."
        )
        page.table(
            ["step", *_COLUMNS], score_rows(scores), "Dice: 1 is perfect. HD95, ASSD: distances of the surfaces."
        )
        page.section("Registration", f"Atlas {atlas.id} (ceT1) registered to {self.case.id} (hrT2) with deeds.")
        page.figure(
            figures.registration_figure(
                image,
                volume.resample(moving, image.grid),
                registration.warp_image(moving),
                {
                    "before": volume.resample(moving_label, image.grid, interpolation="label"),
                    "after": registration.warp_label_map(moving_label),
                },
            ),
            "Checkerboards of target and atlas, and the atlas's labels on the target, before and after registration.",
        )
        page.section("Fusion", " ".join(self.propagation.notes))
        page.figure(
            figures.fusion_figure(
                image,
                list(_votes(self.propagation).values()),
                self.propagation.label_map,
                self.propagation.read_disagreement(),
            ),
            "Labels of all atlases, the fused label, and the disagreement of the atlases.",
        )
        page.section("Segmentation", "Segmentation of the network (color) and simulated truth (dashed white).")
        page.figure(figures.segmentation_figure(image, self.prediction.label_map, truth), "Outlines on the T2 scan.")
        page.table(
            ["structure", "volume [mm³]", "true volume [mm³]", "error [%]"],
            _volume_rows(scores[FINE_TUNED][self.case.id]),
        )
        return page


def _volume_rows(scores: evaluation.Scores) -> list[list[str]]:
    rows = []
    for structure in labels.STRUCTURES:
        row = scores[structure.key]
        numbers = (row["volume_mm3"], row["reference_volume_mm3"], row["volume_error_percent"])
        rows.append([structure.name, *(f"{number:.0f}" for number in numbers)])
    return rows


_COLUMNS = ("Dice VS", "Dice cochlea", "HD95 VS [mm]", "HD95 cochlea [mm]", "ASSD VS [mm]", "ASSD cochlea [mm]")


def score_rows(scores: Mapping[str, Mapping[str, evaluation.Scores]]) -> list[list[str]]:
    """Return the rows of the table of scores: step, then mean ± standard deviation of :data:`_COLUMNS`."""
    digits = {"dice": 3, "hd95_mm": 1, "assd_mm": 2}
    return [[step, *evaluation.mean_cells(cases, digits)] for step, cases in scores.items()]


def table(scores: Mapping[str, Mapping[str, evaluation.Scores]]) -> str:
    """Return the table of scores as text for the terminal."""
    return evaluation.text_table([["", *_COLUMNS], *score_rows(scores)])
