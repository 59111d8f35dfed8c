"""MetaImage files: read by ITK once their header is checked, since an impossible header ends the whole process."""

import math
from pathlib import Path

import SimpleITK as sitk

from crossmoda.errors import cannot_read, reason_of
from crossmoda.volume import compression
from crossmoda.volume.grid import Grid, Volume

#: ITK's name of the format: asking ITK for it would open HDF5 files, which is not safe with threads.
FORMAT = "MetaImageIO"
#: Bytes at the beginning of a file in which its header ends.
_HEADER = 1 << 16
#: Capacity of ITK's reader.
_MOST_DIMENSIONS, _LONGEST_LINE = 10, 4096
_EXPORT = "Copy or download the file again, or export it once more"
#: Lists of one number per dimension (1), or of one per pair of dimensions (2).
_LISTS = dict.fromkeys((b"DimSize", b"ElementSpacing", b"ElementSize", b"Offset", b"Position", b"Origin"), 1)
_LISTS |= dict.fromkeys((b"TransformMatrix", b"Orientation", b"Rotation"), 2)
#: Bytes of the most frequent types; the others have 8 at most.
_BYTES = {b"MET_CHAR": 1, b"MET_UCHAR": 1, b"MET_SHORT": 2, b"MET_USHORT": 2, b"MET_INT": 4, b"MET_FLOAT": 4}


def read(path: Path) -> Volume:
    """Read a MetaImage file of any voxel type; several components per voxel are the last axis of the array.

    Raises:
        InputError: the header is damaged or the file is truncated.

    """
    data_files(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(FORMAT)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if reader.GetDimension() != 3:
            size = " x ".join(map(str, reader.GetSize()))
            reason = f"not a 3D image but {reader.GetDimension()} dimensions ({size})"
            raise cannot_read(path, reason, "Select one 3D scan")
        image = reader.Execute()
    except RuntimeError as cause:
        reason = f"truncated or damaged ({reason_of(cause)})"
        for text, known in (("pacing", "voxel spacing of 0"), ("determinant", "axis directions do not span space")):
            if text in str(cause):
                reason = known
        if reason == "voxel spacing of 0":
            raise cannot_read(path, reason, "Correct its header: every spacing must be positive") from cause
        raise cannot_read(path, reason, compression.COPY_AGAIN) from cause
    if "complex" in image.GetPixelIDTypeAsString():
        raise cannot_read(path, "complex numbers", "Select a gray-value image, such as their magnitude")
    return Volume(sitk.GetArrayFromImage(image), Grid.of(image))


def data_files(path: Path) -> list[Path]:
    """Return the files that hold the voxels of a header of its own (.mhd); none where the header comes with them.

    Lists must have as many numbers as there are dimensions, sizes must be positive, and the image must fit the memory.

    Raises:
        InputError: ITK cannot parse the header, or a file is missing.

    """
    with path.open("rb") as stream:
        text = stream.read(_HEADER)
    dimensions, count, size, is_packed = 0, 0, 8, False
    length = 0
    for line in text.splitlines(keepends=True):
        length += len(line)
        key, _, value = line.replace(b":", b"=", 1).partition(b"=")
        name, words = key.strip(), value.split()
        if len(line) > _LONGEST_LINE:
            break
        if name == b"NDims":
            dimensions = _whole_number(words)
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                break
        elif name in _LISTS and len(words) != dimensions ** _LISTS[name]:
            break
        elif name == b"DimSize":
            if not all(_whole_number([word]) for word in words):
                break
            count = math.prod(_whole_number([word]) for word in words)
        elif name == b"ElementNumberOfChannels" and not 1 <= _whole_number(words) <= 16:
            break
        elif name == b"ElementType":
            size = _BYTES.get(value.strip(), 8)
        elif name == b"CompressedData":
            is_packed = value.strip().lower() == b"true"
        elif name == b"ElementDataFile":
            if not count or not words:
                break
            if count * size > compression.MOST_BYTES:
                reason = f"its {count} voxels need more than {compression.MOST_BYTES / 1024**3:.0f} GB"
                raise cannot_read(path, reason, "Crop or resample it")
            return _data_files(path, value.strip(), count * size if not is_packed else 0, length)
    raise cannot_read(path, "damaged MetaImage header", _EXPORT)


def _data_files(path: Path, name: bytes, size: int, header: int) -> list[Path]:
    """Return the files of an ElementDataFile; the voxels of ``size`` bytes must be in it."""
    if name.upper() == b"LOCAL":
        if path.stat().st_size - header < size:
            raise cannot_read(path, "truncated", compression.COPY_AGAIN)
        return []
    if name.split()[:1] == [b"LIST"] or b"%" in name:
        raise cannot_read(path, "voxels spread over several files", "Export it as one file")
    file = path.parent / name.decode(errors="surrogateescape")
    if not file.is_file():
        raise cannot_read(path, f"its voxels are missing: {file.name}", "Copy both files into one folder")
    if file.stat().st_size < size:
        raise cannot_read(path, f"truncated: {file.name} is shorter than the image", compression.COPY_AGAIN)
    return [file]


def _whole_number(words: list[bytes]) -> int:
    """Return the number of a list of one word, or 0."""
    return int(words[0]) if len(words) == 1 and words[0].isdigit() and len(words[0]) < 10 else 0
