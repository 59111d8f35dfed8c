"""Propagate atlas labels to targets."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import batch, fusion, locks, output, volume
from crossmoda.dataset.results import CONFIDENCE, DISAGREEMENT, NOISY_LABEL, PROPAGATION_FILES
from crossmoda.errors import InputError
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress, part, report
from crossmoda.propagation.atlases import Atlas, examine_in_parallel
from crossmoda.propagation.noisy_label import AtlasOutcome
from crossmoda.propagation.registrations import REGISTRATIONS, WARPED, Register, folder_name
from crossmoda.propagation.run import Run
from crossmoda.propagation.settings import Settings
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case


@dataclasses.dataclass(frozen=True)
class PropagationResult:
    """The noisy label of one target, and how it was made."""

    label_map: Volume
    """on the target's grid"""
    folder: Path
    """the folder of :data:`PROPAGATION_FILES`"""
    tumor_side: str | None
    """found or set; None where it is unknown or there is no tumor"""
    side_certainty: float
    """the probability that the tumor side is right, 0.5 to 1"""
    outcomes: tuple[AtlasOutcome, ...]
    notes: tuple[str, ...]
    """what a user should know"""
    reused: bool
    """whether all files were finished before"""

    @property
    def contributors(self) -> tuple[AtlasOutcome, ...]:
        """The atlases that were fused."""
        return tuple(outcome for outcome in self.outcomes if not outcome.excluded)

    def read_confidence(self) -> Volume:
        """Read the probability of the label map's labels, on the target's grid."""
        return volume.read(self.folder / CONFIDENCE)

    def read_disagreement(self) -> Volume:
        """Read the disagreement of the atlases (entropy, 0 to 1), on the target's grid."""
        return volume.read(self.folder / DISAGREEMENT)

    def warped_label(self, outcome: AtlasOutcome) -> Path:
        """Return the file of an atlas's label map on the registered part of the target."""
        return self._registration(outcome) / WARPED

    def transform(self, outcome: AtlasOutcome) -> Path:
        """Return the file of the transform from target points to points of the atlas's own files.

        It includes the reflection of a mirrored atlas, and is written if ``Settings.keep_transforms`` is set.
        """
        from crossmoda.deeds.transform import TRANSFORM

        return self._registration(outcome) / TRANSFORM

    def _registration(self, outcome: AtlasOutcome) -> Path:
        return self.folder / REGISTRATIONS / folder_name(outcome.atlas, outcome.mirrored)


def propagate(
    target: "Case",
    atlases: Sequence["Case | Atlas"],
    folder: Path | str,
    settings: Settings = Settings(),
    progress: Progress | None = None,
    *,
    registration: Any = None,
    fusion_settings: fusion.Settings | None = None,
    register: Register | None = None,
    parallel_registrations: int | None = None,
) -> PropagationResult:
    """Make the noisy label of a target from labeled atlases.

    Args:
        target: the scan to be labeled.
        atlases: labeled scans.
        folder: receives :data:`PROPAGATION_FILES`, on the target's grid, and each finished registration under
            ``registrations``. A second run with the same inputs and parameters reuses what is finished.
        settings: parameters of the propagation.
        progress: callback(fraction, message); raise Cancelled to abort. What is finished stays.
        registration: settings of the registration; None: the default of deeds.
        fusion_settings: settings of the fusion; None: the default.
        register: the registration program, ``register(fixed, moving, settings, initial=, progress=)``; None: deeds.
        parallel_registrations: number of registrations at the same time; None: one per processor core, at most four,
            or eight on a GPU.

    Raises:
        InputError: the target cannot be read or shows no ears, no atlas is usable (the message says why), or the
            outputs cannot be written.

    """
    run = Run(target, Path(folder), settings, registration, fusion_settings, register)
    report(progress, 0.0, f"examining {len(atlases)} atlases")
    run.examine(examine_in_parallel(atlases), part(progress, 0.0, 0.03))
    step = run.step()
    results = step.results()
    if results is not None:
        report(progress, 1.0, "reused")
        label_map = volume.read_label_map(run.folder / NOISY_LABEL)
        return _result(label_map, run.folder, results, reused=True)
    step.begin(PROPAGATION_FILES)
    start = 0.03
    while pending := run.pending(part(progress, start, start + 0.02)):
        stop = 0.03 + 0.9 * run.fraction(pending)
        run.registrations.register(pending, part(progress, start + 0.02, stop), parallel_registrations)
        start = stop
    label_map = run.fuse_and_write(part(progress, 0.93, 1.0))
    results = {
        "tumor_side": run.side(),
        "side_certainty": run.tumor_side().certainty,
        "outcomes": [dataclasses.asdict(outcome) for outcome in run.outcomes],
        "notes": run.notes,
    }
    step.finish(PROPAGATION_FILES, results)
    report(progress, 1.0, "done")
    return _result(label_map, run.folder, results, reused=False)


def _result(label_map: Volume, folder: Path, results: dict[str, Any], reused: bool) -> PropagationResult:
    outcomes = tuple(AtlasOutcome(**outcome) for outcome in results["outcomes"])
    side, certainty, notes = results["tumor_side"], results["side_certainty"], tuple(results["notes"])
    return PropagationResult(label_map, folder, side, certainty, outcomes, notes, reused)


def propagate_all(
    targets: Sequence["Case"],
    atlases: Sequence["Case"],
    folder: Path | str,
    settings: Settings | None = None,
    progress: Progress | None = None,
    *,
    device: str = "auto",
    **options: Any,
) -> tuple[dict[str, PropagationResult], dict[str, str]]:
    """Propagate the atlases to several targets, each into ``folder/<id>``; failures do not stop the others.

    Args:
        targets: the scans to be labeled.
        atlases: labeled scans.
        folder: receives one folder per target.
        settings: parameters of the propagation; None: the default.
        progress: callback(fraction, message); raise Cancelled to abort.
        device: the processor of the registration, unless ``registration`` is among the options.
        options: further arguments of :func:`propagate`.

    Returns:
        The result by target ID, and the reason of each failure.

    Raises:
        CannotWrite: the disk is full: every target would fail.

    """
    output.check_writable(folder, is_folder=True)
    repeated = [
        name for name, count in Counter(str(Path(case.image).resolve()) for case in atlases).items() if count > 1
    ]
    if repeated:
        raise InputError(f"Duplicate atlas: {repeated[0]}. Name each scan once.")
    if "registration" not in options:
        from crossmoda import deeds

        options["registration"] = deeds.Settings(device=device)

    def work(target: "Case", step: Progress | None) -> PropagationResult:
        own_atlases = [atlas for atlas in atlases if atlas.id != target.id]
        place = Path(folder) / target.id
        with locks.locked(place):
            return propagate(target, own_atlases, place, settings or Settings(), step, **options)

    return batch.for_each(targets, work, progress, fatal=(CannotWrite,))
