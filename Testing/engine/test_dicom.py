"""DICOM series are read in the order of their slices; what is no complete series is refused in one sentence."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume, read
from crossmoda.volume.dicom import list_series
from dicom_series import write_frames, write_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
#: DICOM knows no left-handed stacks: row x column gives the slice axis.
DIRECTIONS = {
    "axial": AXIAL,
    "sagittal": (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": tuple(Rotation.from_euler("xyz", (0.2, -0.1, 0.3)).as_matrix().ravel()),
}


def a_scan(direction: tuple[float, ...] = AXIAL, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).integers(0, 1000, (6, 8, 10)).astype(np.float32)
    return Volume(array, Grid((10, 8, 6), (0.4, 0.5, 1.5), (-20.0, -30.0, 40.0), direction))


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_dicom_series_is_read_in_the_order_of_its_positions(tmp_path: Path, direction: tuple[float, ...]) -> None:
    scan = a_scan(direction)
    write_series(tmp_path / "Serie ä", scan)
    back = read(tmp_path / "Serie ä")
    assert np.array_equal(back.array, scan.array)
    assert np.allclose(back.grid.index_to_physical, scan.grid.index_to_physical, atol=1e-6)


def test_a_folder_with_several_series_lists_them_and_a_file_chooses_one(tmp_path: Path) -> None:
    first, second = a_scan(seed=1), a_scan(seed=2)
    write_series(tmp_path / "study", first, "1.2.3.4")
    write_series(tmp_path / "other", second, "1.2.3.5")
    for file in (tmp_path / "other").iterdir():
        shutil.move(file, tmp_path / "study" / f"b{file.name}")
    with pytest.raises(InputError, match=r"2 DICOM series: 1\.2\.3\.4 .*; 1\.2\.3\.5 "):
        read(tmp_path / "study")
    assert np.array_equal(read(tmp_path / "study" / "b002.dcm").array, second.array)


def test_a_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "series", a_scan(), skip=(3,))
    with pytest.raises(InputError, match=r"not evenly spaced, 3\.00 mm after slice 3, 1\.50 mm between most slices"):
        read(tmp_path / "series")


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="no DICOM image series"):
        read(tmp_path)


def edit(file: Path, **changes: Any) -> None:
    """Set elements of a DICOM file; None removes one."""
    import pydicom

    header = pydicom.dcmread(file)
    for name, value in changes.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(file)


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: cut(file, 0), r"001\.dcm: the file is empty"),
        (lambda file: cut(file, 100), r"001\.dcm: not a DICOM file"),
        (lambda file: cut(file, 300), r"001\.dcm: damaged DICOM file"),
        (lambda file: edit(file, Rows=None), r"001\.dcm: damaged DICOM file"),
        (lambda file: edit(file, Columns=None), r"001\.dcm: damaged DICOM file"),
        (lambda file: file.write_bytes(b"\0" * 128 + b"DICM" + bytes(range(256))), r"001\.dcm: damaged DICOM file"),
        (lambda file: edit(file, PixelData=None), r"001\.dcm: its pixel data is missing or damaged"),
        (lambda file: cut(file, file.stat().st_size - 40), r"001\.dcm: truncated, damaged .* \(its pixel data\)"),
        (lambda file: edit(file, Rows=60000), r"001\.dcm: the file is shorter than its image"),
    ],
    ids=["empty", "short", "cut header", "no rows", "no columns", "garbage", "no pixels", "cut pixels", "lying header"],
)
def test_a_damaged_slice_at_the_end_of_a_series_is_named_and_not_passed_over(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    write_series(tmp_path, a_scan())
    damage(tmp_path / "001.dcm")
    with pytest.raises(InputError, match=sentence):
        read(tmp_path)


def test_a_first_slice_whose_header_cannot_be_parsed_does_not_hide_the_series(tmp_path: Path) -> None:
    import pydicom
    from pydicom.errors import BytesLengthException

    write_series(tmp_path, a_scan(), SeriesNumber=4)
    files = sorted(tmp_path.iterdir())
    content = files[0].read_bytes()
    number = content.index(b"\x20\x00\x11\x00IS")
    files[0].write_bytes(content[:number] + content[number:].replace(b"IS", b"FD", 1))
    with pytest.raises(BytesLengthException):
        _ = pydicom.dcmread(files[0]).SeriesNumber
    (series,) = list_series(files)
    assert series.files == files and series.description == "t1_mpr_tra"
    with pytest.raises(InputError, match="damaged DICOM file"):
        read(tmp_path)


def test_other_files_beside_a_series_are_passed_over(tmp_path: Path, write_rtstruct: Callable[..., None]) -> None:
    scan = a_scan()
    write_series(tmp_path, scan)
    write_rtstruct(tmp_path / "rt.dcm", {"VS": [np.eye(3)]})
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".001.dcm").write_text("of an interrupted download")
    assert np.array_equal(read(tmp_path).array, scan.array)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"PixelSpacing": None}, "pixel spacing"),
        ({"PixelSpacing": [0, 0]}, "pixel spacing"),
        ({"PixelSpacing": ["0.5", "nan"]}, "pixel spacing"),
        ({"PixelSpacing": ["0.5"]}, "pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "without position, orientation"),
        ({"ImageOrientationPatient": []}, "without position, orientation"),
        ({"ImageOrientationPatient": ["nan"] * 6}, "without position, orientation"),
        ({"ImageOrientationPatient": [0] * 6}, "not two directions of length 1"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two directions of length 1"),
        ({"ImagePositionPatient": [0, 0]}, "without position, orientation"),
        ({"ImagePositionPatient": ["inf", 0, 0]}, "without position, orientation"),
        ({"NumberOfFrames": 2, "Rows": 4}, "several files with several slices each"),
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["all", "one"])
def test_slices_that_do_not_say_where_they_lie_are_refused_and_not_taken_for_1_mm(
    tmp_path: Path, changes: dict[str, Any], sentence: str, which: str
) -> None:
    write_series(tmp_path, a_scan())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that such values break the standard
        for file in sorted(tmp_path.iterdir())[: None if which == "all" else 1]:
            edit(file, **changes)
    with pytest.raises(InputError, match=sentence if which == "all" else f"{sentence}|slices of different orientation"):
        read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"PixelSpacing": ["0.6", "0.5"]}, {"PhotometricInterpretation": "RGB"}, {"BitsAllocated": 8}],
    ids=str,
)
def test_a_slice_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_series(tmp_path, a_scan())
    edit(tmp_path / "002.dcm", **changes)
    with pytest.raises(InputError, match="slices of different orientation, size or kind"):
        read(tmp_path)


def test_a_slice_that_lies_twice_in_the_folder_is_named(tmp_path: Path) -> None:
    write_series(tmp_path, a_scan())
    shutil.copy(tmp_path / "003.dcm", tmp_path / "copy.dcm")
    with pytest.raises(InputError, match=r"at one position, such as 003\.dcm and copy\.dcm"):
        read(tmp_path)


def test_slices_that_are_scaled_differently_keep_their_values(tmp_path: Path) -> None:
    scan = a_scan()
    write_series(tmp_path, scan)
    edit(tmp_path / "001.dcm", RescaleSlope="0.25", RescaleIntercept="-3.5")
    expected = scan.array.copy()
    expected[5] = 0.25 * expected[5] - 3.5
    assert np.allclose(read(tmp_path).array, expected)


def test_a_file_of_several_slices_is_read_where_it_says_how_they_lie(tmp_path: Path) -> None:
    scan = a_scan()
    write_frames(tmp_path / "scan.dcm", scan)
    back = read(tmp_path / "scan.dcm")
    assert np.array_equal(back.array, scan.array)
    assert back.grid.same_as(scan.grid)


@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]], ids=["descending", "interleaved"])
def test_slices_of_a_file_are_sorted_by_their_positions(tmp_path: Path, order: list[int]) -> None:
    scan = a_scan(DIRECTIONS["oblique"])
    write_frames(tmp_path / "scan.dcm", scan, order=order)
    back = read(tmp_path / "scan.dcm")
    assert np.array_equal(back.array[order], scan.array)  # the file has the voxels of a place where its position says
    assert back.grid.same_as(scan.grid)


def test_slices_of_a_file_are_scaled_each_by_its_own_slope(tmp_path: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset

    scan = a_scan()
    write_frames(tmp_path / "scan.dcm", scan)
    header = pydicom.dcmread(tmp_path / "scan.dcm")
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        scale = Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = str(0.3 + 0.1 * number), str(number), "US"
        frame.PixelValueTransformationSequence = [scale]
    header.save_as(tmp_path / "scan.dcm")
    slopes, intercepts = 0.3 + 0.1 * np.arange(6)[:, None, None], np.arange(6)[:, None, None]
    assert np.allclose(read(tmp_path / "scan.dcm").array, slopes * scan.array + intercepts, atol=1e-3)


def compressed(file: Path, syntax: str, folder: Path) -> None:
    """Compress the pixel data of a file in place."""
    import pydicom
    import SimpleITK as sitk
    from pydicom import encaps, uid

    header = pydicom.dcmread(file)
    if syntax in ("RLELossless", "JPEGLSLossless"):  # pydicom's own encoder, and CharLS
        header.compress(getattr(uid, syntax), generate_instance_uid=False)
    else:  # GDCM writes these two
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor({"JPEGLosslessSV1": "JPEG", "JPEG2000Lossless": "JPEG2000"}[syntax])
        codes = []
        for frame in np.atleast_3d(header.pixel_array.T).T.reshape(-1, header.Rows, header.Columns):
            writer.SetFileName(str(folder / "coded.dcm"))
            writer.Execute(sitk.GetImageFromArray(frame[None].astype(np.uint16)))
            coded = pydicom.dcmread(folder / "coded.dcm")
            codes.append(b"".join(encaps.generate_frames(coded.PixelData, number_of_frames=1)))
        header.PixelData = encaps.encapsulate(codes)
        header["PixelData"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    header.save_as(file)
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == getattr(uid, syntax)


def test_a_coding_that_is_not_supported_is_named(tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import MPEG2MPML

    write_series(tmp_path / "scan", a_scan())
    for file in (tmp_path / "scan").iterdir():
        compressed(file, "JPEG2000Lossless", tmp_path)
        header = pydicom.dcmread(file)
        header.file_meta.TransferSyntaxUID = MPEG2MPML
        header.save_as(file)
    with pytest.raises(InputError, match=r"compressed as MPEG2 .*, which is not supported\. Export"):
        read(tmp_path / "scan")


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEGLosslessSV1", "JPEG2000Lossless"])
@pytest.mark.parametrize("kind", ["slices", "frames"])
def test_compressed_series_are_read_to_the_bit(tmp_path: Path, syntax: str, kind: str) -> None:
    scan = a_scan()
    if syntax == "JPEGLSLossless":
        pytest.importorskip("jpeg_ls")
    if kind == "slices":
        write_series(tmp_path / "scan", scan)
    else:
        (tmp_path / "scan").mkdir()
        write_frames(tmp_path / "scan" / "scan.dcm", scan)
    for file in (tmp_path / "scan").iterdir():
        compressed(file, syntax, tmp_path)
    back = read(tmp_path / "scan")
    assert np.array_equal(back.array, scan.array)
    assert back.grid.same_as(scan.grid)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"PixelMeasuresSequence": []}, "missing position, orientation or pixel spacing of some slices"),
        ({"order": []}, "missing position, orientation or pixel spacing of some slices"),
        ({"order": [0, 1, 2, 4, 5, 6]}, "not evenly spaced"),
        ({"order": [0, 1, 2, 3, 4, 4]}, "several slices at one position, such as slice 5 and slice 6"),
    ],
    ids=str,
)
def test_a_file_of_several_slices_that_does_not_say_how_they_lie_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    write_frames(tmp_path / "scan.dcm", a_scan(), **changes)
    with pytest.raises(InputError, match=sentence):
        read(tmp_path / "scan.dcm")
