"""Results from earlier runs are used only if they are whole and of the same content."""

import os

import numpy as np
import pytest

from crossmoda import user_cache
from crossmoda.anatomy import ear_frame
from crossmoda.volume import Grid, Volume
from phantoms import AXIAL

GRID = Grid((60, 60, 40), (2.0, 2.0, 2.0), (-60.0, -60.0, -90.0), AXIAL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def searched(monkeypatch):
    """The names of the searches for a skull base that were really made."""
    made = []
    for name in ("locate", "locate_thoroughly"):
        original = getattr(ear_frame.skull_base, name)

        def counted(*arguments, name=name, original=original):
            made.append(name)
            return original(*arguments)

        monkeypatch.setattr(ear_frame.skull_base, name, counted)
    return made


def scan(seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).normal(100, 20, GRID.shape).astype(np.float32), GRID)


def test_the_ears_of_a_scan_are_looked_for_once_and_again_where_the_file_is_damaged(folder, searched):
    first = ear_frame.ear_frames(scan())
    assert searched == ["locate", "locate_thoroughly"]  # noise has no ears
    again = ear_frame.ear_frames(scan())
    assert len(searched) == 2
    np.testing.assert_array_equal(again.left.matrix, first.left.matrix)
    assert again.notes == first.notes
    for file in folder.rglob("*.json"):
        file.write_text(file.read_text()[:100] if "first" in file.name else '{"left": []}')
    ear_frame.ear_frames(scan())
    assert len(searched) == 4


def test_the_type_of_the_voxels_does_not_matter(folder, searched):
    image = scan()
    whole = np.rint(image.array)
    for kind in (np.float32, np.int16):
        ear_frame.ear_frames(Volume(whole.astype(kind), GRID))
    assert searched.count("locate") == 1


def test_a_scan_with_another_voxel_or_place_is_searched_anew(folder, searched):
    ear_frame.ear_frames(scan())
    image = scan()
    image.array[0, 0, 0] += 1
    ear_frame.ear_frames(image)
    moved = Grid(GRID.size, GRID.spacing, (-61.0, -60.0, -90.0), AXIAL)
    ear_frame.ear_frames(Volume(scan().array, moved))
    assert searched.count("locate") == 3


def test_the_least_recently_used_results_go_when_there_are_too_many(folder, monkeypatch):
    monkeypatch.setattr(user_cache, "MOST_FILES", 4)
    for number in range(4):
        user_cache.keep("kind", str(number), number)
        os.utime(folder / "kind" / f"{number}.json", (number, number))
    assert user_cache.recall("kind", "0") == 0  # used now
    user_cache.keep("kind", "4", 4)
    assert [user_cache.recall("kind", str(number)) for number in range(5)] == [0, None, None, 3, 4]


@pytest.mark.parametrize("place", ["", "/proc/none"])
def test_without_a_folder_nothing_is_kept_and_nothing_fails(place, monkeypatch):
    monkeypatch.setenv(user_cache.VARIABLE, place)
    user_cache.keep("kind", "key", 1)
    assert user_cache.recall("kind", "key") is None
