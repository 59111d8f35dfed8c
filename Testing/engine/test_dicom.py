"""DICOM series are read in the order of their slices; what is no complete series is refused in one sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume, read

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
#: DICOM knows no left-handed stacks: row x column gives the slice axis.
DIRECTIONS = {
    "axial": AXIAL,
    "sagittal": (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": tuple(Rotation.from_euler("xyz", (0.2, -0.1, 0.3)).as_matrix().ravel()),
}


def write_series(
    folder: Path, volume: Volume, uid: str = "1.2.826.0.1.3680043.8.498.1", skip: tuple[int, ...] = ()
) -> None:
    """Write a volume as a DICOM series whose file names run against the order of the slices."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    folder.mkdir(parents=True, exist_ok=True)
    direction = np.reshape(volume.grid.direction, (3, 3))
    for number in range(volume.grid.size[2]):
        if number in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{uid}.{number + 1}"
        header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        header.SeriesInstanceUID, header.StudyInstanceUID, header.PatientID = uid, "1.2.3", "VS-SEG-001"
        header.Modality, header.SeriesDescription, header.InstanceNumber = "MR", "t1_mpr_tra", number + 1
        header.Rows, header.Columns = volume.grid.size[1], volume.grid.size[0]
        header.PixelSpacing = [f"{volume.grid.spacing[1]:.8g}", f"{volume.grid.spacing[0]:.8g}"]
        header.SliceThickness = "1.0"
        position = volume.grid.index_to_physical @ [0, 0, number, 1]
        header.ImagePositionPatient = [f"{value:.10g}" for value in position[:3]]
        header.ImageOrientationPatient = [f"{value:.12g}" for value in (*direction[:, 0], *direction[:, 1])]
        header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit = 15
        header.PixelData = volume.array[number].astype(np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{volume.grid.size[2] - number:03d}.dcm", header, enforce_file_format=True)


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
    with pytest.raises(InputError, match=r"not evenly spaced: 3\.00 mm after slice 3, 1\.50 mm elsewhere"):
        read(tmp_path / "series")


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="no DICOM image series"):
        read(tmp_path)
