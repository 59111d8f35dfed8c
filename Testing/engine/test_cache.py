import dataclasses
import json
import os
import subprocess
import sys

import pytest

from crossmoda import output
from crossmoda.cache import SEAL, CachedStep, digest, is_intact
from crossmoda.errors import InputError


@dataclasses.dataclass(frozen=True)
class One:
    value: int = 1


@dataclasses.dataclass(frozen=True)
class Other:
    value: int = 1


def finished(folder, **depends_on):
    step = CachedStep(folder, **depends_on)
    step.begin()
    (folder / "result.bin").write_bytes(b"12345")
    step.finish(["result.bin"], {"score": 0.5})
    return step


def test_a_finished_step_is_found_by_what_it_depends_on(tmp_path):
    finished(tmp_path, inputs=["a", "b"], settings=One())
    assert CachedStep(tmp_path, settings=One(), inputs=["a", "b"]).results() == {"score": 0.5}


@pytest.mark.parametrize("other", [{"settings": One(2)}, {"settings": Other()}, {"settings": One(), "more": None}])
def test_anything_else_it_could_depend_on_is_another_step(tmp_path, other):
    finished(tmp_path, settings=One())
    assert CachedStep(tmp_path, **other).results() is None


def test_another_version_is_another_step(tmp_path, monkeypatch):
    finished(tmp_path)
    monkeypatch.setattr("crossmoda.__version__", "99.0")
    assert CachedStep(tmp_path).results() is None


@pytest.mark.parametrize("damage", ["shorter", "missing", "seal cut", "seal of another shape", "no results"])
def test_what_is_not_complete_is_not_finished(tmp_path, damage):
    finished(tmp_path)
    if damage == "shorter":
        (tmp_path / "result.bin").write_bytes(b"123")
    elif damage == "missing":
        (tmp_path / "result.bin").unlink()
    elif damage == "seal cut":
        (tmp_path / SEAL).write_text((tmp_path / SEAL).read_text("utf-8")[:-5])
    elif damage == "no results":
        seal = json.loads((tmp_path / SEAL).read_text("utf-8"))
        (tmp_path / SEAL).write_text(json.dumps({name: seal[name] for name in ("key", "files")}))
    else:
        (tmp_path / SEAL).write_text(json.dumps([1, 2]))
    assert CachedStep(tmp_path).results() is None


def test_beginning_again_withdraws_the_seal_and_removes_what_a_killed_run_left(tmp_path):
    step = finished(tmp_path)
    with output.atomic(tmp_path / "result.bin") as temporary:
        killed = temporary.name.replace(f"-{os.getpid()}-", f"-{_ended_process()}-")
        temporary.with_name(killed).write_bytes(b"half")
        temporary.write_bytes(b"12345")
    step.begin(["result.bin"])
    assert step.results() is None and [path.name for path in tmp_path.iterdir()] == [SEAL]


def _ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_damaged_file_of_the_same_size_is_not_finished(tmp_path):
    finished(tmp_path)
    (tmp_path / "result.bin").write_bytes(b"12346")
    assert CachedStep(tmp_path).results() is None and not is_intact(tmp_path)


@pytest.mark.parametrize("depends_on", [{}, {"more": 1}], ids=["same key", "another key"])
@pytest.mark.parametrize("name", ["result.bin", "older.bin"])
def test_a_result_that_was_edited_or_is_of_others_is_never_removed(tmp_path, depends_on, name):
    first = CachedStep(tmp_path)
    first.begin(names := ["result.bin", "older.bin"])
    for each in names:
        (tmp_path / each).write_bytes(b"12345")
    first.finish(names, {})
    (tmp_path / name).write_bytes(b"edited")
    again = CachedStep(tmp_path, **depends_on)
    content = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=rf"Edited or damaged after it was written: .*{name}\. Move it"):
        again.begin(["result.bin"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == content
    (tmp_path / name).rename(tmp_path / "mine.bin")
    again.begin(["result.bin"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [SEAL, "mine.bin"]


def test_a_file_without_a_seal_is_not_removed_but_that_of_a_killed_run_is(tmp_path):
    step = CachedStep(tmp_path)
    (tmp_path / "result.bin").write_bytes(b"by hand")
    with pytest.raises(InputError, match=r"Not a result of a finished run: .*result\.bin"):
        step.begin(["result.bin"])
    assert (tmp_path / "result.bin").read_bytes() == b"by hand"
    (tmp_path / "result.bin").unlink()
    step.begin()
    step.finish([], {})
    (tmp_path / "result.bin").write_bytes(b"by hand, beside results")
    with pytest.raises(InputError, match=r"Not a result of a finished run: .*result\.bin"):
        step.begin(["result.bin"])
    assert (tmp_path / "result.bin").read_bytes() == b"by hand, beside results"
    (tmp_path / "result.bin").unlink()
    step.begin(["result.bin"])
    (tmp_path / "result.bin").write_bytes(b"half")  # the run is killed here
    CachedStep(tmp_path).begin(["result.bin"])
    assert [path.name for path in tmp_path.iterdir()] == [SEAL]


def test_a_damaged_file_of_the_program_alone_is_made_again(tmp_path):
    step = finished(tmp_path)
    (tmp_path / "result.bin").write_bytes(b"123")
    step.begin()
    assert not (tmp_path / "result.bin").exists()


def test_a_run_that_was_overtaken_does_not_seal_the_files_of_another(tmp_path):
    stalled, other = CachedStep(tmp_path, settings=One()), CachedStep(tmp_path, settings=Other())
    stalled.begin()
    other.begin()
    (tmp_path / "result.bin").write_bytes(b"12345")
    other.finish(["result.bin"], {})
    with pytest.raises(InputError, match="Another run wrote into"):
        stalled.finish(["result.bin"], {})
    assert other.results() == {}


def test_digests_do_not_depend_on_the_order_of_keys_but_on_that_of_lists():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_what_has_no_stable_text_is_refused():
    with pytest.raises(TypeError, match="no stable text for a object"):
        digest({"a": object()})
