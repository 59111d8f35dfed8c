"""A DICOM series for tests."""

from pathlib import Path

import SimpleITK as sitk


def write_dicom_series(folder: Path, volume: sitk.Image, description: str) -> None:
    """Write a volume as an MR series; the instance of slice n is 1.2.3.3.<n + 1>."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = volume.GetDirection()
    common = {
        "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
        "0008|0060": "MR",
        "0008|103e": description,
        "0010|0020": "patient-1",
        "0020|000d": "1.2.3.1",
        "0020|000e": "1.2.3.2",
        "0020|0052": "1.2.3.4",
        "0018|0050": str(volume.GetSpacing()[2]),
        "0020|0037": "\\".join(str(direction[i]) for i in (0, 3, 6, 1, 4, 7)),
    }
    for index in range(volume.GetSize()[2]):
        image = volume[:, :, index]
        position = volume.TransformIndexToPhysicalPoint((0, 0, index))
        own = {
            "0008|0018": f"1.2.3.3.{index + 1}",
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(str(value) for value in position),
        }
        for key, value in {**common, **own}.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{index:03d}.dcm"))
        writer.Execute(image)
