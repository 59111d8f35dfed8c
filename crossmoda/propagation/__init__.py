"""From many labelled atlases to the noisy label of one target: choose, register, warp, judge, fuse.

What goes wrong when every atlas simply votes, and what is done about it:

- half of the atlases have their tumour on the other side: the target's tumour side is found first, and atlases of the
  other side are mirrored, so that all speak about the same tumour and none leaves a ghost on the healthy side;
- a small tumour cannot become a large one by registration, and each registration is better here and worse there: about
  each structure those atlases speak that fit the target best there;
- a failed registration spoils the vote: each is judged by the images themselves, around the structures.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmoda import cache, fusion, parameters, preprocessing, volume
from crossmoda.errors import InputError
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import atlases as atlas_steps
from crossmoda.propagation import laterality, noisy_label
from crossmoda.propagation.atlases import Atlas, CannotWrite, Prepare, Register, Registered, Target
from crossmoda.propagation.consensus import failures, fuse
from crossmoda.propagation.fit import side_evidence
from crossmoda.propagation.noisy_label import OUTPUTS, Outcome
from crossmoda.provenance import Record, checksum
from crossmoda.volume import Grid, Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """Parameters of label propagation."""

    left: int = parameter(15, "Largest number of atlases with the tumour on the left", minimum=0, maximum=1000)
    right: int = parameter(15, "Largest number of atlases with the tumour on the right", minimum=0, maximum=1000)
    tumour_side: str = parameter(
        "auto", "Side of the target's tumour (the patient's)", choices=("auto", "left", "right", "unknown")
    )
    mirror: bool = parameter(True, "Mirror the atlases whose tumour is on the other side")
    share: float = parameter(
        0.33,
        "Share of the atlases, those that fit best there, that speak about each structure",
        minimum=0.05,
        maximum=1,
    )
    region: str = parameter(
        "auto", "Part of the scans that is registered: around the ears, or all", choices=("auto", "ears", "whole")
    )
    probes: int = parameter(
        3, "Atlases tried on both sides to find the side of the tumour", minimum=1, maximum=100, advanced=True
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
    """the side of the tumour that was found or given"""
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]
    """what a user should know"""
    reused: bool
    """whether everything was found finished"""


#: Raised when the steps after registration change so that earlier results no longer hold.
_REVISION = 3
#: The extent of a head scan in axial planes, mm.
_HEAD_MM = (140.0, 340.0)


def propagate(
    target: "Case",
    atlases: Sequence["Case"],
    folder: Path | str,
    settings: Settings = Settings(),
    progress: Progress | None = None,
    *,
    registration: Any = None,
    fusion_settings: fusion.Settings | None = None,
    register: Register | None = None,
) -> Propagation:
    """Make the noisy label of a target from labelled atlases.

    Args:
        target: the scan to be labelled.
        atlases: labelled scans.
        folder: receives the outputs (:data:`OUTPUTS`, on the target's grid) and, under ``registrations``, each finished
            registration. A second run with the same inputs and parameters takes what is finished from there.
        settings: parameters of the propagation.
        progress: is told what is done; may cancel. What is finished stays.
        registration: settings of the registration; None: the default of deeds.
        fusion_settings: settings of the fusion; None: the default of STAPLE.
        register: the registration program, ``register(fixed, moving, settings, initial=, progress=)``; None: deeds.

    Raises:
        InputError: the target cannot be read, no atlas can be used (the message says why), or the outputs cannot be
            written.

    """
    if registration is None:
        from crossmoda import deeds

        registration = deeds.Settings()
    run = _Run(target, Path(folder), settings, registration, fusion_settings or fusion.Settings(), register or _deeds)
    usable = run.examine(atlases, part(progress, 0.0, 0.03))
    step = run.step(usable)
    done = step.results()
    if done is not None:
        report(progress, 1.0, "found finished")
        label_map = volume.read_label_map(run.folder / noisy_label.LABEL_MAP)
        outcomes = tuple(Outcome(**outcome) for outcome in done["outcomes"])
        return Propagation(label_map, run.folder, done["side"], outcomes, tuple(done["notes"]), reused=True)
    step.begin()
    run.load_target(usable)
    chosen = run.choose(usable, part(progress, 0.03, 0.1))
    side = run.find_side(chosen, part(progress, 0.1, 0.25))
    registered = run.register_all(chosen, side, part(progress, 0.25, 0.93))
    label_map = run.fuse_and_write(registered, side, part(progress, 0.93, 1.0))
    outcomes, notes = tuple(run.outcomes), tuple(run.notes)
    step.finish(OUTPUTS, {"side": side, "outcomes": [dataclasses.asdict(item) for item in outcomes], "notes": notes})
    report(progress, 1.0, "done")
    return Propagation(label_map, run.folder, side, outcomes, notes, reused=False)


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
        targets: the scans to be labelled.
        atlases: labelled scans.
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
    done: dict[str, Propagation] = {}
    failed: dict[str, str] = {}
    for number, target in enumerate(targets):
        step = part(progress, number / len(targets), (number + 1) / len(targets), f"{target.id}: ")
        try:
            if target.id in done or target.id in failed:
                raise InputError(f"{target.id} is given twice; give each target its own name.")
            own_atlases = [atlas for atlas in atlases if atlas.id != target.id]
            done[target.id] = propagate(
                target, own_atlases, Path(folder) / target.id, settings or Settings(), step, **options
            )
        except CannotWrite:
            raise
        except InputError as cause:
            failed[target.id] = str(cause)
    return done, failed


def _deeds(fixed: Volume, moving: Volume, settings: Any, **options: Any) -> Any:
    from crossmoda import deeds

    return deeds.register(fixed, moving, settings, **options)


class _Run:
    """One propagation: what all steps share, and what became of each atlas."""

    target: Target
    prepare: Prepare

    def __init__(
        self,
        case: "Case",
        folder: Path,
        settings: Settings,
        registration: Any,
        fusion_settings: fusion.Settings,
        register: Register,
    ):
        self.case, self.folder, self.settings = case, folder, settings
        self.registration, self.fusion_settings, self.register = registration, fusion_settings, register
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []
        self.finished: dict[str, Registered] = {}
        self.side_evidence: list[dict[str, Any]] = []
        self.preparation = preprocessing.Settings()
        self.record = Record(
            "propagate", self._parameters(), {"target": case.image}, getattr(registration, "device", "cpu")
        )

    def _parameters(self) -> dict[str, Any]:
        steps = {"propagation": self.settings, "registration": self.registration, "fusion": self.fusion_settings}
        return {name: dataclasses.asdict(step) for name, step in steps.items()}

    def examine(self, cases: Sequence["Case"], progress: Progress | None) -> list[Atlas]:
        """Read and check the atlases' label maps; those that cannot be used are dropped and noted."""
        if not cases:
            raise InputError("There are no atlases; give at least one labelled scan.")
        usable: list[Atlas] = []
        for number, case in enumerate(cases):
            report(progress, number / len(cases), f"examining atlas {case.id}")
            try:
                if any(case.id == atlas.id for atlas in usable):
                    raise InputError(f"{case.id} is given twice; give each atlas its own name.")
                usable.append(atlas_steps.examine(case))
            except InputError as cause:
                self._drop(case.id, case.side, False, str(cause))
        if not usable:
            raise InputError(f"No atlas can be used. {self.notes[0]}")
        return usable

    def _drop(self, name: str, side: str | None, mirrored: bool, why: str, quality: float | None = None) -> None:
        self.notes.append(f"Atlas {name} was dropped: {why}")
        self.outcomes.append(Outcome(name, side, mirrored, quality, "", 0.0, False, why))

    def step(self, usable: list[Atlas]) -> cache.Step:
        """Return the step that is finished when all outputs are."""
        return cache.Step(
            self.folder,
            revision=_REVISION,
            target=checksum(self.case.image),
            atlases=[[atlas.id, *atlas.key()] for atlas in usable],
            dropped=self.notes,
            parameters=self._parameters(),
        )

    def load_target(self, usable: list[Atlas]) -> None:
        """Read the target and decide which part of the scans is registered."""
        has_cochlea = any(atlas.volumes_mm3["cochlea"] > 0 for atlas in usable)
        self.preparation = preparation_for(self.settings.region, self.case.read_image().grid, has_cochlea)

        def prepare(image: Volume, label_map: Volume | None) -> Volume:
            return preprocessing.prepare(image, label_map, self.preparation).image

        self.prepare = prepare
        self.target = atlas_steps.load_target(self.case, prepare)

    def choose(self, usable: list[Atlas], progress: Progress | None) -> list[Atlas]:
        """Choose the atlases of each side that look most like the target after linear registration."""
        most = {"left": self.settings.left, "right": self.settings.right, None: len(usable)}
        chosen: list[Atlas] = []
        for side, count in most.items():
            candidates = [atlas for atlas in usable if atlas.side == side]
            if len(candidates) > count:
                candidates = self._most_similar(candidates, count, progress)
            chosen += candidates
        if not chosen:
            raise InputError("No atlas is left to be used; allow more than 0 atlases on the left or on the right.")
        return chosen

    def _most_similar(self, candidates: list[Atlas], count: int, progress: Progress | None) -> list[Atlas]:
        linear = dataclasses.replace(self.registration, levels=0)
        quality = {}
        for number, atlas in enumerate(candidates):
            report(progress, number / len(candidates), f"comparing atlas {atlas.id}")
            done = self._register(atlas, False, self.folder / "registrations" / "linear", linear, None)
            quality[atlas.id] = -np.inf if done is None else done.quality
        ranked = sorted(candidates, key=lambda atlas: (-quality[atlas.id], atlas.id))
        for atlas in ranked[count:]:
            why = f"{count} atlases with the tumour on the {atlas.side} look more like the target."
            self.outcomes.append(Outcome(atlas.id, atlas.side, False, None, "", 0.0, False, why))
        return ranked[:count]

    def find_side(self, chosen: list[Atlas], progress: Progress | None) -> str | None:
        """Find the side of the target's tumour: on which side it looks like a tumour where the atlases have theirs."""
        lateral = [atlas for atlas in chosen if atlas.side is not None]
        wanted = self.settings.tumour_side
        if wanted != "auto" or not lateral:
            return wanted if wanted in laterality.SIDES and lateral else None
        probes = _different_sizes(lateral, self.settings.probes)
        for number, atlas in enumerate(probes):
            found = {}
            for mirrored in (False, True):
                start = (2 * number + mirrored) / (2 * len(probes))
                step = part(progress, start, start + 0.5 / len(probes), "finding the side of the tumour: ")
                item = self._register(atlas, mirrored, self.folder / "registrations", self.registration, step)
                if item is not None:
                    found[item.side] = item
            if len(found) == 2:
                for_left = side_evidence(found["left"], found["right"], self.target.part, self.case.modality)
                if for_left is not None:
                    self.side_evidence.append({"atlas": atlas.id, "for_left": round(for_left, 3)})
        if not self.side_evidence:
            self.notes.append("The side of the tumour could not be found: no probe could be registered on both sides.")
            return None
        evidence = [probe["for_left"] for probe in self.side_evidence]
        side = "left" if sum(evidence) > 0 else "right"
        agree = sum((value > 0) == (side == "left") for value in evidence)
        if agree < len(evidence):
            self.notes.append(f"The tumour is probably on the {side}: {agree} of {len(evidence)} probes say so; check.")
        return side

    def register_all(self, chosen: list[Atlas], side: str | None, progress: Progress | None) -> list[Registered]:
        """Register the chosen atlases, mirrored where their tumour is on the other side; failures are dropped."""
        registered = []
        for number, atlas in enumerate(chosen):
            mirrored = bool(self.settings.mirror and side and atlas.side and atlas.side != side)
            step = part(
                progress, number / len(chosen), (number + 1) / len(chosen), f"atlas {number + 1} of {len(chosen)}: "
            )
            item = self._register(atlas, mirrored, self.folder / "registrations", self.registration, step)
            if item is not None:
                registered.append(item)
        for name, why in failures(registered, self.settings.least_quality).items() if registered else ():
            item = next(item for item in registered if item.name == name)
            registered.remove(item)
            self._drop(item.atlas.id, item.side, item.mirrored, why, item.quality)
        if not registered:
            raise InputError(
                f"No atlas could be registered to {self.case.id}; "
                f"does it show the same part of the body? {self.notes[-1]}"
            )
        return registered

    def _register(
        self, atlas: Atlas, mirrored: bool, folder: Path, settings: Any, progress: Progress | None
    ) -> Registered | None:
        """Register one atlas; None where it cannot be (noted once)."""
        try:
            return atlas_steps.register_atlas(
                self.target,
                atlas,
                folder,
                register=self.register,
                registration_settings=settings,
                prepare=self.prepare,
                depends_on={"preparation": self.preparation},
                mirrored=mirrored,
                align_centres=self.preparation.region == "ears",
                progress=progress,
            )
        except CannotWrite:
            raise
        except InputError as cause:
            if not any(outcome.atlas == atlas.id for outcome in self.outcomes):
                self._drop(atlas.id, atlas.side, mirrored, str(cause))
            return None

    def fuse_and_write(self, registered: list[Registered], side: str | None, progress: Progress | None) -> Volume:
        """Fuse what the registered atlases say and write all outputs on the target's grid."""
        consensus, speakers = fuse(
            registered, self.target.part, side, self.settings.share, self.fusion_settings, part(progress, 0.0, 0.3)
        )
        self.notes += consensus.fusion.notes
        for item in registered:
            about = speakers.about(item.name)
            self.outcomes.append(
                Outcome(item.atlas.id, item.side, item.mirrored, item.quality, about, item.seconds, item.reused, "")
            )
        provenance = self.record.finish(
            target=self.case.id,
            region=self.preparation.region,
            tumour_side=side,
            side_evidence=self.side_evidence,
            atlases=[dataclasses.asdict(outcome) for outcome in self.outcomes],
            staple={"iterations": consensus.fusion.iterations, "converged": consensus.fusion.converged},
            notes=self.notes,
        )
        performance = {item.atlas.id: each for item, each in zip(registered, consensus.fusion.performance, strict=True)}
        table = noisy_label.table(self.outcomes, performance)
        return noisy_label.write(self.folder, self.target, consensus, table, provenance, part(progress, 0.3, 1.0))


def preparation_for(region: str, target: Grid, has_cochlea: bool) -> preprocessing.Settings:
    """Return how scans are prepared: cropped to the ears (asked for, or ``"auto"`` in a head with cochlea labels)."""
    whole = region == "whole" or (region == "auto" and not (has_cochlea and _is_head(target)))
    return preprocessing.Settings(region="whole" if whole else "ears", in_plane_spacing=0.0 if whole else 0.5)


def _is_head(grid: Grid) -> bool:
    """Whether a scan's axial extent is that of a head rather than a detail of it or a trunk."""
    extent = np.abs(np.reshape(grid.direction, (3, 3))) @ (np.asarray(grid.size) * grid.spacing)
    return bool(np.all((extent[:2] >= _HEAD_MM[0]) & (extent[:2] <= _HEAD_MM[1])))


def _different_sizes(atlases: list[Atlas], count: int) -> list[Atlas]:
    """Return ``count`` atlases whose tumours' volumes are spread evenly over those of all."""
    by_size = sorted(atlases, key=lambda atlas: (atlas.volumes_mm3["VS"], atlas.id))
    count = min(count, len(by_size))
    return [by_size[int((number + 0.5) * len(by_size) / count)] for number in range(count)]
