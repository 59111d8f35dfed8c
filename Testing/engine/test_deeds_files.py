"""Registration of image files: the registered region."""

import dataclasses
import json

import numpy as np
import pytest

from crossmoda import labels, structure_names, volume
from crossmoda.deeds.files import RegistrationOutputs, RegistrationSettings, register_files
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume, nifti

GRID = Grid((48, 40, 24), (1.0, 1.0, 1.5), (-10.0, 20.0, 5.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
#: The same scan in a patient who lies 300 mm farther up.
MOVED = dataclasses.replace(GRID, origin=(-10.0, 20.0, 305.0))


@pytest.fixture(autouse=True)
def no_mapping(monkeypatch):
    monkeypatch.setattr(structure_names, "_mapped", {})


@pytest.fixture
def pair(tmp_path):
    z, y, x = np.indices(GRID.shape)
    image = (100 + 40 * np.sin(x / 3) * np.cos(y / 4) * np.sin(1 + z / 3)).astype(np.float32)
    label = np.zeros(GRID.shape, np.uint8)
    label[8:12, 15:20, 30:36], label[8:12, 24:28, 30:34] = labels.VS, labels.COCHLEA
    files = {"fixed": Volume(image, GRID), "moving": Volume(image, MOVED), "label": Volume(label, MOVED)}
    for name, item in files.items():
        volume.write(item, tmp_path / f"{name}.nrrd")
    return tmp_path, label


def test_scans_far_apart_are_registered_from_their_centers(pair):
    folder, label = pair
    registration = register_files(
        folder / "fixed.nrrd",
        folder / "moving.nrrd",
        folder / "out",
        moving_label=folder / "label.nrrd",
        settings=RegistrationSettings(device="cpu", levels=1, linear="none", region="whole", initialization="center"),
    )
    assert registration.provenance["parameters"]["initialization"] == "center"
    warped = volume.read_label_map(folder / "out" / "warped_label.nii.gz")
    assert warped.grid == GRID
    overlap = 2 * np.count_nonzero((warped.array > 0) & (label > 0)) / np.count_nonzero(warped.array + label)
    assert overlap > 0.9
    assert registration.transform.TransformPoint((10.0, 40.0, 20.0))[2] == pytest.approx(320.0, abs=2.0)


#: A registration that leaves the image where it is.
UNMOVED = {"device": "cpu", "levels": 0, "linear": "none"}


def warped_label(folder, label, moving="fixed.nrrd", **settings):
    """Return the values of a moving label after a registration, per structure of the fixture's label."""
    outputs = RegistrationOutputs(warped_label=folder / "warped_label.nii.gz")
    settings = RegistrationSettings(**UNMOVED, **settings)
    register_files(folder / "fixed.nrrd", folder / moving, outputs, moving_label=folder / label, settings=settings)
    return volume.read_label_map(folder / "warped_label.nii.gz").array


def test_a_crossmoda_2023_label_is_read_as_structures_or_kept_for_the_whole_scan(pair):
    folder, label = pair
    parts = np.array([0, 1, 3], np.uint8)[label]
    parts[:10][parts[:10] == 1] = 2  # the extrameatal part
    volume.write(Volume(parts, GRID), folder / "parts.nii.gz")
    assert np.array_equal(warped_label(folder, "parts.nii.gz"), label)
    assert np.array_equal(warped_label(folder, "parts.nii.gz", region="whole"), parts)


def test_a_value_of_a_moving_label_is_the_structure_that_names_it(pair, run):
    folder, label = pair
    volume.write(Volume(np.where(label == labels.VS, 255, 0).astype(np.uint8), GRID), folder / "other.nii.gz")
    for region in ("auto", "whole"):
        code, _, err = run(
            *("--quiet", "register", folder / "fixed.nrrd", folder / "fixed.nrrd", "--region", region),
            *("--moving-label", folder / "other.nii.gz", "--structure", "255=VS", "--output", folder / region),
            *("--levels", 0, "--linear", "none", "--device", "cpu"),
        )
        assert code == 0, err
        warped = volume.read_label_map(folder / region / "warped_label.nii.gz").array
        assert np.array_equal(warped, np.where(label == labels.VS, labels.VS, 0))


def test_contours_are_a_moving_label(pair, write_rtstruct):
    folder, label = pair
    slices = np.flatnonzero((label == labels.VS).any(axis=(1, 2)))
    corners = np.array([[29.5, 14.5], [35.5, 14.5], [35.5, 19.5], [29.5, 19.5]])
    polygons = [GRID.to_lps(np.column_stack([corners, np.full(4, number)])) for number in slices]
    write_rtstruct(folder / "contours.dcm", {"VS": polygons})
    entry = {"structure_name": "TV", "LPS_contour_points": [polygon.tolist() for polygon in polygons]}
    (folder / "contours.json").write_text(json.dumps([entry]))
    for name in ("contours.dcm", "contours.json"):
        assert np.array_equal(warped_label(folder, name), np.where(label == labels.VS, labels.VS, 0))


def test_other_organs_keep_their_values_or_are_refused_at_the_ears(pair):
    folder, label = pair
    organs = np.array([0, 7, 2], np.uint8)[label]
    volume.write(Volume(organs, GRID), folder / "organs.nii.gz")
    for region in ("auto", "whole"):
        assert np.array_equal(warped_label(folder, "organs.nii.gz", region=region), organs)
    with pytest.raises(InputError, match=r"Unknown label value in organs\.nii\.gz: 7.*set region 'whole'\."):
        warped_label(folder, "organs.nii.gz", region="ears")


def test_transforms_written_by_several_threads_are_whole(tmp_path):
    """HDF5 is not thread-safe; a propagation writes transforms while other threads read images (ITK asks: HDF5?)."""
    from concurrent.futures import ThreadPoolExecutor

    import SimpleITK as sitk

    from crossmoda.deeds.transform import read_transform, write_transform

    grid = Grid((6, 5, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), GRID.direction)
    image = volume.Volume(np.zeros((4, 5, 6), np.int16), grid)
    volume.write(image, tmp_path / "image.nii.gz")

    def write_and_read(number: int) -> float:
        shift = sitk.TranslationTransform(3, [float(number), 0.0, 0.0])
        write_transform(shift, tmp_path / f"{number}.h5")
        volume.read(tmp_path / "image.nii.gz")
        return read_transform(tmp_path / f"{number}.h5").TransformPoint((0.0, 0.0, 0.0))[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write_and_read, range(200))) == [float(number) for number in range(200)]


def test_the_registration_of_parts_fades_out_in_the_whole_image_without_folding():
    import SimpleITK as sitk

    from crossmoda.deeds.transform import Registration, field_transforms

    part = Grid((12, 10, 8), (3.0, 3.0, 3.0), (30.0, 36.0, 24.0), GRID.direction)
    bend, unbend = field_transforms(np.full((3, *part.shape), 9.0), np.full((3, *part.shape), -9.0), part)
    affine = sitk.AffineTransform(3)
    found = Registration(sitk.CompositeTransform([affine, bend]), sitk.CompositeTransform([unbend, affine]), part, part)
    whole = Grid((96, 96, 80), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), GRID.direction)
    torn = dataclasses.replace(found, fixed_grid=whole, moving_grid=whole)
    extended = found.extended(whole, whole)
    assert torn.jacobian_statistics()["folding_percent"] > 0.5
    assert extended.jacobian_statistics()["minimum"] > 0.1
    center = (46.0, 50.0, 35.0)
    assert extended.transform.TransformPoint(center) == pytest.approx(np.add(center, 9.0))
    assert np.abs(np.subtract(extended.transform.TransformPoint((0.0, 0.0, 79.0)), (0.0, 0.0, 79.0))).max() < 1.0


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
def test_the_warped_image_has_the_voxel_type_of_the_moving_file(pair, kind):
    folder, _ = pair
    moving = volume.read(folder / "fixed.nrrd")
    volume.write(moving.with_array(np.rint(moving.array).astype(kind)), folder / "typed.nii.gz")
    settings = RegistrationSettings(device="cpu", levels=1, linear="none", region="whole")
    outputs = RegistrationOutputs(warped=folder / "warped.nii.gz")
    register_files(folder / "fixed.nrrd", folder / "typed.nii.gz", outputs, settings=settings)
    warped = nifti.read(folder / "warped.nii.gz").array
    assert warped.dtype == kind
    assert np.abs(warped - np.rint(moving.array)).mean() < 5
