"""Sound files of every format, and their damage: each input follows from its kind and its seed."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from crossmoda import volume
from crossmoda.volume import Grid, Volume

GRID = Grid((14, 12, 8), (0.5, 0.5, 1.5), (-6.0, 5.0, -40.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
#: Numbers that readers stumble over.
_NUMBERS = [
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e999",
    b"9" * 400,
    b"4294967296",
    b"1.0",
    b"0x10",
    b"2147483647",
    b"1,5",
    b"",
]


def _scan() -> Volume:
    return Volume(np.random.default_rng(0).integers(1, 900, GRID.shape).astype(np.int16), GRID)


def _label() -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    array[2:5, 3:7, 3:8], array[6:7, 9:11, 10:12] = 1, 2
    return Volume(array, GRID)


def _dicom(folder: Path) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    for number in range(3):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        item = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        item.SeriesInstanceUID, item.StudyInstanceUID, item.PatientID = "1.2.3", "1.2.4", "P1"
        item.Modality, item.SeriesDescription, item.InstanceNumber = "MR", "T2 CISS", number + 1
        item.Rows, item.Columns, item.PixelSpacing = GRID.size[1], GRID.size[0], [0.5, 0.5]
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [0, 0, 1.5 * number]
        item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit = 15
        item.PixelData = _scan().array[number].astype(np.uint16).tobytes()
        item.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return (folder / "1.dcm").read_bytes()


def _structures(folder: Path) -> bytes:
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = "1.2.9"
    item = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID, item.Modality = RTStructureSetStorage, "1.2.9", "RTSTRUCT"
    roi, drawn, contour = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = 1, "VS"
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
    contour.ContourData = [-4, 7, -37, -1, 7, -37, -1, 9, -37, -4, 9, -37]
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, [contour]
    item.StructureSetROISequence, item.ROIContourSequence = [roi], [drawn]
    item.save_as(folder / "rs.dcm", enforce_file_format=True)
    return (folder / "rs.dcm").read_bytes()


def _written(name: str) -> Callable[[Path], bytes]:
    def write(folder: Path) -> bytes:
        if name.endswith(".seg.nrrd"):
            volume.write_segmentation(_label(), folder / name, {"step": "fuzz"})
        elif name.endswith((".mhd", ".nhdr")):
            sitk.WriteImage(_scan().to_sitk(), str(folder / name))
        elif name.endswith((".tfm", ".h5")):
            sitk.WriteTransform(sitk.AffineTransform(3), str(folder / name))
        else:
            volume.write(_label() if name.startswith("label") else _scan(), folder / name)
        return (folder / name).read_bytes()

    return write


def _weights(folder: Path) -> bytes:
    from crossmoda import network, preprocessing, weights

    settings = network.Settings(width=0.125)
    card = weights.new_card(settings, preprocessing.Preparation(), doubtful_below={"VS": 0.5}, license="none")
    weights.save(folder / "weights.safetensors", network.build(settings).state_dict(), card)
    return (folder / "weights.safetensors").read_bytes()


def _beside(name: str, *others: str) -> Callable[[Path], bytes]:
    """Return a maker of a file that a command reads together with sound ones."""

    def write(folder: Path) -> bytes:
        for other in others:
            _written(other)(folder)
        return _written(name)(folder)

    return write


def _text(content: object) -> Callable[[Path], bytes]:
    return lambda _: json.dumps(content).encode()


_CONTOURS = [{"structure_name": "TV", "LPS_contour_points": [[[-4, 7, -37], [-1, 7, -37], [-1, 9, -37]]]}]
_RECORD = {"id": "a", "status": "corrected", "number": 1, "seconds": 3.5, "files": {}}
#: Name of the damaged file by kind, and the maker of its sound content (other files of the folder stay sound).
KINDS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "nii": ("scan.nii", _written("scan.nii")),
    "nii.gz": ("scan.nii.gz", _written("scan.nii.gz")),
    "nrrd": ("scan.nrrd", _written("scan.nrrd")),
    "nhdr": ("scan.nhdr", _written("scan.nhdr")),
    "mha": ("scan.mha", _written("scan.mha")),
    "mhd": ("scan.mhd", _written("scan.mhd")),
    "seg.nrrd": ("label.seg.nrrd", _written("label.seg.nrrd")),
    "label": ("label.nii.gz", _written("label.nii.gz")),
    "dicom": ("1.dcm", _dicom),
    "rtstruct": ("rs.dcm", _structures),
    "contours": ("contours.json", _text(_CONTOURS)),
    "record": ("correction.json", _text(_RECORD)),
    "mapping": ("structure_names.json", _text({"A": "VS", "B": "ignore"})),
    "tfm": ("t.tfm", _written("t.tfm")),
    "h5": ("t.h5", _written("t.h5")),
    "weights": ("weights.safetensors", _weights),
    # Whole commands.
    "evaluate": ("label.nii.gz", _beside("label.nii.gz", "label_reference.nii.gz")),
    "validate": ("a_ceT1.nrrd", _beside("a_ceT1.nrrd", "label.nii.gz")),
    "predict": ("scan.mha", _written("scan.mha")),
}


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Return a file with one to four kinds of damage; of gzip sometimes what is packed in it."""
    packed = content[:2] == b"\x1f\x8b" and random.random() < 0.7
    data = bytearray(gzip.decompress(content) if packed else content)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(0, max(min(len(data), 400 if random.random() < 0.7 else len(data)), 1)))
        match int(random.integers(0, 9)):
            case 0:
                data[place : place + 1] = bytes([int(random.integers(0, 256))])
            case 1:
                del data[place:]
            case 2:
                data[place:place] = bytes(random.integers(0, 256, int(random.integers(1, 64))).astype(np.uint8))
            case 3:
                data[place : place + 4] = struct.pack("<i", int(random.choice([0, -1, 1, 2**31 - 1, -(2**31), 65536])))
            case 4:
                data[place : place + 4] = struct.pack(
                    "<f", float(random.choice([np.nan, np.inf, -1.0, 0.0, 1e30, 1e-30]))
                )
            case 5:
                data[place : place + 2] = struct.pack("<h", int(random.choice([0, -1, 2, 4, 512, 32767, -32768])))
            case 6:
                lines = data.split(b"\n")
                line = int(random.integers(0, min(len(lines), 30)))
                old = bytes(lines[line])
                lines[line] = [b"", old * 2, old + b"\n" + old, old + b"x" * 1500, old[:3]][int(random.integers(0, 5))]
                data = bytearray(b"\n".join(lines))
            case 7:
                words = data[:2000].split(b" ")
                words[int(random.integers(0, len(words)))] = _NUMBERS[int(random.integers(0, len(_NUMBERS)))]
                data = bytearray(b" ".join(words) + data[2000:])
            case 8:
                del data[place : place + int(random.integers(1, 40))]
    return gzip.compress(bytes(data), 1) if packed else bytes(data)
