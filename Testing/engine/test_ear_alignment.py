"""Two scans aligned by their ear frames, whose positions are known here."""

import dataclasses

import numpy as np
import pytest

from crossmoda import labels
from crossmoda.anatomy import ear_frame, laterality
from crossmoda.anatomy.ear_alignment import alignment, confirmed, ears_box, labeled_ear_frames, mirrored
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames
from crossmoda.anatomy.sampling import moved
from crossmoda.anatomy.template import load
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import matrix_of
from phantoms import AXIAL, ball

GRID = Grid((120, 100, 60), (1.5, 1.5, 2.0), (-90.0, -60.0, -100.0), AXIAL)
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def pose(degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[:2, :2], matrix[:3, 3] = [[cosine, -sine], [sine, cosine]], shift
    return matrix


def frames(matrix: np.ndarray, refused: tuple[str, ...] = ()) -> EarFrames:
    """The frames of a template head in a pose."""
    ears = []
    for side, mirror in (("left", np.eye(4)), ("right", MIRROR)):
        landmarks = {name: moved(matrix @ mirror, point) for name, point in load().landmarks.items()}
        reason = "not recognized" if side in refused else ""
        ears.append(EarFrame(side, matrix @ mirror, landmarks, 0.4 if reason else 0.9, 1.0, 0.5, reason))
    return EarFrames(*ears, contrast="T2", base_similarity=0.8)


@pytest.mark.parametrize("refused", [(), ("left",), ("right",)])
def test_the_alignment_is_the_pose_between_both_heads_with_two_ears_and_with_one(refused):
    fixed, moving = pose(12, (5, -8, 3)), pose(-7, (20, 30, -40))
    found = alignment(frames(fixed, refused), frames(moving))
    np.testing.assert_allclose(found, moving @ np.linalg.inv(fixed), atol=1e-9)


def test_without_a_common_ear_there_is_no_alignment():
    assert alignment(frames(np.eye(4), ("left",)), frames(np.eye(4), ("right",))) is None


def test_a_wider_head_is_stretched_from_side_to_side():
    wide = frames(np.eye(4))
    moved_out = dataclasses.replace(wide.left, matrix=pose(0, (4, 0, 0)))
    found = alignment(wide, dataclasses.replace(wide, left=moved_out))
    np.testing.assert_allclose(moved(found, load().modiolus), load().modiolus + np.array([4, 0, 0]), atol=0.5)


def test_the_frames_of_a_mirror_image_change_sides_and_stay_on_their_ears():
    original = frames(pose(10, (3, 0, 0)))
    result, reflection = mirrored(original, GRID), matrix_of(laterality.reflection(GRID))
    assert (result.left.side, result.right.side) == ("left", "right")
    expected = moved(reflection, original.right.landmarks["modiolus"])
    np.testing.assert_allclose(result.left.to_scan(load().modiolus), expected, atol=1e-6)
    assert np.linalg.det(result.left.matrix) > 0 > np.linalg.det(result.right.matrix)


@pytest.mark.parametrize(("off_mm", "accepted"), [(2.0, True), (10.0, False)])
def test_a_refused_frame_is_accepted_where_the_cochlea_is_labeled(off_mm, accepted):
    refused = frames(np.eye(4), ("left", "right"))
    center = refused.left.landmarks["modiolus"] + [off_mm, 0, 0] - np.asarray(GRID.origin)
    label_map = Volume(ball(GRID, tuple(center[::-1]), 3.0).astype(np.uint8) * np.uint8(labels.COCHLEA), GRID)
    result = confirmed(refused, label_map)
    assert (result.left.accepted, result.right.accepted) == (accepted, False)


def test_no_further_pitch_is_tried_where_the_labels_confirm_a_frame(monkeypatch):
    refused = frames(np.eye(4), ("left", "right"))
    monkeypatch.setattr(ear_frame.skull_base, "locate", lambda *_: None)
    monkeypatch.setattr(ear_frame.skull_base, "locate_thoroughly", lambda *_: pytest.fail("tried every pitch"))
    monkeypatch.setattr(ear_frame, "_frames", lambda *_: refused)
    center = refused.left.landmarks["modiolus"] - np.asarray(GRID.origin)
    label_map = Volume(ball(GRID, tuple(center[::-1]), 3.0).astype(np.uint8) * np.uint8(labels.COCHLEA), GRID)
    result = labeled_ear_frames(Volume(np.zeros(GRID.shape, np.float32), GRID), label_map)
    assert result.left.accepted


def test_the_box_holds_both_ears_even_if_one_is_refused():
    whole = frames(pose(5, (0, 0, 0)))
    box = ears_box(frames(pose(5, (0, 0, 0)), ("left",)), GRID)
    for frame in whole:
        index = GRID.to_index(frame.landmarks["modiolus"])[::-1]
        assert all(side.start + 4 < place < side.stop - 4 for side, place in zip(box, index, strict=True))


def test_frames_survive_their_file():
    original = frames(pose(5, (1, 2, 3)), ("right",))
    again = EarFrames.from_json(original.to_json())
    np.testing.assert_array_equal(again.left.matrix, original.left.matrix)
    assert again.right.reason == "not recognized" and again.contrast == "T2"
