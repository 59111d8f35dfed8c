"""From many labeled atlases to the noisy label of one target: choose, register, warp, judge, fuse.

What goes wrong when every atlas simply votes, and what is done about it:

- half of the atlases have their tumor on the other side: the target's tumor side is found first, and atlases of the
  other side are mirrored, so that all speak about the same tumor and none leaves a ghost on the healthy side;
- a small tumor cannot become a large one by registration, and each registration is better here and worse there: about
  each structure those atlases speak that fit the target best there;
- a failed registration spoils the vote: each is judged by the images themselves, around the structures.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import batch, fusion, parameters, volume
from crossmoda.output import CannotWrite
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import noisy_label
from crossmoda.propagation.atlases import Atlas, Register, examined, folder_name
from crossmoda.propagation.noisy_label import OUTPUTS, Outcome
from crossmoda.propagation.prepared import Prepared
from crossmoda.propagation.run import Run
from crossmoda.propagation.target import preparation_for
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

__all__ = ["OUTPUTS", "Outcome", "Propagation", "Settings", "preparation_for", "propagate", "propagate_all"]


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of label propagation."""

    left: int = parameter(15, "Largest number of atlases with the tumor on the left", minimum=0, maximum=1000)
    right: int = parameter(15, "Largest number of atlases with the tumor on the right", minimum=0, maximum=1000)
    tumor_side: str = parameter(
        "auto", "Side of the target's tumor (the patient's)", choices=("auto", "left", "right", "unknown")
    )
    mirror: bool = parameter(True, "Mirror the atlases whose tumor is on the other side")
    share: float = parameter(
        0.33,
        "Share of the atlases, those that fit best there, that speak about each structure",
        minimum=0.05,
        maximum=1,
    )
    outline: str = parameter(
        "compared",
        "Outline of the tumor: where the target differs from the opposite side of the head (compared), or as the "
        "atlases have it (votes)",
        choices=("compared", "votes"),
    )
    region: str = parameter(
        "auto", "Part of the scans that is registered: around the ears, or all", choices=("auto", "ears", "whole")
    )
    probes: int = parameter(
        3, "Atlases tried on both sides to find the side of the tumor", minimum=1, maximum=100, advanced=True
    )
    keep_transforms: bool = parameter(
        False, "Keep the transforms between the target and each atlas (T.h5, T_inverse.h5)", advanced=True
    )
    least_quality: float = parameter(
        0.05,
        "Registrations below this quality (0 is chance, 1 the same image) are dropped",
        minimum=-1,
        maximum=1,
        advanced=True,
    )


@dataclasses.dataclass(frozen=True)
class Propagation:
    """The noisy label of one target."""

    label_map: Volume
    """on the target's grid"""
    folder: Path
    side: str | None
    """the side of the tumor that was found or given"""
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]
    """what a user should know"""
    reused: bool
    """whether everything was found finished"""

    def transform(self, outcome: Outcome) -> Path:
        """Return the file of the transform from target points to points of the atlas (``Settings.keep_transforms``)."""
        from crossmoda.deeds.transform import TRANSFORM

        return self.folder / "registrations" / folder_name(outcome.atlas, outcome.mirrored) / TRANSFORM


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
    at_once: int | None = None,
    prepared: Prepared | None = None,
) -> Propagation:
    """Make the noisy label of a target from labeled atlases.

    Args:
        target: the scan to be labeled.
        atlases: labeled scans.
        folder: receives the outputs (:data:`OUTPUTS`, on the target's grid) and, under ``registrations``, each finished
            registration. A second run with the same inputs and parameters takes what is finished from there.
        settings: parameters of the propagation.
        progress: is told what is done; may cancel. What is finished stays.
        registration: settings of the registration; None: the default of deeds.
        fusion_settings: settings of the fusion; None: the default.
        register: the registration program, ``register(fixed, moving, settings, initial=, progress=)``; None: deeds.
        at_once: registrations that are done at the same time; None: one per processor core, at most four,
            or eight where a graphics card registers.
        prepared: keeps the prepared atlases for the next target; None: they are not kept.

    Raises:
        InputError: the target cannot be read, no atlas can be used (the message says why), or the outputs cannot be
            written.

    """
    run = Run(target, Path(folder), settings, registration, fusion_settings, register, prepared=prepared)
    report(progress, 0.0, f"examining {len(atlases)} atlases")
    run.examine(examined(atlases), part(progress, 0.0, 0.03))
    step = run.step()
    done = step.results()
    if done is not None:
        report(progress, 1.0, "found finished")
        label_map = volume.read_label_map(run.folder / noisy_label.LABEL_MAP)
        outcomes = tuple(Outcome(**outcome) for outcome in done["outcomes"])
        return Propagation(label_map, run.folder, done["side"], outcomes, tuple(done["notes"]), reused=True)
    step.begin()
    start = 0.03
    while pairs := run.pending(part(progress, start, start + 0.02)):
        stop = 0.03 + 0.9 * run.fraction(pairs)
        run.register(pairs, part(progress, start + 0.02, stop), at_once)
        start = stop
    label_map = run.fuse_and_write(part(progress, 0.93, 1.0))
    outcomes, notes = tuple(run.outcomes), tuple(run.notes)
    found = {"side": run.side(), "outcomes": [dataclasses.asdict(item) for item in outcomes], "notes": notes}
    step.finish(OUTPUTS, found)
    report(progress, 1.0, "done")
    return Propagation(label_map, run.folder, run.side(), outcomes, notes, reused=False)


def propagate_all(
    targets: Sequence["Case"],
    atlases: Sequence["Case"],
    folder: Path | str,
    settings: Settings | None = None,
    progress: Progress | None = None,
    *,
    device: str = "auto",
    **options: Any,
) -> tuple[dict[str, Propagation], dict[str, str]]:
    """Propagate the atlases to several targets, each into ``folder/<id>``; what fails does not stop the rest.

    Args:
        targets: the scans to be labeled.
        atlases: labeled scans.
        folder: receives one folder per target.
        settings: parameters of the propagation; None: the default.
        progress: is told what is done; may cancel.
        device: the processor of the registration, unless ``registration`` is among the options.
        options: further arguments of :func:`propagate`.

    Returns:
        The propagation of each target's id, and why the others failed.

    Raises:
        CannotWrite: the disk is full: no target could go on.

    """
    if "registration" not in options:
        from crossmoda import deeds

        options["registration"] = deeds.Settings(device=device)
    options.setdefault("prepared", Prepared())

    def work(target: "Case", step: Progress | None) -> Propagation:
        own_atlases = [atlas for atlas in atlases if atlas.id != target.id]
        return propagate(target, own_atlases, Path(folder) / target.id, settings or Settings(), step, **options)

    return batch.for_each(targets, work, progress, fatal=(CannotWrite,))
