"""One propagation, decision by decision: which registrations are needed next, and what follows from them.

Which atlases are registered, and whether mirrored, is decided by earlier registrations. :meth:`Run.pending` names those
that the next decision waits for; they are independent of each other and of the process that does them, since what is
finished lies on disk. :func:`crossmoda.propagation.propagate` does them here, a study on many machines.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossmoda import cache, fusion, preprocessing, volume
from crossmoda.anatomy import contralateral, laterality
from crossmoda.errors import InputError
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import atlases as atlas_steps
from crossmoda.propagation import missing_cochlea, noisy_label
from crossmoda.propagation.atlases import Atlas, Register, Registered
from crossmoda.propagation.label_fusion import failures, fuse, with_doubt_about_side
from crossmoda.propagation.noisy_label import Outcome
from crossmoda.propagation.parallel import default_at_once, in_parallel
from crossmoda.propagation.prepared import Prepared
from crossmoda.propagation.target import Prepare, Target, load_target, preparer
from crossmoda.propagation.tumor_side import TumorSide, find_side
from crossmoda.provenance import Record, checksum
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case
    from crossmoda.propagation import Settings

#: See :func:`crossmoda.propagation.target.load_target`.
Load = Callable[["Case", str, str, bool], tuple[Target, preprocessing.Preparation]]
#: Under the folder of a target: its registrations, those that are linear only, and what its opposite sides look like.
REGISTRATIONS, LINEAR, OPPOSITE = "registrations", "linear", "opposite"
#: Raised when the steps after registration, or registration itself, change so that earlier results no longer hold.
_REVISION, _REGISTRATION_REVISION = 13, 5
#: Registrations to unrelated images (smooth noise) reached a median quality of 0.12 at most, those to heads 0.15 (one
#: of a few centimeters) and mostly above 0.24: below the first a target shows something else, below the second perhaps.
_STRANGE, _DOUBTFUL = 0.13, 0.2


class Pair(NamedTuple):
    """A registration to the target."""

    atlas: Atlas
    mirrored: bool = False
    linear: bool = False
    """without the deformable part, for a first comparison"""

    @property
    def key(self) -> tuple[str, bool, bool]:
        """What tells it from the others of the same target."""
        return self.atlas.id, self.mirrored, self.linear


class Run:
    """One propagation: what all steps share, and what became of each atlas."""

    def __init__(
        self,
        case: "Case",
        folder: Path,
        settings: "Settings",
        registration: Any = None,
        fusion_settings: fusion.Settings | None = None,
        register: Register | None = None,
        *,
        load: "Load | None" = None,
        has_cochlea: bool | None = None,
        prepared: Prepared | None = None,
    ):
        """Begin with the arguments of :func:`crossmoda.propagation.propagate`.

        ``load`` replaces ``load_target``, to share a target between runs; ``has_cochlea`` tells whether any atlas
        of the whole propagation has a cochlea, where this run knows only some of them; ``prepared`` shares prepared
        atlases between runs.
        """
        if registration is None:
            from crossmoda import deeds

            registration = deeds.Settings()
        self.case, self.folder, self.settings = case, folder, settings
        self.registration, self.fusion_settings = registration, fusion_settings or fusion.Settings()
        self.register_program = register or _deeds
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []
        self.atlases: list[Atlas] = []
        self._load, self._has_cochlea = load or load_target, has_cochlea
        self._prepared = Prepared(0) if prepared is None else prepared
        self._unusable: tuple[str, ...] = ()
        self._target: tuple[Target, preprocessing.Preparation] | None = None
        self._done: dict[tuple[str, bool, bool], Registered | str] = {}
        self._chosen: list[Atlas] | None = None
        self._side: TumorSide | None = None
        self.record = Record(
            "propagate", self._parameters(), {"target": case.image}, getattr(registration, "device", "cpu")
        )

    def _parameters(self) -> dict[str, Any]:
        steps = {"propagation": self.settings, "registration": self.registration, "fusion": self.fusion_settings}
        return {name: dataclasses.asdict(step) for name, step in steps.items()}

    def examine(self, cases: Sequence["Case | Atlas"], progress: Progress | None = None) -> None:
        """Read and check the atlases' label maps; those that cannot be used are dropped and noted."""
        if not cases:
            raise InputError("There are no atlases; give at least one labeled scan.")
        for number, case in enumerate(cases):
            report(progress, number / len(cases), f"examining atlas {case.id}")
            try:
                if any(case.id == atlas.id for atlas in self.atlases):
                    raise InputError(f"{case.id} is given twice; give each atlas its own name.")
                self.atlases.append(case if isinstance(case, Atlas) else atlas_steps.examine(case))
            except InputError as cause:
                self._drop(case.id, case.side, False, str(cause))
        self._unusable = tuple(self.notes)
        if not self.atlases:
            raise InputError(f"No atlas can be used. {self.notes[0]}")

    def _drop(self, name: str, side: str | None, mirrored: bool, why: str, quality: float | None = None) -> None:
        self.notes.append(f"Atlas {name} was dropped: {why}")
        self.outcomes.append(Outcome(name, side, mirrored, quality, "", 0.0, False, why))

    def step(self) -> cache.Step:
        """Return the step that is finished when all outputs are."""
        return cache.Step(
            self.folder,
            revision=_REVISION,
            registration_revision=_REGISTRATION_REVISION,
            target=checksum(self.case.image),
            atlases=[[atlas.id, *atlas.key()] for atlas in self.atlases],
            dropped=self._unusable,
            parameters=self._parameters(),
        )

    # The target

    @property
    def target(self) -> Target:
        """The target, read once."""
        return self._load_target()[0]

    @property
    def preparation(self) -> preprocessing.Preparation:
        """How target and atlases are prepared for the registration."""
        return self._load_target()[1]

    def _load_target(self) -> tuple[Target, preprocessing.Preparation]:
        if self._target is None:
            known = any(atlas.volumes_mm3["cochlea"] > 0 for atlas in self.atlases)
            has_cochlea = known if self._has_cochlea is None else self._has_cochlea
            self._target = self._load(self.case, checksum(self.case.image), self.settings.region, has_cochlea)
        return self._target

    # Registrations

    def pending(self, progress: Progress | None = None) -> list[Pair]:
        """Return the registrations that the next decision waits for; none when only the fusion is left.

        Once the probes are registered the target is compared with its mirror image, of which ``progress`` is told.
        """
        for stage in (self.comparisons, self.probes, self.wanted, self.copies):
            if stage == self.wanted:
                self.tumor_side(progress)
            if missing := [pair for pair in stage() if not self.is_finished(pair)]:
                return missing
        return []

    def fraction(self, pairs: Sequence[Pair]) -> float:
        """Return how much of all registrations is done with ``pairs``, the pending ones: 0 to 1, roughly."""
        if pairs[0].linear:
            return 0.1
        if self._side is None:
            return 0.3
        wanted = {pair.key for pair in self.wanted()}
        return 0.75 if self._side_without_cochlea() and pairs[0].key in wanted else 1.0

    def step_of(self, pair: Pair) -> cache.Step:
        """Return the step of a registration; it does not depend on the other atlases."""
        folder = self.folder / REGISTRATIONS
        return cache.Step(
            (folder / LINEAR if pair.linear else folder) / atlas_steps.folder_name(pair.atlas.id, pair.mirrored),
            revision=_REGISTRATION_REVISION,
            target=checksum(self.case.image),
            atlas=pair.atlas.key(),
            mirrored=pair.mirrored,
            align_centers=self.preparation.region == "ears",
            registration=self._registration_of(pair),
            preparation=self.preparation,
            keep_transform=self._keeps_transform(pair),
        )

    def _registration_of(self, pair: Pair) -> Any:
        return dataclasses.replace(self.registration, levels=0) if pair.linear else self.registration

    def _keeps_transform(self, pair: Pair) -> bool:
        return self.settings.keep_transforms and not pair.linear

    def is_finished(self, pair: Pair) -> bool:
        """Whether a registration is done, here or on disk."""
        return pair.key in self._done or self.step_of(pair).results() is not None

    def register(self, pairs: Sequence[Pair], progress: Progress | None = None, at_once: int | None = None) -> None:
        """Do registrations; those that fail are remembered as failed.

        Raises:
            CannotWrite: the disk is full or the folder cannot be written.

        """
        self._load_target()  # once, before the threads need it

        def work(pair: Pair, progress: Progress | None) -> None:
            try:
                self._done[pair.key] = self._register(pair, progress)
            except CannotWrite:
                raise
            except InputError as cause:
                self._done[pair.key] = str(cause)

        in_parallel(work, pairs, at_once or default_at_once(self.registration), progress)

    def _register(self, pair: Pair, progress: Progress | None) -> Registered:
        return atlas_steps.register_atlas(
            self.target,
            pair.atlas,
            self.step_of(pair),
            register=self.register_program,
            registration_settings=self._registration_of(pair),
            prepare=self._preparer_of(pair),
            mirrored=pair.mirrored,
            align_centers=self.preparation.region == "ears",
            keep_transform=self._keeps_transform(pair),
            progress=progress,
        )

    def _preparer_of(self, pair: Pair) -> Prepare:
        how = self.preparation
        key = (*pair.atlas.key(), pair.mirrored, how)
        return lambda image, label_map: self._prepared.get(key, lambda: preparer(how)(image, label_map))

    def registered(self, pair: Pair) -> Registered | None:
        """Return a finished registration; None where it failed (noted once)."""
        if pair.key not in self._done:
            try:
                self._done[pair.key] = (
                    atlas_steps.found(pair.atlas, self.step_of(pair), pair.mirrored) or "was not done."
                )
            except InputError as cause:
                self._done[pair.key] = str(cause)
        item = self._done[pair.key]
        if isinstance(item, str):
            if not any(outcome.atlas == pair.atlas.id for outcome in self.outcomes):
                self._drop(pair.atlas.id, pair.atlas.side, pair.mirrored, item)
            return None
        return item

    # Decisions

    def comparisons(self) -> list[Pair]:
        """Return the linear registrations by which atlases are chosen where a side has more than wanted."""
        return [
            Pair(atlas, linear=True)
            for candidates, count in self._by_side()
            if len(candidates) > count
            for atlas in candidates
        ]

    def _by_side(self) -> list[tuple[list[Atlas], int]]:
        """Return the atlases with the tumor on the left, on the right and on neither side, and how many are wanted."""
        most = {"left": self.settings.left, "right": self.settings.right, None: len(self.atlases)}
        return [([atlas for atlas in self.atlases if atlas.side == side], count) for side, count in most.items()]

    def chosen(self) -> list[Atlas]:
        """Return the atlases of each side that look most like the target after linear registration."""
        if self._chosen is None:
            self._chosen = []
            for candidates, count in self._by_side():
                self._chosen += candidates if len(candidates) <= count else self._most_similar(candidates, count)
            if not self._chosen:
                raise InputError("No atlas is left to be used; allow more than 0 atlases on the left or on the right.")
        return self._chosen

    def _most_similar(self, candidates: list[Atlas], count: int) -> list[Atlas]:
        compared = {atlas.id: self.registered(Pair(atlas, linear=True)) for atlas in candidates}
        quality = {name: -np.inf if done is None else done.quality for name, done in compared.items()}
        ranked = sorted(candidates, key=lambda atlas: (-quality[atlas.id], atlas.id))
        for atlas in ranked[count:]:
            if compared[atlas.id] is not None:
                why = f"{count} atlases with the tumor on the {atlas.side} look more like the target."
                self.outcomes.append(Outcome(atlas.id, atlas.side, False, None, "", 0.0, False, why))
        return [atlas for atlas in ranked[:count] if compared[atlas.id] is not None]

    def probes(self) -> list[Pair]:
        """Return the registrations, as they are and mirrored, that tell the side of the tumor; none if it is given."""
        lateral = [atlas for atlas in self.chosen() if atlas.side is not None]
        if self.settings.tumor_side != "auto" or not lateral:
            return []
        return [
            Pair(atlas, mirrored)
            for atlas in _different_sizes(lateral, self.settings.probes)
            for mirrored in (False, True)
        ]

    def side(self) -> str | None:
        """Return the side on which the target looks like a tumor where the atlases have theirs."""
        return self.tumor_side().side

    def tumor_side(self, progress: Progress | None = None) -> TumorSide:
        """Return that side and how sure it is."""
        if self._side is None:
            self._side = self._find_side(progress)
        return self._side

    def _find_side(self, progress: Progress | None) -> TumorSide:
        pairs = self.probes()
        if not pairs:
            wanted = self.settings.tumor_side
            lateral = any(atlas.side is not None for atlas in self.chosen())
            return TumorSide(wanted if wanted in laterality.SIDES and lateral else None)
        probes = [item for item in map(self.registered, pairs) if item]
        try:
            found = find_side(probes, self._both_sides(progress), self.target.part.grid.spacing_zyx)
        except CannotWrite:
            raise
        except InputError as cause:
            found = TumorSide.unknown(str(cause))
        self.notes += [found.note] if found.note else []
        return found

    def _both_sides(self, progress: Progress | None) -> contralateral.ContralateralComparison:
        """Return the target and its opposite side; it is registered to its mirror image once."""
        target, settings = self.target.part, self.registration
        step = cache.Step(
            self.folder / OPPOSITE,
            revision=_REGISTRATION_REVISION,
            target=checksum(self.case.image),
            registration=settings,
            preparation=self.preparation,
        )
        if step.results() is None:
            found = contralateral.opposite_brightness(target, self.register_program, settings, progress)
            with atlas_steps.keeping("the comparison of both sides"):
                step.begin()
                volume.write(contralateral.in_steps(found, target), step.folder / contralateral.OPPOSITE)
                step.finish([contralateral.OPPOSITE], {})
        there = contralateral.from_steps(volume.read(step.folder / contralateral.OPPOSITE))
        return contralateral.ContralateralComparison(contralateral.brightness(target), there, self.case.modality)

    def _compared(self, progress: Progress | None) -> contralateral.ContralateralComparison | None:
        """Return the target and its opposite side, by which the tumor is outlined; None where that is not done."""
        if self.settings.outline == "votes" or self.fusion_settings.weighting == "global" or not self.side():
            return None
        try:
            return self._both_sides(progress)
        except CannotWrite:
            raise
        except InputError as cause:
            self.notes.append(f"The tumor was not compared with the opposite side: {cause}")
            return None

    def wanted(self) -> list[Pair]:
        """Return the registrations that are fused: of the chosen atlases, mirrored where their tumor is elsewhere."""
        side = self.side()
        return [
            Pair(atlas, bool(self.settings.mirror and side and atlas.side and atlas.side != side))
            for atlas in self.chosen()
        ]

    def _side_without_cochlea(self) -> str | None:
        """Return the side about whose cochlea mirrored copies shall speak, if any."""
        if not (self.settings.mirror and self.side()):
            return None
        return missing_cochlea.side_without_cochlea([(pair.atlas, pair.mirrored) for pair in self.wanted()])

    def copies(self) -> list[Pair]:
        """Return the registrations of mirrored copies that speak about a cochlea no atlas has; mostly none."""
        if self._side_without_cochlea() is None:
            return []
        found = [item for item in map(self.registered, self.wanted()) if item is not None]
        probes = {(pair.atlas.id, pair.mirrored) for pair in self.probes()}
        return [Pair(item.atlas, not item.mirrored) for item in missing_cochlea.to_be_copied(found, probes)]

    # The result

    def usable(self) -> list[Registered]:
        """Return the registrations that are fused, without those that failed (noted)."""
        found = [item for item in map(self.registered, self.wanted()) if item is not None]
        for name, why in failures(found, self.settings.least_quality).items() if found else ():
            item = next(item for item in found if item.name == name)
            found.remove(item)
            self._drop(item.atlas.id, item.side, item.mirrored, why, item.quality)
        if not found:
            raise InputError(
                f"No atlas could be registered to {self.case.id}; "
                f"does it show the same part of the body? {self.notes[-1]}"
            )
        middle = float(np.median([item.quality for item in found]))
        if middle < _STRANGE:
            raise InputError(
                f"{self.case.id} looks like none of the atlases after registration (median quality {middle:.2f}, "
                "chance is 0); does it show the same part of the body?"
            )
        if middle < _DOUBTFUL:
            self.notes.append(f"The target looks little like the atlases (quality {middle:.2f}); check the label.")
        return found + self._usable_copies()

    def _usable_copies(self) -> list[Registered]:
        """Return the mirrored copies without those that failed: judged by themselves, as their tumor fits nowhere."""
        found = [item for item in map(self.registered, self.copies()) if item is not None]
        failed = failures(found, self.settings.least_quality) if found else {}
        found = [item for item in found if item.name not in failed]
        if side := self._side_without_cochlea():
            copies = f"{len(found)} mirrored copies speak" if len(found) != 1 else "a mirrored copy speaks"
            self.notes.append(f"No atlas has the {side} cochlea: {copies} about it.")
        return found

    def fuse_and_write(self, progress: Progress | None = None) -> Volume:
        """Fuse what the registered atlases say and write all outputs on the target's grid."""
        registered, side = self.usable(), self.side()
        compared = self._compared(part(progress, 0.0, 0.3))
        settings, step = self.fusion_settings, part(progress, 0.3, 0.5)
        consensus, speakers = fuse(
            registered, self.target.part, side, self.settings.share, settings, step, compared=compared
        )
        found = self.tumor_side()
        if found.elsewhere is not None:
            consensus = with_doubt_about_side(consensus, found.certainty, found.elsewhere)
        self.notes += consensus.fusion.notes
        for item in registered:
            about = speakers.about(item.name)
            self.outcomes.append(
                Outcome(item.atlas.id, item.side, item.mirrored, item.quality, about, item.seconds, item.reused, "")
            )
        provenance = self.record.finish(
            target=self.case.id,
            region=self.preparation.region,
            tumor_side=side,
            side_certainty=round(found.certainty, 4),
            side_evidence=found.evidence,
            probes=list(dict.fromkeys(pair.atlas.id for pair in self.probes())),
            atlases=[dataclasses.asdict(outcome) for outcome in self.outcomes],
            fusion={"iterations": consensus.fusion.iterations, "converged": consensus.fusion.converged},
            aligned=[dataclasses.asdict(move) for move in consensus.moved],
            notes=self.notes,
        )
        performance = {item.name: each for item, each in zip(registered, consensus.fusion.performance, strict=True)}
        table = noisy_label.table(self.outcomes, performance)
        return noisy_label.write(self.folder, self.target, consensus, table, provenance, part(progress, 0.5, 1.0))


def _deeds(fixed: Volume, moving: Volume, settings: Any, **options: Any) -> Any:
    from crossmoda import deeds

    return deeds.register(fixed, moving, settings, **options)


def _different_sizes(atlases: list[Atlas], count: int) -> list[Atlas]:
    """Return ``count`` atlases whose tumors' volumes are spread evenly over those of all."""
    by_size = sorted(atlases, key=lambda atlas: (atlas.volumes_mm3["VS"], atlas.id))
    count = min(count, len(by_size))
    return [by_size[int((number + 0.5) * len(by_size) / count)] for number in range(count)]
