"""What every part of the engine stands on: progress, files that appear whole, parameters, provenance, device."""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossmoda
from crossmoda import device, parameters, volume
from crossmoda.deeds import transform
from crossmoda.errors import Cancelled, InputError
from crossmoda.output import atomic, check_apart, together, write_json, write_text
from crossmoda.parameters import Settings, add_arguments, from_arguments, parameter
from crossmoda.progress import part, report
from crossmoda.provenance import Record, checksum

# --- progress --------------------------------------------------------------------------------------------------------


def test_no_progress_is_no_trouble() -> None:
    report(None, 0.5, "nothing listens")
    assert part(None, 0.0, 0.5) is None


def test_fractions_stay_within_0_and_1() -> None:
    seen: list[float] = []
    for fraction in (-0.1, 0.3, 1.0000001):
        report(lambda value, _: seen.append(value), fraction, "")
    assert seen == [0.0, 0.3, 1.0]


def test_a_part_fills_its_share_of_the_whole_and_parts_nest() -> None:
    seen: list[tuple[float, str]] = []
    outer = part(lambda fraction, message: seen.append((fraction, message)), 0.5, 1.0, "atlas 2: ")
    inner = part(outer, 0.0, 0.5, "affine: ")
    report(outer, 0.0, "start")
    report(inner, 1.0, "done")
    assert seen == [(0.5, "atlas 2: start"), (0.75, "atlas 2: affine: done")]


def test_cancelling_goes_through_every_part() -> None:
    def stop(fraction: float, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        report(part(part(stop, 0.0, 0.5), 0.5, 1.0), 0.5, "")


# --- output ----------------------------------------------------------------------------------------------------------


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "result ü.nii.gz"
    with atomic(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
    assert target.read_text("utf-8") == "half"
    assert [file.name for file in target.parent.iterdir()] == [target.name]


def test_what_fails_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    write_text(target, "former")
    with pytest.raises(RuntimeError, match="on the way"), atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("on the way")
    assert target.read_text("utf-8") == "former"
    assert [file.name for file in tmp_path.iterdir()] == ["result.txt"]


def test_two_results_do_not_share_a_file(tmp_path: Path) -> None:
    check_apart([tmp_path / "a.nrrd", None, tmp_path / "b.nrrd"], [tmp_path / "c.nrrd", None])
    with pytest.raises(InputError, match=r"same file name: .*a\.nrrd\. Choose different file names"):
        check_apart([tmp_path / "a.nrrd", tmp_path / "b" / ".." / "a.nrrd"], [])


def test_files_that_are_written_together_appear_together_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "former")
    with together():
        write_text(tmp_path / "a.txt", "new")
        write_text(tmp_path / "folder" / "b.txt", "new")
        assert (tmp_path / "a.txt").read_text("utf-8") == "former"
        assert not (tmp_path / "folder" / "b.txt").exists()
    assert (tmp_path / "a.txt").read_text("utf-8") == (tmp_path / "folder" / "b.txt").read_text("utf-8") == "new"
    (tmp_path / "c.txt").mkdir()
    for third in ("c.txt", "n" * 300, "a.txt/d.txt"):  # a folder, a name that is too long, a path through a file
        with pytest.raises(InputError, match="Cannot write"), together():
            write_text(tmp_path / "a.txt", "newer")
            write_text(tmp_path / "e.txt", "newer")
            write_text(tmp_path / third, "newer")
    assert (tmp_path / "a.txt").read_text("utf-8") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "c.txt", "folder"]
    write_text(tmp_path / "e.txt", "alone")
    assert (tmp_path / "e.txt").exists()


def test_a_name_as_long_as_a_file_may_have_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 251 + ".txt"), "all")
    assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["all"]
    with pytest.raises(InputError, match=r"too long\. Choose another file name"):
        write_text(tmp_path / ("n" * 256 + ".txt"), "all")


def test_a_path_through_a_file_or_onto_a_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(InputError, match=r"^Cannot write [^\n]*\. Choose [^\n]*\.$"):
            write_text(path, "x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_protected_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="permission denied"):
            write_text(tmp_path / "a.txt", "x")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="all file names are UTF-8 there")
def test_a_file_name_that_is_not_utf8_is_refused_before_itk_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "M\udcfcller.nii.gz"
    path.touch()
    for read in (volume.read, transform.read_transform):
        with pytest.raises(InputError, match=r"not UTF-8: .*M\\udcfcller.*Rename"):
            read(path)
    with pytest.raises(InputError, match="not UTF-8: "), atomic(path):
        pass
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_name_that_the_code_page_lacks_can_be_said(stream: str) -> None:
    code = f"import sys; from crossmoda.output import use_utf8; use_utf8(); print('Жанна \\udcff', file=sys.{stream})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"}
    )
    assert done.returncode == 0, done.stderr
    assert getattr(done, stream).decode("utf-8").split() == ["Жанна", "\\udcff"]


def test_json_keeps_letters_of_all_languages(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Zürich 図"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Zürich 図" in text
    assert json.loads(text) == {"name": "Zürich 図"}


# --- parameters ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Example(Settings):
    """Settings of an example."""

    spacing: float = parameter(0.5, "Grid spacing.", unit="mm", minimum=0.1, maximum=5.0)
    steps: int = parameter(3, "Number of steps, 50% of them", minimum=1)
    mode: str = parameter("fast", "How it is done", choices=("fast", "exact"))
    mirror: bool = parameter(True, "Mirror the atlases")
    seed: int | None = parameter(None, "Seed of the draw", minimum=0, advanced=True)
    weight: float = parameter(1.0, "Weight without a limit", minimum=0)
    name: str = parameter("", "Any name")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"spacing": 0.0}, "spacing must be 0.1 to 5 mm; got 0.0."),
        ({"spacing": float("nan")}, "spacing must be 0.1 to 5 mm; got nan."),
        ({"steps": 0}, "steps must be at least 1; got 0."),
        ({"mode": "quick"}, "mode must be one of fast, exact; got 'quick'."),
        ({"seed": -1}, "seed must be at least 0; got -1."),
        ({"steps": float("inf")}, "steps must be an integer; got inf."),
        ({"steps": 2.5}, "steps must be an integer; got 2.5."),
        ({"steps": True}, "steps must be an integer; got True."),
        ({"spacing": "1"}, "spacing must be a number; got '1'."),
        ({"spacing": None}, "spacing must be a number; got None."),
        ({"weight": float("inf")}, "weight must be a number; got inf."),
        ({"mode": []}, "mode must be one of fast, exact; got []."),
        ({"mirror": 1}, "mirror must be true or false; got 1."),
        ({"name": 1}, "name must be text; got 1."),
        ({"steps": "x" * 9999}, f"steps must be an integer; got '{'x' * 27}...{'x' * 28}'."),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(values: dict, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Example(**values)
    assert str(caught.value) == sentence


def test_values_at_the_ends_of_the_range_and_a_default_of_none_are_allowed() -> None:
    assert (Example(spacing=0.1).spacing, Example(spacing=5.0).spacing, Example().seed) == (0.1, 5.0, None)
    assert (Example(spacing=1, steps=np.int64(4), weight=np.float32(2)).steps) == 4


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().steps = 4  # type: ignore[misc]


def test_each_parameter_is_described_once_for_all_doors() -> None:
    found = {item.name: item for item in parameters.parameters(Example)}
    assert list(found) == ["spacing", "steps", "mode", "mirror", "seed", "weight", "name"]
    assert found["spacing"].flag == "--spacing"
    assert found["spacing"].help_with_unit == "Grid spacing (mm)."
    assert found["mode"].choices == ("fast", "exact")
    assert found["mirror"].type is bool
    assert found["seed"].type is int
    assert found["seed"].advanced


def test_arguments_of_a_command_line_become_settings() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--other", default="x")
    add_arguments(parser, Example)
    assert "50%" in parser.format_help()
    given = vars(parser.parse_args(["--spacing", "1.5", "--no-mirror", "--mode", "exact", "--seed", "7"]))
    assert from_arguments(Example, given) == Example(spacing=1.5, mirror=False, mode="exact", seed=7)
    assert from_arguments(Example, vars(parser.parse_args([]))) == Example()


# --- provenance ------------------------------------------------------------------------------------------------------


def test_the_checksum_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"scan" * 1_000_000)
    assert checksum(tmp_path / "a") == hashlib.sha256(b"scan" * 1_000_000).hexdigest()


def test_the_checksum_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    first = checksum(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"other")
    assert checksum(tmp_path / "a") != first


def test_the_checksum_of_a_series_depends_on_every_file(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(bytes([number]))
    first = checksum(tmp_path)
    (tmp_path / "2.dcm").write_bytes(b"changed")
    assert checksum(tmp_path) != first


def test_a_record_says_what_was_made_with_what_and_hides_folders(tmp_path: Path) -> None:
    folder = tmp_path / "Jane Doe"
    folder.mkdir()
    (folder / "scan.nii.gz").write_bytes(b"x")
    record = Record("register", Example(steps=5), {"fixed": folder / "scan.nii.gz"}, "cpu (2 threads)")
    found = record.finish(dice=0.9)
    assert (found["step"], found["crossmoda"], found["dice"]) == ("register", crossmoda.__version__, 0.9)
    assert found["parameters"]["steps"] == 5
    assert found["inputs"]["fixed"] == {"name": "scan.nii.gz", "sha256": hashlib.sha256(b"x").hexdigest()}
    assert found["seconds"] >= 0
    assert "Jane Doe" not in json.dumps(found)


# --- device ----------------------------------------------------------------------------------------------------------


def test_cpu_is_always_there_and_describes_its_threads() -> None:
    assert device.choose("cpu") == "cpu"
    assert device.describe("cpu").startswith("cpu (")


def test_cuda_is_taken_where_it_is_and_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (device.choose("auto"), device.choose("cuda")) == ("cuda", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose("auto") == "cpu"
    with pytest.raises(InputError, match="No CUDA device is available"):
        device.choose("cuda")


def test_torch_is_not_imported_to_choose_the_cpu_where_no_card_has_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(device, "_has_driver", lambda: False)
    assert device.choose("auto") == "cpu"
    assert "torch" not in sys.modules


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match=r"Unknown device: 'tpu'\. Choose one of auto, cpu, cuda"):
        device.choose("tpu")
