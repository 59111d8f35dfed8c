"""The files of an image: what is read when it is read, and what identifies it therefore."""

from pathlib import Path

from crossmoda.volume import dicom, metaimage, nrrd_file


def files_of(path: Path) -> list[Path]:
    """Return all files of an image or label: of a folder, a DICOM series, or a header with detached voxels.

    Raises:
        InputError: a header is damaged, or its voxels are missing.

    """
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file()]
    if dicom.is_dicom(path):
        series = next((series for series in dicom.find_series(path.parent) if path in series.files), None)
        return [path] if series is None else sorted(series.files)
    suffix = path.suffix.lower()
    if suffix in (".mhd", ".mha"):
        return [path, *metaimage.data_files(path)]
    return [path, *nrrd_file.data_files(path)] if suffix in (".nhdr", ".nrrd") else [path]
