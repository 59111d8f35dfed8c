"""DICOM segmentations are read back by other programs; the scan of a study is chosen or its candidates are listed."""

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from crossmoda import __version__, volume
from crossmoda.dataset.scan_selection import select_scan
from crossmoda.errors import InputError
from crossmoda.export import read_own_segmentation, write_dicom_report, write_dicom_segmentation
from crossmoda.measurement import measure
from crossmoda.volume import Grid, Volume, read, read_label_map
from dicom_series import write_frames, write_mixed_study, write_series

highdicom = pytest.importorskip("highdicom")
OBLIQUE = tuple(Rotation.from_euler("xyz", (0.2, -0.1, 0.3)).as_matrix().ravel().tolist())
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def a_scan(direction: tuple[float, ...] = AXIAL) -> Volume:
    array = np.random.default_rng(0).integers(0, 1000, (6, 12, 180)).astype(np.float32)
    return Volume(array, Grid((180, 12, 6), (0.5, 0.4, 1.5), (-45.0, -30.0, 40.0), direction))


def a_label(scan: Volume) -> Volume:
    """Return a left tumor and both cochleae; some slices are empty."""
    array = np.zeros(scan.grid.shape, np.uint8)
    array[2:5, 3:8, 120:140] = 1
    array[3, 4:6, 150:154] = array[3, 4:6, 20:24] = 2
    return scan.with_array(array)


@pytest.fixture(params=[AXIAL, OBLIQUE], ids=["axial", "oblique"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Volume, Path]:
    """A DICOM segmentation, its label map, and the series it refers to."""
    series = tmp_path / "series"
    write_series(series, a_scan(request.param), SeriesNumber=4)
    label_map = a_label(read(series))
    write_dicom_segmentation(label_map, series, tmp_path / "result.dcm", model="bundled")
    return tmp_path / "result.dcm", label_map, series


def test_what_was_drawn_on_a_series_may_lie_in_its_folder(written: tuple[Path, Volume, Path]) -> None:
    segmentation, label_map, series = written
    (series / "seg.dcm").write_bytes(segmentation.read_bytes())
    (series / ".partial-1-2.dcm").write_bytes(next(series.glob("0*.dcm")).read_bytes()[:300])
    assert read(series).grid.same_as(label_map.grid)
    write_dicom_segmentation(label_map, series, series / "seg.dcm", model="bundled")


def test_segments_state_who_made_them_and_what_they_are(written: tuple[Path, Volume, Path]) -> None:
    import pydicom

    header = pydicom.dcmread(written[0])
    source = pydicom.dcmread(next(written[2].iterdir()))
    assert header.Modality == "SEG" and header.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert header.PatientID == source.PatientID and header.StudyInstanceUID == source.StudyInstanceUID
    assert [segment.SegmentLabel for segment in header.SegmentSequence] == [
        "Vestibular schwannoma, left",
        "Cochlea, left",
        "Cochlea, right",
    ]
    for segment in header.SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentAlgorithmName == "CrossModa"
        assert algorithm.AlgorithmVersion == __version__
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in header.SegmentSequence]
    assert kinds == ["4147007", "80169004", "80169004"]
    referred = {item.ReferencedSOPInstanceUID for item in header.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referred == {f"{source.SeriesInstanceUID}.{number}" for number in range(1, 7)}


def test_the_engine_reads_it_back_to_the_bit(written: tuple[Path, Volume, Path]) -> None:
    path, label_map, _ = written
    back = read_label_map(path, label_map.grid)  # highdicom turns the order of slices
    assert np.array_equal(back.array, label_map.array)
    assert np.allclose(back.grid.index_to_physical, label_map.grid.index_to_physical, atol=1e-6)


@pytest.mark.parametrize(
    "stated",
    [{"SpacingBetweenSlices": "0.3"}, {"SpacingBetweenSlices": "3"}, {"SliceThickness": None}],
    ids=["a fraction of the distance", "a multiple of it", "no thickness"],
)
def test_the_distance_of_slices_is_that_of_the_scan_whatever_its_series_states(tmp_path: Path, stated: dict) -> None:
    write_series(tmp_path / "series", a_scan(), **stated)
    label_map = a_label(read(tmp_path / "series"))
    write_dicom_segmentation(label_map, tmp_path / "series", tmp_path / "result.dcm")
    back = read_label_map(tmp_path / "result.dcm", label_map.grid)
    assert back.grid == label_map.grid and np.array_equal(back.array, label_map.array)


@pytest.mark.parametrize("stated", ["3", None])
def test_slices_with_jitter_are_read_back_also_where_the_distance_is_wrong(tmp_path: Path, stated: str | None) -> None:
    import pydicom

    write_series(tmp_path / "series", a_scan())
    for number, file in enumerate(sorted((tmp_path / "series").iterdir())):
        header = pydicom.dcmread(file)
        header.ImagePositionPatient[2] += 0.01 * (-1) ** number
        header.save_as(file)
    label_map = a_label(read(tmp_path / "series"))
    write_dicom_segmentation(label_map, tmp_path / "series", tmp_path / "result.dcm")
    if stated:  # as another program may have written it
        header = pydicom.dcmread(tmp_path / "result.dcm")
        header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = stated
        header.save_as(tmp_path / "result.dcm")
    back = read_label_map(tmp_path / "result.dcm", label_map.grid)
    assert np.array_equal(back.array, label_map.array)
    assert np.allclose(back.grid.index_to_physical, label_map.grid.index_to_physical, atol=1e-6)


def test_highdicom_finds_every_voxel_at_its_place(written: tuple[Path, Volume, Path]) -> None:
    path, label_map, _ = written
    place = highdicom.seg.segread(path).get_volume(combine_segments=True, segment_numbers=[1])
    voxels = np.argwhere(np.asarray(place.array) == 1)
    points = place.map_indices_to_reference(voxels)
    expected = label_map.grid.points(label_map.array == 1)
    assert np.allclose(sorted(points.tolist()), sorted(expected.tolist()), atol=1e-5)


@pytest.mark.skipif(shutil.which("segimage2itkimage") is None, reason="dcmqi is not installed")
def test_dcmqi_reads_the_same_voxels_and_geometry(written: tuple[Path, Volume, Path], tmp_path: Path) -> None:
    path, label_map, _ = written
    command = ["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path / "itk", "--outputType", "nrrd"]
    (tmp_path / "itk").mkdir()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    image = Volume.from_sitk(sitk.ReadImage(str(tmp_path / "itk" / "1.nrrd")))
    assert np.array_equal(image.array > 0, label_map.array == 1)
    assert np.allclose(image.grid.index_to_physical, label_map.grid.index_to_physical, atol=1e-5)


def test_a_corrected_segmentation_is_semiautomatic(written: tuple[Path, Volume, Path], tmp_path: Path) -> None:
    import pydicom

    _, label_map, series = written
    write_dicom_segmentation(label_map, series, tmp_path / "again.dcm", is_corrected=True)
    types = {segment.SegmentAlgorithmType for segment in pydicom.dcmread(tmp_path / "again.dcm").SegmentSequence}
    assert types == {"SEMIAUTOMATIC"}


def test_the_frames_of_a_segmentation_are_those_of_a_file_in_any_order(tmp_path: Path) -> None:
    write_frames(tmp_path / "scan.dcm", a_scan(OBLIQUE), order=[0, 2, 4, 1, 3, 5])
    label_map = a_label(read(tmp_path / "scan.dcm"))
    write_dicom_segmentation(label_map, tmp_path / "scan.dcm", tmp_path / "result.dcm")
    back = read_label_map(tmp_path / "result.dcm")
    assert np.array_equal(back.array, label_map.array)
    assert back.grid.same_as(label_map.grid)


def test_what_cannot_be_referred_to_is_refused(written: tuple[Path, Volume, Path], tmp_path: Path) -> None:
    _, label_map, series = written
    empty = label_map.with_array(np.zeros_like(label_map.array))
    with pytest.raises(InputError, match="Empty segmentation"):
        write_dicom_segmentation(empty, series, tmp_path / "no.dcm")
    with pytest.raises(InputError, match="different grids"):
        write_dicom_segmentation(label_map.crop(np.s_[1:5, 0:12, 0:180]), series, tmp_path / "no.dcm")
    write_series(tmp_path / "anonymous", a_scan(), FrameOfReferenceUID="")
    with pytest.raises(InputError, match="states no FrameOfReferenceUID"):
        write_dicom_segmentation(label_map, tmp_path / "anonymous", tmp_path / "no.dcm")
    assert not (tmp_path / "no.dcm").exists()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study folder with a localizer, a FLAIR, a T2 and a ceT1, in subfolders."""
    kinds = {"loc": "localizer", "a/flair": "t2 flair", "a/t2": "t2_space_tra", "b/ce": "t1_mpr gd", "b/pre": "t1 pre"}
    for number, (folder, description) in enumerate(kinds.items(), start=1):
        write_series(
            tmp_path / "study" / folder, a_scan(), f"1.2.5.{number}", SeriesDescription=description, SeriesNumber=number
        )
    return tmp_path / "study"


def test_the_only_t2_of_a_study_is_chosen_and_named(study: Path) -> None:
    selection = select_scan(study)
    assert selection.path == study / "a" / "t2" and "t2_space_tra" in selection.note
    shutil.rmtree(study / "a")
    assert select_scan(study).path == study / "b" / "ce"


@pytest.mark.parametrize("wanted", ["4", "t1_mpr gd", "T1_MPR", "1.2.5.4"])
def test_a_series_is_chosen_by_number_description_or_uid(study: Path, wanted: str) -> None:
    assert select_scan(study, wanted).path == study / "b" / "ce"


def test_a_series_between_the_files_of_another_one_is_chosen(tmp_path: Path) -> None:
    scans = write_mixed_study(tmp_path / "study")
    assert np.array_equal(read(select_scan(tmp_path / "study").path).array, scans["t2_space"].array)
    chosen = select_scan(tmp_path / "study", "t1_mpr gd")
    assert np.array_equal(read(chosen.path).array, scans["t1_mpr gd"].array)


def test_candidates_are_listed_where_none_or_several_fit(study: Path) -> None:
    with pytest.raises(InputError, match=r"No series fits 'dwi'.* 't2_space_tra' \(number 3, hrT2, 6 files\)"):
        select_scan(study, "dwi")
    write_series(study / "c", a_scan(), "1.2.5.9", SeriesDescription="t2_ciss", SeriesNumber=9)
    with pytest.raises(InputError, match=r"2 series fit T2 or ceT1.*t2_space_tra.*t2_ciss") as error:
        select_scan(study)
    assert "flair" not in str(error.value)


def test_the_structured_report_states_the_measures_of_the_segments(
    written: tuple[Path, Volume, Path], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    segmentation, label_map, series = written
    measures = measure(label_map)
    write_dicom_report(measures, read_own_segmentation(segmentation), series, tmp_path / "report.dcm")
    report = highdicom.sr.srread(tmp_path / "report.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    found = {group.tracking_identifier: group for group in groups}
    assert list(found) == ["VS left", "cochlea left", "cochlea right"]
    tumor, (row,) = found["VS left"], measures.tumors
    values = {item.name.meaning: item.value for item in tumor.get_measurements()}
    assert values["Volume"] == pytest.approx(row.volume_mm3, abs=0.01)
    assert values["Long axis"] == pytest.approx(row.axial.largest.length_mm, abs=0.01)
    assert {str(item.unit.value) for item in tumor.get_measurements()} == {"mm", "mm3"}
    assert tumor.finding_type.value == "4147007" and tumor.finding_sites[0].laterality.meaning == "Left"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        references = pydicom.dcmread(segmentation)
    assert tumor.referenced_segment.referenced_sop_instance_uid == references.SOPInstanceUID
    assert tumor.referenced_segment.referenced_segment_numbers == [1]
    assert pydicom.dcmread(tmp_path / "report.dcm").StudyInstanceUID == references.StudyInstanceUID


def test_a_report_of_another_series_or_another_label_is_refused(
    written: tuple[Path, Volume, Path], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    segmentation, label_map, series = written
    write_series(tmp_path / "other", a_scan(), "1.2.77")
    with pytest.raises(InputError, match="refers to another series"):
        write_dicom_report(
            measure(label_map), read_own_segmentation(segmentation), tmp_path / "other", tmp_path / "no.dcm"
        )
    volume.write(label_map, tmp_path / "label.nii.gz")
    code, _, err = run("measure", tmp_path / "label.nii.gz", "--scan", series, "--report-dicom", tmp_path / "no.dcm")
    assert code == 2 and "crossmoda export" in err and err.count("\n") == 1
    code, _, err = run("measure", segmentation, "--report-dicom", tmp_path / "no.dcm")
    assert code == 2 and "--scan" in err
    code, _, err = run("segment", series, "-o", tmp_path / "no.nii.gz", "--report-dicom", tmp_path / "no.dcm")
    assert code == 2 and "refers to a DICOM SEG" in err
    assert not (tmp_path / "no.dcm").exists()


def test_no_slice_of_a_study_is_replaced_and_an_earlier_segmentation_is(
    written: tuple[Path, Volume, Path], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    segmentation, _, series = written
    slice_file = sorted(series.iterdir())[0]
    before = slice_file.read_bytes()
    for command in ("export", "segment"):
        source = [segmentation, "--scan", series] if command == "export" else [series]
        code, _, err = run(command, *source, "-o", slice_file)
        assert code == 2 and "would replace a DICOM image" in err and slice_file.read_bytes() == before
    for _ in range(2):
        assert run("export", segmentation, "--scan", series, "-o", tmp_path / "again.dcm")[0] == 0
