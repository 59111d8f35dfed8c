"""The whole chain on small digital subjects: every step runs, is scored, and is reused in a second run."""

from pathlib import Path

import pytest

from crossmoda import demo, simulation, volume
from crossmoda.errors import InputError
from crossmoda.labels import STRUCTURES

pytestmark = pytest.mark.slow

SUBJECTS = simulation.Settings(
    field_of_view=130, slices=36, in_plane_spacing=1.0, slice_thickness=1.5, tumor_volume=2500, rotation=2, oblique=0
)
SETTINGS = demo.DemoSettings(atlases=2, targets=1, tests=1, training_seconds=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, demo.DemoResult]:
    folder = tmp_path_factory.mktemp("démo folder") / "demo"
    return folder, demo.run(folder, SETTINGS, subjects=SUBJECTS)


def test_every_listed_file_exists(finished: tuple[Path, demo.DemoResult]) -> None:
    for path in finished[1].files.values():
        assert path.is_file() and path.stat().st_size > 0


def test_registration_brings_the_structures_closer(finished: tuple[Path, demo.DemoResult]) -> None:
    scores = finished[1].scores
    for structure in STRUCTURES:
        dice = {
            step: [case[structure.key]["dice"] for case in scores[step].values()]
            for step in (demo.BY_HEADER, demo.ONE_ATLAS)
        }
        assert sum(dice[demo.ONE_ATLAS]) > sum(dice[demo.BY_HEADER])


def test_the_fused_label_is_useful(finished: tuple[Path, demo.DemoResult]) -> None:
    (case,) = finished[1].scores[demo.FUSED].values()
    assert case["VS"]["dice"] > 0.5 and case["cochlea"]["dice"] > 0.4


def test_only_test_cases_are_scored(finished: tuple[Path, demo.DemoResult]) -> None:
    assert set(finished[1].scores[demo.FINE_TUNED]) == {"crossmoda_4"}


def test_the_segmentation_lies_on_the_targets_grid(finished: tuple[Path, demo.DemoResult]) -> None:
    files = finished[1].files
    target = volume.read(files["T2 scan"])
    assert volume.read_label_map(files["segmentation"], target.grid).grid == target.grid


def test_the_table_has_a_line_for_every_step(finished: tuple[Path, demo.DemoResult]) -> None:
    lines = demo.table(finished[1].scores).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == list(finished[1].scores)


def test_a_second_run_reuses_finished_steps_and_scores_the_same(finished: tuple[Path, demo.DemoResult]) -> None:
    folder, first = finished
    kept = [*folder.glob("dataset/*/*"), *folder.glob("propagated/**/*.nii.gz"), first.files["network weights"]]
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = demo.run(folder, SETTINGS, subjects=SUBJECTS)
    assert demo.table(again.scores) == demo.table(first.scores)
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_other_settings_do_not_overwrite_an_earlier_demo(finished: tuple[Path, demo.DemoResult]) -> None:
    with pytest.raises(InputError, match="another folder"):
        demo.run(finished[0], demo.DemoSettings(atlases=3), subjects=SUBJECTS)
