"""The ear frame on the template itself under known motions, and on real scans."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from crossmoda import cli, volume
from crossmoda.anatomy import ear_frame, landmarks, template
from crossmoda.anatomy.sampling import averaged, bounds, moved
from crossmoda.errors import InputError
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def rotation(pitch_deg: float, roll_deg: float, yaw_deg: float) -> np.ndarray:
    """Return the rotation about the LPS axes x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians([pitch_deg, roll_deg, yaw_deg])):
        turn = np.eye(3)
        first, second = [(1, 2), (2, 0), (0, 1)][axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def head(
    contrast: str = "T2",
    angles_deg: tuple[float, float, float] = (6.0, -3.0, 5.0),
    scale: float = 0.92,
    seed: int = 0,
) -> tuple[Volume, dict[str, np.ndarray]]:
    """Return the template moved by a known similarity transform as a noisy scan, and both cochleae in it."""
    slab = template.load().slab[contrast]
    motion = np.eye(4)
    motion[:3, :3] = scale * rotation(*angles_deg)
    motion[:3, 3] = (12.0, -30.0, 40.0)
    low, high = bounds(slab.grid)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    box = moved(motion, corners)
    spacing = np.array([0.9, 0.9, 2.0])
    size = np.ceil(np.ptp(box, axis=0) / spacing).astype(int)
    grid = Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(box.min(axis=0).tolist()), IDENTITY)
    still = volume.resample(slab, grid, affine_transform(np.linalg.inv(motion))).array
    noise = np.random.default_rng(seed).normal(0, 6, still.shape)
    modiolus = template.load().modiolus
    cochleae = {"left": moved(motion, modiolus), "right": moved(motion, modiolus * [-1, 1, 1])}
    return Volume(np.abs(still**0.9 + noise).astype(np.float32), grid), cochleae


@pytest.fixture(scope="module")
def upright() -> tuple[Volume, dict[str, np.ndarray], ear_frame.EarFrames]:
    """Return a moved template, its cochleae and their frames."""
    scan, cochleae = head()
    return scan, cochleae, ear_frame.ear_frames(scan)


def distance(frame: ear_frame.EarFrame, cochlea: np.ndarray) -> float:
    """Return how far the cochlea of a frame lies from a position, mm."""
    return float(np.linalg.norm(frame.to_scan(template.load().modiolus) - cochlea))


def test_both_cochleae_of_a_moved_template_are_located(upright) -> None:
    _, cochleae, frames = upright
    for frame in frames:
        assert frame.accepted
        assert distance(frame, cochleae[frame.side]) < 0.7
        assert np.linalg.norm(frame.landmarks["modiolus"] - cochleae[frame.side]) < 0.7


def test_a_frame_is_rigid_in_true_mm_and_mirrors_the_right_ear(upright) -> None:
    frames = upright[2]
    for frame, determinant in ((frames.left, 1.0), (frames.right, -1.0)):
        linear = frame.matrix[:3, :3]
        np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(linear) == pytest.approx(determinant)


def test_the_rotation_of_the_head_is_recovered(upright) -> None:
    expected = rotation(6.0, -3.0, 5.0)
    mirror = np.diag([-1.0, 1.0, 1.0])
    for frame, reflection in ((upright[2].left, np.eye(3)), (upright[2].right, mirror)):
        turn = expected.T @ frame.matrix[:3, :3] @ reflection
        assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 2.5


def test_left_and_right_ear_look_alike_in_their_frames(upright) -> None:
    scan, _, frames = upright
    left, right = (frame.sample(scan).array for frame in frames)
    assert left.shape == (64, 80, 80)
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.9


def test_a_label_goes_to_the_scan_and_back(upright) -> None:
    scan, _, frames = upright
    grid = ear_frame.patch_grid()
    index = np.round(moved(grid.physical_to_index, template.load().modiolus)).astype(int)[::-1]
    ball = np.linalg.norm(np.stack(np.indices(grid.shape)) - index[:, None, None, None], axis=0) * 0.7 < 4
    for frame in frames:
        label = frame.restore(Volume(ball.astype(np.uint8), grid), scan.grid, "label")
        assert label.grid == scan.grid
        center = moved(scan.grid.index_to_physical, np.argwhere(label.array)[:, ::-1].mean(axis=0))
        assert np.linalg.norm(center - frame.to_scan(grid.index_to_physical[:3, :3] @ index[::-1] + grid.origin)) < 0.5
        np.testing.assert_allclose(frame.to_canonical(frame.to_scan(center)), center, atol=1e-6)


@pytest.mark.parametrize("contrast", template.CONTRASTS)
def test_the_contrast_of_the_scan_is_recognized(contrast: str) -> None:
    assert ear_frame.ear_frames(head(contrast)[0]).contrast == contrast


def test_a_head_tilted_by_35_degrees_is_located() -> None:
    scan, cochleae = head(angles_deg=(-35.0, 4.0, 0.0))
    frames = ear_frame.ear_frames(scan)
    assert max(distance(frame, cochleae[frame.side]) for frame in frames) < 1.0
    assert len(frames.accepted) == 2


def test_an_ear_outside_the_scan_is_refused_and_the_second_accepted(upright) -> None:
    scan, cochleae, _ = upright
    half = scan.array[:, :, scan.array.shape[2] // 2 - 5 :]
    origin = moved(scan.grid.index_to_physical, np.array([scan.array.shape[2] // 2 - 5, 0, 0]))
    grid = Grid(half.shape[::-1], scan.grid.spacing, tuple(origin.tolist()), scan.grid.direction)
    frames = ear_frame.ear_frames(Volume(np.ascontiguousarray(half), grid))
    assert frames.left.accepted and distance(frames.left, cochleae["left"]) < 1.0
    assert frames.right.reason.startswith("Right ear outside the scan")


def test_an_upside_down_header_is_refused(upright) -> None:
    scan = upright[0]
    direction = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
    flipped = Volume(scan.array, Grid(scan.grid.size, scan.grid.spacing, scan.grid.origin, direction))
    frames = ear_frame.ear_frames(flipped)
    assert not frames.accepted
    assert all(note.endswith(".") for note in frames.notes)


@pytest.mark.parametrize("content", ["constant", "air"])
def test_a_scan_without_a_head_is_refused(content: str) -> None:
    noise = np.random.default_rng(0).rayleigh(5, (40, 120, 120)).astype(np.float32)
    array = noise if content == "air" else np.zeros_like(noise)
    grid = Grid((120, 120, 40), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), IDENTITY)
    frames = ear_frame.ear_frames(Volume(array, grid))
    assert not frames.accepted
    assert "No skull base in the scan" in frames.notes[0]


def test_block_averages_keep_the_position_of_the_content() -> None:
    x = np.indices((12, 31, 33), dtype=np.float32)[2]
    grid = Grid((33, 31, 12), (0.4, 0.5, 2.0), (3.0, 4.0, 5.0), IDENTITY)
    coarse = averaged(Volume(x * 0.4 + 3.0, grid), 2.0)
    place = coarse.grid.origin[0] + coarse.grid.spacing[0] * np.arange(coarse.grid.size[0])
    np.testing.assert_allclose(coarse.array[0, 0], place, atol=1e-5)
    assert coarse.grid.spacing == pytest.approx((2.0, 2.0, 2.0))


def test_the_template_is_symmetric_and_its_landmarks_lie_in_it() -> None:
    bundled = template.load()
    for image in (*bundled.slab.values(), *bundled.ears.values()):
        np.testing.assert_array_equal(image.array, image.array[:, :, ::-1])
    low, high = bounds(bundled.ears["T2"].grid)
    for position in bundled.landmarks.values():
        assert np.all(position > low) and np.all(position < high)
    canal = bundled.landmarks["fundus"] - bundled.landmarks["porus"]
    assert 8 < np.linalg.norm(canal) < 14  # length of the canal in adults, mm


def run(*arguments: object) -> None:
    """Run the command ``crossmoda``; a failed one raises SystemExit with its code."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    if ended.value.code:
        raise ended.value


def test_locate_writes_markups_and_prints_the_same_landmarks_as_json(upright, tmp_path, capsys) -> None:
    scan, cochleae, _ = upright
    volume.write(scan, tmp_path / "scan.nii.gz")
    run("--quiet", "locate", tmp_path / "scan.nii.gz", "--output", tmp_path / "ears.mrk.json", "--json")
    printed = json.loads(capsys.readouterr().out)
    markups = json.loads((tmp_path / "ears.mrk.json").read_text())["markups"]
    for ear, points in zip(printed["ears"], markups, strict=True):
        assert (ear["accepted"], points["coordinateSystem"]) == (True, "LPS")
        positions = {point["label"]: point["position"] for point in points["controlPoints"]}
        assert len(positions) == len(template.NAMES)
        assert positions[f"{ear['side']} modiolus"] == ear["landmarks_lps_mm"]["modiolus"]
        assert np.linalg.norm(positions[f"{ear['side']} modiolus"] - cochleae[ear["side"]]) < 0.7


def test_locate_ends_with_one_sentence_where_there_is_no_head(tmp_path, capsys) -> None:
    noise = np.random.default_rng(0).rayleigh(5, (30, 90, 90)).astype(np.float32)
    volume.write(Volume(noise, Grid((90, 90, 30), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), IDENTITY)), tmp_path / "air.nii.gz")
    with pytest.raises(SystemExit) as ended:
        run("--quiet", "locate", tmp_path / "air.nii.gz")
    assert ended.value.code == 2
    assert "No skull base in the scan" in capsys.readouterr().err


def test_markups_need_their_file_name_ending(upright, tmp_path) -> None:
    with pytest.raises(InputError, match=r"\.mrk\.json"):
        landmarks.write_markups(upright[2], tmp_path / "ears.json")


def test_a_template_folder_without_a_landmark_is_refused(tmp_path) -> None:
    shutil.copytree(template.FOLDER, tmp_path / "template")
    table = tmp_path / "template" / template.LANDMARKS
    table.write_text("".join(line for line in table.open() if not line.startswith("porus")))
    with pytest.raises(InputError, match="porus"):
        template.load(tmp_path / "template")


def real_heads(shared_data: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the listed centers of the cochleae, LPS mm, by image and side."""
    heads: dict[str, dict[str, np.ndarray]] = {}
    with (shared_data / "real_t2" / "cochlear_centers.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            center = np.array([float(row[f"{axis}_lps_mm"]) for axis in "xyz"])
            heads.setdefault(row["image"], {})[row["side"]] = center
    return heads


@pytest.mark.shared_data
def test_all_ears_of_real_heads_are_within_2_mm(shared_data: Path) -> None:
    for image, centers in real_heads(shared_data).items():
        frames = ear_frame.ear_frames(volume.read(shared_data / image))
        assert frames.contrast == "T2", image
        for frame in frames:
            assert frame.accepted, (image, frame.reason)
            assert distance(frame, centers[frame.side]) < 2.0, (image, frame.side)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["t2.nii.gz", "t1w.nii.gz"])
def test_a_real_neck_is_refused(shared_data: Path, name: str) -> None:
    frames = ear_frame.ear_frames(volume.read(shared_data / "sct_cord" / name))
    assert not frames.accepted


@pytest.mark.shared_data
def test_a_real_t1_and_t2_of_one_session_agree(shared_data: Path) -> None:
    one, two = (
        ear_frame.ear_frames(volume.read(shared_data / "real_t2" / f"fnndsc_{name}.nii.gz")) for name in ("T1", "T2")
    )
    assert (one.contrast, two.contrast) == ("T1", "T2")
    for frame, matching in zip(one, two, strict=True):
        assert np.linalg.norm(frame.landmarks["modiolus"] - matching.landmarks["modiolus"]) < 2.0
