"""Inputs of the tests of public reports: a small scan and label, and the files that other programs write."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from crossmoda import labels
from crossmoda.volume import Grid, Volume

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((24, 20, 12), (0.5, 0.5, 1.5), (-6.0, 5.0, -40.0), AXES)


def a_scan(grid: Grid = GRID, seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).integers(1, 900, grid.shape).astype(np.int16), grid)


def a_label(grid: Grid = GRID) -> Volume:
    array = np.zeros(grid.shape, np.uint8)
    array[3:7, 4:9, 4:10] = labels.VS
    array[8:10, 12:15, 14:17] = labels.COCHLEA
    return Volume(array, grid)


def segmentation(path: Path, names: dict[str, int], array: np.ndarray, terminology: str = "") -> Path:
    """Write a ``.seg.nrrd`` as 3D Slicer does, with a segment of each name and value."""
    image = Volume(array, GRID).to_sitk()
    for number, (name, value) in enumerate(names.items()):
        tags = f"Segmentation.Status:inprogress|TerminologyEntry:{terminology}|"
        for key, text in {"ID": f"S_{number}", "Name": name, "LabelValue": value, "Layer": 0, "Tags": tags}.items():
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), True)
    return path


def nifti(path: Path, qform: int, sform: int, mirrored: bool = False, pixdim: float = 0.0) -> Path:
    """Write a scan as NIfTI with these codes, the sform mirrored or the spacing of pixdim replaced."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.index_to_physical
    image = nibabel.Nifti1Image(a_scan().array.T, affine)
    image.set_qform(affine, qform)
    flipped = affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    image.set_sform(flipped if mirrored else affine, sform)
    nibabel.save(image, path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", content, 252, qform, sform)
    if pixdim:
        struct.pack_into("<3f", content, 80, pixdim, pixdim, pixdim)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def dicom_slice(path: Path, number: int, **changes: object):  # type: ignore[no-untyped-def]
    """Write one slice of a scan as DICOM; ``changes`` replace attributes."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    item = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.StudyInstanceUID, item.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    item.PatientID, item.PatientName, item.Modality, item.SeriesDescription = "P1", "Test", "MR", "T2 CISS"
    item.PatientBirthDate = item.PatientSex = item.AccessionNumber = item.StudyID = ""
    item.StudyDate = item.StudyTime = item.ReferringPhysicianName = ""
    item.SeriesNumber, item.InstanceNumber = 1, number + 1
    item.Rows, item.Columns = GRID.size[1], GRID.size[0]
    item.PixelSpacing, item.SliceThickness = [GRID.spacing[1], GRID.spacing[0]], GRID.spacing[2]
    item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    item.ImagePositionPatient = [*GRID.origin[:2], GRID.origin[2] + number * GRID.spacing[2]]
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit = 15
    item.PixelData = a_scan().array[number].astype(np.uint16).tobytes()
    for name, value in changes.items():
        setattr(item, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)
    return item
