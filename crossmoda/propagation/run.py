"""One propagation, decision by decision: which registrations are needed next, and what follows from them.

Earlier registrations decide which atlases are registered, and whether mirrored. :meth:`Run.pending` lists those that
the next decision waits for. They are independent of each other and of the process that performs them, since finished
ones lie on disk: :func:`crossmoda.propagation.propagate` performs them in threads, a study on many machines.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmoda import cache, fusion
from crossmoda.anatomy import contralateral, laterality
from crossmoda.errors import CASE_ERRORS, InputError, sentence_of
from crossmoda.output import CannotWrite
from crossmoda.progress import Progress, part, report
from crossmoda.propagation import atlas_selection, missing_cochlea, noisy_label, registrations
from crossmoda.propagation.atlas_ranking import Contributors
from crossmoda.propagation.atlases import Atlas, examine
from crossmoda.propagation.label_fusion import CHANCE, NoisyLabel, failures, fuse, with_side_uncertainty
from crossmoda.propagation.noisy_label import AtlasOutcome
from crossmoda.propagation.registrations import (
    Load,
    PlannedRegistration,
    Register,
    RegisteredAtlas,
    Registrations,
)
from crossmoda.propagation.settings import Settings
from crossmoda.propagation.target import load_target
from crossmoda.propagation.tumor_side import TumorSide, find_tumor_side
from crossmoda.provenance import Record, checksum
from crossmoda.pseudonyms import without_files
from crossmoda.volume import Volume

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: Bump to invalidate cached noisy labels.
_REVISION = 16
#: Atlases whose tumors tell where a tumor may be, for the tumor side.
_TUMOR_ATLASES = 12
_NO_ATLAS = "No atlas is selected. Allow more than 0 atlases on the left or on the right."


class Run:
    """One propagation: what all steps share, and the outcome of each atlas."""

    def __init__(
        self,
        case: "Case",
        folder: Path,
        settings: Settings,
        registration: Any = None,
        fusion_settings: fusion.Settings | None = None,
        register: Register | None = None,
        *,
        load: "Load" = load_target,
    ):
        """Start with the arguments of :func:`crossmoda.propagation.propagate`.

        ``load`` replaces ``load_target``, to share a target between runs.
        """
        if registration is None:
            from crossmoda import deeds

            registration = deeds.Settings()
        self.case, self.folder, self.settings = case, folder, settings
        self.registration, self.fusion_settings = registration, fusion_settings or fusion.Settings()
        self.outcomes: list[AtlasOutcome] = []
        self.notes: list[str] = []
        self.atlases: list[Atlas] = []
        self.registrations = Registrations(
            *(case, folder, settings, registration, register or _deeds),
            load=load,
        )
        self._unusable: tuple[str, ...] = ()
        self._selected: list[Atlas] | None = None
        self._side: TumorSide | None = None
        self._wanted: list[PlannedRegistration] | None = None
        self.record = Record(
            "propagate", self._parameters(), {"target": case.image}, getattr(registration, "device", "cpu")
        )

    def _parameters(self) -> dict[str, Any]:
        steps = {"propagation": self.settings, "registration": self.registration, "fusion": self.fusion_settings}
        return {name: dataclasses.asdict(step) for name, step in steps.items()}

    def examine(self, cases: Sequence["Case | Atlas"], progress: Progress | None = None) -> None:
        """Read and check the atlases' label maps; unusable ones are excluded with a note."""
        if not cases:
            raise InputError("There are no atlases. Add at least one labeled scan.")
        for number, case in enumerate(cases):
            report(progress, number / len(cases), f"examining atlas {case.id}")
            try:
                if any(case.id == atlas.id for atlas in self.atlases):
                    raise InputError(f"Duplicate atlas ID: {case.id}. Use unique IDs.")
                self.atlases.append(case if isinstance(case, Atlas) else examine(case))
            except CASE_ERRORS as cause:
                files = () if isinstance(case, Atlas) else (case.image, case.label)
                self._exclude(case.id, case.side, False, without_files(sentence_of(cause), files))
        self._unusable = tuple(self.notes)
        if not self.atlases:
            raise InputError(f"No atlas is usable. {self.notes[0]}")

    def _exclude(self, atlas: str, side: str | None, mirrored: bool, reason: str, quality: float | None = None) -> None:
        self.notes.append(f"Atlas {atlas} was excluded: {reason}")
        self.outcomes.append(AtlasOutcome(atlas, side, mirrored, quality, excluded=reason))

    def step(self) -> cache.CachedStep:
        """Return the step that is finished when all outputs are written."""
        return cache.CachedStep(
            self.folder,
            revision=_REVISION,
            registration_revision=registrations.REVISION,
            target=checksum(self.case.image),
            atlases=[[atlas.id, *atlas.key()] for atlas in self.atlases],
            unusable=self._unusable,
            parameters=self._parameters(),
        )

    # Registrations

    def pending(self, progress: Progress | None = None) -> list[PlannedRegistration]:
        """Return the registrations that the next decision waits for; none when only the fusion is left.

        Once the atlases are selected their ears are located, the target is compared with its mirror image, and the
        best-matching atlases are chosen, all reported to ``progress``.
        """
        for stage in (self.comparisons, self.wanted, self.copies):
            if stage == self.wanted and self._wanted is None:
                self.registrations.locate(self.selected(), part(progress, 0.0, 0.7))
                self.tumor_side(part(progress, 0.7, 0.9))
                self._wanted = self._choose(part(progress, 0.9, 1.0))
            if pending := [planned for planned in stage() if not self.registrations.is_finished(planned)]:
                return pending
        return []

    def fraction(self, pending: Sequence[PlannedRegistration]) -> float:
        """Return the approximate fraction of all registrations done once the ``pending`` ones are."""
        if pending[0].linear:
            return 0.1
        wanted = {planned.key for planned in self.wanted()}
        return 0.75 if self._side_without_cochlea() and pending[0].key in wanted else 1.0

    def registered(self, planned: PlannedRegistration) -> RegisteredAtlas | None:
        """Return a finished registration; None where it failed (noted once)."""
        item = self.registrations.result(planned)
        if isinstance(item, str):
            if not any(outcome.atlas == planned.atlas.id for outcome in self.outcomes):
                self._exclude(planned.atlas.id, planned.atlas.side, planned.mirrored, item)
            return None
        return item

    def _all_registered(self, planned: Sequence[PlannedRegistration]) -> list[RegisteredAtlas]:
        return [item for item in map(self.registered, planned) if item is not None]

    # Decisions

    def comparisons(self) -> list[PlannedRegistration]:
        """Return the linear registrations that select atlases where a side has more than are wanted."""
        return [
            PlannedRegistration(atlas, linear=True)
            for candidates, count in _by_side(self.atlases, self.settings)
            if len(candidates) > count and not self._ranks_ears()
            for atlas in candidates
        ]

    def _ranks_ears(self) -> bool:
        """Whether the ears choose among the atlases: there are more than are registered, and the target's are known."""
        return 0 < self.settings.most_atlases < len(self.atlases) and self.registrations.target.frames is not None

    def selected(self) -> list[Atlas]:
        """Return the atlases of each side that are most similar to the target after linear registration.

        All of them if the ears choose among them once the tumor side is known.
        """
        if self._selected is None:
            self._selected = []
            for candidates, count in _by_side(self.atlases, self.settings):
                is_few = len(candidates) <= count or self._ranks_ears()
                self._selected += candidates if is_few else self._most_similar(candidates, count)
            if not self._selected:
                raise InputError(_NO_ATLAS)
        return self._selected

    def _most_similar(self, candidates: list[Atlas], count: int) -> list[Atlas]:
        registered = {atlas.id: self.registered(PlannedRegistration(atlas, linear=True)) for atlas in candidates}
        quality = {name: -np.inf if item is None else item.quality for name, item in registered.items()}
        ranked = sorted(candidates, key=lambda atlas: (-quality[atlas.id], atlas.id))
        for atlas in ranked[count:]:
            if registered[atlas.id] is not None:
                reason = f"{count} atlases with the tumor on the {atlas.side} are more similar to the target."
                self.outcomes.append(AtlasOutcome(atlas.id, atlas.side, excluded=reason))
        return [atlas for atlas in ranked[:count] if registered[atlas.id] is not None]

    def side(self) -> str | None:
        """Return the tumor side; None where it is unknown or there is no tumor."""
        return self.tumor_side().side

    def tumor_side(self, progress: Progress | None = None) -> TumorSide:
        """Return the tumor side and its certainty."""
        if self._side is None:
            self._side = self._find_tumor_side(progress)
        return self._side

    def _find_tumor_side(self, progress: Progress | None) -> TumorSide:
        lateral = [atlas for atlas in self.selected() if atlas.side is not None]
        if self.settings.tumor_side != "auto" or not lateral:
            return TumorSide(self.settings.tumor_side if lateral and self.settings.tumor_side != "unknown" else None)
        target = self.registrations.target
        if target.frames is not None and len(target.frames.accepted) == 1:
            result = TumorSide.of_only_ear(target.frames.accepted[0].side)
        else:
            result = self._compare_sides(lateral, progress)
        self.notes += [result.note] if result.note else []
        return result

    def _compare_sides(self, lateral: list[Atlas], progress: Progress | None) -> TumorSide:
        grid = self.registrations.target.part.grid
        try:
            votes = self.registrations.alignment.tumor_votes(_different_sizes(lateral, _TUMOR_ATLASES))
            comparison = self.registrations.contralateral_comparison(progress)
            return find_tumor_side(votes, comparison, grid.spacing_zyx)
        except CannotWrite:
            raise
        except InputError as cause:
            return TumorSide.unknown(str(cause))

    def _comparison_for_outline(self, progress: Progress | None) -> contralateral.ContralateralComparison | None:
        """Return the contralateral comparison that outlines the tumor; None where atlas votes alone do."""
        if self.settings.outline == "atlases" or self.settings.weighting == "global" or not self.side():
            return None
        try:
            return self.registrations.contralateral_comparison(progress)
        except CannotWrite:
            raise
        except InputError as cause:
            self.notes.append(f"The tumor was not compared with the contralateral side: {cause}")
            return None

    def wanted(self) -> list[PlannedRegistration]:
        """Return the registrations to fuse: of the chosen atlases, mirrored where their tumor is contralateral."""
        if self._wanted is None:
            self._wanted = self._choose()
        return self._wanted

    def _choose(self, progress: Progress | None = None) -> list[PlannedRegistration]:
        """Return the registrations of the selected atlases, of too many those that match the target best before it."""
        side = self.side()
        planned = [
            PlannedRegistration(atlas, bool(self.settings.mirror and side and atlas.side and atlas.side != side))
            for atlas in self.selected()
        ]
        if not self._ranks_ears():
            return planned
        ranking = atlas_selection.kept_ranking(self.registrations, planned, side, progress)
        left_out = atlas_selection.left_out(ranking, {atlas.id: atlas.side for atlas in self.atlases}, self.settings)
        self.outcomes += [
            AtlasOutcome(item.atlas.id, item.side, item.mirrored, excluded=left_out[item.atlas.id])
            for item in planned
            if item.atlas.id in left_out
        ]
        chosen = [item for item in planned if item.atlas.id not in left_out]
        if not chosen:
            raise InputError(_NO_ATLAS)
        self.notes.append(
            f"{len(chosen)} of {len(planned)} atlases were registered, those whose ears match the target best."
        )
        return chosen

    def _side_without_cochlea(self) -> str | None:
        """Return the side whose cochlea only mirrored copies can contribute, if any."""
        if not (self.settings.mirror and self.side()):
            return None
        return missing_cochlea.side_without_cochlea([(planned.atlas, planned.mirrored) for planned in self.wanted()])

    def copies(self) -> list[PlannedRegistration]:
        """Return the registrations of mirrored copies that contribute a cochlea no atlas has; mostly none."""
        if self._side_without_cochlea() is None:
            return []
        copied = missing_cochlea.to_be_copied(self._all_registered(self.wanted()))
        return [PlannedRegistration(item.atlas, not item.mirrored) for item in copied]

    # The result

    def usable(self) -> list[RegisteredAtlas]:
        """Return the registrations to fuse, without failed ones (noted)."""
        registered = self._all_registered(self.wanted())
        failed = failures(registered)
        for item in registered:
            if reason := failed.get(item.name):
                self._exclude(item.atlas.id, item.side, item.mirrored, reason, item.quality)
        registered = [item for item in registered if item.name not in failed]
        if not registered:
            raise InputError(
                f"No atlas could be registered to {self.case.id}. "
                f"Check that it shows the same part of the body. {self.notes[-1]}"
            )
        median = float(np.median([item.quality for item in registered]))
        if median < CHANCE:
            self.notes.append(f"The target is little similar to the atlases (quality {median:.2f}); check the label.")
        return registered + self._usable_copies()

    def _usable_copies(self) -> list[RegisteredAtlas]:
        """Return the mirrored copies without failed ones: compared among themselves, as their tumor never matches."""
        registered = self._all_registered(self.copies())
        failed = failures(registered)
        registered = [item for item in registered if item.name not in failed]
        if side := self._side_without_cochlea():
            copies = (
                "1 mirrored copy contributes"
                if len(registered) == 1
                else f"{len(registered)} mirrored copies contribute"
            )
            self.notes.append(f"No atlas has the {side} cochlea: {copies} it.")
        return registered

    def fuse(
        self, registered: list[RegisteredAtlas], progress: Progress | None = None
    ) -> tuple[NoisyLabel, Contributors]:
        """Fuse registered atlases, of which as many contribute as of all that are selected."""
        comparison = self._comparison_for_outline(part(progress, 0.0, 0.6))
        count = len({item.atlas.id for item in registered})
        fraction = min(self.settings.contributing_fraction * len(self.selected()) / count, 1.0)
        return fuse(
            *(registered, self.registrations.target.part, self.side()),
            *(dataclasses.replace(self.settings, contributing_fraction=fraction), self.fusion_settings),
            comparison=comparison,
            progress=part(progress, 0.6, 1.0),
        )

    def fuse_and_write(self, progress: Progress | None = None) -> Volume:
        """Fuse the registered atlases and write all outputs on the target's grid; return the label map."""
        registered, side = self.usable(), self.side()
        target = self.registrations.target
        self.notes += [target.note] if target.note else []
        fused, contributors = self.fuse(registered, part(progress, 0.0, 0.5))
        tumor_side = self.tumor_side()
        if tumor_side.contralateral is not None:
            fused = with_side_uncertainty(fused, tumor_side.certainty, tumor_side.contralateral)
        self.notes += fused.fusion.notes
        self.outcomes += [
            AtlasOutcome(
                *(item.atlas.id, item.side, item.mirrored, item.quality),
                *(contributors.structures(item.name), item.seconds, item.reused),
            )
            for item in registered
        ]
        provenance = self.record.finish(
            target=self.case.id,
            region=self.registrations.target.region,
            tumor_side=side,
            side_certainty=round(tumor_side.certainty, 4),
            side_evidence=tumor_side.evidence,
            atlases=[dataclasses.asdict(outcome) for outcome in self.outcomes],
            fusion={"iterations": fused.fusion.iterations, "converged": fused.fusion.converged},
            recentered=[dataclasses.asdict(shift) for shift in fused.recentered],
            notes=self.notes,
        )
        performance = {item.name: each for item, each in zip(registered, fused.fusion.performance, strict=True)}
        table = noisy_label.table(self.outcomes, performance)
        return noisy_label.write(
            self.folder, self.registrations.target, fused, table, provenance, part(progress, 0.5, 1.0)
        )


def registrations_at_most(atlases: Sequence[Atlas], settings: Settings) -> tuple[int, int]:
    """Return the maximum number of registrations of a propagation, and how many of them are of mirrored copies.

    The number of atlases is limited for targets whose ears are found.
    """
    groups = _by_side(atlases, settings)
    selected = [min(len(candidates), count) for candidates, count in groups]
    is_ranked = 0 < settings.most_atlases < len(atlases) and settings.initialization in ("auto", "frames")
    comparisons = sum(len(candidates) for candidates, count in groups if len(candidates) > count and not is_ranked)
    lateral, chosen, copies = sum(selected[: len(laterality.SIDES)]), sum(selected), 0
    if is_ranked:
        chosen = min(chosen, settings.most_atlases)
    sides = laterality.SIDES if settings.tumor_side == "auto" else {settings.tumor_side} & set(laterality.SIDES)
    if settings.mirror and any(missing_cochlea.may_be_missing(groups, side) for side in sides):
        copies = min(missing_cochlea.most_copies(chosen), lateral)
    return comparisons + chosen + copies, copies


def _by_side(atlases: Sequence[Atlas], settings: Settings) -> list[tuple[list[Atlas], int]]:
    """Return the atlases with the tumor on the left, on the right and on neither side, and how many are wanted."""
    wanted = {"left": settings.left_atlases, "right": settings.right_atlases, None: len(atlases)}
    return [([atlas for atlas in atlases if atlas.side == side], count) for side, count in wanted.items()]


def _different_sizes(atlases: list[Atlas], count: int) -> list[Atlas]:
    """Return at most ``count`` atlases whose tumor volumes are spread evenly over those of all."""
    by_size = sorted(atlases, key=lambda atlas: (atlas.volumes_mm3["VS"], atlas.id))
    count = min(count, len(by_size))
    return [by_size[int((number + 0.5) * len(by_size) / count)] for number in range(count)]


def _deeds(fixed: Volume, moving: Volume, settings: Any, **options: Any) -> Any:
    from crossmoda import deeds

    return deeds.register(fixed, moving, settings, **options)
