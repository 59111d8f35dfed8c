"""ITK's readers of files where several threads work.

ITK asks every format it knows whether a file is its own; one of them is HDF5, whose library is not safe with threads:
a transform that another thread writes then is damaged, or the process ends. So the format is asked under the lock
that also guards the transform files, and the reading itself, which is long, is free.
"""

import threading
from pathlib import Path

import SimpleITK as sitk

#: Whoever lets ITK touch an HDF5 file, or ask whether a file is one, holds it.
HDF5 = threading.Lock()


def reader_of(path: Path | str) -> sitk.ImageFileReader:
    """Return a reader of an image file whose format is known.

    Raises:
        RuntimeError: no format of ITK is the file's.

    """
    with HDF5:
        name = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if not name:
        raise RuntimeError(f"Unable to determine ImageIO reader for {path}")
    reader = sitk.ImageFileReader()
    reader.SetImageIO(name)
    reader.SetFileName(str(path))
    return reader
