"""Pictures show the right slice, the right side and the right colors."""

import numpy as np
import pytest

from crossmoda import figures
from crossmoda.labels import COCHLEA, STRUCTURES, VS
from crossmoda.volume import Grid, Volume


def volume(array: np.ndarray, direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> Volume:
    return Volume(array, Grid(array.shape[::-1], (0.5, 0.5, 1.5), (0.0, 0.0, 0.0), direction))


@pytest.fixture
def head() -> tuple[Volume, Volume]:
    image = np.random.default_rng(0).random((12, 60, 80), np.float32)
    label_map = np.zeros(image.shape, np.uint8)
    label_map[7, 20:30, 10:20] = VS
    label_map[5, 30:34, 8:12] = COCHLEA
    label_map[6, 30:34, 60:64] = COCHLEA
    return volume(image), volume(label_map)


def test_the_whole_slice_goes_through_the_tumor(head: tuple[Volume, Volume]) -> None:
    assert figures.full_view(head[1].array).index == 7


def test_without_a_tumor_the_slice_goes_through_a_cochlea(head: tuple[Volume, Volume]) -> None:
    cochleae = np.where(head[1].array == VS, 0, head[1].array)
    assert figures.full_view(cochleae).index in (5, 6)


def test_close_views_hold_each_structure_and_name_the_patients_side(head: tuple[Volume, Volume]) -> None:
    views = figures.close_views(head[1])
    assert set(views) == {"VS", "cochlea, right", "cochlea, left"}
    assert (views["cochlea, left"].index, views["cochlea, right"].index) == (6, 5)
    assert (views["VS"].of(head[1].array) == VS).sum() == 100


def test_a_volume_of_any_orientation_is_shown_with_the_patients_left_on_the_right(head: tuple[Volume, Volume]) -> None:
    label_map = head[1].array
    flipped = volume(label_map[:, :, ::-1].copy(), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert np.array_equal(figures.oriented(flipped).array, label_map)


def test_checkerboard_takes_tiles_of_both_images_in_turn() -> None:
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    board = figures.checkerboard(ramp, np.zeros((64, 64)), tiles=2)
    assert board[16, 48] == 0 and board[48, 16] == 0
    assert board[48, 48] > 0.5


def test_contours_have_the_colors_of_the_table(head: tuple[Volume, Volume]) -> None:
    figure = figures.segmentation_figure(*head)
    drawn = {tuple(np.round(line.get_edgecolor()[0][:3], 3)) for axes in figure.axes for line in axes.collections}
    assert drawn == {tuple(np.round(np.asarray(structure.color) / 255, 3)) for structure in STRUCTURES}


def test_every_figure_can_be_drawn_when_nothing_was_found(head: tuple[Volume, Volume]) -> None:
    image, label_map = head
    empty = volume(np.zeros_like(label_map.array))
    made = [
        figures.registration_figure(image, image, image, {"before": empty, "after": empty}),
        figures.fusion_figure(image, [empty], empty, volume(np.zeros(image.array.shape, np.float32))),
        figures.segmentation_figure(image, empty, empty),
    ]
    assert all(len(figure.axes) >= 2 for figure in made)
