"""Label propagation, with a registration that costs nothing: the scans lie on each other already."""

import csv
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import cache, deeds, fusion, propagation, volume
from crossmoda.dataset import Case
from crossmoda.dataset.results import NOISY_LABEL, NOISY_SEGMENTATION, PROPAGATION_FILES
from crossmoda.errors import Cancelled, InputError
from crossmoda.output import CannotWrite
from crossmoda.propagation import Settings, propagate
from crossmoda.propagation.atlases import examine
from crossmoda.propagation.label_fusion import Rater, fuse_raters
from crossmoda.propagation.run import registrations_at_most
from crossmoda.volume import Grid, Volume
from phantoms import dice, head

GRID = Grid((72, 48, 20), (1.25, 1.25, 2.0), (-45.0, -30.0, -20.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
#: These heads have no skull base.
WHOLE = Settings(region="whole", initialization="image")


@dataclasses.dataclass(frozen=True)
class Registering:
    """Settings of the registration that costs nothing."""

    levels: int = 5


class Register:
    """Takes images as lying on each other, except those named in ``misplaced`` (mm); counts its calls."""

    def __init__(self, misplaced: dict[float, float] | None = None, fail_at: int | None = None):
        self.calls, self.misplaced, self.fail_at = 0, misplaced or {}, fail_at

    def __call__(self, fixed: Volume, moving: Volume, settings: Any, *, initial=None, progress=None) -> Any:
        self.calls += 1
        if self.calls == self.fail_at:
            raise Cancelled
        shift = next((mm for mark, mm in self.misplaced.items() if np.isclose(moving.grid.origin[2], mark)), 0.0)
        transform = sitk.TranslationTransform(3, (0.0, shift, moving.grid.origin[2] - fixed.grid.origin[2]))
        return SimpleNamespace(
            transform=transform,
            warp_image=lambda image, grid: volume.resample(image, grid, transform, "linear"),
            warp_label_map=lambda label_map, grid: volume.resample(label_map, grid, transform, "label"),
        )


def test_tumor_votes_weigh_e_per_standard_deviation_of_better_fit():
    image, label_map = head(GRID, "left", 0)
    cochleae = np.where(label_map == 2, label_map, 0).astype(np.uint8)
    compared = {"dissimilarity": np.zeros(GRID.shape, np.uint8), "intensity": np.ones(GRID.shape, np.uint16)}
    raters = [Rater(label_map, tumor_score=2.5, **compared), Rater(cochleae, tumor_score=1.5, **compared)]
    found = fuse_raters(raters, 0.0, Volume(image, GRID), fusion.Settings(), clean=False).posterior
    middle = tuple(np.argwhere(label_map == 1).mean(axis=0).round().astype(int))
    assert found[(1, *middle)] == pytest.approx(np.e / (np.e + 1), abs=1e-3)


def write_case(folder: Path, name: str, side: str | None, seed: int, z_mm: float = -20.0, **options: Any) -> Case:
    """Write a scan and its label map; ``z_mm`` marks the scan for :class:`Register`."""
    image, label_map = head(GRID, side, seed, **options)
    grid = dataclasses.replace(GRID, origin=(*GRID.origin[:2], z_mm))
    volume.write(Volume(image, grid), folder / f"{name}.nii.gz")
    volume.write(Volume(label_map, grid), folder / f"{name}_label.nii.gz")
    return Case(name, "hrT2", folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("cases")
    made = {
        name: write_case(folder, name, side, seed)
        for seed, (name, side) in enumerate(
            [("left1", "left"), ("left2", "left"), ("right1", "right"), ("right2", "right"), ("target", "left")]
        )
    }
    made["truth"] = made["target"]
    made["target"] = dataclasses.replace(made["target"], modality="hrT2", label=None)
    return made


def atlases_of(cases: dict[str, Case]) -> list[Case]:
    return [cases[name] for name in ("left1", "left2", "right1", "right2")]


def run(
    cases: dict[str, Case], folder: Path, settings: Settings = WHOLE, register: Register | None = None, **options: Any
):
    options.setdefault("registration", Registering())
    options.setdefault("parallel_registrations", 1)
    atlases = options.pop("atlases", None) or atlases_of(cases)
    target = options.pop("target", cases["target"])
    return propagate(target, atlases, folder, settings, register=register or Register(), **options)


def forget(folder: Path) -> None:
    """Remove the noisy label, and keep the registrations."""
    for name in (cache.SEAL, *PROPAGATION_FILES):
        (folder / name).unlink()


class TestNoisyLabel:
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_the_side_is_found_and_contralateral_atlases_are_mirrored(self, cases, tmp_path, side):
        case = write_case(tmp_path, "subject", side, 30)
        target = dataclasses.replace(case, label=None)
        result = run(cases, tmp_path / "out", target=target)
        truth, fused = case.read_label().array, result.label_map.array
        assert result.tumor_side == side
        assert {item.atlas: item.mirrored for item in result.outcomes} == {
            name: not name.startswith(side) for name in ("left1", "left2", "right1", "right2")
        }
        assert dice(fused == 1, truth == 1) > 0.95 and dice(fused == 2, truth == 2) > 0.95
        half = slice(0, 36) if side == "left" else slice(36, None)
        assert not (fused[..., half] == 1).any()

    def test_without_mirroring_contralateral_atlases_contribute_cochleae_only(self, cases, tmp_path):
        result = run(cases, tmp_path, dataclasses.replace(WHOLE, mirror=False, contributing_fraction=1.0))
        about = {item.atlas: item.contributes_to for item in result.outcomes}
        assert about["right1"] == about["right2"] == "left cochlea, right cochlea"
        assert about["left1"] == about["left2"] == "VS, left cochlea, right cochlea"
        assert dice(result.label_map.array == 1, cases["truth"].read_label().array == 1) > 0.95
        assert not (result.label_map.array[..., :36] == 1).any()

    def test_atlases_with_one_cochlea_are_no_evidence_against_the_contralateral_one(self, cases, tmp_path):
        one_sided = [write_case(tmp_path, f"one{n}", "left", 40 + n, cochleae=("left",)) for n in range(4)]
        result = run(cases, tmp_path / "out", atlases=[*one_sided, cases["left1"], cases["left2"]])
        truth = cases["truth"].read_label().array
        assert dice(result.label_map.array == 2, truth == 2) > 0.95

    @pytest.mark.parametrize("tumor_side", ["auto", "left"])
    def test_mirrored_copies_contribute_the_cochlea_that_no_atlas_has(self, cases, tmp_path, tumor_side):
        sides = ["left", "right", "left", "right", "left", "right"]
        beside = [write_case(tmp_path, f"beside{n}", side, 40 + n, cochleae=(side,)) for n, side in enumerate(sides)]
        settings, register = dataclasses.replace(WHOLE, tumor_side=tumor_side), Register()
        result = run(cases, tmp_path / "out", settings, register, atlases=beside)
        truth, fused = cases["truth"].read_label().array, result.label_map.array
        assert dice(fused == 1, truth == 1) > 0.95 and not (fused[..., :36] == 1).any()
        # A mirror image lies one voxel beside the head here, and nothing is registered.
        assert dice(fused[..., 36:] == 2, truth[..., 36:] == 2) > 0.95
        assert dice(fused[..., :36] == 2, truth[..., :36] == 2) > 0.8
        assert "No atlas has the right cochlea: 2 mirrored copies contribute it." in result.notes
        about = {(item.atlas, item.tumor_side): item.contributes_to for item in result.outcomes}
        assert len(about) == 8 and sum(topics == "right cochlea" for topics in about.values()) == 2
        assert all("right" not in topics for (_, side), topics in about.items() if side == "left")
        assert register.calls == 9  # with the target's mirror image
        assert registrations_at_most([examine(case) for case in beside], settings)[0] == register.calls - 1

    def test_without_mirroring_no_copy_is_made_and_the_cochlea_is_missing(self, cases, tmp_path):
        beside = [write_case(tmp_path, f"beside{n}", "left", 40 + n, cochleae=("left",)) for n in range(3)]
        result = run(cases, tmp_path / "out", dataclasses.replace(WHOLE, mirror=False), atlases=beside)
        assert not (result.label_map.array[..., :36] == 2).any()
        assert {item.mirrored for item in result.outcomes} == {False}

    def test_the_atlases_with_the_best_matching_tumor_contribute_to_it(self, cases, tmp_path):
        small = [write_case(tmp_path, f"small{n}", "left", 50 + n, tumor_mm=4.99) for n in range(4)]
        result = run(
            cases,
            tmp_path / "out",
            dataclasses.replace(WHOLE, contributing_fraction=0.1),
            atlases=[*small, *atlases_of(cases)],
        )
        contributors = {item.atlas for item in result.outcomes if "VS" in item.contributes_to}
        assert len(contributors) == 3 and not any(name.startswith("small") for name in contributors)
        assert dice(result.label_map.array == 1, cases["truth"].read_label().array == 1) > 0.95

    def test_the_outputs_lie_on_the_targets_grid_and_agree_with_each_other(self, cases, tmp_path):
        run(cases, tmp_path)
        grid = volume.read(cases["target"].image).grid
        label_map = volume.read_label_map(tmp_path / "noisy_label.nii.gz")
        assert label_map.grid == grid
        maps = {path: volume.read(tmp_path / path) for path in PROPAGATION_FILES if path.endswith(".nii.gz")}
        assert all(item.grid == grid for item in maps.values())
        confidence = maps["confidence.nii.gz"].array
        assert confidence.max() <= 1 and confidence.min() > 0.3
        for value, key in ((1, "VS"), (2, "cochlea")):
            probability = maps[f"probability_{key}.nii.gz"].array
            np.testing.assert_allclose(probability[label_map.array == value], confidence[label_map.array == value])
        segments = volume.read_label_map(tmp_path / "noisy_label.seg.nrrd", grid)
        np.testing.assert_array_equal(segments.array, label_map.array)

    def test_the_table_has_a_row_for_each_atlas_and_no_file_names_a_folder(self, cases, tmp_path):
        run(cases, tmp_path)
        with (tmp_path / "atlases.csv").open() as stream:
            rows = {row["atlas"]: row for row in csv.DictReader(stream)}
        assert set(rows) == {"left1", "left2", "right1", "right2"}
        assert 0.8 < float(rows["left1"]["sensitivity_VS"]) <= 1 and float(rows["left1"]["quality"]) > 0.3
        assert rows["right1"]["mirrored"] == "yes" and rows["right1"]["tumor_side"] == "left"
        provenance = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
        assert provenance["tumor_side"] == "left"
        assert provenance["side_evidence"]["left"] > 100 > 20 > provenance["side_evidence"]["right"]
        assert str(tmp_path) not in (tmp_path / "provenance.json").read_text("utf-8")

    def test_an_uncertain_side_lowers_the_confidence_of_the_tumor_on_both_sides(self, cases, tmp_path, monkeypatch):
        sure = run(cases, tmp_path / "sure")
        difference = iter([30.0, 20.0])
        monkeypatch.setattr("crossmoda.propagation.tumor_side.excess_mm3", lambda *_: next(difference))
        unsure = run(cases, tmp_path / "unsure")
        assert sure.tumor_side == unsure.tumor_side == "left" and any(
            "both sides look alike" in note for note in unsure.notes
        )
        np.testing.assert_array_equal(unsure.label_map.array, sure.label_map.array)
        certainty = [
            json.loads((tmp_path / name / "provenance.json").read_text())["side_certainty"]
            for name in ("sure", "unsure")
        ]
        doubtful = 1 / (1 + math.exp(-0.1 * (30 - 20)))
        assert certainty[0] > 0.999 and certainty[1] == pytest.approx(doubtful, abs=1e-4)
        before, after = (volume.read(tmp_path / name / "confidence.nii.gz").array for name in ("sure", "unsure"))
        tumor, mirrored = sure.label_map.array == 1, (sure.label_map.array == 1)[..., ::-1]
        np.testing.assert_allclose(after[tumor] / before[tumor], doubtful, atol=0.001)
        assert after[mirrored].mean() < 0.95 < before[mirrored].min()  # where the probes have it on the other side
        distant = ~ndimage.binary_dilation(tumor | mirrored, iterations=4)
        np.testing.assert_allclose(after[distant], before[distant], atol=0.002)

    def test_two_runs_give_the_same_bytes(self, cases, tmp_path):
        run(cases, tmp_path / "a")
        run(cases, tmp_path / "b")
        for name in ("noisy_label.nii.gz", "confidence.nii.gz"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_a_single_atlas_is_the_result_and_noted(self, cases, tmp_path):
        result = run(cases, tmp_path, atlases=[cases["left1"]])
        np.testing.assert_array_equal(result.label_map.array, cases["left1"].read_label().array)
        assert any("Only one label map" in note for note in result.notes)

    def test_the_most_similar_atlases_of_each_side_are_selected(self, cases, tmp_path):
        far = write_case(tmp_path, "far", "left", 60, z_mm=7.0)
        register = Register(misplaced={7.0: 9.0})
        result = run(
            cases,
            tmp_path / "out",
            dataclasses.replace(WHOLE, left_atlases=2),
            register,
            atlases=[far, *atlases_of(cases)],
        )
        excluded = {item.atlas: item.excluded for item in result.outcomes if item.excluded}
        assert set(excluded) == {"far"} and "are more similar to the target" in excluded["far"]


class TestSeveralAtOnce:
    def test_the_result_is_that_of_one_after_the_other(self, cases, tmp_path):
        run(cases, tmp_path / "one")
        run(cases, tmp_path / "three", parallel_registrations=3)
        for name in ("noisy_label.nii.gz", "confidence.nii.gz"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()

    def test_progress_rises_and_is_reported_in_the_callers_thread(self, cases, tmp_path):
        reported = []
        run(
            cases,
            tmp_path,
            parallel_registrations=2,
            progress=lambda fraction, _: reported.append((fraction, threading.get_ident())),
        )
        fractions = [fraction for fraction, _ in reported]
        assert fractions == sorted(fractions) and fractions[-1] == 1.0
        assert {thread for _, thread in reported} == {threading.get_ident()}

    def test_cancelling_ends_all_of_them_and_keeps_what_is_finished(self, cases, tmp_path):
        def cancel(fraction: float, _: str) -> None:
            if any(cache.is_finished(step) for step in tmp_path.glob("registrations/*")):
                raise Cancelled

        with pytest.raises(Cancelled):
            run(cases, tmp_path, parallel_registrations=2, progress=cancel)
        assert not any((tmp_path / name).exists() for name in PROPAGATION_FILES)
        kept = sum(cache.is_finished(step) for step in tmp_path.glob("registrations/*"))
        register = Register()
        run(cases, tmp_path, register=register, parallel_registrations=2)
        assert register.calls == 4 - kept  # the target's mirror image came first

    def test_a_full_disk_stops_all_of_them(self, cases, tmp_path, monkeypatch):
        def full(_: Volume, path: Path) -> None:
            raise InputError(f"Cannot write {path}; is the disk full or the folder write-protected?")

        monkeypatch.setattr(volume, "write", full)
        with pytest.raises(CannotWrite, match="is the disk full"):
            run(cases, tmp_path, parallel_registrations=2)


@pytest.mark.slow
def test_saved_transforms_map_target_points_to_the_file_of_the_atlas(cases, tmp_path):
    settings = dataclasses.replace(WHOLE, tumor_side="left", keep_transforms=True)
    how = deeds.Settings(levels=1, linear="none", device="cpu")
    result = run(cases, tmp_path, settings, deeds.register, registration=how)
    assert {outcome.atlas for outcome in result.contributors} == {"left1", "left2", "right1", "right2"}
    for outcome in result.contributors:
        assert outcome.mirrored == outcome.atlas.startswith("right")
        transform = sitk.ReadTransform(str(result.transform(outcome)))
        label_map = cases[outcome.atlas].read_label()
        warped = volume.resample(label_map, volume.read(cases["target"].image).grid, transform, "nearest")
        stored = volume.read_label_map(result.warped_label(outcome))
        assert dice(warped.array == 1, stored.array == 1) > 0.9 and dice(warped.array == 2, stored.array == 2) > 0.9
        inverse = sitk.ReadTransform(str(result.transform(outcome).with_name("T_inverse.h5")))
        point = (12.0, 3.0, -2.0)
        back = inverse.TransformPoint(transform.TransformPoint(point))
        assert np.linalg.norm(np.subtract(back, point)) < 1.0
    mirrored = sitk.ReadTransform(str(tmp_path / "registrations" / "right1_mirrored" / "T.h5"))
    assert mirrored.TransformPoint((20.0, 0.0, 0.0))[0] < 0


class TestResuming:
    def test_a_second_run_does_nothing(self, cases, tmp_path):
        first = run(cases, tmp_path)
        register = Register()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        second = run(cases, tmp_path, register=register)
        assert second.reused and not first.reused and register.calls == 0
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        np.testing.assert_array_equal(second.label_map.array, first.label_map.array)
        np.testing.assert_array_equal(second.read_confidence().array, first.read_confidence().array)
        assert second.side_certainty == first.side_certainty > 0.99
        assert (
            second.outcomes == first.outcomes and second.tumor_side == first.tumor_side and second.notes == first.notes
        )

    def test_another_fusion_keeps_the_registrations(self, cases, tmp_path):
        run(cases, tmp_path)
        register = Register()
        again = run(cases, tmp_path, register=register, fusion_settings=fusion.Settings(smoothness=0.5))
        assert register.calls == 0 and not again.reused and all(item.reused for item in again.outcomes)

    def test_another_registration_setting_registers_again(self, cases, tmp_path):
        run(cases, tmp_path)
        register = Register()
        run(cases, tmp_path, register=register, registration=Registering(levels=4))
        assert register.calls == 5  # four atlases, the target's mirror image

    def test_the_target_is_compared_with_its_mirror_image_once(self, cases, tmp_path):
        run(cases, tmp_path)
        forget(tmp_path)
        (tmp_path / "contralateral" / "contralateral.nii.gz").unlink()
        register = Register()
        for calls in (1, 1):
            run(cases, tmp_path, register=register)
            assert register.calls == calls
            forget(tmp_path)

    def test_a_target_that_cannot_be_compared_with_its_mirror_image_has_no_side(self, cases, tmp_path, monkeypatch):
        def fail(*_: Any) -> Any:
            raise InputError("The scan has too little in common with its mirror image.")

        monkeypatch.setattr("crossmoda.anatomy.contralateral.contralateral_brightness", fail)
        result = run(cases, tmp_path)
        assert result.tumor_side is None
        assert any("unknown: The scan has too little" in note for note in result.notes)

    def test_a_changed_atlas_is_registered_again_and_no_other(self, cases, tmp_path):
        atlases = [write_case(tmp_path, f"atlas{n}", "left", 70 + n) for n in range(3)]
        settings = dataclasses.replace(WHOLE, tumor_side="left")
        run(cases, tmp_path / "out", settings, atlases=atlases)
        write_case(tmp_path, "atlas1", "left", 80)
        register = Register()
        run(cases, tmp_path / "out", settings, register, atlases=atlases)
        assert register.calls == 1

    def test_a_cancelled_run_leaves_no_result_and_goes_on_where_it_stopped(self, cases, tmp_path):
        settings = dataclasses.replace(WHOLE, tumor_side="left")
        with pytest.raises(Cancelled):
            run(cases, tmp_path, settings, Register(fail_at=3))
        assert not any((tmp_path / name).exists() for name in PROPAGATION_FILES)
        register = Register()
        run(cases, tmp_path, settings, register)
        assert register.calls == 3  # two atlases, the target's mirror image

    def test_an_edited_noisy_label_is_never_removed(self, cases, tmp_path):
        run(cases, tmp_path)
        file = tmp_path / NOISY_SEGMENTATION
        file.write_bytes(b"edited")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        register = Register()
        for options in ({}, {"fusion_settings": fusion.Settings(smoothness=0.5)}):
            with pytest.raises(InputError, match=re.escape(f"Edited or damaged after it was written: {file}. Move it")):
                run(cases, tmp_path, register=register, **options)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        file.unlink()
        (tmp_path / cache.SEAL).unlink()
        with pytest.raises(InputError, match="Not a result of a finished run"):
            run(cases, tmp_path, register=register)
        assert register.calls == 0 and (tmp_path / NOISY_LABEL).is_file()

    @pytest.mark.parametrize("damage", ["truncate", "delete", "unsealed"])
    def test_a_damaged_registration_is_done_again(self, cases, tmp_path, damage):
        settings = dataclasses.replace(WHOLE, tumor_side="left")
        first = run(cases, tmp_path, settings)
        folder = tmp_path / "registrations" / "left1"
        victim = folder / (cache.SEAL if damage == "unsealed" else "warped_label.nii.gz")
        if damage == "truncate":
            victim.write_bytes(victim.read_bytes()[:-20])
        else:
            victim.unlink()
        forget(tmp_path)
        register = Register()
        again = run(cases, tmp_path, settings, register)
        assert register.calls == 1
        np.testing.assert_array_equal(again.label_map.array, first.label_map.array)

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
    def test_a_killed_process_loses_only_the_registration_at_work(self, cases, tmp_path):
        script = (
            "import sys, time, dataclasses; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/..']\n"
            "import test_propagation as t\n"
            "from pathlib import Path\n"
            "class Slow(t.Register):\n"
            "    def __call__(self, *a, **k):\n"
            "        time.sleep(60 if self.calls == 2 else 0)\n"
            "        return super().__call__(*a, **k)\n"
            "folder = Path(sys.argv[2])\n"
            "case = lambda n: t.Case(n, 'ceT1', folder / f'{n}.nii.gz', folder / f'{n}_label.nii.gz')\n"
            "cases = {n: case(n) for n in ('left1', 'left2', 'right1', 'right2', 'target')}\n"
            "cases['target'] = dataclasses.replace(cases['target'], modality='hrT2', label=None)\n"
            "t.run(cases, Path(sys.argv[3]), dataclasses.replace(t.WHOLE, tumor_side='left'), Slow())\n"
        )
        data = Path(cases["left1"].image).parent
        process = subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent), str(data), str(tmp_path)])
        second = tmp_path / "registrations" / "left2"
        deadline = time.monotonic() + 120
        while not cache.is_finished(second) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert cache.is_finished(second) and not cache.is_finished(tmp_path)
        register = Register()
        result = run(cases, tmp_path, dataclasses.replace(WHOLE, tumor_side="left"), register)
        assert register.calls == 3  # two atlases, the target's mirror image
        assert [item.reused for item in result.outcomes] == [True, True, False, False]


class TestFailures:
    def test_a_failed_registration_is_excluded_and_the_others_are_fused(self, cases, tmp_path):
        lost = write_case(tmp_path, "lost", "left", 90, z_mm=11.0)
        result = run(cases, tmp_path / "out", register=Register({11.0: 12.0}), atlases=[*atlases_of(cases), lost])
        excluded = [item for item in result.outcomes if item.excluded]
        assert [item.atlas for item in excluded] == ["lost"]
        assert any(note.startswith("Atlas lost was excluded: its registration") for note in result.notes)
        assert dice(result.label_map.array == 1, cases["truth"].read_label().array == 1) > 0.95

    @pytest.mark.parametrize(
        ("value", "said"), [(0, "No labeled voxel in bad"), (7, "Unknown label value in bad_label.nii.gz: 7")]
    )
    def test_an_atlas_with_unusable_labels_is_excluded_with_a_note(self, cases, tmp_path, value, said):
        bad = write_case(tmp_path, "bad", "left", 91)
        label_map = bad.read_label()
        volume.write(label_map.with_array(np.minimum(label_map.array, 1) * np.uint8(value)), bad.label)
        result = run(cases, tmp_path / "out", atlases=[*atlases_of(cases), bad])
        (line,) = [note for note in result.notes if "bad" in note]
        assert said in line
        with pytest.raises(InputError, match=f"No atlas is usable.*{said}"):
            run(cases, tmp_path / "only", atlases=[bad])

    def test_an_unreadable_atlas_is_excluded(self, cases, tmp_path):
        broken = write_case(tmp_path, "broken", "left", 92)
        Path(broken.image).write_bytes(b"nothing")
        result = run(cases, tmp_path / "out", atlases=[*atlases_of(cases), broken])
        assert [item.atlas for item in result.outcomes if item.excluded] == ["broken"]

    def test_a_target_without_overlap_is_one_clear_line(self, cases, tmp_path):
        register = Register({-20.0: 500.0})
        with pytest.raises(InputError, match=r"No atlas could be registered to target.*does not overlap the target"):
            run(cases, tmp_path, dataclasses.replace(WHOLE, tumor_side="left"), register)

    def test_a_target_of_other_anatomy_is_doubtful(self, cases, tmp_path):
        noise = np.random.default_rng(5).normal(100, 20, GRID.shape)
        path = tmp_path / "knee.nii.gz"
        volume.write(Volume(ndimage.gaussian_filter(noise, 1).astype(np.float32), GRID), path)
        result = run(cases, tmp_path / "out", target=Case("knee", "hrT2", path))
        assert any("little similar to the atlases" in note for note in result.notes)

    def test_a_target_without_a_skull_base_is_refused_with_the_way_out(self, cases, tmp_path):
        with pytest.raises(InputError, match=r"^target shows no skull base .* initialization 'image' for other"):
            run(cases, tmp_path / "out", Settings())

    def test_a_full_disk_is_one_error_and_finished_registrations_stay(self, cases, tmp_path, monkeypatch):
        settings = dataclasses.replace(WHOLE, tumor_side="left")
        written, real = [], volume.write

        def full(item: Volume, path: Path) -> None:
            written.append(path.parent)
            if len(set(written)) > 2:  # two registrations are finished
                raise InputError(f"Cannot write {path}; is the disk full or the folder write-protected?")
            real(item, path)

        monkeypatch.setattr(volume, "write", full)
        with pytest.raises(CannotWrite, match=r"is the disk full.*Free some disk space and run again"):
            run(cases, tmp_path, settings)
        monkeypatch.undo()
        register = Register()
        run(cases, tmp_path, settings, register)
        assert register.calls == 3  # two atlases, the target's mirror image

    def test_a_registration_that_failed_is_not_tried_again(self, cases, tmp_path):
        lost = write_case(tmp_path, "lost", "left", 93, z_mm=13.0)
        atlases = [*atlases_of(cases), lost]
        settings = dataclasses.replace(WHOLE, tumor_side="left")
        first = run(cases, tmp_path / "out", settings, Register({13.0: 500.0}), atlases=atlases)
        assert any("lost does not overlap" in note for note in first.notes)
        register = Register({13.0: 500.0})
        again = run(
            cases, tmp_path / "out", settings, register, atlases=atlases, fusion_settings=fusion.Settings(margin=2)
        )
        assert register.calls == 0 and again.notes == first.notes

    def test_a_registration_without_a_solution_is_that_atlass_failure(self, cases, tmp_path):
        class Singular(Register):
            def __call__(self, fixed: Volume, moving: Volume, settings: Any, **options: Any) -> Any:
                if self.calls == 0:
                    self.calls += 1
                    raise InputError("The images have too little in common for the linear registration.")
                return super().__call__(fixed, moving, settings, **options)

        result = run(cases, tmp_path, dataclasses.replace(WHOLE, tumor_side="left"), Singular())
        (excluded,) = [item for item in result.outcomes if item.excluded]
        assert excluded.atlas == "left1" and "too little in common" in excluded.excluded

    def test_no_atlases_at_all(self, cases, tmp_path):
        with pytest.raises(InputError, match="There are no atlases"):
            propagate(cases["target"], [], tmp_path)

    def test_a_constant_target(self, cases, tmp_path):
        path = tmp_path / "flat.nii.gz"
        volume.write(Volume(np.full(GRID.shape, 5, np.float32), GRID), path)
        with pytest.raises(InputError, match="the same value everywhere"):
            run(cases, tmp_path / "out", target=Case("flat", "hrT2", path))


class TestSeveralTargets:
    def test_a_failing_target_does_not_stop_the_others(self, cases, tmp_path):
        path = tmp_path / "flat.nii.gz"
        volume.write(Volume(np.full(GRID.shape, 5, np.float32), GRID), path)
        targets = [Case("flat", "hrT2", path), cases["target"]]
        done, failed = propagation.propagate_all(
            targets, atlases_of(cases), tmp_path / "out", WHOLE, registration=Registering(), register=Register()
        )
        assert list(done) == ["target"] and (tmp_path / "out" / "target" / "noisy_label.nii.gz").exists()
        assert list(failed) == ["flat"] and "same value everywhere" in failed["flat"]


@pytest.mark.shared_data
def test_a_real_spinal_cord_goes_from_t1_to_t2(shared_data, tmp_path):
    folder = shared_data / "sct_cord"
    atlas = Case("t1w", "ceT1", folder / "t1w.nii.gz", folder / "t1w_seg-manual.nii.gz")
    truth = volume.read_label_map(folder / "t2_seg-manual.nii.gz")
    result = propagate(
        Case("t2", "hrT2", folder / "t2.nii.gz"),
        [atlas],
        tmp_path,
        Settings(initialization="image"),
        registration=deeds.Settings(device="cpu"),
    )
    by_header = volume.resample(atlas.read_label(), truth.grid, interpolation="label")
    assert (
        result.tumor_side is None and json.loads((tmp_path / "provenance.json").read_text("utf-8"))["region"] == "whole"
    )
    assert dice(by_header.array > 0, truth.array > 0) < 0.87
    assert dice(result.label_map.array > 0, truth.array > 0) > 0.92


def test_settings_name_the_value_that_is_wrong():
    with pytest.raises(InputError, match=r"contributing_fraction must be 0\.05 to 1; got 2"):
        propagation.Settings(contributing_fraction=2)
