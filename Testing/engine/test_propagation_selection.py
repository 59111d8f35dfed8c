"""Which atlases are registered where there are more than are wanted: those whose ears match the target best."""

import csv
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from crossmoda import propagation, user_cache, volume
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames
from crossmoda.anatomy.template import NAMES
from crossmoda.dataset import Case
from crossmoda.errors import InputError
from crossmoda.propagation import Settings, atlas_selection, frames
from crossmoda.propagation.atlases import examine
from crossmoda.propagation.canonical_ears import GRID as EARS
from crossmoda.propagation.canonical_ears import AtlasEars, atlas_ears, target_ears
from crossmoda.propagation.registrations import PlannedRegistration
from crossmoda.propagation.run import registrations_at_most
from crossmoda.volume import Grid, Volume
from phantoms import head

GRID = Grid((72, 48, 20), (1.25, 1.25, 2.0), (-45.0, -30.0, -20.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))

#: The ears of these heads lie where the template has them beside the midplane, but 31 mm further back and 42 mm lower.
TO_SCAN = np.array([[1.0, 0, 0, 0], [0, 1, 0, -31], [0, 0, 1, 42], [0, 0, 0, 1]])
MIRROR = np.diag([-1.0, 1, 1, 1])
SETTINGS = Settings(region="whole", tumor_side="left")


@dataclasses.dataclass(frozen=True)
class Registering:
    """Settings of the registration that costs nothing."""

    levels: int = 5


class Register:
    """Takes images as lying on each other; counts its calls."""

    calls = 0

    def __call__(self, fixed: Volume, moving: Volume, settings: Any, *, initial=None, progress=None) -> Any:
        self.calls += 1
        transform = sitk.Transform(3, sitk.sitkIdentity)
        return SimpleNamespace(
            transform=transform,
            warp_image=lambda image, grid: volume.resample(image, grid, transform, "linear"),
            warp_label_map=lambda label_map, grid: volume.resample(label_map, grid, transform, "label"),
        )


def known_frames(*missing: str) -> EarFrames:
    """Return the frames of a head, those of the ``missing`` ears refused."""
    landmarks = {name: np.zeros(3) for name in NAMES}
    left, right = (
        EarFrame(side, matrix, landmarks, 0.9, 1.0, 0.1, "outside the scan" if side in missing else "")
        for side, matrix in (("left", TO_SCAN), ("right", MIRROR @ TO_SCAN))
    )
    return EarFrames(left, right, "T2", 0.9)


def write(folder: Path, name: str, side: str, seed: int, shift: int = 0, **options) -> Case:
    """Write an atlas; ``shift`` moves the scan beside its ears, as a wrong frame does, voxels."""
    image, label_map = (np.roll(array, shift, axis=1) for array in head(GRID, side, seed, **options))
    volume.write(Volume(image, GRID), folder / f"{name}.nii.gz")
    volume.write(Volume(label_map, GRID), folder / f"{name}_label.nii.gz")
    return Case(name, "ceT1", folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz")


@pytest.fixture
def atlases(tmp_path, monkeypatch) -> list[Case]:
    """Six atlases on either side; of two the ears match the target less."""
    for name in ("ear_frames", "labeled_ear_frames"):
        monkeypatch.setattr(frames, name, lambda *_: known_frames())
    frames._located.cache_clear()
    good = [write(tmp_path, f"good{n}", ("left", "right")[n % 2], n) for n in range(4)]
    shifted = write(tmp_path, "a_shifted", "left", 8, shift=6)
    garbled = write(tmp_path, "b_garbled", "right", 9)
    image = garbled.read_image()
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 1, GRID.shape), 1)
    volume.write(image.with_array((100 + 400 * noise).astype(np.float32)), garbled.image)
    return [shifted, garbled, *good]


@pytest.fixture
def target(tmp_path) -> Case:
    image, _ = head(GRID, "left", 20)
    volume.write(Volume(image, GRID), tmp_path / "target.nii.gz")
    return Case("target", "hrT2", tmp_path / "target.nii.gz")


def run(target: Case, atlases: list[Case], folder: Path, settings: Settings = SETTINGS, register=None):
    options = {"registration": Registering(), "parallel_registrations": 1, "register": register or Register()}
    return propagation.propagate(target, atlases, folder, settings, **options)


def test_atlases_of_a_shifted_and_of_a_garbled_scan_are_left_out(atlases, target, tmp_path):
    register = Register()
    result = run(target, atlases, tmp_path / "out", dataclasses.replace(SETTINGS, most_atlases=4), register)
    excluded = {item.atlas: item.excluded for item in result.outcomes if item.excluded}
    assert set(excluded) == {"a_shifted", "b_garbled"}
    assert all("the ears of 4 atlases match the target better" in reason for reason in excluded.values())
    assert register.calls == 5  # with the target's mirror image
    assert any(note.startswith("4 of 6 atlases were registered") for note in result.notes)
    with (tmp_path / "out" / "atlases.csv").open() as stream:
        rows = {row["atlas"]: row for row in csv.DictReader(stream)}
    assert rows["b_garbled"]["mirrored"] == "yes" and rows["b_garbled"]["tumor_side"] == "left"
    assert {name for name, row in rows.items() if row["excluded"]} == set(excluded)


@pytest.mark.parametrize("most", [0, 6, 1000])
def test_few_atlases_are_all_registered_and_the_result_is_that_without_a_limit(atlases, target, tmp_path, most):
    unlimited = run(target, atlases[:5], tmp_path / "unlimited", dataclasses.replace(SETTINGS, most_atlases=0))
    limited = run(target, atlases[:5], tmp_path / "limited", dataclasses.replace(SETTINGS, most_atlases=most))
    assert limited.notes == unlimited.notes
    for name in ("noisy_label.nii.gz", "confidence.nii.gz", "probability_VS.nii.gz"):
        assert (tmp_path / "limited" / name).read_bytes() == (tmp_path / "unlimited" / name).read_bytes()


def test_the_ranking_does_not_depend_on_the_order_of_the_atlases_and_is_kept(atlases, target, tmp_path, monkeypatch):
    settings = dataclasses.replace(SETTINGS, most_atlases=3)
    first = run(target, atlases, tmp_path / "out", settings)
    second = run(target, atlases[::-1], tmp_path / "reversed", settings)
    contributors = {item.atlas for item in first.contributors}
    assert contributors == {item.atlas for item in second.contributors}
    monkeypatch.setattr(atlas_selection, "ranking", lambda *_: pytest.fail("ranked again"))
    register = Register()
    again = run(
        target, atlases, tmp_path / "out", dataclasses.replace(settings, mirror=True, outline="atlases"), register
    )
    assert register.calls == 0 and {item.atlas for item in again.contributors} == contributors


def test_as_many_atlases_contribute_as_of_all(atlases, target, tmp_path):
    settings = dataclasses.replace(SETTINGS, most_atlases=4, contributing_fraction=0.6)
    result = run(target, atlases, tmp_path / "out", settings)
    # 0.6 of six; of four it would be three.
    assert sum("VS" in item.contributes_to for item in result.contributors) == 4


def test_sides_with_many_atlases_are_ranked_without_linear_registrations(atlases, target, tmp_path):
    register, settings = Register(), dataclasses.replace(SETTINGS, most_atlases=5, right_atlases=1)
    result = run(target, atlases, tmp_path / "out", settings, register)
    reason = "1 atlases with the tumor on the right match the target better."
    left_out = {item.atlas for item in result.outcomes if item.excluded == reason}
    assert len(left_out) == 2 and "b_garbled" in left_out
    assert register.calls == 1 + registrations_at_most([examine(case) for case in atlases], settings)[0] == 5
    with pytest.raises(InputError, match="No atlas is selected"):
        run(target, atlases, tmp_path / "none", dataclasses.replace(settings, left_atlases=0, right_atlases=0))


def test_an_unreadable_atlas_takes_no_place_and_states_its_own_reason(atlases, target, tmp_path):
    Path(atlases[0].image).write_bytes(b"nothing")
    result = run(target, atlases, tmp_path / "out", dataclasses.replace(SETTINGS, most_atlases=4))
    excluded = {item.atlas: item.excluded for item in result.outcomes if item.excluded}
    assert set(excluded) == {"a_shifted", "b_garbled"} and "match the target better" not in excluded["a_shifted"]
    assert len(result.contributors) == 4


def test_without_ears_all_atlases_are_registered(atlases, target, tmp_path):
    settings = dataclasses.replace(SETTINGS, most_atlases=2, initialization="image")
    result = run(target, atlases, tmp_path / "out", settings)
    assert not any("match the target better" in item.excluded for item in result.outcomes)
    assert registrations_at_most([examine(case) for case in atlases], settings) == (6, 0)
    assert registrations_at_most(
        [examine(case) for case in atlases], dataclasses.replace(SETTINGS, most_atlases=2)
    ) == (2, 0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_ears_of_a_mirrored_atlas_change_places(tmp_path, mirrored):
    case, image = write(tmp_path, "atlas", "right", 1), Volume(head(GRID, "left", 5)[0], GRID)
    ears = atlas_ears(case.read_image(), case.read_label(), known_frames())
    planned = PlannedRegistration(examine(case), mirrored)
    aligned = atlas_selection._aligned(planned, ears, target_ears(image, known_frames()))
    half = EARS.size[0] // 2
    on_left, on_right = ((aligned.label_map[..., columns] == 1).any() for columns in (slice(half), slice(half, None)))
    assert (on_left, on_right) == (mirrored, not mirrored)
    assert aligned.side == ("left" if mirrored else "right")


def test_an_ear_that_the_target_lacks_does_not_count(tmp_path):
    case, image = write(tmp_path, "atlas", "left", 1), Volume(head(GRID, "left", 5)[0], GRID)
    ears = {"atlas": atlas_ears(case.read_image(), case.read_label(), known_frames())}
    aligned = atlas_selection._aligned(
        PlannedRegistration(examine(case)), ears["atlas"], target_ears(image, known_frames("left"))
    )
    half = EARS.size[0] // 2
    assert not aligned.label_map[..., :half].any() and aligned.label_map[..., half:].any()
    assert (aligned.dissimilarity[..., :half] == 255).all()


def test_an_atlas_without_ears_has_no_place_in_them(tmp_path):
    case = write(tmp_path, "atlas", "left", 1)
    assert not len(atlas_ears(case.read_image(), case.read_label(), known_frames("left", "right")).voxels)


@pytest.mark.parametrize("damage", ["", "cut", "other"])
def test_the_ears_of_an_atlas_are_kept_for_the_next_target(atlases, tmp_path, monkeypatch, damage):
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "kept"))
    atlas = examine(atlases[2])
    first = frames.located(atlas)
    (file,) = (tmp_path / "kept" / "atlas_ears").iterdir()
    if damage:
        file.write_text(
            file.read_text()[:200] if damage == "cut" else file.read_text().replace('"codes": "', '"codes": "c')
        )
    frames._located.cache_clear()
    read = []
    monkeypatch.setattr(frames, "labeled_ear_frames", lambda *_: read.append(1) or known_frames())
    second = frames.located(atlas)
    assert bool(read) == bool(damage)
    for name in ("voxels", "label", "codes"):
        np.testing.assert_array_equal(getattr(second.ears, name), getattr(first.ears, name))
    np.testing.assert_array_equal(second.frames.left.matrix, first.frames.left.matrix)


def test_an_atlas_whose_label_lies_on_another_grid_is_refused(tmp_path):
    case = write(tmp_path, "atlas", "left", 1)
    label_map = volume.read_label_map(case.label)
    volume.write(Volume(label_map.array, dataclasses.replace(label_map.grid, spacing=(1.1, 1.2, 1.3))), case.label)
    with pytest.raises(InputError, match=r"^atlas: label on another grid than its image: .*Resample the label\.$"):
        examine(case).load()


def test_arrays_of_different_lengths_are_damaged():
    ears = AtlasEars(np.zeros(3, np.int32), np.zeros(2, np.uint8), np.zeros(3, np.uint64))
    with pytest.raises(ValueError, match="different lengths"):
        AtlasEars.from_json(ears.to_json())
