"""Measures of shapes that are known from geometry, on grids of any orientation; parts, sides, grades, the command."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crossmoda import volume
from crossmoda.anatomy import markups, template
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames
from crossmoda.errors import InputError
from crossmoda.measurement import CASE_COLUMNS, COLUMNS, case_row, koos, measure, table
from crossmoda.measurement.axial import HalfSpace, axial_diameters, slice_number
from crossmoda.measurement.interval import VolumeInterval, uncertain_volume
from crossmoda.measurement.meatus import MeatalParts, porus_plane, split_by_plane
from crossmoda.volume.grid import Grid, Volume

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((40, 30, 20), (0.5, 0.5, 1.5), (3.0, -7.0, 11.0), STRAIGHT)


def label_map(**boxes) -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    for name, box in boxes.items():
        array[box] = {"vs": 1, "cochlea": 2}[name]
    return Volume(array, GRID)


def centered_grid(size, spacing, direction) -> Grid:
    """Return a grid around the origin of LPS space."""
    axes = np.reshape(direction, (3, 3))
    origin = -axes @ ((np.array(size) - 1) / 2 * spacing)
    return Grid(size, spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))


def mask_where(grid: Grid, inside) -> Volume:
    """Return the voxels of which at least half of 3 x 3 x 3 sample points are inside."""
    fine = grid.refined((3, 3, 3))
    x, y, z = (np.arange(count) for count in fine.size)
    points = fine.to_lps(np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).transpose(2, 1, 0, 3))
    share = inside(points).reshape(grid.size[2], 3, grid.size[1], 3, grid.size[0], 3).mean(axis=(1, 3, 5))
    return Volume(share >= 0.5, grid)


CORONAL = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
OBLIQUE = Rotation.from_euler("xyz", [25, -15, 35], degrees=True).as_matrix()


@pytest.mark.parametrize("direction", [np.eye(3), CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
@pytest.mark.parametrize("turn", [(0, 0, 0), (20, 35, 50)])
def test_an_ellipsoid_has_its_axial_section_on_every_grid(direction, turn):
    # x' A x = 1; its section with an axial plane through the center is the ellipse of the block A[:2, :2].
    axes_mm = np.array([9.0, 5.5, 7.0])
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    form = rotation @ np.diag(axes_mm**-2) @ rotation.T
    grid = centered_grid((44, 44, 22), (0.5, 0.5, 1.0), direction)
    mask = mask_where(grid, lambda points: ((points @ form) * points).sum(axis=-1) <= 1)
    (tumor,) = measure(mask.with_array(mask.array.astype(np.uint8))).tumors
    section = np.linalg.eigvalsh(form[:2, :2])
    assert tumor.axial.largest.length_mm == pytest.approx(2 / math.sqrt(section[0]), abs=0.6)
    assert tumor.axial.perpendicular.length_mm == pytest.approx(2 / math.sqrt(section[1]), abs=1.05)  # a slice
    assert tumor.craniocaudal_mm == pytest.approx(2 * math.sqrt(np.linalg.inv(form)[2, 2]), abs=1.0)
    assert tumor.diameter_3d.length_mm == pytest.approx(2 * axes_mm.max(), abs=0.8)
    assert tumor.volume_mm3 == pytest.approx(4 / 3 * math.pi * axes_mm.prod(), rel=0.015)
    line = tumor.axial.largest
    assert line.start[2] == pytest.approx(line.stop[2], abs=1e-6)  # it lies in an axial plane
    across = tumor.axial.perpendicular
    assert (across.stop - across.start) @ (line.stop - line.start) == pytest.approx(0, abs=1e-6)


def test_a_row_of_voxels_is_as_long_as_its_voxels():
    (tumor,) = measure(label_map(vs=np.s_[5:6, 10:11, 4:24])).tumors
    assert tumor.volume_mm3 == pytest.approx(20 * 0.5 * 0.5 * 1.5)
    assert tumor.axial.largest.length_mm == pytest.approx(20 * 0.5)
    assert tumor.axial.perpendicular.length_mm == pytest.approx(0.5)
    assert tumor.craniocaudal_mm == pytest.approx(1.5)
    assert slice_number(GRID, tumor.axial.largest) == 6


def test_a_diameter_does_not_span_two_pieces_and_the_pieces_are_noted():
    measures = measure(label_map(vs=np.s_[5, [2, 2, 2, 2, 20, 20], [2, 3, 4, 5, 2, 3]]))
    assert measures.tumors[0].axial.largest.length_mm == pytest.approx(4 * 0.5)
    assert any("2 separate pieces" in note for note in measures.notes)


@pytest.mark.parametrize("cochlea", [True, False])
def test_measures_do_not_depend_on_the_part_of_the_grid_that_is_given(cochlea):
    grid = Grid((160, 30, 20), (0.5, 0.5, 0.5), (-55.0, 0.0, 0.0), STRAIGHT)
    array, probability = np.zeros(grid.shape, np.uint8), np.random.default_rng(0).random(grid.shape)
    array[8:12, 8:16, 120:140] = 1
    if cochlea:  # without one, the side follows from the middle of the whole grid
        array[8:12, 8:12, 146:150] = 2
    region = (slice(2, 18), slice(1, 23), slice(113, 157))
    card = {"volume_interval": {"factor": 1.0, "nominal": 0.9, "scans": 9}}
    whole = measure(Volume(array, grid), probability=probability, card=card)
    part = measure(Volume(array, grid), probability=probability[region], card=card, region=region)
    rows = [table(measures, grid)[0] for measures in (whole, part)]
    assert [cell if isinstance(cell, str) else pytest.approx(cell) for cell in rows[0]] == rows[1]
    assert part.tumors[0].side == "left"


def test_an_empty_label_map_has_no_tumor_and_no_lengths():
    measures = measure(label_map())
    assert measures.sentences == ("No tumor.",)
    (row,) = table(measures, GRID)
    assert row[0] == "no tumor" and row[COLUMNS.index("axial diameter [mm]")] is None


def test_the_gap_to_each_cochlea_is_between_the_surfaces():
    grid = Grid((160, 10, 10), (0.5, 0.5, 0.5), (-40.0, 0.0, 0.0), STRAIGHT)
    array = np.zeros(grid.shape, np.uint8)
    array[5, 5, 10:14] = array[5, 5, 140:144] = 2
    array[5, 5, 120:136] = 1
    measures = measure(Volume(array, grid))
    assert [(tumor.side, tumor.gaps_mm) for tumor in measures.tumors] == [
        ("left", pytest.approx({"left": 2.0, "right": 53.0}))
    ]
    assert [(cochlea.side, cochlea.diameter_3d.length_mm) for cochlea in measures.cochleae] == [
        ("left", pytest.approx(2.0)),
        ("right", pytest.approx(2.0)),
    ]


def test_tumors_of_both_ears_have_a_row_each():
    grid = Grid((160, 10, 10), (0.5, 0.5, 0.5), (-40.0, 0.0, 0.0), STRAIGHT)
    array = np.zeros(grid.shape, np.uint8)
    array[5, 5, 10:14] = array[5, 5, 140:144] = 2
    array[4:7, 4:7, 20:40], array[4:7, 4:7, 120:130] = 1, 1
    measures = measure(Volume(array, grid))
    assert [tumor.side for tumor in measures.tumors] == ["left", "right"]
    assert [tumor.volume_mm3 for tumor in measures.tumors] == pytest.approx([90 / 8, 180 / 8])
    assert len(measures.sentences) == 2


def test_a_half_space_cuts_a_ball_where_geometry_says():
    grid = centered_grid((36, 36, 36), (0.5, 0.5, 0.5), OBLIQUE)
    radius, height = 8.0, 3.0  # a cap of height 3
    mask = mask_where(grid, lambda points: np.linalg.norm(points, axis=-1) <= radius)
    plane = HalfSpace(np.array([radius - height, 0, 0]), np.array([1.0, 0, 0]))
    parts = split_by_plane(mask, plane)
    assert parts.extrameatal_mm3 == pytest.approx(math.pi * height**2 / 3 * (3 * radius - height), rel=0.02)
    assert parts.intrameatal_mm3 + parts.extrameatal_mm3 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.01)
    chord = 2 * math.sqrt(radius**2 - (radius - height) ** 2)
    assert parts.extrameatal is not None
    assert parts.extrameatal.largest.length_mm == pytest.approx(chord, abs=0.4)
    assert axial_diameters(mask, HalfSpace(np.array([20.0, 0, 0]), np.array([1.0, 0, 0]))) is None


def frame_at(side: str) -> EarFrame:
    """Return the frame of an ear of the template itself."""
    mirror = np.diag([1.0 if side == "left" else -1.0, 1, 1, 1])
    marks = {name: point * mirror.diagonal()[:3] for name, point in template.load().landmarks.items()}
    return EarFrame(side, mirror, marks, 1.0, 1.0, 0.0)


FRAMES = EarFrames(frame_at("left"), frame_at("right"), "T2", 1.0)


def tumor_to(medial_mm: float, side: str = "left") -> Volume:
    """Return a rod from the fundus along the canal's axis to a distance beyond the porus, in the template."""
    marks = template.load().landmarks
    mirror = np.array([1.0 if side == "left" else -1.0, 1, 1])
    porus, fundus = marks["porus"] * mirror, marks["fundus"] * mirror
    along = (porus - fundus) / np.linalg.norm(porus - fundus)
    length = np.linalg.norm(porus - fundus) + medial_mm
    grid = Grid((60, 30, 24), (0.5, 0.5, 0.5), (13.0 if side == "left" else -43.0, 19.0, -48.0), STRAIGHT)

    def inside(points):
        offset = points - fundus
        position = offset @ along
        away = np.linalg.norm(offset - position[..., None] * along, axis=-1)
        return (away <= 2) & (position >= 0) & (position <= length)

    mask = mask_where(grid, inside)
    return mask.with_array(mask.array.astype(np.uint8))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tumor_in_the_canal_is_intrameatal(side):
    (tumor,) = measure(tumor_to(-2.5, side), FRAMES).tumors
    assert (tumor.side, tumor.extrameatal_mm) == (side, 0.0)
    assert tumor.parts is not None and tumor.parts.size == "intrameatal"
    assert tumor.koos is not None and tumor.koos.grade == "I" and "leave" not in tumor.koos.reason
    assert "intrameatal" in tumor.sentence and "suggested" in str(tumor.koos)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_extrameatal_diameter_begins_at_the_porus(side):
    (tumor,) = measure(tumor_to(6.0, side), FRAMES).tumors
    assert tumor.extrameatal_mm == pytest.approx(math.hypot(6, 4), abs=0.6)  # the diagonal of the rod
    assert tumor.parts is not None and tumor.parts.extrameatal_mm3 == pytest.approx(math.pi * 4 * 6, rel=0.08)
    assert tumor.koos is not None and tumor.koos.grade == "II"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_moved_plane_of_the_porus_divides_the_tumor_whatever_its_normal(sign):
    plane = porus_plane(frame_at("left"))
    moved = HalfSpace(plane.point + 4 * plane.normal, sign * plane.normal)
    measures = measure(tumor_to(6.0), FRAMES, planes={"left": moved, "right": moved})
    (tumor,) = measures.tumors
    assert tumor.parts is not None and tumor.parts.extrameatal_mm3 == pytest.approx(math.pi * 4 * 2, rel=0.2)
    assert measures.notes == ("Plane of the porus not used: no tumor on the right side.",)


def test_a_plane_saved_in_slicer_divides_the_tumor_of_its_side(tmp_path, run):
    label, planes = tmp_path / "label.nii.gz", tmp_path / "planes.mrk.json"
    volume.write(label_map(vs=np.s_[5:9, 5:15, 5:15]), label)
    _, before, _ = run("measure", label, "--json")
    (tumor,) = json.loads(before)["tumors"]
    assert tumor["meatus"] is None
    middle = np.mean([tumor["diameter_3d"][end] for end in ("start_mm", "stop_mm")], axis=0)
    ras = np.array([-1, -1, 1])
    shape = markups.plane(f"T2 {tumor['side']} porus", middle * ras, np.array([1.0, 0, 0]), 20)
    markups.write([{**shape, "coordinateSystem": "RAS"}], planes)
    code, out, err = run("measure", label, "--planes", planes, "--json")
    assert code == 0, err
    meatus = json.loads(out)["tumors"][0]["meatus"]
    assert meatus["porus_plane"]["point_mm"] == pytest.approx(middle, abs=0.01)
    assert meatus["porus_plane"]["normal"] == [-1, 0, 0], "right of RAS is left of LPS"
    assert meatus["extrameatal_mm3"] == pytest.approx(tumor["volume_mm3"] / 2)


def test_planes_without_a_side_are_refused(tmp_path, run):
    label, planes = tmp_path / "label.nii.gz", tmp_path / "planes.mrk.json"
    volume.write(label_map(vs=np.s_[5:9, 5:15, 5:15]), label)
    for name, reason in (("P", "unclear side"), ("left right", "unclear side"), (None, "No plane")):
        shapes = [markups.plane(name, np.zeros(3), np.array([1.0, 0, 0]), 20)] if name else []
        markups.write(shapes, planes)
        code, out, err = run("measure", label, "--planes", planes)
        assert (code, out) == (2, "") and reason in err and err.count("\n") == 1


def test_a_tumor_that_ends_within_the_error_of_the_porus_states_both_sizes():
    (tumor,) = measure(tumor_to(1.0), FRAMES).tumors
    assert tumor.parts is not None and tumor.parts.is_intrameatal
    assert tumor.parts.limits_mm == (0.0, pytest.approx(math.hypot(3, 4), abs=0.6))
    assert "intrameatal or up to " in tumor.sentence
    assert tumor.koos is not None and "or II" in tumor.koos.reason


@pytest.mark.parametrize("reach_mm", [1.6, 1.9, 2.1, 2.4, 5.0])
def test_the_limits_hold_the_diameter_wherever_the_plane_lies_within_its_error(reach_mm):
    mask = tumor_to(reach_mm)
    mask = mask.with_array(mask.array > 0)
    plane = porus_plane(FRAMES.left)
    limits = split_by_plane(mask, plane).limits_mm
    for shift_mm in (-2.0, -1.0, 0.0, 1.0, 2.0):
        exact = split_by_plane(mask, plane.moved(shift_mm), error_mm=0.0)
        assert limits[0] - 1e-6 <= exact.limits_mm[0] <= limits[1] + 1e-6


def test_limits_and_volumes_do_not_jump_where_a_round_tumor_becomes_extrameatal():
    grid = centered_grid((40, 40, 40), (0.5, 0.5, 0.5), OBLIQUE)
    ball = mask_where(grid, lambda points: np.linalg.norm(points, axis=-1) <= 4)
    planes = [HalfSpace(np.array([x, 0, 0]), np.array([1.0, 0, 0])) for x in np.arange(1.0, 3.0, 0.1)]
    parts = [split_by_plane(ball, plane) for plane in planes]
    assert {each.is_intrameatal for each in parts} == {False, True}
    for before, after in itertools.pairwise(parts):
        assert before.extrameatal_mm3 - after.extrameatal_mm3 == pytest.approx(0, abs=6)
        assert before.limits_mm[1] - after.limits_mm[1] == pytest.approx(0, abs=0.3)
        # A cap of height h is 2 sqrt(h (2 r - h)) wide: 0 to 1.8 mm in the first 0.1 mm.
        assert before.limits_mm[0] - after.limits_mm[0] == pytest.approx(0, abs=2.2)


@pytest.mark.parametrize(("gap_mm", "size_mm", "grade"), [(8, 9, "II"), (0, 20, "III"), (-9, 26, "IV"), (-1, 33, "IV")])
def test_the_suggested_grade_follows_size_and_gap(gap_mm, size_mm, grade):
    (tumor,) = measure(label_map(vs=np.s_[5:6, 10:11, 4:24])).tumors
    line = dataclasses.replace(tumor.axial.largest, stop=tumor.axial.largest.start + np.array([size_mm, 0, 0]))
    parts = MeatalParts(1.0, 2.0, dataclasses.replace(tumor.axial, largest=line), None, (size_mm, size_mm))
    suggestion = koos.suggest(parts, gap_mm)
    assert suggestion.grade == grade and "suggested" in str(suggestion)


def test_labeled_parts_decide_and_no_scan_is_needed(tmp_path, run):
    array = np.zeros(GRID.shape, np.uint8)
    array[8:11, 10:16, 4:12], array[8:11, 10:16, 12:24], array[8:10, 10:14, 34:37] = 1, 2, 3
    path = tmp_path / "crossmoda2023_etz_1_Label.nii.gz"
    volume.write(Volume(array, GRID), path)
    code, out, _ = run("measure", path, "--json")
    (tumor,) = json.loads(out)["tumors"]
    assert code == 0
    assert tumor["meatus"]["intrameatal_mm3"] == pytest.approx(3 * 6 * 8 * 0.375)
    assert tumor["meatus"]["extrameatal_mm3"] == pytest.approx(3 * 6 * 12 * 0.375)
    assert tumor["meatus"]["extrameatal_diameter"]["length_mm"] == pytest.approx(math.hypot(6, 3), abs=0.4)
    assert tumor["koos_suggested"] is None


def test_the_interval_covers_the_nominal_share_of_such_scans():
    rng = np.random.default_rng(0)
    uncertain = rng.uniform(0.02, 0.2, 400)
    true = rng.uniform(100, 5000, 400)
    measured = true * np.exp(rng.normal(0, 1, 400) * 0.8 * (uncertain + 0.02))
    model = VolumeInterval.calibrated(uncertain[:200], measured[:200], true[:200], 0.9)
    limits = [model.around(volume_mm3, u) for volume_mm3, u in zip(measured[200:], uncertain[200:], strict=True)]
    covered = [low <= volume_mm3 <= high for (low, high), volume_mm3 in zip(limits, true[200:], strict=True)]
    assert 0.84 <= np.mean(covered) <= 0.96  # 0.9, and three standard errors of 200 draws
    assert VolumeInterval.of({"volume_interval": dataclasses.asdict(model)}) == model
    assert VolumeInterval.of({}) is None
    for entry in (None, {"factor": 1.2}, dataclasses.asdict(model) | {"factor": math.nan}):
        with pytest.raises(InputError, match="volume_interval: numbers for factor, nominal, scans"):
            VolumeInterval.of({"volume_interval": entry})


def test_a_certain_network_has_no_uncertain_volume():
    mask = Volume(label_map(vs=np.s_[5:9, 5:15, 5:15]).array > 0, GRID)
    assert uncertain_volume(mask, mask.array.astype(np.float32)) == 0
    assert uncertain_volume(mask, np.where(mask.array, 0.5, 0.0)) == pytest.approx(0.5)


def test_a_label_of_another_grid_is_refused_in_one_sentence(tmp_path, run):
    label, scan = tmp_path / "label.nii.gz", tmp_path / "scan.nii.gz"
    volume.write(label_map(vs=np.s_[5:9, 5:15, 5:15]), label)
    grid = dataclasses.replace(GRID, spacing=(0.7, 0.7, 1.5))
    volume.write(Volume(np.random.default_rng(0).normal(100, 9, GRID.shape).astype(np.float32), grid), scan)
    code, out, err = run("measure", label, "--scan", scan)
    assert (code, out) == (2, "")
    assert "different grids" in err and err.count("\n") == 1


def test_the_table_has_a_number_in_every_column_with_a_unit(tmp_path, run):
    path: Path = tmp_path / "label.nii.gz"
    volume.write(label_map(vs=np.s_[5:9, 5:15, 5:15], cochlea=np.s_[5:7, 5:7, 30:34]), path)
    code, out, _ = run("measure", path, "--csv")
    header, tumor, cochlea = (line.split(",") for line in out.replace('"volume, ', '"volume ').splitlines())
    assert code == 0 and header[2] == "volume [mm3]" and float(tumor[2]) == pytest.approx(400 * 0.375)
    assert (tumor[0], cochlea[0]) == ("VS", "cochlea")


def test_a_case_has_one_row_with_its_larger_tumor_and_both_cochleae():
    grid = Grid((160, 10, 10), (0.5, 0.5, 0.5), (-40.0, 0.0, 0.0), STRAIGHT)
    array = np.zeros(grid.shape, np.uint8)
    array[5, 5, 10:14] = array[5, 5, 140:148] = 2
    array[4:7, 4:7, 20:40], array[4:7, 4:7, 120:130] = 1, 1
    row = dict(zip(CASE_COLUMNS, case_row(measure(Volume(array, grid)), grid), strict=True))
    assert (row["tumors"], row["side"]) == (2, "right")
    assert row["volume [mm3]"] == pytest.approx(180 / 8)
    assert row["volume of the other tumor [mm3]"] == pytest.approx(90 / 8, abs=0.01)
    assert (row["left cochlea [mm3]"], row["right cochlea [mm3]"]) == (1.0, 0.5)
    nothing = dict(zip(CASE_COLUMNS, case_row(measure(label_map()), GRID), strict=True))
    assert nothing["tumors"] == 0 and nothing["volume [mm3]"] is None
