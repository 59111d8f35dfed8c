"""Propagation atlas by atlas, through files: mirrored registration, judged fusion."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import deeds, labels, propagation, volume
from crossmoda.anatomy import contralateral, laterality
from crossmoda.dataset import Case
from crossmoda.errors import InputError
from crossmoda.propagation import label_files, side_files, single
from crossmoda.volume import Grid, Volume

GRID = Grid((48, 40, 24), (1.0, 1.0, 1.5), (-10.0, 20.0, 5.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
LEVELS = {"device": "cpu", "levels": 3, "linear": "none"}  # the scans are small, and aligned already
Z, Y, X = np.indices(GRID.shape).astype(float)


def texture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    waves = rng.uniform(0.15, 0.5, (14, 4))
    return sum(np.sin(X * a + 9 * p) * np.cos(Y * b + 5 * p) * np.sin(Z * c + 7 * p) for a, b, c, p in waves)


def tumor(side: str) -> np.ndarray:
    """A ball 13 mm from the midplane; in LPS the left side has the larger x."""
    x = 36.5 if side == "left" else 10.5
    return (X - x) ** 2 + (Y - 20) ** 2 + (1.5 * (Z - 12)) ** 2 < 30


def write(folder: Path, name: str, side: str, *, bright: bool, seed: int = 0) -> Case:
    """Write a scan in which everything but the tumor is symmetric, and its label map; T2 tumors are dark."""
    array = texture(seed)
    array = array + array[..., ::-1]
    array[tumor(side)] -= 6.0  # the contrast is inverted for ceT1
    label = tumor(side).astype(np.uint8)
    volume.write(
        Volume((100 + 10 * (array if not bright else -array)).astype(np.float32), GRID), folder / f"{name}.nrrd"
    )
    volume.write(Volume(label, GRID), folder / f"{name}_label.nrrd")
    return Case(name, "ceT1" if bright else "hrT2", folder / f"{name}.nrrd", folder / f"{name}_label.nrrd")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("scans")
    return {
        "target": write(folder, "target", "left", bright=False),
        "same": write(folder, "same", "left", bright=True),
        "other": write(folder, "other", "right", bright=True),
        "third": write(folder, "third", "right", bright=True),
    }


@pytest.fixture(scope="module")
def registered(cases, tmp_path_factory) -> dict[str, Path]:
    """Every atlas with its tumor brought to the left, registered."""
    folder = tmp_path_factory.mktemp("registered")
    for name in ("same", "other", "third"):
        register(cases, name, folder / name, mirror="left")
    return {name: folder / name for name in ("same", "other", "third")}


def register(cases: dict[str, Case], name: str, folder: Path, **settings) -> deeds.Registration:
    return single.register_files(
        cases["target"].image,
        cases[name].image,
        folder,
        moving_label=cases[name].label,
        settings=single.Settings(**LEVELS, **settings),
    )


def test_an_atlas_is_mirrored_only_if_its_tumor_is_on_the_other_side(registered):
    found = {name: deeds.load(folder).provenance for name, folder in registered.items()}
    assert [found[name]["mirrored"] for name in registered] == [False, True, True]
    assert {each["tumor_side"] for each in found.values()} == {"left"}
    assert found["other"]["parameters"]["mirror"] == "left"
    for folder in registered.values():
        warped = volume.read_label_map(folder / "warped_label.nii.gz").array > 0
        assert 2 * (warped & tumor("left")).sum() / (warped.sum() + tumor("left").sum()) > 0.85


def test_the_transform_of_a_mirrored_atlas_belongs_to_the_atlas_as_it_is(cases, registered):
    registration = deeds.load(registered["other"])
    image = cases["other"].read_image()
    again = registration.warp_image(image)
    np.testing.assert_allclose(again.array, volume.read(registered["other"] / "warped.nii.gz").array, atol=1e-3)
    point = (16.0, 38.0, 20.0)  # LPS, left of the middle; the grid's midplane is at x = 13.5
    moved = registration.transform.TransformPoint(point)
    assert moved[0] == pytest.approx(27.0 - point[0], abs=2.0)
    assert registration.inverse_transform.TransformPoint(moved) == pytest.approx(point, abs=0.5)
    written = sitk.ReadTransform(str(registered["other"] / "T.h5"))
    assert written.TransformPoint(point) == pytest.approx(moved)


@pytest.fixture(scope="module")
def doubted(cases, tmp_path_factory) -> tuple[Path, Path]:
    """A target that looks the same on both sides, with a tumor on each, and the folder of a propagation to it."""
    folder = tmp_path_factory.mktemp("doubted")
    image = cases["target"].read_image()
    array = image.array.copy()
    array[tumor("right")] = array[..., ::-1][tumor("right")]
    volume.write(image.with_array(array), folder / "target.nrrd")
    propagation.propagate(
        Case("target", "hrT2", folder / "target.nrrd"),
        [cases[name] for name in ("same", "other", "third")],
        folder / "result",
        propagation.Settings(probe_atlases=2),
        registration=deeds.Settings(**LEVELS),
    )
    return folder / "target.nrrd", folder / "result"


def told_of(result: Path) -> dict:
    return json.loads((result / "provenance.json").read_text("utf-8"))


def find_again(target: Path, result: Path):
    """Find the side from the label maps of a propagation's probes."""
    pairs = []
    for atlas in told_of(result)["probes"]:
        folders = (result / "registrations" / (atlas + ending) for ending in ("", "_mirrored"))
        files = [folder / "warped_label.nii.gz" for folder in folders]
        on_left = laterality.find_sides(volume.read_label_map(files[0])).tumor == "left"
        pairs.append(tuple(files if on_left else files[::-1]))
    return side_files.compare_files(target, pairs)


def test_the_side_found_from_files_is_the_propagations(doubted):
    told = told_of(doubted[1])
    found, elsewhere, _ = find_again(*doubted)
    assert (found.side, round(found.certainty, 4)) == (told["tumor_side"], told["side_certainty"])
    assert found.evidence == told["side_evidence"] and set(found.evidence) == {"left", "right"}
    on_grid = volume.resample(elsewhere, GRID, interpolation="nearest")
    np.testing.assert_array_equal(on_grid.array, found.contralateral)
    assert elsewhere.array.size < found.contralateral.size / 10, "only what is not 0 is kept"


def test_the_side_of_a_symmetric_target_is_doubtful(doubted):
    told = told_of(doubted[1])
    assert told["side_certainty"] < 0.7
    assert any("The tumor is probably on the" in note for note in told["notes"])


def test_without_probes_both_sides_are_compared_only(doubted):
    found, elsewhere, there = side_files.compare_files(doubted[0])
    assert (found.side, found.note, elsewhere) == (None, "", None)
    np.testing.assert_array_equal(
        contralateral.dequantized(there), contralateral.dequantized(find_again(*doubted).opposite)
    )


def test_no_side_is_found_where_both_sides_cannot_be_compared(cases, doubted, monkeypatch):
    def fail(*_arguments, **_options):
        raise InputError("They have nothing in common.")

    monkeypatch.setattr(deeds, "register", fail)
    found, elsewhere, there = find_again(*doubted)
    assert (found.side, elsewhere, there) == (None, None, None)
    assert found.note == "The tumor side is unknown: They have nothing in common."


def test_files_fused_with_the_sides_certainty_have_the_propagations_confidence(cases, doubted, tmp_path):
    target, result = doubted
    told = told_of(result)
    found, elsewhere, there = find_again(target, result)
    volume.write(elsewhere, tmp_path / "elsewhere.nrrd")
    volume.write(there, tmp_path / "opposite.nrrd")
    on_target = {**cases, "target": Case("target", "hrT2", target)}
    registrations = {}
    for name in ("same", "other", "third"):
        register(on_target, name, tmp_path / name, mirror=found.side)
        registrations[name] = tmp_path / name
    warped = as_read_by_the_fusion(registrations, tmp_path)

    def confidence(certainty: float, **files) -> np.ndarray:
        out = tmp_path / "confidence.nrrd"
        settings = label_files.Settings(tumor_side=found.side, side_certainty=certainty)
        label_files.fuse_files(
            label_files.find_label_maps(warped / "labels"),
            label_files.LabelFileOutputs(confidence=out),
            settings,
            reference=target,
            images=warped / "images",
            opposite=tmp_path / "opposite.nrrd",
            **files,
        )
        return volume.read(out).array

    expected = volume.read(result / "confidence.nii.gz").array
    label_map = volume.read_label_map(result / "noisy_label.nii.gz").array
    heeded = confidence(told["side_certainty"], elsewhere=tmp_path / "elsewhere.nrrd")
    np.testing.assert_allclose(heeded, expected, atol=1e-4)
    sure = confidence(1.0, elsewhere=tmp_path / "elsewhere.nrrd")
    inside = label_map == labels.VS
    np.testing.assert_allclose(heeded[inside], told["side_certainty"] * sure[inside], atol=1e-4)
    there = volume.resample(elsewhere, GRID, interpolation="nearest").array == 1
    assert there.any() and (heeded[there] < 0.75).all() and (sure[there] > 0.99).all()
    unknown = confidence(told["side_certainty"])
    np.testing.assert_allclose(unknown[inside], heeded[inside], atol=1e-6)


def test_quality_tells_a_failed_registration_from_a_good_one(cases, registered, tmp_path):
    noise = write(tmp_path, "noise", "left", bright=True, seed=5)
    bad = single.register_files(
        cases["target"].image,
        noise.image,
        tmp_path / "bad",
        moving_label=noise.label,
        settings=single.Settings(**{**LEVELS, "levels": 0}),
    )
    good = deeds.load(registered["same"]).provenance["quality"]
    assert good > 0.3
    assert bad.provenance["quality"] < good - 0.2


def test_without_a_label_map_the_whole_image_is_registered_and_nothing_is_judged(cases, tmp_path):
    result = single.register_files(
        cases["target"].image, cases["same"].image, tmp_path, settings=single.Settings(**LEVELS)
    )
    assert result.provenance["mirrored"] is False
    assert "quality" not in result.provenance
    assert (tmp_path / "warped.nii.gz").is_file() and not (tmp_path / "warped_label.nii.gz").exists()


def test_labels_outside_the_target_are_an_error_and_nothing_is_written(cases, tmp_path):
    far = dataclasses.replace(GRID, origin=(-10.0, 20.0, 5000.0))
    for name in ("same", "same_label"):
        array = volume.read(cases["same"].image.with_name(f"{name}.nrrd")).array
        volume.write(Volume(array.astype(np.uint8) if "label" in name else array, far), tmp_path / f"{name}.nrrd")
    with pytest.raises(InputError, match="overlap"):
        single.register_files(
            cases["target"].image,
            tmp_path / "same.nrrd",
            tmp_path / "out",
            moving_label=tmp_path / "same_label.nrrd",
            settings=single.Settings(**LEVELS),
        )
    assert not list((tmp_path / "out").glob("*"))


@pytest.fixture
def warped(registered, tmp_path) -> Path:
    return as_read_by_the_fusion(registered, tmp_path)


def as_read_by_the_fusion(registered: dict[str, Path], folder: Path) -> Path:
    """Make two folders: label maps, and images of the same names."""
    for name, made in registered.items():
        for kind, file in (("labels", "warped_label.nii.gz"), ("images", "warped.nii.gz")):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{name}.nii.gz").write_bytes((made / file).read_bytes())
    return folder


def fuse(cases, warped: Path, **settings) -> label_files.LabelFileFusion:
    return label_files.fuse_files(
        label_files.find_label_maps(warped / "labels"),
        settings=label_files.Settings(**settings),
        reference=cases["target"].image,
        images=warped / "images",
    )


def test_step_by_step_gives_the_label_of_the_propagation(cases, warped, tmp_path):
    whole = propagation.propagate(
        dataclasses.replace(cases["target"], label=None),
        [cases[name] for name in ("same", "other", "third")],
        tmp_path / "whole",
        propagation.Settings(tumor_side="left"),
        registration=deeds.Settings(**LEVELS),
    )
    steps = fuse(cases, warped, tumor_side="left")
    np.testing.assert_array_equal(steps.label_map.array, whole.label_map.array)
    assert (steps.label_map.array == labels.VS).sum() > 50


def test_a_failed_registration_is_left_out_and_said(cases, warped):
    # A label map far from where image and target agree: its image is noise around it.
    noise = Volume(np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32), GRID)
    volume.write(noise, warped / "images/zz.nii.gz")
    volume.write(Volume(tumor("right").astype(np.uint8), GRID), warped / "labels/zz.nii.gz")
    result = fuse(cases, warped)
    assert result.names == ("other.nii.gz", "same.nii.gz", "third.nii.gz")
    assert result.side == "left"
    assert result.dropped[0].startswith("zz was left out: its registration failed")
    assert not result.label_map.array[tumor("right")].any()


def test_a_missing_image_or_target_is_named(cases, warped):
    (warped / "images/other.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no warped image named other\.nii\.gz"):
        fuse(cases, warped)
    with pytest.raises(InputError, match="give it as the reference"):
        label_files.fuse_files(label_files.find_label_maps(warped / "labels"), images=warped / "images")
