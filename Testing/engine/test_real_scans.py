"""Real scans: two sessions of one person, and the doors of a DICOM series."""

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda import volume
from crossmoda.anatomy import ear_frame, template

pytestmark = pytest.mark.shared_data


def test_frames_of_two_sessions_agree(shared_data) -> None:
    """The authors' transforms (Lesjak et al. 2016) bring both sessions to one space."""
    folder = shared_data / "open_ms_native"
    common: dict[str, list[np.ndarray]] = {"left": [], "right": []}
    for session in (1, 2):
        frames = ear_frame.ear_frames(volume.read(folder / f"p01_study{session}_T2W.nii.gz"))
        steps = ("T2W_intrastudy_to_FLAIR", "FLAIR_to_common_space")  # from common points to the scan, last one first
        inverses = [sitk.ReadTransform(str(folder / f"p01_study{session}_{step}.txt")).GetInverse() for step in steps]
        for frame in frames:
            point = frame.to_scan(template.load().modiolus).tolist()
            for inverse in inverses:
                point = inverse.TransformPoint(point)
            common[frame.side].append(np.array(point))
    for side, (first, second) in common.items():
        assert np.linalg.norm(first - second) < 1.0, side


def test_a_dicom_series_and_its_nifti_are_the_same_scan(shared_data) -> None:
    series = volume.read(shared_data / "real_t2" / "fnndsc_dicom")
    file = volume.read(shared_data / "real_t2" / "fnndsc_T2.nii.gz")
    assert series.grid.same_as(file.grid)
    assert np.array_equal(series.array, file.array)
