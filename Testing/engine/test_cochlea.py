"""The label of the cochlea: size, place, side and agreement with the expert contours."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.cochlea import LABEL_MM3, MODES, cochlea_fraction, cochlea_label, mean_cochlea
from crossmoda.anatomy.ear_frame import patch_grid
from crossmoda.anatomy.sampling import moved, positions
from crossmoda.volume import Grid

FINE = patch_grid((60, 60, 60), 0.25, (37.4, 22.9, -44.9))


def test_the_label_has_its_volume_and_lies_at_the_modiolus() -> None:
    label = cochlea_label(np.eye(4), FINE)
    assert label.sum() * FINE.voxel_volume_mm3 == pytest.approx(LABEL_MM3, rel=0.02)
    assert np.linalg.norm(positions(FINE)[label].mean(axis=0) - template.load().modiolus) < 0.1


def test_the_label_excludes_vestibule_canal_and_fundus() -> None:
    marks = template.load().landmarks
    points = np.array([marks[name] for name in ("vestibule", "lateral_canal", "fundus", "porus", "brainstem_entry")])
    distances = mean_cochlea().distance(points)
    assert distances.min() > 0.5
    far = np.linalg.norm(points - marks["modiolus"], axis=1)
    assert np.all(distances < far)


def test_the_label_moves_with_the_frame_and_mirrors() -> None:
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])  # a right ear
    matrix[:3, :3] = Rotation.from_euler("xyz", [10, -5, 20], degrees=True).as_matrix() @ matrix[:3, :3]
    matrix[:3, 3] = (5, -20, 30)
    center = moved(matrix, template.load().modiolus)
    grid = Grid((40, 40, 30), (0.4, 0.4, 0.6), tuple((center - [8, 8, 9]).tolist()), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    label = cochlea_label(matrix, grid)
    assert label.sum() * grid.voxel_volume_mm3 == pytest.approx(LABEL_MM3, rel=0.04)
    assert np.linalg.norm(positions(grid)[label].mean(axis=0) - center) < 0.15


def test_thick_slices_are_covered_in_part() -> None:
    grid = Grid((60, 60, 6), (0.5, 0.5, 3.0), (22.4, 8.2, -53.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    fraction = cochlea_fraction(np.eye(4), grid)
    assert fraction.sum() * grid.voxel_volume_mm3 == pytest.approx(LABEL_MM3, rel=0.03)
    assert np.mean((fraction > 0) & (fraction < 1)) > 0


def test_a_grid_without_the_cochlea_is_empty() -> None:
    assert not cochlea_label(np.eye(4), patch_grid((10, 10, 10), 1.0, (-37.4, 22.9, -44.9))).any()


def test_size_scales_the_volume_about_the_center() -> None:
    label = cochlea_label(np.eye(4), FINE, size=1.1)
    assert label.sum() * FINE.voxel_volume_mm3 == pytest.approx(1.1**3 * LABEL_MM3, rel=0.03)
    assert np.linalg.norm(positions(FINE)[label].mean(axis=0) - template.load().modiolus) < 0.1


def test_modes_change_the_shape_a_little() -> None:
    mean = cochlea_label(np.eye(4), FINE)
    for number in range(MODES):
        label = cochlea_label(np.eye(4), FINE, weights=(0.0,) * number + (1.5,))
        dice = 2 * (label & mean).sum() / (label.sum() + mean.sum())
        assert 0.75 < dice < 0.99


@pytest.mark.shared_data
def test_expert_contours_agree_with_the_label(shared_data) -> None:
    """The label, at the center of a contour and in the orientation of the scanner, covers it."""
    covered = []
    for subject in ("003", "015", "045", "081", "127"):
        scan = volume.read(shared_data / "vs_seg_contours" / "labels" / f"VS-SEG-{subject}_T2wspace_label.nii.gz")
        points = moved(scan.grid.index_to_physical, np.argwhere(scan.array == 2)[:, ::-1])
        tumor = moved(scan.grid.index_to_physical, np.argwhere(scan.array == 1)[:, ::-1])
        offset = (points - points.mean(axis=0)) * [np.sign(points[:, 0].mean() - tumor[:, 0].mean()), 1, 1]
        covered.append(np.mean(mean_cochlea().distance(offset + template.load().modiolus) < 0.25))
    assert np.median(covered) > 0.85
