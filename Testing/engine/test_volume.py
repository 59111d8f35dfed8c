"""Volumes keep their voxels and their place in space; unusable files are refused in one sentence."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume, read, read_label_map, read_typed_scan, write

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def oblique(rx: float = 0.2, ry: float = -0.1, rz: float = 0.3) -> tuple[float, ...]:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(rx, ry, rz)
    return transform.GetMatrix()


#: Axial LPS and RAS, a sagittal acquisition, and an oblique one.
DIRECTIONS = {
    "LPS": IDENTITY,
    "RAS": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    "sagittal": (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": oblique(),
}


def a_volume(direction: tuple[float, ...] = IDENTITY, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).normal(size=(7, 9, 11)).astype(np.float32)
    return Volume(array, Grid((11, 9, 7), (0.4101, 0.4101, 1.5), (-80.1234567, -99.1, 33.3), direction))


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_an_image_comes_back_as_it_was_written(tmp_path: Path, ending: str, direction: tuple[float, ...]) -> None:
    volume = a_volume(direction)
    path = tmp_path / "Bild mit Ümlaut 图像" / f"scan 1.{ending}"
    write(volume, path)
    back = read(path)
    assert np.array_equal(back.array, volume.array)
    # NIfTI stores positions in single precision: 1e-5 mm at 100 mm.
    assert np.allclose(back.grid.index_to_physical, volume.grid.index_to_physical, atol=2e-5)


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_the_grid_of_a_file_is_kept_to_the_bit_when_a_result_is_written_beside_it(
    tmp_path: Path, direction: tuple[float, ...]
) -> None:
    write(a_volume(direction), tmp_path / "target.nii.gz")
    target = read(tmp_path / "target.nii.gz")
    write(target.with_array(np.zeros(target.grid.shape, np.uint8)), tmp_path / "result.nii.gz")
    assert read_label_map(tmp_path / "result.nii.gz").grid == target.grid


def test_the_grid_is_kept_to_the_bit_whichever_of_its_two_transforms_the_header_uses(tmp_path: Path) -> None:
    path, rng = tmp_path / "scan.nii", np.random.default_rng(0)
    for number in range(20):
        grid = Grid(
            (11, 9, 7), tuple(rng.uniform(0.3, 3, 3)), tuple(rng.normal(0, 80, 3)), oblique(*rng.normal(size=3))
        )
        sitk.WriteImage(Volume(np.zeros(grid.shape, np.uint8), grid).to_sitk(), str(path))
        content = bytearray(path.read_bytes())
        struct.pack_into("<hh", content, 252, number % 2, 1 - number % 2)  # qform_code, sform_code
        path.write_bytes(content)
        target = read_label_map(path)
        write(target, tmp_path / "result.nii.gz")
        assert read_label_map(tmp_path / "result.nii.gz").grid == target.grid


@pytest.mark.parametrize("name", ["X.NII.GZ", "x.Nii.gz", "X.NII", "X.NRRD", "X.MHA"])
def test_the_ending_of_a_name_decides_in_any_case(tmp_path: Path, name: str) -> None:
    write(a_volume(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.lower().endswith(".gz")
    assert np.array_equal(read(tmp_path / name).array, a_volume().array)


def test_writing_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    write(a_volume(), tmp_path / "scan.nii.gz")
    assert [file.name for file in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Unknown file name ending: .*scan\.png\. Use \.nii\.gz"):
        write(a_volume(), tmp_path / "scan.png")


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        write(a_volume(), tmp_path / "file" / "scan.nii.gz")


# --- bad files -------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*nothing\.nii\.gz: the file does not exist\. Check the path\."):
        read(tmp_path / "nothing.nii.gz")


@pytest.mark.parametrize("name", ["n" * 300 + ".nii", "nul\0.nii"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="Check the path"):
        read(tmp_path / name)


@pytest.mark.parametrize("ending", ["nii", "nrrd"])
def test_complex_numbers_are_refused_not_halved(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan.{ending}"
    sitk.WriteImage(sitk.Image(4, 5, 6, sitk.sitkComplexFloat32), str(tmp_path / "scan.nii"))
    if ending == "nrrd":
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "scan.nii")), str(path))
    for reading in (read, read_label_map):
        with pytest.raises(InputError, match="complex numbers"):
            reading(path)


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_single_precision_are_refused_without_a_warning(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.array([0.0, 1e300] * 12).reshape(2, 3, 4))
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    with pytest.raises(InputError, match="12 voxels that are not a finite number"):
        read(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha", "scan.txt"])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are not the voxels you are looking for")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="the file is empty"):
        read(tmp_path / name)


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"scan.{ending}"
    write(a_volume(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"truncated"):
        read(path)
    assert "WARNING" not in capfd.readouterr().err


def test_a_damaged_compressed_file_is_refused(tmp_path: Path) -> None:
    write(a_volume(), tmp_path / "scan.nii.gz")
    content = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("size", "words"), [((5, 6), "2 dimensions"), ((5, 6, 1), "5 x 6 x 1"), ((5, 6, 7, 3), "4 dimensions")]
)
def test_an_image_that_is_not_3d_is_refused(tmp_path: Path, size: tuple[int, ...], words: str) -> None:
    sitk.WriteImage(sitk.Image(list(size), sitk.sitkFloat32), str(tmp_path / "scan.nii.gz"))
    with pytest.raises(InputError, match=words):
        read(tmp_path / "scan.nii.gz")


def test_a_color_image_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([5, 6, 7], sitk.sitkVectorUInt8, 3), str(tmp_path / "scan.nrrd"))
    with pytest.raises(InputError, match="3 components per voxel"):
        read(tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match="3 components per voxel"):
        read_label_map(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_values_that_are_not_finite_are_counted(tmp_path: Path, ending: str) -> None:
    volume = a_volume()
    volume.array[1, 2, 3:5] = np.nan
    volume.array[0, 0, 0] = np.inf
    volume.array[-1, -1, -1] = -np.inf
    write(volume, tmp_path / f"scan.{ending}")
    with pytest.raises(InputError, match="4 voxels that are not a finite number"):
        read(tmp_path / f"scan.{ending}")


def edited_nifti(tmp_path: Path, offset: int, form: str, *values: float) -> Path:
    """A NIfTI file whose header is overwritten from ``offset`` on."""
    path = tmp_path / "scan.nii"
    write(a_volume(), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("spacing", [0.0, -1.5, float("nan")])
def test_a_spacing_that_is_not_positive_is_refused(tmp_path: Path, spacing: float) -> None:
    path = edited_nifti(tmp_path, 88, "f", spacing)  # pixdim[3]
    with pytest.raises(InputError, match="every spacing must be positive"):
        read(path)
    compressed = tmp_path / "scan.nii.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="every spacing must be positive"):
        read(compressed)


@pytest.mark.parametrize("millimeters", [0.001, 1000.0])
def test_a_scan_whose_spacing_is_in_another_unit_is_refused_with_its_size(tmp_path: Path, millimeters: float) -> None:
    path = tmp_path / "scan.nrrd"
    image = sitk.Image(40, 50, 60, sitk.sitkInt16)
    image.SetSpacing([millimeters] * 3)
    sitk.WriteImage(image, str(path))
    size = f"{40 * millimeters:g} x {50 * millimeters:g} x {60 * millimeters:g} mm"
    with pytest.raises(InputError, match=f": {re.escape(size)} in size, an unlikely spacing. Correct the spacing"):
        read(path)


@pytest.mark.parametrize(
    ("offset", "kind", "value", "words"),
    [
        (108, "f", float("nan"), "impossible offset of its voxels"),  # vox_offset
        (108, "f", -5.0, "impossible offset of its voxels"),
        (108, "f", 1e30, "impossible offset of its voxels"),
        (70, "h", 3490, "unknown NIfTI voxel type 3490"),  # datatype
        (344, "4s", b"\0\0\0\0", "not a NIfTI image"),  # ITK reads it as Analyze, from the header's first byte on
    ],
)
def test_a_damaged_nifti_header_is_refused(
    tmp_path: Path, offset: int, kind: str, value: float | bytes, words: str
) -> None:
    path = edited_nifti(tmp_path, offset, kind, value)
    for file in (path, tmp_path / "scan.nii.gz"):
        if file != path:
            file.write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(InputError, match=words):
            read(file)


def test_voxels_never_begin_within_the_header(tmp_path: Path) -> None:
    path = edited_nifti(tmp_path, 108, "f", 0.0)
    assert np.array_equal(read(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_a_size_that_no_memory_holds_is_refused_unread(tmp_path: Path) -> None:
    path = edited_nifti(tmp_path, 42, "3h", 32767, 32767, 32767)
    with pytest.raises(InputError, match=r"32767 x 32767 x 32767 voxels need \d+\.0 GB, more than 3 GB"):
        read(path)


def test_axes_that_are_not_perpendicular_are_refused_with_their_angle(tmp_path: Path) -> None:
    # The first axis of a slab that is sheared by 5 degrees: (cos 5, sin 5, 0); then sform alone decides.
    angle = np.radians(5.0)
    rows = [0.41 * np.cos(angle), 0, 0, 0, 0.41 * np.sin(angle), 0.41, 0, 0, 0, 0, 1.5, 0]
    path = edited_nifti(tmp_path, 280, "12f", *rows)
    content = bytearray(path.read_bytes())
    struct.pack_into("<hh", content, 252, 0, 1)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not perpendicular \(by 5\.00 degrees\)\. Resample"):
        read(path)


@pytest.mark.parametrize(
    ("ending", "old", "new", "words"),
    [
        ("mha", b"ElementSpacing = 0.5 0.5", b"ElementSpacing = 0.5 0", "every spacing must be positive"),
        ("mha", b"TransformMatrix = 1 0", b"TransformMatrix = 9 0", "not of length 1"),
        # with these three ITK ended the process
        ("mha", b"NDims = 3", b"NDims = 93", "damaged MetaImage header"),
        ("mha", b"NDims = 3", b"NDims = -1", "damaged MetaImage header"),
        ("mha", b"NDims = 3", b"NDims = 99999999", "damaged MetaImage header"),
        ("mha", b"DimSize = 6 5", b"DimSize = 6 0", "damaged MetaImage header"),
        ("mha", b"DimSize = 6 5", b"DimSize = 6", "damaged MetaImage header"),
        ("mha", b"ElementDataFile", b"ElementDate", "damaged MetaImage header"),
        ("nrrd", b"(0,0.5,0)", b"(0,0,0)", "every spacing must be positive"),
        ("mha", b"TransformMatrix = 1 0 0 0 1 0", b"TransformMatrix = 1 0 0 1 0 0", "do not span space"),
        ("nrrd", b"(0,0.5,0)", b"(0.5,0,0)", "do not span space"),
        ("nrrd", b"(0,0.5,0)", b"(0.2,0.5,0)", "not perpendicular"),
    ],
)
def test_bad_geometry_in_other_formats_is_refused(
    tmp_path: Path, ending: str, old: bytes, new: bytes, words: str
) -> None:
    path = tmp_path / f"scan.{ending}"
    write(Volume(np.zeros((4, 5, 6), np.float32), Grid((6, 5, 4), (0.5, 0.5, 1.5), (0.0, 0.0, 0.0), IDENTITY)), path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_label_map_with_fractions_or_large_values_is_refused(tmp_path: Path) -> None:
    volume = a_volume()
    write(volume, tmp_path / "image.nii.gz")
    with pytest.raises(InputError, match=r"not a label map, since \d+ voxels are not integers"):
        read_label_map(tmp_path / "image.nii.gz")
    write(volume.with_array(np.full(volume.grid.shape, 300, np.int16)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="values range from 300 to 300"):
        read_label_map(tmp_path / "ct.nii.gz")


def test_whole_numbers_stored_as_floats_are_a_label_map(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 3, (7, 9, 11))
    write(a_volume().with_array(array.astype(np.float32)), tmp_path / "label.nii.gz")
    back = read_label_map(tmp_path / "label.nii.gz")
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, array)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_small_integers_stay_as_they_are_on_request(tmp_path: Path, kind: type) -> None:
    grid = Grid((4, 5, 6), (0.5, 0.5, 1.5), (1.0, 2.0, 3.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    array = np.arange(120).reshape(grid.shape).astype(kind)
    write(Volume(array, grid), tmp_path / "scan.nii.gz")
    for keep_small in (False, True):
        scan, stored = read_typed_scan(tmp_path / "scan.nii.gz", keep_small)
        is_small = keep_small and np.dtype(kind).itemsize <= 2
        assert stored == kind and scan.array.dtype == (kind if is_small else np.float32)
        assert np.array_equal(scan.array, array)
