"""The crossmoda command: same parameters as the engine, errors in one sentence, nothing half-written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import cli, demo, inference, propagation, simulation, training, volume
from crossmoda.cli.framework import COMMANDS, progress_bar
from crossmoda.deeds.files import RegistrationSettings
from crossmoda.errors import BAD_INPUT, BUG, INTERRUPTED, Cancelled
from crossmoda.fusion.files import FileFusionSettings
from crossmoda.parameters import Settings, parameters
from crossmoda.volume import Grid, Volume

DOORS: dict[str, type[Settings]] = {
    "demo": demo.DemoSettings,
    "fuse": FileFusionSettings,
    "predict": inference.Settings,
    "propagate": propagation.Settings,
    "register": RegistrationSettings,
    "simulate": simulation.Settings,
    "train": training.Settings,
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small scan in a folder with spaces and letters that are not ASCII."""
    path = tmp_path / "Ärztin 医" / "a scan.nii.gz"
    path.parent.mkdir()
    array = np.random.default_rng(0).normal(100, 10, (20, 24, 28)).astype(np.float32)
    scan = sitk.GetImageFromArray(array)
    scan.SetSpacing((0.5, 0.5, 1.0))
    sitk.WriteImage(scan, str(path))
    return path


def options_of(name: str) -> dict[str, click.Option]:
    command = cli.crossmoda_command.get_command(click.Context(cli.crossmoda_command), name)
    assert command is not None
    return {option.name or "": option for option in command.params if isinstance(option, click.Option)}


@pytest.mark.parametrize("name", DOORS)
def test_a_command_has_every_parameter_of_the_engine_with_its_default(name: str) -> None:
    options = options_of(name)
    for item in parameters(DOORS[name]):
        option = options[item.name]
        assert option.default == item.default
        assert item.flag in option.opts
        assert item.unit in (option.help or "")


def test_the_overview_names_every_command(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out for name in (*DOORS, "validate", "evaluate"))


@pytest.mark.parametrize("name", [*DOORS, "validate", "evaluate"])
def test_every_command_explains_itself(name: str, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"crossmoda {name}" in out and "--help" in out


def broken(kind: str, image: Path) -> Path:
    """Write a file that cannot be used and return its path."""
    path = image.with_name(f"{kind}.nii.gz")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(image)))
    if kind == "truncated":
        path.write_bytes(image.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "missing":
        pass
    else:
        spoiled = {"nan": np.where(array > 110, np.nan, array), "flat": array[0], "series": np.stack([array, array])}
        sitk.WriteImage(sitk.GetImageFromArray(spoiled[kind], isVector=False), str(path))
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "missing", "nan", "flat", "series"])
@pytest.mark.parametrize("command", ["register", "predict"])
def test_an_unusable_image_is_one_sentence_and_no_output(
    kind: str, command: str, image: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    spoiled = broken(kind, image)
    before = sorted(tmp_path.rglob("*"))
    inputs = [image, spoiled] if command == "register" else [spoiled]
    code, _, err = run("--quiet", command, *inputs, "--output", tmp_path / "result.nii.gz")
    assert code == BAD_INPUT
    assert spoiled.name in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_value_out_of_range_names_the_parameter(image: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("register", image, image, "--output", image.parent / "out", "--alpha", "-1")
    assert code == BAD_INPUT
    assert "alpha" in err and "-1" in err
    assert not (image.parent / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "{}"),
        ("predict", "{}", "--output", "a.nrrd"),
        ("fuse", "{}", "--output", "a"),
        ("train", "--data", "{}", "--output", "a"),
        ("models", "{}"),
        ("evaluate", "{}", "{}"),
        ("simulate", "{}"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_is_too_long_for_a_path_is_one_short_sentence(
    run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...]
) -> None:
    code, _, err = run(*(word.format("x" * 5000) for word in arguments))
    assert code == BAD_INPUT
    assert err.startswith("Error: File name too long: 'xxx") and err.count("\n") == 1 and len(err) < 200


def test_a_label_on_another_grid_is_refused(image: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    label = image.with_name("label.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 5, 5), np.uint8)), str(label))
    code, _, err = run("--quiet", "register", image, image, "--moving-label", label, "--output", image.parent / "out")
    assert code == BAD_INPUT
    assert "grid" in err
    assert not (image.parent / "out").exists()


@pytest.mark.parametrize("command", ["register", "predict", "predict by another name", "fuse"])
def test_no_result_replaces_an_input(
    command: str, image: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    folder = tmp_path / "results"
    names = {"register": "warped.nii.gz", "fuse": "confidence.nii.gz"}
    original = image.rename(image.with_name(names.get(command, image.name)))
    before = original.read_bytes()
    folder.symlink_to(original.parent, target_is_directory=True)
    arguments = {
        "register": ["register", original, original, "--output", folder],
        "predict": ["predict", original, "--output", original],
        "predict by another name": ["predict", original, "--output", folder / original.name],
        "fuse": ["fuse", original, "--output", folder],
    }[command]
    code, _, err = run("--quiet", *arguments)
    assert code == BAD_INPUT
    assert "would replace an input" in err
    assert original.read_bytes() == before
    assert list(original.parent.iterdir()) == [original]


def test_an_output_that_cannot_be_written_is_one_sentence(
    image: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    (image.parent / "file").write_text("")
    code, _, err = run("--quiet", "evaluate", image, image, "--csv", image.parent / "file" / "scores.csv")
    assert code == BAD_INPUT
    assert len(err.strip().splitlines()) == 1


def test_evaluate_scores_files_and_folders(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    for folder, shift in (("found", 1), ("truth", 0)):
        array = np.zeros((10, 12, 14), np.uint8)
        array[3:6, 3 + shift : 7 + shift, 3:7] = 1
        array[7:9, 8:10, 8:10] = 2
        (tmp_path / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / folder / "case.nii.gz"))
    code, out, _ = run("evaluate", tmp_path / "found", tmp_path / "truth", "--csv", tmp_path / "scores.csv")
    assert code == 0
    assert "0.750" in out  # the tumor is shifted by one of its four voxels, the cochlea is not: Dice 0.75 and 1
    assert "case,VS,0.75," in (tmp_path / "scores.csv").read_text("utf-8")


def test_simulate_and_validate_agree(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    small = ("--field-of-view", "64", "--slices", "16", "--in-plane-spacing", "2", "--tumor-volume", "3000")
    code, _, _ = run("--quiet", "simulate", tmp_path / "data", "--sources", 1, "--targets", 1, "--tests", 0, *small)
    assert code == 0
    (tmp_path / "data" / "source_training" / "crossmoda_1_ceT1.nii.gz").unlink()
    code, out, _ = run("--quiet", "validate", tmp_path / "data")
    assert code == BAD_INPUT
    assert "crossmoda_1_Label.nii.gz" in out and "1 problem" in out


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled()])
def test_an_interrupted_command_says_so(
    error: BaseException, image: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(inference, "predict_files", interrupt)
    code, _, err = run("--quiet", "predict", image, "--output", image.parent / "out.nii.gz")
    assert code == INTERRUPTED
    assert "Cancelled" in err


def test_a_bug_shows_its_traceback_only_with_debug(
    image: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(inference, "predict_files", fail)
    code, _, err = run("--quiet", "predict", image, "--output", image.parent / "out.nii.gz")
    assert code == BUG
    assert "oops" in err and "--debug" in err and "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        cli.main(["--debug", "--quiet", "predict", str(image), "--output", "out.nii.gz"])


def test_settings_of_every_door_are_frozen_dataclasses() -> None:
    for settings in DOORS.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings().anything = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_result_as_json_on_request(name: str) -> None:
    command = cli.crossmoda_command.get_command(click.Context(cli.crossmoda_command), name)
    assert command is not None
    assert any("--json" in option.opts for option in command.params)


def test_json_is_all_that_is_printed(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "models").mkdir()
    code, out, _ = run("models", tmp_path / "models", "--json")
    (model,) = json.loads(out)
    assert code == 0 and model["is_current"] and model["weights"].endswith(".safetensors")
    label = np.zeros((4, 8, 8), np.uint8)
    label[1:3, 2:5, 2:5] = 1
    volume.write(Volume(label, Grid((8, 8, 4), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))), tmp_path / "a.nrrd")
    code, out, _ = run("evaluate", tmp_path / "a.nrrd", tmp_path / "a.nrrd", "--json", "-")
    scores = json.loads(out)
    assert code == 0 and next(iter(scores["cases"].values()))["VS"]["dice"] == 1
    code, out, _ = run("fuse", tmp_path / "a.nrrd", "--output", tmp_path / "fused", "--json")
    assert code == 0 and json.loads(out)["fused"] == 1


def test_a_missing_graphics_card_is_refused_before_the_scan_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    missing = tmp_path / "missing.nii.gz"
    code, _, err = run("segment", missing, "-o", tmp_path / "result.nii.gz", "--device", "cuda")
    assert code == BAD_INPUT
    assert "No CUDA device is available" in err and "missing.nii.gz" not in err


@pytest.mark.parametrize(("is_terminal", "is_quiet", "shown"), [(True, False, True), (True, True, False), (False,) * 3])
def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, is_quiet: bool, shown: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    with click.Context(cli.crossmoda_command, obj={"quiet": is_quiet}), progress_bar() as progress:
        assert (progress is not None) == shown
        if progress is not None:
            progress(0.5, "half")


def test_an_empty_segmentation_has_no_measures_but_a_sentence(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    grid = Grid((8, 8, 4), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    volume.write(Volume(np.zeros(grid.shape, np.uint8), grid), tmp_path / "empty.nii.gz")
    assert run("measure", tmp_path / "empty.nii.gz")[:2] == (0, "No tumor.\n")
    code, out, _ = run("measure", tmp_path / "empty.nii.gz", "--json")
    assert code == 0 and json.loads(out)["tumors"] == []
