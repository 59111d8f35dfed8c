"""DICOM series of MR slices for tests."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda.volume import Grid, Volume


def write_series(
    folder: Path,
    volume: Volume,
    uid: str = "1.2.826.0.1.3680043.8.498.1",
    skip: tuple[int, ...] = (),
    **elements: Any,
) -> None:
    """Write a volume as a DICOM series whose file names run against the order of the slices.

    Args:
        uid: SeriesInstanceUID, and the beginning of those of the slices.
        skip: slices that are left out.
        elements: further elements of every slice, such as ``SeriesDescription="t2_space"``.

    """
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
        header.FrameOfReferenceUID = "1.2.3.9"
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
        for name, value in elements.items():
            setattr(header, name, value)
        pydicom.dcmwrite(folder / f"{volume.grid.size[2] - number:03d}.dcm", header, enforce_file_format=True)


def write_mixed_study(folder: Path, patient: str = "VS-SEG-001") -> dict[str, Volume]:
    """Write a T2 and a ceT1 into one folder, the first and the last file by name of T2; return the scans by name."""
    grid = Grid((10, 8, 6), (0.4, 0.5, 1.5), (-20.0, -30.0, 40.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    scans = {}
    for number, name in enumerate(("t2_space", "t1_mpr gd"), start=1):
        array = np.random.default_rng(number).integers(0, 1000, grid.shape).astype(np.float32)
        scans[name] = Volume(array, grid)
        part = folder / name
        write_series(part, scans[name], f"1.2.7.{number}", SeriesDescription=name, PatientID=patient)
        for index, file in enumerate(sorted(part.iterdir())):
            prefix = "m" if number == 2 else "az"[index % 2]
            shutil.move(file, folder / f"{prefix}{file.name}")
        part.rmdir()
    return scans


def write_frames(file: Path, scan: Volume, **changes: Any) -> None:
    """Write a volume as one enhanced file; ``changes`` remove or replace what its slices say."""
    import pydicom
    from pydicom.dataset import Dataset

    write_series(file.parent / "slices", scan)
    header = pydicom.dcmread(file.parent / "slices" / "006.dcm")
    shutil.rmtree(file.parent / "slices")
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = header.PixelSpacing, header.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(header, name)
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], []
    for number in changes.pop("order", range(scan.grid.size[2])):
        position, frame = Dataset(), Dataset()
        place = scan.grid.index_to_physical @ [0, 0, number, 1]
        position.ImagePositionPatient = [f"{value:.10g}" for value in place[:3]]
        frame.PlanePositionSequence = [position]
        header.PerFrameFunctionalGroupsSequence.append(frame)
    header.NumberOfFrames, header.PixelData = scan.grid.size[2], scan.array.astype(np.uint16).tobytes()
    for name, value in changes.items():
        setattr(shared, name, value)
    pydicom.dcmwrite(file, header, enforce_file_format=True)
