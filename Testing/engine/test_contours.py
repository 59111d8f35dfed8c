"""Contours become the label maps that their drawer saw."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from crossmoda.dataset.contours import rasterize, read_contours
from crossmoda.errors import InputError
from crossmoda.evaluation import dice
from crossmoda.volume import Grid, Volume, read_label_map

AXES = tuple(np.eye(3).ravel().tolist())
GRID = Grid((40, 36, 10), (0.5, 0.5, 1.5), (-10.0, -9.0, -7.0), AXES)


def circle(radius: float, z: float, center: tuple[float, float] = (0.0, 0.0), count: int = 200) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x, y = center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)
    return np.stack([x, y, np.full(count, z)], axis=1)


def level(number: int) -> float:
    return GRID.origin[2] + number * GRID.spacing[2]


def points_of(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")[::-1], axis=-1)
    return index @ grid.index_to_physical[:3, :3].T + grid.index_to_physical[:3, 3]


def test_a_circle_fills_the_voxels_whose_center_lies_inside() -> None:
    label_map = rasterize({"VS": [circle(5.0, level(4), (0.1, -0.2), 2000)]}, GRID)
    points = points_of(GRID)
    expected = np.hypot(points[..., 0] - 0.1, points[..., 1] + 0.2) < 5.0
    expected[[0, 1, 2, 3, 5, 6, 7, 8, 9]] = False
    assert label_map.grid == GRID
    assert label_map.array.dtype == np.uint8
    assert np.array_equal(label_map.array == 1, expected)


def test_a_contour_inside_another_is_a_hole_and_one_in_the_hole_is_filled() -> None:
    rings = [circle(8.0, level(3)), circle(5.0, level(3)), circle(2.0, level(3))]
    found = rasterize({"TV": rings}, GRID).array[3] == 1
    radius = np.hypot(points_of(GRID)[3, ..., 0], points_of(GRID)[3, ..., 1])
    safe = np.min(np.abs(radius[..., None] - [2.0, 5.0, 8.0]), axis=-1) > 0.02
    assert np.array_equal(found[safe], ((radius < 2) | ((radius > 5) & (radius < 8)))[safe])


def test_the_direction_and_the_start_of_a_polygon_do_not_matter() -> None:
    outline = circle(4.3, level(2), (0.3, 0.4), 50)
    first = rasterize({"AN": [outline]}, GRID).array
    assert np.array_equal(rasterize({"AN": [np.roll(outline[::-1], 17, axis=0)]}, GRID).array, first)


def test_the_area_of_a_small_polygon_is_right_on_average() -> None:
    """Sub-voxel placement: 200 random positions of a 3.1 x 2.3 mm rectangle cover its area without bias."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(200):
        x, y = rng.uniform(-4, 4, 2)
        polygon = np.array([[0, 0, 0], [3.1, 0, 0], [3.1, 2.3, 0], [0, 2.3, 0]])
        polygon += (x, y, level(5))
        areas.append(np.count_nonzero(rasterize({"VS": [polygon]}, GRID).array) * 0.25)
    assert np.mean(areas) == pytest.approx(3.1 * 2.3, rel=0.02)


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 0, 1), (0, 1, 2)], ids=["sagittal", "coronal", "axial"])
def test_any_acquisition_plane_is_recognized(axes: tuple[int, int, int]) -> None:
    image = sitk.PermuteAxes(Volume(np.zeros(GRID.shape, np.uint8), GRID).to_sitk(), axes)
    grid = Grid.of(sitk.Flip(image, (True, False, True)))
    polygons = [circle(5.0, level(number), (0.13, 0.21)) for number in range(3, 7)]
    reference = rasterize({"VS": polygons}, GRID)
    found = rasterize({"VS": polygons}, grid)
    moved = sitk.GetArrayFromImage(
        sitk.Resample(found.to_sitk(), reference.to_sitk(), sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    assert np.array_equal(moved, reference.array)


def test_oblique_slices_hold_the_contours_that_were_drawn_on_them() -> None:
    euler = sitk.Euler3DTransform()
    euler.SetRotation(0.2, -0.1, 0.3)
    turn = np.reshape(euler.GetMatrix(), (3, 3))
    oblique = Grid(GRID.size, GRID.spacing, tuple((turn @ GRID.origin).tolist()), tuple(turn.ravel().tolist()))
    polygons = [circle(5.0, level(number), (0.13, 0.21)) for number in range(3, 7)]
    found = rasterize({"VS": [polygon @ turn.T for polygon in polygons]}, oblique)
    assert np.array_equal(found.array, rasterize({"VS": polygons}, GRID).array)


@pytest.mark.parametrize("step", [0.5, 1.0, 3.0], ids=str)
def test_contours_on_thinner_or_thicker_slices_fill_the_same_volume(step: float) -> None:
    levels = np.arange(level(1), level(8), step)
    found = rasterize({"VS": [circle(5.0, float(z)) for z in levels]}, GRID)
    volume = np.count_nonzero(found.array) * GRID.voxel_volume_mm3
    assert volume == pytest.approx(np.pi * 25 * len(levels) * step, abs=np.pi * 25 * 1.5)
    filled = found.array.any(axis=(1, 2))
    assert filled[1:7].all()


def test_the_cochlea_lies_on_top_and_other_structures_are_left_out() -> None:
    contours = {
        "Cochlea": [circle(2.0, level(4))],
        "AN": [circle(5.0, level(4))],
        "Vol 2y": [circle(8.0, level(4))],
    }
    found = rasterize(contours, GRID).array
    assert found[4, 18, 20] == 2
    assert found[4, 18, 27] == 1
    assert found[4, 18, 33] == 0


def test_contours_without_a_known_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"No contour is named .*: Vol 2y, Men\."):
        rasterize({"Vol 2y": [circle(5.0, level(4))], "Men": []}, GRID)


def test_contours_of_another_image_are_refused() -> None:
    with pytest.raises(InputError, match=r"Contour planes outside the image: 1 of 2\."):
        rasterize({"VS": [circle(5.0, level(4)), circle(5.0, level(30))]}, GRID)
    tilted = circle(6.0, level(4))
    tilted[:, 2] += tilted[:, 0]
    tilted[:, 1] += 0.5 * tilted[:, 0]
    with pytest.raises(InputError, match=r"do not lie in the slices of the image: \d+\.\d mm"):
        rasterize({"VS": [tilted]}, GRID)


def test_files_that_are_no_contours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_contours(tmp_path / "none.json")
    number = '[{"structure_name": "VS", "LPS_contour_points": [[[' + "9" * 400 + ", 2, 3]]]}]"
    for content in ("{", '{"a": 1}', '[{"structure_name": "VS"}]', "[1, 2]", number, "[" * 100_000):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(InputError, match="not a contour file"):
            read_contours(tmp_path / "c.json")
    for points in ("[[[NaN, 2, 3], [4, 5, 6], [7, 8, 10]]]", "[[[1e999, 2, 3], [4, 5, 6], [7, 8, 10]]]"):
        (tmp_path / "c.json").write_text(f'[{{"structure_name": "VS", "LPS_contour_points": {points}}}]')
        with pytest.raises(InputError, match="a point of a contour of VS is not a number"):
            read_contours(tmp_path / "c.json")


def test_contour_json_is_read_with_all_polygons_of_a_name(tmp_path: Path) -> None:
    entries = [
        {"structure_name": "AN", "LPS_contour_points": [circle(5.0, level(4)).tolist()]},
        {"structure_name": "AN", "LPS_contour_points": [circle(4.0, level(5)).tolist()]},
    ]
    (tmp_path / "contours ü.json").write_text(json.dumps(entries))
    found = read_contours(tmp_path / "contours ü.json")
    assert list(found) == ["AN"]
    assert np.allclose(found["AN"][1], circle(4.0, level(5)))


def test_an_rtstruct_gives_the_same_label_map_as_its_contours(
    tmp_path: Path, write_rtstruct: Callable[..., None]
) -> None:
    contours = {"TV": [circle(5.0, level(4)), circle(4.0, level(5))], "Cochlea": [circle(1.5, level(5), (7.0, 2.0))]}
    write_rtstruct(tmp_path / "rt.dcm", contours)
    found = rasterize(read_contours(tmp_path / "rt.dcm"), GRID)
    assert np.array_equal(found.array, rasterize(contours, GRID).array)


def damaged_rtstruct(path: Path, damage: Callable[[Any], None]) -> None:
    import pydicom

    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that such values break the standard
        damage(dataset)
        dataset.save_as(path)


def set_points(dataset: Any, values: list[str]) -> None:
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = values


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda it: it.StructureSetROISequence[0].__delattr__("ROIName"), "damaged or incomplete RTSTRUCT"),
        (lambda it: it.StructureSetROISequence[0].__delattr__("ROINumber"), "damaged or incomplete RTSTRUCT"),
        (lambda it: it.__delattr__("StructureSetROISequence"), "damaged or incomplete RTSTRUCT"),
        (lambda it: it.ROIContourSequence[0].__delattr__("ReferencedROINumber"), "damaged or incomplete RTSTRUCT"),
        (lambda it: it.ROIContourSequence[0].ContourSequence[0].__delattr__("ContourData"), "damaged or incomplete"),
        (lambda it: it.ROIContourSequence[0].ContourSequence[0].__delattr__("ContourGeometricType"), "damaged or"),
        (lambda it: setattr(it.ROIContourSequence[0].ContourSequence[0], "ContourGeometricType", None), "damaged or"),
        (lambda it: set_points(it, ["1", "2", "3", "4"]), "damaged or incomplete RTSTRUCT"),
        (lambda it: set_points(it, ["1", "2", "3"] * 19), "missing points in a contour of TV"),
        (lambda it: set_points(it, ["nan"] + ["1"] * 59), "a point of a contour of TV is not a number"),
        (lambda it: setattr(it.StructureSetROISequence[0], "ROIName", ""), r"without a name \(number 1\)"),
        (lambda it: setattr(it.ROIContourSequence[0], "ReferencedROINumber", 9), r"without a name \(number 9\)"),
        (lambda it: setattr(it.StructureSetROISequence[1], "ROINumber", 1), "two structures with the same number"),
        (lambda it: it.__delattr__("ROIContourSequence"), r"No contour is named .*: none\."),
        (lambda it: it.__delattr__("Modality"), "DICOM without a modality"),
        (lambda it: setattr(it, "Modality", "CT"), "DICOM of the modality CT"),
    ],
)
def test_a_damaged_rtstruct_is_refused_before_a_structure_gets_lost(
    tmp_path: Path, write_rtstruct: Callable[..., None], damage: Callable[[Any], None], sentence: str
) -> None:
    contours = {"TV": [circle(5.0, level(4), count=20)], "Cochlea": [circle(1.5, level(5), (7.0, 2.0))]}
    write_rtstruct(tmp_path / "rt.dcm", contours)
    damaged_rtstruct(tmp_path / "rt.dcm", damage)
    with pytest.raises(InputError, match=sentence):
        rasterize(read_contours(tmp_path / "rt.dcm"), GRID)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_an_rtstruct_cut_short_anywhere_is_refused(
    tmp_path: Path, write_rtstruct: Callable[..., None], share: float
) -> None:
    contours = {"TV": [circle(5.0, level(4), count=20)], "Cochlea": [circle(1.5, level(5), (7.0, 2.0), count=20)]}
    write_rtstruct(tmp_path / "rt.dcm", contours)
    content = (tmp_path / "rt.dcm").read_bytes()
    (tmp_path / "rt.dcm").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError):
        rasterize(read_contours(tmp_path / "rt.dcm"), GRID)


def test_contours_that_miss_the_image_or_fill_nothing_are_refused() -> None:
    good = circle(5.0, level(4))
    with pytest.raises(InputError, match=r"Contours outside the image: 1 of 2\."):
        rasterize({"VS": [good, circle(5.0, level(5), (500.0, 0.0))]}, GRID)
    stray = good.copy()
    stray[3, 1] = 1e9
    with pytest.raises(InputError, match=r"Contours outside the image: 1 of 1\."):
        rasterize({"VS": [stray]}, GRID)
    for nothing in (good[:2], np.repeat(good[:1], 9, axis=0), good[:1]):
        with pytest.raises(InputError, match=r"The contours fill no voxel of the image: cochlea\."):
            rasterize({"VS": [good], "cochlea": [nothing]}, GRID)


@pytest.mark.shared_data
@pytest.mark.parametrize("subject", ["003", "005", "009", "013", "021"])
@pytest.mark.parametrize("space", ["T1", "T2"])
def test_real_contours_give_the_label_maps_that_were_rasterized_independently(
    shared_data: Path, subject: str, space: str
) -> None:
    folder = shared_data / "vs_seg_contours"
    reference = read_label_map(folder / "labels" / f"VS-SEG-{subject}_{space}wspace_label.nii.gz")
    contours = read_contours(folder / "json" / f"sub-{subject}_contours_space-individual_{space}w.json")
    found = rasterize(contours, reference.grid)
    for value, least in ((1, 0.985), (2, 0.94)):
        mask, truth = found.array == value, reference.array == value
        assert dice(mask, truth) > least
        assert mask.sum() == pytest.approx(truth.sum(), rel=0.05)
